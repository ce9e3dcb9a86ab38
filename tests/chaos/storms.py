"""Storms: one seed is one federation, one schedule of faults, and one verdict.

Everything is random by the seed and nothing else, so that a seed that fails, fails
again. Faults that never came to pass, because the run was over, are not counted. The
last model is compared, bit for bit, with that of a twin to which nothing happened, and
every site's charges with what left it.
"""

import functools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from fedsecure.drills.history import sentences
from fedsecure.envelope import Kind, parse
from fedsecure.errors import FedsecureError, LeaseLost, StaleTerm, StorageError
from fedsecure.metadata import Step
from tests.fakes.federation import MAX_BYTES, Due, Federation
from tests.fakes.forgery import altered
from tests.fakes.fuses import Died, Fuse
from tests.fakes.history import history_of, violations

SITE_STEPS, SERVER_STEPS = 32, 74
LEADERSHIPS = 6
"""That may die, be paused or lose the engine before one comes that lives."""
STALE_IN_A_ROW = 2
"""A site whose answers are refused again and again is left out of the round, which may
then be skipped: a defined end, but not that of the undisturbed run compared with."""
OVER = (LeaseLost, StaleTerm, StorageError)
"""What ends a leadership and not the run."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a federation is, whatever happens to it.

    Attributes
    ----------
    chancy : bool
        Eight bits, rounded by chance, errors fed back: all that draws or remembers.
    """

    sites: int
    rounds: int
    private: bool
    masked: bool
    chancy: bool

    def made(self) -> Federation:
        """Return a federation of this shape."""
        federation = Federation(
            sites=self.sites,
            rounds=self.rounds,
            private=self.private,
            masked=self.masked,
        )
        if self.chancy:
            encryption = federation.plan["encryption"]
            assert isinstance(encryption, dict)
            encryption |= {"profile": "8", "rounding": "stochastic"}
            encryption["error_feedback"] = True
            federation.restate()
        return federation


@functools.cache
def undisturbed(shape: Shape) -> bytes:
    """Return the last model, bit for bit, of a run to which nothing happened."""
    federation = shape.made()
    federation.lead()
    (model,) = set(federation.models().values())
    return model


