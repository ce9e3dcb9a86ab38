"""All engines behind one door: equal sums, chunks, fallbacks, traps."""

import logging
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError, NotFinite
from fedsecure.privacy.gradients import clipped
from fedsecure.privacy.gradients.clipped import ClippedGradients
from fedsecure.privacy.gradients.inspection import Engine
from fedsecure.update import Vector
from tests.fakes.modules import (
    Borrows,
    Centres,
    Remembers,
    Tied,
    Words,
    cnn,
    low_rank,
    mlp,
)
from tests.fakes.oracle import by_vmap, distance, each_loss, rows_of

ENGINES = [e for e in Engine if e is not Engine.AUTO]


def _found(
    module: nn.Module,
    rows: tuple[Tensor, Tensor],
    engine: Engine | str = "auto",
    chunk: int | None = None,
) -> Vector:
    gradients = ClippedGradients(module, each_loss, 0.5, engine)
    gradients.chunk = chunk
    try:
        return gradients.sum(*rows)
    finally:
        gradients.close()


def _vectors(count: int = 9) -> tuple[Tensor, Tensor]:
    return rows_of((6,), count)


def _tokens(count: int = 9) -> tuple[Tensor, Tensor]:
    x, y = rows_of((7,), count)
    return (x.abs() * 4).long().clamp(max=10), y


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, Tensor]]] = {
    "mlp": (mlp, _vectors()),
    "cnn": (cnn, rows_of((2, 6, 6), 9)),
    "low rank": (low_rank, _vectors()),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MODELS)
def test_engines_agree_with_the_oracle(name: str, engine: Engine) -> None:
    make, rows = MODELS[name]
    torch.manual_seed(1)
    module = make()
    expected = by_vmap(module, *rows, 0.5)
    assert distance(_found(module, rows, engine), expected) <= 1e-5


