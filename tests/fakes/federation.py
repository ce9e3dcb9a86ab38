"""A federation in one thread: real halves of a round, a post that delivers at once.

A site whose process dies is started again with the next message; an aggregator that
dies is followed by whoever the test lets lead.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import numpy as np

from fedsecure.access.roster import Member, Role, Roster
from fedsecure.accounting import Relation
from fedsecure.assembly.node import recover_budgets
from fedsecure.checkpoint.patience import Bounds
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.checkpoint.vault import Vault
from fedsecure.client_round import ClientRound
from fedsecure.client_run import Identity
from fedsecure.disk import Disk
from fedsecure.errors import LeaseLost, PolicyRefused, StorageError
from fedsecure.flower.driver import RoundDriver
from fedsecure.flower.leader import Leader, Terms, Tools
from fedsecure.flower.post import Answer, Round
from fedsecure.keys import BoxKey, SigningKey
from fedsecure.ledger import Ledger, Record
from fedsecure.metadata import JournalEntry
from fedsecure.privacy.budget import Budget, Ceiling, Content
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.release import plan_digest
from fedsecure.runplan import RunPlan
from fedsecure.shelf import Shelf
from fedsecure.stores import Store
from fedsecure.trainer import JSON
from fedsecure.update import Layout, Vector
from fedsecure.witness import check_outbox
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk
from tests.fakes.fuses import (
    Died,
    Fuse,
    FusedDisk,
    FusedJournal,
    FusedStore,
    Turns,
)
from tests.fakes.metadata import State, engine
from tests.fakes.randomness import Stream
from tests.fakes.store import FlakyStore
from tests.fakes.trainer import CountingAccountant, ToyTrainer

RUN = "run-1"
MAX_BYTES = 1 << 24
QUORUM = 2
PATIENT = Bounds(60.0, 60.0)  # others may lead while a store's thread is paused
LEDGER = Path("/ledger.jsonl")


@dataclass
class OpenGate:
    """A policy that allows everything, until a test says what it does not."""

    refuses: str = ""

    def check(self, plan: RunPlan, layout: Layout | None) -> None:
        _ = plan, layout
        if self.refuses:
            raise PolicyRefused(self.refuses)

    def check_norm(self, plan: RunPlan, norm: float) -> None:
        _ = plan, norm


@dataclass
class Notes:
    """An observer that keeps what it is told, of all aggregators."""

    events: list[tuple[str, Mapping[str, JSON]]] = field(default_factory=list)

    def note(self, event: str, fields: Mapping[str, JSON]) -> None:
        self.events.append((event, fields))


@dataclass
class Wished:
    """A wish for a new run key, that a test makes."""

    rounds: set[int] = field(default_factory=set)
    asked: int = 0

    def wanted(self) -> bool:
        self.asked += 1
        return self.asked in self.rounds

    def granted(self) -> None:
        pass


class Site:
    """One site's machine: what lies on its disks, and the process that runs on it."""

    def __init__(self, federation: "Federation", name: str) -> None:
        self.name = name
        self.disk = FakeDisk()
        self.store = FlakyStore()
        self.gate = OpenGate()
        self.trainer = ToyTrainer(name)
        self.trainer.paid = self.reservations
        self.max_epsilon = 1000.0
        self.fuses: deque[Fuse] = deque()
        self.fuse = Fuse(name)
        self.deaths = 0
        self.budget: Budget | None = None
        self._federation = federation
        self._half: ClientRound | None = None
        self._verified: tuple[bytes, tuple[Record, ...]] | None = None

    def answer(self, data: bytes) -> bytes:
        """Return the answer of the process, which is started if none runs."""
        if self._half is None:
            self._half = self._start()
        return self._half.answer(data, self.trainer).to_bytes()

    def die(self) -> None:
        """End the process; the next message finds another one."""
        self._half = None
        self.deaths += 1
        self.disk = self.disk.restart()
        self.fuse = self.fuses.popleft() if self.fuses else Fuse(self.name)

    def half(self) -> ClientRound:
        """Return the running half of a round."""
        if self._half is None:
            self._half = self._start()
        return self._half

    def records(self) -> tuple[Record, ...]:
        """Return the ledger as it lies on the disk, verified once for its bytes."""
        data = self.disk.durable.get(LEDGER, b"")
        if self._verified is None or self._verified[0] != data:
            disk, key = self.disk.restart(), self._federation.signing(self.name)
            ledger = _ledger(disk, self.name, key, self._federation.clock)
            self._verified = (data, ledger.records())
        return self._verified[1]

    def opened(self) -> dict[int, str]:
        """Return the digest of the release opened, by round."""
        found = [r for r in self.records() if r.action == "aggregate.opened"]
        assert len({r.round for r in found}) == len(found)
        return {r.round: str(r.detail["release"]) for r in found}

    def reservations(self, number: int) -> int:
        """Return how often a round was paid for."""
        paid = [r for r in self.records() if r.action == "budget.reserve"]
        return sum(1 for r in paid if r.round == number)

    def shelf(self, run: str = RUN) -> Shelf:
        """Return the shelf of a run as it lies on the disk."""
        return Shelf(self.store, run, MAX_BYTES)

    def _start(self) -> ClientRound:
        federation = self._federation
        signing, box = federation.signing(self.name), federation.box(self.name)
        disk, store = FusedDisk(self.disk, self.fuse), FusedStore(self.store, self.fuse)
        ledger = _ledger(disk, self.name, signing, federation.clock)
        me = Identity(federation.roster.federation, self.name, signing, box)
        check_outbox(ledger, store, me)
        budgets = {}
        if federation.private:
            ceiling = Ceiling(
                self.max_epsilon, 1e-5, Relation.ADD_OR_REMOVE_ONE, bytes(32)
            )
            content = Content("data", "fingerprint", self.trainer.rows())
            self.budget = Budget.open(ledger, content, ceiling, [CountingAccountant])
            budgets["data"] = self.budget
            recover_budgets(budgets, store)
        return ClientRound(
            me,
            federation.roster,
            self.gate,
            ledger,
            budgets,
            store,
            Stream(self.name).bytes,
            max_bytes=MAX_BYTES,
        )


