"""The site's end of Flower: a ClientApp that relays, and a mod for one's own ClientApp.

The relay imports no training library and holds no secret: what it passes on is signed
and encrypted by the node daemon behind the socket. The mod is for a user's own
ClientApp in one process (simulation, `inprocess`): it recovers the global model, lets
the app train on it, and protects what comes back.
"""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod

from fedsecure import relay
from fedsecure.errors import ConfigurationError, TrainingFailed
from fedsecure.flower import records
from fedsecure.outgoing import Outgoing
from fedsecure.trainer import JSON, Trainer, TrainingResult, TrainingTask
from fedsecure.update import Layout, ModelUpdate, Vector, flatten, unflatten

MAX_BYTES = 1 << 30
ARRAYS, CONFIG, METRICS, SITE = "arrays", "config", "metrics", "site"
"""Names of the records a user's ClientApp gets and gives, as in Flower's examples."""
_KEPT = frozenset({"num-examples", "dp-steps"})  # row counts stay at the site

Answering: TypeAlias = Callable[[Mapping[str, object], bytes], Outgoing]
"""(node_config, message) -> answer."""


class Site(Protocol):
    """A site's half of a round, as a mod sees it."""

    def answer(self, data: bytes, trainer: Trainer) -> Outgoing:
        """Return the site's answer to one signed message."""
        ...


def relayed(node_config: Mapping[str, object], data: bytes) -> Outgoing:
    """Pass a message to the node daemon whose socket ``node_config["relay"]`` names.

    Raises
    ------
    ConfigurationError
        The supernode was started without it.
    StorageError
        The daemon does not answer.
    """
    path = node_config.get("relay")
    if not isinstance(path, str):
        raise ConfigurationError(
            'supernode has no node_config "relay"; start it through `fedsecure node`'
        )
    return Outgoing.of(relay.ask(Path(path), data, MAX_BYTES))


def client_app(
    answer: Answering = relayed, name: Callable[[Mapping[str, object]], str] = str
) -> ClientApp:
    """Return a ClientApp that hands every message to `answer`.

    Parameters
    ----------
    name : callable
        node_config -> the site's name, told to who queries it; only Flower's
        simulation asks, where nodes have no keys.
    """
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        told = ConfigRecord({SITE: name(context.node_config)})
        return Message(content=RecordDict({CONFIG: told}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        data = records.read(message, MAX_BYTES)
        return _reply(answer(context.node_config, data), message)

    return app


def secure_mod(site: Callable[[Context], Site], rows: Callable[[Context], int]) -> Mod:
    """Return a mod that protects a user's own ClientApp.

    The app's ``train`` gets the opened global model as an `ArrayRecord` "arrays" and
    a `ConfigRecord` "config": the plan's train settings by name, "server-round", all
    settings as JSON text under "settings", and "train", which says whether to train or
    only to evaluate. It returns the same arrays trained and a `MetricRecord` "metrics"
    with at least "num-examples". Under a plan's metrics `dp` the site reads "num_test"
    and "accuracy" (0 to 1) of them and tells two noisy counts; all else stays.

    Parameters
    ----------
    site : callable
        Context -> the site's ClientRound.
    rows : callable
        Context -> training rows at the site.
    """

    def mod(
        message: Message, context: Context, call_next: ClientAppCallable
    ) -> Message:
        if not records.is_ours(message):
            return call_next(message, context)
        trainer = FlowerTrainer(call_next, context, message, rows(context))
        data = records.read(message, MAX_BYTES)
        return _reply(site(context).answer(data, trainer), message)

    return mod


class FlowerTrainer:
    """A user's ClientApp as a `Trainer`."""

    def __init__(
        self,
        call_next: ClientAppCallable,
        context: Context,
        message: Message,
        rows: int,
    ) -> None:
        self._call_next = call_next
        self._context = context
        self._message = message
        self._rows = rows

    def initial(self, settings: Mapping[str, JSON]) -> tuple[Layout, Vector]:
        """Refuse: the server gives the first model to a user's own app."""
        _ = settings
        raise ConfigurationError(
            "pass initial_arrays to SecureFedAvg: a ClientApp of one's own does not "
            "make the first model"
        )

    def rows(self) -> int:
        """Return the training rows at this site."""
        return self._rows

    def users(self) -> int:
        """Return 0: an app of one's own does not tell this mod whose its rows are."""
        return 0

    def run(self, task: TrainingTask) -> TrainingResult:
        """Call the app with the model in plain, inside the site.

        Raises
        ------
        TrainingFailed
            The app answers with an error, or leaves out arrays or metrics.
        """
        try:
            answer = self._call_next(self._plain(task), self._context)
        except Exception as bad:
            # The edge to the user's app, which raises anything.
            raise TrainingFailed(f"the ClientApp raised {bad!r}") from bad
        if answer.has_error():
            raise TrainingFailed(f"the ClientApp failed: {answer.error.reason}")
        metrics = _numbers(answer.content.metric_records.get(METRICS))
        update = self._update(task, answer, metrics) if task.train else None
        told = {k: v for k, v in metrics.items() if k not in _KEPT}
        return TrainingResult(update, told, int(metrics.get("dp-steps", 0)))

    def _plain(self, task: TrainingTask) -> Message:
        named = unflatten(task.model, task.layout)
        arrays = {name: Array(t.astype(np.float32)) for name, t in named.items()}
        # The app sees the run, the node and the round it would see without the mod; a
        # new message would need Flower's task identity, which a worker of ray lacks.
        plain = copy.copy(self._message)
        plain.content = RecordDict({ARRAYS: ArrayRecord(arrays), CONFIG: _config(task)})
        return plain

    def _update(
        self, task: TrainingTask, answer: Message, metrics: Mapping[str, float]
    ) -> ModelUpdate:
        record = answer.content.array_records.get(ARRAYS)
        if record is None or "num-examples" not in metrics:
            raise TrainingFailed(
                f'the ClientApp must return an ArrayRecord "{ARRAYS}" and a '
                f'MetricRecord "{METRICS}" with "num-examples"'
            )
        tensors = {name: array.numpy() for name, array in record.items()}
        if Layout.of(tensors) != task.layout:
            raise TrainingFailed(
                "the ClientApp returned other arrays than it was given"
            )
        delta = flatten(tensors) - task.model
        return ModelUpdate(task.layout, delta, int(metrics["num-examples"]))


def _reply(answer: Outgoing, to: Message) -> Message:
    # Flower's Array wants all bytes at once. With real sites this copy lies in the
    # relay, a process of Flower's; the node daemon behind it holds pieces only.
    return records.reply(answer.to_bytes(), to)


def _config(task: TrainingTask) -> ConfigRecord:
    """Return what Flower's examples read from "config", and all settings as JSON."""
    train = task.settings.get("train")
    named = train.items() if isinstance(train, dict) else ()
    config = ConfigRecord(
        {k: v for k, v in named if isinstance(v, str | bool | int | float)}
    )
    config["settings"] = json.dumps(dict(task.settings))
    config["server-round"] = task.round.number
    config["train"] = task.train
    return config


def _numbers(record: MetricRecord | None) -> dict[str, float]:
    if record is None:
        return {}
    return {k: float(v) for k, v in record.items() if isinstance(v, int | float)}
