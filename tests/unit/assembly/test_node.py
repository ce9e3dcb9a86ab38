"""A site's kit becomes a half of a round: policy, ledger, budget; or nothing at all."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from fedsecure.accounting import PrivacyEvent, Relation, guarantee
from fedsecure.assembly.node import (
    PolicyGate,
    build_round,
    fingerprint,
    privacy_history,
    recover_budgets,
)
from fedsecure.client_round import ClientRound
from fedsecure.disk import SystemDisk
from fedsecure.envelope import Head, Kind, Scope, sign_head
from fedsecure.errors import (
    ConfigurationError,
    KitError,
    LedgerCorrupt,
    PolicyRefused,
    StorageError,
)
from fedsecure.ledger import verify_ledger
from fedsecure.privacy.budget import Content
from fedsecure.receipts import HEADS, SignedHead, heads_document
from fedsecure.runplan import RunPlan, read_plan
from fedsecure.shelf import Shelf
from fedsecure.trainer import JSON
from fedsecure.update import RoundId
from tests.fakes.clock import FakeClock
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.kits import RULES, kit, make_kits, sign
from tests.fakes.openlayers import federation_of
from tests.fakes.store import FlakyStore

CONTENT = Content("data", "f" * 32, 50)
PLAN = Federation().plan


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kits(tmp_path_factory.mktemp("kits"))


@pytest.fixture
def kits(made: Path) -> Iterator[Path]:
    """Yield the kits; a policy that a test changed is signed anew after it."""
    yield made
    sign(made, "site-1", RULES, datetime.now(UTC))


def gate(kits: Path) -> PolicyGate:
    clock = FakeClock()
    clock.jump_wall(datetime.now(UTC).timestamp() - clock.wall().timestamp())
    return PolicyGate(kit(kits, "site-1"), clock)


def plan(**changes: JSON) -> RunPlan:
    return read_plan({**deepcopy(dict(PLAN)), **changes})


def build(kits: Path, state: Path, content: Content = CONTENT) -> ClientRound:
    return build_round(kit(kits, "site-1"), content, FlakyStore(), state)


# --- the policy at the gate -----------------------------------------------------------


def test_signed_policy_allows_the_plan(kits: Path) -> None:
    gate(kits).check(plan(), None)


@pytest.mark.parametrize("name", ["policy.yaml", "policy.yaml.sig", "steward.pub"])
def test_missing_policy_is_no_permission(kits: Path, name: str) -> None:
    path = kits / "site-1" / name
    held = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(PolicyRefused, match="no policy, no round"):
            gate(kits).check(plan(), None)
    finally:
        path.write_bytes(held)


def test_policy_changed_after_signing_is_refused(kits: Path) -> None:
    path = kits / "site-1" / "policy.yaml"
    path.write_text(path.read_text().replace("max_rounds: 10", "max_rounds: 99"))
    with pytest.raises(PolicyRefused):
        gate(kits).check(plan(), None)


def test_expired_policy_is_refused(kits: Path) -> None:
    sign(kits, "site-1", RULES, datetime(2020, 3, 1, tzinfo=UTC))
    with pytest.raises(PolicyRefused):
        gate(kits).check(plan(), None)


def test_policy_of_another_site_is_refused(kits: Path) -> None:
    for name in ("policy.yaml", "policy.yaml.sig"):
        (kits / "site-1" / name).write_bytes((kits / "site-2" / name).read_bytes())
    with pytest.raises(PolicyRefused):
        gate(kits).check(plan(), None)


@pytest.mark.parametrize(
    "change", [{"project": "other"}, {"dataset": "other"}, {"rounds": 11}]
)
def test_plan_beyond_the_policy_is_refused(
    kits: Path, change: Mapping[str, JSON]
) -> None:
    with pytest.raises(PolicyRefused):
        gate(kits).check(plan(**change), None)


def test_refusal_names_the_line_of_the_policy(kits: Path) -> None:
    text = (kits / "site-1" / "policy.yaml").read_text().splitlines()
    line = next(n for n, row in enumerate(text, start=1) if "max_rounds" in row)
    with pytest.raises(
        PolicyRefused, match=rf"max_rounds.*\(policy.yaml, line {line}\)"
    ):
        gate(kits).check(plan(rounds=11), None)


@pytest.mark.parametrize(
    ("field", "bound", "said"),
    [
        ("min_noise_multiplier", 1.5, "the plan has 1.0, at least 1.5"),
        ("max_sample_rate", 0.05, "the plan has 0.1, at most 0.05"),
        ("delta", 1e-6, "the plan has 1e-05, at most 1e-06"),
        ("min_surviving_sites", 4, "the plan has 3, at least 4"),
        ("unit", "user", "the plan has 'example', allowed"),
        ("modes", ["silo"], "the plan has 'example_local', allowed"),
    ],
)
def test_what_a_plan_promises_is_compared_with_the_policy(
    kits: Path, field: str, bound: object, said: str
) -> None:
    before = cast("dict[str, object]", RULES["privacy"])
    rules = {**RULES, "privacy": {**before, field: bound}}
    sign(kits, "site-1", rules, datetime.now(UTC))
    with pytest.raises(PolicyRefused, match=rf"privacy\.{field}: {said}"):
        gate(kits).check(plan(), None)


def test_mode_none_is_refused_where_privacy_is_asked(kits: Path) -> None:
    with pytest.raises(PolicyRefused):
        gate(kits).check(read_plan(Federation(private=False).plan), None)


def test_update_beyond_the_norm_bound_is_refused(kits: Path) -> None:
    gate(kits).check_norm(plan(), 99.0)
    with pytest.raises(PolicyRefused):
        gate(kits).check_norm(plan(), 101.0)


def test_layers_are_left_open_only_where_the_steward_says_so(kits: Path) -> None:
    open_run = read_plan(federation_of(["head.*"]).plan)
    rules = {**RULES, "schemes": ["bfv"]}
    rules["privacy"] = {
        **cast("dict[str, object]", RULES["privacy"]),
        "modes": ["none"],
    }
    sign(kits, "site-1", rules, datetime.now(UTC))
    with pytest.raises(PolicyRefused, match=r"projects\[project\].open_layers"):
        gate(kits).check(open_run, None)
    sign(kits, "site-1", {**rules, "open_layers": True}, datetime.now(UTC))
    gate(kits).check(open_run, None)


def test_changed_policy_acts_at_once(kits: Path) -> None:
    watch = gate(kits)
    watch.check(plan(), None)
    sign(kits, "site-1", {**RULES, "runs": {"max_rounds": 1}}, datetime.now(UTC))
    with pytest.raises(PolicyRefused):
        watch.check(plan(), None)


# --- building -------------------------------------------------------------------------


def test_built_half_opens_budget_and_ledger(kits: Path, tmp_path: Path) -> None:
    build(kits, tmp_path).close()
    actions = [r.action for r in verify_ledger(tmp_path / "ledger.jsonl", SystemDisk())]
    assert "budget.open" in actions


def test_aggregator_s_kit_is_refused(kits: Path, tmp_path: Path) -> None:
    with pytest.raises(KitError, match="kit of aggregator agg-1"):
        build_round(kit(kits, "agg-1"), CONTENT, FlakyStore(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_data_set_no_project_may_use_is_refused(kits: Path, tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match="no project may use data set 'other'"):
        build(kits, tmp_path, replace(CONTENT, dataset="other"))


def test_broken_ledger_ends_the_site(kits: Path, tmp_path: Path) -> None:
    build(kits, tmp_path).close()
    path = tmp_path / "ledger.jsonl"
    path.write_text(path.read_text().replace("budget.open", "budget.opem"))
    with pytest.raises(LedgerCorrupt, match=r"line 2: edited.*fedsecure ledger verify"):
        build(kits, tmp_path)


def test_ledger_put_back_alone_ends_the_site(kits: Path, tmp_path: Path) -> None:
    held, store = kit(kits, "site-1"), FlakyStore()
    build_round(held, CONTENT, store, tmp_path).close()
    key = held.signing
    later = SignedHead.make("site-1", 99, bytes(32), key)
    header: dict[str, JSON] = {HEADS: heads_document([later])}

    def seal(size: int, sha256: str) -> Head:
        scope = Scope(RoundId("run-1", 1), "site-1", b"", b"", b"")
        body = (size, sha256)
        return sign_head(Kind.UPDATE, scope, header, body, signer="site-1", key=key)

    Shelf(store, "run-1", 1 << 20).keep_answer(1, [b"body"], seal)
    before = (tmp_path / "ledger.jsonl").read_bytes()
    with pytest.raises(LedgerCorrupt, match=r"lines 3 to 99 are missing"):
        build_round(held, CONTENT, store, tmp_path)
    assert (tmp_path / "ledger.jsonl").read_bytes() == before


def test_second_process_of_a_site_is_refused(kits: Path, tmp_path: Path) -> None:
    first = build(kits, tmp_path)
    try:
        with pytest.raises(StorageError, match="locked"):
            build(kits, tmp_path)
    finally:
        first.close()


def test_no_rows_are_no_budget(kits: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'data' has 0 rows"):
        build(kits, tmp_path, replace(CONTENT, rows=0))


# --- what a crash left ----------------------------------------------------------------


def test_reservation_with_an_answer_is_committed_and_without_is_void(
    kits: Path, tmp_path: Path
) -> None:
    half, store = build(kits, tmp_path), FlakyStore()
    budget = half._charges._budgets["data"]
    event = PrivacyEvent("poisson_gaussian", 1.0, 0.1, 1)
    for number in (1, 2):
        budget.reserve(RoundId("run-1", number), b"p" * 32, event)

    def seal(size: int, sha256: str) -> Head:
        scope = Scope(RoundId("run-1", 1), "site-1", b"", b"", b"")
        return Head("update", scope, b"{}", size, sha256, "site-1", bytes(64))

    Shelf(store, "run-1", MAX_BYTES).keep_answer(1, [b"answer"], seal)
    recover_budgets({"data": budget}, store)
    half.close()
    records = verify_ledger(tmp_path / "ledger.jsonl", SystemDisk())
    settled = [(r.action, r.round) for r in records[-2:]]
    assert settled == [("budget.commit", 1), ("budget.void", 2)]


def test_history_is_epsilon_after_each_round_of_the_run(
    kits: Path, tmp_path: Path
) -> None:
    half = build(kits, tmp_path)
    event = PrivacyEvent("poisson_gaussian", 1.0, 0.1, 1)
    for run, number in (("run-1", 1), ("other", 1), ("run-1", 2)):
        half._charges._budgets["data"].reserve(RoundId(run, number), b"p" * 32, event)
    half.close()
    history = privacy_history(tmp_path, PLAN)
    assert len(history) == 2
    assert 0 < history[0] < history[1]


def test_history_of_discrete_noise_is_valued_by_the_bound_that_holds_for_it(
    kits: Path, tmp_path: Path
) -> None:
    half = build(kits, tmp_path)
    event = PrivacyEvent.of_shares(30.0, 1.0, 1, 4, 50.0, 650)
    for number in (1, 2):
        half._charges._budgets["data"].reserve(
            RoundId("run-1", number), b"p" * 32, event
        )
    half.close()
    delta = float(str(PLAN["privacy"]["delta"]))  # type: ignore[index,call-overload]
    expected = [
        guarantee("rdp", Relation.ADD_OR_REMOVE_ONE, [event] * rounds, delta).epsilon
        for rounds in (1, 2)
    ]
    assert privacy_history(tmp_path, PLAN) == pytest.approx(expected)


def test_mode_none_has_no_history(tmp_path: Path) -> None:
    assert privacy_history(tmp_path, Federation(private=False).plan) == ()


def test_fingerprint_is_the_site_s_own(kits: Path) -> None:
    one, two = kit(kits, "site-1"), kit(kits, "site-2")
    assert fingerprint(one, b"d" * 32) == fingerprint(one, b"d" * 32)
    assert fingerprint(one, b"d" * 32) != fingerprint(two, b"d" * 32)
    assert fingerprint(one, b"d" * 32) != fingerprint(one, b"e" * 32)


def test_counts_belong_to_the_round_they_were_told_with(
    kits: Path, tmp_path: Path
) -> None:
    half = build(kits, tmp_path)
    training = PrivacyEvent("poisson_gaussian", 4.0, 1.0, 1)
    counts = PrivacyEvent.of_counts(8.0, 1)
    budget = half._charges._budgets["data"]
    for number in (1, 2):
        budget.reserve(RoundId("run-1", number), b"p" * 32, training)
        budget.reserve(RoundId("run-1", number), b"p" * 32, counts)
    budget.reserve(RoundId("run-1", 3), b"p" * 32, counts)
    half.close()
    delta = float(str(PLAN["privacy"]["delta"]))  # type: ignore[index,call-overload]
    add = Relation.ADD_OR_REMOVE_ONE
    expected = [
        guarantee("pld", add, [training] * rounds + [counts] * told, delta).epsilon
        for rounds, told in ((1, 1), (2, 2), (2, 3))
    ]
    assert privacy_history(tmp_path, PLAN) == pytest.approx(expected, rel=1e-4)
