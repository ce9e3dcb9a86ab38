"""Masked rounds lose sites at every step of the protocol, and leaders after each."""

import numpy as np
import pytest

from fedsecure.envelope import Kind, parse
from fedsecure.metadata import Step
from fedsecure.update import Vector
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.fuses import Died, Fuse
from tests.fakes.history import violations

STEPS = 74  # as without masks: opening them is no durable step of the server's
SITE_STEPS = 25  # among them, each round, that its masks were opened


def masked(
    sites: int = 4, least: int = 3, scheme: str = "insecure_plain"
) -> Federation:
    return Federation(
        sites=sites, min_contributors=least, masked=True, private=False, scheme=scheme
    )


def lose(federation: Federation, *what: tuple[str, Kind, int]) -> None:
    """Lose what these sites answer, by kind and round, for ever."""

    def tamper(site: str, data: bytes) -> bytes | None:
        envelope = parse(data, MAX_BYTES)
        key = (site, Kind(envelope.kind), envelope.scope.round.number)
        return None if key in what else data

    federation.tamper = tamper


def expected(federation: Federation, *by_round: set[str]) -> Vector:
    """Return FedAvg over the sites named for each round."""
    _, model = federation.sites["site-1"].trainer.initial({})
    for names in by_round:
        steps = [federation.sites[n].trainer.step(model) for n in sorted(names)]
        model = model + np.mean(steps, axis=0)
    return np.asarray(model)


def model_of(federation: Federation) -> Vector:
    models = set(federation.models().values())
    assert len(models) == 1
    return np.frombuffer(models.pop(), dtype="<f8")


ALL = {"site-1", "site-2", "site-3", "site-4"}


@pytest.mark.parametrize("scheme", ["insecure_plain", "bfv"])
def test_a_full_round_is_the_mean_of_all(scheme: str) -> None:
    federation = masked(scheme=scheme)
    federation.lead()
    assert violations(federation) == []


@pytest.mark.parametrize("site", sorted(ALL))
def test_a_site_that_drops_out_before_its_update_is_left_out(site: str) -> None:
    federation = masked()
    lose(federation, (site, Kind.UPDATE, 1))
    federation.lead()
    wanted = expected(federation, ALL - {site}, ALL)
    assert np.abs(model_of(federation) - wanted).max() < 1e-5


@pytest.mark.parametrize("site", sorted(ALL))
def test_a_site_that_drops_out_after_its_update_still_counts(site: str) -> None:
    federation = masked()
    lose(federation, (site, Kind.SHARES, 1))
    federation.lead()
    assert np.abs(model_of(federation) - expected(federation, ALL, ALL)).max() < 1e-5


def test_sites_may_drop_out_before_and_after_their_updates_at_once() -> None:
    federation = masked()
    lose(
        federation,
        ("site-1", Kind.UPDATE, 1),
        ("site-1", Kind.SHARES, 1),
        ("site-3", Kind.SHARES, 1),
    )
    federation.lead()
    wanted = expected(federation, ALL - {"site-1"}, ALL)
    assert np.abs(model_of(federation) - wanted).max() < 1e-5


def test_too_few_shares_skip_the_round_and_the_next_one_goes_on() -> None:
    federation = masked()
    lose(federation, *((site, Kind.SHARES, 1) for site in sorted(ALL)[:3]))
    federation.lead()
    steps = {(e.round, e.step) for e in federation.journal()}
    assert (1, Step.SKIP) in steps
    assert (1, Step.RELEASE) not in steps
    assert np.abs(model_of(federation) - expected(federation, ALL)).max() < 1e-5


def test_a_leader_that_waits_for_shares_in_vain_is_followed_by_one_that_skips() -> None:
    federation = masked()
    lose(federation, *((site, Kind.SHARES, 1) for site in sorted(ALL)))
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", _step_of(federation, "journal close")))
    federation.lead("agg-2")
    assert np.abs(model_of(federation) - expected(federation, ALL)).max() < 1e-5


def _step_of(federation: Federation, name: str) -> int:
    """Return after how many durable steps the first one of this name is done."""
    other, fuse = masked(), Fuse("agg-1")
    other.lead("agg-1", fuse)
    assert federation.terms == other.terms
    return next(i for i, step in enumerate(fuse.names, 1) if name in step)


@pytest.mark.parametrize("liar", ["site-1", "site-2"])
def test_false_shares_are_found_out_and_others_are_used(liar: str) -> None:
    federation = masked()

    def tamper(site: str, data: bytes) -> bytes:
        envelope = parse(data, MAX_BYTES)
        if site != liar or envelope.kind != Kind.SHARES:
            return data
        body = bytearray(envelope.body)
        body[0] ^= 1
        return _signed_again(federation, site, data, bytes(body))

    federation.tamper = tamper
    federation.lead()
    assert violations(federation) == []
    assert "false_shares" in {event for event, _ in federation.notes.events}


def _signed_again(federation: Federation, site: str, data: bytes, body: bytes) -> bytes:
    from tests.fakes.forgery import altered

    return altered(federation, data, body=body, signer=site)


def test_steps_counted_are_the_steps_there_are() -> None:
    federation, fuse = masked(sites=3), Fuse("agg-1")
    federation.lead("agg-1", fuse)
    assert len(fuse.names) == STEPS
    assert len(federation.sites["site-2"].fuse.names) == SITE_STEPS


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_leader_dies_after_a_step_of_a_masked_run(step: int) -> None:
    federation = masked(sites=3)
    with pytest.raises(Died):
        federation.lead("agg-1", Fuse("agg-1", step))
    federation.lead("agg-2")
    assert violations(federation) == []


@pytest.mark.parametrize("step", range(1, SITE_STEPS + 1))
def test_a_site_dies_after_a_step_of_a_masked_run(step: int) -> None:
    federation = masked(sites=3)
    federation.sites["site-2"].fuse = Fuse("site-2", step)
    federation.lead()
    assert federation.sites["site-2"].deaths == 1
    assert violations(federation) == []
