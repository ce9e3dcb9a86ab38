"""Runs of the audit's own on the digits: sites that train, and what their sum does.

The digits are public; what is at stake is shown on them, not taken from a member.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsecure.audit.bench import Bench
from fedsecure.audit.line import RUN
from fedsecure.learning.datasets import load_pooled
from fedsecure.learning.sitedata import SiteData
from fedsecure.learning.training import LocalTrainer
from fedsecure.privacy.mechanism import RandomSource
from fedsecure.trainer import TrainingTask
from fedsecure.update import JSON, Layout, ModelUpdate, RoundId, Vector

Rows = NDArray[np.int64]
"""Places of rows, shape (n,)."""


def digits() -> SiteData:
    """Return all digits: 1,437 rows to train on, 360 to test on; pixels from 0 to 1."""
    section: dict[str, JSON] = {"name": "digits", "partition": "iid"}
    return load_pooled({**section, "centre_rows": False}, 1)


def dealt(rows: SiteData, chosen: Rows, sites: int) -> list[SiteData]:
    """Return the chosen training rows, dealt to sites in turn."""
    return [
        replace(
            rows,
            train_x=rows.train_x[chosen[i::sites]],
            train_y=rows.train_y[chosen[i::sites]],
        )
        for i in range(sites)
    ]


def trained(
    trainer: LocalTrainer,
    layout: Layout,
    model: Vector,
    settings: Mapping[str, JSON],
    number: int,
) -> ModelUpdate:
    """Return what a site sends in one round.

    Raises
    ------
    TypeError
        It sent nothing.
    """
    task = TrainingTask(RoundId(RUN, number), layout, model, settings, train=True)
    update = trainer.run(task).update
    if update is None:
        raise TypeError("a trainer that was asked to train sent no update")
    return update


def unprotected_run(
    parts: list[SiteData], settings: Mapping[str, JSON], rounds: int
) -> tuple[Layout, Vector]:
    """Return the model after rounds of plain averaging, without noise."""
    trainers = [LocalTrainer(part, index=i) for i, part in enumerate(parts)]
    layout, model = trainers[0].initial(settings)
    for number in range(1, rounds + 1):
        made = [trained(t, layout, model, settings, number).delta for t in trainers]
        model = model + np.mean(made, axis=0)
    return layout, model


def protected_run(
    bench: Bench, parts: list[SiteData], source: RandomSource
) -> tuple[Layout, Vector]:
    """Return the model after the plan's rounds of shared noise, through the bench."""
    settings = bench.plan.settings
    trainers = [
        LocalTrainer(part, index=i, source=source) for i, part in enumerate(parts)
    ]
    layout, model = trainers[0].initial(settings)
    wholes = bench.plan.wholes(layout.num_parameters)
    for number in range(1, bench.plan.rounds + 1):
        made = [trained(t, layout, model, settings, number).delta for t in trainers]
        opened = bench.send(number, [d.astype(np.int64) for d in made]).sum()
        model = model + wholes.dequantize(opened)
    return layout, model


def accuracy(part: SiteData, layout: Layout, weights: Vector) -> float:
    """Return the share of test rows whose class a dense model finds."""
    found = outputs(layout, weights, part.test_x).argmax(axis=1)
    return float(np.mean(found == part.test_y))


def losses(
    layout: Layout, weights: Vector, x: NDArray[np.floating], y: NDArray[np.generic]
) -> Vector:
    """Return each row's cross entropy under a dense model, shape (n,)."""
    found = outputs(layout, weights, x)
    top = found.max(axis=1)
    total = top + np.log(np.exp(found - top[:, None]).sum(axis=1))
    own = found[np.arange(len(y)), y.astype(np.int64)]
    return np.asarray(total - own, dtype=np.float64)


def outputs(layout: Layout, weights: Vector, x: NDArray[np.floating]) -> Vector:
    """Return a dense model's outputs in float64: linear layers with ReLU between."""
    values, at = x.reshape(len(x), -1).astype(np.float64), 0
    for i, shape in enumerate(layout.shapes[::2]):
        size = shape[0] * shape[1]
        weight = weights[at : at + size].reshape(shape)
        bias = weights[at + size : at + size + shape[0]]
        values = (np.maximum(values, 0) if i else values) @ weight.T + bias
        at += size + shape[0]
    return values
