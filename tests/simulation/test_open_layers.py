"""Whole runs that encrypt some tensors only: what is opened, seen, and refused."""

import logging
from collections.abc import Callable

import numpy as np
import pytest

from fedsecure.ciphertext import (
    Wire,
    wire_bytes,
)
from fedsecure.encoding import profile, unpack
from fedsecure.envelope import Envelope, Kind, canonical, parse
from fedsecure.errors import (
    ConfigurationError,
    QuorumNotMet,
)
from fedsecure.flower.driver import RoundDriver
from fedsecure.pledge import pledge_bytes
from fedsecure.update import JSON, IntVector, Layout, float_bytes
from tests.fakes.federation import MAX_BYTES, RUN, Federation
from tests.fakes.forgery import altered, own_update
from tests.fakes.openlayers import A_BLOCK, WIDE, cut, federation_of

OPEN, CLOSED = 4, 2
"""Blocks of the wide model with ``head.*`` encrypted, its weight included."""
SITES = ("site-1", "site-2", "site-3")


def read_by_anyone(update: Envelope) -> IntVector:
    """Return what an aggregator reads of an update's open blocks, in steps."""
    wire = Wire(cut(update.body)[1], key_id=update.scope.key_id, max_summands=1)
    (chunk,) = wire.chunks()
    blocks = chunk.residues[:, 0].astype(np.int64) & ((1 << 48) - 1)
    return unpack(blocks, profile("20"), OPEN * A_BLOCK)


def sent_steps(made: Federation, site: str) -> IntVector:
    """Return the open values of a site's first update, as it quantised them."""
    trainer = made.sites[site].trainer
    _, model = trainer.initial({})
    run = made.sites[site].half()._runs.get(RUN)
    fixed = run.plan.fixed
    share = fixed.share(trainer.rows() / run.plan.max_rows)
    return fixed.quantize(trainer.step(model)[: OPEN * A_BLOCK] * share).values


# --- the same model -------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("downlink", ["seeds", "sum"])
def test_the_model_is_that_of_full_encryption(*, masked: bool, downlink: str) -> None:
    some, whole = (
        federation_of(patterns, masked=masked, rounds=2, changes={"downlink": downlink})
        for patterns in (["head.*"], [])
    )
    some.lead()
    whole.lead()
    assert some.models() == whole.models()
    assert len(set(some.models().values())) == 1


def test_rounding_by_chance_and_feedback_end_in_the_same_bits() -> None:
    changes: dict[str, JSON] = {
        "rounding": "stochastic",
        "error_feedback": True,
        "profile": "8",
        "range_from": "aggregate",
    }
    some, whole = (
        federation_of(patterns, rounds=3, changes=changes)
        for patterns in (["head.*"], [])
    )
    some.lead()
    whole.lead()
    assert some.models() == whole.models()


def test_the_old_scheme_leaves_layers_open_too() -> None:
    layout = Layout(("body", "head"), ((4 * 1023,), (10,)))  # blocks of 2046 values
    some, whole = (
        federation_of(patterns, layout=layout, changes={"scheme": "ckks"})
        for patterns in (["head"], [])
    )
    some.lead()
    whole.lead()
    assert some.models() == whole.models()
    assert len(own_update(some, "site-1", 1).body) < len(
        own_update(whole, "site-1", 1).body
    )


def test_a_run_goes_on_after_a_new_key() -> None:
    made = federation_of(["head.*"], rounds=2)
    made.rotation.rounds = {2}
    made.lead()
    assert len(set(made.models().values())) == 1


def test_a_run_that_begins_with_a_model_given_knows_what_is_open() -> None:
    made = federation_of(["head.*"])
    layout, model = made.sites["site-1"].trainer.initial({})
    first = canonical(layout.document()), bytes(float_bytes(model))
    RoundDriver(made.leader("agg-1"), first).run()
    assert len(set(made.models().values())) == 1
    assert len(cut(own_update(made, "site-1", 1).body)[1]) > 0


# --- what is on the wire, and who reads it --------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("downlink", "polynomials"), [("seeds", 1), ("sum", 2)])
def test_bytes_on_the_wire_are_as_computed(
    downlink: str, polynomials: int, *, masked: bool
) -> None:
    changes = {"downlink": downlink}
    some = federation_of(["head.*"], masked=masked, changes=changes)
    whole = federation_of([], masked=masked, changes=changes)
    some.lead()
    whole.lead()
    seeds, behind = 2 - polynomials, pledge_bytes(3) if masked else 0
    sent = len(own_update(some, "site-1", 1).body)
    assert sent == behind + wire_bytes((CLOSED, polynomials, 4096), seeds) + wire_bytes(
        (OPEN, 1, 4096), 0
    )
    full = len(own_update(whole, "site-1", 1).body)
    assert full == behind + wire_bytes((CLOSED + OPEN, polynomials, 4096), seeds)
    assert sent < full


def test_without_masks_anyone_reads_the_open_layers_of_an_update() -> None:
    made = federation_of(["head.*"])
    made.lead()
    seen = read_by_anyone(own_update(made, "site-2", 1))
    assert np.array_equal(seen, sent_steps(made, "site-2"))


