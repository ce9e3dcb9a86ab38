"""Events read from a ledger's lines."""

from collections.abc import Mapping

import pytest

from fedsecure.accounting import PrivacyEvent
from fedsecure.errors import ConfigurationError, LedgerCorrupt
from fedsecure.ledger import Record
from fedsecure.privacy.charged import charged, comparable
from fedsecure.privacy.plan import event_document
from fedsecure.update import JSON

EVENT = PrivacyEvent("poisson_gaussian", 2.0, 0.5, 3)


def line(
    action: str, what: str, run: str, detail: Mapping[str, JSON] | None = None
) -> Record:
    told = {"event": event_document(EVENT)} if detail is None else detail
    return Record(1, "", "", 0, action, what, "done", "", run, 1, told, "", "")


LINES = [
    line("budget.reserve", "heart", "a"),
    line("budget.reserve", "heart", "b"),
    line("budget.reserve", "lungs", "b"),
    line("budget.void", "heart", "b", {"reserve": 2}),
]


@pytest.mark.parametrize(
    ("run", "dataset", "count"),
    [(None, None, 3), ("b", None, 2), (None, "heart", 2), ("b", "heart", 1)],
)
def test_events_are_told_apart_by_run_and_data_set(
    run: str | None, dataset: str | None, count: int
) -> None:
    assert charged(LINES, run, dataset) == [EVENT] * count


@pytest.mark.parametrize("detail", [{}, {"event": 3}, {"event": {"type": "x"}}])
def test_a_line_without_an_event_is_named(detail: Mapping[str, JSON]) -> None:
    with pytest.raises(LedgerCorrupt, match=r"ledger line 1 \(budget\.reserve\)"):
        charged([line("budget.reserve", "heart", "a", detail)])


def test_events_of_one_unit_are_told_as_they_were_charged() -> None:
    assert comparable([(EVENT, "user"), (EVENT, "user")]) == [EVENT, EVENT]
    assert comparable([]) == []


def test_beside_rows_an_event_for_persons_is_told_as_a_row_sees_it() -> None:
    mixed = [(EVENT, "user"), (EVENT, "example"), (EVENT, "site")]
    part = EVENT.of_a_part()
    assert comparable(mixed) == [part, EVENT, part]
    assert (part.noise_multiplier, part.sample_rate, part.steps) == (1.0, 1.0, 3)


def test_a_unit_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="unit 'ward' is unknown"):
        comparable([(EVENT, "ward")])


def test_units_are_read_from_a_ledger_s_lines() -> None:
    told: dict[str, JSON] = {"event": {**event_document(EVENT), "unit": "user"}}
    lines = [line("budget.reserve", "heart", "c", told), *LINES]
    assert charged(lines, "c") == [EVENT]
    assert charged(lines, None, "heart") == [EVENT.of_a_part(), EVENT, EVENT]
