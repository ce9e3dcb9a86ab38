"""One local pass over a site's rows, private or not, and the centralised baseline."""

import os
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError, FedsecureError, TrainingFailed
from fedsecure.learning.evaluation import LOSSES, evaluate
from fedsecure.learning.models import build
from fedsecure.learning.sitedata import SiteData
from fedsecure.privacy.engine import PrivateEngine
from fedsecure.privacy.mechanism import RandomSource
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.trainer import JSON, TrainingResult, TrainingTask
from fedsecure.update import Layout, ModelUpdate, RoundId, Vector, flatten

__all__ = ["LocalTrainer", "SystemRandom", "central_training"]

# Seeds, thread count and deterministic algorithms are torch's own globals.
_TORCH = threading.RLock()


class SystemRandom:
    """The operating system's generator as a `RandomSource`."""

    def bytes(self, n: int) -> bytes:
        """Return `n` fresh bytes."""
        return os.urandom(n)


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The plan's `train` section.

    Attributes
    ----------
    epochs : int
        Passes over the site's rows in one round; nothing in a private round, whose
        steps the privacy plan counts.
    batch_size : int
        Rows of a step; likewise.
    learning_rate, momentum : float
        Of SGD, which starts anew each round.
    device : str
        Where a site that says "auto" trains.
    """

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.5
    momentum: float = 0.0
    device: str = "auto"

    @classmethod
    def read(cls, section: JSON) -> "TrainSettings":
        """Return the checked section.

        Raises
        ------
        ConfigurationError
            Unknown key, or a value out of bounds.
        """
        if not isinstance(section, Mapping):
            raise ConfigurationError("plan section train is not a mapping")
        unknown = sorted(set(section) - set(cls.__slots__))
        if unknown:
            raise ConfigurationError(f"train: unknown options {unknown}")
        device = section.get("device", "auto")
        return cls(
            int(_bounded(section, "epochs", cls(), (1, 10_000), whole=True)),
            int(_bounded(section, "batch_size", cls(), (1, 10**9), whole=True)),
            _bounded(section, "learning_rate", cls(), (1e-12, 1e6)),
            _bounded(section, "momentum", cls(), (0.0, 0.9999)),
            str(device),
        )


class LocalTrainer:
    """Built-in training code as a `Trainer`: holds one site's rows and no key.

    Without privacy, equal settings, round, site and rows give equal bits on the same
    kind of machine: shuffling is seeded by them, one thread adds in one order, and
    torch may use deterministic algorithms only. Private rounds draw their samples and
    noise from `source`, by default the operating system, and never repeat.

    Parameters
    ----------
    data : SiteData
    device : str
        `auto` (what the plan says, else CUDA if there is one), `cpu`, `cuda`,
        `cuda:1`; any other word than `auto` wins over the plan.
    index : int
        The site's place in the cohort; part of the shuffling seed.
    objects : collection of str
        Functions that a plan may name as a model: ``package.module:function``.
    threads : int
        Of torch on the CPU. More are faster and may change the last bits.
    source : RandomSource, optional
        Of private rounds; another one than the system's makes epsilon void.
    """

    def __init__(  # noqa: PLR0913  the site's rows and what its owner decides
        self,
        data: SiteData,
        *,
        device: str = "auto",
        index: int = 0,
        objects: Collection[str] = (),
        threads: int = 1,
        source: RandomSource | None = None,
    ) -> None:
        self._data, self._device, self._index = data, device, index
        self._objects, self._threads = frozenset(objects), threads
        self._source = source or SystemRandom()
        self._tensors: dict[torch.device, tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def initial(self, settings: Mapping[str, JSON]) -> tuple[Layout, Vector]:
        """Return the public first model; no row has a part in it.

        Raises
        ------
        ConfigurationError
            The model does not exist or does not fit the rows.
        """
        with _TORCH:
            return _flat(self._build(settings))

    def rows(self) -> int:
        """Return the number of training rows; it stays at the site."""
        return len(self._data.train_x)

    def run(self, task: TrainingTask) -> TrainingResult:
        """Evaluate the task's model on the test rows, then train it if asked.

        Raises
        ------
        ConfigurationError
            The settings or the layout do not fit; PolicyRefused, NotFinite likewise.
        TrainingFailed
            The model's own code or torch raised.
        """
        with _TORCH:
            try:
                return self._run(task)
            except FedsecureError:
                raise
            except Exception as bad:
                # The edge to the user's model and to the device.
                raise TrainingFailed(
                    f"round {task.round.number}: {type(bad).__name__}: {bad}"
                ) from bad

    def _run(self, task: TrainingTask) -> TrainingResult:
        train = TrainSettings.read(task.settings.get("train", {}))
        device = _device(self._device, train.device)
        seeds = (_seed(task.settings), task.round.number, self._index)
        with _reproducible(device, self._threads, seeds):
            model = self._build(task.settings)
            _set_weights(model, task.layout, task.model)
            model.to(device)
            train_x, train_y, test_x, test_y = self._on(device)
            metrics = evaluate(model, test_x, test_y, self._data.task)
            if not task.train:
                return TrainingResult(None, metrics, 0)
            before = _buffers(model)
            steps = self._train(model, train_x, train_y, task, train)
            _check_buffers(model, before)
            layout, after = _flat(model)
        return TrainingResult(
            ModelUpdate(layout, after - task.model, self.rows()), metrics, steps
        )

    def _train(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        task: TrainingTask,
        t: TrainSettings,
    ) -> int:
        """Train in place; return the noisy steps taken."""
        privacy = task.settings.get("privacy", {})
        if not isinstance(privacy, Mapping):
            raise ConfigurationError("plan section privacy is not a mapping")
        loss = LOSSES[self._data.task]
        if privacy.get("mode", Mode.NONE) == Mode.NONE:
            order = np.random.default_rng(
                [_seed(task.settings), task.round.number, self._index]
            )
            _plain(model, x, y, self._data, t, order)
            return 0
        plan = PrivacyPlan.from_document(privacy)
        with PrivateEngine(
            model,
            plan,
            loss,
            self._source,
            learning_rate=t.learning_rate,
            momentum=t.momentum,
        ) as engine:
            return engine.train_round(x, y)

    def _build(self, settings: Mapping[str, JSON]) -> nn.Module:
        section = settings.get("model", {})
        if not isinstance(section, Mapping):
            raise ConfigurationError("plan section model is not a mapping")
        shape, outputs = self._data.input_shape, self._data.outputs
        return build(section, shape, outputs, _seed(settings), self._objects)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return train x, y and test x, y on `device`, moved there once."""
        if device not in self._tensors:
            data = self._data
            moved = [
                torch.from_numpy(np.ascontiguousarray(part)).to(device)
                for part in (data.train_x, data.train_y, data.test_x, data.test_y)
            ]
            self._tensors[device] = (moved[0], moved[1], moved[2], moved[3])
        return self._tensors[device]


