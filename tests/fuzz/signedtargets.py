"""Decoders of signed documents: an outsider's bytes, and a signer's who means harm."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, cast

from hypothesis import strategies as st

from fedsecure import parts, registry
from fedsecure.access.roster import Member, Role, Roster, federation_id, read_roster
from fedsecure.checkpoint import seal as sealing
from fedsecure.checkpoint.manifest import Manifest, Unread, read_manifest
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.custody import RunKeyFacts, make_run_key, open_run_key
from fedsecure.envelope import Kind, Scope, Verified, parse, read_head, sign, verify
from fedsecure.he import Scheme
from fedsecure.keys import SIGNATURE_BYTES, BoxKey, SigningKey
from fedsecure.metadata import JournalEntry, Step
from fedsecure.ranges import Ranges, read_ranges
from fedsecure.receipts import SignedHead, heads_document, read_heads
from fedsecure.release import plan_digest, read_participants, read_release, release_of
from fedsecure.runplan import read_plan
from fedsecure.server_round import resume
from fedsecure.shelf import read_layout
from fedsecure.trainer import JSON
from fedsecure.update import RoundId
from tests.fakes.federation import Federation
from tests.fuzz.mutations import documents, encoded, letters, mutated, unframed
from tests.fuzz.target import Target

KEY = SigningKey.from_bytes(b"k" * 32)
BOX = BoxKey.from_bytes(b"b" * 32)
LIMIT = 1 << 20
ROUND = RoundId("run-1", 3)
SCOPE = Scope(ROUND, "*", b"k" * 16, b"l" * 32, b"p" * 32)
LAYOUT: list[JSON] = [["w", [2, 3]], ["b", [3]]]


def _wire(kind: Kind, header: Mapping[str, JSON], body: bytes = b"body") -> bytes:
    return sign(kind, SCOPE, header, body, signer="agg-1", key=KEY).to_bytes()


def _verified(kind: Kind, document: bytes, body: bytes) -> Verified:
    """Return a message whose signer put any object into the header."""
    value = json.loads(document)
    header = value if isinstance(value, dict) else {"value": value}
    message = parse(_wire(kind, header, body), LIMIT)
    return verify(message, KEY.public, kinds=(kind,))


# --- envelopes, and what their headers say --------------------------------------------


WHOLE = [
    _wire(Kind.UPDATE, {"term": 1, "text": "ward ü"}),
    _wire(Kind.REQUEST, {"parts": [["a", 4]]}),
]


def _envelope(data: bytes) -> None:
    message = parse(data, LIMIT)
    verify(message, KEY.public, kinds=tuple(Kind))
    assert data in WHOLE


def _head(data: bytes) -> None:
    head, start = read_head(data)
    assert head.to_bytes() == data[:start]


PARTS: list[tuple[str, bytes]] = [("statement", b"s" * 9), ("wrap", b""), ("x", b"y")]


def _parts(data: bytes) -> None:
    message = _verified(Kind.REQUEST, *unframed(data))
    found = parts.split(message)
    assert b"".join(piece for _, piece in found) == message.body
    assert parts.listing(found) == message.header["parts"]


UPDATES = {"site-2": b"2" * 32, "site-1": b"1" * 32}
RELEASE = release_of(ROUND, 2, UPDATES, b"sum")


def _release(data: bytes) -> None:
    message = _verified(Kind.RELEASE, *unframed(data))
    found = read_release(message)
    assert found.header().items() <= message.header.items()
    assert found.sum_digest == hashlib.sha256(message.body).digest()


def _participants(data: bytes) -> None:
    rows = json.loads(data)
    found = read_participants(rows)
    assert [[site, digest.hex()] for site, digest in found] == rows


HEADS = [
    SignedHead.make(site, 5 + i, bytes([i]) * 32, KEY)
    for i, site in enumerate(("site-1", "site-2"))
]


def _heads(data: bytes) -> None:
    value = json.loads(data)
    assert heads_document(read_heads(value).values()) == value


# --- plans, layouts, ranges, journal --------------------------------------------------


@cache
def _plans() -> Sequence[JSON]:
    kinds: list[dict[str, Any]] = [{}, {"private": False, "masked": True}]
    return [cast("JSON", Federation(**kind).plan) for kind in kinds]


def _plan(data: bytes) -> None:
    """A plan as it travels: in a header, whose numbers are doubles."""
    value = _verified(Kind.REQUEST, data, b"").header
    assert read_plan(value).digest == plan_digest(value)


def _layout(data: bytes) -> None:
    found = read_layout(data)
    assert found.num_parameters > 0
    assert read_layout(json.dumps(found.document()).encode()) == found


RANGES = Ranges(1.0, (6, 9), (0.5, 0.25))


def _ranges(data: bytes) -> None:
    found = read_ranges(data)
    assert read_ranges(json.dumps(found.document()).encode()) == found


@cache
def _journal() -> Sequence[JSON]:
    """Return a round's rows, each as [step, site, detail]."""
    federation = Federation(private=False, rounds=1)
    federation.lead()
    entries = [e for e in federation.journal() if e.round == 1]
    return [[[str(e.step), e.site, json.loads(e.detail)] for e in entries]]


