"""An aggregator's half: which bytes count, when a round closes, how it is resumed."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from fedsecure.envelope import Envelope, Kind, Scope, sign
from fedsecure.errors import VerificationError
from fedsecure.keys import SigningKey
from fedsecure.metadata import JournalEntry, Step
from fedsecure.server_round import (
    Accepted,
    Closed,
    Opening,
    Rejected,
    ServerRound,
    close_entry,
    open_entry,
    plain_entry,
    read_detail,
    resume,
    update_entry,
)
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

ROUND = RoundId("run-1", 4)
SITES = ("a", "b", "c")
KEYS = {site: SigningKey.from_bytes(site.encode() * 32) for site in SITES}
PUBLIC = {site: key.public for site, key in KEYS.items()}
OPENING = Opening(ROUND, SITES, 2, 60.0, b"i" * 32, b"k" * 16, b"l" * 32, b"p" * 32)


@pytest.fixture
def current() -> ServerRound:
    return ServerRound(OPENING, PUBLIC, opened_at=100.0)


def update(
    site: str = "a",
    *,
    kind: Kind = Kind.UPDATE,
    scope: Scope | None = None,
    header: Mapping[str, JSON] | None = None,
    body: bytes = b"ciphertext",
    key: SigningKey | None = None,
) -> Envelope:
    fields = {"input": (b"i" * 32).hex()} if header is None else header
    return sign(
        kind,
        scope or OPENING.scope(site),
        fields,
        body,
        signer=site,
        key=key or KEYS[site],
    )


def taken(current: ServerRound, *sites: str, now: float = 101.0) -> None:
    for site in sites:
        accepted = current.accept(update(site), now)
        assert isinstance(accepted, Accepted)
        current.take(accepted)


def refused(current: ServerRound, envelope: Envelope, now: float = 101.0) -> Rejected:
    verdict = current.accept(envelope, now)
    assert isinstance(verdict, Rejected)
    return verdict


# --- which bytes count ----------------------------------------------------------------


def test_good_update_is_accepted_and_not_yet_taken(current: ServerRound) -> None:
    accepted = current.accept(update(), 101.0)
    assert isinstance(accepted, Accepted)
    assert (accepted.site, accepted.size) == ("a", 10)
    assert current.missing == SITES


def test_object_of_an_update_is_named_by_no_site(current: ServerRound) -> None:
    accepted = current.accept(update("b"), 101.0)
    assert isinstance(accepted, Accepted)
    assert accepted.object.startswith("update/")
    assert len(accepted.object) == len("update/") + 64


def test_stranger_is_refused_for_good(current: ServerRound) -> None:
    envelope = sign(Kind.UPDATE, OPENING.scope("z"), {}, b"", signer="z", key=KEYS["a"])
    verdict = refused(current, envelope)
    assert (verdict.code, verdict.ask_again) == ("stranger", False)


def test_wrong_signature_is_refused_and_asked_again(current: ServerRound) -> None:
    verdict = refused(current, update("a", key=KEYS["b"]))
    assert (verdict.code, verdict.ask_again) == ("verification", True)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"round": RoundId("run-1", 5)}, "round"),
        ({"round": RoundId("run-2", 4)}, "round"),
        ({"site": "b"}, "site"),
        ({"key_id": b"x" * 16}, "key_id"),
        ({"layout": b"x" * 32}, "layout"),
        ({"plan": b"x" * 32}, "plan"),
    ],
)
def test_update_for_another_scope_is_refused(
    current: ServerRound, change: Mapping[str, object], field: str
) -> None:
    scope = replace(OPENING.scope("a"), **change)  # type: ignore[arg-type]
    assert f"another {field}" in refused(current, update(scope=scope)).reason


def test_update_from_another_input_is_refused(current: ServerRound) -> None:
    verdict = refused(current, update(header={"input": "00" * 32}))
    assert "another input" in verdict.reason


def test_message_of_another_kind_is_refused(current: ServerRound) -> None:
    assert refused(current, update(kind=Kind.REPORT)).code == "verification"


def test_same_update_again_is_a_repeat(current: ServerRound) -> None:
    taken(current, "a")
    assert refused(current, update("a")).code == "repeat"
    assert len(current.taken) == 1


def test_another_update_of_one_site_is_refused(current: ServerRound) -> None:
    taken(current, "a")
    verdict = refused(current, update("a", body=b"another"))
    assert (verdict.code, verdict.ask_again) == ("second_update", False)


def test_update_after_the_deadline_is_late(current: ServerRound) -> None:
    assert refused(current, update(), now=160.0).code == "late"


def test_update_after_close_is_late(current: ServerRound) -> None:
    taken(current, "a", "b", "c")
    assert current.close(102.0) is not None
    assert refused(current, update("a", body=b"other"), now=103.0).code == "late"


@pytest.mark.parametrize(
    ("code", "again"),
    [
        ("key_missing", True),
        ("release_missing", True),
        ("verification", True),
        ("budget", False),
        ("policy", False),
        ("stale_term", False),
        ("input_conflict", False),
        ("training_failed", False),
        ("not_finite", False),
    ],
)
def test_refusal_says_whether_to_ask_again(
    current: ServerRound, code: str, again: bool
) -> None:
    verdict = refused(current, update(kind=Kind.REFUSAL, header={"code": code}))
    assert (verdict.code, verdict.ask_again) == (code, again)


# --- closing --------------------------------------------------------------------------


def test_round_closes_when_all_answered(current: ServerRound) -> None:
    taken(current, "c", "a", "b")
    closed = current.close(101.0)
    assert closed is not None
    assert [site for site, _ in closed.participants] == ["a", "b", "c"]


def test_quorum_waits_for_the_others_until_the_deadline(current: ServerRound) -> None:
    taken(current, "a", "b")
    assert current.close(159.9) is None
    closed = current.close(160.0)
    assert closed is not None
    assert len(closed.participants) == 2


def test_quorum_does_not_wait_for_sites_left_out(current: ServerRound) -> None:
    taken(current, "a", "b")
    current.leave_out("c")
    assert current.close(101.0) is not None


def test_round_below_the_quorum_never_closes(current: ServerRound) -> None:
    taken(current, "a")
    assert current.close(1e9) is None


def test_closed_set_is_not_decided_again(current: ServerRound) -> None:
    taken(current, "a", "b")
    first = current.close(160.0)
    current.take(Accepted("c", b"d" * 32, "update/x", 1, {}))
    assert current.close(161.0) is first


def test_site_that_counted_is_not_left_out(current: ServerRound) -> None:
    taken(current, "a")
    current.leave_out("a")
    assert [a.site for a in current.taken] == ["a"]


@pytest.mark.parametrize(
    ("out", "now", "failed"),
    [
        ((), 101.0, False),
        (("a",), 101.0, False),
        (("a", "b"), 101.0, True),
        ((), 160.0, True),
    ],
)
def test_round_fails_when_the_quorum_cannot_be_met(
    current: ServerRound, out: tuple[str, ...], now: float, failed: bool
) -> None:
    for site in out:
        current.leave_out(site)
    assert current.failed(now) is failed


# --- the journal and back -------------------------------------------------------------


def entries(*, close: bool = False, step: str = "") -> list[JournalEntry]:
    current = ServerRound(OPENING, PUBLIC, 100.0)
    rows = [open_entry(OPENING, "op-0")]
    for site in ("a", "b"):
        accepted = current.accept(update(site), 101.0)
        assert isinstance(accepted, Accepted)
        current.take(accepted)
        rows.append(update_entry(ROUND, accepted, f"op-{site}"))
    if close:
        closed = current.close(160.0)
        assert closed is not None
        rows.append(close_entry(closed, "op-close"))
    return [row for row in rows if str(row.step) != step]


def test_round_that_was_never_opened_is_none() -> None:
    assert resume([], PUBLIC, 0.0) is None


def test_resumed_round_keeps_opening_and_updates() -> None:
    found = resume(entries(), PUBLIC, 500.0)
    assert found is not None
    assert found.opening == OPENING
    assert [a.site for a in found.taken] == ["a", "b"]
    assert found.missing == ("c",)


def test_deadline_starts_again_at_the_take_over() -> None:
    found = resume(entries(), PUBLIC, 500.0)
    assert found is not None
    assert found.ends == 560.0


def test_resumed_close_is_the_journalled_one() -> None:
    found = resume(entries(close=True), PUBLIC, 500.0)
    assert found is not None
    closed = found.close(500.0)
    assert closed is not None
    assert [site for site, _ in closed.participants] == ["a", "b"]


def test_update_without_an_opening_is_refused() -> None:
    with pytest.raises(VerificationError, match="update before open"):
        resume(entries(step="open"), PUBLIC, 0.0)


def test_close_that_is_not_its_root_is_refused() -> None:
    bad = Closed(ROUND, (("a", b"d" * 32),), b"r" * 32)
    with pytest.raises(VerificationError, match="its own root"):
        resume([entries()[0], close_entry(bad, "op")], PUBLIC, 0.0)


@pytest.mark.parametrize("row", [[], ["a"], ["a", "zz"], ["a", "00", 1], "a", None])
def test_close_with_a_malformed_row_is_refused(row: JSON) -> None:
    bad = plain_entry(ROUND, Step.CLOSE, "op", {"participants": [row], "root": ""})
    with pytest.raises(VerificationError, match="journal"):
        resume([entries()[0], bad], PUBLIC, 0.0)


@pytest.mark.parametrize("detail", [b"{", b"[]", b"{}", b'{"cohort":1}'])
def test_malformed_entries_are_refused(detail: bytes) -> None:
    bad = JournalEntry("run-1", 4, Step.OPEN, "", "op", detail)
    with pytest.raises(VerificationError, match="journal"):
        resume([bad], PUBLIC, 0.0)


def test_malformed_update_row_is_refused() -> None:
    bad = plain_entry(ROUND, Step.UPDATE, "op", {"digest": "zz"})
    with pytest.raises(VerificationError, match="UPDATE is not well formed"):
        resume([entries()[0], bad], PUBLIC, 0.0)


def test_detail_of_an_entry_is_canonical_json() -> None:
    entry = plain_entry(ROUND, Step.SKIP, "op", {"b": 1, "a": 2})
    assert entry.detail == b'{"a":2,"b":1}'
    assert read_detail(entry) == {"a": 2, "b": 1}
