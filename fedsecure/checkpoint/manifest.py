"""What a release's checkpoint is made of: numbered, chained, signed.

The chain is ``prev``, not the number: numbers only rise and may have gaps, orphans of
dead writers. A manifest is committed only by the head (RESILIENCE.md section 8).

With the objects it names, a manifest is all of a run up to its round: the sealed
release holds the encrypted sum and the participants with the digests of their updates;
what does not change from round to round (run key's wraps, layout, first model) is the
``begin/`` object of its key, written once a key. There is no optimiser's and no
strategy's state to keep: federated averaging has none on a server, which never holds
the model (docs/adr/0025), and what a site's own training keeps (rounding errors carried
over, its ledger) is on its shelf.

Since format 3 a manifest names the roster it was made under (`checkpoint.rosters` says
what is done with that; docs/adr/0032). One of format 2 does not, and is read as saying
nothing of it.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields

from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.keys import SIGNATURE_BYTES, SigningKey, VerifyKey
from fedsecure.update import JSON

FORMAT = 3
WITHOUT_ROSTER = 2
"""The format before: the same fields but those that name the roster."""
MAX_BYTES = 1 << 20
_LABEL = b"fedsecure-manifest-v1\0"
_ROSTER = ("roster", "roster_digest", "federation")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Unread(VerificationError):
    """A manifest is not signed by an aggregator we know; nothing in it was verified.

    Attributes
    ----------
    federation, roster : str, int
        What it says it was made under; "" and 0: it does not.
    """

    def __init__(self, values: Mapping[str, JSON], why: str) -> None:
        federation, roster = values.get("federation"), values.get("roster")
        self.federation = federation if isinstance(federation, str) else ""
        self.roster = roster if type(roster) is int else 0
        under = f" under roster {self.roster}" if self.roster > 0 else ""
        super().__init__(f"{why}, it says by {values['writer']!r:.40}{under}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One release's checkpoint.

    Attributes
    ----------
    run, round, sequence, term : str, int, int, int
    after : int
        Round of the release it builds on.
    prev : str
        Digest of the previous committed manifest, hexadecimal; "" for the first.
    release : str
        Digest of the release, hexadecimal.
    root : str
        Digest of the closed set it sums, hexadecimal.
    object : str
        Name of the sealed release envelope.
    size : int
        Bytes of that object.
    key_id, plan, layout : str
        Run key's id, and digests of plan (the configuration) and layout, hexadecimal.
    time : str
        UTC, for people.
    writer : str
        The aggregator that signed it.
    app : str
        Digest of the code that made it, hexadecimal; "": not said.
    heads : str
        Signed heads of the sites' ledgers as known then, canonical JSON (`receipts`):
        what a ledger put back from a backup is compared with.
    roster, roster_digest, federation : int, str, str
        Version and digest (`Roster.digest`) of the roster it was made under, and whose
        it is; 0, "" and "": not said, and the manifest is of format 2.
    """

    run: str
    round: int
    sequence: int
    term: int
    after: int
    prev: str
    release: str
    root: str
    object: str
    size: int
    key_id: str
    plan: str
    time: str
    writer: str
    layout: str = ""
    app: str = ""
    heads: str = "{}"
    roster: int = 0
    roster_digest: str = ""
    federation: str = ""

    @property
    def format(self) -> int:
        """Return which fields its stored form has."""
        says = any(getattr(self, name) for name in _ROSTER)
        return FORMAT if says else WITHOUT_ROSTER

    def require(self, plan: str, app: str, before: Collection[str] = ()) -> None:
        """Return only if a run with this configuration and code may go on from here.

        Parameters
        ----------
        plan, app : str
            Ours; an `app` that either side does not say is not compared.
        before : collection of str
            Code that ours may follow: its operator says that it is an upgrade.

        Raises
        ------
        ConfigurationError
            Names what differs, and what to do.
        """
        if plan != self.plan:
            raise ConfigurationError(
                f"run {self.run}: round {self.round} was released under configuration "
                f"(plan) {self.plan[:12]}, ours is {plan[:12]}: give this aggregator "
                "the aggregator.json the run began with, or start a new run"
            )
        if app and self.app and self.app not in {app, *before}:
            raise ConfigurationError(
                f"run {self.run}: round {self.round} was released by code {self.app}, "
                f"ours is {app[:12]}: install the version of fedsecure that "
                f"{self.writer} runs; or, if ours is an upgrade of it, name the first "
                "digest in code_before of this aggregator.json"
            )

    def digest(self) -> bytes:
        """Return the digest a head names; 32 bytes."""
        return hashlib.sha256(_LABEL + self._body()).digest()

    def signed(self, key: SigningKey) -> bytes:
        """Return the stored form: signature, then canonical JSON."""
        return key.sign(_LABEL + self._body()) + self._body()

    def _body(self) -> bytes:
        values: dict[str, JSON] = {n: getattr(self, n) for n in _kinds(self.format)}
        return canonical({"format": self.format, **values})


