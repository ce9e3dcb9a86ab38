"""The model after any failover is the model without one, bit for bit.

Fixed seed, privacy off, and all that draws or carries something: eight bits, rounding
by chance, error feedback, masks.
"""

import pytest

from tests.fakes.federation import Federation
from tests.fakes.fuses import Died, Fuse

STEPS = 71  # of a masked run of two rounds
DEATHS = [*range(2, STEPS, 6), STEPS - 2]


def federated(*, masked: bool = True, rounding: str = "stochastic") -> Federation:
    """Return a federation whose every source of chance is on."""
    federation = Federation(private=False, masked=masked)
    encryption = federation.plan["encryption"]
    assert isinstance(encryption, dict)
    encryption |= {"profile": "8", "rounding": rounding, "error_feedback": True}
    federation.restate()
    return federation


def model(federation: Federation) -> bytes:
    """Return the one model that all sites hold."""
    models = set(federation.models().values())
    assert len(models) == 1
    (found,) = models
    assert found
    return found


@pytest.fixture(scope="module")
def undisturbed() -> bytes:
    federation = federated()
    federation.lead()
    return model(federation)


def test_chance_is_on_at_all(undisturbed: bytes) -> None:
    nearest = federated(rounding="nearest")
    nearest.lead()
    assert model(nearest) != undisturbed


def test_masks_change_nothing(undisturbed: bytes) -> None:
    federation = federated(masked=False)
    federation.lead()
    assert model(federation) == undisturbed


@pytest.mark.parametrize("step", DEATHS)
def test_a_leader_that_dies_changes_no_bit(step: int, undisturbed: bytes) -> None:
    federation = federated()
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", dies_after=step))
    federation.lead("agg-2")
    assert model(federation) == undisturbed


@pytest.mark.parametrize("step", [8, 12, 16])
def test_a_site_that_dies_as_well_changes_no_bit(step: int, undisturbed: bytes) -> None:
    federation = federated()
    federation.sites["site-2"].fuse = Fuse("site-2", dies_after=step)
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", dies_after=20))
    federation.lead("agg-2")
    assert federation.sites["site-2"].deaths == 1
    assert model(federation) == undisturbed


def test_a_successor_that_dies_too_changes_no_bit(undisturbed: bytes) -> None:
    federation = federated()
    for name, step in (("agg-1", 14), ("agg-2", 11), ("agg-1", 9)):
        with pytest.raises(Died):
            federation.lead(name, Fuse(name, dies_after=step))
    federation.lead("agg-2")
    assert model(federation) == undisturbed
