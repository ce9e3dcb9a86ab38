"""The clock drill: the leader's clocks jump an hour on and back while it leads.

libfaketime moves the clocks of that one process. First the time of day alone: nobody
may notice. Then the monotonic clocks too, as nothing but a broken kernel would: the
leader may lose its lease, or hang in a wait that now ends in an hour, and is followed.
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
_WALL, _MONOTONIC, _THIRD = "wall", "monotonic", "third"


def rehearse(folder: Path, clock: Clock) -> dict[str, JSON]:
    """Carry one repetition out: a jump of each kind, SIGKILL of a leader in between."""
    cast = Cast(folder, clock, clock.now())
    promises: list[str] = []
    try:
        broken, seconds = _jumps(cast, promises)
    finally:
        cast.end()
    return shown(cast, broken, promises, {"seconds_to_leader": seconds})


def _jumps(cast: Cast, promises: list[str]) -> tuple[dict[str, list[str]], float]:
    _start(cast, _WALL, only_wall=True)
    cast.until("a leader", partial(cast.says, _WALL, "wrote"))
    _start(cast, _MONOTONIC, only_wall=False)
    cast.until("a standby", partial(cast.says, _MONOTONIC, "stands by"))
    _jump(cast, _WALL)
    terms = {line["term"] for line in cast.lines(_WALL) if line["event"] == "leads"}
    if len(terms) != 1 or cast.lines(_MONOTONIC)[-1]["event"] != "stands by":
        promises.append("a jump of the time of day ended a leadership")
    begun = cast.note(f"SIGKILL of {_WALL}")
    cast.children[_WALL].kill()
    led = cast.until("a successor", partial(cast.says, _MONOTONIC, "leads"))
    cast.start(_part(cast, _THIRD))
    cast.until("a standby", partial(cast.says, _THIRD, "stands by"))
    _jump(cast, _MONOTONIC)
    before = _writes(cast)
    cast.until("writes after the jumps", lambda: _writes(cast) > before)
    cast.end()
    return verdict(cast, kept_by(cast, _part(cast, _THIRD))), led - begun


def _writes(cast: Cast) -> int:
    said = [*cast.lines(_MONOTONIC), *cast.lines(_THIRD)]
    return sum(1 for line in said if line["event"] == "wrote")


def _jump(cast: Cast, name: str) -> None:
    for jump in _JUMPS:
        cast.note(f"{name}: clock at {jump} s")
        (cast.folder / f"{name}.time").write_text(jump, encoding="ascii")
        cast.clock.sleep(_STAY)


def _start(cast: Cast, name: str, *, only_wall: bool) -> None:
    """Start a member whose clocks lie in our hands."""
    told = cast.folder / f"{name}.time"
    told.write_text(_JUMPS[-1], encoding="ascii")
    environment = {
        "LD_PRELOAD": faketime_library(),
        "FAKETIME_TIMESTAMP_FILE": str(told),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1" if only_wall else "0",
    }
    cast.start(_part(cast, name), environment=environment)


def _part(cast: Cast, name: str) -> Part:
    return Part(name, "embedded", {"path": str(cast.folder / "lease")}, TTL)
