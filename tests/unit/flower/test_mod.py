"""The site's end of Flower: a relay that reads nothing, a user's app as a trainer."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.supercore.task_identity import TaskIdentity  # noqa: TID251 - messages need it

from fedsecure.errors import ConfigurationError, StorageError, TrainingFailed
from fedsecure.flower import records
from fedsecure.flower.mod import FlowerTrainer, client_app, relayed, secure_mod
from fedsecure.outgoing import Outgoing
from fedsecure.privacy.counts import CountsPlan
from fedsecure.trainer import Trainer, TrainingTask
from fedsecure.update import RoundId
from tests.fakes.randomness import System
from tests.fakes.trainer import LAYOUT

MAX = 1 << 20
CONTEXT = Context(
    run_id=1, node_id=7, node_config={"site": "a"}, state=RecordDict(), run_config={}
)
MODEL = np.arange(LAYOUT.num_parameters, dtype=np.float64)
SETTINGS = {"train": {"epochs": 2, "device": "cpu"}, "seed": 7}


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def task(*, train: bool = True) -> TrainingTask:
    return TrainingTask(RoundId("run-1", 3), LAYOUT, MODEL, SETTINGS, train)  # type: ignore[arg-type]


class App:
    """A user's app that adds one to every weight."""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.metrics: MetricRecord | None = MetricRecord(
            {"num-examples": 40, "loss": 0.5}
        )
        self.shape: tuple[int, ...] = (2, 3)

    def __call__(self, message: Message, context: Context) -> Message:
        _ = context
        self.asked.append(message)
        arrays = {
            name: Array(a.numpy() + 1)
            for name, a in message.content.array_records["arrays"].items()
        }
        if self.shape != (2, 3):
            arrays["w"] = Array(np.zeros(self.shape, dtype=np.float32))
        content = RecordDict({"arrays": ArrayRecord(arrays)})
        if self.metrics is not None:
            content["metrics"] = self.metrics
        return Message(content=content, reply_to=message)


def trainer(app: object) -> FlowerTrainer:
    message = records.message(b"signed", 7, "group")
    return FlowerTrainer(app, CONTEXT, message, 40)  # type: ignore[arg-type]


# --- the relay ------------------------------------------------------------------------


def test_relay_passes_bytes_both_ways() -> None:
    def answer(config: Mapping[str, object], data: bytes) -> Outgoing:
        return Outgoing.of(f"{config['site']} ".encode(), data)

    app = client_app(answer)
    back = app(records.message(b"signed", 7, "group"), CONTEXT)
    assert records.read(back, MAX) == b"a signed"


def test_supernode_without_a_relay_says_how_to_start_it() -> None:
    with pytest.raises(ConfigurationError, match="start it through `fedsecure node`"):
        relayed({}, b"signed")


def test_node_daemon_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        relayed({"relay": str(tmp_path / "none.sock")}, b"signed")


# --- a user's app ---------------------------------------------------------------------


def test_update_is_what_the_app_changed() -> None:
    result = trainer(App()).run(task())
    assert result.update is not None
    assert result.update.delta.tolist() == [1.0] * LAYOUT.num_parameters
    assert result.update.num_examples == 40


def test_of_an_app_s_metrics_two_noisy_counts_leave_under_dp() -> None:
    app = App()
    app.metrics = MetricRecord(
        {"num-examples": 40, "num_test": 10, "accuracy": 0.7, "patients": 41}
    )
    told = trainer(app).run(task()).metrics
    left = CountsPlan(2.0, each_round=True).release(told, System())
    assert set(left) == {"noisy_correct", "noisy_wrong", "noise"}
    assert abs(int(str(left["noisy_correct"])) - 7) <= 14 * 2.0
    assert abs(int(str(left["noisy_wrong"])) - 3) <= 14 * 2.0


def test_row_count_is_no_metric() -> None:
    assert trainer(App()).run(task()).metrics == {"loss": 0.5}


def test_app_sees_settings_and_round_in_config() -> None:
    app = App()
    trainer(app).run(task())
    config = app.asked[0].content.config_records["config"]
    assert (config["epochs"], config["server-round"], config["train"]) == (2, 3, True)


def test_evaluation_makes_no_update() -> None:
    assert trainer(App()).run(task(train=False)).update is None


def test_app_that_raises_has_failed_training() -> None:
    def app(message: Message, context: Context) -> Message:
        raise ZeroDivisionError(f"{message.metadata.run_id} {context.run_id}")

    with pytest.raises(TrainingFailed, match="ZeroDivisionError"):
        trainer(app).run(task())


def test_app_that_answers_with_an_error_has_failed_training() -> None:
    def app(message: Message, context: Context) -> Message:
        _ = context
        return Message(Error(code=1, reason="no rows"), reply_to=message)

    with pytest.raises(TrainingFailed, match="no rows"):
        trainer(app).run(task())


def test_app_without_metrics_has_failed_training() -> None:
    app = App()
    app.metrics = None
    with pytest.raises(TrainingFailed, match="num-examples"):
        trainer(app).run(task())


def test_app_that_returns_another_layout_has_failed_training() -> None:
    app = App()
    app.shape = (3, 2)
    with pytest.raises(TrainingFailed, match="other arrays"):
        trainer(app).run(task())


def test_app_makes_no_first_model() -> None:
    with pytest.raises(ConfigurationError, match="initial_arrays"):
        trainer(App()).initial({})


# --- the mod --------------------------------------------------------------------------


class Half:
    """A site's half that says what it was given."""

    def answer(self, data: bytes, trainer: Trainer) -> Outgoing:
        return Outgoing.of(data, f" {trainer.rows()}".encode())


def test_mod_answers_what_the_site_s_half_answers() -> None:
    mod = secure_mod(lambda _: Half(), lambda _: 40)
    answer = mod(records.message(b"signed", 7, "group"), CONTEXT, App())
    assert records.read(answer, MAX) == b"signed 40"


def test_mod_lets_other_messages_through() -> None:
    app, mod = App(), secure_mod(lambda _: Half(), lambda _: 40)
    arrays = ArrayRecord({"w": Array(np.zeros((2, 3), dtype=np.float32))})
    other = Message(
        content=RecordDict({"arrays": arrays}), dst_node_id=7, message_type="train"
    )
    mod(other, CONTEXT, app)
    assert app.asked == [other]
