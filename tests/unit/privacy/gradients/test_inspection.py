"""Which engine takes which module, and how each refusal reads."""

import pytest
from opacus.layers import DPLSTM
from torch import nn

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients.inspection import Engine, check_module
from tests.fakes.modules import Tied, Transformer, cnn, low_rank, mlp

ENGINES = [e for e in Engine if e is not Engine.AUTO]


def _two(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), layer)


@pytest.mark.parametrize("module", [mlp(), cnn(), Transformer(), low_rank()])
def test_auto_takes_bookkeeping_where_it_can(module: nn.Module) -> None:
    assert check_module(module) is Engine.BOOKKEEPING


def test_auto_takes_ghost_for_a_layer_that_only_opacus_knows() -> None:
    assert check_module(_two(DPLSTM(3, 3, batch_first=True))) is Engine.GHOST


def test_auto_takes_hooks_for_shared_weights() -> None:
    assert check_module(Tied()) is Engine.HOOKS


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_asked_for_is_the_engine(engine: Engine) -> None:
    assert check_module(mlp(), engine) is engine


@pytest.mark.parametrize("engine", [Engine.BOOKKEEPING, Engine.GHOST])
def test_shared_weights_are_refused_by_name(engine: Engine) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'first\.weight' and 'second\.weight' are one"
    ):
        check_module(Tied(), engine)


def test_frozen_shared_weights_are_no_matter() -> None:
    module = Tied()
    module.first.weight.requires_grad_(False)
    assert check_module(module) is Engine.BOOKKEEPING


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.BatchNorm1d(3), "BatchNorm1d.*use GroupNorm or LayerNorm"),
        (nn.BatchNorm1d(3, affine=False), "BatchNorm1d.*mix or remember"),
        (nn.BatchNorm2d(3, track_running_stats=False), "BatchNorm2d.*mix"),
        (nn.InstanceNorm1d(3, track_running_stats=True), "InstanceNorm1d.*remember"),
        (nn.Embedding(4, 2, max_norm=1.0), "Embedding.*max_norm"),
        (nn.Embedding(4, 2, scale_grad_by_freq=True), "Embedding.*whole batch"),
        (nn.Embedding(4, 2, sparse=True), "Embedding.*whole batch"),
    ],
)
def test_layer_that_mixes_examples_is_refused_by_all(
    layer: nn.Module, why: str, engine: Engine
) -> None:
    with pytest.raises(ConfigurationError, match=f"'1.*{why}"):
        check_module(_two(layer), engine)


@pytest.mark.parametrize(
    "engine", [Engine.AUTO, Engine.BOOKKEEPING, Engine.GHOST, Engine.HOOKS]
)
@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.MultiheadAttention(4, 2), "scaled_dot_product_attention"),
        (nn.LSTM(3, 3), "LSTM.*use opacus.layers.DPLSTM"),
        (nn.GRU(3, 3), "GRU.*use opacus.layers.DPGRU"),
        (nn.RNN(3, 3), "RNN.*use opacus.layers.DPRNN"),
        (nn.EmbeddingBag(3, 3), "EmbeddingBag.*use nn.Embedding"),
        (nn.Bilinear(2, 2, 2), "Bilinear.*known are Linear.*engine=functorch"),
        (nn.PReLU(), "PReLU.*known are"),
        (nn.ConvTranspose2d(1, 1, 2), "ConvTranspose2d.*known are"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "known are"),
    ],
)
def test_layer_without_a_rule_is_refused_by_name_with_what_to_use(
    layer: nn.Module, why: str, engine: Engine
) -> None:
    with pytest.raises(ConfigurationError, match=f"'1.*{why}"):
        check_module(_two(layer), engine)


def test_layer_inside_a_module_is_named_with_its_path() -> None:
    module = nn.TransformerEncoderLayer(4, 2, batch_first=True)
    with pytest.raises(ConfigurationError, match=r"'self_attn' \(MultiheadAttention\)"):
        check_module(module)


def test_subclass_of_a_known_layer_is_a_stranger() -> None:
    class Own(nn.Linear):
        pass

    with pytest.raises(ConfigurationError, match=r"\(Own\).*known are"):
        check_module(Own(2, 2))


def test_layer_with_a_weight_of_its_own_is_refused() -> None:
    layer = nn.Linear(2, 2)
    layer.scale = nn.Parameter(layer.bias.detach().clone())
    with pytest.raises(ConfigurationError, match=r"scale.*not the layer's own"):
        check_module(layer)


def test_layer_with_another_forward_is_refused() -> None:
    layer = nn.Linear(2, 2)
    layer.forward = lambda input: input  # type: ignore[method-assign]  # noqa: A006
    with pytest.raises(ConfigurationError, match="forward are not the layer's own"):
        check_module(layer)


@pytest.mark.parametrize("engine", [Engine.GHOST, Engine.HOOKS])
@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.Embedding(4, 2, padding_idx=0), "padding_idx; use engine=bookkeeping"),
        (nn.Conv2d(1, 1, 3, padding_mode="circular"), "only zero padding"),
    ],
)
def test_what_opacus_does_wrong_is_not_left_to_it(
    layer: nn.Module, why: str, engine: Engine
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        check_module(layer, engine)
    assert check_module(layer) is Engine.BOOKKEEPING


def test_frozen_layers_are_not_asked_about() -> None:
    frozen = nn.Bilinear(1, 1, 1).requires_grad_(requires_grad=False)
    assert check_module(nn.Sequential(frozen, nn.Linear(6, 3))) is Engine.BOOKKEEPING


@pytest.mark.parametrize("engine", Engine)
def test_model_without_trainable_weights_is_refused(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="no trainable weight"):
        check_module(nn.ReLU(), engine)
