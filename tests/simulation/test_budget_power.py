"""Power lost at every durable step of a site's answers: no release is ever uncharged.

The steps of one answer: reserve (ledger), the bytes (outbox), commit (ledger). The
machine stops before each, in the middle of each, and after each one nobody heard of.
"""

import hashlib
from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.accounting import PrivacyEvent, Relation
from fedsecure.clock import SystemClock
from fedsecure.disk import Disk, Lock, SystemDisk
from fedsecure.errors import NotFound
from fedsecure.keys import SigningKey
from fedsecure.ledger import Ledger
from fedsecure.privacy.budget import Budget, Ceiling, Content
from fedsecure.update import RoundId

KEY = SigningKey.from_bytes(b"k" * 32)
PLAN, BYTES, ROUNDS = b"p" * 32, b"outgoing", 3
EVENT = PrivacyEvent("poisson_gaussian", 4.0, 0.1, 10)
STEPS = 2 + 3 * ROUNDS
"""The ledger's own first line, the budget's, and three a round."""


class PowerLost(BaseException):
    """The machine stops; no handler of the program sees this."""


class FailingDisk:
    """The system's disk, until power is lost at durable step number `stop`."""

    def __init__(self, stop: int, how: str) -> None:
        self._disk, self._left, self._how = SystemDisk(), stop, how

    def read(self, path: Path, max_bytes: int) -> bytes:
        return self._disk.read(path, max_bytes)

    def write_once(self, path: Path, data: bytes) -> None:
        if self._dies() and self._how != "after":
            raise PowerLost  # all or nothing: a torn write left nothing
        self._disk.write_once(path, data)
        self._end()

    def append(self, path: Path, data: bytes) -> None:
        if self._dies() and self._how != "after":
            if self._how == "torn":
                self._disk.append(path, data[: len(data) // 2])
            raise PowerLost
        self._disk.append(path, data)
        self._end()

    def truncate(self, path: Path, size: int) -> None:
        self._disk.truncate(path, size)

    def delete(self, path: Path) -> None:
        self._disk.delete(path)

    def listdir(self, path: Path) -> tuple[str, ...]:
        return self._disk.listdir(path)

    def lock(self, path: Path) -> Lock:
        return self._disk.lock(path)

    def _dies(self) -> bool:
        self._left -= 1
        return self._left == 0

    def _end(self) -> None:
        if self._left == 0:
            raise PowerLost


def _open(folder: Path, disk: Disk) -> tuple[Ledger, Budget]:
    ledger = Ledger.open(folder / "ledger.jsonl", "site", KEY, disk, SystemClock())
    try:
        ceiling = Ceiling(50.0, 1e-5, Relation.ADD_OR_REMOVE_ONE, b"y" * 32)
        guard = registry.load("accounting", "rdp").create
        content = Content("ward", "fingerprint", 1_000)
        budget = Budget.open(ledger, content, ceiling, [guard])
        budget.recover(lambda round_id: _kept(folder, round_id.number))
    except BaseException:
        ledger.close()  # the kernel drops a dead process's lock
        raise
    return ledger, budget


def _kept(folder: Path, number: int) -> bytes | None:
    try:
        return SystemDisk().read(folder / "out" / str(number), 100)
    except NotFound:
        return None


def _serve(folder: Path, disk: Disk) -> None:
    """Answer what is not answered yet, up to the last round."""
    ledger, budget = _open(folder, disk)
    try:
        for number in range(1, ROUNDS + 1):
            if _kept(folder, number) is None:
                made = budget.reserve(RoundId("run", number), PLAN, EVENT)
                disk.write_once(folder / "out" / str(number), BYTES)
                budget.commit(made, hashlib.sha256(BYTES).digest())
    finally:
        ledger.close()


def _rounds(folder: Path, action: str) -> list[int]:
    ledger, _ = _open(folder, SystemDisk())
    ledger.close()
    return [line.round for line in ledger.records() if line.action == action]


@pytest.mark.parametrize("how", ["before", "torn", "after"])
@pytest.mark.parametrize("stop", range(1, STEPS + 1))
def test_no_release_is_uncharged_and_one_charge_is_wasted_at_most(
    tmp_path: Path, stop: int, how: str
) -> None:
    with pytest.raises(PowerLost):
        _serve(tmp_path, FailingDisk(stop, how))
    released = [int(name) for name in SystemDisk().listdir(tmp_path / "out")]
    assert set(released) <= set(_rounds(tmp_path, "budget.reserve"))
    assert len(_rounds(tmp_path, "budget.reserve")) <= len(released) + 1


@pytest.mark.parametrize("how", ["before", "torn", "after"])
@pytest.mark.parametrize("stop", range(1, STEPS + 1))
def test_after_the_restart_every_round_is_answered_once(
    tmp_path: Path, stop: int, how: str
) -> None:
    with pytest.raises(PowerLost):
        _serve(tmp_path, FailingDisk(stop, how))
    _serve(tmp_path, SystemDisk())
    assert sorted(_rounds(tmp_path, "budget.commit")) == list(range(1, ROUNDS + 1))
    settled = ROUNDS + len(_rounds(tmp_path, "budget.void"))
    assert len(_rounds(tmp_path, "budget.reserve")) == settled <= ROUNDS + 1


def test_without_a_failure_these_are_all_the_durable_steps(tmp_path: Path) -> None:
    _serve(tmp_path, FailingDisk(STEPS + 1, "before"))
    with pytest.raises(PowerLost):
        _serve(tmp_path / "again", FailingDisk(STEPS, "after"))