def read_manifest(data: bytes, keys: Mapping[str, VerifyKey]) -> Manifest:
    """Return a manifest signed by one of the aggregators.

    Parameters
    ----------
    keys : mapping of str to VerifyKey
        Aggregators' signing keys by name.

    Raises
    ------
    Unread
        Not signed by the one of those that it names.
    VerificationError
        Too large, or not well formed.
    """
    if not SIGNATURE_BYTES < len(data) <= MAX_BYTES:
        raise VerificationError(f"manifest of {len(data)} bytes, at most {MAX_BYTES}")
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    try:
        values = json.loads(body)
        writer = keys.get(values["writer"])
    except (ValueError, KeyError, TypeError, RecursionError) as bad:
        raise VerificationError("manifest is not by an aggregator we know") from bad
    if writer is None:
        raise Unread(values, "manifest is not by an aggregator we know")
    try:
        writer.verify(signature, _LABEL + body)
    except VerificationError as bad:
        raise Unread(values, f"manifest: {bad}") from bad
    try:
        strict = canonical(values) == body
    except ConfigurationError as bad:
        raise VerificationError("manifest is not canonical JSON") from bad
    if not strict:
        raise VerificationError("manifest is not in canonical form")
    return _manifest(values)


def _manifest(values: dict[str, JSON]) -> Manifest:
    said = values.get("format")
    known = type(said) is int and said in (WITHOUT_ROSTER, FORMAT)
    expected = _kinds(WITHOUT_ROSTER if said == WITHOUT_ROSTER else FORMAT)
    if set(values) != {"format", *expected} or not known:
        raise VerificationError(
            f"manifest of format {said!r:.20} does not have the fields of format "
            f"{FORMAT}, which this version reads, or {WITHOUT_ROSTER}, which it reads "
            "too: upgrade this aggregator, or use the version that wrote it"
        )
    for name, kind in expected.items():
        if type(values[name]) is not kind:
            raise VerificationError(f"manifest field {name} is not of type {kind}")
        if kind is int and int(str(values[name])) < 0:
            raise VerificationError(f"manifest field {name}={values[name]}, below 0")
    made = Manifest(**{n: values[n] for n in expected})  # type: ignore[arg-type]
    if said == FORMAT:
        _require_roster(made)
    return made


def _kinds(form: int) -> dict[str, object]:
    """Return name and type of every field of a format."""
    kinds: dict[str, object] = {f.name: f.type for f in fields(Manifest)}
    if form == WITHOUT_ROSTER:
        return {name: kinds[name] for name in kinds if name not in _ROSTER}
    return kinds


def _require_roster(manifest: Manifest) -> None:
    """Refuse a roster that is named in part: it would have a second stored form."""
    if manifest.roster < 1:
        raise VerificationError(
            f"manifest field roster={manifest.roster}, must be at least 1 in format "
            f"{FORMAT}"
        )
    for name in ("roster_digest", "federation"):
        if not _DIGEST.fullmatch(getattr(manifest, name)):
            raise VerificationError(
                f"manifest field {name}={getattr(manifest, name)!r:.80} is no SHA-256 "
                "in hexadecimal"
            )
