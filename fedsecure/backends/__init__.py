"""The socket for ways to run a federation.

A plug's ``create(settings)`` returns a `Backend`; settings are the fields of the
configuration's section ``backend``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from fedsecure.config import RunConfig
from fedsecure.trainer import JSON

Event: TypeAlias = Mapping[str, JSON]
"""One line of an aggregator's or a backend's observer; see `monitor.observer`."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run, ready to be carried out.

    Attributes
    ----------
    config : RunConfig
    plan : Mapping
        The plan's document, complete: names, noise multiplier, weights.
    kits : Path
        Folder of start-up kits: one per member of the plan, and the aggregators.
    folder : Path
        The run's own folder; whatever the run leaves lies below it.
    show : callable
        Told of every event as it happens.
    """

    config: RunConfig
    plan: Mapping[str, JSON]
    kits: Path
    folder: Path
    show: Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is left of a run.

    Attributes
    ----------
    events : tuple of Event
        All events of all aggregators, by time.
    ledgers : mapping of str to Path
        Ledgers to verify, by the name of their owner.
    epsilons : mapping of str to tuple of float
        Per site, epsilon after each of its rounds; empty without privacy.
    """

    events: tuple[Event, ...]
    ledgers: Mapping[str, Path]
    epsilons: Mapping[str, tuple[float, ...]]


class Backend(Protocol):
    """A way to run a federation."""

    def run(self, job: Job) -> Outcome:
        """Carry the run out to its end.

        Raises
        ------
        FedsecureError
            It did not reach its end; what was durable stays in the job's folder.
        """
        ...
