"""How a site says no: a code outside, the reason inside, and what lasts aloud once."""

import json

import pytest

from fedsecure.client_refusals import Refusals
from fedsecure.client_run import Identity
from fedsecure.envelope import Kind, Scope, parse
from fedsecure.errors import PolicyRefused, StaleTerm, VerificationError
from fedsecure.update import RoundId
from tests.fakes.federation import Federation

SCOPE = Scope(RoundId("run-1", 1), "site-1", b"", b"", b"")


@pytest.fixture
def refusals() -> Refusals:
    federation = Federation()
    name = "site-1"
    signing, box = federation.signing(name), federation.box(name)
    return Refusals(Identity(federation.roster.federation, name, signing, box))


def said(refusals: Refusals, reason: Exception) -> dict[str, object]:
    answer = parse(refusals.of(SCOPE, reason).to_bytes(), 1 << 20)
    assert (answer.kind, answer.scope, answer.body) == (Kind.REFUSAL, SCOPE, b"")
    found: dict[str, object] = json.loads(answer.header)
    return found


def test_who_asked_hears_a_code_and_no_reason(refusals: Refusals) -> None:
    told = said(refusals, PolicyRefused("the steward of ward 7 says no"))
    assert told == {"code": "policy", "term": 0}


def test_older_term_hears_which_was_seen(refusals: Refusals) -> None:
    assert said(refusals, StaleTerm("old", 7)) == {"code": "stale_term", "term": 7}


def test_error_of_no_family_of_ours_is_a_failure(refusals: Refusals) -> None:
    assert said(refusals, OSError("disk"))["code"] == "failed"


def test_what_a_person_must_mend_is_said_aloud_once(
    refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        said(refusals, PolicyRefused("the steward of ward 7 says no"))
    levels = [(r.levelname, "ward 7" in r.getMessage()) for r in caplog.records]
    assert levels == [("ERROR", True), ("WARNING", True)]


def test_what_passes_by_itself_is_not_said_aloud(
    refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    said(refusals, VerificationError("a bit flipped"))
    assert [r.levelname for r in caplog.records] == ["WARNING"]