@pytest.mark.parametrize("engine", ["auto", "hooks", "functorch"])
@pytest.mark.parametrize(("make", "rows"), [(Words, _tokens()), (Tied, _vectors())])
def test_shared_weights_and_repeated_layers_are_summed_before_the_norm(
    make: Callable[[], nn.Module], rows: tuple[Tensor, Tensor], engine: str
) -> None:
    torch.manual_seed(1)
    module = make()
    expected = by_vmap(module, *rows, 0.5)
    assert distance(_found(module, rows, engine), expected) <= 1e-5


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=25)
@given(chunk=st.integers(1, 30), count=st.integers(1, 25))
def test_chunks_do_not_change_the_sum(engine: Engine, chunk: int, count: int) -> None:
    torch.manual_seed(2)
    module = mlp().double()
    x, y = _vectors(count)
    whole = _found(module, (x.double(), y), engine, 1000)
    parts = _found(module, (x.double(), y), engine, chunk)
    assert np.allclose(whole, parts, rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_empty_sample_is_the_zero_vector(engine: Engine) -> None:
    found = _found(mlp(), _vectors(0), engine)
    assert found.shape == (99,)
    assert found.dtype == np.float64
    assert np.count_nonzero(found) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("engine", ENGINES)
def test_example_without_a_finite_gradient_counts_as_zero(
    engine: Engine, bad: float
) -> None:
    module, (x, y) = mlp(), _vectors()
    spoilt = x.clone()
    spoilt[3] = bad
    kept = [0, 1, 2, 4, 5, 6, 7, 8]
    found = _found(module, (spoilt, y), engine)
    assert np.allclose(found, _found(module, (x[kept], y[kept]), engine), atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_finite_example_is_the_zero_vector(engine: Engine) -> None:
    rows = torch.full((3, 6), math.nan), torch.zeros(3).long()
    assert np.count_nonzero(_found(mlp(), rows, engine)) == 0


@pytest.mark.parametrize("engine", ["bookkeeping", "functorch"])
def test_buffer_that_changes_is_refused(engine: str) -> None:
    with pytest.raises(ConfigurationError, match="buffer 'mean' changed"):
        _found(Remembers(), _vectors(), engine)


@pytest.mark.parametrize("engine", ["bookkeeping", "functorch"])
def test_buffer_that_changes_later_is_refused(engine: str) -> None:
    gradients = ClippedGradients(Remembers(), each_loss, 0.5, engine)
    gradients.chunk = 4  # no probe: as if the model had behaved in it
    with pytest.raises(ConfigurationError, match=r"buffer 'mean' changed|under torch"):
        gradients.sum(*_vectors())
    gradients.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_model_that_mixes_examples_by_hand_is_refused(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="changes with the other examples"):
        _found(Centres(), _vectors(), engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_batchnorm_is_refused_by_all(engine: Engine) -> None:
    module = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    with pytest.raises(ConfigurationError, match=r"BatchNorm1d.*use GroupNorm"):
        ClippedGradients(module, each_loss, 1.0, engine)


def test_weight_used_past_its_layer_is_for_functorch() -> None:
    module, rows = Borrows(), _vectors()
    with pytest.raises(ConfigurationError, match="engine=functorch"):
        _found(module, rows)
    expected = by_vmap(module, *rows, 0.5)
    assert distance(_found(module, rows, "functorch"), expected) <= 1e-6


def test_auto_takes_bookkeeping_and_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        gradients = ClippedGradients(mlp(), each_loss, 1.0)
    gradients.close()
    assert gradients.engine is Engine.BOOKKEEPING
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("make", "rows", "why"),
    [
        (Words, _tokens(), "'mix' runs twice"),
        (Tied, _vectors(), r"'first\.weight' and 'second\.weight' are one"),
    ],
)
def test_auto_says_once_why_it_takes_hooks(
    make: Callable[[], nn.Module],
    rows: tuple[Tensor, Tensor],
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        gradients = ClippedGradients(make(), each_loss, 1.0)
        gradients.sum(*rows)
        gradients.sum(*rows)
    gradients.close()
    assert gradients.engine is Engine.HOOKS
    assert len(caplog.messages) == 1
    caplog_text = caplog.messages[0]
    assert "engine=hooks" in caplog_text
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(caplog_text)


def test_bookkeeping_asked_for_does_not_fall_back() -> None:
    with pytest.raises(ConfigurationError, match="runs twice"):
        _found(Words(), _tokens(), "bookkeeping")


def test_unknown_engine_is_refused_with_the_known() -> None:
    with pytest.raises(ConfigurationError, match=r"'fast' is unknown.*bookkeeping"):
        ClippedGradients(mlp(), each_loss, 1.0, "fast")


def test_chunks_hold_what_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipped, "_MEMORY_FLOATS", 500)
    gradients = ClippedGradients(mlp(), each_loss, 1.0)
    gradients.sum(*_vectors())
    gradients.close()
    # 6 in, 8 out, 8 in, 8 out, 8 in, 3 out: 41 floats an example.
    assert gradients.chunk == 500 // 41


def test_sum_that_is_not_finite_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = ClippedGradients(mlp(), each_loss, 1.0)
    monkeypatch.setattr(
        gradients._engine, "add", lambda _x, _y, total: total.fill_(math.inf)
    )
    with pytest.raises(NotFinite, match="clipped sum of engine=bookkeeping"):
        gradients.sum(*_vectors())
    gradients.close()


def test_loss_already_reduced_is_refused() -> None:
    gradients = ClippedGradients(mlp(), nn.functional.cross_entropy, 1.0)
    with pytest.raises(ConfigurationError, match="one loss per example"):
        gradients.sum(*_vectors())
    gradients.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_closed_gradients_leave_an_ordinary_module(engine: Engine) -> None:
    module = mlp()
    _found(module, _vectors(), engine)
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    module(_vectors(2)[0]).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert not any(hasattr(p, "grad_sample") for p in module.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_agree_with_the_oracle_on_cuda(engine: Engine) -> None:
    module, (x, y) = cnn().double(), rows_of((2, 6, 6), 9)
    expected = by_vmap(module, x.double(), y, 0.5)
    found = _found(module.cuda(), (x.double().cuda(), y.cuda()), engine)
    assert distance(found, expected) <= 1e-8
