"""Releases brought by a standby, on real processes: relied on, missed when it stops.

In `make chaos`: a run of two minutes. In one thread: tests/simulation/test_carried.py.
"""

import os
import signal
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from fedsecure import experiment, registry
from fedsecure.backends import Job
from fedsecure.composition import composed
from fedsecure.drills.processes import processes_of
from fedsecure.trainer import JSON

pytestmark = [
    pytest.mark.integration,
    pytest.mark.flower,
    pytest.mark.chaos,
    pytest.mark.timeout(290),
]

SITES, ROUNDS, STOPS_AFTER = 2, 7, 5
CONFIG = (
    "backend=deployment",
    "data=digits",
    "model=mlp",
    "privacy=none",
    "encryption=insecure_plain",
    f"federation.sites={SITES}",
    f"federation.rounds={ROUNDS}",
    "store.carry_from_mb=0",
)


class Watched:
    """What the aggregators said, and the stop of the one that stands by."""

    def __init__(self, kits: Path) -> None:
        self._kits = kits
        self.events: list[Mapping[str, JSON]] = []
        self.leader = ""

    def __call__(self, event: Mapping[str, JSON]) -> None:
        self.events.append(event)
        if event["event"] == "leader":
            self.leader = str(event["source"])
        if event["event"] == "released" and event["round"] == STOPS_AFTER:
            self._send(signal.SIGSTOP)
        if event["event"] == "released" and event["round"] == ROUNDS:
            self._send(signal.SIGCONT)  # so that it ends with the run

    def _send(self, number: signal.Signals) -> None:
        """Signal the standby's whole host: SuperLink, ServerApp, supervisor."""
        (standby,) = {"agg-1", "agg-2"} - {self.leader}
        found = processes_of(self._kits / standby)
        assert found
        for pid in sorted(found):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def sent(self) -> dict[tuple[str, int], int]:
        """Return the bytes of the letters of each round, by site."""
        out = Counter[tuple[str, int]]()
        for e in self.events:
            group = str(e.get("group", "")).split("/")
            if e["event"] == "sent" and len(group) == 2 and group[1].isdigit():
                key = (str(e["site"]), int(group[1]))
                out[key] = max(out[key], int(str(e["bytes"])))
        return out

    def codes(self) -> list[object]:
        return [e["code"] for e in self.events if e["event"] == "rejected"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("c")
    config = composed([*CONFIG, f"run_root={folder}"])
    parts = experiment._simulated(config)
    kits = experiment._kits(config, folder)
    plan = experiment.make_plan(config, kits, parts)
    run = folder / "run"
    run.mkdir()
    seen = Watched(kits)
    registry.load("backends", "deployment").create({}).run(
        Job(config, plan, kits, run, seen)
    )
    return seen


def test_every_round_is_released(watched: Watched) -> None:
    released = [e["round"] for e in watched.events if e["event"] == "released"]
    assert released == list(range(1, ROUNDS + 1))


def test_standby_brings_releases_while_it_lives(watched: Watched) -> None:
    brought = {
        (e["site"], e["round"]) for e in watched.events if "carried" in e.values()
    }
    sites = {str(site) for site, _ in brought}
    assert len(sites) == SITES
    assert {number for _, number in brought} >= set(range(2, STOPS_AFTER))


def test_leader_sends_letters_without_releases_then(watched: Watched) -> None:
    sent = watched.sent()
    for site in {site for site, _ in sent}:
        with_it, without = sent[site, 2], sent[site, STOPS_AFTER]
        assert without < with_it / 4


def test_stopped_standby_is_missed_once_and_the_leader_sends_again(
    watched: Watched,
) -> None:
    assert watched.codes() == ["release_missing"] * SITES
    sent = watched.sent()
    for site in {site for site, _ in sent}:
        assert sent[site, ROUNDS] > sent[site, STOPS_AFTER] * 4
