"""A site signs false updates: refused with a sentence and counted, or found by tags.

What the aggregator can see is refused there, five times, and the round goes on without
the site. What only the keyed tags show ends the run key at every site, and no site uses
anything of that sum. What neither shows is what a site may say anyway: its own values
within the range of their fields, and its own weight up to one.
"""

import struct

import numpy as np
import pytest

from fedsecure import ciphertext, client_update, residues
from fedsecure.ciphertext import HEADER_BYTES
from fedsecure.envelope import Kind, parse
from fedsecure.errors import QuorumNotMet
from fedsecure.flower.driver import ASKS_ALLOWED
from fedsecure.metadata import Step
from fedsecure.quantiser import FixedPoint
from fedsecure.runplan import RunPlan
from fedsecure.update import ModelUpdate
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.forgery import altered
from tests.fakes.hostile import (
    HONEST,
    LIAR,
    lies,
    off_by,
    rejected,
    steps,
    trio,
    weighing,
)

HEADER = struct.Struct("<4sHBBIHHQ16s")
NAMES = (
    *("magic", "version", "log_n", "polynomials", "blocks", "summands", "seeds"),
    *("modulus", "key_id"),
)
STEP = 1e-5
"""Of profile 20 at range 1, a few of them."""
BLOCK = 30_720
BLOCKS = 3


def left_out(federation: Federation, caplog: pytest.LogCaptureFixture) -> str:
    """Check that the liar was refused and counted, the others' mean is right.

    Returns what was said of the last refusal.
    """
    federation.lead()
    assert rejected(federation) == [(LIAR, "verification")] * ASKS_ALLOWED
    assert off_by(federation, HONEST) < STEP
    return caplog.records[-1].getMessage() if caplog.records else ""


def key_ended(federation: Federation, number: int = 1) -> None:
    """Check that no honest site uses a false sum, and that its key ended there.

    The liar refuses it too: it counts an update that is not in its own outbox.
    """
    with pytest.raises(QuorumNotMet, match="refused by all"):
        federation.lead()
    for name in HONEST:
        site = federation.sites[name]
        actions = [r for r in site.records() if r.action == "key.ended"]
        assert [r.detail["reason"] for r in actions] == ["a tag failed"]
        assert site.shelf().model(number) is None
    assert {(name, "key_ended") for name in HONEST} <= set(rejected(federation))


