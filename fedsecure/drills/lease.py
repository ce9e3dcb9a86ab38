"""Drills of lease and journal alone: members in processes of their own, and a verdict.

They have no sites: what a clock or a cut network could break is who leads, and which
writes stand.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedsecure.clock import Clock
from fedsecure.daemons.supervisor import Child, run_to_end
from fedsecure.drills.history import CHECKS
from fedsecure.drills.member import Part, lines_of
from fedsecure.errors import ProcessFailed
from fedsecure.trainer import JSON

Line = Mapping[str, Any]
Kept = tuple[str, int]
"""A write that the journal keeps: writer with its term, number."""
TTL = 3.0
_LOOK = 0.02
_LIMIT = 60.0
_LIE = 600.0
"""Seconds between two clocks of one machine that no delay explains."""


@dataclass
class Cast:
    """The members of one repetition, and what is noted of it.

    Attributes
    ----------
    folder : Path
    clock : Clock
    begun : float
    """

    folder: Path
    clock: Clock
    begun: float
    children: dict[str, Child] = field(default_factory=dict)
    notes: list[tuple[float, str]] = field(default_factory=list)
    heard: dict[tuple[str, int], float] = field(default_factory=dict)

    def start(
        self,
        part: Part,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a member, under another command or environment."""
        told = {**os.environ, **(environment or {})}
        command = [*prefix, *part.command()]
        log = self._log(part.name)
        self.children[part.name] = Child(part.name, command, told, log)

    def lines(self, name: str) -> list[Line]:
        """Return what a member said so far, and note when it was heard."""
        text = self._log(name).read_text(encoding="utf-8", errors="replace")
        lines = lines_of(text)
        for number in range(len(lines)):
            self.heard.setdefault((name, number), self.clock.now())
        return lines

    def leader(self) -> tuple[str, int] | None:
        """Return who led last and has not said that it is over, and its term."""
        said = [
            (int(line["term"]), name, str(line["event"]))
            for name in self.children
            for line in self.lines(name)
            if line["event"] in {"leads", "over"}
        ]
        over = {(term, name) for term, name, event in said if event == "over"}
        led = [
            (term, name)
            for term, name, event in said
            if event == "leads" and (term, name) not in over
        ]
        return (max(led)[1], max(led)[0]) if led else None

    def newest_write(self) -> int:
        """Return the highest term under which a member wrote; 0 if none did."""
        return max(
            (
                int(line["term"])
                for name in self.children
                for line in self.lines(name)
                if line["event"] == "wrote"
            ),
            default=0,
        )

    def until(self, what: str, ready: Callable[[], bool]) -> float:
        """Wait for something; return when it was seen.

        Raises
        ------
        ProcessFailed
            It does not come.
        """
        ends = self.clock.now() + _LIMIT
        while not ready():
            if self.clock.now() > ends:
                raise ProcessFailed(
                    f"{what} did not come in {_LIMIT:.0f} s; {self._last()}"
                )
            self.clock.sleep(_LOOK)
        return self.clock.now()

    def says(self, name: str, event: str, above: int = -1) -> bool:
        """Return whether a member said something, under a term above one."""
        return any(
            line["event"] == event and int(line["term"]) > above
            for line in self.lines(name)
        )

    def note(self, text: str) -> float:
        """Put a sentence on the timeline; return when."""
        now = self.clock.now()
        self.notes.append((now, text))
        return now

    def end(self) -> None:
        """End all members."""
        for child in self.children.values():
            child.kill()

    def _last(self) -> str:
        """Return the last line of each member's output."""
        out = []
        for name in self.children:
            text = self._log(name).read_text(encoding="utf-8", errors="replace")
            lines = text.strip().splitlines()
            out.append(f"{name}: {lines[-1] if lines else 'nothing'}")
        return "; ".join(out)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def kept_by(cast: Cast, part: Part, prefix: Sequence[str] = ()) -> list[Kept]:
    """Return what the journal keeps, as a reader in a part's place finds it."""
    reader = replace(part, name=f"reader of {part.name}", reads=True)
    command = [*prefix, *reader.command()]
    run_to_end("reader", command, cast.folder / "reader.log")
    text = (cast.folder / "reader.log").read_text(encoding="utf-8", errors="replace")
    lines = [line for line in lines_of(text) if line["event"] == "kept"]
    return [(str(line["name"]), int(str(line["number"]))) for line in lines]


def verdict(cast: Cast, entries: Sequence[Kept]) -> dict[str, list[str]]:
    """Return what is broken, of the invariants that members alone can break.

    Parameters
    ----------
    entries : sequence of (str, int)
        The journal, in its own order: writer with its term, number of the write.
    """
    said = [line for name in cast.children for line in cast.lines(name)]
    terms = [int(writer.rpartition("-")[2]) for writer, _ in entries]
    led = [int(line["term"]) for line in said if line["event"] == "leads"]
    kept = set(entries)
    wrote = [
        (f"{line['name']}-{line['term']}", int(line["number"]))
        for line in said
        if line["event"] == "wrote"
    ]
    out: dict[str, list[str]] = {"I2": [], "I3": [], "I5": []}
    if len(led) != len(set(led)):
        out["I2"].append(f"two leaders had one term: {sorted(led)}")
    if terms != sorted(terms):
        out["I3"].append("a write of an older term stands after one of a newer")
    if lost := sorted(set(wrote) - kept):
        out["I5"].append(f"{len(lost)} acknowledged writes are lost, such as {lost[0]}")
    if len(kept) != len(entries):
        out["I5"].append("a write is there twice")
    return out


def shown(
    cast: Cast,
    broken: Mapping[str, list[str]],
    promises: Sequence[str],
    figures: Mapping[str, JSON],
) -> dict[str, JSON]:
    """Return a repetition as every drill shows it."""
    lines = [(at, f"DRILL: {text}") for at, text in cast.notes]
    for name in cast.children:
        lines += [
            (_moment(line, cast.heard[name, number]), _sentence(name, line))
            for number, line in enumerate(cast.lines(name))
            if line["event"] != "wrote"
        ]
    rows: list[JSON] = [
        {"at": round(at - cast.begun, 3), "what": text} for at, text in sorted(lines)
    ]
    unseen = ("seconds_to_next_update", "seconds_to_next_release")
    return {
        "ended": True,
        "seconds_to_leader": None,
        **dict.fromkeys(unseen),
        "updates_reused": None,
        "rounds_lost": None,
        "updates_lost": None,
        **figures,
        "broken": {n: [*broken[n]] if n in broken else None for n in CHECKS},
        "promises": [*promises],
        "timeline": rows,
    }


def _moment(line: Line, heard: float) -> float:
    """Return when a line was said: by its own clock, unless that was made to lie."""
    said = float(line["now"])
    return said if abs(said - heard) < _LIE else heard


def _sentence(name: str, line: Line) -> str:
    text = f"{name}: {line['event']} term {line['term']}"
    return f"{text}: {line['reason']}" if line.get("reason") else text
