import pytest
import torch
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients.functorch import Functorch
from tests.fakes.oracle import by_loop, distance, each_loss, rows_of


def test_layer_that_no_other_engine_knows_gives_the_oracles_sum() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(6, 4), nn.PReLU(4), nn.Linear(4, 3)).double()
    module[0].bias.requires_grad_(False)
    x, y = rows_of((6,), 7)
    total = torch.zeros(24 + 4 + 12 + 3).double()
    Functorch(module, each_loss, 0.5).add(x.double(), y, total)
    assert distance(total.numpy(), by_loop(module, x.double(), y, 0.5)) <= 1e-10


def test_model_that_asks_for_values_is_refused() -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(x) * float(x.sum())
            return out

    engine = Functorch(Asks(), each_loss, 1.0)
    with pytest.raises(ConfigurationError, match=r"under torch\.func\.vmap"):
        engine.add(*rows_of((6,), 3), torch.zeros(21).double())
