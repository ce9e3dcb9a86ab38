"""A site's half: what it refuses, before what, and what it says then."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from fedsecure.client_round import _units
from fedsecure.envelope import Envelope, Kind, Scope, canonical, parse
from fedsecure.errors import (
    PolicyRefused,
    ReleaseMissing,
    SecondAggregate,
    TooFewContributors,
    VerificationError,
)
from fedsecure.flower.beginning import begin
from fedsecure.flower.letters import Letters
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.release import Release, plan_digest
from fedsecure.runplan import RunPlan, read_plan
from fedsecure.trainer import JSON, TrainingResult
from fedsecure.update import Layout, ModelUpdate, RoundId
from tests.fakes.federation import MAX_BYTES, Federation, Site
from tests.fakes.forgery import altered, code_of, release_over
from tests.fakes.trainer import LAYOUT

ME = "site-2"


class Desk:
    """A leader's letters to one site, before the first round."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.leader = federation.leader("agg-1")
        self.letters = Letters(self.leader, begin(self.leader, None))
        self.site: Site = federation.sites[ME]

    def letter(self, number: int = 1, *, train: bool = True) -> bytes:
        return self.letters.request(ME, number, train=train)()

    def code(self, data: bytes) -> str:
        return code_of(self.site.answer(data))

    def refused(self, code: str, data: bytes) -> None:
        """Check that a message is refused and no data was touched."""
        assert self.code(data) == code
        assert self.site.trainer.trained.total() == 0


@pytest.fixture
def desk() -> Desk:
    return Desk(Federation())


def changed(desk: Desk, **fields: object) -> bytes:
    return altered(desk.federation, desk.letter(), **fields)  # type: ignore[arg-type]


# --- who and what ---------------------------------------------------------------------


def test_good_request_is_answered_with_an_update(desk: Desk) -> None:
    answer = parse(desk.site.answer(desk.letter()), MAX_BYTES)
    assert (answer.kind, answer.signer) == (Kind.UPDATE, ME)


def test_bytes_that_are_no_message_are_refused(desk: Desk) -> None:
    desk.refused("verification", b"\0" * 500)


@pytest.mark.parametrize(
    ("field", "code"), [("key_id", "key_missing"), ("layout", "verification")]
)
def test_request_for_another_key_or_layout_is_refused(
    desk: Desk, field: str, code: str
) -> None:
    desk.refused(code, changed(desk, scope={field: b"x" * 32}))


def test_request_under_another_plan_than_it_carries_is_refused(desk: Desk) -> None:
    desk.refused("verification", changed(desk, scope={"plan": b"x" * 32}))


def test_known_run_under_another_plan_is_refused(desk: Desk) -> None:
    desk.site.answer(desk.letter(9, train=False))
    desk.refused("policy", changed(desk, scope={"plan": b"x" * 32}))


def test_older_term_is_refused(desk: Desk) -> None:
    desk.site.answer(changed(desk, header={"term": 5, "after": 9}))
    desk.refused("stale_term", changed(desk, header={"term": 4}))


def test_another_input_is_refused(desk: Desk) -> None:
    desk.refused("input_conflict", changed(desk, header={"input": "00" * 32}))


def test_input_that_is_not_hexadecimal_is_refused(desk: Desk) -> None:
    desk.refused("verification", changed(desk, header={"input": "zz"}))


def test_release_that_was_not_opened_is_missing(desk: Desk) -> None:
    desk.refused("release_missing", changed(desk, header={"after": 3}))


def test_site_without_a_run_key_says_so(desk: Desk) -> None:
    desk.refused(
        "key_missing", changed(desk, header={"parts": [], "keys": []}, body=b"")
    )


def test_parts_that_do_not_add_up_are_refused(desk: Desk) -> None:
    desk.refused("verification", changed(desk, body=b"short"))


# --- repeats --------------------------------------------------------------------------


def test_repeat_gets_the_same_bytes_and_trains_once(desk: Desk) -> None:
    letter = desk.letter()
    assert desk.site.answer(letter) == desk.site.answer(letter)
    assert desk.site.trainer.trained == {1: 1}
    assert desk.site.reservations(1) == 1


def test_repeat_under_a_new_term_gets_the_same_bytes(desk: Desk) -> None:
    first = desk.site.answer(desk.letter())
    assert desk.site.answer(changed(desk, header={"term": 7})) == first


