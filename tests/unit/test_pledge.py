"""What travels behind a masked update, and whose secrets a closed set owes."""

import pytest

from fedsecure.errors import VerificationError
from fedsecure.pledge import (
    Pledge,
    bundle_bytes,
    cut,
    owed,
    pledge_bytes,
    promise,
    read_pledge,
    read_secrets,
)
from fedsecure.update import RoundId

SITES = ("a", "b", "c")
ROUND = RoundId("run-1", 2)


def sample() -> Pledge:
    return Pledge(
        tuple(bytes([i]) * 32 for i in range(3)),
        tuple(bytes([i]) * bundle_bytes(3) for i in range(3)),
    )


def test_a_pledge_comes_back_as_it_was_written() -> None:
    assert read_pledge(sample().to_bytes(), 3) == sample()


def test_its_size_is_known_beforehand() -> None:
    assert len(sample().to_bytes()) == pledge_bytes(3) == 3 * (32 + 28 + 3 * 17)


@pytest.mark.parametrize("size", [0, 1, pledge_bytes(3) - 1, pledge_bytes(3) + 1])
def test_a_pledge_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(VerificationError, match=f"pledge of {size} bytes, must be"):
        read_pledge(bytes(size), 3)


def test_a_full_set_owes_the_self_masks_alone() -> None:
    assert owed(SITES, set(SITES)) == [(0, 0), (1, 1), (2, 2)]


def test_a_set_owes_what_its_sites_share_with_those_outside() -> None:
    assert owed(SITES, {"a", "c"}) == [(0, 0), (0, 1), (2, 2), (2, 1)]


@pytest.mark.parametrize("outside", [(), ("a",), ("b",), ("a", "c")])
def test_nobody_owes_both_secrets_of_one_site(outside: tuple[str, ...]) -> None:
    """A self mask of those inside, pair masks of those outside: never both."""
    inside = set(SITES) - set(outside)
    pairs = owed(SITES, inside)
    selves = {SITES[i] for i, k in pairs if i == k}
    shared_with = {SITES[k] for i, k in pairs if i != k}
    assert selves == inside
    assert shared_with.isdisjoint(inside)


def test_a_promise_is_for_one_secret_of_one_round() -> None:
    base = promise(ROUND, 0, 1, b"s" * 16)
    others = {
        promise(RoundId("run-2", 2), 0, 1, b"s" * 16),
        promise(RoundId("run-1", 3), 0, 1, b"s" * 16),
        promise(ROUND, 1, 1, b"s" * 16),
        promise(ROUND, 0, 2, b"s" * 16),
        promise(ROUND, 0, 1, b"t" * 16),
    }
    assert len(others) == 5
    assert base not in others


def test_a_list_that_does_not_divide_is_refused() -> None:
    with pytest.raises(VerificationError, match="no list of 16 bytes"):
        cut(bytes(17), 16)


def test_another_number_of_secrets_is_refused() -> None:
    with pytest.raises(VerificationError, match="2 mask secrets, must be 3"):
        read_secrets(bytes(32), 3)
