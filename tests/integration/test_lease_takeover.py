"""The lease of one machine under SIGKILL and SIGSTOP of real holders."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.disk import SystemDisk
from fedsecure.errors import StaleTerm
from fedsecure.metadata import Engine, JournalEntry, Lease, Step

pytestmark = [pytest.mark.integration, pytest.mark.alone]

TTL = 1.2
POLL = 0.02  # seconds, as `flower/campaign.py` looks


def _engine(folder: Path) -> Engine:
    engine: Engine = registry.load("metadata", "embedded").create({"path": folder})
    return engine


def hold(folder: Path, how: str) -> None:
    """Lead until killed; `how` says what the holder is doing meanwhile."""
    engine = _engine(folder)
    lease = engine.leases.acquire("holder", "here", TTL)
    if lease is None:
        raise SystemExit(1)
    if how == "forked" and os.fork() == 0:
        signal.pause()
    if how == "writing":
        # Stopped between BEGIN and COMMIT, a writer blocks all others.
        plug = registry.load("metadata", "embedded")
        connection = plug.Database(folder / "journal.sqlite").connection()
        connection.execute("BEGIN IMMEDIATE")
    sys.stdout.write(f"{lease.term}\n")
    sys.stdout.flush()
    while True:
        time.sleep(TTL / 6)
        if engine.leases.renew(lease) is None:
            raise SystemExit(2)


@contextmanager
def _holder(folder: Path, how: str = "idle") -> Iterator[tuple[int, int]]:
    """Yield process id and term of a leader."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, __file__, str(folder), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        term = int(child.stdout.readline())
        try:
            yield child.pid, term
        finally:
            child.kill()
            child.wait()


def _take_over(engine: Engine, limit: float) -> tuple[Lease, float]:
    """Campaign until it leads; return the lease and the seconds it took."""
    start = time.monotonic()
    while time.monotonic() - start < limit:
        if engine.leases.read() is None:
            lease = engine.leases.acquire("successor", "there", TTL)
            if lease is not None:
                return lease, time.monotonic() - start
        time.sleep(POLL)
    raise AssertionError(f"no take-over in {limit} s")


def test_killed_holder_is_followed_at_once(tmp_path: Path) -> None:
    engine = _engine(tmp_path)
    with _holder(tmp_path) as (pid, term):
        lease = engine.leases.read()
        assert lease is not None
        assert (lease.holder, lease.term) == ("holder", term)
        os.kill(pid, signal.SIGKILL)
        lease, seconds = _take_over(engine, limit=TTL)
    assert lease.term == term + 1
    assert seconds < TTL / 2


def test_killed_holder_is_followed_although_its_forked_child_lives(
    tmp_path: Path,
) -> None:
    engine = _engine(tmp_path)
    with _holder(tmp_path, "forked") as (pid, term):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(pid, signal.SIGKILL)
        lease, _ = _take_over(engine, limit=TTL)
        for child in children:
            os.kill(int(child), signal.SIGKILL)
    assert len(children) == 1
    assert lease.term == term + 1


@pytest.mark.parametrize("how", ["idle", "writing"])
def test_stopped_holder_is_ended_after_a_ttl(tmp_path: Path, how: str) -> None:
    engine = _engine(tmp_path)
    with _holder(tmp_path, how) as (pid, term):
        os.kill(pid, signal.SIGSTOP)
        lease, seconds = _take_over(engine, limit=4 * TTL)
        assert os.waitpid(pid, os.WNOHANG)[1] == signal.SIGKILL
    assert lease.term == term + 1
    assert seconds > TTL / 2
    entry = JournalEntry("run", 1, Step.OPEN, "", "op", b"{}")
    engine.journal.append(lease.term, [entry])
    with pytest.raises(StaleTerm):
        engine.journal.append(term, [entry])


def test_holder_that_renews_is_not_ended(tmp_path: Path) -> None:
    engine = _engine(tmp_path)
    with _holder(tmp_path) as (pid, term):
        end = time.monotonic() + 2 * TTL
        while time.monotonic() < end:
            lease = engine.leases.read()
            assert lease is not None
            assert lease.term == term
            time.sleep(POLL)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)


def test_terms_rise_over_ten_kills(tmp_path: Path) -> None:
    terms = []
    for _ in range(10):
        with _holder(tmp_path) as (_, term):
            terms.append(term)
    assert terms == list(range(1, 11))


def test_lock_file_names_the_holder(tmp_path: Path) -> None:
    with _holder(tmp_path) as (pid, _):
        assert SystemDisk().read(tmp_path / "lease.lock", 20) == str(pid).encode()


if __name__ == "__main__":
    hold(Path(sys.argv[1]), sys.argv[2])
