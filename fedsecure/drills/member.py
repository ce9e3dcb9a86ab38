"""One aggregator's campaign in a process of its own: it leads, writes, and says so.

What drills and benchmarks do to it, happens to the lease, the journal and the process
as in an aggregator; there is no Flower, no site and no data. Lines of JSON on standard
output, each with seconds of the machine's clock: ``stands by``, ``leads``, ``wrote``,
``over``.
"""

import json
import select
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fedsecure import registry
from fedsecure.assembly.wish import HANDOVER, PAUSED, WishFile
from fedsecure.clock import Clock, SystemClock
from fedsecure.disk import SystemDisk
from fedsecure.errors import LeaseLost, StorageError
from fedsecure.flower.campaign import Campaign, Operator
from fedsecure.metadata import Engine, Journal, JournalEntry, Step

RUN = "drill"
_PAUSE = 0.005
_WAIT = 0.2


@dataclass(frozen=True, slots=True)
class Part:
    """What a member is told.

    Attributes
    ----------
    name : str
        Unique among the members.
    plug : str
        The engine.
    settings : Mapping
        Of the engine.
    ttl : float
        Of the lease; seconds.
    reads : bool
        It only says what the journal keeps, ``kept`` by ``kept``, and ends.
    ahead : str
        A file with the seconds that its steady clock is ahead; "": none, it is right.
    handover : str
        A folder; the wish for a hand-over in it is this member's. "": there is none.
    """

    name: str
    plug: str
    settings: Mapping[str, object]
    ttl: float
    reads: bool = False
    ahead: str = ""
    handover: str = ""

    def command(self) -> list[str]:
        """Return the command that plays this part."""
        text = json.dumps(asdict(self))
        return [sys.executable, "-u", "-m", "fedsecure.drills.member", text]


class PartClock(SystemClock):
    """The machine's clocks, less or more what a file says; waits are not changed.

    Parameters
    ----------
    ahead : str
        Path of the file, written whole by whoever sets the clock.
    """

    def __init__(self, ahead: str) -> None:
        self._ahead = Path(ahead) if ahead else None

    def now(self) -> float:
        """Return the steady clock as this member sees it."""
        ahead = 0.0
        if self._ahead is not None:
            with suppress(OSError, ValueError):
                ahead = float(self._ahead.read_text(encoding="ascii"))
        return super().now() + ahead

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`, told to the kernel as a length.

        Python gives `time.sleep` as a moment, which libfaketime 0.9.10 turns into an
        error (its issue 426).
        """
        if seconds > 0:
            select.select([], [], [], seconds)


def lines_of(text: str) -> list[Mapping[str, object]]:
    """Return what a member said, whole lines only; other output is passed over."""
    return list(_lines(text))


def _lines(text: str) -> Iterator[Mapping[str, object]]:
    for line in text.split("\n")[:-1]:
        if line.startswith("{"):
            yield json.loads(line)


def serve(part: Part, clock: Clock) -> None:
    """Campaign, lead and write until the process is ended."""
    engine: Engine = registry.load("metadata", part.plug).create(dict(part.settings))
    if part.reads:
        for entry in engine.journal.entries(RUN, 0):
            _say("kept", entry.site, 0, clock, number=entry.round)
        return
    campaign = Campaign(
        engine.leases, part.name, "here", part.ttl, clock, operator=_operator(part)
    )
    campaign.start()
    _say("stands by", part.name, 0, clock)
    while True:
        term = campaign.wait(_WAIT)
        if term is None:
            continue
        _say("leads", part.name, term, clock)
        try:
            _write_on(engine.journal, campaign, part.name, term, clock)
        except (LeaseLost, StorageError) as over:
            reason = f"{type(over).__name__}: {over}"
            _say("over", part.name, term, clock, reason=reason)
            campaign.step_down()


def _operator(part: Part) -> Operator | None:
    if not part.handover:
        return None
    folder, disk = Path(part.handover), SystemDisk()
    return Operator(
        WishFile(folder, PAUSED, disk).wanted, WishFile(folder, HANDOVER, disk)
    )


def _write_on(
    journal: Journal, campaign: Campaign, name: str, term: int, clock: Clock
) -> None:
    number = 0
    while True:
        number += 1
        campaign.check(term)
        place = f"{name}-{term}"
        entry = JournalEntry(RUN, number, Step.OPEN, place, f"{place}-{number}", b"{}")
        journal.append(term, [entry])
        _say("wrote", name, term, clock, number=number)
        clock.sleep(_PAUSE)


def _say(event: str, name: str, term: int, clock: Clock, **more: object) -> None:
    line = {"event": event, "now": clock.now(), "name": name, "term": term, **more}
    sys.stdout.write(f"{json.dumps(line)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    told = Part(**json.loads(sys.argv[1]))
    serve(told, PartClock(told.ahead))