def test_repeat_after_a_restart_gets_the_same_bytes(desk: Desk) -> None:
    first = desk.site.answer(desk.letter())
    desk.site.die()
    assert desk.site.answer(desk.letter()) == first
    assert desk.site.trainer.trained == {1: 1}


def test_answered_round_on_another_input_is_refused(desk: Desk) -> None:
    desk.site.answer(desk.letter())
    assert desk.code(changed(desk, header={"input": "00" * 32})) == "input_conflict"
    assert desk.site.trainer.trained == {1: 1}


# --- policy and budget ----------------------------------------------------------------


def test_policy_refuses_before_training(desk: Desk) -> None:
    desk.site.gate.refuses = "expired"
    desk.refused("policy", desk.letter())


def test_exhausted_budget_refuses_before_training() -> None:
    federation = Federation()
    federation.sites[ME].max_epsilon = 0.5
    desk = Desk(federation)
    desk.refused("budget", desk.letter())
    assert desk.site.reservations(1) == 0


def test_data_set_without_a_budget_is_refused(desk: Desk) -> None:
    half = desk.site.half()
    half._charges._budgets = {}
    desk.refused("policy", desk.letter())


def test_delta_of_one_row_or_more_refuses_before_training(desk: Desk) -> None:
    desk.site.half()
    desk.site.trainer._rows = 100_000
    desk.refused("configuration", desk.letter())
    assert desk.site.reservations(1) == 0


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.0000001, 2.0, 1e999])
def test_sampling_rate_that_is_none_refuses_before_training(rate: float) -> None:
    federation = Federation()
    federation.plan["privacy"] = {
        **cast("dict[str, JSON]", federation.plan["privacy"]),
        "sample_rate": min(rate, 1e300),
    }
    digest = plan_digest(federation.plan)
    federation.terms = replace(
        federation.terms, plan=federation.plan, plan_digest=digest
    )
    leader = federation.leader("agg-1")
    scope = Scope(RoundId("run-1", 1), ME, b"", b"", digest)
    header: dict[str, JSON] = {"term": leader.term, "plan": federation.plan}
    letter = leader.sign(Kind.REQUEST, scope, header, b"")
    assert code_of(federation.sites[ME].answer(letter)) == "configuration"
    assert federation.sites[ME].reservations(1) == 0


def test_request_that_shows_no_heads_is_refused_before_training(desk: Desk) -> None:
    letter = parse(desk.letter(), MAX_BYTES)
    header = {k: v for k, v in json.loads(letter.header).items() if k != "heads"}
    bare = desk.leader.sign(Kind.REQUEST, letter.scope, header, bytes(letter.body))
    desk.refused("ledger", bare)
    assert desk.site.reservations(1) == 0


def test_reservation_says_which_unit_it_is_about(desk: Desk) -> None:
    desk.site.answer(desk.letter())
    (line,) = [r for r in desk.site.records() if r.action == "budget.reserve"]
    assert cast("dict[str, JSON]", line.detail["event"])["unit"] == "example"


@pytest.mark.parametrize(
    ("mode", "units"), [(Mode.USER_DISTRIBUTED, 7), (Mode.EXAMPLE_DISTRIBUTED, 50)]
)
def test_delta_is_compared_with_persons_where_they_are_the_unit(
    desk: Desk, mode: Mode, units: int
) -> None:
    plan = read_plan(desk.federation.plan)
    shared = PrivacyPlan(
        mode,
        clip_norm=1.0,
        noise_multiplier=1.0,
        sample_rate=1.0,
        steps_per_round=1,
        rounds=2,
        delta=1e-5,
        divisor=9.0,
        min_contributors=3,
        max_colluders=1,
    )
    desk.site.trainer.persons = 7
    assert _units(replace(plan, privacy=shared), desk.site.trainer) == units


def test_reservation_is_durable_before_data_is_touched(desk: Desk) -> None:
    paid: list[int] = []
    desk.site.trainer.before = lambda t: paid.append(
        desk.site.reservations(t.round.number)
    )
    desk.site.answer(desk.letter())
    assert paid == [1]


