"""The clock drill: the clocks of aggregators jump an hour on and back while they lead.

In three scenes. The time of day jumps, by libfaketime: nobody may notice. The steady
clock of a leader jumps, on as after a suspended machine, or back as none should: it
stops by itself, and is followed. Both jump, by libfaketime: every wait of that process
then ends years from now, it hangs, and is followed.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from fedsecure.clock import Clock
from fedsecure.drills.lease import TTL, Cast, kept_by, shown, verdict
from fedsecure.drills.member import Part
from fedsecure.drills.needs import faketime_library
from fedsecure.trainer import JSON

JUMPS = ("+3600", "-3600")
_TRUE = "+0"
_STAY = 2.0
_ENOUGH = 2 * TTL
"""Seconds within which somebody must write again."""
_DAY, _STEADY, _OTHER, _HUNG, _LAST = "day", "steady", "other", "hung", "last"


def rehearse(folder: Path, clock: Clock) -> dict[str, JSON]:
    """Carry one repetition out: the three scenes, one after the other."""
    cast = Cast(folder, clock, clock.now())
    promises: list[str] = []
    try:
        _time_of_day(cast, promises)
        seconds = [_steady(cast, jump, promises) for jump in JUMPS]
        seconds.append(_hung(cast, promises))
    finally:
        cast.end()
    broken = verdict(cast, kept_by(cast, _part(cast, "reader")))
    return shown(cast, broken, promises, {"seconds_to_leader": max(seconds)})


def _time_of_day(cast: Cast, promises: list[str]) -> None:
    """Let the leader's time of day jump; end it afterwards, for others to lead."""
    told = _start_faked(cast, _DAY, only_day=True)
    cast.until("a leader", partial(cast.says, _DAY, "wrote"))
    for name in (_STEADY, _OTHER):
        cast.start(_part(cast, name))
        cast.until(f"{name} to stand by", partial(cast.says, name, "stands by"))
    for jump in (*JUMPS, _TRUE):
        cast.note(f"{_DAY}: time of day at {jump} s")
        told.write_text(jump, encoding="ascii")
        before = len(cast.lines(_DAY))
        cast.clock.sleep(_STAY)
        promises += unnoticed(cast, _DAY, before, jump)
    cast.note(f"SIGKILL of {_DAY}")
    cast.children[_DAY].kill()
    cast.until("writes", lambda: cast.newest_write() > 1)


def unnoticed(cast: Cast, name: str, before: int, jump: str) -> list[str]:
    """Return what a jump of the time of day changed for a leader; it should nothing.

    Parameters
    ----------
    name : str
        Of the leader.
    before : int
        Lines it had said before the jump.
    """
    leads = [line for line in cast.lines(name) if line["event"] in {"leads", "over"}]
    others = [n for n in cast.children if n != name and cast.says(n, "leads")]
    out = []
    if len(leads) != 1 or others:
        out.append(f"a time of day {jump} s off ended the leadership of {name}")
    if len(cast.lines(name)) <= before:
        out.append(f"{name} wrote nothing with a time of day {jump} s off")
    return out


def _steady(cast: Cast, jump: str, promises: list[str]) -> float:
    """Let the steady clock of who leads now jump; return seconds to a write after."""
    cast.until("a leader", lambda: cast.leader() is not None)
    name, term = cast.leader() or ("", 0)
    cast.until("its writes", lambda: cast.newest_write() >= term)
    begun = cast.note(f"{name}: steady clock at {jump} s")
    _ahead(cast, name).write_text(jump, encoding="ascii")
    led = cast.until("writes after it", lambda: cast.newest_write() > term) - begun
    promises += stopped(cast.lines(name), term, name, jump)
    if led > _ENOUGH:
        promises.append(f"nobody wrote for {led:.1f} s after {name} was at {jump} s")
    return led


def stopped(
    lines: Sequence[Mapping[str, object]], term: int, name: str, jump: str
) -> list[str]:
    """Return what is wrong with how a leader stopped whose steady clock jumped."""
    over = [x for x in lines if x["event"] == "over" and int(str(x["term"])) == term]
    if not over:
        return [f"{name} did not stop by itself at {jump} s"]
    reason = str(over[-1].get("reason", ""))
    if "ended" in reason or "went back" in reason:
        return []
    return [f"{name} stopped at {jump} s, but not for its clock: {reason}"]


def _hung(cast: Cast, promises: list[str]) -> float:
    """Let a process lead whose waits do not end; return seconds until it is followed.

    It leads because nobody else is there when it begins.
    """
    cast.end()
    _start_faked(cast, _HUNG, only_day=False)
    cast.until("a leader", partial(cast.says, _HUNG, "leads"))
    begun = cast.note(f"{_HUNG}: both clocks are libfaketime's, no wait ends")
    cast.start(_part(cast, _LAST))
    cast.until("a successor", partial(cast.says, _LAST, "leads"))
    led = cast.until("its writes", partial(cast.says, _LAST, "wrote")) - begun
    if led > _ENOUGH:
        promises.append(f"a leader that hung was followed after {led:.1f} s")
    return led


def _start_faked(cast: Cast, name: str, *, only_day: bool) -> Path:
    """Start a member under libfaketime; return the file that sets its clocks."""
    told = cast.folder / f"{name}.time"
    told.write_text(_TRUE, encoding="ascii")
    environment = {
        "LD_PRELOAD": faketime_library(),
        "FAKETIME_TIMESTAMP_FILE": str(told),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1" if only_day else "0",
    }
    cast.start(_part(cast, name), environment=environment)
    return told


def _ahead(cast: Cast, name: str) -> Path:
    return cast.folder / f"{name}.ahead"


def _part(cast: Cast, name: str) -> Part:
    settings: Mapping[str, object] = {"path": str(cast.folder / "lease")}
    return Part(name, "embedded", settings, TTL, ahead=str(_ahead(cast, name)))
