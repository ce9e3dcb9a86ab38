"""What a round asks of training code, and what it gets back.

The Protocol stands between a site's trusted half (`client_round`) and whatever trains:
the built-in models, a worker process, or a Flower ClientApp.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fedsecure.update import JSON, Layout, ModelUpdate, RoundId, Vector

__all__ = ["JSON", "Trainer", "TrainingResult", "TrainingTask"]


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """One local pass.

    Attributes
    ----------
    round : RoundId
    layout : Layout
    model : Vector
        Shape (num_parameters,), float64: the opened global model.
    settings : Mapping
        The signed plan's sections ``model``, ``train``, ``privacy`` and ``seed``.
    train : bool
        False: evaluate only.
    """

    round: RoundId
    layout: Layout
    model: Vector
    settings: Mapping[str, JSON]
    train: bool


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a pass made.

    Attributes
    ----------
    update : ModelUpdate or None
        None after an evaluation.
    metrics : Mapping
        Of the incoming model on the site's test rows: loss, accuracy, num_test. What of
        them leaves is the plan's word; under `dp` counts made of the last two alone.
    dp_steps : int
        Noisy steps that ran; 0 without privacy.
    """

    update: ModelUpdate | None
    metrics: Mapping[str, float]
    dp_steps: int


class Trainer(Protocol):
    """Training code, as a round sees it; holds the rows and no key."""

    def initial(self, settings: Mapping[str, JSON]) -> tuple[Layout, Vector]:
        """Return the public first model; deterministic in ``settings["seed"]``."""
        ...

    def run(self, task: TrainingTask) -> TrainingResult:
        """Evaluate the task's model, then train it.

        Raises
        ------
        TrainingFailed
            The training code raised, or its process died.
        """
        ...

    def rows(self) -> int:
        """Return the training rows at this site; the number stays at the site."""
        ...

    def users(self) -> int:
        """Return the persons behind them; 0 where they are not told apart."""
        ...
