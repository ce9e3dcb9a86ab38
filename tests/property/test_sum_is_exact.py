"""The sum that sites open is the sum of what they sent, exactly, or it is refused."""

import multiprocessing
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedsecure import ciphertext, registry
from fedsecure.ciphertext import Ciphertext
from fedsecure.encoding import (
    check_tags,
    pack,
    profile,
    tags,
    unpack,
)
from fedsecure.envelope import Kind, Scope, parse, sign, verify
from fedsecure.errors import VerificationError
from fedsecure.he import SecretKey
from fedsecure.keys import SigningKey
from fedsecure.quantiser import FixedPoint
from fedsecure.running_sum import RunningSum
from fedsecure.update import IntVector, RoundId, Vector

KEY_ID, TAG_KEY, ROUND = bytes(16), bytes(range(32)), RoundId("run-1", 2)
PROFILES = st.sampled_from(["20", "12", "8", "wide"])
SCHEMES = st.sampled_from(["bfv", "ckks"])
FORMS = st.sampled_from(["seeds", "sum"])
SITES = ("a", "b", "c")


@cache
def _rig(name: str) -> tuple[Any, SecretKey, Any, Any]:
    scheme = registry.load("he", name).create({})
    key = scheme.keygen(KEY_ID)
    return scheme, key, scheme.encryptor(key), scheme.decryptor(key)


@cache
def _encryptor(name: str, form: str) -> Any:
    scheme, key, _, _ = _rig(name)
    return scheme.encryptor(key, seeded=form == "seeds")


def _sent(
    scheme: str, chosen: str, site: str, values: IntVector, form: str = "seeds"
) -> bytes:
    encryptor = _encryptor(scheme, form)
    blocks = pack(values, profile(chosen), encryptor.slots)
    blocks[:, -1] = tags(TAG_KEY, ROUND, site, len(blocks))
    return ciphertext.to_bytes(encryptor.encrypt(blocks))


def _received(data: bytes) -> Ciphertext:
    return ciphertext.from_bytes(data, key_id=KEY_ID, max_summands=93)


def _summed(parts: list[bytes]) -> bytes:
    running = RunningSum(KEY_ID, max_summands=93)
    for part in parts:
        running.add(_received(part))
    return ciphertext.to_bytes(running.total())


def _opened(scheme: str, total: bytes) -> IntVector:
    blocks: IntVector = _rig(scheme)[3].decrypt(_received(total))
    return blocks


def _updates(seed: int, sites: int, size: int) -> list[Vector]:
    random = np.random.default_rng(seed)
    made = [random.normal(0, 0.7, size) for _ in range(sites)]
    for update in made:  # both edges of the range, in every update
        update[: size // 4] = np.sign(update[: size // 4]) * 1e9
    return made


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    sites=st.integers(1, 16),
    size=st.integers(1, 9000),
    chosen=PROFILES,
    scheme=SCHEMES,
    form=FORMS,
)
@example(seed=1, sites=16, size=8191, chosen="20", scheme="bfv", form="seeds")
@example(seed=1, sites=16, size=8191, chosen="wide", scheme="bfv", form="sum")
@example(seed=1, sites=1, size=1, chosen="8", scheme="ckks", form="sum")
def test_opened_sum_is_the_sum_of_the_quantised_updates(
    seed: int, sites: int, size: int, chosen: str, scheme: str, form: str
) -> None:
    fields = profile(chosen)
    fixed = FixedPoint(1.0, fields.value_bits(16), 16)
    fixed.check(fields.field_bits)
    quantised = [fixed.quantize(u).values for u in _updates(seed, sites, size)]
    names = [f"site-{i}" for i in range(sites)]
    pairs = zip(names, quantised, strict=True)
    parts = [_sent(scheme, chosen, n, q, form) for n, q in pairs]
    blocks = _opened(scheme, _summed(parts))
    check_tags(blocks[:, -1], TAG_KEY, ROUND, names)
    assert np.array_equal(unpack(blocks, fields, size), sum(quantised))


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    order=st.permutations(range(8)),
    scheme=SCHEMES,
    form=FORMS,
)
def test_order_of_the_sites_changes_no_opened_bit(
    seed: int, order: list[int], scheme: str, form: str
) -> None:
    values = np.random.default_rng(seed).integers(-1000, 1000, (8, 500))
    parts = [_sent(scheme, "20", f"s{i}", v, form) for i, v in enumerate(values)]
    there, back = _summed(parts), _summed([parts[i] for i in order])
    assert np.array_equal(_opened(scheme, there), _opened(scheme, back))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), sites=st.integers(2, 16), form=FORMS)
