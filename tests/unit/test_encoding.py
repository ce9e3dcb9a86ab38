"""Integers to fields and back, and the keyed tag."""

import hashlib
import hmac

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.encoding import (
    Profile,
    check_tags,
    pack,
    profile,
    tags,
    unpack,
)
from fedsecure.errors import (
    ConfigurationError,
    OverflowRisk,
    VerificationError,
)
from fedsecure.quantiser import FixedPoint
from fedsecure.update import IntVector, RoundId

SLOTS = 8
MASK = (1 << 48) - 1
KEY = bytes(range(32))
ROUND = RoundId("run-1", 3)
PROFILES = [profile(name) for name in ("20", "12", "8", "wide")]


def by_name(chosen: Profile) -> str:
    return chosen.name


every_profile = pytest.mark.parametrize("chosen", PROFILES, ids=by_name)

# --- profiles -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sites", "bits"),
    [
        ("20", 16, 20),
        ("20", 64, 18),
        ("20", 93, 17),
        ("12", 16, 12),
        ("12", 64, 10),
        ("12", 93, 9),
        ("8", 16, 8),
        ("8", 64, 6),
        ("8", 93, 5),
        ("wide", 16, 44),
        ("wide", 64, 42),
        ("wide", 93, 41),
    ],
)
def test_value_bits_are_those_of_the_design_table(
    name: str, sites: int, bits: int
) -> None:
    assert profile(name).value_bits(sites) == bits


@every_profile
def test_fields_fill_a_coefficient(chosen: Profile) -> None:
    assert chosen.fields * chosen.field_bits == 48


@every_profile
@pytest.mark.parametrize("sites", [1, 2, 3, 16, 17, 93])
def test_every_profile_holds_the_sum_it_was_sized_for(
    chosen: Profile, sites: int
) -> None:
    fixed = FixedPoint(1.0, chosen.value_bits(sites), sites)
    fixed.check(chosen.field_bits)


def test_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="one of 20, 12, 8, wide"):
        profile("21")


def test_too_few_bits_left_are_refused() -> None:
    with pytest.raises(OverflowRisk, match="at least 4"):
        profile("8").value_bits(257)


@pytest.mark.parametrize(
    ("count", "blocks"), [(0, 1), (1, 1), (14, 1), (15, 2), (28, 2), (29, 3)]
)
def test_blocks_are_filled_but_for_the_tag(count: int, blocks: int) -> None:
    assert profile("20").blocks(count, SLOTS) == blocks


# --- fields ---------------------------------------------------------------------------


@every_profile
def test_coefficients_are_below_the_plain_modulus(chosen: Profile) -> None:
    blocks = pack(np.array([-1, -5, 7, -1] * 9), chosen, SLOTS)
    assert blocks.min() >= 0
    assert blocks.max() <= MASK


@every_profile
def test_the_last_slot_of_each_block_is_left_for_the_tag(chosen: Profile) -> None:
    blocks = pack(np.full(100, -1), chosen, SLOTS)
    assert set(blocks[:, -1].tolist()) == {0}


@every_profile
def test_a_coefficient_is_the_sum_of_its_shifted_fields(chosen: Profile) -> None:
    per_block = chosen.fields * (SLOTS - 1)
    values = np.arange(per_block) - per_block // 2
    first = pack(values, chosen, SLOTS)[0, 0]
    inside = values[:: SLOTS - 1].tolist()
    plain = sum(y << (j * chosen.field_bits) for j, y in enumerate(inside))
    assert first == plain % (1 << 48)


@every_profile
@given(data=st.data())
def test_every_integer_a_field_holds_comes_back(
    chosen: Profile, data: st.DataObject
) -> None:
    most = (1 << (chosen.field_bits - 1)) - 1
    numbers = st.one_of(st.integers(-most, most), st.sampled_from([most, -most]))
    values = np.array(data.draw(st.lists(numbers, max_size=70)), dtype=np.int64)
    packed = pack(values, chosen, SLOTS)
    assert np.array_equal(unpack(packed, chosen, len(values)), values)


@every_profile
@given(data=st.data())
def test_packing_is_linear_even_where_noise_leaves_the_field(
    chosen: Profile, data: st.DataObject
) -> None:
    # ENCRYPTION 4: then an overflow costs utility and never privacy.
    numbers = st.lists(st.integers(-(1 << 61), 1 << 61), min_size=20, max_size=20)
    one, two = (np.array(data.draw(numbers)) for _ in range(2))
    apart = (pack(one, chosen, SLOTS) + pack(two, chosen, SLOTS)) & MASK
    assert np.array_equal(apart, pack(one + two, chosen, SLOTS))


