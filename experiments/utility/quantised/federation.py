"""A federation in one thread: the product's arithmetic, without its wires."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsecure import registry
from fedsecure.encoding import profile
from fedsecure.learning.sitedata import SiteData
from fedsecure.learning.training import LocalTrainer
from fedsecure.quantiser import FixedPoint
from fedsecure.ranges import FLOOR, Ranges
from fedsecure.residual import Carry, Residual
from fedsecure.trainer import TrainingTask
from fedsecure.update import Layout, RoundId, Vector
from quantised.arms import Arm
from quantised.encrypted import encrypted_mean
from quantised.problems import SITES, Problem

VALUE_RANGE = 1.0
MULTIPLE = 4.0
LAST = 4  # an arm's accuracy is the mean over the models of the last rounds
CHECKED = 2  # the round that is sent through encryption too


@dataclass
class Quantising:
    """All sites' quantisers in one arm, and the sum that they open."""

    arm: Arm
    layout: Layout
    seed: int
    saturated: int = 0
    values: int = 0

    def __post_init__(self) -> None:
        fields = profile(self.arm.profile)
        limit = self.arm.contributors
        self.base = FixedPoint(VALUE_RANGE, self.arm.bits, limit)
        self.base.check(fields.field_bits)
        self.fixed = self.base
        self.stores = [
            registry.load("stores", "memory").create({}) for _ in range(SITES)
        ]
        self.residuals = [Residual(s, "run", lambda _: True) for s in self.stores]

    def mean(
        self, number: int, deltas: Sequence[Vector], rows: Sequence[int]
    ) -> Vector:
        """Return the weighted mean as sites open it.

        Raises
        ------
        AssertionError
            In the checked round: the encrypted path opens another mean.
        """
        carries = [
            residual.begin(number) if self.arm.feedback else None
            for residual in self.residuals
        ]
        total = np.zeros(self.layout.num_parameters + 1, dtype=np.int64)
        for delta, count, rng, carry in zip(
            deltas, rows, self.chances(number), carries, strict=True
        ):
            share = self.fixed.share(count / max(rows))
            total += self.integers(delta, share, rng, carry)
        opened = self.fixed.dequantize(total)
        mean = opened[:-1] / (opened[-1] / VALUE_RANGE)
        if number == CHECKED:
            again = encrypted_mean(
                self.arm,
                self.fixed,
                self.layout,
                number,
                deltas,
                rows,
                self.chances(number),
                carries,
            )
            if not np.array_equal(again, mean):
                raise AssertionError(f"{self.arm.name}: encryption opens another mean")
        return np.asarray(mean)

    def chances(self, number: int) -> list[np.random.Generator | None]:
        if self.arm.rounding == "nearest":
            return [None] * SITES
        return [np.random.default_rng([self.seed, number, i]) for i in range(SITES)]

    def integers(
        self,
        delta: Vector,
        share: float,
        rng: np.random.Generator | None,
        carry: Carry | None,
    ) -> NDArray[np.int64]:
        values = np.concatenate([delta * share, [share * VALUE_RANGE]])
        if carry is not None:
            values = carry.add(values)
        found = self.fixed.quantize(values, rng=rng)
        if carry is not None:
            carry.keep(self.fixed.residual(values, found.values))
        self.saturated += found.saturated
        self.values += len(values)
        return found.values

    def released(self, before: Vector, after: Vector) -> None:
        """Agree on the next round's ranges."""
        if self.arm.ranges == "aggregate":
            low = VALUE_RANGE * FLOOR
            ranges = Ranges.from_aggregate(
                self.layout, before, after, MULTIPLE, low, VALUE_RANGE
            )
            self.fixed = self.base.within(ranges)


def run_arm(problem: Problem, arm: Arm, seed: int) -> dict[str, float]:
    """Train one federation; return its accuracy in per cent and what was cut."""
    settings = {"model": problem.model, "train": problem.train, "seed": seed}
    trainers = [
        LocalTrainer(part, device="cpu", index=i)
        for i, part in enumerate(problem.parts)
    ]
    rows = [trainer.rows() for trainer in trainers]
    layout, model = trainers[0].initial(settings)
    quantising = Quantising(arm, layout, seed) if arm.profile else None
    largest, accuracies = 0.0, []
    for number in range(1, problem.rounds + 1):
        task = TrainingTask(RoundId("run", number), layout, model, settings, train=True)
        updates = [trainer.run(task).update for trainer in trainers]
        deltas = [update.delta for update in updates if update is not None]
        largest = max(largest, *(float(np.abs(delta).max()) for delta in deltas))
        if quantising is None:
            after = model + fp32_mean(deltas, rows)
        else:
            after = model + quantising.mean(number, deltas, rows)
            quantising.released(model, after)
        model = after
        if number > problem.rounds - LAST:
            accuracies.append(accuracy_of(problem, settings, layout, model))
    cut = quantising.saturated / quantising.values if quantising else 0.0
    accuracy = sum(accuracies) / LAST
    return {"accuracy": accuracy, "saturated_share": cut, "largest_update": largest}


def fp32_mean(deltas: Sequence[Vector], rows: Sequence[int]) -> Vector:
    """Return FedAvg of updates as float32 on the wire."""
    sent = [delta.astype(np.float32) for delta in deltas]
    return np.average(sent, axis=0, weights=np.array(rows, dtype=np.float64))


def accuracy_of(
    problem: Problem, settings: Any, layout: Layout, model: Vector
) -> float:
    part = problem.parts[0]
    whole = SiteData(
        part.train_x[:1],
        part.train_y[:1],
        problem.test_x,
        problem.test_y,
        part.task,
        part.outputs,
        part.input_shape,
    )
    task = TrainingTask(RoundId("run", 0), layout, model, settings, train=False)
    metrics = LocalTrainer(whole, device="cpu").run(task).metrics
    return 100 * metrics["accuracy"]
