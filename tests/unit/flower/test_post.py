"""One exchange with sites over a grid that loses, repeats and fails."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import cast

import pytest
from flwr.app import Error, Message
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity  # noqa: TID251 - messages need it
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.flower import records
from fedsecure.flower.post import Answer, Round, Timing

SOON = Timing(poll=0.001, retry=0.001)
NODES = {"a": 1, "b": 2, "c": 3}


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@dataclass
class FakeGrid:
    """Answers each message with "re: " and its bytes, unless told otherwise.

    Attributes
    ----------
    errors : int
        That many messages are answered with an error first.
    fails : int
        That many pushes raise first.
    breaks : int
        That many pulls raise first.
    blocked : set of int
        Nodes whose upload stalls: a pull of theirs releases `stuck`, and returns when
        `go` is set.
    """

    errors: int = 0
    fails: int = 0
    breaks: int = 0
    blocked: set[int] = field(default_factory=set)
    go: threading.Event = field(default_factory=threading.Event)
    stuck: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    sent: list[Message] = field(default_factory=list)
    pulls: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        with self.turn:
            if self.fails:
                self.fails -= 1
                raise ConnectionError("the SuperLink is away")
            ids = []
            for message in messages:
                self.sent.append(message)
                ids.append(str(len(self.sent) - 1))
            return ids

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        names = list(ids)
        if any(self.sent[int(n)].metadata.dst_node_id in self.blocked for n in names):
            self.stuck.release()
            self.go.wait(20.0)
        with self.turn:
            self.pulls += 1
            if self.breaks:
                self.breaks -= 1
                raise ConnectionError("the SuperLink went away")
            out = []
            for name in names:
                asked = self.sent[int(name)]
                if self.errors:
                    self.errors -= 1
                    out.append(Message(Error(code=1), reply_to=asked))
                else:
                    data = b"re: " + records.read(asked, 1 << 20)
                    out.append(records.reply(data, asked))
            return out


def exchange(
    grid: FakeGrid,
    hands: int = 4,
    online: dict[str, int] | None = None,
    timing: Timing = SOON,
) -> Round:
    nodes = NODES if online is None else online
    return Round(cast("Grid", grid), lambda: nodes, "run/1", 1 << 20, timing, hands)


def answer(post: Round) -> Answer:
    found = post.next(10.0)
    assert found is not None
    return found


@pytest.fixture
def grid() -> FakeGrid:
    return FakeGrid()


@pytest.fixture
def post(grid: FakeGrid) -> Iterator[Round]:
    with exchange(grid) as made:
        yield made


def test_each_site_s_answer_comes(post: Round) -> None:
    for site in NODES:
        post.ask(site, lambda site=site: site.encode())  # type: ignore[misc]
    found = {answer(post) for _ in NODES}
    assert found == {Answer(site, b"re: " + site.encode()) for site in NODES}


def test_nothing_to_come_is_none(post: Round) -> None:
    assert post.next(0.0) is None


def test_negative_timeout_does_not_wait(post: Round) -> None:
    assert post.next(-5.0) is None


def test_error_reply_means_ask_again() -> None:
    grid = FakeGrid(errors=3)
    with exchange(grid) as post:
        post.ask("a", lambda: b"x")
        assert answer(post).data == b"re: x"
    assert len(grid.sent) == 4


def test_superlink_that_fails_is_asked_again() -> None:
    with exchange(FakeGrid(fails=3)) as post:
        post.ask("a", lambda: b"x")
        assert answer(post).data == b"re: x"


def test_pulls_that_raise_keep_no_hand() -> None:
    with exchange(FakeGrid(breaks=3), hands=1) as post:
        post.ask("a", lambda: b"x")
        assert answer(post).data == b"re: x"


@pytest.fixture
def stalled() -> Iterator[FakeGrid]:
    grid = FakeGrid(blocked={1, 2})
    yield grid
    grid.go.set()


def past(stalled: FakeGrid) -> Round:
    """Return an exchange of two hands, both with pulls that block, and site c asked."""
    post = exchange(stalled, hands=2, timing=replace(SOON, stall=0.05))
    for site in ("a", "b"):
        post.ask(site, lambda: b"x")
        assert stalled.stuck.acquire(timeout=10.0)
    post.ask("c", lambda: b"x")
    return post


def test_stalled_uploads_do_not_silence_the_other_sites(stalled: FakeGrid) -> None:
    with past(stalled) as post:
        assert answer(post).site == "c"


def test_upload_that_stalled_and_came_is_an_answer_like_any(stalled: FakeGrid) -> None:
    with past(stalled) as post:
        assert answer(post).site == "c"
        post.done()
        stalled.go.set()
        assert {answer(post).site, answer(post).site} == {"a", "b"}


def test_first_failures_are_mended_soon() -> None:
    assert [Timing().pause(n) for n in (1, 2)] == [0.5, 0.5]


def test_site_that_always_fails_waits_longer_and_longer_up_to_a_bound() -> None:
    waits = [Timing().pause(n) for n in (3, 4, 5, 6, 7, 10_000)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


@given(retry=st.floats(0.001, 60.0), failed=st.integers(1, 5000))
def test_no_wait_is_shorter_than_the_first(retry: float, failed: int) -> None:
    assert Timing(retry=retry).pause(failed) >= retry


def waits(grid: FakeGrid, monkeypatch: pytest.MonkeyPatch, answers: int) -> list[int]:
    """Return the failures in a row that one site's waits were for."""
    seen = list[int]()

    def pause(_: Timing, failed: int) -> float:
        seen.append(failed)
        return 0.0

    monkeypatch.setattr(Timing, "pause", pause)
    with exchange(grid) as post:
        for _ in range(answers):
            post.ask("a", lambda: b"x")
            answer(post)
            post.done()
            grid.errors = 2
    return seen


