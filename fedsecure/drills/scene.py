"""Where a drill happens: a small federation of its own, and what is noted there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fedsecure import registry
from fedsecure.backends import Backend, Event, Job, Outcome
from fedsecure.clock import Clock
from fedsecure.composition import composed
from fedsecure.experiment import prepare
from fedsecure.trainer import JSON

BREAK_IN = 2
"""The round in which things break."""
_CONFIG = (
    "data=breast_cancer",
    "model=logistic",
    "federation.sites=3",
    "federation.rounds=3",
    "privacy=example_local",
    "privacy.target_epsilon=8",
    "encryption=bfv",
)


@dataclass
class Scene:
    """The federation of one repetition.

    Attributes
    ----------
    folder : Path
        Empty at the beginning; all of it is the drill's.
    clock : Clock
    notes : list
        (seconds, sentence) of what the drill itself did.
    struck : float
        When the fault struck; 0: not yet.
    name : str
        The run's; empty until there is a plan.
    """

    folder: Path
    clock: Clock
    notes: list[tuple[float, str]] = field(default_factory=list)
    struck: float = 0.0
    name: str = ""

    @property
    def kits(self) -> Path:
        """Where the members' kits lie."""
        return self.folder / "kits"

    @property
    def run(self) -> Path:
        """Where lease, journal and stores lie."""
        return self.folder / "run"

    def note(self, text: str) -> None:
        """Put a sentence on the timeline, now."""
        self.notes.append((self.clock.now(), text))

    def strike(self, text: str) -> None:
        """Put the fault on the timeline: what is timed counts from here."""
        self.struck = self.clock.now()
        self.notes.append((self.struck, text))


class Fault(Protocol):
    """One kind of fault, for one repetition."""

    def begin(self, scene: Scene) -> None:
        """Prepare what must be there before the federation starts."""
        ...

    def see(self, event: Event) -> None:
        """Act on what just happened in the federation."""
        ...

    def end(self) -> None:
        """Undo what would outlast the drill; idempotent."""
        ...

    def missed(self, outcome: Outcome) -> list[str]:
        """Return what this drill promises besides the invariants, and was not kept."""
        ...


@dataclass(frozen=True, slots=True)
class Played:
    """A federation that ran through a fault."""

    job: Job
    outcome: Outcome


def play(scene: Scene, fault: Fault, overrides: Sequence[str]) -> Played:
    """Run the federation through the fault to its end.

    Raises
    ------
    FedsecureError
        It did not reach its end.
    """
    config = composed([*_CONFIG, f"run_root={scene.folder}", *overrides])
    kits, plan = prepare(config, scene.folder)
    scene.run.mkdir()
    scene.name = str(plan["run"])
    job = Job(config, plan, kits, scene.run, fault.see)
    fault.begin(scene)
    try:
        backend: Backend = registry.load("backends", config.backend.name).create({})
        return Played(job, backend.run(job))
    finally:
        fault.end()


def at_first_update(event: Mapping[str, JSON], number: int = BREAK_IN) -> bool:
    """Return whether a leader accepted an update of a round: it is half done."""
    return event["event"] == "update" and event["round"] == number


def released(event: Mapping[str, JSON], number: int = BREAK_IN) -> bool:
    """Return whether a round was released."""
    return event["event"] == "released" and event["round"] == number
