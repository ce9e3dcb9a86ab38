import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.engine import PrivateEngine, check_module
from fedsecure.privacy.gradients.users import UserGradients
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.mechanism import CLIP_SHRINK, DiscreteGaussian
from fedsecure.privacy.plan import Mode, PrivacyPlan
from tests.fakes.modules import Folds, Remembers, Tied, Unused, Words, cnn, mlp
from tests.fakes.randomness import Stream, System


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def _plan(clip_norm: float = 1.0, noise_multiplier: float = 1.0) -> PrivacyPlan:
    return PrivacyPlan(
        mode=Mode.EXAMPLE_LOCAL,
        clip_norm=clip_norm,
        noise_multiplier=noise_multiplier,
        sample_rate=0.1,
        steps_per_round=3,
        rounds=2,
        delta=1e-5,
        divisor=20.0,
    )


def _engine(
    module: nn.Module, plan: PrivacyPlan | None = None, rate: float = 0.5
) -> PrivateEngine:
    plan = plan or _plan()
    return PrivateEngine(module, plan, _loss, Stream("engine"), learning_rate=rate)


def _weights(module: nn.Module) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    parts = [p.detach().double().numpy().ravel() for p in module.parameters()]
    return np.concatenate(parts)


def _rows(n: int, *shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, *shape, generator=generator)
    return inputs, torch.randint(0, 3, (n,), generator=generator)


def _oracle(module: nn.Module, inputs: Tensor, targets: Tensor, clip: float) -> Tensor:
    """Return the clipped sum by torch.func, shape (d,), float64."""
    weights = {n: p.detach() for n, p in module.named_parameters()}

    def one(w: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return _loss(functional_call(module, w, (x[None],)), y[None]).sum()

    each = vmap(grad(one), in_dims=(None, 0, 0))(weights, inputs, targets)
    flat = torch.cat([g.flatten(1).double() for g in each.values()], dim=1)
    bound = clip * CLIP_SHRINK
    scale = (bound / flat.norm(dim=1)).clamp(max=1.0)
    total: Tensor = scale @ flat
    return total


def _images(n: int) -> tuple[Tensor, Tensor]:
    return _rows(n, 2, 6, 6)


def _vectors(n: int) -> tuple[Tensor, Tensor]:
    return _rows(n, 6)


def _tokens(n: int) -> tuple[Tensor, Tensor]:
    inputs, targets = _rows(n, 5)
    return (inputs.abs() * 3).long().clamp(max=10), targets


MODELS = [(mlp, _vectors), (cnn, _images), (Words, _tokens), (Tied, _vectors)]
NAMES = ["mlp", "cnn", "words", "tied"]


@pytest.mark.parametrize(("make", "rows"), MODELS, ids=NAMES)
@pytest.mark.parametrize(
    ("kind", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)]
)
@pytest.mark.parametrize("clip", [1e-2, 1.0, 1e4])
def test_clipped_sum_is_the_oracles(
    make: Callable[[], nn.Module],
    rows: Callable[[int], tuple[Tensor, Tensor]],
    kind: torch.dtype,
    bound: float,
    clip: float,
) -> None:
    torch.manual_seed(1)
    module = make().to(kind)
    inputs, targets = rows(12)
    inputs = inputs.to(kind) if inputs.is_floating_point() else inputs
    expected = _oracle(module, inputs, targets, clip).numpy()
    with _engine(module, _plan(clip)) as engine:
        found = engine._gradients.sum(inputs, targets)
    difference = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert difference <= bound


def test_chunks_do_not_change_the_sum() -> None:
    module = cnn()
    inputs, targets = _images(13)
    with _engine(module) as engine:
        whole = engine._gradients.sum(inputs, targets)
        engine._gradients.chunk = 4
        parts = engine._gradients.sum(inputs, targets)
    assert np.allclose(whole, parts, rtol=0, atol=1e-6)


