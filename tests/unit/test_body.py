"""Encrypted blocks, then open ones: cut, added, and told apart."""

from collections.abc import Callable

import numpy as np
import pytest

from fedsecure.body import (
    OPEN_MODULUS,
    BodySum,
    Form,
    cut_sum,
    read_open,
    seal_open,
)
from fedsecure.ciphertext import HEADER_BYTES, Ciphertext, Wire, to_bytes
from fedsecure.errors import VerificationError
from fedsecure.update import IntVector

KEY, SLOTS, MODULUS = bytes(range(16)), 1024, (1 << 60) - 93
SEED = bytes(range(64))


def closed(value: int, blocks: int = 2, seed: int = 0) -> Ciphertext:
    residues = np.full((blocks, 1, SLOTS), value, dtype=np.uint64)
    seeds = b"".join(bytes([seed + 1, i, *SEED[2:]]) for i in range(blocks))
    return Ciphertext(KEY, MODULUS, residues, (seeds,), 1)


def plain(value: int, blocks: int = 3) -> IntVector:
    return np.full((blocks, SLOTS), value, dtype=np.int64)


FORM = Form.of(closed(0), 2, 3, SLOTS)


def body(value: int, seed: int = 0, behind: bytes = b"") -> bytes:
    first = to_bytes(closed(value, seed=seed))
    return first + to_bytes(seal_open(KEY, plain(value))) + behind


def test_a_form_is_one_header_where_nothing_is_open() -> None:
    assert len(Form.of(closed(0), 2).to_bytes()) == HEADER_BYTES


def test_a_form_is_the_headers_of_both_parts() -> None:
    data = body(1)
    assert FORM.to_bytes() == data[:40] + data[len(to_bytes(closed(1))) :][:40]


def test_a_form_is_read_as_it_was_written() -> None:
    assert Form.read(memoryview(FORM.to_bytes())) == FORM


def test_a_form_says_how_long_an_update_is() -> None:
    assert FORM.size == len(body(1))


@pytest.mark.parametrize("size", [0, 39, 41, 79, 81, 120])
def test_a_form_of_another_length_is_refused(size: int) -> None:
    data = (FORM.to_bytes() * 2)[:size]
    with pytest.raises(VerificationError, match=f"form of {size} bytes"):
        Form.read(data)


def test_a_form_with_a_shape_out_of_bounds_is_refused() -> None:
    data = bytearray(FORM.to_bytes())
    data[46] = 99  # log2 of N, of the open part
    with pytest.raises(VerificationError, match="polynomials, N="):
        Form.read(bytes(data))


def test_an_update_is_cut_into_its_parts() -> None:
    wires, behind = FORM.wires(body(1, behind=b"pledge"), KEY)
    assert [wire.shape[0] for wire in wires] == [2, 3]
    assert bytes(behind) == b"pledge"


@pytest.mark.parametrize("part", [0, 1])
def test_an_update_of_another_form_is_refused(part: int) -> None:
    whole = body(1)
    start = len(to_bytes(closed(1))) * part
    data = whole[: start + 8] + b"\x09" + whole[start + 9 :]  # blocks
    with pytest.raises(VerificationError, match="another form"):
        FORM.wires(data, KEY)


def test_parts_the_other_way_round_are_refused() -> None:
    split = len(to_bytes(closed(1)))
    with pytest.raises(VerificationError, match="another form"):
        FORM.wires(body(1)[split:] + body(1)[:split], KEY)


@pytest.mark.parametrize("missing", ["all", "half"])
def test_an_update_without_its_open_part_is_refused(missing: str) -> None:
    end = len(to_bytes(closed(1))) if missing == "all" else -100
    with pytest.raises(VerificationError):
        FORM.wires(body(1)[:end], KEY)


def summed(*bodies: bytes) -> bytes:
    total = BodySum(KEY, 2, max_summands=3)
    for one in bodies:
        total.add(FORM.wires(one, KEY)[0])
    return b"".join(total.chunks())


def test_both_parts_are_added() -> None:
    pieces, rest = cut_sum(summed(body(1), body(5, seed=1)) + b"secrets", 2)
    assert bytes(rest) == b"secrets"
    for piece in pieces:
        (chunk,) = Wire(piece, key_id=KEY, max_summands=3).chunks()
        assert chunk.summands == 2
        assert (chunk.residues == 6).all()


def test_an_update_is_refused_whole() -> None:
    total = BodySum(KEY, 2, max_summands=3)
    total.add(FORM.wires(body(1), KEY)[0])
    before = b"".join(total.chunks())
    false = Ciphertext(
        KEY, OPEN_MODULUS, np.full((3, 1, SLOTS), OPEN_MODULUS, dtype=np.uint64), (), 1
    )
    data = to_bytes(closed(5, seed=1)) + to_bytes(false)
    with pytest.raises(VerificationError, match="residue not below q"):
        total.add(FORM.wires(data, KEY)[0])
    assert b"".join(total.chunks()) == before


def test_what_was_checked_is_not_checked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[int] = []
    real = Wire.check_residues

    def count(wire: Wire) -> None:
        looked.append(1)
        real(wire)

    monkeypatch.setattr(Wire, "check_residues", count)
    total, (wires, _) = BodySum(KEY, 2, max_summands=3), FORM.wires(body(1), KEY)
    total.check(wires)
    total.add(wires)
    assert len(looked) == 2


def test_the_sum_of_no_update_is_refused() -> None:
    with pytest.raises(VerificationError, match="sum of no update"):
        list(BodySum(KEY, 2, max_summands=3).chunks())


def test_a_sum_without_its_open_part_is_refused() -> None:
    with pytest.raises(VerificationError, match="too short"):
        cut_sum(summed(body(1))[: len(to_bytes(closed(1)))], 2)


def test_open_blocks_are_read_as_they_were_written() -> None:
    blocks = plain((1 << 48) - 1)
    assert np.array_equal(read_open(seal_open(KEY, blocks), SLOTS), blocks)


def test_a_sum_of_open_blocks_is_right_modulo_two_to_the_48() -> None:
    sent = seal_open(KEY, plain((1 << 48) - 1))
    total = Ciphertext(KEY, OPEN_MODULUS, sent.residues * np.uint64(3), (), 3)
    assert (read_open(total, SLOTS) == (1 << 48) - 3).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: Ciphertext(KEY, MODULUS, t.residues, (), 1), "modulo"),
        (lambda t: Ciphertext(KEY, OPEN_MODULUS, t.residues, (SEED * 3,), 1), "seeds"),
        (
            lambda t: Ciphertext(KEY, OPEN_MODULUS, t.residues[..., :512], (), 1),
            "shape",
        ),
        (
            lambda t: Ciphertext(
                KEY, OPEN_MODULUS, t.residues + np.uint64(OPEN_MODULUS), (), 1
            ),
            "not below q",
        ),
    ],
)
def test_what_is_no_sum_of_open_blocks_is_refused(
    change: Callable[[Ciphertext], Ciphertext], reason: str
) -> None:
    with pytest.raises(VerificationError, match=reason):
        read_open(change(seal_open(KEY, plain(1))), SLOTS)


@pytest.mark.parametrize("count", [1, 3])
def test_a_sums_size_is_known_before_it_is_written(count: int) -> None:
    total = BodySum(KEY, 2, max_summands=3)
    for seed in range(count):
        total.add(FORM.wires(body(1, seed=seed), KEY)[0])
    assert total.size == sum(map(len, total.chunks()))
