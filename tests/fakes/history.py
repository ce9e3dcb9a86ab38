"""What must hold of a finished run, read off what is durable (RESILIENCE, part 10)."""

import itertools

import numpy as np

from fedsecure.checkpoint.replicate import Replicas
from fedsecure.drills.history import Commit, History
from fedsecure.errors import FedsecureError
from fedsecure.metadata import Head, JournalEntry, Step
from fedsecure.server_round import read_detail
from tests.fakes.federation import QUORUM, Federation

_TOLERANCE = 1e-5  # of the 20-bit profile at value range 1, over a few rounds


def violations(federation: Federation) -> list[str]:
    """Return one sentence for each invariant that a finished run breaks."""
    checks = (_models, _steps, _releases, _outboxes, _payments, _leftovers)
    return [line for check in checks for line in check(federation)]


def history_of(federation: Federation) -> History:
    """Return what a run left, as the checker of the drills takes it."""
    sites = federation.sites
    return History(
        federation.run,
        federation.terms.rounds,
        federation.private,
        federation.journal(),
        [_commit(federation, head) for head in heads(federation)],
        federation.terms_led,
        {name: site.records() for name, site in sites.items()},
        {name: site.deaths for name, site in sites.items()},
    )


def _commit(federation: Federation, head: Head) -> Commit:
    manifest, lost, rows = federation.vault("agg-1").manifest(head), [], {}
    named = [(f"store-{i}", store) for i, store in enumerate(federation.stores)]
    for some in itertools.combinations(named, len(named) - QUORUM + 1):
        vault = federation.vault("agg-1")
        vault._replicas = vault._book._replicas = Replicas(some, 1)
        try:
            release = vault.verify_release(head)
        except FedsecureError:
            lost.append(" and ".join(name for name, _ in some))
        else:
            rows = {site: digest.hex() for site, digest in release.participants}
    return Commit(
        head.round,
        head.sequence,
        manifest.term,
        head.manifest.hex(),
        manifest.prev,
        manifest.release,
        rows,
        tuple(lost),
    )


def heads(federation: Federation) -> list[Head]:
    """Return the committed heads, in order."""
    out = []
    for entry in federation.journal():
        if entry.step == Step.RELEASE:
            detail = read_detail(entry)
            manifest = bytes.fromhex(str(detail["manifest"]))
            sequence = int(str(detail["sequence"]))
            out.append(Head(federation.run, entry.round, sequence, manifest, 0))
    return out


def _models(federation: Federation) -> list[str]:
    models = federation.models()
    without = sorted(name for name, model in models.items() if not model)
    if without:
        return [f"I8: {without} never opened the last release"]
    if len(set(models.values())) != 1:
        return ["I7: sites hold different models"]
    model = np.frombuffer(next(iter(models.values())), dtype="<f8")
    off = float(np.abs(model - federation.expected_model()).max())
    return [f"I5: the model is {off} off FedAvg"] if off > _TOLERANCE else []


def _of(entries: list[JournalEntry], number: int, step: Step) -> list[JournalEntry]:
    return [e for e in entries if e.round == number and e.step == step]


def _steps(federation: Federation) -> list[str]:
    entries, out = federation.journal(), list[str]()
    for number in range(1, federation.terms.rounds + 1):
        out += [
            f"I8: round {number} has not exactly one {step}"
            for step in (Step.OPEN, Step.CLOSE, Step.RELEASE, Step.PUBLISH)
            if len(_of(entries, number, step)) != 1
        ]
        rows = sorted(e.site for e in _of(entries, number, Step.UPDATE))
        if rows != sorted(federation.terms.sites):
            out.append(f"I5: round {number} has updates of {rows}")
    return out


def _releases(federation: Federation) -> list[str]:
    vault, previous, out = federation.vault("agg-1"), "", []
    for head in heads(federation):
        manifest = vault.manifest(head)
        if manifest.prev != previous:
            out.append(f"I1: manifest {head.sequence} does not follow its predecessor")
        previous = head.manifest.hex()
        try:
            release = vault.verify_release(head)
        except FedsecureError as bad:
            out.append(f"I4: round {head.round} is not restored: {bad}")
            continue
        for name, site in federation.sites.items():
            kept = site.shelf().answer(head.round)
            own = b"" if kept is None else kept.head.digest()
            if dict(release.participants).get(name) != own:
                out.append(f"I5: round {head.round} counts another update of {name}")
            if site.opened().get(head.round) != release.digest().hex():
                out.append(f"I7: {name} opened another release of round {head.round}")
    return out


def _outboxes(federation: Federation) -> list[str]:
    out: list[str] = []
    for name, site in federation.sites.items():
        for number in range(federation.terms.rounds + 1):
            kept, pieces = (
                site.shelf().answer(number),
                f"{federation.run}/body/{number}/",
            )
            size = sum(len(site.store.objects[k]) for k in site.store.keys(pieces))
            if size != (0 if kept is None else kept.head.body_bytes):
                out.append(f"S2: {name} keeps {size} bytes of round {number}")
            elif kept is not None:
                kept.check()
    return out


def _payments(federation: Federation) -> list[str]:
    out: list[str] = []
    if not federation.private:
        return out
    for name, site in federation.sites.items():
        out += [f"I6: {name} trained round {n} unpaid" for n in site.trainer.unpaid]
        for number, times in site.trainer.trained.items():
            paid = site.reservations(number)
            # A death between reservation and outbox is paid for, never refunded.
            if not times <= paid <= times + site.deaths:
                out.append(f"I6: {name} trained {times} times, paid {paid}: {number}")
    return out


def _leftovers(federation: Federation) -> list[str]:
    left = {k for s in federation.stores for k in s.objects if k.startswith("update/")}
    return [f"{key} outlives its round" for key in sorted(left)]
