"""What an update left is in exactly one later answer, whenever the site dies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import VerificationError
from fedsecure.quantiser import FixedPoint
from fedsecure.residual import Residual
from fedsecure.update import Vector
from tests.fakes.disk import PowerLost
from tests.fakes.store import FlakyStore, Power

FIXED = FixedPoint(1.0, 5, 1)
SIZE, CHUNK = 30, 12


def update_of(number: int) -> Vector:
    return np.random.default_rng(number).normal(0, 0.3, SIZE)


class Site:
    """A site reduced to its quantiser: an answer is the integers, kept as bytes."""

    def __init__(self, store: FlakyStore) -> None:
        self.store = store

    @property
    def residual(self) -> Residual:
        return Residual(self.store, "run", self.answered)

    def answered(self, number: int) -> bool:
        return f"run/out/{number}" in self.store.keys("run/out/")

    def answer(self, number: int) -> Vector:
        """Return a round's answer, made or kept."""
        if not self.answered(number):
            body = self.encode(number)
            self.store.put(f"run/out/{number}", body)
        data = self.store.get(f"run/out/{number}", 1 << 20)
        return FIXED.dequantize(np.frombuffer(data, dtype=np.int64))

    def encode(self, number: int) -> bytes:
        carry, made = self.residual.begin(number), []
        for at in range(0, SIZE, CHUNK):
            values = carry.add(update_of(number)[at : at + CHUNK], at)
            sent = FIXED.quantize(values, at).values
            carry.keep(FIXED.residual(values, sent, at), at)
            made.append(sent)
        return np.concatenate(made).tobytes()


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


def answers(store: FlakyStore, rounds: int) -> list[Vector]:
    return [Site(store).answer(number) for number in range(1, rounds + 1)]


UNBROKEN = answers(FlakyStore(), 4)


def test_first_round_adds_nothing(store: FlakyStore) -> None:
    values = update_of(1)
    np.testing.assert_array_equal(Site(store).residual.begin(1).add(values), values)


def test_next_round_adds_what_the_last_answer_left(store: FlakyStore) -> None:
    site = Site(store)
    left = update_of(1) - site.answer(1)
    found = site.residual.begin(2).add(update_of(2)[:CHUNK])
    np.testing.assert_allclose(found, (update_of(2) + left)[:CHUNK], atol=1e-12)


def test_answers_follow_the_updates_across_restarts(store: FlakyStore) -> None:
    sent = np.sum(answers(store, 20), axis=0)
    meant = np.sum([update_of(n) for n in range(1, 21)], axis=0)
    # at most a step and what saturation holds back, which is bounded by the range
    assert np.abs(meant - sent).max() <= FIXED.clip
    plain = [FIXED.quantize(update_of(n)).values for n in range(1, 21)]
    without = np.abs(meant - FIXED.dequantize(np.sum(plain, axis=0)))
    assert np.median(np.abs(meant - sent)) < np.median(without)


def test_adding_leaves_the_update_as_it_was(store: FlakyStore) -> None:
    values = update_of(1)
    for number in (1, 2):
        Site(store).residual.begin(number).add(values[:CHUNK])[:] = 0
        Site(store).answer(number)
    np.testing.assert_array_equal(values, update_of(1))


@given(step=st.integers(1, 24), second=st.integers(1, 24))
def test_site_that_dies_at_any_durable_steps_sends_the_same_integers(
    step: int, second: int
) -> None:
    store = FlakyStore()
    for dies_at in (step, second, None):
        store.power = Power(dies_at)
        try:
            found = answers(store, 4)
        except PowerLost:
            continue
    store.power = Power()
    found = answers(store, 4)
    for one, other in zip(found, UNBROKEN, strict=True):
        np.testing.assert_array_equal(one, other)


def test_residual_of_a_round_that_was_not_answered_is_never_added(
    store: FlakyStore,
) -> None:
    site = Site(store)
    site.answer(1)
    site.encode(2)  # and dies before the answer is kept; round 2 is given up
    left = update_of(1) - site.answer(1)
    found = site.residual.begin(3).add(update_of(3)[:CHUNK])
    np.testing.assert_allclose(found, (update_of(3) + left)[:CHUNK], atol=1e-12)


def test_used_residuals_are_removed(store: FlakyStore) -> None:
    answers(store, 5)
    Site(store).residual.begin(6)
    assert {k.split("/")[2].split(".")[0] for k in store.keys("run/residual/")} == {"5"}


def test_round_older_than_the_last_answer_takes_and_leaves_nothing(
    store: FlakyStore,
) -> None:
    Site(store).answer(5)
    carry = Site(store).residual.begin(3)
    carry.keep(np.ones(CHUNK))
    np.testing.assert_array_equal(carry.add(update_of(3)), update_of(3))
    assert not any("/3." in key for key in store.objects)


def test_residual_of_one_run_is_not_seen_by_another(store: FlakyStore) -> None:
    Site(store).answer(1)
    other = Residual(store, "run2", lambda _: True).begin(2)
    np.testing.assert_array_equal(other.add(update_of(2)), update_of(2))


def test_all_is_removed_when_the_run_has_ended(store: FlakyStore) -> None:
    Site(store).answer(1)
    Site(store).residual.forget()
    assert store.keys("run/residual/") == ()


@pytest.mark.parametrize("damage", [b"", bytes(8 * CHUNK - 1), b"\xff" * 8 * CHUNK])
def test_damaged_residual_is_refused(store: FlakyStore, damage: bytes) -> None:
    Site(store).answer(1)
    store.objects["run/residual/1.0"] = damage
    with pytest.raises(VerificationError, match="Remove this run's residual folder"):
        Site(store).residual.begin(2).add(update_of(2)[:CHUNK])


def test_missing_part_is_refused(store: FlakyStore) -> None:
    Site(store).answer(1)
    del store.objects["run/residual/1.12"]
    with pytest.raises(VerificationError, match="is missing"):
        Site(store).residual.begin(2).add(update_of(2)[:CHUNK], 12)


def test_longer_part_is_not_read(store: FlakyStore) -> None:
    Site(store).answer(1)
    store.objects["run/residual/1.0"] = bytes(8 * CHUNK + 8)
    with pytest.raises(VerificationError, match="at most 96"):
        Site(store).residual.begin(2).add(update_of(2)[:CHUNK])
