"""Real processes that write until they are killed or stopped, and what they left.

Run as a program of one thread, that forks a writer, strikes it at a random moment with
SIGKILL or SIGSTOP, and looks at the disk: journal, store and ledger of a leader that
never asks whether it still leads. A stopped one is ended by its successor.
"""

import json
import os
import random
import select
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from fedsecure import registry
from fedsecure.clock import SystemClock
from fedsecure.disk import SystemDisk
from fedsecure.errors import FedsecureError
from fedsecure.keys import SigningKey
from fedsecure.ledger import Ledger, verify_ledger
from fedsecure.metadata import Engine, Head, JournalEntry, Lease, Step
from fedsecure.stores import Store

TTL = 0.4
PATIENCE = 20.0
KEY = SigningKey.from_bytes(b"k" * 32)


def write_on(folder: Path, name: str, pipe: int) -> NoReturn:
    """Lead, then write rounds and say what is durable, until something ends it."""
    engine: Engine = registry.load("metadata", "embedded").create(
        {"path": folder / "lease"}
    )
    store: Store = registry.load("stores", "local").create({"path": folder / "store"})
    lease = _led(engine, name)
    path = folder / "ledger.jsonl"
    ledger = Ledger.open(path, "agg", KEY, SystemDisk(), SystemClock())
    head = engine.journal.head("run")
    while True:
        number = 1 if head is None else head.round + 1
        known = {(e.round, e.step) for e in engine.journal.entries("run", number)}
        operation, closed = f"{lease.term}-{number}", b'{"round":%d}' % number
        row = JournalEntry("run", number, Step.UPDATE, operation, operation, b"{}")
        store.put(f"update/{operation}", operation.encode())
        engine.journal.append(lease.term, [row])
        _say(pipe, ["row", operation])
        if (number, Step.CLOSE) not in known:
            close = JournalEntry("run", number, Step.CLOSE, "", f"c{operation}", closed)
            engine.journal.append(lease.term, [close])
        ledger.append("round.release", operation, round=number, term=lease.term)
        _say(pipe, ["line", operation])
        new = Head("run", number, number, number.to_bytes(32, "big"), lease.term)
        engine.journal.advance(lease.term, head, new, closed)
        head = new
        _say(pipe, ["head", str(number)])
        if engine.leases.renew(lease) is None:
            os._exit(3)


def _led(engine: Engine, name: str) -> Lease:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        engine.leases.read()  # a holder that hangs is ended by this
        lease = engine.leases.acquire(name, "here", TTL)
        if lease is not None:
            return lease
        time.sleep(0.01)
    os._exit(4)


def _say(pipe: int, told: list[str]) -> None:
    os.write(pipe, json.dumps(told).encode() + b"\n")


class Bench:
    """Strikes writers one after the other, and keeps what each said was durable."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._dice = random.Random(seed)  # noqa: S311 - moments of faults
        self._told: list[list[str]] = []
        self._stopped = 0
        self._late: list[str] = []
        self.faults = {"SIGKILL": 0, "SIGSTOP": 0}

    def strike(self, number: int) -> None:
        """Start a writer, let it write for a moment, and strike."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                write_on(self._folder, f"agg-{number}", writing)
            except FedsecureError as stopped:
                sys.stderr.write(f"{stopped}\n")
            finally:
                os._exit(2)
        os.close(writing)
        select.select([reading], [], [], PATIENCE)
        self._bury()
        time.sleep(self._dice.random() * 0.03)
        self._blow(child)
        self._hear(reading)

    def _bury(self) -> None:
        """See that a writer that stands still was ended: its successor leads now."""
        if self._stopped and os.waitpid(self._stopped, os.WNOHANG)[0] == 0:
            self._late.append(f"process {self._stopped} outlives its leadership")
            self.end()
        self._stopped = 0

    def _blow(self, child: int) -> None:
        if self._dice.random() < 0.15:
            os.kill(child, signal.SIGSTOP)
            self._stopped = child
            self.faults["SIGSTOP"] += 1
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            self.faults["SIGKILL"] += 1

    def _hear(self, reading: int) -> None:
        os.set_blocking(reading, False)
        data = b""
        while select.select([reading], [], [], 0)[0]:
            piece = os.read(reading, 1 << 16)
            if not piece:
                break
            data += piece
        os.close(reading)
        self._told += [json.loads(line) for line in data.splitlines()]

    def wrong(self) -> list[str]:
        """Return what was said to be durable and is not, and what a journal breaks."""
        with closing(sqlite3.connect(self._folder / "lease/journal.sqlite")) as base:
            rows = base.execute(
                "SELECT round, step, operation, term FROM journal ORDER BY number"
            ).fetchall()
            (head,) = base.execute("SELECT max(round) FROM head").fetchone()
        operations = {row[2] for row in rows}
        path, disk = self._folder / "ledger.jsonl", SystemDisk()
        Ledger.open(path, "agg", KEY, disk, SystemClock()).close()  # a torn last line
        lines = {record.object for record in verify_ledger(path, disk)}
        objects = {path.name for path in (self._folder / "store/update").iterdir()}
        found = {"row": operations & objects, "line": lines}
        out = self._late + [
            f"{kind} {what} is lost"
            for kind, what in self._told
            if kind in found and what not in found[kind]
        ]
        heads = [int(what) for kind, what in self._told if kind == "head"]
        if heads != sorted(set(heads)) or (heads and heads[-1] > head):
            out.append(f"heads moved {heads[-3:]}, the last is {head}")
        terms = [row[3] for row in rows]
        released = [row[0] for row in rows if row[1] == "release"]
        if terms != sorted(terms) or released != list(range(1, len(released) + 1)):
            out.append("terms fell in the journal, or a round was released twice")
        return out

    @property
    def durable(self) -> int:
        """How often a writer said that something is durable."""
        return len(self._told)

    def end(self) -> None:
        """End the writer that stands still."""
        if self._stopped:
            os.kill(self._stopped, signal.SIGKILL)
            os.waitpid(self._stopped, 0)


def main(folder: Path, faults: int, seed: int) -> None:
    """Strike so often; print what was struck and what is wrong as JSON."""
    bench = Bench(folder, seed)
    try:
        for number in range(faults):
            bench.strike(number)
    finally:
        bench.end()
    told = {"faults": bench.faults, "durable": bench.durable, "wrong": bench.wrong()}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
