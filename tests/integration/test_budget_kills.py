"""The budget under kill -9: nothing that left the site is missing from its ledger.

10 kills in `make test`, 50 in `make ledger-chaos`; tests/simulation/test_ledger_chaos
has the others, of leaders and key custodians too.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.accounting import PrivacyEvent, Relation
from fedsecure.clock import SystemClock
from fedsecure.disk import SystemDisk
from fedsecure.errors import NotFound
from fedsecure.keys import SigningKey
from fedsecure.ledger import Ledger, verify_ledger
from fedsecure.privacy.budget import Budget, Ceiling, Content
from fedsecure.update import RoundId

KILLS, MANY_KILLS = 10, 50
PLAN = b"p" * 32
EVENT = PrivacyEvent("poisson_gaussian", 100.0, 0.01, 1)
KEY = SigningKey.from_bytes(b"k" * 32)


def _open(folder: Path) -> tuple[Ledger, Budget]:
    ledger = Ledger.open(
        folder / "ledger.jsonl", "site", KEY, SystemDisk(), SystemClock()
    )
    ceiling = Ceiling(100.0, 1e-5, Relation.ADD_OR_REMOVE_ONE, b"y" * 32)
    guard = registry.load("accounting", "rdp").create
    content = Content("ward", "fingerprint", 1_000)
    return ledger, Budget.open(ledger, content, ceiling, [guard])


def _outbox(folder: Path, round_id: RoundId) -> bytes | None:
    try:
        return SystemDisk().read(folder / "out" / str(round_id.number), 100)
    except NotFound:
        return None


def serve(folder: Path) -> None:
    """Answer rounds until killed: reserve, keep in the outbox, commit."""
    _, budget = _open(folder)
    budget.recover(lambda round_id: _outbox(folder, round_id))
    kept = [int(name) for name in SystemDisk().listdir(folder / "out")]
    number = max(kept, default=0)
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    while True:
        number += 1
        made = budget.reserve(RoundId("run", number), PLAN, EVENT)
        data = os.urandom(32)
        SystemDisk().write_once(folder / "out" / str(number), data)
        budget.commit(made, hashlib.sha256(data).digest())


def _kill_at_a_random_moment(folder: Path, moment: float) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"serving\n"
        time.sleep(moment)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


def _check_kills(folder: Path, kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    moments = random.Random(7)  # noqa: S311  moments of death, no secrets
    for _ in range(kills):
        _kill_at_a_random_moment(folder, moments.uniform(0.0, 0.25))
    ledger, budget = _open(folder)
    budget.recover(lambda round_id: _outbox(folder, round_id))
    lines = ledger.records()
    released = {int(name) for name in SystemDisk().listdir(folder / "out")}
    reserved = [r.round for r in lines if r.action == "budget.reserve"]
    committed = [r.round for r in lines if r.action == "budget.commit"]
    voided = [r for r in lines if r.action == "budget.void"]
    undercounts = len(released - set(reserved))
    with capsys.disabled():
        sys.stdout.write(
            f"\n{kills} kill -9: {len(released)} releases, {undercounts} undercounts, "
            f"{len(voided)} overcharges\n"
        )
    assert len(released) > kills
    assert undercounts == 0
    assert sorted(committed) == sorted(released)
    assert len(reserved) == len(committed) + len(voided)
    assert len(voided) <= kills
    ledger.close()
    assert verify_ledger(folder / "ledger.jsonl", SystemDisk(), KEY.public) == lines


@pytest.mark.integration
@pytest.mark.alone  # moments of death are on the clock
def test_ten_kills_hide_no_release_and_overcharge_once_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _check_kills(tmp_path, KILLS, capsys)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_fifty_kills_hide_no_release_and_overcharge_once_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _check_kills(tmp_path, MANY_KILLS, capsys)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
