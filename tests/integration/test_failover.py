"""The main job on real Flower processes: the leader is killed in mid-round.

One run serves all tests, and the contract of backends: `tests/fakes/deployed.py`.
"""

import os
import time

import pytest

from fedsecure.access.roster import Role
from fedsecure.disk import SystemDisk
from fedsecure.drills.processes import processes_of
from fedsecure.ledger import verify_ledger
from tests.fakes.deployed import SITES, Ran, half_of, holds, key_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(290),
    pytest.mark.flower,
]


@pytest.fixture(scope="module")
def ran(deployed: Ran) -> Ran:
    return deployed


def test_all_rounds_are_completed_once(ran: Ran) -> None:
    released = [e["round"] for e in ran.outcome.events if e["event"] == "released"]
    assert released == [1, 2, 3]
    assert ran.tables.totals["rounds_lost"] == 0


def test_no_accepted_update_is_lost(ran: Ran) -> None:
    assert ran.tables.totals["updates_lost"] == 0


def test_successor_reuses_what_the_dead_leader_accepted(ran: Ran) -> None:
    failovers = ran.tables.totals["failovers"]
    assert isinstance(failovers, list)
    assert len(failovers) == 1
    (one,) = failovers
    assert isinstance(one, dict)
    assert (one["term_before"], one["term_after"]) == (1, 2)
    assert int(str(one["updates_reused"])) >= 1
    assert one["updates_redone"] == 0


def test_killed_leader_did_not_lead_the_rest(ran: Ran) -> None:
    victim = next(e["victim"] for e in ran.outcome.events if e["event"] == "kill")
    leaders = {
        e["round"]: e["source"] for e in ran.outcome.events if e["event"] == "released"
    }
    assert leaders[1] == victim
    assert victim not in {leaders[2], leaders[3]}


def test_every_site_took_part_in_every_round(ran: Ran) -> None:
    for row in ran.tables.rounds:
        assert row["participants"] == ["site-01", "site-02", "site-03"]


def test_ledgers_of_both_kinds_verify(ran: Ran) -> None:
    members = ran.members(Role.SITE) + ran.members(Role.AGGREGATOR)
    assert {kit.name for kit in members} == set(ran.outcome.ledgers)
    for kit in members:
        verify_ledger(ran.outcome.ledgers[kit.name], SystemDisk())


def test_budget_is_reserved_once_a_round(ran: Ran) -> None:
    for kit in ran.members(Role.SITE):
        records = verify_ledger(kit.state / "ledger.jsonl", SystemDisk())
        paid = [r.round for r in records if r.action == "budget.reserve"]
        assert paid == [1, 2, 3]


def test_all_sites_opened_the_same_sums(ran: Ran) -> None:
    opened = []
    for kit in ran.members(Role.SITE):
        records = verify_ledger(kit.state / "ledger.jsonl", SystemDisk())
        rows = [r for r in records if r.action == "aggregate.opened"]
        opened.append([(r.round, r.detail["release"]) for r in rows])
    assert [number for number, _ in opened[0]] == [1, 2, 3]
    assert opened[0] == opened[1] == opened[2]


def test_no_process_is_left(ran: Ran) -> None:
    assert len(ran.pids) > 2 * (SITES + 2)
    end = time.monotonic() + 10
    while left := processes_of(ran.kits.parent) & ran.pids:
        assert time.monotonic() < end, f"processes {sorted(left)} outlive the run"
        time.sleep(0.2)


def test_aggregators_hold_no_byte_of_the_run_key(ran: Ran) -> None:
    probe = half_of(ran.keys["site-01"])
    places = [kit.path for kit in ran.members(Role.AGGREGATOR)] + [ran.folder]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if probe in path.read_bytes()] == []


def test_no_aggregator_process_has_the_run_key_in_memory(ran: Ran) -> None:
    """In its memory, its environment or its command line, while the run goes on."""
    assert len(ran.scanned) >= 4
    assert not any(ran.scanned.values())


def test_the_scan_would_find_what_is_there() -> None:
    probe = bytes(range(100, 124))
    assert holds(os.getpid(), probe)


def test_sites_hold_one_run_key_while_the_run_lasts(ran: Ran) -> None:
    assert len(ran.keys) == SITES
    assert len({key.secret for key in ran.keys.values()}) == 1


def test_sites_hold_no_run_key_after_the_run(ran: Ran) -> None:
    probe = half_of(ran.keys["site-01"])
    for kit in ran.members(Role.SITE):
        with pytest.raises(KeyError):
            key_of(kit, str(ran.plan["run"]))
        files = [path for path in kit.state.rglob("*") if path.is_file()]
        assert [path for path in files if probe in path.read_bytes()] == []


def test_updates_are_gone_from_the_stores(ran: Ran) -> None:
    kept = [p for p in (ran.folder / "stores").rglob("*") if p.parent.name == "update"]
    assert kept == []
