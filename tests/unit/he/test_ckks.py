"""CKKS: exact by arithmetic, and never without its warning."""

import logging
from typing import Any

import numpy as np
import pytest

from fedsecure import registry
from fedsecure.errors import VerificationError
from fedsecure.he import SecretKey
from fedsecure.running_sum import RunningSum

KEY_ID = bytes(16)
CKKS: Any = registry.load("he", "ckks")
SCHEME: Any = CKKS.create({})
KEY: SecretKey = SCHEME.keygen(KEY_ID)


def test_each_construction_warns_of_cpa_d(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        CKKS.create({})
        CKKS.create({})
    assert [r.message.count("IND-CPA-D") for r in caplog.records] == [1, 1]


def test_largest_error_of_93_summands_rounds_away() -> None:
    # 21 of the fresh error, 1/2 of the encoder, 1 for double precision.
    assert CKKS.SCALE / 2 > 93 * 4096 * (21 + 0.5 + 1)


def test_largest_sum_of_93_limbs_is_below_half_the_modulus() -> None:
    assert 93 * 2**CKKS.LIMB_BITS * CKKS.SCALE < CKKS.MODULUS / 2


def test_sum_of_93_saturated_updates_is_exact() -> None:
    encryptor, full = SCHEME.encryptor(KEY), np.full((1, 1024), (1 << 48) - 1)
    running = RunningSum(KEY_ID, max_summands=93)
    for _ in range(93):
        running.add(encryptor.encrypt(full))
    opened = SCHEME.decryptor(KEY).decrypt(running.total())
    assert np.array_equal(opened, np.full((1, 1024), (1 << 48) - 93))


def test_a_coefficient_costs_four_times_the_bytes_of_bfv() -> None:
    bfv: Any = registry.load("he", "bfv")
    assert bfv.SLOTS == 4 * CKKS.SLOTS


def test_key_of_another_scheme_is_refused() -> None:
    with pytest.raises(VerificationError, match="run key is for 'bfv'"):
        SCHEME.decryptor(SecretKey("bfv", KEY_ID, KEY.secret))
