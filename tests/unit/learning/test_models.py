import numpy as np
import pytest
import torch
from torch import nn

from fedsecure.errors import ConfigurationError, PolicyRefused
from fedsecure.learning.models import build
from fedsecure.privacy.engine import check_module
from fedsecure.trainer import JSON

USER = "tests.fakes.userfunctions"
BUILT_IN = ("logistic", "mlp", "cnn")


def _build(name: str, seed: int = 7, **options: JSON) -> nn.Module:
    return build({"name": name, **options}, (64,), 10, seed)


def _own(name: str) -> nn.Module:
    settings: dict[str, JSON] = {"name": "object", "object": name}
    return build(settings, (3,), 2, 7, objects=[name])


def _values(model: nn.Module) -> bytes:
    parts = [p.detach().numpy().ravel() for p in model.parameters()]
    return np.concatenate(parts).tobytes()


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    first = _values(_build(name))
    torch.rand(5)  # whatever else drew from torch's generator
    assert first == _values(_build(name))


@pytest.mark.parametrize("name", BUILT_IN)
def test_another_seed_gives_other_weights(name: str) -> None:
    assert _values(_build(name, seed=1)) != _values(_build(name, seed=2))


@pytest.mark.parametrize("name", BUILT_IN)
def test_building_leaves_torchs_generator_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    _build(name)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_row_gives_one_number_per_output(name: str) -> None:
    assert _build(name)(torch.zeros(5, 64)).shape == (5, 10)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_models_can_be_trained_privately(name: str) -> None:
    model = _build(name)
    check_module(model)
    assert not list(model.buffers())


@pytest.mark.parametrize("shape", [(64,), (8, 8), (1, 8, 8), (28, 28), (3, 32, 32)])
def test_a_cnn_takes_flat_grey_and_coloured_pictures(shape: tuple[int, ...]) -> None:
    model = build({"name": "cnn"}, shape, 10, 7)
    assert model(torch.zeros(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("shape", [(30,), (9,), (2, 8), (1, 1, 8, 8)])
def test_a_cnn_refuses_rows_that_are_no_pictures(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="use mlp or logistic"):
        build({"name": "cnn"}, shape, 10, 7)


def test_hidden_gives_the_widths_of_an_mlp() -> None:
    model = _build("mlp", hidden=[5, 3])
    widths = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]
    assert widths == [5, 3, 10]


def test_logistic_is_one_layer() -> None:
    shapes = [tuple(p.shape) for p in _build("logistic").parameters()]
    assert shapes == [(10, 64), (10,)]


@pytest.mark.parametrize("hidden", [[0], [2.5], ["64"], [True], [10**9]])
def test_hidden_widths_out_of_bounds_are_refused(hidden: list[JSON]) -> None:
    with pytest.raises(ConfigurationError, match="hidden holds"):
        _build("mlp", hidden=hidden)


def test_hidden_must_be_a_list() -> None:
    with pytest.raises(ConfigurationError, match="must be a list"):
        _build("mlp", hidden=64)


def test_an_unknown_model_names_the_known() -> None:
    with pytest.raises(ConfigurationError, match="one of: logistic, mlp, cnn, object"):
        _build("transformer")


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="widths"):
        _build("mlp", widths=[3])


def test_a_users_model_is_built_with_the_seed() -> None:
    first = _values(_own(f"{USER}:dropout_model"))
    assert first == _values(_own(f"{USER}:dropout_model"))


def test_a_plan_cannot_name_a_function_the_site_did_not_list() -> None:
    settings: dict[str, JSON] = {"name": "object", "object": "os:getcwd"}
    with pytest.raises(PolicyRefused, match=r"'os:getcwd' is not among .* \(a.b:c\)"):
        build(settings, (3,), 2, 7, objects=["a.b:c"])


def test_a_users_model_with_running_statistics_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="use GroupNorm or LayerNorm"):
        _own(f"{USER}:batch_norm_model")


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="returned int"):
        _own(f"{USER}:no_model")


def test_a_users_function_that_raises_is_named() -> None:
    with pytest.raises(ConfigurationError, match="raises raised OSError: the disk"):
        _own(f"{USER}:raises")
