from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError
from fedsecure.privacy.gradients import users as module_under_test
from fedsecure.privacy.gradients.users import UserGradients
from fedsecure.privacy.mechanism import CLIP_SHRINK
from tests.fakes.modules import Remembers, Tied, Words, cnn, mlp
from tests.fakes.oracle import by_loop, distance, each_loss, rows_of

WHOSE = np.array([2, 0, 2, 1, 0, 2, 2], dtype=np.int64)


def _model(make: Callable[[], nn.Module] = mlp) -> nn.Module:
    torch.manual_seed(1)
    return make().double()


def _rows(n: int, *shape: int) -> tuple[Tensor, Tensor]:
    x, y = rows_of(shape or (6,), n)
    return x.double(), y


def _oracle(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    clip: float,
    whose: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the sum by one loss a user, in plain torch."""
    total = torch.zeros(sum(p.numel() for p in module.parameters())).double()
    for user in np.unique(whose):
        mine = torch.from_numpy(whose == user)
        module.zero_grad()
        each_loss(module(x[mine]), y[mine]).sum().backward()  # type: ignore[no-untyped-call]
        flat = torch.cat(
            [p.grad.flatten() for p in module.parameters() if p.grad is not None]
        )
        total += flat * min(1.0, clip * CLIP_SHRINK / float(flat.norm()))
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = total.numpy()
    return found


@pytest.mark.parametrize("clip", [1e-2, 1.0, 1e4])
@pytest.mark.parametrize(
    ("make", "shape"), [(mlp, (6,)), (cnn, (2, 6, 6)), (Tied, (6,))]
)
def test_a_users_rows_are_added_before_they_are_clipped(
    make: Callable[[], nn.Module], shape: tuple[int, ...], clip: float
) -> None:
    module, (x, y) = _model(make), _rows(7, *shape)
    found = UserGradients(module, each_loss, clip).sum(x, y, WHOSE)
    assert distance(found, _oracle(module, x, y, clip, WHOSE)) <= 1e-10


def test_one_row_a_user_is_the_sum_over_examples() -> None:
    module, (x, y) = _model(), _rows(7)
    found = UserGradients(module, each_loss, 0.5).sum(x, y, np.arange(7))
    assert distance(found, by_loop(module, x, y, 0.5)) <= 1e-10


@settings(max_examples=25, deadline=None)
@given(
    whose=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    gone=st.integers(0, 3),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    clip=st.sampled_from([0.1, 1.0]),
)
def test_a_user_and_all_its_rows_move_the_sum_by_one_clip_norm_at_most(
    whose: list[int], gone: int, scale: float, clip: float
) -> None:
    numbers = np.array(whose, dtype=np.int64)
    module, (x, y) = _model(), _rows(len(whose))
    gradients = UserGradients(module, each_loss, clip)
    kept = numbers != gone
    rest = torch.from_numpy(kept)
    whole = gradients.sum(scale * x, y, numbers)
    without = gradients.sum(scale * x[rest], y[rest], numbers[kept])
    assert np.linalg.norm(whole - without) <= clip * CLIP_SHRINK * (1 + 1e-9)


def test_clipped_by_row_a_user_of_many_rows_would_move_it_further() -> None:
    # Why rows are added first: the same rows, each a unit, are worth many clip norms.
    module, (x, y) = _model(), _rows(1)
    x, y = x.expand(30, -1), y.expand(30)
    gradients = UserGradients(module, each_loss, 0.1)
    by_row = np.linalg.norm(gradients.sum(x, y, np.arange(30)))
    by_user = np.linalg.norm(gradients.sum(x, y, np.zeros(30, dtype=np.int64)))
    assert by_row > 25 * by_user > 0


def test_no_users_give_the_zero_vector() -> None:
    module, (x, y) = _model(), _rows(1)
    found = UserGradients(module, each_loss, 1.0).sum(x[:0], y[:0], WHOSE[:0])
    assert not found.any()


def test_passes_of_a_user_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    module, (x, y) = _model(), _rows(7)
    gradients = UserGradients(module, each_loss, 0.3)
    whole = gradients.sum(x, y, WHOSE)
    monkeypatch.setattr(module_under_test, "_ROWS", 3)
    assert distance(gradients.sum(x, y, WHOSE), whole) <= 1e-12


def test_a_user_with_a_row_that_is_not_finite_counts_as_nothing() -> None:
    module, (x, y) = _model(), _rows(7)
    gradients = UserGradients(module, each_loss, 1.0)
    rest = torch.from_numpy(WHOSE != 2)
    expected = gradients.sum(x[rest], y[rest], WHOSE[WHOSE != 2])
    x[0, 0] = float("nan")
    assert distance(gradients.sum(x, y, WHOSE), expected) <= 1e-12


def test_layers_used_twice_are_summed_as_they_are() -> None:
    torch.manual_seed(1)
    words, tokens = Words().double(), torch.randint(0, 11, (4, 5))
    y, whose = torch.tensor([0, 1, 2, 0]), np.array([0, 0, 1, 1])
    found = UserGradients(words, each_loss, 1.0).sum(tokens, y, whose)
    assert distance(found, _oracle(words, tokens, y, 1.0, whose)) <= 1e-10


def test_a_weight_no_row_touches_has_no_gradient() -> None:
    module, (x, y) = _model(), _rows(2)
    module.register_parameter("spare", nn.Parameter(torch.ones(3).double()))
    found = UserGradients(module, each_loss, 1.0).sum(x, y, np.zeros(2, dtype=np.int64))
    assert found[:3].tolist() == [0.0, 0.0, 0.0]
    assert found[3:].any()


def test_a_buffer_that_learns_is_refused() -> None:
    x, y = rows_of((6,), 2)
    with pytest.raises(ConfigurationError, match="changed in a private step"):
        UserGradients(Remembers(), each_loss, 1.0).sum(x, y, np.arange(2))


def test_batch_norm_is_refused_by_name() -> None:
    module = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    with pytest.raises(ConfigurationError, match=r"layer '1' \(BatchNorm1d\)"):
        UserGradients(module, each_loss, 1.0)


def test_a_loss_of_one_number_for_all_rows_is_refused() -> None:
    x, y = rows_of((6,), 3)
    gradients = UserGradients(mlp(), lambda out, to: each_loss(out, to).mean(), 1.0)
    with pytest.raises(ConfigurationError, match="one loss per example"):
        gradients.sum(x, y, np.zeros(3, dtype=np.int64))


def test_users_of_another_number_of_rows_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"must be \(3,\)"):
        UserGradients(mlp(), each_loss, 1.0).sum(*rows_of((6,), 3), np.arange(2))
