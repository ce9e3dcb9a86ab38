"""Both halves of a round under a peer who signs what it likes.

A whole run is played once and written down: every letter a site got, and its machine
as it was before. A changed letter, signed again by the aggregator, is then put to that
machine. The other way round a run is led in which one of a site's answers is changed
and signed again by the site.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from hypothesis import strategies as st

from fedsecure.envelope import Envelope, Kind, Scope, parse, sign
from fedsecure.errors import FedsecureError, QuorumNotMet, StaleTerm
from fedsecure.trainer import JSON
from fedsecure.update import RoundId
from tests.fakes.disk import FakeDisk
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.store import FlakyStore
from tests.fuzz.mutations import letters, unframed
from tests.fuzz.target import Target

ME = "site-2"
CUSTODIAN = "site-1"
_HEX = re.compile("([0-9a-f]{2})*")


def _federation(rounds: int) -> Federation:
    return Federation(private=False, masked=True, rounds=rounds, min_contributors=2)


def _fields(envelope: Envelope) -> tuple[dict[str, JSON], bytes]:
    """Return a message as a document that can be changed, and its body."""
    scope = envelope.scope
    return {
        "kind": str(envelope.kind),
        "run": scope.round.run,
        "round": scope.round.number,
        "site": scope.site,
        "ids": [scope.key_id.hex(), scope.layout.hex(), scope.plan.hex()],
        "header": json.loads(envelope.header),
    }, bytes(envelope.body)


def _signed(
    federation: Federation, data: bytes, was: dict[str, JSON], signer: str
) -> bytes:
    """Return the message a changed document describes; what cannot be, is as it was."""
    head, body = unframed(data)
    found = json.loads(head)
    fields = {**was, **(found if isinstance(found, dict) else {})}
    fields = {k: v if _is_one(k, v) else was.get(k) for k, v in fields.items()}
    ids = [bytes.fromhex(str(text)) for text in cast("list[JSON]", fields["ids"])]
    round_id = RoundId(str(fields["run"]), int(str(fields["round"])))
    return sign(
        Kind(str(fields["kind"])),
        Scope(round_id, str(fields["site"]), *ids),
        cast("dict[str, JSON]", fields["header"]),
        body,
        signer=signer,
        key=federation.signing(signer),
    ).to_bytes()


def _is_one(name: str, value: JSON) -> bool:
    """Return whether a message can have this field at all."""
    match name, value:
        case "kind", str(kind):
            return kind in set(Kind)
        case "round", int(number):
            return not isinstance(number, bool) and 0 <= number < 1 << 53
        case "ids", [str(), str(), str()]:
            return all(_HEX.fullmatch(str(text)) for text in value)
        case "header", dict():
            return True
    return name in {"run", "site"} and isinstance(value, str)


# --- a site, and an aggregator who means harm -----------------------------------------


@dataclass(frozen=True)
class _Moment:
    """A letter, and the machine it came to."""

    letter: tuple[dict[str, JSON], bytes]
    disk: dict[Path, bytes]
    objects: dict[str, bytes]


@cache
def _moments(site: str) -> tuple[Federation, tuple[_Moment, ...]]:
    federation, found = _federation(2), list[_Moment]()
    federation.rotation.rounds = {2}
    machine, answer = federation.sites[site], federation.sites[site].answer

    def watched(data: bytes) -> bytes:
        before = dict(machine.disk.restart().durable), dict(machine.store.objects)
        found.append(_Moment(_fields(parse(data, MAX_BYTES)), *before))
        return answer(data)

    machine.answer = watched  # type: ignore[method-assign]
    federation.lead()
    machine.answer = answer  # type: ignore[method-assign]
    return federation, tuple(found)


def _site(site: str) -> Callable[[bytes], None]:
    def probe(data: bytes) -> None:
        """Whatever an aggregator signs: an answer, and one that can be read."""
        federation, moments = _moments(site)
        moment = moments[data[0] % len(moments)]
        machine = federation.sites[site]
        machine.die()
        machine.disk = FakeDisk(durable=dict(moment.disk), cached=dict(moment.disk))
        machine.store = FlakyStore()
        machine.store.objects = dict(moment.objects)
        letter = _signed(federation, data[1:], moment.letter[0], "agg-1")
        found = parse(machine.answer(letter), MAX_BYTES)
        assert found.signer == site

    return probe


def _letters_to(site: str) -> st.SearchStrategy[bytes]:
    def chosen(index: int) -> st.SearchStrategy[bytes]:
        moments = _moments(site)[1]
        document, body = moments[index % len(moments)].letter
        changed = letters([(cast("JSON", document), body)])
        return changed.map(lambda data: bytes([index]) + data)

    return st.integers(0, 11).flatmap(chosen)


# --- an aggregator, and a site that means harm ----------------------------------------


@cache
def _answers() -> tuple[tuple[str, dict[str, JSON], bytes], ...]:
    federation, found = _federation(1), list[tuple[str, dict[str, JSON], bytes]]()

    def watched(site: str, data: bytes) -> bytes:
        if site == ME or parse(data, MAX_BYTES).kind == Kind.BEGIN:
            found.append((site, *_fields(parse(data, MAX_BYTES))))
        return data

    federation.tamper = watched
    federation.lead()
    return tuple(found)


def _led(data: bytes) -> None:
    """One of a site's answers is false: the honest end with one model, or with none."""
    federation, done = _federation(1), False
    signer, document, _ = _answers()[data[0] % len(_answers())]
    false = _signed(federation, data[1:], document, signer)
    kind = document["kind"]

    def tamper(site: str, answer: bytes) -> bytes:
        nonlocal done
        if done or site != signer or parse(answer, MAX_BYTES).kind != kind:
            return answer
        done = True
        return false

    federation.tamper = tamper
    try:
        federation.lead()
    except (QuorumNotMet, StaleTerm):  # no model, or a leader of a higher term wanted
        return
    except FedsecureError as bad:
        raise AssertionError(f"a site ends a run: {bad!r}") from bad
    honest = {name: m for name, m in federation.models().items() if name != signer}
    assert len(set(honest.values())) == 1, "honest sites hold different models"


def _false_answers() -> st.SearchStrategy[bytes]:
    def chosen(index: int) -> st.SearchStrategy[bytes]:
        _, document, body = _answers()[index % len(_answers())]
        changed = letters([(cast("JSON", document), body)])
        return changed.map(lambda data: bytes([index]) + data)

    return st.integers(0, 11).flatmap(chosen)


HALF_TARGETS = (
    Target("site", st.deferred(lambda: _letters_to(ME)), _site(ME), share=4),
    Target(
        "custodian", st.deferred(lambda: _letters_to(CUSTODIAN)), _site(CUSTODIAN), 4
    ),
    Target("aggregator", st.deferred(_false_answers), _led, share=4),
)
