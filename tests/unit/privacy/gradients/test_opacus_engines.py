"""Opacus' engines against autograd, an example at a time."""

import math

import pytest
import torch
from opacus.layers import DPGRU, DPLSTM, DPRNN
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients.opacus_engines import Ghost, Hooks
from fedsecure.update import Vector
from tests.fakes.modules import Folds, Unused, mlp
from tests.fakes.oracle import by_loop, distance, each_loss, rows_of

Kind = type[Hooks] | type[Ghost]
BOTH = pytest.mark.parametrize("kind", [Hooks, Ghost])


def _found(kind: Kind, module: nn.Module, x: Tensor, y: Tensor) -> Vector:
    size = sum(p.numel() for p in module.parameters() if p.requires_grad)
    total = torch.zeros(size, dtype=torch.float64)
    engine = kind(module, each_loss, 0.5)
    try:
        engine.add(x, y, total)
    finally:
        engine.close()
    found: Vector = total.numpy()
    return found


class Recurrent(nn.Module):
    """A recurrent layer of Opacus' own and a head."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.memory = kind(3, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.memory(x)[0][:, -1])
        return out


@BOTH
@pytest.mark.parametrize("layer", [DPLSTM, DPGRU, DPRNN])
def test_recurrent_layers_give_the_oracles_sum(
    layer: type[nn.Module], kind: Kind
) -> None:
    torch.manual_seed(1)
    module = Recurrent(layer)
    x, y = rows_of((5, 3), 6)
    expected = by_loop(module, x, y, 0.5)
    assert distance(_found(kind, module, x, y), expected) <= 1e-5


@BOTH
@pytest.mark.parametrize("shape", [(6,), (4, 6)], ids=["vectors", "sequences"])
def test_models_of_many_layers_give_the_oracles_sum(
    shape: tuple[int, ...], kind: Kind
) -> None:
    torch.manual_seed(1)
    module = mlp()
    x, y = rows_of(shape, 6)
    expected = by_loop(module, x, y, 0.5)
    assert distance(_found(kind, module, x, y), expected) <= 1e-5


def test_ghost_clips_what_remains_with_its_own_dropout() -> None:
    # Norms of another pass than the sum's would let an example through unclipped.
    module = nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5), nn.Linear(50, 3))
    x, y = rows_of((6,), 2)
    x[1] = math.nan
    for _ in range(5):
        total = torch.zeros(503).double()
        engine = Ghost(module, lambda out, _: out.sum(1), 0.5)
        engine.add(x, y, total)
        engine.close()
        assert float(total.norm()) == pytest.approx(0.5 * (1 - 2**-10), rel=1e-4)


@BOTH
def test_weight_without_a_gradient_is_refused_by_name(kind: Kind) -> None:
    with pytest.raises(ConfigurationError, match=r"'spare\.weight' has no gradient"):
        _found(kind, Unused(), *rows_of((6,), 4))


@BOTH
def test_examples_outside_the_first_dimension_are_refused(kind: Kind) -> None:
    with pytest.raises(ConfigurationError, match="examples in the first dimension"):
        _found(kind, Folds(), *rows_of((6,), 4))
