import math

import pytest
import torch
from torch import nn

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients.probe import probe
from tests.fakes.modules import Centres, Folds, Places, Transformer, mlp
from tests.fakes.oracle import rows_of


def test_size_is_what_passes_trainable_layers_for_one_example() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    assert probe(module, rows_of((6,), 5)[0]) == 6 + 8 + 8 + 3


def test_frozen_layers_are_not_counted() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    module[0].requires_grad_(requires_grad=False)
    assert probe(module, rows_of((6,), 5)[0]) == 8 + 3


@pytest.mark.parametrize("count", [1, 2, 9])
def test_layers_that_keep_examples_apart_pass(count: int) -> None:
    assert probe(mlp(), rows_of((6,), count)[0]) > 0


def test_examples_folded_into_positions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'head' \(Linear\).*batch of 2"):
        probe(Folds(), rows_of((6,), 5)[0])


def test_positions_shared_by_all_examples_are_refused_even_if_as_many() -> None:
    # Seven positions in a batch of seven: a shape check alone would let them pass.
    with pytest.raises(ConfigurationError, match=r"'places'.*expand what is shared"):
        probe(Places(7), rows_of((7,), 7)[0])


def test_mean_over_the_batch_by_hand_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="changes with the other examples"):
        probe(Centres(), rows_of((6,), 5)[0])


def test_dropout_is_no_mixing() -> None:
    module = nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5), nn.Linear(50, 3))
    assert probe(module.train(), rows_of((6,), 5)[0]) == 109


def test_seeds_are_given_back() -> None:
    module = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    probe(module, rows_of((6,), 5)[0])
    assert torch.equal(torch.rand(3), expected)


def test_rows_without_finite_values_are_passed_over() -> None:
    assert probe(mlp(), torch.full((3, 6), math.nan)) == 41


def test_hooks_are_gone_afterwards() -> None:
    module = Transformer()
    probe(module, torch.ones(3, 7).long())
    assert not any(m._forward_hooks for m in module.modules())
