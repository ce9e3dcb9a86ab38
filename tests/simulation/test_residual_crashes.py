"""A site with error feedback dies after every durable step: its residual counts once.

Its steps: joining, and of each round the residual's and the outbox's pieces and head,
used residuals, the ledger's line of opening, ranges and model, and what is forgotten.
With 8 bits a residual that was lost, or added twice, gives another model.
"""

import pytest

from tests.fakes.fuses import Fuse
from tests.fakes.quantising import Quantising

ME = "site-2"
TRIED = 40


def fed_back() -> Quantising:
    return Quantising(3, profile="8", range_from="aggregate", error_feedback=True)


def model_of(federation: Quantising) -> bytes:
    """Return the one model of all sites after the last round."""
    federation.lead()
    (model,) = set(federation.models().values())
    return model


@pytest.fixture(scope="module")
def undisturbed() -> bytes:
    return model_of(fed_back())


def test_all_steps_are_tried() -> None:
    federation = fed_back()
    federation.lead()
    names = federation.sites[ME].fuse.names
    assert len(names) <= TRIED
    assert sum("put run-1/residual/" in name for name in names) == 3
    assert sum("delete run-1/residual/" in name for name in names) == 3


@pytest.mark.parametrize("step", range(TRIED))
def test_site_dies_after_a_step(step: int, undisturbed: bytes) -> None:
    federation = fed_back()
    federation.sites[ME].fuse = Fuse(ME, dies_after=step)
    assert model_of(federation) == undisturbed


@pytest.mark.parametrize("step", range(8, TRIED, 4))
def test_site_dies_again_in_the_same_round(step: int, undisturbed: bytes) -> None:
    for second in (1, 2, 3):
        federation = fed_back()
        site = federation.sites[ME]
        site.fuse = Fuse(ME, dies_after=step)
        site.fuses.append(Fuse(ME, dies_after=second))
        assert model_of(federation) == undisturbed


def test_feedback_changes_the_model(undisturbed: bytes) -> None:
    federation = Quantising(3, profile="8", range_from="aggregate")
    assert model_of(federation) != undisturbed
