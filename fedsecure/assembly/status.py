"""Who leads and how far a run is, read beside a running aggregator; changes nothing."""

from pathlib import Path

from fedsecure.access.kit import read_kit
from fedsecure.access.roster import Role
from fedsecure.assembly.aggregator import read_config, read_terms
from fedsecure.assembly.places import open_engine
from fedsecure.disk import SystemDisk
from fedsecure.metadata import Step
from fedsecure.monitor.observer import read_lines


def look(path: Path) -> dict[str, str]:
    """Return what an operator asks at three in the morning, in reading order.

    Raises
    ------
    KitError, ConfigurationError
        Not an aggregator's kit, or no run was given to it.
    """
    kit = read_kit(path.absolute(), SystemDisk(), lambda p: p.stat().st_mode)
    config = read_config(kit.require(Role.AGGREGATOR))
    terms = read_terms(config, kit.roster)
    engine = open_engine(config, look=True)
    lease, head = engine.leases.read(), engine.journal.head(terms.run)
    released = 0 if head is None else head.round
    open_now = [
        e.round
        for e in engine.journal.entries(terms.run, released + 1)
        if e.step == Step.OPEN
    ]
    waiting = sorted(
        set(terms.sites)
        - {
            e.site
            for e in engine.journal.entries(terms.run, released + 1)
            if e.step == Step.UPDATE
        }
    )
    last = read_lines(kit.state / "events.jsonl")
    return {
        "aggregator": kit.name,
        "run": terms.run,
        "leader": "nobody" if lease is None else f"{lease.holder}, term {lease.term}",
        "released": f"{released} of {terms.rounds} rounds",
        "open round": f"{open_now[-1]}, waiting for {', '.join(waiting)}"
        if open_now
        else "none",
        "last event here": f"{last[-1]['event']} at {last[-1]['time']}"
        if last
        else "none",
    }
