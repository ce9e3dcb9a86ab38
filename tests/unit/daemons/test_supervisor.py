"""Children end with all they started, whoever dies first; real tiny processes."""

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsecure.daemons.supervisor import (
    Backoff,
    Child,
    Follower,
    descendants,
    named,
    require_running,
    wait_for_end,
)
from fedsecure.errors import ProcessFailed

ENVIRONMENT = {"PATH": os.environ["PATH"]}
SLEEP = ["sleep", "600"]
# The grandchild is in a session of its own, as Flower's SuperExec is.
DETACHED = "setsid sleep 600 & echo $! > {pids}; {then}"


@pytest.fixture
def children() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in started:
        child.kill()


def start(children: list[Child], folder: Path, command: list[str]) -> Child:
    children.append(Child("tiny", command, ENVIRONMENT, folder / "tiny.log"))
    return children[-1]


def shell(children: list[Child], folder: Path, then: str) -> tuple[Child, int]:
    """Start a shell with a detached child; return it and the detached one's id."""
    pids = folder / "pids"
    os.mkfifo(pids)
    script = DETACHED.format(pids=pids, then=then)
    child = start(children, folder, ["sh", "-c", script])
    return child, int(pids.read_text())


def wait_for(pid: int) -> bool:
    """Wait until a process has ended, reaped or not; False if it does not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ready, _, _ = select.select([descriptor], [], [], 10.0)
    os.close(descriptor)
    return bool(ready)


def runs(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def test_a_running_child_has_no_status(children: list[Child], tmp_path: Path) -> None:
    assert start(children, tmp_path, SLEEP).ended() is None


def test_a_child_that_ended_has_its_status(
    children: list[Child], tmp_path: Path
) -> None:
    child = start(children, tmp_path, ["sh", "-c", "exit 7"])
    assert wait_for(child.pid)
    assert child.ended() == 7


def test_a_child_that_was_killed_has_the_signal_as_status(
    children: list[Child], tmp_path: Path
) -> None:
    child = start(children, tmp_path, SLEEP)
    os.kill(child.pid, signal.SIGKILL)
    assert wait_for(child.pid)
    assert child.ended() == -signal.SIGKILL


def test_a_child_that_ended_is_no_zombie_once_asked(
    children: list[Child], tmp_path: Path
) -> None:
    child = start(children, tmp_path, ["true"])
    assert wait_for(child.pid)
    child.ended()
    assert not Path(f"/proc/{child.pid}").exists()


def test_output_is_appended_to_the_log(children: list[Child], tmp_path: Path) -> None:
    for word in ("one", "two"):
        child = start(children, tmp_path, ["sh", "-c", f"echo {word}; echo err >&2"])
        wait_for(child.pid)
    assert (tmp_path / "tiny.log").read_text() == "one\nerr\ntwo\nerr\n"


def test_the_environment_is_what_was_given_and_the_mark(
    children: list[Child], tmp_path: Path
) -> None:
    child = start(children, tmp_path, [sys.executable, "-c", "input()"])
    entries = Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0")
    names = {entry.split(b"=")[0] for entry in entries if entry}
    assert names == {b"PATH", b"FEDSECURE_FAMILY"}


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match=r"tiny cannot be started: .*no-such"):
        Child("tiny", ["/no-such"], ENVIRONMENT, tmp_path / "tiny.log")


def test_a_descriptor_is_passed_on(children: list[Child], tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    code = f"import os; os.write({theirs}, b'here')"
    command = [sys.executable, "-c", code]
    log_path = tmp_path / "tiny.log"
    children.append(Child("tiny", command, ENVIRONMENT, log_path, [theirs]))
    os.close(theirs)
    assert os.read(ours, 16) == b"here"
    os.close(ours)


def test_end_is_polite_first(children: list[Child], tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    script = f"trap 'exit 5' TERM; echo > {ready}; sleep 600 & wait"
    child = start(children, tmp_path, ["sh", "-c", script])
    ready.read_text()
    child.end()
    assert child.ended() == 5


def test_end_kills_a_child_that_ignores_sigterm(
    children: list[Child], tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    script = f"trap '' TERM; echo > {ready}; exec sleep 600"
    child = start(children, tmp_path, ["sh", "-c", script])
    ready.read_text()
    child.end(grace=0.01)
    assert child.ended() == -signal.SIGKILL


def test_end_reaches_a_grandchild_in_a_session_of_its_own(
    children: list[Child], tmp_path: Path
) -> None:
    child, grandchild = shell(children, tmp_path, "wait")
    child.end(grace=0.0)
    assert not runs(grandchild)


def test_when_a_child_dies_what_it_started_is_ended(
    children: list[Child], tmp_path: Path
) -> None:
    """A ServerApp must not renew the lease of a SuperLink that is dead."""
    child, grandchild = shell(children, tmp_path, "wait")
    os.kill(child.pid, signal.SIGKILL)
    assert wait_for(child.pid)
    assert child.ended() == -signal.SIGKILL
    assert not runs(grandchild)


def test_an_orphan_is_nobodys_descendant_and_still_ended(
    children: list[Child], tmp_path: Path
) -> None:
    child, grandchild = shell(children, tmp_path, "exit 0")
    assert wait_for(child.pid)
    assert grandchild not in descendants(child.pid)
    child.end()
    assert not runs(grandchild)


def test_a_grandchild_within_execve_does_not_escape(
    children: list[Child], tmp_path: Path
) -> None:
    """It shows no environment for a moment; this one execs all the time."""
    again = tmp_path / "again.sh"
    again.write_text(f"exec sh {again}\n")
    os.mkfifo(tmp_path / "pids")
    script = f"setsid sh {again} & echo $! > {tmp_path / 'pids'}; wait"
    child = start(children, tmp_path, ["sh", "-c", script])
    grandchild = int((tmp_path / "pids").read_text())
    child.kill()
    assert not runs(grandchild)


def test_kill_tells_whom_it_killed(children: list[Child], tmp_path: Path) -> None:
    child, grandchild = shell(children, tmp_path, "wait")
    assert {child.pid, grandchild} <= set(child.kill())
    assert not runs(child.pid)


def test_end_after_the_end_is_no_error(children: list[Child], tmp_path: Path) -> None:
    child = start(children, tmp_path, SLEEP)
    child.end()
    child.end()
    assert child.kill() == []


def test_ending_one_child_leaves_its_sister(
    children: list[Child], tmp_path: Path
) -> None:
    one, other = (start(children, tmp_path, SLEEP) for _ in range(2))
    one.end()
    assert other.ended() is None


def test_a_child_outlives_the_thread_that_asked_for_it(
    children: list[Child], tmp_path: Path
) -> None:
    asking = threading.Thread(target=start, args=(children, tmp_path, SLEEP))
    asking.start()
    asking.join()
    descriptor = os.pidfd_open(children[0].pid)
    # The kernel sends the parent-death signal as the thread exits: no wait is needed
    # beyond its join, and this one only gives a regression time to show.
    ready, _, _ = select.select([descriptor], [], [], 0.2)
    os.close(descriptor)
    assert ready == []


PARENT = """
import os, sys
from pathlib import Path
from fedsecure.daemons.supervisor import Child
folder = Path(sys.argv[1])
child = Child("inner", ["sleep", "600"], {"PATH": os.environ["PATH"]}, folder / "log")
(folder / "pids").write_text(str(child.pid))
child._process.wait()
"""


def daemon(children: list[Child], folder: Path) -> tuple[Child, int]:
    """Start a process with a `Child` of its own; return both."""
    os.mkfifo(folder / "pids")
    command = [sys.executable, "-c", PARENT, str(folder)]
    where = {**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[3])}
    children.append(Child("daemon", command, where, folder / "tiny.log"))
    return children[-1], int((folder / "pids").read_text())


def test_a_child_dies_with_a_parent_that_is_killed(
    children: list[Child], tmp_path: Path
) -> None:
    outer, inner = daemon(children, tmp_path)
    os.kill(outer.pid, signal.SIGKILL)  # and nobody tidies up
    assert wait_for(inner)


def test_killing_a_daemon_kills_its_own_children(
    children: list[Child], tmp_path: Path
) -> None:
    outer, inner = daemon(children, tmp_path)
    assert {outer.pid, inner} <= set(outer.kill())
    assert not runs(inner)


def test_descendants_are_found_through_sessions(
    children: list[Child], tmp_path: Path
) -> None:
    child, grandchild = shell(children, tmp_path, "wait")
    assert grandchild in descendants(child.pid)
    assert child.pid in descendants(os.getpid())


def test_a_descendant_is_found_by_a_word_of_its_command(
    children: list[Child], tmp_path: Path
) -> None:
    child, grandchild = shell(children, tmp_path, "wait")
    assert named(child.pid, "600") == [grandchild]
    assert named(child.pid, "flwr-serverapp") == []


def test_require_running_passes_a_running_child(
    children: list[Child], tmp_path: Path
) -> None:
    require_running(start(children, tmp_path, SLEEP), tmp_path / "tiny.log")


def test_require_running_names_status_and_log(
    children: list[Child], tmp_path: Path
) -> None:
    child = start(children, tmp_path, ["sh", "-c", "exit 7"])
    wait_for(child.pid)
    with pytest.raises(
        ProcessFailed, match=r"tiny ended with status 7; see .*tiny\.log"
    ):
        require_running(child, tmp_path / "tiny.log")


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_waits_double_up_to_a_bound() -> None:
    backoff = Backoff(first=1.0, most=5.0, now=Watch())
    assert [backoff.wait() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_child_that_ran_for_long_starts_over() -> None:
    watch = Watch()
    backoff = Backoff(first=1.0, most=5.0, now=watch)
    backoff.wait()
    backoff.wait()
    watch.time += 16.0
    assert backoff.wait() == 1.0


def test_a_moment_is_reached_when_the_wait_is_over() -> None:
    watch = Watch()
    backoff = Backoff(first=1.0, most=5.0, now=watch)
    due = backoff.due()
    assert not backoff.reached(due)
    watch.time += 1.0
    assert backoff.reached(due)


def test_end_of_one_of_several_is_seen_at_once(
    children: list[Child], tmp_path: Path
) -> None:
    lives, dies = (start(children, tmp_path, SLEEP) for _ in range(2))
    pids = [lives.pid, dies.pid]
    assert not wait_for_end(pids, 0.0)
    os.kill(dies.pid, signal.SIGKILL)
    assert wait_for_end(pids, 10.0)
    assert lives.ended() is None


def test_process_that_is_gone_has_ended(children: list[Child], tmp_path: Path) -> None:
    child = start(children, tmp_path, SLEEP)
    pid = child.pid
    child.kill()
    assert wait_for_end([pid], 10.0)


def test_process_that_lost_its_name_is_dead_once_it_has_ended(
    children: list[Child], tmp_path: Path
) -> None:
    child = start(children, tmp_path, SLEEP)
    found = [[child.pid], [], []]
    follower = Follower(lambda: found.pop(0) if found else [])
    assert [follower.look(), follower.gone] == [False, False]
    assert [follower.look(), follower.gone] == [False, True]  # nameless, and alive
    assert follower.left == [child.pid]
    child.kill()
    assert [follower.look(), follower.gone] == [True, True]
    assert [follower.look(), follower.gone] == [False, True]  # said once


def test_process_that_was_never_found_is_not_gone() -> None:
    follower = Follower(list)
    assert [follower.look(), follower.gone] == [False, False]