def test_failures_in_a_row_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = FakeGrid(fails=1, breaks=1, errors=2)
    assert waits(grid, monkeypatch, answers=1) == [1, 2, 3, 4]


def test_good_answer_ends_the_row_of_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = FakeGrid(errors=3)
    assert waits(grid, monkeypatch, answers=2) == [1, 2, 3, 1, 2]


def test_letter_that_goes_again_is_said_with_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with exchange(FakeGrid(errors=1)) as post:
        post.ask("a", lambda: b"x")
        answer(post)
    assert (
        "site a: Flower answers with error 1; its letter goes again in 0.0 s "
        "(failures in a row: 1)"
    ) in caplog.text


def test_site_that_comes_online_later_is_asked_then(grid: FakeGrid) -> None:
    online: dict[str, int] = {}
    with exchange(grid, online=online) as post:
        post.ask("a", lambda: b"x")
        assert post.next(0.05) is None
        online["a"] = 1
        assert answer(post).data == b"re: x"


def test_letter_is_made_anew_for_each_sending() -> None:
    letters = iter([b"1", b"2", b"3"])
    with exchange(FakeGrid(errors=2)) as post:
        post.ask("a", lambda: next(letters))
        assert answer(post).data == b"re: 3"


def test_site_asked_again_answers_the_new_letter(post: Round) -> None:
    post.ask("a", lambda: b"old")
    assert answer(post).data == b"re: old"
    post.done()
    post.ask("a", lambda: b"new")
    assert answer(post).data == b"re: new"


def test_asks_and_bytes_are_counted_by_site(post: Round) -> None:
    for letter in (b"12345", b"123"):
        post.ask("a", lambda letter=letter: letter)  # type: ignore[misc]
        answer(post)
        post.done()
    assert post.asked == {"a": 2}
    assert post.sent_bytes == {"a": 8}


def test_no_more_answers_are_held_than_hands(grid: FakeGrid) -> None:
    with exchange(grid, hands=1) as post:
        for site in NODES:
            post.ask(site, lambda: b"x")
        first = answer(post)
        assert post.next(0.05) is None
        post.done()
        assert answer(post).site != first.site


def test_messages_carry_the_group(grid: FakeGrid, post: Round) -> None:
    post.ask("b", lambda: b"x")
    answer(post)
    assert [m.metadata.group_id for m in grid.sent] == ["run/1"]
    assert [m.metadata.dst_node_id for m in grid.sent] == [2]


def test_leaving_ends_the_threads(grid: FakeGrid) -> None:
    with exchange(grid) as post:
        for site in NODES:
            post.ask(site, lambda: b"x")
        threads = [t for t in threading.enumerate() if t.name.startswith("post-")]
        assert len(threads) == len(NODES)
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_each_letter_that_left_is_told(grid: FakeGrid) -> None:
    told: list[tuple[str, str, int]] = []

    def full(*letter: object) -> None:
        told.append(letter)  # type: ignore[arg-type]
        raise OSError("no space left on device")

    post = Round(
        cast("Grid", grid), lambda: NODES, "run/1", 1 << 20, SOON, 4, sent=full
    )
    with post:
        post.ask("a", lambda: b"four")
        assert answer(post).data == b"re: four"
    assert told == [("run/1", "a", 4)]
    assert len(grid.sent) == 1
