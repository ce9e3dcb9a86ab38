"""A process dies after every durable step of a run; its successor goes on.

Server side: begin, and of each round the updates' copies and rows, close, release,
manifest, head, ledger and publish. Site side: ledger, plan, key, first model,
reservation, the outbox's pieces and head, opening. Each test stops after one of them,
or after two.
"""

import random
from collections.abc import Callable

import pytest

from fedsecure import shelf
from tests.fakes.federation import Federation
from tests.fakes.fuses import Died, Fuse
from tests.fakes.history import violations

SERVER_STEPS = 74
CUSTODIAN_STEPS = 38
SITE_STEPS = 32
PIECE = 12_000  # an update lies in three pieces, the custodian's beginning in six
PAIRS = random.Random(7).sample(  # noqa: S311 - a sample, not a secret
    [(a, b) for a in range(2, SERVER_STEPS) for b in range(1, SERVER_STEPS - a)], 12
)


def model_of(federation: Federation) -> bytes:
    """Return the one final model of a run that breaks nothing."""
    assert violations(federation) == []
    return federation.models()["site-1"]


def clean(make: Callable[[], Federation] = Federation) -> bytes:
    """Return the model of a run in which nothing dies."""
    federation = make()
    federation.lead()
    return model_of(federation)


@pytest.fixture(autouse=True)
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "PIECE_BYTES", PIECE)


@pytest.fixture(scope="module")
def undisturbed() -> bytes:
    return clean()


def lead_on(federation: Federation, *fuses: Fuse) -> None:
    """Lead under new terms until the run is done; each fuse is a leader that dies."""
    for fuse in fuses:
        with pytest.raises(Died, match=fuse.owner):
            federation.lead(fuse.owner, fuse)
    federation.lead("agg-2")


def test_steps_counted_are_the_steps_there_are() -> None:
    federation, fuse = Federation(), Fuse("agg-1")
    federation.lead("agg-1", fuse)
    assert len(fuse.names) == SERVER_STEPS
    steps = {name: len(site.fuse.names) for name, site in federation.sites.items()}
    assert steps == {
        "site-1": CUSTODIAN_STEPS,
        "site-2": SITE_STEPS,
        "site-3": SITE_STEPS,
    }


@pytest.mark.parametrize("step", range(SERVER_STEPS + 1))
def test_leader_dies_after_a_step(step: int, undisturbed: bytes) -> None:
    federation = Federation()
    lead_on(federation, Fuse("agg-1", dies_after=step))
    assert model_of(federation) == undisturbed
    for site in federation.sites.values():
        assert site.trainer.trained == {1: 1, 2: 1}


def test_leader_dies_after_the_sites_of_a_longer_run_ended_its_key() -> None:
    def make() -> Federation:
        return Federation(rounds=3)

    federation, other = make(), Fuse("agg-1")
    make().lead("agg-1", other)
    lead_on(federation, Fuse("agg-1", dies_after=len(other.names) - 2))
    for site in federation.sites.values():
        assert "key.ended" in {r.action for r in site.records()}
    assert model_of(federation) == clean(make)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_successor_dies_too(first: int, second: int, undisturbed: bytes) -> None:
    federation = Federation()
    lead_on(
        federation, Fuse("agg-1", dies_after=first), Fuse("agg-2", dies_after=second)
    )
    assert model_of(federation) == undisturbed
    for site in federation.sites.values():
        assert site.trainer.trained == {1: 1, 2: 1}


@pytest.mark.parametrize(
    ("name", "step"),
    [("site-1", step) for step in range(CUSTODIAN_STEPS + 1)]
    + [("site-2", step) for step in range(SITE_STEPS + 1)],
)
def test_site_dies_after_a_step(name: str, step: int, undisturbed: bytes) -> None:
    federation = Federation()
    federation.sites[name].fuse = Fuse(name, dies_after=step)
    federation.lead()
    assert model_of(federation) == undisturbed
    for site in federation.sites.values():
        twice = 1 if site.name == name else 0
        extra = sum(site.trainer.trained.values()) - 2
        assert 0 <= extra <= twice


@pytest.mark.parametrize("step", range(2, CUSTODIAN_STEPS, 3))
def test_site_dies_again_while_it_recovers(step: int, undisturbed: bytes) -> None:
    for second in (1, 2, 4):
        federation = Federation()
        site = federation.sites["site-1"]
        site.fuse = Fuse("site-1", dies_after=step)
        site.fuses.append(Fuse("site-1", dies_after=second))
        federation.lead()
        assert model_of(federation) == undisturbed
        assert sum(site.trainer.trained.values()) <= 4


@pytest.mark.parametrize(("leader", "site"), [(8, 14), (15, 12), (27, 19), (33, 21)])
def test_leader_and_site_die_in_one_round(
    leader: int, site: int, undisturbed: bytes
) -> None:
    federation = Federation()
    federation.sites["site-2"].fuse = Fuse("site-2", dies_after=site)
    lead_on(federation, Fuse("agg-1", dies_after=leader))
    assert model_of(federation) == undisturbed


@pytest.mark.parametrize("step", [5, 9, 16, 28, 45, 60])
def test_leader_dies_with_real_encryption(step: int) -> None:
    def make() -> Federation:
        return Federation(scheme="bfv", private=False)

    federation = make()
    lead_on(federation, Fuse("agg-1", dies_after=step))
    assert model_of(federation) == clean(make)


def test_lost_and_repeated_answers_change_nothing(undisturbed: bytes) -> None:
    federation, seen = Federation(), set[bytes]()

    def lossy(site: str, data: bytes) -> bytes | None:
        """Lose every answer the first time it is given."""
        if data in seen:
            return data
        seen.add(data)
        return None

    federation.tamper = lossy
    federation.lead()
    assert model_of(federation) == undisturbed
    for site in federation.sites.values():
        assert site.trainer.trained == {1: 1, 2: 1}
