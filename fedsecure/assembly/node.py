"""A site's kit becomes a working ClientRound: where policy meets round."""

import os
from collections.abc import Mapping
from pathlib import Path

from fedsecure import registry
from fedsecure.access.kit import Kit
from fedsecure.access.policy import Asked, SitePolicy, read_policy
from fedsecure.access.privacyrules import Promise
from fedsecure.access.roster import Role
from fedsecure.accounting import PrivacyEvent, Relation, enforced_with
from fedsecure.assembly.budgets import PolicyBudgets
from fedsecure.client_round import ClientRound
from fedsecure.client_run import Identity
from fedsecure.clock import Clock, SystemClock
from fedsecure.disk import SystemDisk
from fedsecure.errors import LedgerCorrupt, NotFound, PolicyRefused
from fedsecure.keys import VerifyKey, derive
from fedsecure.ledger import Ledger, verify_ledger
from fedsecure.privacy.budget import Budget, Content
from fedsecure.privacy.charged import charged
from fedsecure.runplan import RunPlan
from fedsecure.shelf import Shelf
from fedsecure.stores import Store
from fedsecure.update import JSON, Layout, RoundId
from fedsecure.witness import check_outbox

MAX_BYTES = 1 << 30
_SMALL = 1 << 18
_BYTES_A_BLOCK = 4096 * 15 // 2 + 64
_MARGIN = 1 << 16


class PolicyGate:
    """The site's policy file, read again at each request: a change acts at once."""

    def __init__(self, kit: Kit, clock: Clock) -> None:
        self._kit = kit
        self._clock = clock
        self._read: tuple[tuple[bytes, bytes, bytes], SitePolicy] | None = None

    def policy(self) -> SitePolicy:
        """Return the verified policy.

        Raises
        ------
        PolicyRefused
            Missing, unsigned, of another site, expired or not readable.
        """
        disk, path = SystemDisk(), self._kit.path
        try:
            text = disk.read(path / "policy.yaml", _SMALL)
            signature = disk.read(path / "policy.yaml.sig", 64)
            steward = disk.read(path / "steward.pub", 32)
        except NotFound as missing:
            raise PolicyRefused(f"no policy, no round: {missing}") from missing
        found = (text, signature, steward)
        # Read each time, parsed and verified when a byte changed: YAML is slow.
        if self._read is None or self._read[0] != found:
            key = VerifyKey(steward)
            self._read = found, read_policy(text, signature, key, self._kit.name)
        return self._read[1]

    def check(self, plan: RunPlan, layout: Layout | None) -> None:
        """Return only if the policy allows the plan; PolicyRefused otherwise."""
        today = self._clock.wall().strftime("%Y-%m-%dT%H:%M:%SZ")
        project, where = self.policy().project(plan.project, today)
        project.check(_asked(plan, layout), where)

    def check_norm(self, plan: RunPlan, norm: float) -> None:
        """Return only if an update of this L2 norm may leave; PolicyRefused."""
        today = self._clock.wall().strftime("%Y-%m-%dT%H:%M:%SZ")
        project, where = self.policy().project(plan.project, today)
        project.check_norm(norm, where)


def build_round(kit: Kit, content: Content, store: Store, state: Path) -> ClientRound:
    """Return a site's half of every round.

    Parameters
    ----------
    content : Content
        The site's data set: id, fingerprint, rows.
    store : Store
        Shelves and outbox.
    state : Path
        Folder of the ledger.

    Raises
    ------
    PolicyRefused
        No valid policy, or it refuses that the rows changed.
    LedgerCorrupt
        The site's ledger does not verify, or is older than what the outbox shows of
        it: nothing is trained on.
    """
    kit.require(Role.SITE)
    clock = SystemClock()
    gate = PolicyGate(kit, clock)
    ledger = _ledger(kit, state / "ledger.jsonl", clock)
    me = Identity(kit.roster.federation, kit.name, kit.signing, kit.box)
    check_outbox(ledger, store, me)
    budgets = PolicyBudgets(gate.policy, content, ledger)
    recover_budgets(budgets, store)
    return ClientRound(
        me, kit.roster, gate, ledger, budgets, store, os.urandom, max_bytes=MAX_BYTES
    )


def _ledger(kit: Kit, path: Path, clock: SystemClock) -> Ledger:
    try:
        return Ledger.open(path, kit.name, kit.signing, SystemDisk(), clock)
    except LedgerCorrupt as bad:
        raise LedgerCorrupt(
            f"{bad}. Nothing is trained on a ledger that does not verify. `fedsecure "
            "ledger verify` names a copy's first bad line: compare with backups, put "
            "back the longest that verifies whole; aggregators say what it then lacks. "
            "If none is left the account is lost: retire the data set's id"
        ) from bad


def privacy_history(state: Path, plan: Mapping[str, JSON]) -> tuple[float, ...]:
    """Return epsilon after each of a run's rounds, from a site's ledger; local only.

    Valued by `pld`, or by `rdp` where noise is discrete, at the plan's delta. Empty in
    mode `none`. Counts told with a round belong to it; those told after the last one
    are a round of their own.
    """
    section = plan["privacy"]
    if not isinstance(section, dict) or section["mode"] == "none":
        return ()
    events: dict[int, list[PrivacyEvent]] = {}
    for record in verify_ledger(state / "ledger.jsonl", SystemDisk()):
        if record.action == "budget.reserve" and record.run == plan["run"]:
            events.setdefault(record.round, []).extend(charged([record]))
    every = [event for round_ in events.values() for event in round_]
    name, delta = enforced_with(every), float(str(section["delta"]))
    accountant = registry.load("accounting", name).create(Relation.ADD_OR_REMOVE_ONE)
    history = []
    for number in sorted(events):
        for event in events[number]:
            accountant.compose(event)
        history.append(accountant.epsilon(delta))
    return tuple(history)


def recover_budgets(budgets: Mapping[str, Budget], store: Store) -> None:
    """Settle what a crash left open: committed if its bytes are kept, else void."""

    def outbox(round_id: RoundId) -> bytes | None:
        kept = Shelf(store, round_id.run, MAX_BYTES).answer(round_id.number)
        # The head alone: an answer exists when its head does.
        return None if kept is None else kept.head.to_bytes()

    for budget in budgets.values():
        budget.recover(outbox)


def fingerprint(kit: Kit, digest: bytes) -> str:
    """Return a keyed fingerprint of a site's rows: only the site can compare it."""
    return derive(kit.box.to_bytes(), b"fedsecure-fingerprint-v1" + digest, 16).hex()


def _asked(plan: RunPlan, layout: Layout | None) -> Asked:
    size = 0
    if layout is not None:
        slots = 1024 if plan.scheme == "ckks" else 4096  # coefficients a ciphertext
        blocks = plan.profile.blocks(layout.num_parameters + 1, slots)
        size = blocks * _BYTES_A_BLOCK + _MARGIN
    return Asked(
        project=plan.project,
        dataset=plan.dataset,
        scheme=plan.scheme,
        metrics=plan.metrics,
        promise=_promise(plan),
        rounds=plan.rounds,
        max_bytes=size,
        open_layers=bool(plan.encryption.encrypt_layers),
        count_noise=0.0 if plan.counts is None else plan.counts.noise_multiplier,
    )


def _promise(plan: RunPlan) -> Promise:
    privacy = plan.privacy
    if privacy is None:
        return Promise()
    return Promise(
        str(privacy.mode),
        privacy.mode.unit,
        privacy.noise_multiplier,
        privacy.sample_rate,
        privacy.delta,
        plan.min_contributors,
        privacy.max_colluders,
    )