def central_training(
    data: SiteData,
    settings: Mapping[str, JSON],
    rounds: int,
    *,
    device: str = "auto",
    objects: Collection[str] = (),
) -> tuple[Mapping[str, float], ...]:
    """Train the same model on pooled rows: what giving up all privacy would buy.

    Each round is as many passes over all rows as a site takes over its own; the first
    model is the federation's. Always without noise.

    Parameters
    ----------
    data : SiteData
        See `datasets.load_pooled`.
    settings : mapping
        The plan's; its `privacy` section is left out.

    Returns
    -------
    tuple of mapping
        Metrics on the pooled test rows before the first round and after each; length
        rounds + 1.
    """
    plain: dict[str, JSON] = {**settings, "privacy": {"mode": str(Mode.NONE)}}
    trainer = LocalTrainer(data, device=device, objects=objects)
    layout, model = trainer.initial(plain)
    history: list[Mapping[str, float]] = []
    for number in range(1, rounds + 2):
        last = number > rounds
        task = TrainingTask(
            RoundId("central", number), layout, model, plain, train=not last
        )
        result = trainer.run(task)
        history.append(result.metrics)
        if result.update is not None:
            model = model + result.update.delta
    return tuple(history)


def _plain(  # noqa: PLR0913, PLR0917  a pass over rows, seen from inside
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    data: SiteData,
    settings: TrainSettings,
    order: np.random.Generator,
) -> None:
    """Take plain SGD steps over shuffled batches, the last of a pass may be small."""
    weights = [p for p in model.parameters() if p.requires_grad]
    sgd = torch.optim.SGD(weights, settings.learning_rate, settings.momentum)
    model.train()
    for _ in range(settings.epochs):
        shuffled = torch.from_numpy(order.permutation(len(x))).to(x.device)
        for batch in torch.split(shuffled, settings.batch_size):
            sgd.zero_grad()
            loss = LOSSES[data.task](model(x[batch]), y[batch]).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            sgd.step()


