"""The leader's SuperLink alone is stopped with SIGSTOP in mid-round, and goes on later.

Its ServerApp, supervisor and lease go on: nothing has ended, and calls to the SuperLink
are retried for ever. The leader must give up by itself, and come back as a standby.
"""

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from fedsecure import experiment, registry
from fedsecure.access.roster import Role
from fedsecure.backends import Job, Outcome
from fedsecure.composition import composed
from fedsecure.disk import SystemDisk
from fedsecure.drills.processes import processes_of
from fedsecure.flower.vitals import SILENCE
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

SITES, ROUNDS, STOP_IN = 2, 4, 2
CONFIG = (
    "backend=deployment",
    "data=breast_cancer",
    "model=logistic",
    f"federation.sites={SITES}",
    f"federation.rounds={ROUNDS}",
    "privacy=none",
    "encryption=insecure_plain",
)


class Stop:
    """Stops the leader's SuperLink at its first update of a round; resumes it later."""

    def __init__(self, kits: Path) -> None:
        self._kits = kits
        self.victim, self.stopped = "", 0

    def __call__(self, event: Mapping[str, JSON]) -> None:
        if event["event"] == "update" and event["round"] == STOP_IN and not self.victim:
            self.victim = str(event["source"])
            (self.stopped,) = superlinks(self._kits / self.victim)
            self.signal(signal.SIGSTOP)
        elif event["event"] == "released" and event["round"] == STOP_IN:
            self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        if self.stopped:
            with suppress(ProcessLookupError):
                os.kill(self.stopped, number)


def superlinks(folder: Path) -> list[int]:
    """Return the SuperLinks of one member: no SuperExec, no ServerApp."""
    found = []
    for pid in processes_of(folder):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"flower-superlink") for word in words[:2]):
                found.append(pid)
    return found


class Run:
    """The run, and what it left."""

    def __init__(self, folder: Path) -> None:
        config = composed([*CONFIG, f"run_root={folder}"])
        parts = experiment._simulated(config)
        self.kits, place = experiment._kits(config, folder), folder / "run"
        self.plan = experiment.make_plan(config, self.kits, parts)
        place.mkdir()
        self.stop = Stop(self.kits)
        job = Job(config, self.plan, self.kits, place, self.stop)
        try:
            backend = registry.load("backends", "deployment").create({})
            self.outcome: Outcome = backend.run(job)
        finally:
            self.stop.signal(signal.SIGCONT)

    def at(self, event: str, source: str = "", number: int = 0) -> list[float]:
        """Return when something happened."""
        return [
            float(str(e["now"]))
            for e in self.outcome.events
            if e["event"] == event
            and source in ("", e["source"])
            and number in (0, e.get("round"))
        ]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("s"))


def test_the_other_aggregator_leads_and_finishes_the_run(ran: Run) -> None:
    released = [e for e in ran.outcome.events if e["event"] == "released"]
    assert [e["round"] for e in released] == list(range(1, ROUNDS + 1))
    sources = [e["source"] for e in released]
    assert sources[0] == ran.stop.victim
    assert ran.stop.victim not in sources[1:]


def test_nothing_is_lost(ran: Run) -> None:
    totals = digest(ran.outcome, ran.plan).totals
    assert (totals["rounds_lost"], totals["updates_lost"]) == (0, 0)


def test_leader_says_why_it_gave_up_and_gives_up_within_its_bound(ran: Run) -> None:
    victim = ran.stop.victim
    lost = [
        str(e["reason"])
        for e in ran.outcome.events
        if e["event"] == "lost" and e["source"] == victim
    ]
    assert lost
    assert "its SuperLink has not answered for 15 s" in lost[0]
    (unwell,) = ran.at("unwell", victim)
    stopped = ran.at("update", victim, STOP_IN)[0]
    assert SILENCE - 1 < unwell - stopped < 2 * SILENCE


def test_only_the_silent_aggregator_was_unwell(ran: Run) -> None:
    sick = {e["source"] for e in ran.outcome.events if e["event"] == "unwell"}
    assert sick == {ran.stop.victim}


def test_old_leader_comes_back_as_a_standby(ran: Run) -> None:
    victim = ran.stop.victim
    stopped, over = ran.at("unwell", victim)[0], ran.at("finished")[0]
    assert not [at for at in ran.at("leader", victim) if stopped < at < over]
    again = ran.at("well", victim) + ran.at("standby", victim)
    assert [at for at in again if at > stopped]


def test_nothing_is_done_twice(ran: Run) -> None:
    opened = []
    for index in range(SITES):
        site = kit(ran.kits, f"site-{index + 1:02d}").require(Role.SITE)
        records = verify_ledger(site.state / "ledger.jsonl", SystemDisk())
        rows = [r for r in records if r.action == "aggregate.opened"]
        opened.append([(r.round, r.detail["release"]) for r in rows])
        assert not [r for r in records if r.action == "aggregate.second"]
    assert [number for number, _ in opened[0]] == list(range(1, ROUNDS + 1))
    assert opened[0] == opened[1]
