"""Sixty-four sites, and answers that come faster than the disks take them.

What a leader holds of answers is bounded by its hands, not by its sites: an answer that
nobody has stored yet stays where it is. Real grids hold it in the relay's process.
"""

import threading
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity  # noqa: TID251 - messages need it

from fedsecure import experiment, registry
from fedsecure.backends import Job, Outcome
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.composition import composed
from fedsecure.flower import records
from fedsecure.flower.post import Round, Timing
from tests.fakes.federation import Federation
from tests.fakes.fuses import Died, Fuse
from tests.fakes.history import violations
from tests.fakes.store import FlakyStore

SITES, HANDS, ANSWER = 64, 4, 1 << 20
BESIDE = 6 * ANSWER
"""Bytes beside the answers held: one being made, one being written, 64 threads."""


def crowd(sites: int = SITES) -> Federation:
    """Return a federation of many sites."""
    federation = Federation(sites=sites, rounds=1)
    encryption = federation.plan["encryption"]
    assert isinstance(encryption, dict)
    encryption["max_contributors"] = sites
    federation.terms = replace(federation.terms, max_contributors=sites)
    federation.restate()
    return federation


def test_sixty_four_sites_finish_although_leaders_die() -> None:
    federation = crowd()
    for name, step in (("agg-1", 90), ("agg-2", 70)):
        with pytest.raises(Died):
            federation.lead(name, Fuse(name, dies_after=step))
    federation.lead("agg-1")
    assert violations(federation) == []
    assert all(s.trainer.trained == {1: 1} for s in federation.sites.values())
    model = np.frombuffer(federation.models()["site-1"], dtype="<f8")
    assert np.abs(model - federation.expected_model()).max() < 1e-5


# --- back-pressure --------------------------------------------------------------------


@dataclass
class Eager:
    """A grid whose sites have all answered before anybody asks.

    Attributes
    ----------
    pulled : int
        Answers that were fetched.
    """

    sent: list[Message] = field(default_factory=list)
    pulled: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        with self.turn:
            self.sent += messages
            return [str(len(self.sent) - 1)]

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        (name,) = ids
        with self.turn:
            self.pulled += 1
        return [records.reply(bytes(ANSWER), self.sent[int(name)])]


class Slow(FlakyStore):
    """A store that waits, with each put, until every hand of the leader is full."""

    def __init__(self, grid: Eager) -> None:
        super().__init__()
        self.held = 0
        self._grid = grid
        self._pause = threading.Event()

    def put(self, key: str, value: bytes) -> None:
        self._pause.wait(0.01)
        self.held = max(self.held, self._grid.pulled - len(self.objects))
        self.objects[key] = value[:1]  # a disk keeps no memory


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def held(hands: int) -> tuple[int, int]:
    """Return answers held at once, and memory at its peak in bytes; a store is slow."""
    grid = Eager()
    store = Slow(grid)
    stores = Replicas([("slow", store)], 1)
    nodes = {f"site-{n}": n + 1 for n in range(SITES)}
    asked, timing = cast("Grid", grid), Timing(poll=0.001, retry=0.001)
    tracemalloc.start()
    try:
        with Round(asked, lambda: nodes, "1", 2 * ANSWER, timing, hands) as exchange:
            for name in nodes:
                exchange.ask(name, lambda: b"train")
            for _ in nodes:
                answer = exchange.next(10.0)
                assert answer is not None
                stores.put(f"update/{answer.site}", answer.data)
                del answer
                exchange.done()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(store.objects) == grid.pulled == SITES
    return store.held, peak


def test_slow_store_holds_answers_back_and_memory_down() -> None:
    answers, peak = held(HANDS)
    assert answers <= HANDS
    assert peak < HANDS * ANSWER + BESIDE < SITES * ANSWER / 4


def test_answers_that_nothing_holds_back_are_noticed() -> None:
    answers, peak = held(SITES)
    assert answers > HANDS
    assert peak > HANDS * ANSWER + BESIDE


# --- in one process, with real messages -----------------------------------------------


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_sixty_four_sites_run_on_real_messages(tmp_path: Path) -> None:
    ran = run(prepared(tmp_path, SITES))
    released = [e for e in ran.events if e["event"] == "released"]
    assert [e["round"] for e in released] == [1, 2]
    for event in released:
        participants = event["participants"]
        assert isinstance(participants, list)
        assert len(participants) == SITES


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_four_runs_at_once_finish_as_each_alone(tmp_path: Path) -> None:
    jobs = [prepared(tmp_path / str(number), 3) for number in range(4)]
    done: dict[int, Outcome] = {}

    def work(number: int) -> None:
        done[number] = run(jobs[number])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1, 2, 3]
    for ran in done.values():
        rounds = [e["round"] for e in ran.events if e["event"] == "released"]
        assert rounds == [1, 2]


def prepared(root: Path, sites: int) -> Job:
    """Return a run of the inprocess backend."""
    root.mkdir(parents=True, exist_ok=True)
    config = composed(
        [
            "backend=inprocess",
            "data=breast_cancer",
            "model=logistic",
            "privacy=none",
            "encryption=insecure_plain",
            "encryption.masking=none",
            f"encryption.max_contributors={max(sites, 16)}",
            f"federation.sites={sites}",
            "federation.rounds=2",
            f"run_root={root}",
        ]
    )
    parts = experiment._simulated(config)
    kits, folder = experiment._kits(config, root), root / "run"
    plan = experiment.make_plan(config, kits, parts)
    folder.mkdir()
    return Job(config, plan, kits, folder, lambda _: None)


def run(job: Job) -> Outcome:
    """Return what a run left."""
    backend = registry.load("backends", "inprocess").create({})
    outcome: Outcome = backend.run(job)
    return outcome