def test_empty_sample_still_emits_noise() -> None:
    module = mlp()
    before = _weights(module)
    inputs, targets = _vectors(0)
    with _engine(module) as engine:
        engine.step(inputs, targets)
    assert np.count_nonzero(_weights(module) - before) == before.size


@pytest.mark.parametrize("rows", [0, 50])
def test_noise_of_a_step_is_z_c_over_the_public_divisor(rows: int) -> None:
    # Constant inputs of zero and a loss of zero slope: the sum is 0, all else noise.
    module = nn.Linear(100, 200).double()
    before = _weights(module)
    plan, rate = _plan(clip_norm=0.7, noise_multiplier=2.0), 0.5
    flat: Callable[[Tensor, Tensor], Tensor] = lambda out, _: out.sum(1) * 0.0  # noqa: E731
    engine = PrivateEngine(module, plan, flat, System(), learning_rate=rate)
    with engine:
        engine.step(torch.zeros(rows, 100).double(), torch.zeros(rows))
    moved = (_weights(module) - before) * plan.divisor / rate
    # 20,200 draws: deviation of the estimate 0.5%, four of them; rounding adds 2%.
    assert moved.std() == pytest.approx(1.01 * 1.4, rel=0.03)
    assert moved.std() > 1.4 * 0.98
    assert abs(moved.mean()) < 4 * 1.43 / math.sqrt(moved.size)


def test_two_steps_have_unrelated_noise() -> None:
    module = nn.Linear(100, 100).double()
    start = _weights(module)
    with _engine(module) as engine:
        inputs, targets = torch.zeros(0, 100).double(), torch.zeros(0).long()
        engine.step(inputs, targets)
        middle = _weights(module)
        engine.step(inputs, targets)
    first, second = middle - start, _weights(module) - middle
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(first.size)


def test_step_goes_down_the_clipped_sum_over_the_divisor() -> None:
    torch.manual_seed(2)
    module = mlp().double()
    inputs, targets = _vectors(40)
    inputs = inputs.double()
    plan = _plan(clip_norm=1.0, noise_multiplier=0.1)
    before, expected = _weights(module), _oracle(module, inputs, targets, 1.0).numpy()
    with _engine(module, plan, rate=0.5) as engine:
        engine.step(inputs, targets)
    moved = (before - _weights(module)) * plan.divisor / 0.5
    noise = 0.1 * 1.03 * math.sqrt(moved.size)
    assert np.linalg.norm(moved - expected) < 1.5 * noise < np.linalg.norm(expected)


