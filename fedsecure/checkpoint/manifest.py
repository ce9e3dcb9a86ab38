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
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields

from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.keys import SIGNATURE_BYTES, SigningKey, VerifyKey
from fedsecure.update import JSON

FORMAT = 2
MAX_BYTES = 1 << 20
_LABEL = b"fedsecure-manifest-v1\0"


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
        values: dict[str, JSON] = {f.name: getattr(self, f.name) for f in fields(self)}
        return canonical({"format": FORMAT, **values})


def read_manifest(data: bytes, keys: Mapping[str, VerifyKey]) -> Manifest:
    """Return a manifest signed by one of the aggregators.

    Parameters
    ----------
    keys : mapping of str to VerifyKey
        Aggregators' signing keys by name.

    Raises
    ------
    VerificationError
        Too large, not signed by its writer, or not well formed.
    """
    if not SIGNATURE_BYTES < len(data) <= MAX_BYTES:
        raise VerificationError(f"manifest of {len(data)} bytes, at most {MAX_BYTES}")
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    try:
        values = json.loads(body)
        writer = keys[values["writer"]]
    except (ValueError, KeyError, TypeError, RecursionError) as bad:
        raise VerificationError("manifest is not by an aggregator we know") from bad
    writer.verify(signature, _LABEL + body)
    try:
        strict = canonical(values) == body
    except ConfigurationError as bad:
        raise VerificationError("manifest is not canonical JSON") from bad
    if not strict:
        raise VerificationError("manifest is not in canonical form")
    return _manifest(values)


def _manifest(values: dict[str, JSON]) -> Manifest:
    expected = {f.name: f.type for f in fields(Manifest)}
    known = values.get("format") == FORMAT and values["format"] is not True
    if set(values) != {"format", *expected} or not known:
        raise VerificationError(
            f"manifest of format {values.get('format')!r:.20} does not have the fields "
            f"of format {FORMAT}, which this version reads: upgrade this aggregator, "
            "or use the version that wrote it"
        )
    for name, kind in expected.items():
        if type(values[name]) is not kind:
            raise VerificationError(f"manifest field {name} is not of type {kind}")
        if kind is int and int(str(values[name])) < 0:
            raise VerificationError(f"manifest field {name}={values[name]}, below 0")
    return Manifest(**{name: values[name] for name in expected})  # type: ignore[arg-type]
