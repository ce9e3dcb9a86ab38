"""What this house takes for granted of Flower, and the federation in one process.

A red test here names the section of FLOWER.md to read again.
"""

import os
import threading
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.control_pb2 import (  # noqa: TID251 - what is tested
    ListRunsResponse,
)
from flwr.proto.run_pb2 import Run as Listed  # noqa: TID251 - what is tested
from flwr.proto.run_pb2 import RunStatus  # noqa: TID251 - what is tested
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable import (  # noqa: TID251 - what is tested
    inflatable_object,
)
from flwr.supercore.run import Run  # noqa: TID251 - what is tested
from flwr.supercore.task_identity import TaskIdentity  # noqa: TID251 - what is tested
from flwr.superlink.grid import HttpGrid  # noqa: TID251 - what is tested

from fedsecure.errors import ConfigurationError, ProcessFailed
from fedsecure.flower import link, records
from fedsecure.flower.bundle import make_bundle
from fedsecure.flower.link import Control, InMemoryFederation, Node, site_nodes

SITES = ("site-01", "site-02", "site-03")
KEYS = {f"key of {site}".encode(): site for site in SITES}
MAX = 1 << 26
FILES = ("__init__.py", "app.py")
Main = Callable[[Grid, Context], None]


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lend Flower's process-global identity to one test; messages need it."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def echo(site: str) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        data = records.read(message, MAX)
        text = f"{site} {context.node_config['shelf']} ".encode()
        return records.reply(text + data, message)

    return app


def nodes() -> list[Node]:
    return [Node(KEYS[k], k, echo(KEYS[k]), {"shelf": 7}) for k in KEYS]


def federate(main: Main, seam: link.Deliver = link.deliver) -> None:
    app = ServerApp()
    app.main()(main)
    InMemoryFederation(nodes(), seam).run(app)


def push(grid: Grid, site: str, data: bytes = b"hello") -> list[str]:
    node = site_nodes(grid, KEYS)[site]
    return list(grid.push_messages([records.message(data, node, "1")]))


def pull(grid: Grid, ids: list[str]) -> Message:
    """Return the one answer to one message, as soon as it is there."""
    while True:
        for received in grid.pull_messages(ids):
            return received
        threading.Event().wait(0.001)


# --- the federation in one process ----------------------------------------------------


def test_a_message_reaches_the_site_whose_key_the_node_has() -> None:
    seen: list[bytes] = []

    def main(grid: Grid, context: Context) -> None:
        seen.extend(records.read(pull(grid, push(grid, s)), MAX) for s in SITES)

    federate(main)
    assert seen == [f"{site} 7 hello".encode() for site in SITES]


def test_a_site_is_known_by_its_key_and_strangers_are_left_out() -> None:
    found: list[set[str]] = []

    def main(grid: Grid, context: Context) -> None:
        found.append(set(site_nodes(grid, KEYS)))
        found.append(set(site_nodes(grid, {b"key of site-02": "site-02", b"x": "x"})))

    federate(main)
    assert found == [set(SITES), {"site-02"}]


def test_a_lost_message_has_no_answer_and_a_second_one_has() -> None:
    lost: list[str] = []
    early: list[list[Message]] = []
    gone = threading.Event()

    def seam(
        site: str, message: Message, app: Callable[[Message], Message]
    ) -> Message | None:
        if not lost:
            lost.append(site)
            gone.set()
            return None
        return app(message)

    def main(grid: Grid, context: Context) -> None:
        first = push(grid, "site-01")
        assert gone.wait(10)
        early.append(list(grid.pull_messages(first)))
        pull(grid, push(grid, "site-01"))
        early.append(list(grid.pull_messages(first)))

    federate(main, seam)
    assert early == [[], []]


def test_the_seam_can_repeat_a_message() -> None:
    calls: list[str] = []

    def seam(
        site: str, message: Message, app: Callable[[Message], Message]
    ) -> Message | None:
        calls.append(site)
        app(message)
        return app(message)

    def main(grid: Grid, context: Context) -> None:
        pull(grid, push(grid, "site-01"))

    federate(main, seam)
    assert calls == ["site-01"]


