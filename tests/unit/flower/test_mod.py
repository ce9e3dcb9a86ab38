"""A user's own ClientApp behind the mod: what it is given, and may give back."""

import json
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)

from fedsecure.errors import ConfigurationError, TrainingFailed
from fedsecure.flower import records
from fedsecure.flower.mod import FlowerTrainer, secure_mod
from fedsecure.trainer import Trainer, TrainingTask
from fedsecure.update import JSON, Layout, RoundId

LAYOUT = Layout.of({"w": np.zeros((2, 2)), "b": np.zeros(2)})
MODEL = np.arange(6, dtype=np.float64)
SETTINGS: dict[str, JSON] = {
    "train": {"lr": 0.5, "name": "sgd", "deep": [1]},
    "seed": 7,
}
CONTEXT = Context(1, 2, {"partition-id": 0}, RecordDict(), {})


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say which run this process serves, as Flower does before it makes messages."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(f"flwr.supercore.task_identity.TaskIdentity.{name}", 1)


def message() -> Message:
    return received(records.message(b"sealed", 2, "group"))


def received(sent: Message) -> Message:
    sent.metadata.__dict__["_message_id"] = "m-1"
    return sent


def task(*, train: bool = True) -> TrainingTask:
    return TrainingTask(RoundId("run-1", 3), LAYOUT, MODEL, SETTINGS, train)


def plus_one(given: Message, _: Context) -> Message:
    """Train as a user's app does: every parameter by one."""
    arrays = {
        k: Array(v.numpy() + 1)
        for k, v in given.content.array_records["arrays"].items()
    }
    metrics = MetricRecord({"num-examples": 12, "accuracy": 0.5, "dp-steps": 4})
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
    return Message(content=content, reply_to=given)


def trainer(app: Any = plus_one) -> FlowerTrainer:
    return FlowerTrainer(app, CONTEXT, message(), 12)


def seen_by_the_app(*, train: bool = True) -> Message:
    seen: list[Message] = []

    def app(given: Message, context: Context) -> Message:
        seen.append(given)
        return plus_one(given, context)

    trainer(app).run(task(train=train))
    return seen[0]


def test_the_app_gets_the_model_by_name_and_shape() -> None:
    arrays = seen_by_the_app().content.array_records["arrays"]
    assert {k: v.shape for k, v in arrays.items()} == {"w": (2, 2), "b": (2,)}
    assert np.concatenate([v.numpy().ravel() for v in arrays.values()]).sum() == 15


def test_the_app_gets_plain_settings_by_name_and_all_as_json() -> None:
    config = seen_by_the_app().content.config_records["config"]
    assert (config["lr"], config["name"]) == (0.5, "sgd")
    assert "deep" not in config
    assert json.loads(str(config["settings"])) == SETTINGS
    assert config["server-round"] == 3


@pytest.mark.parametrize("train", [True, False])
def test_the_app_is_told_whether_to_train(train: bool) -> None:
    assert seen_by_the_app(train=train).content["config"]["train"] is train


def test_the_app_sees_the_messages_own_metadata_and_no_envelope() -> None:
    given = seen_by_the_app()
    assert given.metadata.group_id == "group"
    assert given.metadata.dst_node_id == 2
    assert set(given.content) == {"arrays", "config"}


def test_the_update_is_what_changed() -> None:
    update = trainer().run(task()).update
    assert update is not None
    assert update.delta.tolist() == [1.0] * 6
    assert update.num_examples == 12


def test_an_evaluation_gives_no_update() -> None:
    assert trainer().run(task(train=False)).update is None


def test_row_counts_and_steps_are_no_metrics() -> None:
    result = trainer().run(task())
    assert result.metrics == {"accuracy": 0.5}
    assert result.dp_steps == 4


def test_an_app_that_raises_is_a_failed_training() -> None:
    def app(given: Message, context: Context) -> Message:
        raise ZeroDivisionError

    with pytest.raises(TrainingFailed, match="ZeroDivisionError"):
        trainer(app).run(task())


def replying(content: RecordDict) -> Any:
    return lambda given, _: Message(content=content, reply_to=given)


def test_an_app_that_gives_no_arrays_is_a_failed_training() -> None:
    content = RecordDict({"metrics": MetricRecord({"num-examples": 1})})
    with pytest.raises(TrainingFailed, match='must return an ArrayRecord "arrays"'):
        trainer(replying(content)).run(task())


def test_an_app_that_gives_other_arrays_is_a_failed_training() -> None:
    arrays = ArrayRecord({"v": Array(np.zeros(6, np.float32))})
    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": arrays, "metrics": metrics})
    with pytest.raises(TrainingFailed, match="other arrays than it was given"):
        trainer(replying(content)).run(task())


def test_an_app_makes_no_first_model() -> None:
    with pytest.raises(ConfigurationError, match="initial_arrays"):
        trainer().initial({})


class Echo:
    """A site that answers what it was sent, and how many rows it has."""

    def answer(self, data: bytes, given: Trainer) -> bytes:
        return data + b" " + str(given.rows()).encode()


def test_the_mod_answers_envelopes_with_the_site() -> None:
    mod = secure_mod(lambda _: Echo(), lambda _: 12)
    reply = mod(message(), CONTEXT, plus_one)
    assert records.read(reply, 100) == b"sealed 12"


def test_the_mod_lets_other_messages_through() -> None:
    content = RecordDict(
        {"arrays": ArrayRecord({"w": Array(np.zeros(1))}), "config": ConfigRecord()}
    )
    other = message()
    other.content = content
    reply = secure_mod(lambda _: Echo(), lambda _: 12)(other, CONTEXT, plus_one)
    assert reply.content.metric_records["metrics"]["accuracy"] == 0.5
