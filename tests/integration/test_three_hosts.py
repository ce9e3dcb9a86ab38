"""The layout of docs/deploy.md on three namespaces: one host is cut off, one is lost.

The leader's host is cut off in mid-round and healed; later the host of whoever leads by
then is lost for good, in mid-round again, with its etcd member and its copy of the
checkpoints. The run ends on what is left, with the model of a run without faults.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.backends import Job
from fedsecure.clock import SystemClock
from fedsecure.composition import composed
from fedsecure.experiment import prepare
from tests.fakes.hosts import require_hosts
from tests.fakes.servers import no_etcd
from tests.fakes.threehosts import AGGREGATORS, PLAN, PORT, SITES, ThreeHosts, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.chaos,
    pytest.mark.timeout(560),
    pytest.mark.skipif(bool(no_etcd()), reason=no_etcd()),
]
ROUNDS, CUT_IN, LOSE_IN = 4, 2, 3
PATIENCE = 400.0
SERVED = {2379, 2380, 8333, PORT}


@dataclass
class Story:
    """What happened to the federation, and what it left.

    Attributes
    ----------
    cut, lost : str
        The aggregator that was cut off and healed; the one whose host was lost.
    moments : dict
        When each blow was struck, in the events' own seconds.
    killed : int
        Processes of the lost host.
    """

    federation: ThreeHosts
    events: list[Mapping[str, object]] = field(default_factory=list)
    cut: str = ""
    lost: str = ""
    moments: dict[str, float] = field(default_factory=dict)
    killed: int = 0
    standing_by: str = ""
    open_to_sites: list[int] = field(default_factory=list)
    heard: dict[str, list[str]] = field(default_factory=dict)
    verdict: dict[str, object] = field(default_factory=dict)

    def play(self) -> None:
        """Follow the run to its end, and break things on the way."""
        ends = time.monotonic() + PATIENCE
        while not any(e["event"] == "finished" for e in self.events):
            fresh = self.federation.events()
            self.events += fresh
            for event in fresh:
                self._act(event)
            self.federation.keep()
            if time.monotonic() > ends:
                raise TimeoutError(f"no end; {[_short(e) for e in self.events[-12:]]}")
            time.sleep(0.05)

    def _act(self, event: Mapping[str, object]) -> None:
        """Break things while a round is half done: its last site is held back."""
        source = str(event["source"])
        if _released(event, CUT_IN - 1):
            self.federation.stop(SITES[-1])
            self._look()
        elif _first_update(event, CUT_IN) and not self.cut:
            self.cut = source
            self._strike("cut", lambda: self.federation.hosts.cut(AGGREGATORS[source]))
        elif _released(event, CUT_IN):
            self.federation.stop(SITES[-1])
            self.federation.hosts.heal(AGGREGATORS[self.cut])
            until(lambda: self.federation.serves(self.cut), 90.0)
            self.standing_by = self.federation.leads(self.cut)
        elif _first_update(event, LOSE_IN) and not self.lost:
            self.lost = source
            self._strike("lost", lambda: self._lose(AGGREGATORS[source]))

    def _strike(self, name: str, blow: Callable[[], None]) -> None:
        blow()
        self.moments[name] = SystemClock().now()
        self.federation.resume(SITES[-1])

    def _lose(self, host: str) -> None:
        self.killed = self.federation.lose(host)

    def _look(self) -> None:
        hosts = self.federation.hosts
        self.heard = {name: hosts.listening(name) for name in hosts.names}
        site, host = SITES[0], AGGREGATORS["agg-1"]
        tried = sorted(SERVED)
        self.open_to_sites = [p for p in tried if hosts.reaches(site, host, p)]

    def times(self) -> str:
        """Return the seconds from each blow to what followed; `pytest -s` shows it."""
        lines = [""]
        for blow, moment in self.moments.items():
            for kind in ("leader", "resumed", "released"):
                seconds = _now(self.first(kind, blow)) - moment
                lines.append(f"{blow} -> {kind}: {seconds:.1f} s")
        return "\n".join([*lines, ""])

    def left(self) -> str:
        """Return the aggregator whose host is not lost."""
        return next(name for name in AGGREGATORS if name != self.lost)

    def first(self, kind: str, after: str) -> Mapping[str, object]:
        """Return the first event of a kind after a blow."""
        return next(
            e
            for e in self.events
            if e["event"] == kind and _now(e) >= self.moments[after]
        )


def _released(event: Mapping[str, object], number: int) -> bool:
    return event["event"] == "released" and event["round"] == number


def _first_update(event: Mapping[str, object], number: int) -> bool:
    return event["event"] == "update" and event["round"] == number


def _now(event: Mapping[str, object]) -> float:
    return float(str(event["now"]))


def _short(event: Mapping[str, object]) -> str:
    names = ("source", "event", "round", "term")
    return " ".join(str(event[n]) for n in names if event.get(n) is not None)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    require_hosts()
    federation = ThreeHosts(tmp_path_factory.mktemp("hosts"), ROUNDS)
    federation.provision()
    federation.plan()
    told = Story(federation)
    try:
        federation.start()
        told.play()
        left = told.left()
        arguments = [str(federation.kits), left, f"{AGGREGATORS[told.lost]}."]
        said = federation.on(AGGREGATORS[left], "-m", "tests.fakes.verdict", *arguments)
        told.verdict = json.loads(said.splitlines()[-1])
        sys.stderr.write(told.times())
        yield told
    finally:
        federation.close()


def test_every_round_is_released_once(story: Story) -> None:
    released = [e["round"] for e in story.events if e["event"] == "released"]
    assert released == [*range(1, ROUNDS + 1)]


def test_a_host_that_was_cut_off_released_nothing_and_the_other_one_finished_the_round(
    story: Story,
) -> None:
    leader = story.first("leader", "cut")
    assert leader["source"] != story.cut
    assert story.first("released", "cut")["source"] == leader["source"]
    assert story.first("released", "cut")["round"] == CUT_IN


def test_a_leader_that_is_cut_off_gives_up_by_itself(story: Story) -> None:
    lost = story.first("lost", "cut")
    assert (lost["source"], lost["term"]) == (story.cut, 1)


def test_the_successor_reused_what_had_been_accepted(story: Story) -> None:
    for blow in ("cut", "lost"):
        assert story.first("resumed", blow)["reused"]


def test_a_host_that_is_healed_stands_by_under_the_new_leader(story: Story) -> None:
    assert story.standing_by == story.lost  # who led then, and was lost later


def test_a_host_lost_for_good_is_followed_by_the_one_that_had_been_cut_off(
    story: Story,
) -> None:
    assert story.killed > 3  # etcd, the store, and an aggregator of several processes
    assert story.first("leader", "lost")["source"] == story.cut == story.left()
    assert story.first("finished", "lost")["source"] == story.cut


def test_the_invariants_hold_on_what_is_left(story: Story) -> None:
    assert story.verdict == {"broken": [], "commits": ROUNDS}


def test_servers_listen_at_their_hosts_address_and_nowhere_else(story: Story) -> None:
    addresses = story.federation.hosts.addresses
    for name, sockets in story.heard.items():
        outside = {s.rpartition(":")[0] for s in sockets if not s.startswith("127.")}
        assert outside <= {addresses[name]}, (name, sockets)
    for aggregator, host in AGGREGATORS.items():
        assert f"{addresses[host]}:{PORT}" in story.heard[host], aggregator


def test_a_site_reaches_the_aggregator_and_neither_engine_nor_store(
    story: Story,
) -> None:
    assert story.open_to_sites == [PORT]


def test_the_model_is_that_of_a_run_without_faults(
    story: Story, tmp_path: Path
) -> None:
    config = composed(
        [
            "backend=inprocess",
            *PLAN,
            f"federation.rounds={ROUNDS}",
            f"run_root={tmp_path}",
        ]
    )
    kits, plan = prepare(config, tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    registry.load("backends", "inprocess").create({}).run(
        Job(config, plan, kits, run, lambda _: None)
    )
    wanted = {p.read_bytes() for p in run.glob(f"sites/*/shelf/*/model/{ROUNDS}")}
    made = [
        p.read_bytes()
        for site in SITES
        for p in story.federation.kits.glob(f"{site}/state/shelf/*/model/{ROUNDS}")
    ]
    assert len(wanted) == 1
    assert len(made) == len(SITES)
    assert set(made) == wanted
