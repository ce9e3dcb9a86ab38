"""Losses of each kind of problem, and how well a model does on test rows."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedsecure.learning.sitedata import Task

Loss = Callable[[Tensor, Tensor], Tensor]
_CHUNK = 4096  # rows in one forward pass; memory only


def _binary(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(
        outputs.squeeze(1), targets.to(outputs.dtype), reduction="none"
    )


def _multiclass(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def _regression(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.squeeze(1) - targets).square()


LOSSES: dict[Task, Loss] = {
    "binary": _binary,
    "multiclass": _multiclass,
    "regression": _regression,
}
"""From outputs, shape (n, outputs), and targets, shape (n,), to n losses."""


def evaluate(model: nn.Module, x: Tensor, y: Tensor, task: Task) -> dict[str, float]:
    """Return metrics of `model` on all rows.

    Returns
    -------
    dict
        `num_test`; with rows also `loss` (mean), and `accuracy`, or for a regression
        `mse` and `r2` (0 where all targets are equal). A number that is not finite is
        left out: it has no place in a signed report.
    """
    if not len(x):
        return {"num_test": 0.0}
    model.eval()
    with torch.no_grad():
        parts = [model(part) for part in torch.split(x, _CHUNK)]
    found = _scores(torch.cat(parts).double(), y, task)
    finite = {name: value for name, value in found.items() if math.isfinite(value)}
    return {"num_test": float(len(x)), **finite}


def _scores(outputs: Tensor, y: Tensor, task: Task) -> dict[str, float]:
    targets = y.double() if task == "regression" else y
    loss = float(LOSSES[task](outputs, targets).mean())
    if task == "regression":
        return {"loss": loss, "mse": loss, "r2": _r2(loss, targets)}
    chosen = outputs.squeeze(1) > 0 if task == "binary" else outputs.argmax(dim=1)
    accuracy = float((chosen == targets).double().mean())
    return {"loss": loss, "accuracy": accuracy}


def _r2(mse: float, targets: Tensor) -> float:
    """Return the coefficient of determination, 1 - mse / variance."""
    variance = float(targets.var(unbiased=False))
    return 1 - mse / variance if variance > 0 else 0.0
