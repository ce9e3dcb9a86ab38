"""The scrubber says what it found, and stands still while it must."""

import threading

from fedsecure.assembly.scrubber import Scrubber
from tests.fakes.checkpoints import bad, finished, inventory, keys
from tests.fakes.federation import Federation


def scrubber(federation: Federation, rate: float = 1e5) -> Scrubber:
    tools = federation.leader("agg-1").tools
    return Scrubber(
        lambda: inventory(federation),
        rate,
        federation.clock,
        tools.observer,
        tools.ledger,
    )


def events(federation: Federation) -> list[str]:
    return [name for name, _ in federation.notes.events]


def test_a_good_pass_is_an_event_and_no_ledger_line() -> None:
    federation = finished()
    scrubber(federation).once()
    assert events(federation)[-1] == "scrubbed"
    records = federation.leader("agg-1").tools.ledger.records()
    assert all(r.action != "checkpoint.repaired" for r in records)


def test_a_repair_is_an_event_and_a_ledger_line() -> None:
    federation = finished()
    federation.stores[0].flip(keys(federation, "obj/")[0])
    scrubber(federation).once()
    assert events(federation)[-2:] == ["scrubbed", "repaired"]
    last = federation.leader("agg-1").tools.ledger.records()[-1]
    assert last.action == "checkpoint.repaired"
    assert last.detail["repaired"] == 1
    assert list(bad(inventory(federation))) == []


def test_a_bandwidth_of_zero_starts_no_thread() -> None:
    before = threading.active_count()
    scrubber(finished(), rate=0.0).start()
    assert threading.active_count() == before


def test_a_started_one_ends_when_it_is_told_to() -> None:
    running = scrubber(finished())
    running.start()
    running.stop()
    assert "scrubber" not in [thread.name for thread in threading.enumerate()]