def test_with_masks_an_open_layer_of_one_update_is_noise() -> None:
    made = federation_of(["head.*"], masked=True)
    made.lead()
    seen = read_by_anyone(own_update(made, "site-2", 1))
    sent = sent_steps(made, "site-2")
    assert np.mean(seen == sent) < 1e-3
    assert abs(np.corrcoef(seen, sent)[0, 1]) < 0.05


def test_what_is_to_be_encrypted_is_in_no_open_block() -> None:
    made = federation_of(["head.*"])
    trainers = {name: site.trainer for name, site in made.sites.items()}
    made.lead()
    before = read_by_anyone(own_update(made, "site-1", 1))
    other = federation_of(["head.*"])
    target = trainers["site-1"]._target.copy()
    target[OPEN * A_BLOCK :] *= -1
    other.sites["site-1"].trainer._target = target
    other.lead()
    assert np.array_equal(read_by_anyone(own_update(other, "site-1", 1)), before)


def test_patterns_that_cover_all_make_the_message_of_full_encryption() -> None:
    some, whole = federation_of([".*"]), federation_of([])
    some.lead()
    whole.lead()
    assert len(own_update(some, "site-1", 1).body) == len(
        own_update(whole, "site-1", 1).body
    )
    assert some.models() == whole.models()


@pytest.mark.parametrize(
    ("masked", "reason"),
    [(False, "every single update of this site"), (True, "their sum is open to it")],
)
def test_a_site_warns_when_it_joins(
    caplog: pytest.LogCaptureFixture, reason: str, *, masked: bool
) -> None:
    with caplog.at_level(logging.WARNING, logger="fedsecure.client_run"):
        federation_of(["head.*"], masked=masked).lead()
    found = [r.getMessage() for r in caplog.records if r.name.endswith("client_run")]
    assert len(found) == 3
    assert all("head.* only" in text and reason in text for text in found)


def test_a_run_that_encrypts_all_warns_of_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="fedsecure.client_run"):
        federation_of([]).lead()
    assert not [r for r in caplog.records if r.name.endswith("client_run")]


# --- what is refused ------------------------------------------------------------------


def test_a_pattern_that_matches_nothing_starts_no_run() -> None:
    made = federation_of(["tail.*"])
    with pytest.raises(QuorumNotMet, match="made the run key"):
        made.lead()


def test_a_layout_that_the_patterns_do_not_fit_is_not_taken() -> None:
    made = federation_of(["head.*"])
    made.lead()
    half = made.sites["site-1"].half()
    named = Layout(("body.w", "tail.w", "tail.b"), WIDE.shapes)
    model = float_bytes(np.zeros(WIDE.num_parameters))
    with pytest.raises(ConfigurationError, match="matches no tensor"):
        half._runs._keep_first(
            half._runs.get(RUN), memoryview(canonical(named.document())), model
        )


def swapped(parts: tuple[bytes, bytes, bytes]) -> bytes:
    return parts[1] + parts[0] + parts[2]


def missing(parts: tuple[bytes, bytes, bytes]) -> bytes:
    return parts[0] + parts[2]


def closed_missing(parts: tuple[bytes, bytes, bytes]) -> bytes:
    return parts[1] + parts[2]


def open_twice(parts: tuple[bytes, bytes, bytes]) -> bytes:
    return parts[0] + parts[1] + parts[1] + parts[2]


def shorter(parts: tuple[bytes, bytes, bytes]) -> bytes:
    return parts[0] + parts[1][:-15] + parts[2]


def beyond_q(parts: tuple[bytes, bytes, bytes]) -> bytes:
    return parts[0] + parts[1][:40] + b"\xff" * 120 + parts[1][160:] + parts[2]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "change", [swapped, missing, closed_missing, open_twice, shorter, beyond_q]
)
def test_an_update_with_false_parts_is_refused_and_the_round_goes_on(
    change: Callable[[tuple[bytes, bytes, bytes]], bytes], *, masked: bool
) -> None:
    made = federation_of(["head.*"], masked=masked, min_contributors=2)

    def tamper(site: str, data: bytes) -> bytes:
        if site != "site-2" or parse(data, MAX_BYTES).kind != Kind.UPDATE:
            return data
        body = change(cut(parse(data, MAX_BYTES).body))
        return altered(made, data, body=body)  # the site itself signs it

    made.tamper = tamper
    made.lead()
    refused = [e for e in made.notes.events if e[0] == "rejected"]
    assert refused
    assert {fields["site"] for _, fields in refused} == {"site-2"}
    done = [fields for event, fields in made.notes.events if event == "released"]
    assert done[0]["participants"] == ["site-1", "site-3"]


def test_an_update_with_another_sites_open_part_is_opened_by_nobody() -> None:
    made = federation_of(["head.*"])
    seen: dict[str, tuple[bytes, bytes, bytes]] = {}

    def tamper(site: str, data: bytes) -> bytes:
        if parse(data, MAX_BYTES).kind != Kind.UPDATE:
            return data
        seen[site] = cut(parse(data, MAX_BYTES).body)
        if site != "site-2":
            return data
        own, other = seen["site-2"], seen["site-1"]
        return altered(made, data, body=own[0] + other[1] + own[2])

    made.tamper = tamper
    with pytest.raises(QuorumNotMet, match="refused by all 3 sites"):
        made.lead()
    assert all(
        not site.opened() or not made.models()[n] for n, site in made.sites.items()
    )
