"""Each invariant holds of a sound history and is missed in one that breaks it."""

from dataclasses import replace

import pytest

from fedsecure.accounting import PrivacyEvent
from fedsecure.drills.history import CHECKS, COUNTS, Commit, History, broken, sentences
from fedsecure.envelope import canonical
from fedsecure.ledger import Record
from fedsecure.metadata import JournalEntry, Step
from fedsecure.trainer import JSON

RUN, SITES = "run", ("site-1", "site-2")


def entry(number: int, step: Step, site: str = "", **detail: JSON) -> JournalEntry:
    name = f"{number}-{step}-{site}-{len(detail)}"
    return JournalEntry(RUN, number, step, site, name, canonical(detail))


def steps(number: int) -> list[JournalEntry]:
    rows: list[JSON] = [[site, f"{site}{number}"] for site in SITES]
    return [
        entry(number, Step.OPEN),
        *(entry(number, Step.UPDATE, s, digest=f"{s}{number}") for s in SITES),
        entry(number, Step.CLOSE, participants=rows),
        entry(number, Step.RELEASE),
        entry(number, Step.PUBLISH),
    ]


def record(action: str, number: int, **detail: JSON) -> Record:
    return Record(1, "", "", 1, action, "", "ok", "", RUN, number, detail, "", "")


def counts(number: int) -> Record:
    return record("budget.reserve", number, event={"kind": COUNTS})


def commit(number: int, term: int = 1) -> Commit:
    parts = {site: f"{site}{number}" for site in SITES}
    prev = f"m{number - 1}" if number > 1 else ""
    return Commit(number, number, term, f"m{number}", prev, f"r{number}", parts)


def sound() -> History:
    ledger = [
        line
        for number in (1, 2)
        for line in (
            record("budget.reserve", number),
            record("aggregate.opened", number, release=f"r{number}"),
        )
    ]
    return History(
        RUN,
        2,
        True,
        [*steps(1), *steps(2)],
        [commit(1), commit(2, term=2)],
        [1, 2],
        dict.fromkeys(SITES, ledger),
    )


def without(history: History, step: Step) -> History:
    kept = [e for e in history.entries if (e.round, e.step) != (2, step)]
    return replace(history, entries=kept)


def told(history: History, *lines: Record, drop: str = "") -> History:
    kept = [r for r in history.ledgers["site-1"] if r.action != drop]
    return replace(history, ledgers={**history.ledgers, "site-1": [*kept, *lines]})


def changed(history: History, **fields: object) -> History:
    last = replace(history.commits[-1], **fields)  # type: ignore[arg-type]
    return replace(history, commits=[history.commits[0], last])


BROKEN = [
    ("I1", changed(sound(), prev="m0")),
    ("I2", changed(replace(sound(), leaders=[1, 2]), term=0)),
    ("I2", replace(sound(), leaders=[1, 1, 2])),
    ("I3", replace(sound(), leaders=[1])),
    ("I3", changed(sound(), sequence=1)),
    ("I4", changed(sound(), lost=("a and b",))),
    ("I5", changed(sound(), participants={"site-1": "site-12"})),
    ("I5", replace(sound(), entries=[*sound().entries, steps(2)[1]])),
    ("I5", without(sound(), Step.UPDATE)),
    ("I6", told(sound(), drop="budget.reserve")),
    ("I6", told(sound(), record("budget.reserve", 2))),
    ("I6", told(sound(), counts(2), drop="budget.reserve")),
    ("I6", told(sound(), counts(2), counts(2))),
    ("I7", told(sound(), record("aggregate.opened", 2, release="r2"))),
    ("I7", told(sound(), record("aggregate.second", 2))),
    ("I7", changed(sound(), release="another")),
    ("I8", without(sound(), Step.PUBLISH)),
    ("I8", replace(sound(), entries=[*sound().entries, entry(2, Step.SKIP)])),
]


def test_a_sound_history_breaks_nothing() -> None:
    assert sentences(sound()) == []


@pytest.mark.parametrize(("name", "history"), BROKEN)
def test_what_breaks_an_invariant_is_missed_by_it(name: str, history: History) -> None:
    assert broken(history)[name] != []


def test_every_invariant_is_broken_by_some_example() -> None:
    assert {name for name, _ in BROKEN} == set(CHECKS)


def test_counts_have_the_name_that_a_ledger_gives_them() -> None:
    assert PrivacyEvent.of_counts(4.0, 1).kind == COUNTS


def test_counts_of_a_round_are_paid_for_beside_its_training() -> None:
    assert sentences(told(sound(), counts(1), counts(2))) == []


def test_a_crash_of_a_site_may_waste_one_charge() -> None:
    paid_twice = told(sound(), record("budget.reserve", 2))
    assert sentences(replace(paid_twice, crashes={"site-1": 1})) == []


def test_a_skipped_round_has_an_end() -> None:
    history = sound()
    entries = [e for e in history.entries if e.round == 1]
    skipped = [entry(2, Step.OPEN), entry(2, Step.SKIP)]
    ledgers = {
        s: [r for r in rows if r.round == 1] for s, rows in history.ledgers.items()
    }
    left = replace(
        history,
        entries=[*entries, *skipped],
        commits=history.commits[:1],
        leaders=[1],
        ledgers=ledgers,
    )
    assert sentences(left) == []
