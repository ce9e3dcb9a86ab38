"""Which key a round uses, and that what ended stays ended."""

from pathlib import Path

import pytest

from fedsecure.custody import KeyCabinet
from fedsecure.errors import KeyEnded, KeyMissing, VerificationError
from fedsecure.he import SecretKey
from fedsecure.keyring import KeyRing
from fedsecure.keys import BoxKey, SigningKey
from fedsecure.ledger import Ledger
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk
from tests.fakes.store import FlakyStore

RUN = "run-1"
BOX = BoxKey.from_bytes(b"b" * 32)
SIGNING = SigningKey.from_bytes(b"s" * 32)
FIRST = SecretKey("bfv", b"1" * 16, b"first secret")
SECOND = SecretKey("bfv", b"2" * 16, b"second secret")


class Machine:
    """A site's disk and store; every ring is that of a new process."""

    def __init__(self) -> None:
        self.disk, self.store = FakeDisk(), FlakyStore()

    def ring(self) -> KeyRing:
        self.disk = self.disk.restart()
        path = Path("/ledger.jsonl")
        ledger = Ledger.open(path, "site-1", SIGNING, self.disk, FakeClock())
        return KeyRing(RUN, KeyCabinet(self.store, BOX), ledger)


@pytest.fixture
def machine() -> Machine:
    found = Machine()
    ring = found.ring()
    ring.take(0, FIRST, "site-2")
    ring.take(3, SECOND, "site-3")
    return found


@pytest.mark.parametrize(
    ("number", "key"), [(1, FIRST), (2, FIRST), (3, SECOND), (9, SECOND)]
)
def test_a_round_uses_the_last_key_made_for_it_or_before(
    machine: Machine, number: int, key: SecretKey
) -> None:
    assert machine.ring().of(number) == key
    assert machine.ring().id_of(number) == key.key_id


def test_a_site_without_a_key_says_so() -> None:
    with pytest.raises(KeyMissing, match="no run key yet"):
        Machine().ring().of(1)


def test_keys_never_go_back(machine: Machine) -> None:
    with pytest.raises(VerificationError, match="for round 2 on, this site has one"):
        machine.ring().take(2, FIRST, "site-2")


def test_an_ended_key_is_refused_with_its_reason_after_a_restart_too(
    machine: Machine,
) -> None:
    machine.ring().end(4, "a tag failed")
    for _ in range(2):
        with pytest.raises(KeyEnded, match=r"round 5 ended .a tag failed."):
            machine.ring().of(5)


def test_an_ended_key_leaves_the_others(machine: Machine) -> None:
    machine.ring().end(4, "a tag failed")
    assert machine.ring().of(1) == FIRST


def test_an_ended_key_is_gone_from_the_store_and_its_id_is_known(
    machine: Machine,
) -> None:
    machine.ring().end(4, "a tag failed")
    assert list(KeyCabinet(machine.store, BOX).all(RUN)) == [0]
    assert machine.ring().id_of(4) == SECOND.key_id
    assert machine.ring().knows(3)


def test_an_ended_key_that_came_back_to_the_store_stays_ended(machine: Machine) -> None:
    kept = dict(machine.store.objects)
    machine.ring().end(4, "a tag failed")
    machine.store.objects.update(kept)
    with pytest.raises(KeyEnded):
        machine.ring().of(4)


@pytest.mark.parametrize(("opened", "left"), [(1, [0, 3]), (2, [0, 3]), (3, [3])])
def test_a_key_is_destroyed_once_its_successor_opened_a_sum(
    machine: Machine, opened: int, left: list[int]
) -> None:
    machine.ring().retire(opened)
    assert list(KeyCabinet(machine.store, BOX).all(RUN)) == left


def test_no_key_is_left_after_the_run(machine: Machine) -> None:
    machine.ring().retire_all()
    assert KeyCabinet(machine.store, BOX).all(RUN) == {}
    with pytest.raises(KeyEnded, match="the run is over"):
        machine.ring().of(9)


def test_a_crash_before_the_ledger_has_a_key_is_mended_by_the_next_request() -> None:
    machine = Machine()
    KeyCabinet(machine.store, BOX).keep(RUN, 0, FIRST)
    ring = machine.ring()
    with pytest.raises(KeyMissing):
        ring.of(1)
    ring.take(0, FIRST, "site-2")
    assert machine.ring().of(1) == FIRST
