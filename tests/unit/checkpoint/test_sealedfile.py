"""A sealed file opens whole, for its owner, or not at all."""

import io
import os
from itertools import count

import pytest

from fedsecure.checkpoint import sealedfile
from fedsecure.checkpoint.sealedfile import (
    CHUNK_BYTES,
    MAGIC,
    Box,
    Passphrase,
    SealedReader,
    SealedWriter,
)
from fedsecure.errors import VerificationError
from fedsecure.keys import BoxKey, SigningKey

SIGNING = SigningKey.from_bytes(b"s" * 32)
BOX = BoxKey.from_bytes(b"b" * 32)
LID = Box(BOX.public, BOX)
CHEAP = 1 << 14
SECRET = b"the plain bytes of a ledger"


def sealed(data: bytes = SECRET, lid: Box | Passphrase = LID) -> bytes:
    file = io.BytesIO()
    writer = SealedWriter(file, {"name": "agg-1"}, lid, os.urandom)
    for start in range(0, len(data), 1 << 20):
        writer.write(data[start : start + (1 << 20)])
    writer.finish(SIGNING)
    return file.getvalue()


def opened(stored: bytes, lid: Box | Passphrase = LID) -> bytes:
    reader = SealedReader(io.BytesIO(stored), lid)
    data = b"".join(iter(lambda: reader.read(1 << 20), b""))
    reader.finish(SIGNING.public)
    return data


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_what_was_sealed_is_opened(size: int) -> None:
    data = os.urandom(size)
    assert opened(sealed(data)) == data


def test_the_plain_bytes_are_not_in_it() -> None:
    assert SECRET not in sealed()


def test_facts_can_be_read() -> None:
    assert SealedReader(io.BytesIO(sealed()), LID).facts == {"name": "agg-1"}


def test_any_changed_byte_is_found() -> None:
    stored = sealed()
    for at in range(len(stored)):
        bad = bytearray(stored)
        bad[at] ^= 1
        with pytest.raises(VerificationError):
            opened(bytes(bad))


def test_a_file_that_was_cut_off_anywhere_is_refused() -> None:
    stored = sealed()
    for size in range(len(stored)):
        with pytest.raises(VerificationError):
            opened(stored[:size])


def test_bytes_behind_the_end_are_refused() -> None:
    with pytest.raises(VerificationError, match="added behind"):
        opened(sealed() + b"x")


def test_a_chunk_in_another_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealedfile, "CHUNK_BYTES", 100)
    stored = sealed(os.urandom(300))
    head = len(MAGIC) + 4
    head += int.from_bytes(stored[len(MAGIC) : head], "little")
    size = 4 + 100 + 28
    first, second = stored[head : head + size], stored[head + size : head + 2 * size]
    swapped = stored[:head] + second + first + stored[head + 2 * size :]
    with pytest.raises(VerificationError, match="not in its place"):
        opened(swapped)


def test_another_signer_is_refused() -> None:
    reader = SealedReader(io.BytesIO(sealed()), LID)
    with pytest.raises(VerificationError):
        reader.finish(SigningKey.from_bytes(b"o" * 32).public)


def test_another_box_key_does_not_open_it() -> None:
    other = BoxKey.from_bytes(b"o" * 32)
    with pytest.raises(VerificationError):
        opened(sealed(), Box(other.public, other))


def test_a_passphrase_opens_what_it_sealed() -> None:
    lid = Passphrase(b"correct horse", CHEAP)
    assert opened(sealed(lid=lid), lid) == SECRET


def test_another_passphrase_does_not_open_it() -> None:
    stored = sealed(lid=Passphrase(b"correct horse", CHEAP))
    with pytest.raises(VerificationError, match="passphrase does not open"):
        opened(stored, Passphrase(b"battery staple", CHEAP))


def test_who_brings_the_other_kind_of_key_is_told_which_it_takes() -> None:
    with pytest.raises(VerificationError, match="box key"):
        opened(sealed(), Passphrase(b"p", CHEAP))
    with pytest.raises(VerificationError, match="--passphrase-file"):
        opened(sealed(lid=Passphrase(b"p", CHEAP)), LID)


@pytest.mark.parametrize("cost", [1 << 13, 1 << 22, (1 << 14) + 1, True, "16384"])
def test_a_cost_that_would_stall_the_machine_is_refused(cost: object) -> None:
    with pytest.raises(VerificationError, match="scrypt cost"):
        Passphrase(b"p").key({"scrypt": "00", "salt": "00", "cost": cost})  # type: ignore[dict-item]


def test_a_passphrase_is_never_shown() -> None:
    assert "horse" not in repr(Passphrase(b"correct horse"))


def test_two_files_of_one_plain_text_share_no_key() -> None:
    numbers = count(1)

    def random(size: int) -> bytes:
        return next(numbers).to_bytes(size, "big")

    files = []
    for _ in range(2):
        file = io.BytesIO()
        SealedWriter(file, {}, LID, random).finish(SIGNING)
        files.append(file.getvalue())
    assert files[0][-100:] != files[1][-100:]