# --- the header -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("magic", b"FSHF"),
        ("version", 0),
        ("version", 2),
        ("log_n", 9),
        ("log_n", 11),
        ("log_n", 16),
        ("polynomials", 0),
        ("polynomials", 2),
        ("polynomials", 255),
        ("blocks", 0),
        ("blocks", 2),
        ("blocks", (1 << 20) + 1),
        ("blocks", (1 << 32) - 1),
        ("summands", 0),
        ("summands", 2),
        ("summands", (1 << 16) - 1),
        ("seeds", 0),
        ("seeds", 2),
        ("seeds", (1 << 16) - 1),
        ("modulus", 0),
        ("modulus", 1 << 59),
        ("modulus", (1 << 60) - 1),
        ("modulus", (1 << 64) - 1),
        ("key_id", bytes(16)),
    ],
)
def test_a_changed_header_field_is_refused(
    field: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    def change(body: bytes) -> bytes:
        fields = dict(zip(NAMES, HEADER.unpack_from(body), strict=True))
        assert fields[field] != value
        fields[field] = value
        return HEADER.pack(*fields.values()) + body[HEADER_BYTES:]

    federation = trio()
    lies(federation, change)
    assert "another form than the run's" in left_out(federation, caplog)


# --- the length -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [0, 1, 4, 39, 40, 41, 47, 160, 40 + 15_360, 40 + 30_719, 40 + 30_720, 30_823],
)
def test_a_body_cut_at_any_place_is_refused(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    federation = trio()
    lies(federation, lambda body: body[:size])
    said = left_out(federation, caplog)
    assert "must be 30824" in said or "another form" in said


@pytest.mark.parametrize("more", [1, 64, BLOCK, 30_824])
def test_bytes_behind_a_body_are_refused(
    more: int, caplog: pytest.LogCaptureFixture
) -> None:
    federation = trio()
    lies(federation, lambda body: body + bytes(more))
    assert "must be 30824" in left_out(federation, caplog)


@pytest.mark.parametrize("part", ["magic", "prefix", "head", "signature", "body"])
def test_a_message_cut_in_any_of_its_parts_is_refused(
    part: str, caplog: pytest.LogCaptureFixture
) -> None:
    federation = trio()

    def tamper(site: str, data: bytes) -> bytes:
        if site != LIAR or parse(data, MAX_BYTES).kind != Kind.UPDATE:
            return data
        head = struct.unpack_from("<I", data, 6)[0]
        ends = {"magic": 3, "prefix": 9, "head": 10 + head // 2}
        ends |= {"signature": 10 + head + 63, "body": len(data) - 1}
        return data[: ends[part]]

    federation.tamper = tamper
    assert "message" in left_out(federation, caplog)


# --- the pieces -----------------------------------------------------------------------


def block(body: bytes, number: int) -> bytes:
    """Return the packed residues of one of three blocks."""
    return body[HEADER_BYTES + number * BLOCK :][:BLOCK]


def seed(body: bytes, number: int) -> bytes:
    """Return the seed of one of three blocks."""
    return body[HEADER_BYTES + BLOCKS * BLOCK + number * 64 :][:64]


def built(body: bytes, order: list[int], seeds: list[int]) -> bytes:
    """Return a body of these blocks with these seeds, under the same header."""
    pieces = [block(body, n) for n in order] + [seed(body, n) for n in seeds]
    return body[:HEADER_BYTES] + b"".join(pieces)


@pytest.mark.parametrize(
    ("order", "seeds", "said"),
    [
        ([0, 1], [0, 1], "must be"),
        ([0, 1, 1, 2], [0, 1, 1, 2], "must be"),
        ([0, 1, 2], [0, 1], "must be"),
        ([0, 1, 1], [0, 1, 1], "repeats a seed"),
        ([0, 1, 2], [0, 0, 2], "repeats a seed"),
    ],
)
def test_missing_and_doubled_pieces_are_refused(
    order: list[int], seeds: list[int], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    federation = trio(wide=True)
    lies(federation, lambda body: built(body, order, seeds))
    assert said in left_out(federation, caplog)


@pytest.mark.parametrize(
    ("order", "seeds"),
    [([2, 1, 0], [2, 1, 0]), ([2, 1, 0], [0, 1, 2]), ([0, 1, 1], [0, 1, 2])],
    ids=["with their seeds", "without", "doubled"],
)
def test_pieces_in_another_place_end_the_key(
    order: list[int], seeds: list[int]
) -> None:
    federation = trio(wide=True)
    lies(federation, lambda body: built(body, order, seeds))
    key_ended(federation)


def test_another_sites_ciphertext_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    federation, seen = trio(), dict[str, bytes]()

    def tamper(site: str, data: bytes) -> bytes:
        found = parse(data, MAX_BYTES)
        if found.kind != Kind.UPDATE:
            return data
        seen.setdefault(site, bytes(found.body))
        stolen = seen["site-1"]
        return altered(federation, data, body=stolen) if site == LIAR else data

    federation.tamper = tamper
    assert "repeats a seed" in left_out(federation, caplog)


def test_another_sites_ciphertext_without_seeds_ends_the_key() -> None:
    """Nobody can tell two plain ciphertexts apart: their tags do it, at the sites."""
    federation, seen = trio(scheme="insecure_plain"), dict[str, bytes]()

    def tamper(site: str, data: bytes) -> bytes:
        found = parse(data, MAX_BYTES)
        if found.kind != Kind.UPDATE:
            return data
        seen.setdefault(site, bytes(found.body))
        stolen = seen["site-1"]
        return altered(federation, data, body=stolen) if site == LIAR else data

    federation.tamper = tamper
    key_ended(federation)


def test_an_own_ciphertext_of_an_earlier_round_ends_the_key() -> None:
    federation, seen = trio(rounds=2), list[bytes]()

    def keep(body: bytes) -> bytes:
        seen.append(body)
        return seen[0]

    lies(federation, keep)
    key_ended(federation, number=2)


def test_a_residue_not_below_q_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    def change(body: bytes) -> bytes:
        top = np.full(16, (1 << 60) - 1, dtype=np.uint64)
        return body[:HEADER_BYTES] + residues.pack(top) + body[HEADER_BYTES + 120 :]

    federation = trio()
    lies(federation, change)
    assert "not below q" in left_out(federation, caplog)


# --- another run's --------------------------------------------------------------------


def test_an_update_of_another_run_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    federation, other = trio(), trio(rounds=2)
    theirs = dict[str, bytes]()
    other.tamper = lambda site, data: theirs.setdefault(f"{site}{len(theirs)}", data)
    other.lead()
    update = next(
        data
        for name, data in theirs.items()
        if name.startswith(LIAR) and parse(data, MAX_BYTES).kind == Kind.UPDATE
    )

    def tamper(site: str, data: bytes) -> bytes:
        mine = site == LIAR and parse(data, MAX_BYTES).kind == Kind.UPDATE
        return update if mine else data

    federation.tamper = tamper
    assert "is for another" in left_out(federation, caplog)


@pytest.mark.parametrize("parameter", ["key", "modulus", "degree"])
def test_a_whole_ciphertext_of_other_parameters_is_refused(
    parameter: str, caplog: pytest.LogCaptureFixture
) -> None:
    def change(body: bytes) -> bytes:
        key_id = body[24:40]
        found = ciphertext.from_bytes(body, key_id=key_id, max_summands=1)
        numbers, modulus = found.residues >> np.uint64(2), found.modulus
        if parameter == "key":
            key_id = bytes(16)
        elif parameter == "modulus":
            modulus = (1 << 59) + 1
        else:
            numbers = numbers[:, :, :2048]
        return ciphertext.to_bytes(
            ciphertext.Ciphertext(key_id, modulus, numbers, found.seeds, 1)
        )

    federation = trio()
    lies(federation, change)
    assert "another form than the run's" in left_out(federation, caplog)


def test_one_update_more_than_the_fields_have_room_for_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from dataclasses import replace

    federation = trio()
    federation.terms = replace(federation.terms, max_contributors=2)
    assert "3 summands, room for 2" in left_out(federation, caplog)


# --- values and weights ---------------------------------------------------------------


def test_values_beyond_the_range_are_cut_to_it_and_counted() -> None:
    federation, delta = trio(), np.array([50.0, -50.0, *[0.0] * 7])
    trainer = federation.sites[LIAR].trainer
    layout, model = trainer.initial({})
    trainer.change = lambda r: type(r)(
        ModelUpdate(layout, delta, 50), r.metrics, r.dp_steps
    )
    federation.lead()
    notes = [f for event, f in federation.notes.events if event == "released"]
    metrics = notes[0]["metrics"]
    assert isinstance(metrics, dict)
    counts = {s: m["saturated"] for s, m in metrics.items() if isinstance(m, dict)}
    assert counts == {"site-1": 0, "site-2": 0, LIAR: 2}
    moved = np.frombuffer(federation.models()["site-1"], dtype="<f8") - model
    honest = np.mean([federation.sites[s].trainer.step(model) for s in HONEST], axis=0)
    # Half its rows: weight 1/2, and no more than the range: 1 of a sum of weights 3/2.
    assert np.abs(moved[:2]).max() <= 2 / 3 * np.abs(honest[:2]).max() + 1.0


def test_a_site_that_lies_about_its_rows_weighs_one_at_most() -> None:
    """Not detected: within the sum nobody sees a weight. Bounded by `max_rows`."""
    federation, honest = trio(), trio()
    weighing(federation, LIAR, 10**12)
    weighing(honest, LIAR, 100)  # max_rows of the plan
    federation.lead()
    honest.lead()
    assert federation.models() == honest.models()
    assert rejected(federation) == []


@pytest.mark.parametrize("rows", [0, -100])
def test_a_site_of_no_rows_weighs_one_step(rows: int) -> None:
    federation = trio()
    weighing(federation, LIAR, rows)
    federation.lead()
    assert off_by(federation, HONEST) < STEP


def test_a_weight_that_leaves_no_mean_is_refused_by_all_and_the_key_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A site whose code was changed may put any number of its range into the field."""
    honest = client_update.weight_of

    def weight_of(plan: RunPlan, fixed: FixedPoint, rows: int) -> float | None:
        return -1.0 if rows == 77 else honest(plan, fixed, rows)

    monkeypatch.setattr(client_update, "weight_of", weight_of)
    federation = trio()
    for name, rows in (("site-1", 40), ("site-2", 40), (LIAR, 77)):
        weighing(federation, name, rows)
    with pytest.raises(QuorumNotMet, match="refused by all"):
        federation.lead()
    for name in HONEST:
        site = federation.sites[name]
        assert (name, "verification") in rejected(federation)
        assert site.shelf().model(1) is None
        reasons = {r.detail["reason"] for r in site.records() if "reason" in r.detail}
        assert "a tag failed" not in reasons


def test_a_false_update_leaves_no_row_in_the_journal() -> None:
    federation = trio()
    lies(federation, lambda body: body[:-1])
    federation.lead()
    sites = {e.site for e in federation.journal() if e.step == Step.UPDATE}
    assert sites == set(HONEST)
    assert (1, Step.RELEASE) in steps(federation)
