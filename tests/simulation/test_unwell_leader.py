"""A SuperLink, or a round, stands still: its leader gives up, and says why.

The real strategy, driver, grid and sites in one process. Every call to the grid blocks,
as calls over a network do that are retried for ever (FLOWER.md section 6, rule 10); or
a store does, as a disk that does not return.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.superlink.grid import InMemoryGrid  # noqa: TID251 - it is what stands still

from fedsecure import experiment, registry
from fedsecure.backends import Job
from fedsecure.checkpoint.vault import Vault
from fedsecure.composition import composed
from fedsecure.flower import vitals
from fedsecure.trainer import JSON

CONFIG = (
    "backend=inprocess",
    "data=breast_cancer",
    "model=logistic",
    "federation.sites=2",
    "federation.rounds=2",
    "privacy=none",
    "encryption=insecure_plain",
    "baselines=false",
    "store=memory",
)
LIMIT = 1.0
CALLS = ("get_node_ids", "get_nodes", "push_messages", "pull_messages")


class Still:
    """A SuperLink that stands still from a round's opening until it is missed."""

    def __init__(self, stops_in: int) -> None:
        self._stops_in, self.stopped = stops_in, False
        self._goes = threading.Event()
        self._goes.set()
        self.events: list[Mapping[str, JSON]] = []

    def __call__(self, event: Mapping[str, JSON]) -> None:
        self.events.append(event)
        if event["event"] == "opened" and event["round"] == self._stops_in:
            if not self.stopped:
                self._goes.clear()
            self.stopped = True
        if event["event"] == "lost":
            self._goes.set()

    def behind(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def waits(*given: Any, **named: Any) -> Any:
            assert self._goes.wait(30)
            return call(*given, **named)

        return waits

    def said(self) -> list[JSON]:
        return [e["event"] for e in self.named("leader", "unwell", "lost", "well")]

    def named(self, *events: str) -> list[Mapping[str, JSON]]:
        return [e for e in self.events if e["event"] in events]


def run(folder: Path, seen: Still) -> None:
    config = composed([*CONFIG, f"run_root={folder}"])
    parts = experiment._simulated(config)
    kits = experiment._kits(config, folder)
    plan = experiment.make_plan(config, kits, parts)
    place = folder / "run"
    place.mkdir()
    job = Job(config, plan, kits, place, seen)
    registry.load("backends", "inprocess").create({}).run(job)


class StoodUp(Still):
    """A store that stands still in a round's release until that is missed."""

    def __call__(self, event: Mapping[str, JSON]) -> None:
        self.events.append(event)
        if event["event"] == "opened" and event["round"] == self._stops_in:
            self._goes.clear()
        if event["event"] == "unwell":
            self._goes.set()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "SILENCE", LIMIT)
    monkeypatch.setattr(vitals, "SILENCE_TTLS", 0)
    monkeypatch.setattr(vitals, "STEP", LIMIT)
    monkeypatch.setattr(vitals, "_EVERY", 0.01)


@pytest.mark.usefixtures("impatient")
def test_leader_of_a_superlink_that_stands_still_gives_up_and_leads_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Still(stops_in=2)
    for name in CALLS:
        call = getattr(InMemoryGrid, name)
        monkeypatch.setattr(InMemoryGrid, name, seen.behind(call))
    run(tmp_path, seen)
    assert seen.said() == ["leader", "unwell", "lost", "well", "leader"]
    (lost,) = seen.named("lost")
    assert "its SuperLink has not answered for" in str(lost["reason"])
    assert [e["round"] for e in seen.named("released")] == [1, 2]
    assert [e["round"] for e in seen.named("resumed")] == [2]


@pytest.mark.usefixtures("impatient")
def test_leader_whose_round_stands_still_gives_up_while_its_superlink_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = StoodUp(stops_in=2)
    monkeypatch.setattr(Vault, "release", seen.behind(Vault.release))
    run(tmp_path, seen)
    assert seen.said()[:3] == ["leader", "unwell", "lost"]
    assert sorted(map(str, seen.said()[3:])) == ["leader", "well"]
    (unwell,) = seen.named("unwell")
    assert "its round made no step for" in str(unwell["reason"])
    assert [e["round"] for e in seen.named("released")] == [1, 2]
