"""One local pass over a site's rows, private or not, and the centralised baseline."""

import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError, FedsecureError, TrainingFailed
from fedsecure.learning.evaluation import LOSSES, Loss, evaluate
from fedsecure.learning.models import build
from fedsecure.learning.sitedata import SiteData
from fedsecure.learning.trainsettings import TrainSettings, read_seed
from fedsecure.privacy.engine import Engine, PrivateEngine, check_module
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.mechanism import RandomSource, clip_factors
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.trainer import JSON, TrainingResult, TrainingTask
from fedsecure.update import (
    IntVector,
    Layout,
    ModelUpdate,
    RoundId,
    Vector,
    flatten,
)

_BY_EXAMPLE = {Mode.EXAMPLE_DISTRIBUTED, Mode.EXAMPLE_LOCAL}
__all__ = ["LocalTrainer", "SystemRandom", "central_training"]

# Seeds, thread count and deterministic algorithms are torch's own globals.
_TORCH = threading.RLock()


class SystemRandom:
    """The operating system's generator as a `RandomSource`."""

    def bytes(self, n: int) -> bytes:
        """Return `n` fresh bytes."""
        return os.urandom(n)


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

    def __init__(
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
            The model does not exist, does not fit the rows or cannot train privately.
        """
        with _TORCH:
            model = self._build(settings)
            if _privacy(settings).mode in _BY_EXAMPLE:
                engine = TrainSettings.read(settings.get("train", {})).engine
                check_module(model, Engine(engine))
            return _flat(model)

    def rows(self) -> int:
        """Return the number of training rows; it stays at the site."""
        return len(self._data.train_x)

    def users(self) -> int:
        """Return the persons behind them, 0 if not told apart; it stays at the site."""
        return self._data.users

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
        with _reproducible(device, self._threads):
            model = self._build(task.settings)
            _set_weights(model, task.layout, task.model)
            before = _flat(model)[1]
            model.to(device)
            train_x, train_y, test_x, test_y = self._on(device)
            metrics = evaluate(model, test_x, test_y, self._data.task)
            if not task.train:
                return TrainingResult(None, metrics, 0)
            buffers = [b.clone() for b in model.buffers()]
            privacy = _privacy(task.settings)
            if privacy.mode.shared:
                whole = self._contribute(model, train_x, train_y, task, train, privacy)
                _check_buffers(model, buffers)
                update = ModelUpdate(task.layout, whole.astype(np.float64), self.rows())
                return TrainingResult(update, metrics, privacy.steps_per_round)
            steps = self._train(model, train_x, train_y, task, train, privacy)
            _check_buffers(model, buffers)
            layout, after = _flat(model)
        # From the model as float32 holds it: no training is no update, exactly.
        update = ModelUpdate(layout, after - before, self.rows())
        return TrainingResult(update, metrics, steps)

    def _train(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        task: TrainingTask,
        t: TrainSettings,
        privacy: PrivacyPlan,
    ) -> int:
        """Train in place; return the noisy steps taken."""
        if privacy.mode is Mode.NONE:
            self._plainly(model, x, y, task, t)
            return 0
        with self._engine(model, privacy, t) as engine:
            return engine.train_round(x, y)

    def _contribute(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        task: TrainingTask,
        t: TrainSettings,
        privacy: PrivacyPlan,
    ) -> IntVector:
        """Return the site's integers of one shared step; where it clamps stays here."""
        lattice = _lattice(task, privacy)
        if privacy.mode is Mode.SILO:
            before = _flat(model)[1]
            self._plainly(model, x, y, task, t)
            delta = _flat(model)[1] - before
            norms = np.array([np.linalg.norm(delta)])
            factor = clip_factors(norms, privacy.clip_norm)[0]
            return lattice.contribute(factor * np.nan_to_num(delta), self._source)[0]
        with self._engine(model, privacy, t) as engine:
            return engine.contribute(x, y, lattice, self._data.train_users)[0]

    def _plainly(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        task: TrainingTask,
        t: TrainSettings,
    ) -> None:
        words = [read_seed(task.settings), task.round.number, self._index]
        torch.manual_seed(_word(words))  # for dropout and the like
        loss = LOSSES[self._data.task]
        _plain(model, x, y, loss, t, np.random.default_rng(words))

    def _engine(
        self, model: nn.Module, privacy: PrivacyPlan, t: TrainSettings
    ) -> PrivateEngine:
        torch.seed()  # whatever is drawn beside sample and noise is no secret
        return PrivateEngine(
            model,
            privacy,
            LOSSES[self._data.task],
            self._source,
            learning_rate=t.learning_rate,
            momentum=t.momentum,
            engine=t.engine,
        )

    def _build(self, settings: Mapping[str, JSON]) -> nn.Module:
        section = settings.get("model", {})
        if not isinstance(section, Mapping):
            raise ConfigurationError("plan section model is not a mapping")
        shape, outputs = self._data.input_shape, self._data.outputs
        return build(section, shape, outputs, read_seed(settings), self._objects)

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


def _plain(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Loss,
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
            mean = loss(model(x[batch]), y[batch]).mean()
            mean.backward()  # type: ignore[no-untyped-call]
            sgd.step()


def _privacy(settings: Mapping[str, JSON]) -> PrivacyPlan:
    section = settings.get("privacy", {})
    if not isinstance(section, Mapping):
        raise ConfigurationError("plan section privacy is not a mapping")
    if section.get("mode", Mode.NONE) == Mode.NONE:
        return PrivacyPlan(Mode.NONE)
    return PrivacyPlan.from_document(section)


def _lattice(task: TrainingTask, privacy: PrivacyPlan) -> Lattice:
    """Return the grid that all sites share, by the plan and the model's size."""
    grid = task.settings.get("grid")
    if not isinstance(grid, Mapping):
        raise ConfigurationError("the plan's settings have no grid for shared noise")
    bits, sites = int(str(grid["field_bits"])), int(str(grid["sites"]))
    return Lattice.of(privacy, task.layout.num_parameters, bits, sites)


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
def _reproducible(device: torch.device, threads: int) -> Iterator[None]:
    """Set torch's globals for one pass and give them back, its seeds too."""
    count = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    devices = [device] if device.type == "cuda" else []
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(count)


def _word(words: Sequence[int]) -> int:
    """Mix numbers into one seed below 2**63."""
    mixed = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return int(mixed >> np.uint64(1))
