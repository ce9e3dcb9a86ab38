"""BFV: fixed parameters, bytes that SEAL agrees with, refusals before SEAL is asked."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fedsecure import registry
from fedsecure.ciphertext import Ciphertext
from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.he import SecretKey
from fedsecure.running_sum import RunningSum
from fedsecure.sealfile import SeededForm
from fedsecure.update import IntVector

KEY_ID = bytes(16)
BFV: ModuleType = registry.load("he", "bfv")
SCHEME: Any = BFV.create({})
KEY: SecretKey = SCHEME.keygen(KEY_ID)


def _blocks(seed: int, count: int = 1) -> IntVector:
    return np.random.default_rng(seed).integers(0, 1 << 48, (count, 4096))


def test_modulus_is_the_one_of_the_design() -> None:
    assert BFV.MODULUS == 2**60 - 2**14 + 1


def test_seal_accepts_the_parameters_at_128_bits_without_switching_keys() -> None:
    assert SCHEME.context.parameters_set()
    assert not SCHEME.context.using_keyswitching()


def test_sum_of_93_saturated_updates_is_exact() -> None:
    encryptor, full = SCHEME.encryptor(KEY), np.full((1, 4096), (1 << 48) - 1)
    running = RunningSum(KEY_ID, max_summands=93)
    for _ in range(93):
        running.add(encryptor.encrypt(full))
    opened = SCHEME.decryptor(KEY).decrypt(running.total())
    assert np.array_equal(opened, np.full((1, 4096), (1 << 48) - 93))


def test_94_summands_are_refused_although_they_would_open() -> None:
    one = SCHEME.encryptor(KEY).encrypt(_blocks(1))
    many = replace(one, seeds=one.seeds * 94, summands=94)
    with pytest.raises(VerificationError, match="94 summands, exact for 1 to 93"):
        SCHEME.decryptor(KEY).decrypt(many)


def test_residue_not_below_q_is_refused() -> None:
    one = SCHEME.encryptor(KEY).encrypt(_blocks(1))
    residues = one.residues.copy()
    residues[0, 0, 7] = BFV.MODULUS
    with pytest.raises(VerificationError, match="not below q"):
        SCHEME.decryptor(KEY).decrypt(replace(one, residues=residues))


@pytest.mark.parametrize("seeds", [(), (bytes(63),), (bytes(64), bytes(64))])
def test_wrong_seeds_are_refused(seeds: tuple[bytes, ...]) -> None:
    one = SCHEME.encryptor(KEY).encrypt(_blocks(1))
    with pytest.raises(VerificationError, match="one seed a summand"):
        SCHEME.decryptor(KEY).decrypt(replace(one, seeds=seeds))


def test_plain_zeros_at_the_high_end_are_put_back() -> None:
    blocks = np.zeros((1, 4096), dtype=np.int64)
    blocks[0, 5] = 9
    opened = SCHEME.decryptor(KEY).decrypt(SCHEME.encryptor(KEY).encrypt(blocks))
    assert np.array_equal(opened, blocks)


def test_key_of_another_scheme_is_refused() -> None:
    with pytest.raises(VerificationError, match="run key is for 'ckks'"):
        SCHEME.decryptor(SecretKey("ckks", KEY_ID, KEY.secret))


def test_key_that_does_not_load_is_refused_without_its_bytes() -> None:
    with pytest.raises(VerificationError, match=r"^run key does not load$"):
        SCHEME.encryptor(SecretKey("bfv", KEY_ID, KEY.secret[:-8]))


def test_no_update_is_no_block() -> None:
    sent: Ciphertext = SCHEME.encryptor(KEY).encrypt(_blocks(1, 0))
    assert sent.residues.shape == (0, 1, 4096)


def test_blocks_of_another_width_are_refused() -> None:
    with pytest.raises(VerificationError, match=r"want \(n, 4096\)"):
        SCHEME.encryptor(KEY).encrypt(_blocks(1)[:, :-1])


def test_a_ciphertext_of_another_layout_refuses_to_start() -> None:
    saved = SCHEME.file.saved(SCHEME.secret(KEY))
    with pytest.raises(ConfigurationError, match=r"install tenseal==0\.3\.18"):
        SeededForm(saved)


def test_bytes_of_another_seal_refuse_to_start() -> None:
    with pytest.raises(ConfigurationError, match=r"SEAL 3\.6"):
        SeededForm(bytes.fromhex("5ea11003060000001000000000000000"))


def test_the_veil_is_that_of_plain_integers_and_costs_half_a_step_of_noise() -> None:
    pairs = zip(BFV._VEIL.tolist(), BFV._VEIL_RESIDUES.tolist(), strict=True)
    for plain, residue in pairs:
        assert 0 <= plain < 2**48
        # 2 |residue - q plain / t| <= 1, without a fraction
        assert 2 * abs(residue * 2**48 - BFV.MODULUS * plain) <= 2**48
        assert residue < BFV.MODULUS


def test_opening_leaves_the_sum_as_it_was() -> None:
    for seeded in (True, False):
        one = SCHEME.encryptor(KEY, seeded=seeded).encrypt(_blocks(1))
        before = one.residues.copy()
        SCHEME.decryptor(KEY).decrypt(one)
        assert np.array_equal(one.residues, before)
