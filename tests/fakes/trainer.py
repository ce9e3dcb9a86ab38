"""Training in one line, and its price in rounds."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np

from fedsecure.accounting import PrivacyEvent, Relation
from fedsecure.trainer import JSON, TrainingResult, TrainingTask
from fedsecure.update import Layout, ModelUpdate, Vector

LAYOUT = Layout(("w", "b"), ((2, 3), (3,)))


class CountingAccountant:
    """Epsilon is the number of reservations: a ceiling in rounds."""

    def __init__(self, relation: Relation) -> None:
        _ = relation
        self._rounds = 0

    def supports(self, event: PrivacyEvent) -> bool:
        _ = event
        return True

    def compose(self, event: PrivacyEvent, count: int = 1) -> None:
        self._rounds += count * event.steps

    def epsilon(self, delta: float) -> float:
        _ = delta
        return float(self._rounds)


class ToyTrainer:
    """Moves the model half way to the site's own target; counts what it did.

    `change` makes another result of it; `before` runs when rows are about to be read.
    """

    def __init__(self, site: str, rows: int = 50) -> None:
        self.trained: Counter[int] = Counter()
        self.unpaid: list[int] = []
        self.paid: Callable[[int], int] = lambda _: 1
        self.change: Callable[[TrainingResult], TrainingResult] = lambda r: r
        self.before: Callable[[TrainingTask], None] = lambda _: None
        self._rows = rows
        self.persons = 0
        self.accuracy: float | None = None
        seed = list(hashlib.sha256(site.encode()).digest())
        self._target = np.random.default_rng(seed).uniform(
            -0.5, 0.5, LAYOUT.num_parameters
        )

    def initial(self, settings: Mapping[str, JSON]) -> tuple[Layout, Vector]:
        _ = settings
        return LAYOUT, np.linspace(-0.1, 0.1, LAYOUT.num_parameters)

    def rows(self) -> int:
        return self._rows

    def users(self) -> int:
        return self.persons

    def step(self, model: Vector) -> Vector:
        """Return the update the site makes of a model."""
        return np.asarray(0.5 * (self._target - model))

    def run(self, task: TrainingTask) -> TrainingResult:
        self.before(task)
        metrics = {"loss": float(np.abs(task.model - self._target).sum())}
        metrics["num_test"] = 10.0
        if self.accuracy is not None:
            metrics["accuracy"] = self.accuracy
        if not task.train:
            return TrainingResult(None, metrics, 0)
        number = task.round.number
        self.trained[number] += 1
        if self.paid(number) < self.trained[number]:
            self.unpaid.append(number)
        privacy = cast("Mapping[str, JSON]", task.settings["privacy"])
        steps = int(str(privacy["steps_per_round"]))
        update = ModelUpdate(task.layout, self.step(task.model), self._rows)
        return self.change(TrainingResult(update, metrics, steps))