Due = tuple[str, Callable[[], bytes]]
"""A site that is asked, and what writes its letter."""


class Post:
    """One exchange that delivers a letter when its answer is asked for."""

    def __init__(self, federation: "Federation") -> None:
        self.sent_bytes: dict[str, int] = {}
        self.asked: dict[str, int] = {}
        self.ended = True
        self._federation = federation
        self._due: deque[Due] = deque()
        self._again: deque[Answer] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._due.clear()
        self._again.clear()

    def ask(self, site: str, letter: Callable[[], bytes]) -> None:
        self.asked[site] = self.asked.get(site, 0) + 1
        self._due.append((site, letter))

    def next(self, timeout: float) -> Answer | None:
        if self._again:
            return self._again.popleft()
        if not self._due:
            self._federation.clock.sleep(timeout)
            return None
        self._federation.reorder(self._due)
        site, letter = self._due.popleft()
        data = letter()
        self.sent_bytes[site] = self.sent_bytes.get(site, 0) + len(data)
        answer = self._federation.deliver(site, data)
        if answer is None:
            self._due.append((site, letter))
            self._federation.clock.sleep(timeout)
            return None
        if self._federation.echoes(site):
            self._again.append(Answer(site, answer))
        return Answer(site, answer)

    def done(self) -> None:
        pass


