"""Shamir's shares: any t open the secret, fewer open anything."""

import itertools

import pytest
import shamirs
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import VerificationError
from fedsecure.shares import PRIME, SECRET_BYTES, coefficients, combine, split

SECRET = bytes(range(SECRET_BYTES))


@given(
    secret=st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES),
    sizes=st.integers(2, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(2, n))),
)
def test_any_t_shares_give_the_secret_back(
    secret: bytes, sizes: tuple[int, int]
) -> None:
    n, t = sizes
    shares = split(secret, n, t)
    for places in itertools.combinations(range(n), t):
        weights = coefficients(places)
        assert combine({p: shares[p] for p in places}, weights) == secret


def test_opening_agrees_with_the_library_that_split() -> None:
    shares = split(SECRET, 7, 4)
    points = [
        shamirs.share(p + 1, int.from_bytes(shares[p], "little"), PRIME)
        for p in (1, 2, 4, 6)
    ]
    assert shamirs.interpolate(points) == int.from_bytes(SECRET, "little")


def test_one_share_too_few_fits_every_secret() -> None:
    """Any secret has a last share that would open it: the others tell nothing."""
    shares, places = split(SECRET, 5, 3), (0, 1)
    for wished in (0, 1, 2**128 - 1):
        weights = coefficients((*places, 4))
        known = sum(
            int.from_bytes(shares[p], "little") * weights[i]
            for i, p in enumerate(places)
        )
        missing = (wished - known) * pow(weights[2], -1, PRIME) % PRIME
        chosen = {**{p: shares[p] for p in places}, 4: missing.to_bytes(17, "little")}
        assert combine(chosen, weights) == wished.to_bytes(SECRET_BYTES, "little")


def test_two_splits_of_one_secret_share_nothing() -> None:
    assert set(split(SECRET, 5, 3)).isdisjoint(split(SECRET, 5, 3))


@pytest.mark.parametrize("share", [b"", bytes(16), PRIME.to_bytes(17, "little")])
def test_a_share_out_of_bounds_is_refused(share: bytes) -> None:
    shares = split(SECRET, 3, 2)
    with pytest.raises(VerificationError, match="out of bounds"):
        combine({0: shares[0], 1: share}, coefficients((0, 1)))


def test_shares_of_no_secret_are_refused() -> None:
    weights = coefficients((0,))
    with pytest.raises(VerificationError, match="one of them is false"):
        combine({0: (2**129).to_bytes(17, "little")}, weights)