def test_update_beyond_the_norm_bound_does_not_leave(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_norm(plan: RunPlan, norm: float) -> None:
        raise PolicyRefused(f"{plan.project}: norm {norm}")

    monkeypatch.setattr(desk.site.gate, "check_norm", check_norm)
    assert desk.code(desk.letter()) == "policy"
    assert desk.site.shelf().answer(1) is None


# --- what training returned -----------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_update_that_is_not_finite_does_not_leave(desk: Desk, value: float) -> None:
    def spoil(result: TrainingResult) -> TrainingResult:
        assert result.update is not None
        delta = result.update.delta.copy()
        delta[3] = value
        return replace(result, update=ModelUpdate(LAYOUT, delta, 5))

    desk.site.trainer.change = spoil
    assert desk.code(desk.letter()) == "not_finite"
    assert desk.site.shelf().answer(1) is None


def test_update_of_another_layout_does_not_leave(desk: Desk) -> None:
    other = ModelUpdate(Layout(("w",), ((9,),)), np.zeros(9), 5)
    desk.site.trainer.change = lambda r: replace(r, update=other)
    assert desk.code(desk.letter()) == "verification"
    assert desk.site.shelf().answer(1) is None


@pytest.mark.parametrize("steps", [0, 2])
def test_update_of_other_noisy_steps_than_paid_does_not_leave(
    desk: Desk, steps: int
) -> None:
    desk.site.trainer.change = lambda r: replace(r, dp_steps=steps)
    assert desk.code(desk.letter()) == "verification"
    assert desk.site.shelf().answer(1) is None


# --- what leaves ----------------------------------------------------------------------


def test_refusal_tells_a_code_and_no_reason(desk: Desk) -> None:
    desk.site.gate.refuses = "the steward of ward 7 says no"
    answer = desk.site.answer(desk.letter())
    assert b"steward" not in answer
    assert set(json.loads(parse(answer, MAX_BYTES).header)) == {"code", "term"}


def test_update_carries_no_row_count(desk: Desk) -> None:
    header: Mapping[str, JSON] = json.loads(
        parse(desk.site.answer(desk.letter()), MAX_BYTES).header
    )
    assert set(header) == {"heads", "input", "metrics"}
    assert set(header["metrics"]) == {"loss", "num_test", "saturated"}  # type: ignore[arg-type]


def test_last_request_evaluates_and_does_not_train(desk: Desk) -> None:
    answer = parse(desk.site.answer(desk.letter(3, train=False)), MAX_BYTES)
    assert answer.kind == Kind.REPORT
    assert desk.site.trainer.trained.total() == 0
    assert desk.site.reservations(3) == 0


# --- releases -------------------------------------------------------------------------


@pytest.fixture
def finished() -> Federation:
    federation = Federation(min_contributors=2)
    federation.lead()
    return federation


def test_same_release_again_is_the_same_model(finished: Federation) -> None:
    site = finished.sites[ME]
    release = release_over(finished, finished.terms.sites, 2)
    model = site.half().recover(release)
    assert model.tobytes() == finished.models()[ME]
    assert len(site.opened()) == 2


def test_second_aggregate_is_refused_and_kept_as_evidence(finished: Federation) -> None:
    site = finished.sites[ME]
    with pytest.raises(SecondAggregate, match="round 2 was opened as"):
        site.half().recover(release_over(finished, ["site-1", ME], 2))
    second = [r for r in site.records() if r.action == "aggregate.second"]
    assert [(r.round, r.code) for r in second] == [(2, "second_aggregate")]


def test_second_aggregate_is_refused_after_a_restart(finished: Federation) -> None:
    site = finished.sites[ME]
    site.die()
    site.answer(_any_letter(finished))
    with pytest.raises(SecondAggregate):
        site.half().recover(release_over(finished, ["site-1", ME], 2))


def _any_letter(federation: Federation) -> bytes:
    leader = federation.leader("agg-2")
    return Letters(leader, begin(leader, None)).request(ME, 3, train=False)()


@pytest.fixture
def answered() -> Federation:
    """Return a federation whose sites answered round 1, and opened nothing."""
    federation = Federation(min_contributors=2)
    leader = federation.leader("agg-1")
    letters = Letters(leader, begin(leader, None))
    for name, site in federation.sites.items():
        site.answer(letters.request(name, 1, train=True)())
    return federation


def test_sum_of_too_few_sites_is_not_opened(answered: Federation) -> None:
    site = answered.sites[ME]
    with pytest.raises(TooFewContributors, match="1 contributors, at least 2"):
        site.half().recover(release_over(answered, [ME], 1))
    assert site.opened() == {}


def test_sum_with_a_stranger_is_not_opened(answered: Federation) -> None:
    outsider = Federation(sites=4, min_contributors=2)
    leader = outsider.leader("agg-1")
    letters = Letters(leader, begin(leader, None))
    for name in ("site-1", "site-4"):
        outsider.sites[name].answer(letters.request(name, 1, train=True)())
    release = release_over(outsider, ["site-1", "site-4"], 1)
    ours = release_over(answered, ["site-1", "site-3"], 1)
    forged = replace(release, scope=ours.scope)
    data = altered(answered, forged.to_bytes())
    with pytest.raises(TooFewContributors, match="site-4"):
        answered.sites[ME].half().recover(parse(data, MAX_BYTES))


def test_sum_with_an_update_this_site_never_sent_is_not_opened(
    answered: Federation,
) -> None:
    release = release_over(answered, ["site-1", ME], 1)
    digest = dict(json.loads(release.header)["participants"])["site-1"]
    rows: list[JSON] = [["site-1", digest], [ME, digest]]
    data = altered(answered, release.to_bytes(), header={"participants": rows})
    with pytest.raises(VerificationError, match="never sent"):
        answered.sites[ME].half().recover(parse(data, MAX_BYTES))


def test_sum_that_leaves_out_a_participant_is_not_opened(answered: Federation) -> None:
    """The keyed tags say whose updates are in the sum, whatever its header says."""
    whole = release_over(answered, ["site-1", "site-3"], 1)
    part = release_over(answered, ["site-1", ME], 1)
    rows = json.loads(whole.header)["participants"]
    data = altered(answered, part.to_bytes(), header={"participants": rows})
    with pytest.raises(VerificationError, match="not of exactly these sites"):
        answered.sites[ME].half().recover(parse(data, MAX_BYTES))


def test_release_signed_by_a_site_is_refused(answered: Federation) -> None:
    release = release_over(answered, ["site-1", ME], 1, signer="site-1")
    with pytest.raises(VerificationError, match="is no aggregator"):
        answered.sites[ME].half().recover(release)


@pytest.mark.parametrize("field", ["key_id", "layout", "plan"])
def test_release_for_another_key_layout_or_plan_is_refused(
    answered: Federation, field: str
) -> None:
    release = release_over(answered, ["site-1", ME], 1)
    data = altered(answered, release.to_bytes(), scope={field: b"x" * 32})
    with pytest.raises(VerificationError, match="is for another"):
        answered.sites[ME].half().recover(parse(data, MAX_BYTES))
    assert answered.sites[ME].opened() == {}


def test_releases_are_opened_in_order() -> None:
    federation = Federation(min_contributors=2, rounds=3)
    federation.lead()
    late = Federation(min_contributors=2, rounds=3)
    late.sites[ME].answer(Desk(late).letter(9, train=False))
    second = release_over(federation, ["site-1", "site-3"], 2)
    ours = (
        late.sites[ME]
        .half()
        ._runs.get("run-1")
        .scope(parse(second.to_bytes(), MAX_BYTES).scope.round, "*")
    )
    data = altered(late, replace(second, scope=ours).to_bytes())
    with pytest.raises(ReleaseMissing, match="release of round 1 first"):
        late.sites[ME].half().recover(parse(data, MAX_BYTES))


# --- brought by a standby -------------------------------------------------------------


def brought(federation: Federation, number: int, **changes: object) -> bytes:
    """Return a round's release as a standby brings it."""
    release = release_over(federation, federation.terms.sites, number).to_bytes()
    if not changes:
        return release
    return altered(federation, release, **changes)  # type: ignore[arg-type]


def test_release_that_a_standby_brings_is_opened_and_said_so(
    answered: Federation,
) -> None:
    site = answered.sites[ME]
    answer = parse(site.answer(brought(answered, 1)), MAX_BYTES)
    assert (answer.kind, answer.scope.site) == (Kind.OPENED, ME)
    assert list(site.opened()) == [1]


def test_release_that_is_brought_again_is_opened_once(finished: Federation) -> None:
    site = finished.sites[ME]
    lines = len(site.records())
    answer = parse(site.answer(brought(finished, 2)), MAX_BYTES)
    assert answer.kind == Kind.OPENED
    assert len(site.records()) == lines


def test_release_of_another_set_is_refused_whoever_brings_it(
    finished: Federation,
) -> None:
    other = release_over(finished, ["site-1", ME], 2).to_bytes()
    assert code_of(finished.sites[ME].answer(other)) == "second_aggregate"


def test_release_that_a_site_signed_is_refused(answered: Federation) -> None:
    data = brought(answered, 1, signer="site-1")
    assert code_of(answered.sites[ME].answer(data)) == "verification"
    assert answered.sites[ME].opened() == {}


def test_release_of_a_run_this_site_does_not_know_is_refused(desk: Desk) -> None:
    other = Federation(min_contributors=2)
    other.lead()
    assert desk.code(brought(other, 1)) == "verification"


def test_release_that_comes_first_after_a_restart_is_opened(
    answered: Federation,
) -> None:
    site = answered.sites[ME]
    site.die()
    answer = parse(site.answer(brought(answered, 1)), MAX_BYTES)
    assert answer.kind == Kind.OPENED
    assert list(site.opened()) == [1]


def test_release_that_comes_first_asks_the_policy_as_a_join_does(
    answered: Federation,
) -> None:
    site = answered.sites[ME]
    site.die()
    site.gate.refuses = "the policy has expired"
    assert code_of(site.answer(brought(answered, 1))) == "policy"
    assert site.opened() == {}


def test_release_of_a_run_that_is_joined_asks_the_policy_too(
    answered: Federation,
) -> None:
    site = answered.sites[ME]
    site.gate.refuses = "the policy has expired"
    assert code_of(site.answer(brought(answered, 1))) == "policy"
    assert site.opened() == {}


def test_release_that_comes_first_under_another_plan_is_refused(
    answered: Federation,
) -> None:
    site = answered.sites[ME]
    site.die()
    data = brought(answered, 1, scope={"plan": b"x" * 32})
    assert code_of(site.answer(data)) == "verification"
    assert site.opened() == {}


def test_plan_on_the_shelf_that_was_changed_opens_nothing(
    answered: Federation,
) -> None:
    site = answered.sites[ME]
    site.die()
    key = "run-1/plan"
    plan = json.loads(site.store.objects[key])
    site.store.objects[key] = canonical({**plan, "seed": plan["seed"] + 1})
    assert code_of(site.answer(brought(answered, 1))) == "verification"
    assert site.opened() == {}


def test_update_says_what_a_standby_brought(answered: Federation) -> None:
    leader = answered.leader("agg-1")
    for site in answered.sites.values():
        site.answer(brought(answered, 1))
    answered.lead()
    del leader
    kept = answered.sites[ME].shelf().answer(2)
    assert kept is not None
    assert json.loads(kept.head.header)["brought"] == 1


def named(federation: Federation, **fields: JSON) -> bytes:
    """Return round 2's letter without the release of round 1."""
    leader = federation.leader("agg-1")
    letter = Letters(leader, begin(leader, None)).request(ME, 2, train=True)()
    given = release_over(federation, federation.terms.sites, 1)
    digest = read_release_head_digest(given)
    header = {"after": 1, "input": digest, "parts": [], "keys": [], **fields}
    return altered(federation, letter, header=header, body=b"")


def read_release_head_digest(release: Envelope) -> str:
    header = json.loads(release.header)
    rows = tuple((s, bytes.fromhex(d)) for s, d in header["participants"])
    named = Release(
        release.scope.round, header["after"], rows, bytes.fromhex(header["sum"])
    )
    return named.digest().hex()


def test_letter_waits_for_the_release_it_names_until_that_is_opened(
    answered: Federation,
) -> None:
    site, letter = answered.sites[ME], named(answered, elsewhere=1000)
    assert site.half().patience(letter) > 0
    assert code_of(site.answer(letter)) == "release_missing"
    site.answer(brought(answered, 1))
    assert site.half().patience(letter) == 0
    assert parse(site.answer(letter), MAX_BYTES).kind == Kind.UPDATE


def test_letter_that_names_nothing_elsewhere_does_not_wait(
    answered: Federation,
) -> None:
    assert answered.sites[ME].half().patience(named(answered)) == 0


def test_nobody_but_an_aggregator_makes_a_site_wait(answered: Federation) -> None:
    letter = named(answered, elsewhere=1000)
    forged = altered(answered, letter, signer="site-1")
    half = answered.sites[ME].half()
    for data in (forged, b"", b"\0" * 500, letter[:-1], brought(answered, 1)):
        assert half.patience(data) == 0