class Federation:
    """Sites, aggregators, their stores and engine, and a plan.

    Attributes
    ----------
    tamper : callable
        (site, answer) -> what arrives; None: lost, the letter is delivered again.
    reorder : callable
        Changes the order in which letters are delivered; by default it stays.
    echoes : callable
        Whether an answer of a site arrives twice.
    terms_led : list of int
        The term of every leadership, in order.
    """

    def __init__(  # noqa: PLR0913 - what tests vary, each by its name
        self,
        *,
        sites: int = 3,
        rounds: int = 2,
        scheme: str = "insecure_plain",
        private: bool = True,
        masked: bool = False,
        threshold: int = 2,
        min_contributors: int | None = None,
        deadline: float = 60.0,
        run: str = RUN,
    ) -> None:
        self.run = run
        self.clock = FakeClock()
        self.state = State(self.clock)
        self.private = private
        self.threshold = threshold if masked else 0
        self.stores = [FlakyStore() for _ in range(3)]
        self.notes = Notes()
        self.rotation = Wished()
        self.tamper: Callable[[str, bytes], bytes | None] = lambda _, data: data
        self.reorder: Callable[[deque[Due]], None] = lambda _: None
        self.echoes: Callable[[str], bool] = lambda _: False
        self.terms_led: list[int] = []
        names = [f"site-{i + 1}" for i in range(sites)]
        self.aggregators = ("agg-1", "agg-2")
        self.roster = Roster(
            "f" * 64, 1, {n: self._member(n) for n in (*names, *self.aggregators)}
        )
        self.disks = {name: FakeDisk() for name in self.aggregators}
        self.plan = self._plan(names, rounds, scheme, min_contributors or sites)
        self.terms = Terms(
            run=run,
            plan=self.plan,
            plan_digest=plan_digest(self.plan),
            rounds=rounds,
            min_contributors=min_contributors or sites,
            max_contributors=16,
            sites=tuple(names),
            custodians=tuple(names),
            deadline=deadline,
            threshold=self.threshold,
            max_bytes=MAX_BYTES,
        )
        self.sites = {name: Site(self, name) for name in names}

    def restate(self) -> None:
        """Take a changed plan for the run's; before anything runs."""
        self.terms = replace(self.terms, plan_digest=plan_digest(self.plan))

    def signing(self, name: str) -> SigningKey:
        """Return a member's signing key."""
        return SigningKey.from_bytes(hashlib.sha256(name.encode()).digest())

    def box(self, name: str) -> BoxKey:
        """Return a member's box key."""
        return BoxKey.from_bytes(hashlib.sha256(b"box" + name.encode()).digest())

    def revoke(self, name: str) -> None:
        """Write the next roster, in which a site takes no part; halves start anew."""
        revoked = self.roster.revoked | {name}
        self.roster = replace(
            self.roster, version=self.roster.version + 1, revoked=revoked
        )
        self.terms = replace(self.terms, revoked=revoked)
        for site in self.sites.values():
            site.die()

    def deliver(self, site: str, data: bytes) -> bytes | None:
        """Return a site's answer; None if its process died over it or it was lost.

        A process whose disk fails ends, as the node daemon does.
        """
        try:
            return self.tamper(site, self.sites[site].answer(data))
        except StorageError:
            self.sites[site].die()
            return None
        except Died as died:
            if died.owner != site:
                raise
            self.sites[site].die()
            return None

    def leader(
        self,
        name: str,
        fuse: Fuse | None = None,
        check: Callable[[], None] | None = None,
    ) -> Leader:
        """Return a leadership under a new term, the old lease being over."""
        self.state.ends = 0.0
        lease = engine(self.state).leases.acquire(name, "", 1e9)
        assert lease is not None
        self.terms_led.append(lease.term)
        fuse = fuse or Fuse(name)
        self.disks[name] = self.disks[name].restart()
        ledger = _ledger(
            FusedDisk(self.disks[name], fuse), name, self.signing(name), self.clock
        )
        tools = Tools(
            name,
            self.signing(name),
            {s: self.roster.members[s].signing for s in self.terms.sites},
            FusedJournal(engine(self.state).journal, fuse),
            self.vault(name, fuse),
            ledger,
            self.notes,
            self.clock,
            lambda _: cast("Round", Post(self)),
            self.rotation,
        )

        def holds() -> None:
            if self.state.term != lease.term:
                raise LeaseLost(f"term {lease.term} is over")

        return Leader(self.terms, tools, lease.term, check or holds)

    def lead(
        self,
        name: str = "agg-1",
        fuse: Fuse | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Do what is left of the run."""
        RoundDriver(self.leader(name, fuse, check)).run()

    def vault(self, name: str, fuse: Fuse | None = None) -> Vault:
        """Return an aggregator's view of the stores."""
        fuse, turns = fuse or Fuse(name), Turns(len(self.stores))
        stores: list[tuple[str, Store]] = [
            (f"store-{i}", FusedStore(s, fuse, turns, i))
            for i, s in enumerate(self.stores)
        ]
        return Vault(
            Replicas(stores, QUORUM, bounds=PATIENT),
            name,
            self.signing(name),
            self.box(name),
            {a: self.box(a).public for a in self.aggregators},
            {a: self.signing(a).public for a in self.aggregators},
            self.clock,
            rosters=Rosters(self.roster),
        )

    def expected_model(self) -> Vector:
        """Return FedAvg of the toys in plain floats, quantised nowhere."""
        _, model = self.sites[self.terms.sites[0]].trainer.initial({})
        for _ in range(self.terms.rounds):
            steps = [site.trainer.step(model) for site in self.sites.values()]
            model = model + np.mean(steps, axis=0)
        return np.asarray(model)

    def models(self) -> dict[str, bytes]:
        """Return the last model of every site, bit for bit; empty: it has none."""
        head = engine(self.state).journal.head(self.run)
        assert head is not None
        out = {}
        for name, site in self.sites.items():
            model = site.shelf(self.run).model(head.round)
            out[name] = b"" if model is None else model.tobytes()
        return out

    def journal(self) -> list[JournalEntry]:
        """Return the whole journal of the run."""
        return list(engine(self.state).journal.entries(self.run, 0))

    def _member(self, name: str) -> Member:
        role = Role.SITE if name.startswith("site") else Role.AGGREGATOR
        signing, box = self.signing(name).public, self.box(name).public
        return Member(name, role, "org", signing, box, "", "")

    def _plan(
        self, sites: Sequence[str], rounds: int, scheme: str, least: int
    ) -> dict[str, JSON]:
        privacy = PrivacyPlan(Mode.NONE)
        if self.private:
            privacy = PrivacyPlan(
                Mode.EXAMPLE_LOCAL,
                clip_norm=1.0,
                noise_multiplier=1.0,
                sample_rate=0.1,
                steps_per_round=1,
                rounds=rounds,
                delta=1e-5,
                divisor=5.0,
            )
        return {
            "format": 1,
            "federation": self.roster.federation,
            "run": self.run,
            "project": "project",
            "dataset": "data",
            "rounds": rounds,
            "sites": list(sites),
            "custodians": list(sites),
            "min_contributors": least,
            "seed": 7,
            "metrics": "plain",
            "max_rows": 0 if self.private else 100,
            "model": {},
            "train": {},
            "privacy": privacy.document(),
            "encryption": {
                "scheme": scheme,
                "profile": "20",
                "value_range": 1.0,
                "range_from": "config",
                "range_multiple": 4.0,
                "rounding": "nearest",
                "error_feedback": False,
                "max_contributors": 16,
                "downlink": "seeds",
                "link_mbps": 100.0,
                "masking": "pairwise" if self.threshold else "none",
                "masking_threshold": self.threshold,
                "encrypt_layers": [],
            },
        }


def _ledger(disk: Disk, name: str, key: SigningKey, clock: FakeClock) -> Ledger:
    return Ledger.open(LEDGER, name, key, disk, clock)
