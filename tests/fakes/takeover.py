"""Stories of a lease that any server's engine must live through; each asserts."""

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.clock import SystemClock
from fedsecure.daemons.seat import Seat
from fedsecure.daemons.supervisor import wait_for_end
from fedsecure.errors import LeaseLost, StaleTerm, StorageError
from fedsecure.flower.campaign import Campaign
from fedsecure.metadata import Engine, JournalEntry, Lease, Step
from tests.fakes.holder import holder

POLL = 0.02  # seconds, as `flower/campaign.py` looks
ENTRY = JournalEntry("run", 1, Step.OPEN, "successor", "op-successor", b"{}")


def engine(plug: str, settings: Mapping[str, object]) -> Engine:
    made: Engine = registry.load("metadata", plug).create(settings)
    return made


def take_over(board: Engine, limit: float) -> tuple[Lease, float]:
    """Campaign until it leads; return the lease and the seconds it took."""
    start = time.monotonic()
    while time.monotonic() - start < limit:
        if board.leases.read() is None:
            lease = board.leases.acquire("successor", "there", 3.0)
            if lease is not None:
                return lease, time.monotonic() - start
        time.sleep(POLL)
    raise AssertionError(f"no take-over in {limit} s")


def killed_leader(plug: str, settings: Mapping[str, object], ttl: float) -> float:
    """SIGKILL a leader; return the seconds until another one leads."""
    board = engine(plug, settings)
    with holder(plug, settings, ttl) as (child, term, _):
        assert board.leases.acquire("successor", "there", ttl) is None
        child.send_signal(signal.SIGKILL)
        lease, seconds = take_over(board, limit=4 * ttl)
    assert lease.term == term + 1
    return seconds


def supervised_leader(plug: str, settings: Mapping[str, object], ttl: float) -> float:
    """SIGKILL a leader under a supervisor; return the seconds until another leads."""
    board = engine(plug, settings)
    given = {**settings, "trial": False}
    seat = Seat(lambda: engine(plug, given).leases, "holder", "here")
    seat.prepare()
    with holder(plug, settings, ttl) as (child, term, _):
        child.send_signal(signal.SIGKILL)
        start = time.monotonic()
        assert wait_for_end([child.pid], 10.0)
        seat.vacate()
        lease, _ = take_over(board, limit=4 * ttl)
        seconds = time.monotonic() - start
    assert lease.term == term + 1
    return seconds


def paused_leader(plug: str, settings: Mapping[str, object], ttl: float) -> float:
    """Stop a leader amid its writes, follow it, let it go on: it writes no more."""
    board = engine(plug, settings)
    with holder(plug, settings, ttl) as (child, term, said):
        for _ in range(20):
            said.readline()
        child.send_signal(signal.SIGSTOP)
        lease, seconds = take_over(board, limit=4 * ttl)
        board.journal.append(lease.term, [ENTRY])
        child.send_signal(signal.SIGCONT)
        lines = said.read().split("\n")
        assert child.wait() == 0
    assert lease.term == term + 1
    assert lines[-2] == "stale"
    kept = [entry.site for entry in board.journal.entries("run", 0)]
    assert kept[-1] == "successor"
    acknowledged = sum(line.startswith("ok ") for line in lines) + 20
    assert acknowledged - len(kept) <= 2  # one said twice at most; none is lost
    assert len(kept) - acknowledged <= 2
    return seconds


def silent_server(
    plug: str,
    settings: Mapping[str, object],
    silence: Callable[[], None],
    heal: Callable[[], None],
    limit: float,
) -> None:
    """Every question to a server that is stopped ends in time; afterwards all is well.

    Parameters
    ----------
    silence, heal : callable
        Stop the server; let it go on.
    limit : float
        Seconds within which each question must end.
    """
    board = engine(plug, settings)
    lease = board.leases.acquire("agg-1", "a", 30.0)
    assert lease is not None
    questions: list[Callable[[], object]] = [
        board.leases.read,
        lambda: board.leases.renew(lease),
        lambda: board.journal.append(lease.term, [ENTRY]),
        lambda: board.journal.head("run"),
        lambda: list(board.journal.entries("run", 0)),
    ]
    silence()
    try:
        for question in questions:
            start = time.monotonic()
            with pytest.raises(StorageError):
                question()
            assert time.monotonic() - start < limit
    finally:
        heal()
    _until_answered(lambda: board.leases.renew(lease))
    board.journal.append(lease.term, [ENTRY])
    assert list(board.journal.entries("run", 0)) == [ENTRY]


def self_demotion(
    plug: str,
    settings: Mapping[str, object],
    silence: Callable[[], None],
    heal: Callable[[], None],
    ttl: float,
) -> None:
    """A leader whose server is silent stops by itself before its lease can end."""
    campaign = Campaign(engine(plug, settings).leases, "agg-1", "a", ttl, SystemClock())
    campaign.start()
    try:
        term = campaign.wait(10)
        assert term is not None
        silence()
        start = time.monotonic()
        while _leads(campaign, term):
            assert time.monotonic() - start < ttl
            time.sleep(POLL)
    finally:
        heal()
        _until_answered(campaign.stop)


def one_name(plug: str, settings: Mapping[str, object], ttl: float) -> None:
    """Of two aggregators of one name one leads; the other one's term fences it."""
    first, second = engine(plug, settings), engine(plug, settings)
    old = first.leases.acquire("agg-1", "a", ttl)
    assert old is not None
    assert second.leases.acquire("agg-1", "a", ttl) is None
    ends = time.monotonic() + 4 * ttl
    new = None
    while new is None and time.monotonic() < ends:
        new = second.leases.acquire("agg-1", "a", ttl)
        time.sleep(POLL)
    assert new is not None
    assert new.term == old.term + 1
    assert first.leases.renew(old) is None
    first.leases.release(old)
    assert second.leases.read() == new
    with pytest.raises(StaleTerm):
        first.journal.append(old.term, [ENTRY])


def outlived(board: Engine, lease: Lease) -> None:
    """Assert that a lease is not given to others while it is renewed beyond its ttl."""
    ends = time.monotonic() + 2 * lease.ttl
    while time.monotonic() < ends:
        assert board.leases.renew(lease) == lease
        assert board.leases.acquire("agg-2", "b", 3.0) is None
        time.sleep(lease.ttl / 6)


def named(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file of a mode."""
    path.write_text(text)
    path.chmod(mode)
    return path


def _leads(campaign: Campaign, term: int) -> bool:
    try:
        campaign.check(term)
    except LeaseLost:
        return False
    return True


def _until_answered(ask: Callable[[], object], limit: float = 20.0) -> None:
    ends = time.monotonic() + limit
    while True:
        try:
            ask()
        except StorageError:
            if time.monotonic() > ends:
                raise
            time.sleep(POLL)
        else:
            return
