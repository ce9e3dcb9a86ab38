"""What every scheme promises, asked of every plug of the socket."""

from dataclasses import replace

import numpy as np
import pytest

from fedsecure import registry
from fedsecure.ciphertext import Ciphertext, from_bytes, to_bytes
from fedsecure.errors import OverflowRisk, VerificationError
from fedsecure.he import Decryptor, Encryptor, Scheme, SecretKey
from fedsecure.residues import MAX_MODULUS
from fedsecure.running_sum import RunningSum
from fedsecure.update import IntVector

KEY_ID = bytes(range(16))
SITES = 93


class Run:
    """A scheme with one run key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scheme: Scheme = registry.load("he", name).create({})
        self.key: SecretKey = self.scheme.keygen(KEY_ID)
        self.encryptor: Encryptor = self.scheme.encryptor(self.key)
        self.in_full: Encryptor = self.scheme.encryptor(self.key, seeded=False)
        self.decryptor: Decryptor = self.scheme.decryptor(self.key)
        self.plain = 1 << self.scheme.plain_bits

    def blocks(self, seed: int, count: int = 2) -> IntVector:
        rng = np.random.default_rng(seed)
        return rng.integers(0, self.plain, (count, self.encryptor.slots))

    def total(self, *summands: Ciphertext) -> Ciphertext:
        running = RunningSum(KEY_ID, max_summands=SITES)
        for summand in summands:
            running.add(summand)
        return running.total()


@pytest.fixture(scope="module", params=registry.names("he"))
def run(request: pytest.FixtureRequest) -> Run:
    return Run(str(request.param))


def test_what_is_encrypted_comes_back(run: Run) -> None:
    blocks = run.blocks(1)
    assert np.array_equal(run.decryptor.decrypt(run.encryptor.encrypt(blocks)), blocks)


def test_smallest_and_largest_coefficients_come_back(run: Run) -> None:
    blocks = run.blocks(1, count=1)
    blocks[0, ::2], blocks[0, 1::2] = 0, run.plain - 1
    assert np.array_equal(run.decryptor.decrypt(run.encryptor.encrypt(blocks)), blocks)


def test_zeros_come_back(run: Run) -> None:
    blocks = np.zeros((1, run.encryptor.slots), np.int64)
    assert not run.decryptor.decrypt(run.encryptor.encrypt(blocks)).any()


def test_sum_of_ciphertexts_opens_to_the_sum_modulo_the_plain_modulus(
    run: Run,
) -> None:
    parts = [run.blocks(i) for i in range(3)]
    opened = run.decryptor.decrypt(run.total(*map(run.encryptor.encrypt, parts)))
    assert np.array_equal(opened, np.sum(parts, axis=0) % run.plain)


def test_sum_of_93_full_updates_is_exact(run: Run) -> None:
    full = np.full((1, run.encryptor.slots), run.plain - 1)
    total = run.total(*(run.encryptor.encrypt(full) for _ in range(SITES)))
    assert set(run.decryptor.decrypt(total).ravel()) == {run.plain - SITES}


def test_sum_opens_after_the_wire(run: Run) -> None:
    parts = [run.blocks(i) for i in range(3)]
    wire = [to_bytes(run.encryptor.encrypt(part)) for part in parts]
    read = [from_bytes(data, key_id=KEY_ID, max_summands=1) for data in wire]
    down = to_bytes(run.total(*read))
    total = from_bytes(down, key_id=KEY_ID, max_summands=3)
    opened = run.decryptor.decrypt(total)
    assert np.array_equal(opened, np.sum(parts, axis=0) % run.plain)


def test_sum_without_seeds_opens_after_the_wire(run: Run) -> None:
    parts = [run.blocks(i) for i in range(3)]
    wire = [to_bytes(run.in_full.encrypt(part)) for part in parts]
    read = [from_bytes(data, key_id=KEY_ID, max_summands=1) for data in wire]
    down = to_bytes(run.total(*read))
    total = from_bytes(down, key_id=KEY_ID, max_summands=3)
    opened = run.decryptor.decrypt(total)
    assert not total.seeds
    assert np.array_equal(opened, np.sum(parts, axis=0) % run.plain)


def test_sum_of_93_full_updates_without_seeds_is_exact(run: Run) -> None:
    full = np.full((1, run.encryptor.slots), run.plain - 1)
    total = run.total(*(run.in_full.encrypt(full) for _ in range(SITES)))
    assert set(run.decryptor.decrypt(total).ravel()) == {run.plain - SITES}


def test_a_sum_opens_to_the_same_whichever_form_it_came_in(run: Run) -> None:
    parts = [run.blocks(i) for i in range(4)]
    seeds = run.total(*map(run.encryptor.encrypt, parts))
    both = run.total(*map(run.in_full.encrypt, parts))
    opened = run.decryptor.decrypt(seeds)
    assert np.array_equal(opened, run.decryptor.decrypt(both))


def test_a_sum_opens_in_chunks_as_it_does_whole(run: Run) -> None:
    for encryptor in (run.encryptor, run.in_full):
        total = run.total(*(encryptor.encrypt(run.blocks(i, 19)) for i in range(3)))
        parts = [run.decryptor.decrypt(chunk) for chunk in total.chunks()]
        assert len(parts) > 1
        assert np.array_equal(np.concatenate(parts), run.decryptor.decrypt(total))


def test_a_sum_takes_no_summand_of_the_other_form(run: Run) -> None:
    if run.name == "insecure_plain":
        return  # one form only
    with pytest.raises(VerificationError, match="the sum is"):
        run.total(
            run.encryptor.encrypt(run.blocks(1)), run.in_full.encrypt(run.blocks(2))
        )


def test_a_key_rebuilt_from_its_bytes_opens_too(run: Run) -> None:
    blocks = run.blocks(1)
    again = SecretKey(run.key.scheme, KEY_ID, bytes(run.key.secret))
    other: Scheme = registry.load("he", run.name).create({})
    sealed = run.encryptor.encrypt(blocks)
    assert np.array_equal(other.decryptor(again).decrypt(sealed), blocks)


def test_ciphertext_names_its_key_and_one_summand(run: Run) -> None:
    sealed = run.encryptor.encrypt(run.blocks(1))
    assert (sealed.key_id, sealed.summands) == (KEY_ID, 1)


def test_residues_are_below_a_modulus_the_wire_can_carry(run: Run) -> None:
    sealed = run.encryptor.encrypt(run.blocks(1))
    assert sealed.residues.dtype == np.uint64
    assert sealed.residues.max() < sealed.modulus < MAX_MODULUS


def test_encrypting_leaves_the_blocks_as_they_were(run: Run) -> None:
    blocks = run.blocks(1)
    sealed = run.encryptor.encrypt(blocks)
    sealed.residues[:] = 0
    assert np.array_equal(blocks, run.blocks(1))


@pytest.mark.parametrize("offset", [-1, 0])
def test_a_coefficient_out_of_range_is_refused(run: Run, offset: int) -> None:
    blocks = run.blocks(1)
    blocks[1, 3] = -1 if offset else run.plain
    with pytest.raises(OverflowRisk, match="a coefficient is not in"):
        run.encryptor.encrypt(blocks)


def test_blocks_of_another_shape_are_refused(run: Run) -> None:
    with pytest.raises(VerificationError, match="shape"):
        run.encryptor.encrypt(run.blocks(1)[:, :-1])
    with pytest.raises(VerificationError, match="shape"):
        run.encryptor.encrypt(run.blocks(1)[0])


def test_a_sum_that_is_not_what_it_should_be_is_refused(run: Run) -> None:
    good = run.encryptor.encrypt(run.blocks(1))
    too_large = good.residues.copy()
    too_large[0, 0, 0] = good.modulus
    bad = [
        replace(good, key_id=bytes(16)),
        replace(good, modulus=good.modulus - 2),
        replace(good, residues=good.residues[:, :, :-16]),
        replace(good, residues=np.repeat(good.residues, 2, axis=1)),
        replace(good, residues=too_large),
        replace(good, seeds=(*good.seeds, bytes(64))),
        replace(good, summands=0),
        replace(good, summands=1 << 16),
    ]
    assert np.array_equal(run.decryptor.decrypt(good), run.blocks(1))
    for value in bad:
        with pytest.raises(VerificationError):
            run.decryptor.decrypt(value)


def test_a_key_of_another_scheme_is_refused(run: Run) -> None:
    foreign = replace(run.key, scheme="another")
    with pytest.raises(VerificationError, match="run key is for 'another'"):
        run.scheme.encryptor(foreign)
    with pytest.raises(VerificationError, match="run key is for 'another'"):
        run.scheme.decryptor(foreign)


def test_a_key_shows_no_secret(run: Run) -> None:
    shown = f"{run.key!r} {run.key!s}"
    assert run.key.secret.hex()[-32:] not in shown
    assert repr(run.key.secret[-16:])[2:-1] not in shown


@pytest.mark.parametrize("name", ["bfv", "ckks"])
def test_two_encryptions_of_one_plaintext_share_nothing(name: str) -> None:
    run = Run(name)
    one, two = (run.encryptor.encrypt(run.blocks(1)) for _ in range(2))
    assert not (one.residues == two.residues).any()
    assert set(one.seeds).isdisjoint(two.seeds)
    one, two = (run.in_full.encrypt(run.blocks(1)) for _ in range(2))
    assert not (one.residues == two.residues).any()


@pytest.mark.parametrize("name", ["bfv", "ckks"])
def test_polynomials_that_travel_in_full_are_two_and_carry_no_seed(name: str) -> None:
    sealed = Run(name).in_full.encrypt(Run(name).blocks(1))
    assert sealed.residues.shape == (2, 2, 4096)
    assert sealed.seeds == ()
    assert sealed.residues.max() < sealed.modulus


def test_insecure_plain_has_one_polynomial_and_no_seed_in_both_forms() -> None:
    run = Run("insecure_plain")
    for encryptor in (run.encryptor, run.in_full):
        sealed = encryptor.encrypt(run.blocks(1))
        assert (sealed.residues.shape[1], sealed.seeds) == (1, ())


@pytest.mark.parametrize("name", ["bfv", "ckks"])
def test_another_run_key_opens_noise(name: str) -> None:
    run = Run(name)
    other = run.scheme.decryptor(run.scheme.keygen(KEY_ID))
    opened = other.decrypt(run.encryptor.encrypt(run.blocks(1)))
    assert np.mean(opened == run.blocks(1)) < 0.01


@pytest.mark.parametrize("name", ["ckks", "insecure_plain"])
def test_a_scheme_that_is_not_the_safe_one_says_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(name)
    run.encryptor.encrypt(run.blocks(1))
    assert any(r.levelname == "WARNING" and name in r.message for r in caplog.records)


def test_the_default_scheme_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    run = Run("bfv")
    run.encryptor.encrypt(run.blocks(1))
    assert caplog.records == []