def test_an_app_that_raises_is_an_error_reply_with_its_reason() -> None:
    seen: list[Message] = []

    def seam(
        site: str, message: Message, app: Callable[[Message], Message]
    ) -> Message | None:
        raise OSError("disk gone")

    def main(grid: Grid, context: Context) -> None:
        seen.append(pull(grid, push(grid, "site-01")))

    federate(main, seam)
    assert seen[0].has_error()
    assert seen[0].error.reason == "OSError: disk gone"


def test_what_the_server_raises_comes_out_and_no_thread_is_left() -> None:
    def main(grid: Grid, context: Context) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        federate(main)
    assert not {t.name for t in threading.enumerate()} & set(SITES)


def test_two_federations_run_side_by_side() -> None:
    """Two aggregators over the same sites: take-over at this speed."""
    both_here = threading.Barrier(2, timeout=10)
    seen: list[bytes] = []

    def main(grid: Grid, context: Context) -> None:
        both_here.wait()
        seen.append(records.read(pull(grid, push(grid, "site-03")), MAX))

    threads = [threading.Thread(target=federate, args=(main,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [b"site-03 7 hello"] * 2


# --- contract tests on the framework (FLOWER.md section 19) ---------------------------


def test_19_3_the_second_pull_of_one_id_is_an_error() -> None:
    codes: list[int] = []

    def main(grid: Grid, context: Context) -> None:
        ids = push(grid, "site-01")
        assert pull(grid, ids).has_content()
        codes.append(pull(grid, ids).error.code)

    federate(main)
    assert codes == [3]


def test_19_4_a_generator_pushes_nothing() -> None:
    """`HttpGrid` walks its argument twice; the second walk finds nothing."""
    walked: list[int] = []

    class CountingGrid(HttpGrid):
        def _try_push_messages(self, run_id: int, messages: object) -> list[str]:
            walked.append(len(list(messages)))  # type: ignore[call-overload]
            return []

    grid = CountingGrid.__new__(CountingGrid)
    grid._run = Run.create_empty(1)
    grid.node = None  # type: ignore[assignment]
    grid._check_message = lambda msg: None  # type: ignore[assignment,method-assign]
    letters = [records.message(b"hello", 1, "1")]
    grid.push_messages(letters)
    grid.push_messages(letter for letter in letters)
    assert walked == [1, 0]


def objects(content: RecordDict) -> int:
    """Return how many objects a message with `content` is cut into."""
    message = Message(content, dst_node_id=1, message_type="train")
    tree = inflatable_object.get_object_tree(message)
    return len(list(inflatable_object.iterate_object_tree(tree)))


def test_19_5_an_array_is_cut_into_chunks_of_five_mebibytes() -> None:
    data = os.urandom(12_000_000)  # equal chunks would be one object
    array = Array(dtype="uint8", shape=(len(data),), stype=records.STYPE, data=data)
    one = Array(dtype="uint8", shape=(1,), stype=records.STYPE, data=b"x")
    cut = objects(RecordDict({"a": ArrayRecord({"x": array})}))
    whole = objects(RecordDict({"a": ArrayRecord({"x": one})}))
    assert cut == whole + 2


def test_19_5_bytes_of_a_config_record_are_not_cut() -> None:
    small = objects(RecordDict({"c": ConfigRecord({"x": b"x"})}))
    big = objects(RecordDict({"c": ConfigRecord({"x": bytes(6_000_000)})}))
    assert big == small


def test_19_6_a_foreign_stype_refuses_numpy() -> None:
    array = Array(dtype="uint8", shape=(1,), stype=records.STYPE, data=b"x")
    with pytest.raises(TypeError, match="Unsupported serialization type"):
        array.numpy()


def test_array_data_must_be_bytes() -> None:
    with pytest.raises(TypeError):
        Array(dtype="uint8", shape=(1,), stype=records.STYPE, data=bytearray(b"x"))  # type: ignore[call-overload]


# --- bundle and Control ---------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_bundle(tmp_path_factory.mktemp("app"))


def test_the_bundle_holds_both_apps_and_nothing_of_the_package(bundle: bytes) -> None:
    with zipfile.ZipFile(BytesIO(bundle)) as archive:
        names = set(archive.namelist())
    files = {name for name in names if not name.startswith(".info")}
    apps = {f"{room}/{name}" for room in ("clients", "server") for name in FILES}
    assert files == apps | {"pyproject.toml", "LICENSE"}


def test_the_bundle_carries_the_entry_points_as_they_are(bundle: bytes) -> None:
    root = Path(__file__).parents[3]
    with zipfile.ZipFile(BytesIO(bundle)) as archive:
        for room in ("clients", "server"):
            packed = archive.read(f"{room}/app.py").decode()
            assert packed == (root / room / "app.py").read_text(encoding="utf-8")


def test_a_bundle_made_twice_is_the_same_bundle(bundle: bytes, tmp_path: Path) -> None:
    assert make_bundle(tmp_path) == bundle


class NoSuperLink:
    """Stands for Flower's client: every call fails as it is told."""

    def __init__(self, bad: Exception) -> None:
        self.bad = bad
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[[object], object]:
        def call(request: object) -> object:
            self.asked.append(name)
            raise self.bad

        return call


class Answer:
    """An HTTP answer as Flower's client error carries it."""

    def __init__(self, text: str) -> None:
        self.text = text


class Refusal(Exception):
    """Stands for `httpx.HTTPStatusError`."""

    def __init__(self, text: str) -> None:
        super().__init__("412 Precondition Failed")
        self.response = Answer(text)


def control(bad: Exception) -> tuple[Control, NoSuperLink]:
    made = Control.__new__(Control)
    fake = NoSuperLink(bad)
    made._client = fake  # type: ignore[assignment]
    return made, fake


def test_a_node_admitted_before_is_no_error() -> None:
    refusal = Refusal('{"code": 23, "detail": "Public key already in use."}')
    made, fake = control(refusal)
    made.register("PEM", "site-01")
    assert fake.asked == ["RegisterNode"]


def test_a_node_that_is_refused_is_named_with_the_reason() -> None:
    refusal = Refusal('{"code": 22, "detail": "The public key is not valid."}')
    with pytest.raises(
        ProcessFailed, match=r"site-01 is not admitted: .*key is not valid"
    ):
        control(refusal)[0].register("PEM", "site-01")


@pytest.mark.parametrize("text", ["", "<html>", "[]", '{"code": "23"}', '{"code": 23}'])
def test_an_answer_that_is_no_flower_error_is_a_failure(text: str) -> None:
    with pytest.raises(ProcessFailed, match="412 Precondition Failed"):
        control(Refusal(text))[0].register("PEM", "site-01")


def test_a_superlink_that_is_gone_is_a_process_that_failed() -> None:
    made, _ = control(ConnectionError("refused"))
    with pytest.raises(ProcessFailed, match="ConnectionError: refused"):
        made.status(1)


@pytest.mark.parametrize(
    ("sub_status", "details", "said"),
    [
        ("completed", "", "finished:completed"),
        ("completed", "whatever", "finished:completed"),
        ("failed", "", "finished:failed"),
        ("failed", "it failed:\n\tno roster", "finished:failed: it failed: no roster"),
    ],
)
def test_a_failed_run_is_told_with_why(
    sub_status: str, details: str, said: str
) -> None:
    status = RunStatus(status="finished", sub_status=sub_status, details=details)
    answer = ListRunsResponse(run_dict={1: Listed(run_id=1, status=status)})
    made = Control.__new__(Control)
    made._client = SimpleNamespace(ListRuns=lambda _: answer)  # type: ignore[assignment]
    assert made.status(1) == said


def test_19_12_an_undeclared_key_is_refused_before_flower_sees_it(
    bundle: bytes,
) -> None:
    made, fake = control(AssertionError())
    with pytest.raises(ConfigurationError, match=r"\['sigma'\] is not declared"):
        made.start_run(bundle, {"kit": "/kit", "sigma": "0"})
    assert fake.asked == []


def test_the_declared_key_reaches_flower(bundle: bytes) -> None:
    made, fake = control(ConnectionError("refused"))
    with pytest.raises(ProcessFailed):
        made.start_run(bundle, {"kit": "/kit"})
    assert fake.asked == ["StartRun"]
