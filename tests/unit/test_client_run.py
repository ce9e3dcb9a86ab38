"""The runs a site has joined: under one plan, with one key and one first model."""

import json

import numpy as np
import pytest

from fedsecure import parts
from fedsecure.envelope import Kind, Scope, parse
from fedsecure.errors import VerificationError
from fedsecure.flower.beginning import begin
from fedsecure.flower.letters import Letters
from fedsecure.release import plan_digest
from fedsecure.trainer import JSON
from fedsecure.update import RoundId
from tests.fakes.federation import MAX_BYTES, RUN, Federation
from tests.fakes.forgery import altered, code_of

ME = "site-2"


@pytest.fixture
def federation() -> Federation:
    return Federation()


def letters(federation: Federation) -> Letters:
    leader = federation.leader("agg-1")
    return Letters(leader, begin(leader, None))


def letter(federation: Federation) -> bytes:
    return letters(federation).request(ME, 1, train=True)()


def begin_request(federation: Federation, site: str = ME) -> bytes:
    leader = federation.leader("agg-1")
    scope = Scope(RoundId(RUN, 0), site, b"", b"", federation.terms.plan_digest)
    header: dict[str, JSON] = {
        "term": leader.term,
        "plan": dict(federation.plan),
        "initial": True,
    }
    return leader.sign(Kind.BEGIN_REQUEST, scope, header, b"")


def with_plan(federation: Federation, /, **changes: JSON) -> bytes:
    """Return a first letter under a changed plan, rightly signed for it."""
    plan = {**federation.plan, **changes}
    return altered(
        federation,
        letter(federation),
        scope={"plan": plan_digest(plan)},
        header={"plan": plan},
    )


def with_part(federation: Federation, name: str, data: bytes) -> bytes:
    """Return a first letter one part of which is another."""
    old = letter(federation)
    envelope = parse(old, MAX_BYTES)
    pieces, start = [], 0
    for part, size in json.loads(envelope.header)["parts"]:
        body = envelope.body[start : start + size]
        pieces.append((part, data if part == name else body))
        start += size
    listing: dict[str, JSON] = {"parts": parts.listing(pieces)}
    return altered(federation, old, header=listing, body=parts.join(pieces))


def code(federation: Federation, data: bytes) -> str:
    site = federation.sites[ME]
    found = code_of(site.answer(data))
    assert site.trainer.trained.total() == (0 if found else 1)
    return found


# --- joining --------------------------------------------------------------------------


def test_joined_run_is_in_the_ledger(federation: Federation) -> None:
    assert code(federation, letter(federation)) == ""
    joined = [r for r in federation.sites[ME].records() if r.action == "run.joined"]
    assert [r.detail["plan"] for r in joined] == [federation.terms.plan_digest.hex()]


def test_plan_that_is_not_the_one_signed_for_is_refused(federation: Federation) -> None:
    plan: dict[str, JSON] = {**federation.plan, "rounds": 9}
    data = altered(federation, letter(federation), header={"plan": plan})
    assert code(federation, data) == "verification"


@pytest.mark.parametrize("plan", [None, 3, [], "plan"])
def test_request_without_a_plan_is_refused(federation: Federation, plan: JSON) -> None:
    data = altered(federation, letter(federation), header={"plan": plan})
    assert code(federation, data) == "verification"


def test_plan_of_another_federation_is_refused(federation: Federation) -> None:
    assert (
        code(federation, with_plan(federation, federation="e" * 64)) == "verification"
    )


def test_plan_of_another_run_is_refused(federation: Federation) -> None:
    assert code(federation, with_plan(federation, run="run-2")) == "verification"


def test_plan_without_this_site_is_refused(federation: Federation) -> None:
    data = with_plan(
        federation,
        sites=["site-1", "site-3"],
        custodians=["site-1"],
        min_contributors=2,
    )
    assert code(federation, data) == "policy"


def test_unsound_plan_is_refused(federation: Federation) -> None:
    assert code(federation, with_plan(federation, rounds=0)) == "configuration"


def test_second_plan_of_a_run_is_refused_after_a_restart(
    federation: Federation,
) -> None:
    site = federation.sites[ME]
    site.answer(letter(federation))
    site.die()
    other = with_plan(federation, rounds=9)
    assert code_of(site.answer(other)) == "policy"


def test_run_that_was_never_joined_is_unknown(federation: Federation) -> None:
    with pytest.raises(VerificationError, match="'run-9' was never joined"):
        federation.sites[ME].half()._runs.get("run-9")


# --- the run key ----------------------------------------------------------------------


def test_custodian_makes_one_key_whoever_asks_how_often(federation: Federation) -> None:
    site = federation.sites[ME]
    first = site.answer(begin_request(federation))
    assert site.answer(begin_request(federation)) == first
    site.die()
    assert site.answer(begin_request(federation)) == first


def test_key_is_wrapped_to_every_site(federation: Federation) -> None:
    answer = parse(federation.sites[ME].answer(begin_request(federation)), MAX_BYTES)
    names = [row[0] for row in json.loads(answer.header)["parts"]]
    wraps = [f"wrap:{site}" for site in federation.terms.sites]
    assert names == ["statement", *wraps, "layout", "initial", "form"]


def test_wrap_of_another_site_is_refused(federation: Federation) -> None:
    wrap = bytes(begin(federation.leader("agg-1"), None).at(1).pieces["wrap:site-3"])
    assert code(federation, with_part(federation, "wrap", wrap)) == "verification"


def test_statement_that_was_changed_is_refused(federation: Federation) -> None:
    pieces = begin(federation.leader("agg-1"), None).at(1).pieces
    changed = bytes([pieces["statement"][0] ^ 1]) + pieces["statement"][1:]
    data = with_part(federation, "statement", changed)
    assert code(federation, data) == "verification"


@pytest.mark.parametrize("custodian", ["site-9", ME, None, 3])
def test_key_of_another_than_the_custodian_is_refused(
    federation: Federation, custodian: JSON
) -> None:
    data = altered(
        federation,
        letter(federation),
        header={"keys": [{"first_round": 0, "custodian": custodian}]},
    )
    assert code(federation, data) == "verification"


def test_key_survives_a_restart(federation: Federation) -> None:
    site = federation.sites[ME]
    made = letters(federation)
    site.answer(made.request(ME, 1, train=True)())
    site.die()
    made.holdings.has(ME, 0, 1)
    assert code_of(site.answer(made.request(ME, 9, train=False)())) == ""


# --- the first model ------------------------------------------------------------------


def test_first_model_with_nan_is_refused(federation: Federation) -> None:
    model = np.full(9, np.nan).astype("<f8").tobytes()
    assert code(federation, with_part(federation, "initial", model)) == "verification"
    assert federation.sites[ME].shelf().model(0) is None


def test_first_model_of_another_length_is_refused(federation: Federation) -> None:
    data = with_part(federation, "initial", bytes(8 * 8))
    assert code(federation, data) == "verification"


@pytest.mark.parametrize("layout", [b"{", b"[]", b'[["w",[0]]]', b'[["w",["a"]]]'])
def test_malformed_layout_is_refused(federation: Federation, layout: bytes) -> None:
    data = with_part(federation, "layout", layout)
    assert code(federation, data) == "verification"


def test_first_model_is_taken_once(federation: Federation) -> None:
    site = federation.sites[ME]
    site.answer(letter(federation))
    before = site.shelf().model(0)
    site.answer(with_part(federation, "initial", bytes(8 * 9)))
    after = site.shelf().model(0)
    assert before is not None
    assert after is not None
    assert before.tobytes() == after.tobytes()
