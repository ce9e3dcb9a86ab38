"""A leader in a process of its own that trusts nobody to stop it: it writes on and on.

It neither watches its own clock nor asks who leads: whatever stops it, the engine did.
Lines on standard output: the term, then ``ok N`` for each write that was acknowledged,
then ``stale`` or ``lost``.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fedsecure import registry
from fedsecure.errors import StaleTerm, StorageError
from fedsecure.metadata import Engine, JournalEntry, Step

ROOT = Path(__file__).parents[2]


def write_on(engine: Engine, ttl: float) -> str:
    """Lead, renew and write until the engine says no; return why it ended."""
    lease = engine.leases.acquire("holder", "here", ttl)
    if lease is None:
        return "held"
    say(str(lease.term))
    due, number = 0.0, 0
    while True:
        number += 1
        name = f"{lease.term}-{number}"
        entry = JournalEntry("run", number, Step.OPEN, name, f"op-{name}", b"{}")
        try:
            engine.journal.append(lease.term, [entry])
            say(f"ok {number}")
            if time.monotonic() >= due:
                due = time.monotonic() + ttl / 6
                if engine.leases.renew(lease) is None:
                    say("lost")
        except StaleTerm:
            return "stale"
        except StorageError as no_answer:
            say(f"silent {type(no_answer).__name__}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def holder(
    plug: str, settings: Mapping[str, object], ttl: float
) -> Iterator[tuple[subprocess.Popen[str], int, IO[str]]]:
    """Yield a leading process, its term and what it says."""
    command = [sys.executable, "-m", "tests.fakes.holder", plug, json.dumps(settings)]
    with subprocess.Popen(
        [*command, str(ttl)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        said = child.stdout
        assert said is not None
        try:
            yield child, int(said.readline()), said
        finally:
            child.kill()
            child.wait()


if __name__ == "__main__":
    created: Engine = registry.load("metadata", sys.argv[1]).create(
        json.loads(sys.argv[2])
    )
    say(write_on(created, float(sys.argv[3])))
