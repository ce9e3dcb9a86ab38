"""Two runs at once never mix, whatever crashes: on one engine, and at the same sites.

A lease is one of a folder, schema or prefix. Two runs that share it lead in turns: who
takes it fences the other, whose leader stops, and goes on once it leads again. Two runs
with a lease each go on side by side, at the same sites too, over the same stores.
"""

import pytest

from fedsecure.drills.history import sentences
from fedsecure.errors import LeaseLost, StaleTerm, StorageError
from fedsecure.metadata import Step
from tests.fakes.federation import Federation
from tests.fakes.fuses import Died, Fuse
from tests.fakes.history import heads, history_of
from tests.simulation.test_crashes import SERVER_STEPS

OTHER = "run-2"
STEPS = range(2, SERVER_STEPS, 9)


def pair(*, one_lease: bool, same_sites: bool) -> tuple[Federation, Federation]:
    """Return two runs over the same stores."""
    one, other = Federation(private=False), Federation(private=False, run=OTHER)
    other.stores = one.stores
    if one_lease:
        other.state, other.clock = one.state, one.clock
    if same_sites:
        other.sites = one.sites
    return one, other


def finish(federation: Federation, name: str) -> None:
    """Lead what is left of a run, unless nothing is."""
    last = {e.step for e in federation.journal() if e.round == federation.terms.rounds}
    if Step.PUBLISH not in last:
        federation.lead(name)


def alone(run: str) -> bytes:
    federation = Federation(private=False, run=run)
    federation.lead()
    return federation.models()["site-1"]


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, bytes]:
    return {run: alone(run) for run in ("run-1", OTHER)}


def check(runs: tuple[Federation, Federation], undisturbed: dict[str, bytes]) -> None:
    for federation in runs:
        run = federation.run
        assert set(federation.models().values()) == {undisturbed[run]}
        assert [head.round for head in heads(federation)] == [1, 2]
        vault = federation.vault("agg-1")
        for head in heads(federation):
            assert vault.manifest(head).run == run
            assert vault.verify_release(head).round.run == run
        steps = [(e.round, e.step, e.site) for e in federation.journal()]
        assert len(steps) == len(set(steps))
        assert sentences(history_of(federation)) == []


@pytest.mark.parametrize("step", STEPS)
def test_runs_that_share_a_lease_lead_in_turns_and_never_mix(
    step: int, undisturbed: dict[str, bytes]
) -> None:
    one, other = runs = pair(one_lease=True, same_sites=False)
    stopped = False
    fuse = Fuse("agg-1", pause=(step, lambda: other.lead("agg-2")))
    try:
        one.lead("agg-1", fuse, lambda: None)  # it does not even look at its lease
    except (StaleTerm, LeaseLost, StorageError):
        stopped = True
    finish(one, "agg-1")
    check(runs, undisturbed)
    assert stopped or step > SERVER_STEPS - 12  # only deletions were left to do


@pytest.mark.parametrize("step", STEPS)
def test_runs_with_a_lease_each_go_on_side_by_side_at_the_same_sites(
    step: int, undisturbed: dict[str, bytes]
) -> None:
    one, other = runs = pair(one_lease=False, same_sites=True)
    for _ in range(3):  # the other run's terms are far above
        other.leader("agg-2")
    fuse = Fuse("agg-1", pause=(step, lambda: other.lead("agg-2")))
    one.lead("agg-1", fuse)
    check(runs, undisturbed)
    assert (one.state.term, other.state.term) == (1, 4)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("one_lease", [True, False])
def test_leaders_of_both_runs_die_and_others_finish(
    step: int, one_lease: bool, undisturbed: dict[str, bytes]
) -> None:
    one, other = runs = pair(one_lease=one_lease, same_sites=not one_lease)
    for federation, after in ((one, step), (other, SERVER_STEPS - step)):
        with pytest.raises(Died):
            federation.lead("agg-1", Fuse("agg-1", dies_after=after))
    for federation in (other, one):
        finish(federation, "agg-2")
    check(runs, undisturbed)


def test_terms_of_two_runs_are_apart_at_a_site_after_a_restart() -> None:
    one, other = pair(one_lease=False, same_sites=True)
    for _ in range(3):
        one.leader("agg-1")
    one.lead("agg-1")
    for site in one.sites.values():
        site.die()
    other.lead("agg-2")
    seen = {
        (r.run, r.term)
        for r in one.sites["site-1"].records()
        if r.action == "term.seen"
    }
    assert seen == {("run-1", 4), (OTHER, 1)}
