"""What must hold of a run whatever broke meanwhile: the invariants I1 to I8, as code.

Pure: it is told what is durable and says which promise is broken (RESILIENCE.md section
10). Drills fill it from folders, the chaos bench from a federation in memory.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fedsecure.errors import VerificationError
from fedsecure.ledger import Record
from fedsecure.metadata import JournalEntry, Step
from fedsecure.server_round import read_detail

COUNTS = "discrete_gaussian_counts"
"""The kind of a reservation for counts, as ledgers write it; accounting is barred."""
Participants = Mapping[str, str]
"""Sites of a closed set, and the digest of each one's update, hexadecimal."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed checkpoint, as its signed manifest and its release say.

    Attributes
    ----------
    round, sequence, term : int
    digest, prev, release : str
        Of the manifest, of the one before it, of the release; hexadecimal.
    participants : mapping
        What the release sums; empty if it could not be restored.
    lost : tuple of str
        Sets of stores that are left and do not give it back; should be none.
    """

    round: int
    sequence: int
    term: int
    digest: str
    prev: str
    release: str
    participants: Participants
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    """What a run left.

    Attributes
    ----------
    run : str
    rounds : int
    private : bool
        Whether sites pay for what they release.
    entries : sequence of JournalEntry
        The run's journal, in the order written.
    commits : sequence of Commit
        In the order of the journal.
    leaders : sequence of int
        Terms of the leaderships, in the order of time.
    ledgers : mapping of str to sequence of Record
        Of the sites, by name.
    crashes : mapping of str to int
        How often a site's process died: each may waste one charge.
    """

    run: str
    rounds: int
    private: bool
    entries: Sequence[JournalEntry]
    commits: Sequence[Commit]
    leaders: Sequence[int]
    ledgers: Mapping[str, Sequence[Record]]
    crashes: Mapping[str, int] = field(default_factory=dict)

    def of(self, number: int, step: Step) -> list[JournalEntry]:
        """Return the entries of one step of a round."""
        return [e for e in self.entries if e.round == number and e.step == step]

    def records(self, site: str, action: str) -> list[Record]:
        """Return a site's records of one action in this run."""
        found = self.ledgers[site]
        return [r for r in found if r.action == action and r.run == self.run]


def broken(history: History) -> dict[str, list[str]]:
    """Return what each invariant finds wrong; empty lists if it holds."""
    return {name: list(check(history)) for name, check in CHECKS.items()}


def sentences(history: History) -> list[str]:
    """Return all that is wrong, one sentence each, the invariant's name first."""
    found = broken(history)
    return [f"{name}: {text}" for name, texts in found.items() for text in texts]


def _one_chain(history: History) -> Iterator[str]:
    before = ""
    for commit in history.commits:
        if commit.prev != before:
            yield f"checkpoint {commit.sequence} does not follow the one before it"
        before = commit.digest


def _terms_rise(history: History) -> Iterator[str]:
    terms = [commit.term for commit in history.commits]
    if terms != sorted(terms):
        yield f"commits were made under terms {terms}"
    leaders = list(history.leaders)
    if any(a >= b for a, b in itertools.pairwise(leaders)):
        yield f"leaders had terms {leaders}"


def _none_after_a_higher_term(history: History) -> Iterator[str]:
    known = set(history.leaders)
    for commit in history.commits:
        if known and commit.term not in known:
            yield f"round {commit.round} was committed by term {commit.term}, of nobody"
    places = [commit.sequence for commit in history.commits]
    if places != sorted(set(places)):
        yield f"checkpoints are numbered {places}"


def _restores(history: History) -> Iterator[str]:
    for commit in history.commits:
        for stores in commit.lost:
            yield f"round {commit.round} is not restored from {stores}"


def _sums_the_closed_set(history: History) -> Iterator[str]:
    for number in range(1, history.rounds + 1):
        updates = history.of(number, Step.UPDATE)
        rows = {e.site: str(read_detail(e)["digest"]) for e in updates}
        if len(rows) != len(updates):
            yield f"round {number} has two updates of one site"
        closed = _closed(history, number)
        if closed is not None and closed != rows:
            yield f"round {number} closed over {sorted(closed)}, has {sorted(rows)}"
        for commit in (c for c in history.commits if c.round == number):
            if not commit.lost and dict(commit.participants) != closed:
                yield f"round {number} released another set than it closed over"


def _closed(history: History, number: int) -> Participants | None:
    for entry in history.of(number, Step.CLOSE):
        rows = read_detail(entry).get("participants")
        if not isinstance(rows, list):
            raise VerificationError(f"journal: CLOSE of round {number} names nobody")
        pairs = [row for row in rows if isinstance(row, list)]
        return {str(site): str(digest) for site, digest in pairs}
    return None


def _paid(history: History) -> Iterator[str]:
    if not history.private:
        return
    took = {(e.site, e.round) for e in history.entries if e.step == Step.UPDATE}
    for site in history.ledgers:
        # By kind too: a round may be paid for twice, for training and for its counts.
        reserved = history.records(site, "budget.reserve")
        paid = Counter((r.round, _kind(r)) for r in reserved)
        known = {number for number, kind in paid if kind != COUNTS}
        for number in range(1, history.rounds + 1):
            if (site, number) in took and number not in known:
                yield f"{site} sent round {number} unpaid"
        for (number, kind), times in paid.items():
            if times > 1 + history.crashes.get(site, 0):
                yield f"{site} paid {times} times for round {number} ({kind})"


def _kind(reserved: Record) -> str:
    event = reserved.detail.get("event")
    return str(event.get("kind")) if isinstance(event, dict) else ""


def _one_release(history: History) -> Iterator[str]:
    commits = {c.round: c.release for c in history.commits}
    if len(commits) != len(history.commits):
        yield "a round was committed twice"
    for site in history.ledgers:
        if history.records(site, "aggregate.second"):
            yield f"{site} was offered a second sum"
        opened = history.records(site, "aggregate.opened")
        rounds = [r.round for r in opened]
        if len(rounds) != len(set(rounds)):
            yield f"{site} opened two sums of one round"
        for record in opened:
            if record.detail["release"] != commits.get(record.round):
                yield f"{site} opened another sum of round {record.round}"


def _ends(history: History) -> Iterator[str]:
    for number in range(1, history.rounds + 1):
        count = {step: len(history.of(number, step)) for step in Step}
        if count[Step.SKIP] and not count[Step.RELEASE]:
            continue
        steps = (Step.OPEN, Step.CLOSE, Step.RELEASE, Step.PUBLISH)
        missing = [str(step) for step in steps if count[step] != 1]
        if missing or count[Step.SKIP]:
            yield f"round {number} has not exactly one {', '.join(missing) or 'end'}"


CHECKS: Mapping[str, Callable[[History], Iterator[str]]] = {
    "I1": _one_chain,
    "I2": _terms_rise,
    "I3": _none_after_a_higher_term,
    "I4": _restores,
    "I5": _sums_the_closed_set,
    "I6": _paid,
    "I7": _one_release,
    "I8": _ends,
}
"""The invariants by name, in the order of RESILIENCE.md section 10."""
