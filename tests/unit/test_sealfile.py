"""SEAL's own bytes: what it saves is read, what is written it loads."""

import os
import struct
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal

from fedsecure import registry
from fedsecure.errors import ConfigurationError
from fedsecure.sealfile import (
    POLYNOMIAL_BYTES,
    SLOTS,
    MemoryFile,
    PairForm,
    SeededForm,
    plaintext_frame,
    read_plaintext,
)
from fedsecure.update import IntVector

SCHEME: Any = registry.load("he", "bfv").create({})
KEY = SCHEME.secret(SCHEME.keygen(bytes(16)))
HEAD = struct.Struct("<HBBBBHQ")


class Written:
    """Saves given bytes, as an object of SEAL would."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def save(self, path: str) -> None:
        with open(path, "wb") as file:  # noqa: PTH123 - the path SEAL is given
            file.write(self._data)


def ramp(count: int = SLOTS) -> IntVector:
    block = np.zeros(SLOTS, np.int64)
    block[:count] = np.arange(1, count + 1) << 35
    return block


def loaded(block: IntVector) -> Any:
    plain = seal.Plaintext(SLOTS)
    plain.load(SCHEME.context, SCHEME.file.holding(plaintext_frame().filled(block)))
    return plain


def zero() -> bytes:
    encryptor = seal.Encryptor(SCHEME.context, KEY)
    return bytes(SCHEME.file.saved(encryptor.encrypt_symmetric(seal.Plaintext("0"))))


# --- the file -------------------------------------------------------------------------


def test_a_file_gives_what_was_saved() -> None:
    assert MemoryFile().saved(Written(b"abc")) == b"abc"


def test_a_shorter_save_leaves_nothing_of_a_longer_one() -> None:
    file = MemoryFile()
    file.saved(Written(b"longer"))
    assert file.saved(Written(b"abc")) == b"abc"


def test_a_shorter_holding_leaves_nothing_of_a_longer_one() -> None:
    file = MemoryFile()
    file.holding(b"longer")
    with open(file.holding(b"abc"), "rb") as held:  # noqa: PTH123
        assert held.read() == b"abc"


def test_nothing_stays_in_the_file_after_a_save() -> None:
    file = MemoryFile()
    path = file.holding(b"")
    file.saved(Written(b"secret"))
    assert os.stat(path).st_size == 0  # noqa: PTH116


def test_a_file_that_is_gone_gives_its_descriptor_back() -> None:
    file = MemoryFile()
    path = file.holding(b"abc")
    del file
    assert not os.path.exists(path)  # noqa: PTH110


# --- ciphertexts ----------------------------------------------------------------------


def test_what_is_read_and_written_again_is_the_same_ciphertext() -> None:
    saved = zero()
    form = SeededForm(saved)
    first = np.empty(SLOTS, np.uint64)
    seed = form.read(saved, first)
    again = bytes(form.frame().filled(first, seed))
    second = np.empty(SLOTS, np.uint64)
    assert form.read(again, second) == seed
    assert np.array_equal(first, second)


def test_a_written_ciphertext_is_as_long_as_its_header_says() -> None:
    data = SeededForm(zero()).frame().filled(0, bytes(64))
    assert HEAD.unpack_from(data)[-1] == len(data) == 16 + 32_946


def test_seal_opens_a_written_ciphertext() -> None:
    form, first = SeededForm(zero()), np.empty(SLOTS, np.uint64)
    encryptor = seal.Encryptor(SCHEME.context, KEY)
    sealed = SCHEME.file.saved(encryptor.encrypt_symmetric(loaded(ramp())))
    seed = form.read(sealed, first)
    value = seal.Ciphertext(SCHEME.context)
    data = form.frame().filled(first, seed)
    value.load(SCHEME.context, SCHEME.file.holding(data))
    opened = seal.Plaintext()
    seal.Decryptor(SCHEME.context, KEY).decrypt(value, opened)
    assert [opened[i] for i in range(SLOTS)] == ramp().tolist()


def edited(at: int) -> bytes:
    """Return a fresh ciphertext, not compressed, with one bit changed."""
    data = SeededForm(zero()).frame().filled(0, bytes(64))
    data[at] ^= 1
    return bytes(data)


@pytest.mark.parametrize("at", range(17), ids=str)
def test_another_byte_behind_the_polynomial_refuses_to_start(at: int) -> None:
    with pytest.raises(ConfigurationError, match="another layout"):
        SeededForm(edited(16 + 97 + POLYNOMIAL_BYTES + at))


@pytest.mark.parametrize("at", [33, 41, 49, 73, 80, 89], ids=str)
def test_another_shape_before_the_polynomial_refuses_to_start(at: int) -> None:
    with pytest.raises(ConfigurationError, match="another layout"):
        SeededForm(edited(16 + at))


@pytest.mark.parametrize("at", [0, 1, 3, 4, 5])
def test_another_magic_version_or_mode_refuses_to_start(at: int) -> None:
    with pytest.raises(ConfigurationError, match=r"install tenseal==0\.3\.18"):
        SeededForm(edited(at))


@pytest.mark.parametrize("extra", [-1, 1, 64])
def test_another_length_refuses_to_start(extra: int) -> None:
    whole = bytes(SeededForm(zero()).frame().filled(0, bytes(64)))
    data = whole[:extra] if extra < 0 else whole + bytes(extra)
    with pytest.raises(ConfigurationError, match="another layout"):
        SeededForm(bytes(data))


def both() -> bytes:
    """Return a fresh ciphertext of a ramp, both polynomials written out."""
    sealed = seal.Ciphertext()
    seal.Encryptor(SCHEME.context, KEY).encrypt_symmetric(loaded(ramp()), sealed)
    return bytes(SCHEME.file.saved(sealed))


def test_seal_opens_a_pair_that_was_read_and_written() -> None:
    saved, pair = both(), np.empty((2, SLOTS), np.uint64)
    form = PairForm(saved)
    form.read(saved, pair)
    value = seal.Ciphertext(SCHEME.context)
    data = form.frame().filled(pair.reshape(-1))
    value.load(SCHEME.context, SCHEME.file.holding(data))
    opened = seal.Plaintext()
    seal.Decryptor(SCHEME.context, KEY).decrypt(value, opened)
    assert [opened[i] for i in range(SLOTS)] == ramp().tolist()


@pytest.mark.parametrize("at", [33, 41, 49, 73, 80, 89], ids=str)
def test_another_shape_before_a_pair_refuses_to_start(at: int) -> None:
    data = PairForm(both()).frame().filled(0)
    data[16 + at] ^= 1
    with pytest.raises(ConfigurationError, match="another layout"):
        PairForm(bytes(data))


def test_a_seeded_ciphertext_is_no_pair_and_refuses_to_start() -> None:
    with pytest.raises(ConfigurationError, match="another layout"):
        PairForm(zero())
    with pytest.raises(ConfigurationError, match="another layout"):
        SeededForm(both())


# --- plaintexts -----------------------------------------------------------------------


def test_seal_reads_a_written_plaintext() -> None:
    plain = loaded(ramp())
    assert [plain[i] for i in range(SLOTS)] == ramp().tolist()


@pytest.mark.parametrize("count", [0, 1, 7, SLOTS])
def test_high_zeros_that_seal_trims_are_put_back(count: int) -> None:
    encryptor = seal.Encryptor(SCHEME.context, KEY)
    sealed = seal.Ciphertext()
    encryptor.encrypt_symmetric(loaded(ramp(count)), sealed)
    opened = seal.Plaintext()
    seal.Decryptor(SCHEME.context, KEY).decrypt(sealed, opened)
    found = np.zeros(SLOTS, np.int64)
    read_plaintext(SCHEME.file.saved(opened), found)
    assert np.array_equal(found, ramp(count))
