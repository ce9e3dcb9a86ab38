"""The leading aggregator is stopped with SIGSTOP in mid-round and resumed later.

Every process of its host stands still, the standby takes over, and once round 2 is
released the old one goes on: it must not release anything any more.
"""

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedsecure import experiment, registry
from fedsecure.access.roster import Role
from fedsecure.backends import Job
from fedsecure.composition import composed
from fedsecure.disk import SystemDisk
from fedsecure.drills.processes import processes_of
from fedsecure.ledger import verify_ledger
from fedsecure.summary import digest
from fedsecure.trainer import JSON
from tests.fakes.kits import kit

pytestmark = [
    pytest.mark.integration,
    pytest.mark.flower,
    pytest.mark.chaos,
    pytest.mark.timeout(290),
]

SITES, ROUNDS, STOP_IN = 2, 3, 2
CONFIG = (
    "backend=deployment",
    "data=breast_cancer",
    "model=logistic",
    f"federation.sites={SITES}",
    f"federation.rounds={ROUNDS}",
    "privacy=none",
    "encryption=insecure_plain",
)


@dataclass
class Pause:
    """Stops the leader's host at its first update of a round; resumes it later."""

    kits: Path
    victim: str = ""
    stopped: frozenset[int] = field(default_factory=frozenset)

    def watch(self, event: Mapping[str, JSON]) -> None:
        """Act on an event of the run as it happens."""
        if event["event"] == "update" and event["round"] == STOP_IN and not self.victim:
            self.victim = str(event["source"])
            self.stopped = processes_of(self.kits / self.victim)
            self.signal(signal.SIGSTOP)
        elif event["event"] == "released" and event["round"] == STOP_IN:
            self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the victim that is left."""
        for pid in self.stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def test_resumed_leader_releases_nothing_and_the_run_has_one_model(
    tmp_path: Path,
) -> None:
    config = composed([*CONFIG, f"run_root={tmp_path}"])
    parts = experiment._simulated(config)
    kits, folder = experiment._kits(config, tmp_path), tmp_path / "run"
    plan = experiment.make_plan(config, kits, parts)
    folder.mkdir()
    pause = Pause(kits)
    backend = registry.load("backends", "deployment").create({})
    try:
        outcome = backend.run(Job(config, plan, kits, folder, pause.watch))
    finally:
        pause.signal(signal.SIGCONT)
    assert len(pause.stopped) >= 3
    events = outcome.events
    leaders = {e["round"]: e["source"] for e in events if e["event"] == "released"}
    assert leaders[1] == pause.victim
    assert pause.victim not in {leaders[2], leaders[3]}
    totals = digest(outcome, plan).totals
    assert (totals["rounds_lost"], totals["updates_lost"]) == (0, 0)
    opened = []
    for index in range(SITES):
        site = kit(kits, f"site-{index + 1:02d}").require(Role.SITE)
        records = verify_ledger(site.state / "ledger.jsonl", SystemDisk())
        rows = [r for r in records if r.action == "aggregate.opened"]
        opened.append([(r.round, r.detail["release"]) for r in rows])
        assert not [r for r in records if r.action == "aggregate.second"]
    assert [number for number, _ in opened[0]] == [1, 2, 3]
    assert opened[0] == opened[1]
