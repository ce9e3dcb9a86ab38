"""The audit's own forward pass is torch's, and its runs learn."""

import numpy as np
import torch
from torch import nn

from fedsecure.audit.victim import accuracy, dealt, digits, losses, unprotected_run
from fedsecure.update import JSON, Layout, flatten

SETTINGS: dict[str, JSON] = {
    "model": {"name": "logistic"},
    "train": {"learning_rate": 0.5},
    "privacy": {"mode": "none"},
    "seed": 7,
}


def test_losses_are_those_of_torch() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    named = {n: p.detach().numpy() for n, p in model.named_parameters()}
    x, y = torch.randn(20, 5).double(), torch.randint(0, 3, (20,))
    theirs = nn.functional.cross_entropy(model(x), y, reduction="none")
    ours = losses(Layout.of(named), flatten(named), x.numpy(), y.numpy())
    assert np.allclose(ours, theirs.detach().numpy(), atol=1e-12)


def test_rows_are_dealt_once_each() -> None:
    rows = digits()
    parts = dealt(rows, np.arange(103), 5)
    assert sum(len(part.train_x) for part in parts) == 103
    assert np.array_equal(parts[2].train_x[1], rows.train_x[7])


def test_plain_averaging_learns_the_digits() -> None:
    parts = dealt(digits(), np.arange(600), 2)
    layout, model = unprotected_run(parts, SETTINGS, 5)
    assert accuracy(parts[0], layout, model) > 0.8
