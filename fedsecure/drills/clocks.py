"""The clock drill: the leader's clocks jump an hour on and back while it leads.

libfaketime moves the clocks of that one process: once the time of day alone, once the
monotonic clocks too, as nothing but a broken kernel would.
"""

from functools import partial
from pathlib import Path

from fedsecure.clock import Clock
from fedsecure.drills.lease import TTL, Cast, kept_by, shown, verdict
from fedsecure.drills.member import Part
from fedsecure.drills.needs import faketime_library
from fedsecure.trainer import JSON

_JUMPS = ("+3600", "-3600", "+0")
_STAY = 2.0
_SECOND = "second"


def rehearse(folder: Path, clock: Clock) -> dict[str, JSON]:
    """Carry one repetition out: both kinds of jump, then SIGKILL of the leader."""
    cast = Cast(folder, clock, clock.now())
    promises: list[str] = []
    settings = {"path": str(folder / "lease")}
    try:
        broken, seconds = _jumps(cast, settings, promises)
    finally:
        cast.end()
    return shown(cast, broken, promises, {"seconds_to_leader": seconds})


def _jumps(
    cast: Cast, settings: dict[str, str], promises: list[str]
) -> tuple[dict[str, list[str]], float]:
    for name, only_wall in (("wall", True), ("monotonic", False)):
        _jump(
            cast, Part(name, "embedded", settings, TTL), promises, only_wall=only_wall
        )
    cast.start(Part(_SECOND, "embedded", settings, TTL))
    cast.until("a standby", partial(cast.says, _SECOND, "stands by"))
    last = max(int(line["term"]) for line in cast.lines("monotonic"))
    begun = cast.note("SIGKILL of the leader")
    cast.children["monotonic"].kill()
    cast.until("a successor", partial(cast.says, _SECOND, "leads", last))
    led = next(x for x in cast.lines(_SECOND) if x["event"] == "leads")
    cast.until("its first write", partial(cast.says, _SECOND, "wrote", last))
    cast.end()
    kept = kept_by(cast, Part(_SECOND, "embedded", settings, TTL))
    return verdict(cast, kept), float(led["now"]) - begun


def _jump(cast: Cast, part: Part, promises: list[str], *, only_wall: bool) -> None:
    """Have a member lead through the jumps; the one before it is ended."""
    for name, child in cast.children.items():
        child.kill()
        cast.note(f"{name} is ended")
    told = cast.folder / f"{part.name}.time"
    told.write_text(_JUMPS[-1], encoding="ascii")
    environment = {
        "LD_PRELOAD": faketime_library(),
        "FAKETIME_TIMESTAMP_FILE": str(told),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1" if only_wall else "0",
    }
    cast.start(part, environment=environment)
    cast.until("a leader", partial(cast.says, part.name, "wrote"))
    for jump in _JUMPS:
        cast.note(f"{part.name}: clock at {jump} s")
        told.write_text(jump, encoding="ascii")
        cast.clock.sleep(_STAY)
    terms = {line["term"] for line in cast.lines(part.name) if line["event"] == "leads"}
    if only_wall and len(terms) != 1:
        promises.append(f"a jump of the time of day ended leaderships: {terms}")
    before = len(cast.lines(part.name))
    cast.until("writes after the jumps", lambda: len(cast.lines(part.name)) > before)