def _resumed(data: bytes) -> None:
    """A round rebuilt from rows that the metadata engine changed."""
    entries = []
    rows = json.loads(data)
    for row in rows if isinstance(rows, list) else ():
        match row:
            case [str(step), str(site), detail] if step in set(Step):
                text = encoded(detail)
                entries.append(JournalEntry("run-1", 1, Step(step), site, "x", text))
    resume(entries, {}, 0.0)


# --- keys, members, checkpoints -------------------------------------------------------


FACTS = RunKeyFacts("clinics", "run-1", "insecure_plain", "site-1")


@cache
def _made(scheme: str) -> tuple[Scheme, RunKeyFacts, bytes, bytes, bytes]:
    facts = RunKeyFacts("clinics", "run-1", scheme, "site-1")
    he: Scheme = registry.load("he", scheme).create({})
    key, made = make_run_key(he, facts, {"site-2": BOX.public}, KEY, bytes(32))
    return he, facts, made.statement, made.wraps["site-2"], key.secret


def _open(scheme: str, statement: bytes, wrap: bytes) -> None:
    he, facts, _, _, secret = _made(scheme)
    found = open_run_key((statement, wrap), he, facts, KEY.public, "site-2", BOX)
    assert found.secret == secret


_KEY_LABEL = b"fedsecure-run-key-v1\0"


def _statement(data: bytes) -> None:
    _open("insecure_plain", data, _made("insecure_plain")[3])


def _signed_statement(data: bytes) -> None:
    """A custodian who means harm signs any statement."""
    _statement(KEY.sign(_KEY_LABEL + data) + data)


def _false_key(data: bytes) -> None:
    """A custodian who means harm wraps any bytes as the key: SEAL reads them.

    It passes over some bytes of its own header, so another spelling of the right key
    opens the check too. Such a key makes other tags, which no site takes.
    """
    _, facts, statement, _, _ = _made("bfv")
    fields = json.loads(statement[SIGNATURE_BYTES:])
    names = f"{facts.federation}|{facts.run}|{facts.scheme}|site-2|"
    info = _KEY_LABEL + names.encode() + bytes.fromhex(fields["key_id"])
    wrap = BOX.public.seal(data, info)
    fields["wraps"] = {"site-2": hashlib.sha256(wrap).hexdigest()}
    body = encoded(fields)
    pair = (KEY.sign(_KEY_LABEL + body) + body, wrap)
    open_run_key(pair, _made("bfv")[0], facts, KEY.public, "site-2", BOX)


def _member(name: str, role: Role) -> Member:
    return Member(name, role, "org", KEY.public, BOX.public, "", "")


MEMBERS = {n: _member(n, Role.SITE) for n in ("site-1", "site-2")}
ROSTER = Roster(
    federation_id(KEY.public), 3, MEMBERS, "2027-01-01T00:00:00Z", frozenset({"site-2"})
)
ROSTER_BODY = ROSTER.signed(KEY)[32 + SIGNATURE_BYTES :]


def _roster(data: bytes) -> None:
    found = read_roster(data, ROSTER.federation)
    assert found.signed(KEY) == data


