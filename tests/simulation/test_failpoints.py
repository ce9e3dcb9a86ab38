"""Every durability point, on both sides, by kill, stop and input/output error.

A point is one durable change: of disk, store, journal or head (`tests/fakes/fuses.py`).
Deaths after each are in `test_crashes`, leaders that stand still before every second in
`test_two_leaders`; here the change fails with EIO, as a bad disk or a lost server makes
it, before it is made or after. Pairs are a death at one point and, while the successor
takes over, another at any other: a sample in `make test`, all of them in `make chaos`.
"""

import pytest
from _pytest.mark.structures import ParameterSet

from fedsecure import shelf
from fedsecure.errors import StorageError
from tests.fakes.federation import Federation
from tests.fakes.fuses import Died, Fuse
from tests.fakes.history import violations
from tests.simulation.test_crashes import (
    CUSTODIAN_STEPS,
    PIECE,
    SERVER_STEPS,
    SITE_STEPS,
)

STILL = 6.0  # seconds; two leases of three


class Failing(Fuse):
    """Its n-th durable change fails, before it is made or after it was."""

    def __init__(self, owner: str, at: int, *, made: bool) -> None:
        super().__init__(owner)
        self._at, self._made = at, made
        self.failed = False

    def ready(self) -> None:
        if not self._made and len(self.names) + 1 == self._at and not self.failed:
            self._fail()
        super().ready()

    def burn(self, name: str) -> None:
        super().burn(name)
        if self._made and len(self.names) == self._at and not self.failed:
            self._fail()

    def _fail(self) -> None:
        self.failed = True
        raise StorageError(f"{self.owner}: Input/output error")


@pytest.fixture(autouse=True)
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "PIECE_BYTES", PIECE)


def model_of(federation: Federation) -> bytes:
    """Return the one final model of a run that breaks nothing.

    A store on which a deletion failed keeps sealed bytes until retention finds them.
    """
    wrong = [line for line in violations(federation) if "outlives" not in line]
    assert wrong == []
    return federation.models()["site-1"]


@pytest.fixture(scope="module")
def undisturbed() -> bytes:
    federation = Federation()
    federation.lead()
    return model_of(federation)


def both_ways(points: list[tuple[str, int]]) -> list[ParameterSet]:
    """Return each point twice, before and after the change; one of them is long."""
    return [
        pytest.param(name, step, made, marks=[pytest.mark.chaos] * (made == step % 2))
        for name, step in points
        for made in (False, True)
    ]


SERVER = [("agg-1", step) for step in range(1, SERVER_STEPS + 1)]
SITES = [("site-1", step) for step in range(1, CUSTODIAN_STEPS + 1)]
SITES += [("site-2", step) for step in range(1, SITE_STEPS + 1)]


@pytest.mark.parametrize(("name", "step", "made"), both_ways(SERVER))
def test_leader_whose_change_fails_is_followed(
    name: str, step: int, made: bool, undisturbed: bytes
) -> None:
    federation, fuse = Federation(), Failing(name, step, made=made)
    try:
        federation.lead(name, fuse)
    except StorageError:
        federation.lead("agg-2")  # it stands by, and the other goes on
    assert fuse.failed
    assert model_of(federation) == undisturbed
    for site in federation.sites.values():
        assert site.trainer.trained == {1: 1, 2: 1}


@pytest.mark.parametrize(("name", "step", "made"), both_ways(SITES))
def test_site_whose_change_fails_goes_on_from_what_is_durable(
    name: str, step: int, made: bool, undisturbed: bytes
) -> None:
    federation = Federation()
    site = federation.sites[name]
    site.fuse = fuse = Failing(name, step, made=made)
    federation.lead()
    assert fuse.failed
    assert model_of(federation) == undisturbed
    assert 0 <= sum(site.trainer.trained.values()) - 2 <= 1


@pytest.mark.parametrize(
    ("name", "step"),
    [
        pytest.param(*point, marks=[pytest.mark.chaos] * bool(number % 4))
        for number, point in enumerate(SITES)
    ],
)
def test_site_that_stands_still_for_two_leases_answers_late(
    name: str, step: int, undisturbed: bytes
) -> None:
    federation, stood = Federation(), list[float]()

    def stand_still() -> None:
        stood.append(federation.clock.now())
        federation.clock.sleep(STILL)

    site = federation.sites[name]
    site.fuse = Fuse(name, pause=(step, stand_still))
    federation.lead()
    assert len(stood) == 1
    assert model_of(federation) == undisturbed
    assert site.trainer.trained == {1: 1, 2: 1}


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(1, SERVER_STEPS))
def test_leader_dies_and_its_successor_at_every_later_point(
    first: int, undisturbed: bytes
) -> None:
    for second in range(1, SERVER_STEPS - first + 1):
        federation = Federation()
        with pytest.raises(Died):
            federation.lead("agg-1", Fuse("agg-1", dies_after=first))
        try:
            federation.lead("agg-2", Fuse("agg-2", dies_after=second))
        except Died:
            federation.lead("agg-1")
        assert model_of(federation) == undisturbed, (first, second)
        for site in federation.sites.values():
            assert site.trainer.trained == {1: 1, 2: 1}, (first, second)