def _flat(model: nn.Module) -> tuple[Layout, Vector]:
    """Return layout and values of the trainable weights."""
    named = {
        name: p.detach().cpu().numpy()
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    return Layout.of(named), flatten(named)


def _set_weights(model: nn.Module, layout: Layout, values: Vector) -> None:
    """Write a flat vector into the trainable weights."""
    own = _flat(model)[0]
    if own != layout:
        raise ConfigurationError(
            f"the model here has {own.num_parameters} weights in {len(own.names)} "
            f"tensors, the run's has {layout.num_parameters} in {len(layout.names)}, "
            "or their names differ: the rows' shape or classes differ between sites"
        )
    start = 0
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.requires_grad):
            part = np.array(values[start : start + weight.numel()])
            weight.copy_(torch.from_numpy(part).view_as(weight))
            start += weight.numel()


def _buffers(model: nn.Module) -> list[Tensor]:
    return [b.clone() for b in model.buffers()]


def _check_buffers(model: nn.Module, before: list[Tensor]) -> None:
    """Refuse state that learned: it is no part of the update and would be lost."""
    for (name, now), old in zip(model.named_buffers(), before, strict=True):
        if not torch.equal(now, old):
            raise ConfigurationError(
                f"buffer {name!r} changed in training; only weights are shared between "
                "sites: remove it from the model"
            )


def _device(local: str, planned: str) -> torch.device:
    """Return where to train; CUDA if nobody says otherwise and it is there."""
    wanted = planned if local == "auto" else local
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as bad:
        raise ConfigurationError(
            f"device={wanted!r} is unknown: use auto, cpu or cuda"
        ) from bad
    if device.type == "cuda":
        # cuBLAS is deterministic only with this, read when CUDA starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if not torch.cuda.is_available():
            raise ConfigurationError(
                f"device={wanted}: torch {torch.__version__} sees no CUDA device; use "
                "auto or cpu"
            )
    return device


@contextmanager
def _reproducible(
    device: torch.device, threads: int, seeds: tuple[int, int, int]
) -> Iterator[None]:
    """Set torch's globals for one pass and give them back."""
    count = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    devices = [device] if device.type == "cuda" else []
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=devices):
            # For dropout and the like in a user's model.
            word = np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]
            torch.manual_seed(int(word >> np.uint64(1)))
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(count)


def _seed(settings: Mapping[str, JSON]) -> int:
    value = settings.get("seed")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"seed={value!r} is not a whole number")
    if value != int(value) or not 0 <= value < 2**53:
        raise ConfigurationError(f"seed={value}, must be whole, from 0 to 2**53 - 1")
    return int(value)


def _bounded(
    section: Mapping[str, JSON],
    name: str,
    default: TrainSettings,
    bounds: tuple[float, float],
    *,
    whole: bool = False,
) -> float:
    value = section.get(name, getattr(default, name))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"train.{name}={value!r} is not a number")
    if not bounds[0] <= value <= bounds[1] or (whole and value != int(value)):
        raise ConfigurationError(
            f"train.{name}={value}, must be from {bounds[0]} to {bounds[1]}"
            f"{' and whole' if whole else ''}"
        )
    return float(value)