@dataclass
class Storm:
    """A federation in bad weather.

    Attributes
    ----------
    faults : Counter
        What came to pass, by kind.
    wrong : list of str
        What is broken, each sentence with the invariant's name.
    """

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)  # noqa: S311 - moments of faults
        masked = self._chance(0.25)
        private = not masked and self._chance(0.7)
        self.shape = Shape(
            self._dice.choice((2, 3, 4)) + masked,
            self._dice.choice((1, 2, 3)),
            private,
            masked,
            not private and self._chance(0.6),
        )
        self.federation = self.shape.made()
        self._left: dict[tuple[str, int], set[bytes]] = {}
        self._victim = self._dice.choice(self.federation.stores)
        self._lied: set[str] = set()
        self._seen: dict[str, list[bytes]] = {}
        self._stale = Counter[str]()
        self._unquiet = 0.0
        self._carries = self._chance(0.5)
        self._brought: list[bytes] = []

    def run(self) -> "Storm":
        """Let it pass, and judge what is left."""
        federation = self.federation
        self._doom_sites()
        federation.tamper = self._tamper
        federation.reorder = self._reorder
        federation.echoes = self._echoes
        self._unquiet = self._dice.choice((0.05, 0.2, 0.4))
        for _ in range(self._dice.randrange(LEADERSHIPS + 1)):
            if self._led(self._doomed()):
                break
        self._calm()
        if not self.wrong and not self._complete():
            self._lead_to_the_end()
        if not self.wrong:
            self._count_deaths()
            self.wrong += sentences(history_of(federation))
            self.wrong += [v for v in violations(federation) if not self._excused(v)]
            self.wrong += [*self._another_model(), *self._misspent()]
        return self

    def _another_model(self) -> Iterator[str]:
        model = undisturbed(self.shape)
        for name, found in self.federation.models().items():
            if found != model:
                yield f"I5: the model of {name} is not that of a run without faults"

    def _misspent(self) -> Iterator[str]:
        """Compare what left each site, as the wire saw it, with what it paid."""
        for name, site in self.federation.sites.items():
            for number in range(1, self.shape.rounds + 1):
                left = self._left.get((name, number), set())
                if len(left) > 1:
                    yield f"I7: {name} sent {len(left)} updates of round {number}"
                paid = site.reservations(number)
                if self.shape.private and not len(left) <= paid <= 1 + site.deaths:
                    yield f"I6: {name} paid {paid} for {len(left)} of round {number}"

    def _lead_to_the_end(self) -> None:
        try:
            self.federation.lead("agg-2")
        except FedsecureError as stopped:
            self.wrong.append(f"I8: the last leader stops: {stopped}")

    def _complete(self) -> bool:
        """Return whether the run is over: then nobody leads it any more."""
        last = self.federation.terms.rounds
        steps = {e.step for e in self.federation.journal() if e.round == last}
        return {Step.RELEASE, Step.PUBLISH} <= steps

    def _excused(self, wrong: str) -> bool:
        """Return whether sealed bytes may stay: by a store away, or a leader paused.

        And eight bits are further off FedAvg than the tolerance of twenty.
        """
        away = self.faults["store down or back"] or self.faults["leader paused"]
        coarse = self.shape.chancy and "off FedAvg" in wrong
        return coarse or (bool(away) and "outlives its round" in wrong)

    # --- sites and what they say ------------------------------------------------------

    def _doom_sites(self) -> None:
        for name, site in self.federation.sites.items():
            for _ in range(self._dice.randrange(4)):
                after, tears = self._dice.randrange(SITE_STEPS), self._chance(0.5)
                site.fuses.append(Fuse(name, dies_after=after, tears=tears))
            if site.fuses:
                site.fuse = site.fuses.popleft()

    def _count_deaths(self) -> None:
        deaths = sum(site.deaths for site in self.federation.sites.values())
        self._add("site dies", deaths)

    def _tamper(self, site: str, data: bytes) -> bytes | None:
        envelope = parse(data, MAX_BYTES)
        if envelope.kind == Kind.UPDATE:
            place = (site, envelope.scope.round.number)
            self._left.setdefault(place, set()).add(envelope.digest())
        if self._chance(self._unquiet):
            self.faults["answer lost"] += 1
            return None
        known = self._seen.setdefault(site, [])
        known.append(data)
        kind = envelope.kind
        if kind == Kind.SHARES and not self._lied and self._chance(0.3):
            self._lied.add(site)
        if kind == Kind.SHARES and site in self._lied:
            self.faults["false shares"] += 1
            body = bytearray(envelope.body)
            body[0] ^= 1
            return altered(self.federation, data, body=bytes(body), signer=site)
        old = kind == Kind.UPDATE and len(known) < 9 and self._chance(self._unquiet / 2)
        if old and self._stale[site] < STALE_IN_A_ROW:
            self._stale[site] += 1
            self.faults["old answer again"] += 1
            return self._dice.choice(known)
        self._stale[site] = 0
        return data

    def _bring(self) -> None:
        """Have a standby bring a site some release that was committed, old or new."""
        head = self.federation.state.heads.get(self.federation.run)
        if head is None:
            return
        with suppress(FedsecureError):  # its copies may all be bad
            newest = bytes(self.federation.vault("agg-2").read_release(head))
            self._brought.append(newest)
        if self._brought:
            data = self._dice.choice((self._brought[-1], *self._brought))
            self.faults["release brought"] += 1
            self.federation.deliver(
                self._dice.choice(self.federation.terms.sites), data
            )

    def _reorder(self, due: deque[Due]) -> None:
        if self._carries and self._chance(self._unquiet):
            self._bring()
        turns = self._dice.randrange(len(due)) if self._chance(self._unquiet) else 0
        due.rotate(turns)
        self.faults["letters reordered"] += bool(turns)

    def _echoes(self, _: str) -> bool:
        twice = self._chance(self._unquiet)
        self.faults["answer twice"] += twice
        return twice

    # --- leaders ----------------------------------------------------------------------

    def _doomed(self) -> Fuse:
        """Return a leader's fate: what happens before its steps, and its end."""
        name = self._dice.choice(self.federation.aggregators)
        fate = Fate(name, self._fatal())
        for _ in range(self._dice.randrange(4)):
            act = self._dice.choice(
                (self._flip, self._vanish, self._down, self._silence, self._wish)
            )
            fate.acts[self._dice.randrange(1, SERVER_STEPS)] = act
        if self._chance(0.4):
            fate.acts[self._dice.randrange(1, SERVER_STEPS)] = self._overtaken
        return fate

    def _fatal(self) -> int | None:
        return self._dice.randrange(SERVER_STEPS) if self._chance(0.8) else None

    def _led(self, fuse: Fuse) -> bool:
        """Return whether a leadership came to the run's end."""
        if self._complete():
            return True
        check = None if self._chance(0.5) else (lambda: None)
        mine = len(self.federation.terms_led)
        try:
            self.federation.lead(fuse.owner, fuse, check)
        except Died:
            self.faults["leader dies"] += 1
        except OVER:
            pass
        except FedsecureError as stopped:
            if len(self.federation.terms_led) == mine + 1:  # nobody led after it
                self.wrong.append(f"I8: a leader stops: {stopped}")
        finally:
            self.federation.state.reachable = True
        return self._complete()

    def _overtaken(self) -> None:
        """Stand still beyond the lease: another leads, and may die of it."""
        self.faults["leader paused"] += 1
        name = self._dice.choice(self.federation.aggregators)
        self._led(Fate(name, self._fatal()))

    # --- what happens between two durable steps ---------------------------------------

    def _flip(self) -> None:
        keys = sorted(self._victim.objects)
        if keys:
            key = self._dice.choice(keys)
            self._victim.flip(key, self._dice.randrange(len(self._victim.objects[key])))
            self.faults["copy flipped"] += 1

    def _vanish(self) -> None:
        keys = sorted(self._victim.objects)
        if keys:
            del self._victim.objects[self._dice.choice(keys)]
            self.faults["copy gone"] += 1

    def _down(self) -> None:
        self._victim.down = not self._victim.down
        self.faults["store down or back"] += 1

    def _silence(self) -> None:
        self.federation.state.reachable = False
        self.faults["engine silent"] += 1

    def _wish(self) -> None:
        rotation = self.federation.rotation
        rotation.rounds.add(rotation.asked + 1)
        self.faults["key wished for"] += 1

    def _calm(self) -> None:
        self._unquiet = 0.0
        self._victim.down = False
        for site in self.federation.sites.values():
            site.fuses.clear()

    def _chance(self, share: float) -> bool:
        return self._dice.random() < share

    def _add(self, kind: str, count: int) -> None:
        if count:
            self.faults[kind] += count


class Fate(Fuse):
    """A leader's fuse before whose steps other things happen, each once."""

    def __init__(self, owner: str, dies_after: int | None) -> None:
        super().__init__(owner, dies_after)
        self.acts: dict[int, Callable[[], None]] = {}

    def ready(self) -> None:
        act = self.acts.pop(len(self.names) + 1, None)
        if act is not None:
            act()
        super().ready()


def storms(first: int, faults: int) -> tuple[Counter[str], list[str]]:
    """Let storms pass, from a seed on, until so many faults came to pass.

    Returns
    -------
    Counter, list of str
        Faults by kind; what was broken, each with its seed.
    """
    toll, wrong, seed = Counter[str](), list[str](), first
    while toll.total() < faults and len(wrong) < 5:
        storm = Storm(seed).run()
        toll += storm.faults
        wrong += [f"seed {seed}: {text}" for text in storm.wrong]
        seed += 1
    return toll, wrong