def test_numpy_adds_the_residues_that_seal_adds(
    seed: int, sites: int, form: str
) -> None:
    import tenseal.sealapi as seal

    scheme, encryptor = _rig("bfv")[0], _encryptor("bfv", form)
    random = np.random.default_rng(seed)
    made = [
        encryptor.encrypt(random.integers(0, 1 << 48, (1, 4096))) for _ in range(sites)
    ]
    running = RunningSum(KEY_ID, max_summands=sites)
    for one in made:
        running.add(one)
    total = _loaded(scheme, made[0])
    for one in made[1:]:
        seal.Evaluator(scheme.context).add_inplace(total, _loaded(scheme, one))
    ours = running.total().residues.reshape(-1)
    assert ours.tolist() == [total[i] for i in range(len(ours))]


def _loaded(scheme: Any, one: Ciphertext) -> Any:
    import tenseal.sealapi as seal

    loaded = seal.Ciphertext(scheme.context)
    numbers = one.residues.reshape(-1)
    if one.seeds:
        data = scheme.form.frame().filled(numbers, one.seeds[0])
    else:
        data = scheme.pair.frame().filled(numbers)
    loaded.load(scheme.context, scheme.file.holding(data))
    return loaded


@settings(max_examples=20)
@given(
    chosen=PROFILES,
    form=FORMS,
    sites=st.integers(1, 16),
    high=st.booleans(),
    size=st.integers(1, 300),
)
@example(chosen="20", form="sum", sites=16, high=True, size=8190)
def test_fields_full_to_either_edge_spill_into_no_neighbour(
    chosen: str, form: str, sites: int, high: bool, size: int
) -> None:
    # Balanced digits: a sum may fill a field to +-(2**(f-1) - 1), next to its opposite.
    fields = profile(chosen)
    edge = (1 << (fields.field_bits - 1)) - 1
    share, rest = divmod(edge, sites)
    signs = np.where((np.arange(size) % 2 == 0) == high, 1, -1)
    values = [signs * (share + (rest if i == 0 else 0)) for i in range(sites)]
    parts = [_sent("bfv", chosen, f"s{i}", v, form) for i, v in enumerate(values)]
    opened = _opened("bfv", _summed(parts))
    assert np.array_equal(unpack(opened, fields, size), signs * edge)