def test_divisor_does_not_follow_the_number_of_rows() -> None:
    module = nn.Linear(6, 3)
    inputs, targets = _vectors(1)
    with _engine(module) as engine:
        one = engine._gradients.sum(inputs, targets)
        two = engine._gradients.sum(inputs.repeat(2, 1), targets.repeat(2))
    assert np.allclose(two, 2 * one, rtol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_example_without_a_finite_gradient_counts_as_zero(bad: float) -> None:
    module = mlp()
    inputs, targets = _vectors(5)
    spoilt = inputs.clone()
    spoilt[2] = bad
    kept = [0, 1, 3, 4]
    with _engine(module) as engine:
        found = engine._gradients.sum(spoilt, targets)
        expected = engine._gradients.sum(inputs[kept], targets[kept])
    assert np.allclose(found, expected, atol=1e-6)


def test_one_example_moves_the_sum_by_less_than_the_clip_norm() -> None:
    module = mlp()
    inputs, targets = _vectors(10)
    with _engine(module, _plan(clip_norm=0.5)) as engine:
        engine._gradients.chunk = 3
        whole = engine._gradients.sum(inputs * 100, targets)
        without = engine._gradients.sum(inputs[1:] * 100, targets[1:])
    assert 0.4 < np.linalg.norm(whole - without) <= 0.5


def test_round_takes_the_plans_steps_whatever_the_samples() -> None:
    module = mlp()
    inputs, targets = _vectors(1)
    with _engine(module) as engine:
        assert engine.train_round(inputs, targets) == 3


def test_training_learns() -> None:
    torch.manual_seed(3)
    module = nn.Linear(6, 3)
    inputs, _ = _vectors(600)
    targets = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
    with _engine(module, _plan(noise_multiplier=0.5), rate=1.0) as engine:
        for _ in range(20):
            engine.train_round(inputs, targets)
    right = (module(inputs).argmax(1) == targets).double().mean()
    assert right > 0.7


def test_frozen_weights_stay_and_their_layers_are_not_asked_about() -> None:
    module = nn.Sequential(nn.Bilinear(1, 1, 1), nn.Linear(6, 3))
    body: nn.Module = module[0]
    body.requires_grad_(requires_grad=False)
    check_module(module)


def test_closed_engine_leaves_an_ordinary_module() -> None:
    module = mlp()
    with _engine(module):
        pass
    module(_vectors(2)[0]).sum().backward()
    assert not any(hasattr(p, "grad_sample") for p in module.parameters())


def test_second_engine_on_the_same_module_works() -> None:
    module = mlp()
    for _ in range(2):
        with _engine(module) as engine:
            engine.step(*_vectors(4))


def test_step_warns_of_nothing() -> None:
    module = Words()
    with warnings.catch_warnings(), _engine(module) as engine:
        warnings.simplefilter("error")
        engine.step(*_tokens(4))


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.BatchNorm1d(3), "BatchNorm1d.*mix or remember"),
        (nn.BatchNorm1d(3, affine=False), "BatchNorm1d.*mix or remember"),
        (nn.BatchNorm2d(3, track_running_stats=False), "BatchNorm2d.*mix"),
        (nn.InstanceNorm1d(3, track_running_stats=True), "InstanceNorm1d.*remember"),
        (nn.LSTM(3, 3), "LSTM.*use opacus.layers.DPLSTM"),
        (nn.Bilinear(2, 2, 2), "Bilinear.*known are"),
        (nn.Embedding(4, 2, max_norm=1.0), "Embedding.*max_norm"),
        (nn.Embedding(4, 2, scale_grad_by_freq=True), "Embedding.*whole batch"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "known are"),
    ],
)
def test_layer_it_cannot_step_is_refused_by_name(layer: nn.Module, why: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'1.*{why}"):
        check_module(nn.Sequential(nn.Linear(3, 3), layer))


def test_model_without_trainable_weights_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no trainable weight"):
        check_module(nn.ReLU())


def test_mode_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mode none does not train privately"):
        _engine(mlp(), PrivacyPlan(Mode.NONE))


def test_buffer_that_learns_is_refused() -> None:
    with (
        _engine(Remembers()) as engine,
        pytest.raises(ConfigurationError, match="buffer 'mean' changed"),
    ):
        engine.step(*_vectors(4))


def test_weight_without_a_gradient_is_refused_by_name() -> None:
    with (
        _engine(Unused()) as engine,
        pytest.raises(ConfigurationError, match=r"weight 'spare\.weight' has no"),
    ):
        engine.step(*_vectors(4))


def test_examples_outside_the_first_dimension_are_refused() -> None:
    with (
        _engine(Folds()) as engine,
        pytest.raises(ConfigurationError, match="examples in the first dimension"),
    ):
        engine.step(*_vectors(4))


def test_loss_that_is_already_reduced_is_refused() -> None:
    engine = PrivateEngine(
        mlp(), _plan(), nn.functional.cross_entropy, System(), learning_rate=0.1
    )
    with engine, pytest.raises(ConfigurationError, match="one loss per example"):
        engine.step(*_vectors(4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_step_on_cuda_moves_the_weights_there() -> None:
    module = cnn().cuda()
    inputs, targets = _images(8)
    expected = _oracle(module.cpu(), inputs, targets, 1.0).numpy()
    module.cuda()
    with _engine(module) as engine:
        found = engine._gradients.sum(inputs.cuda(), targets.cuda())
        engine.step(inputs.cuda(), targets.cuda())
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)


# --- users as units -------------------------------------------------------------------

USERS = np.array([0, 1, 2, 2, 2, 3, 3, 0], dtype=np.int64)


def _shared(**changes: float) -> PrivacyPlan:
    plan = PrivacyPlan(
        mode=Mode.USER_DISTRIBUTED,
        clip_norm=0.3,
        noise_multiplier=1.0,
        sample_rate=1.0,
        steps_per_round=1,
        rounds=2,
        delta=1e-5,
        divisor=20.0,
        min_contributors=5,
        max_colluders=1,
    )
    return replace(plan, **changes)  # type: ignore[arg-type]


def _grid(plan: PrivacyPlan) -> Lattice:
    return Lattice.of(plan, 99, 48, 5)


def test_users_share_of_a_step_is_their_clipped_sum_and_noise() -> None:
    module, (x, y), plan = mlp(), _vectors(8), _shared()
    grid = _grid(plan)
    with _engine(module, plan) as engine:
        given, clamped = engine.contribute(x, y, grid, USERS)
    noise = DiscreteGaussian(grid.share_sigma).draw(99, Stream("engine"))
    expected = UserGradients(module, _loss, 0.3).sum(x, y, USERS)
    assert np.array_equal(given - noise, np.rint(expected * grid.steps).astype(int))
    assert clamped == 0


def test_a_user_more_moves_the_integers_by_the_sensitivity_at_most() -> None:
    module, (x, y), plan = mlp(), _vectors(8), _shared()
    grid, made = _grid(plan), []
    for kept in (np.arange(8), np.flatnonzero(USERS != 3)):
        with _engine(module, plan) as engine:  # the stream's noise is the same
            made.append(engine.contribute(x[kept], y[kept], grid, USERS[kept])[0])
    moved = np.linalg.norm((made[0] - made[1]).astype(float))
    assert 0.5 * grid.steps * plan.clip_norm < moved <= grid.sensitivity


def test_users_are_sampled_with_all_their_rows() -> None:
    module, (x, y) = mlp(), _vectors(8)
    plan = _shared(sample_rate=0.5)
    with _engine(module, plan) as engine:
        seen = [engine._sample_users(x, y, USERS)[2].tolist() for _ in range(40)]
    whole = USERS.tolist()
    assert all(u.count(i) in {0, whole.count(i)} for u in seen for i in range(4))
    assert {i for u in seen for i in u} == {0, 1, 2, 3}
    assert any(len(set(u)) < 4 for u in seen)


def test_rows_that_tell_no_users_apart_are_refused() -> None:
    plan = _shared()
    with (
        _engine(mlp(), plan) as engine,
        pytest.raises(ConfigurationError, match=r"set data\.user_column"),
    ):
        engine.contribute(*_vectors(8), _grid(plan))


def test_an_engine_asked_for_where_users_are_summed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="engine=hooks does nothing"):
        PrivateEngine(
            mlp(), _shared(), _loss, System(), learning_rate=1.0, engine="hooks"
        )


@pytest.mark.parametrize("mode", [Mode.EXAMPLE_LOCAL, Mode.EXAMPLE_DISTRIBUTED])
def test_gradients_are_made_of_whole_products_and_the_callers_choice_comes_back(
    mode: Mode,
) -> None:
    seen: list[bool] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(torch.backends.cudnn.allow_tf32)
        return _loss(outputs, targets)

    module, (inputs, targets) = mlp(), _vectors(40)
    shared = mode is Mode.EXAMPLE_DISTRIBUTED
    plan = replace(
        _plan(),
        mode=mode,
        sample_rate=1.0,
        steps_per_round=1,
        min_contributors=2 if shared else 0,
        max_colluders=1 if shared else 0,
    )
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        engine = PrivateEngine(module, plan, loss, Stream("tf32"), learning_rate=0.1)
        with engine:
            if shared:
                size = sum(p.numel() for p in module.parameters())
                engine.contribute(inputs, targets, Lattice.of(plan, size, 48, 2))
            else:
                engine.train_round(inputs, targets)
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before
    assert seen
    assert not any(seen)