def _signed_roster(data: bytes) -> None:
    _roster(KEY.public.raw + KEY.sign(b"fedsecure-roster-v1\0" + data) + data)


SILENT = Manifest(  # format 2 names no roster
    *("run-1", 2, 3, 4, 1, "aa", "bb", "cc", "obj/dd", 100),
    *("ee", "ff", "2026-01-01T00:00:00.000+00:00", "agg-1"),
)
ROSTERS = Rosters(
    replace(ROSTER, members={**MEMBERS, "agg-1": _member("agg-1", Role.AGGREGATOR)})
)
MANIFESTS = [manifest.signed(KEY) for manifest in (SILENT, ROSTERS.named_in(SILENT))]
MANIFEST_BODIES = [json.loads(manifest[SIGNATURE_BYTES:]) for manifest in MANIFESTS]


def _manifest(data: bytes) -> None:
    try:
        found = read_manifest(data, {"agg-1": KEY.public})
    except Unread as unread:
        ROSTERS.require_unread("manifest/run-1/00000003", unread)
        raise
    assert found.signed(KEY) == data
    ROSTERS.require_chain([found])
    assert found.roster in {0, *range(1, ROSTER.version + 1)}
    assert found.federation in {"", ROSTER.federation}


def _signed_manifest(data: bytes) -> None:
    _manifest(KEY.sign(b"fedsecure-manifest-v1\0" + data) + data)


CONTEXT = b"run-1/1/update/site-1"
PLAIN = b"a sealed stream"
SEALED = sealing.to_bytes(
    sealing.seal(PLAIN, {"agg-1": BOX.public}, CONTEXT, bytes(range(39)))
)


def _sealed(data: bytes) -> None:
    found = sealing.unseal(sealing.from_bytes(data), "agg-1", BOX, CONTEXT)
    assert found == PLAIN


def _sealed_heads() -> st.SearchStrategy[bytes]:
    size = int.from_bytes(SEALED[:4], "little")
    head, chunks = json.loads(SEALED[4 : 4 + size]), SEALED[4 + size :]
    return letters([(head, chunks)])


def _json(samples: Sequence[JSON]) -> st.SearchStrategy[bytes]:
    return documents(samples)


def _both(samples: Sequence[JSON]) -> st.SearchStrategy[bytes]:
    return st.one_of(documents(samples), mutated([encoded(s) for s in samples]))


def _header(header: Mapping[str, JSON], body: bytes) -> st.SearchStrategy[bytes]:
    return letters([(cast("JSON", header), body)])


def _lazy(
    samples: Callable[[], Sequence[JSON]],
) -> st.SearchStrategy[bytes]:
    return st.deferred(lambda: documents(samples()))


SIGNED_TARGETS = (
    Target("envelope", mutated(WHOLE), _envelope),
    Target("head", mutated(WHOLE), _head),
    Target(
        "parts", _header({"parts": parts.listing(PARTS)}, parts.join(PARTS)), _parts
    ),
    Target("release", _header(RELEASE.header(), b"sum"), _release),
    Target("participants", _json([RELEASE.header()["participants"]]), _participants),
    Target("heads", _json([heads_document(HEADS)]), _heads),
    Target("plan", _lazy(_plans), _plan),
    Target("layout", _both([LAYOUT]), _layout),
    Target("ranges", _both([cast("JSON", RANGES.document())]), _ranges),
    Target("journal", _lazy(_journal), _resumed),
    Target(
        "statement",
        st.deferred(lambda: mutated([_made("insecure_plain")[2]])),
        _statement,
    ),
    Target(
        "false-statement",
        _lazy(lambda: [json.loads(_made("insecure_plain")[2][SIGNATURE_BYTES:])]),
        _signed_statement,
    ),
    Target("false-key", st.deferred(lambda: mutated([_made("bfv")[4]])), _false_key),
    Target("roster", mutated([ROSTER.signed(KEY)]), _roster),
    Target("false-roster", _json([json.loads(ROSTER_BODY)]), _signed_roster),
    Target("manifest", mutated(MANIFESTS), _manifest),
    Target("false-manifest", _json(MANIFEST_BODIES), _signed_manifest),
    Target("sealed", st.one_of(mutated([SEALED]), _sealed_heads()), _sealed),
)