@pytest.mark.parametrize(
    "count", [200, pytest.param(10_000, marks=pytest.mark.reproduction)]
)
@pytest.mark.parametrize("form", ["seeds", "sum"])
def test_no_coefficient_of_many_ciphertexts_is_wrong(count: int, form: str) -> None:
    # ENCRYPTION 15: 0 wrong in 1e4 ciphertexts, each a sum of 16.
    encryptor, decryptor = _encryptor("bfv", form), _rig("bfv")[3]
    random, wrong = np.random.default_rng(count), 0
    for _ in range(-(-count // 160)):
        parts = random.integers(0, 1 << 48, (16, 10, 4096))
        running = RunningSum(KEY_ID, max_summands=16)
        for part in parts:
            running.add(encryptor.encrypt(part))
        expected = parts.sum(axis=0) & ((1 << 48) - 1)
        opened = decryptor.decrypt(running.total())
        wrong += int(np.count_nonzero(opened != expected))
    assert wrong == 0


@settings(max_examples=60)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@example(position=0.0, bit=0)
@example(position=0.9999999, bit=7)
@pytest.mark.parametrize("form", ["seeds", "sum"])
def test_any_flipped_bit_of_a_signed_sum_is_refused(
    form: str, position: float, bit: int
) -> None:
    key = SigningKey.from_bytes(bytes(32))
    scope = Scope(ROUND, "*", KEY_ID, b"", b"")
    sent = sign(Kind.RELEASE, scope, {}, _three(form), signer="agg-1", key=key)
    data = bytearray(sent.to_bytes())
    data[int(position * len(data))] ^= 1 << bit
    with pytest.raises(VerificationError):
        verify(parse(bytes(data), 1 << 20), key.public, kinds=(Kind.RELEASE,))


@settings(max_examples=30)
@given(offset=st.integers(1, 64 * len(SITES)), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_seed_fails_the_tag(offset: int, bit: int) -> None:
    total = bytearray(_three())
    total[-offset] ^= 1 << bit
    with pytest.raises(VerificationError, match="not of exactly these sites"):
        check_tags(_opened("bfv", bytes(total))[:, -1], TAG_KEY, ROUND, SITES)


def test_bare_residues_are_malleable_so_the_signature_is_what_protects_them() -> None:
    # The known limit (ENCRYPTION section 4): the tag sees its own coefficient only.
    total = _received(_three())
    total.residues[0, 0, 0] = (int(total.residues[0, 0, 0]) + (5 << 12)) % total.modulus
    opened = _rig("bfv")[3].decrypt(total)
    check_tags(opened[:, -1], TAG_KEY, ROUND, SITES)
    moved = opened - _opened("bfv", _three())
    assert np.flatnonzero(moved).tolist() == [0]


@settings(max_examples=30)
@given(place=st.integers(0, 4095), bit=st.integers(13, 58))
def test_a_flipped_bit_of_the_second_polynomial_moves_two_thirds_of_a_block(
    place: int, bit: int
) -> None:
    # The ternary key multiplies it. The tag is one of the coefficients, so it sees two
    # flips in three; here too it is the signature that protects.
    total = _received(_three("sum"))
    total.residues[0, 1, place] ^= np.uint64(1 << bit)
    if total.residues.max() >= total.modulus:
        return
    moved = _rig("bfv")[3].decrypt(total) != _opened("bfv", _three("sum"))
    assert 0.55 < moved.mean() < 0.78


@cache
def _three(form: str = "seeds") -> bytes:
    values = np.arange(100) - 50
    return _summed([_sent("bfv", "20", site, values, form) for site in SITES])


@settings(max_examples=15)
@given(
    counted=st.lists(st.sampled_from(SITES), min_size=1, max_size=4).filter(
        lambda sites: sorted(sites) != sorted(SITES)
    ),
    scheme=SCHEMES,
)
@example(counted=["a", "a", "a"], scheme="bfv")  # n copies of one ciphertext
@example(counted=["a", "b"], scheme="bfv")  # one site dropped
@example(counted=["a", "b", "c", "c"], scheme="bfv")  # one site doubled
def test_sum_of_another_set_fails_the_tag(counted: list[str], scheme: str) -> None:
    # Fresh encryptions, as no sum takes the same bytes twice.
    values = np.arange(100)
    total = _summed([_sent(scheme, "20", site, values) for site in counted])
    with pytest.raises(VerificationError, match="not of exactly these sites"):
        check_tags(_opened(scheme, total)[:, -1], TAG_KEY, ROUND, SITES)


@settings(max_examples=10)
@given(copies=st.integers(2, 16))
def test_multiple_of_one_ciphertext_fails_the_tag(copies: int) -> None:
    # BFV is malleable: residues times n, without the check for repeated seeds.
    one = _received(_sent("bfv", "20", "a", np.arange(100)))
    residues = one.residues.astype(object) * copies % one.modulus
    many = Ciphertext(
        KEY_ID,
        one.modulus,
        residues.astype(np.uint64),
        one.seeds * copies,
        copies,
    )
    opened = _rig("bfv")[3].decrypt(many)
    names = [f"site-{i}" for i in range(copies)]
    with pytest.raises(VerificationError, match="not of exactly these sites"):
        check_tags(opened[:, -1], TAG_KEY, ROUND, names)


@settings(max_examples=10)
@given(shift=st.integers(1, (1 << 48) - 1))
def test_sum_of_another_round_fails_the_tag(shift: int) -> None:
    opened = _opened("bfv", _three())
    other = RoundId("run-1", 2 + shift)
    with pytest.raises(VerificationError, match="not of exactly these sites"):
        check_tags(opened[:, -1], TAG_KEY, other, SITES)


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_children_never_repeat_a_seed(scheme: str) -> None:
    _sent(scheme, "20", "a", np.arange(10))
    with multiprocessing.get_context("fork").Pool(4) as pool:
        made = pool.starmap(_seeds, [(scheme,)] * 8, chunksize=1)
    made.append(_seeds(scheme))
    assert len(set(made)) == 9


def _seeds(scheme: str) -> bytes:
    data = _sent(scheme, "20", "a", np.arange(10))
    (seeds,) = _received(data).seeds
    return seeds