@every_profile
def test_many_blocks_are_those_of_one_by_one(chosen: Profile) -> None:
    per_block = chosen.fields * (SLOTS - 1)
    values = np.random.default_rng(1).integers(-7, 8, 150 * per_block - 3)
    packed = pack(values, chosen, SLOTS)
    pieces = [
        pack(values[i : i + per_block], chosen, SLOTS)
        for i in range(0, len(values), per_block)
    ]
    assert np.array_equal(packed, np.concatenate(pieces))
    assert np.array_equal(unpack(packed, chosen, len(values)), values)


@pytest.mark.parametrize("count", [0, 14, 29, 10_000])
def test_another_number_of_blocks_than_the_layout_wants_is_refused(count: int) -> None:
    blocks = pack(np.zeros(28, np.int64), profile("20"), SLOTS)
    with pytest.raises(VerificationError, match="2 blocks do not hold"):
        unpack(blocks, profile("20"), count)


# --- tags -----------------------------------------------------------------------------


def total_of(*sites: str, round_id: RoundId = ROUND, key: bytes = KEY) -> IntVector:
    made = [tags(key, round_id, site, 4) for site in sites]
    return np.asarray(np.sum(made, axis=0) & MASK)


def test_a_tag_is_six_bytes_of_an_hmac() -> None:
    message = b"fedsecure-tag-v1\0run-1|3|site-a|\2\0\0\0"
    digest = hmac.new(KEY, message, hashlib.sha256).digest()
    expected = int.from_bytes(digest[:6], "little")
    assert tags(KEY, ROUND, "site-a", 3)[2] == expected


@pytest.mark.parametrize(
    ("key", "round_id", "site"),
    [
        (bytes(32), ROUND, "a"),
        (KEY, RoundId("run-2", 3), "a"),
        (KEY, RoundId("run-1", 4), "a"),
        (KEY, ROUND, "b"),
    ],
    ids=["key", "run", "round", "site"],
)
def test_tags_are_others_for_another(key: bytes, round_id: RoundId, site: str) -> None:
    mine, other = tags(KEY, ROUND, "a", 4), tags(key, round_id, site, 4)
    assert not np.isin(mine, other).any()


def test_no_two_blocks_share_a_tag() -> None:
    assert len(set(tags(KEY, ROUND, "a", 64).tolist())) == 64


def test_the_sum_of_the_participants_is_accepted_in_any_order() -> None:
    check_tags(total_of("c", "a", "b"), KEY, ROUND, ("a", "b", "c"))


@pytest.mark.parametrize(
    "found",
    [
        total_of("a", "b"),
        total_of("a", "b", "c", "d"),
        total_of("a", "b", "b"),
        total_of("a", "a", "a"),
        np.roll(total_of("a", "b", "c"), 1),
        total_of("a", "b", "c", round_id=RoundId("run-1", 2)),
        total_of("a", "b", "c", round_id=RoundId("run-2", 3)),
        total_of("a", "b", "c", key=bytes(32)),
        (total_of("a", "b", "c") + 1) & MASK,
    ],
    ids=[
        "one missing",
        "one added",
        "one twice, one missing",
        "copies of one",
        "blocks swapped",
        "a round before",
        "another run",
        "another key",
        "a constant added",
    ],
)
def test_the_sum_of_any_other_set_is_refused(found: IntVector) -> None:
    with pytest.raises(VerificationError, match="not of exactly these sites"):
        check_tags(found, KEY, ROUND, ("a", "b", "c"))


def test_one_wrong_block_is_enough_and_is_counted() -> None:
    found = total_of("a", "b")
    found[2] ^= 1
    with pytest.raises(VerificationError, match="1 of 4 tags"):
        check_tags(found, KEY, ROUND, ("a", "b"))


def test_a_refusal_shows_no_tag() -> None:
    with pytest.raises(VerificationError) as refused:
        check_tags(total_of("a"), KEY, ROUND, ("a", "b"))
    shown = str(refused.value)
    expected = total_of("a", "b").tolist() + total_of("a").tolist()
    assert not any(str(tag) in shown for tag in expected)
