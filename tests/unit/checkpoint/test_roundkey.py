"""A round's key opens that round's updates and no other's, and is never shown."""

import json

import pytest

from fedsecure.checkpoint.rack import ROUND, box_rack
from fedsecure.checkpoint.roundkey import RoundKey, new_key, read_key
from fedsecure.errors import VerificationError
from fedsecure.keys import BoxKey
from fedsecure.update import RoundId
from tests.fakes.randomness import Stream

BOX, THIEF = (BoxKey.from_bytes(bytes([n]) * 32) for n in (1, 2))
RACK = box_rack("agg-1", BOX, {"agg-1": BOX.public})
FIRST, SECOND = RoundId("run", 1), RoundId("run", 2)
RANDOM = Stream("round keys").bytes


def test_what_was_sealed_opens_with_the_key_its_row_keeps() -> None:
    key, row = new_key(FIRST, RACK, RANDOM)
    again = read_key(row, FIRST, RACK, RANDOM)
    assert again.open(key.seal(b"s" * 32, b"update/1"), b"update/1") == b"s" * 32


def test_every_round_has_a_key_of_its_own() -> None:
    (one, _), (two, _) = (new_key(number, RACK, RANDOM) for number in (FIRST, SECOND))
    with pytest.raises(VerificationError):
        two.open(one.seal(b"s" * 32, b""), b"")


def test_a_row_of_another_round_does_not_open() -> None:
    with pytest.raises(VerificationError):
        read_key(new_key(FIRST, RACK, RANDOM)[1], SECOND, RACK, RANDOM)


def test_a_row_opens_for_aggregators_only() -> None:
    thief = box_rack("agg-1", THIEF, {"agg-1": THIEF.public})
    stranger = box_rack("agg-9", THIEF, {"agg-9": THIEF.public})
    row = new_key(FIRST, RACK, RANDOM)[1]
    for rack in (thief, stranger):
        with pytest.raises(VerificationError):
            read_key(row, FIRST, rack, RANDOM)


def test_a_row_does_not_hold_the_key_itself() -> None:
    found = RANDOM(32)
    row = new_key(FIRST, RACK, lambda n: found[:n])[1]
    assert found.hex() not in row.decode()


def test_objects_under_it_name_no_aggregator() -> None:
    rack = new_key(FIRST, RACK, RANDOM)[0].rack()
    sealed = rack.seal(b"update", b"update/1", RANDOM(39))
    assert set(sealed.wraps) == {ROUND}
    with pytest.raises(VerificationError, match="not sealed to agg-1"):
        RACK.open(sealed, b"update/1")


def test_an_update_has_one_name_under_a_key_however_often_its_row_is_read() -> None:
    key, row = new_key(FIRST, RACK, RANDOM)
    name = key.name(b"d" * 32)
    assert read_key(row, FIRST, RACK, RANDOM).name(b"d" * 32) == name
    assert len(name) == len("update/") + 64


def test_an_update_has_another_name_under_every_key_and_every_digest() -> None:
    (one, _), (two, _) = (new_key(FIRST, RACK, RANDOM) for _ in range(2))
    names = {key.name(digest) for key in (one, two) for digest in (b"a", b"b")}
    assert len(names) == 4


def test_it_is_never_shown() -> None:
    assert repr(RoundKey(b"k" * 32, RANDOM)) == "RoundKey(...)"


@pytest.mark.parametrize(
    "row",
    [b"", b"[]", b"{}", b'{"wraps":[]}', b'{"wraps":{"agg-1":"zz"}}', b"[" * 100_000],
)
def test_a_row_that_is_not_well_formed_is_refused(row: bytes) -> None:
    with pytest.raises(VerificationError, match="KEY is not well formed"):
        read_key(row, FIRST, RACK, RANDOM)


def test_a_key_of_another_length_is_refused() -> None:
    info = b"fedsecure-round-key-v1\0" + b'{"round":1,"run":"run"}'
    row = json.dumps({"wraps": {"agg-1": BOX.public.seal(b"short", info).hex()}})
    with pytest.raises(VerificationError, match="5 bytes"):
        read_key(row.encode(), FIRST, RACK, RANDOM)
