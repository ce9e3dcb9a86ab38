"""The run key: made at the custodian site, wrapped to each site, opened in one place.

It travels through the aggregator as bytes that only a site's box key opens. HPKE in
base mode does not say who sealed, so the custodian signs one statement over all wraps
(ENCRYPTION.md section 11). Nothing here prints, logs or returns a key to anyone but the
site that owns the box.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedsecure import ciphertext
from fedsecure.envelope import canonical
from fedsecure.errors import AlreadyExists, VerificationError
from fedsecure.he import Scheme, SecretKey
from fedsecure.keys import (
    SIGNATURE_BYTES,
    BoxKey,
    BoxPublic,
    SigningKey,
    VerifyKey,
    derive,
)
from fedsecure.stores import Store
from fedsecure.update import JSON, IntVector

FORMAT = 1
NONCE_BYTES = 32
MAX_STATEMENT_BYTES = 1 << 20
MAX_WRAP_BYTES = 1 << 20
_LABEL = b"fedsecure-run-key-v1\0"
_TAG_INFO = b"fedsecure-tag-key-v1"
_CABINET_INFO = b"fedsecure-cabinet-v1\0"
_KEY_CHECK = 0x5EC0DE


@dataclass(frozen=True, slots=True)
class RunKeyFacts:
    """What a run key is for; all of it public and signed.

    Attributes
    ----------
    federation, run, scheme, custodian : str
    first_round : int
        The round from which on it is used; 0 for the key a run begins with.
    """

    federation: str
    run: str
    scheme: str
    custodian: str
    first_round: int = 0


@dataclass(frozen=True, slots=True)
class RunKeyDocument:
    """A signed statement, and the wraps it lists by digest.

    Attributes
    ----------
    statement : bytes
        Signature, then canonical JSON.
    wraps : mapping of str to bytes
        By site.
    """

    statement: bytes
    wraps: Mapping[str, bytes]


def make_run_key(
    scheme: Scheme,
    facts: RunKeyFacts,
    recipients: Mapping[str, BoxPublic],
    signing: SigningKey,
    nonce: bytes,
) -> tuple[SecretKey, RunKeyDocument]:
    """Make a run key and wrap it to every recipient.

    Parameters
    ----------
    recipients : mapping of str to BoxPublic
        The sites of the run.
    nonce : bytes
        32 fresh random bytes: they make the key id, which says nothing of the key.
    """
    if len(nonce) != NONCE_BYTES:
        raise VerificationError(f"nonce of {len(nonce)} bytes, must be {NONCE_BYTES}")
    key_id = _key_id(facts, nonce)
    key = scheme.keygen(key_id)
    wraps = {
        site: box.seal(key.secret, _info(facts, key_id, site))
        for site, box in recipients.items()
    }
    body = canonical(
        {
            **_fields(facts, nonce),
            "key_id": key_id.hex(),
            "wraps": {s: hashlib.sha256(w).hexdigest() for s, w in wraps.items()},
            "check": ciphertext.to_bytes(
                scheme.encryptor(key).encrypt(_known(scheme, key))
            ).hex(),
        }
    )
    statement = signing.sign(_LABEL + body) + body
    return key, RunKeyDocument(statement, wraps)


def open_run_key(
    document: tuple[bytes, bytes],
    scheme: Scheme,
    facts: RunKeyFacts,
    custodian: VerifyKey,
    site: str,
    box: BoxKey,
) -> SecretKey:
    """Open this site's wrap: size, signature, parse, meaning, then the key check.

    Parameters
    ----------
    document : tuple of bytes
        The statement, and this site's wrap.

    Raises
    ------
    VerificationError
        Not the custodian's, for another run or site, or a key that does not open the
        statement's check ciphertext ("wrong run key").
    """
    statement, wrap = document
    fields = _read_statement(statement, custodian)
    try:
        nonce = bytes.fromhex(str(fields["nonce"]))
        expected = {**_fields(facts, nonce), "key_id": _key_id(facts, nonce).hex()}
        stated = {name: fields[name] for name in expected}
        wraps, check = fields["wraps"], bytes.fromhex(str(fields["check"]))
    except (KeyError, ValueError) as bad:
        raise VerificationError("run key statement is not well formed") from bad
    if stated != expected or not isinstance(wraps, dict):
        raise VerificationError("run key statement is for another run")
    if wraps.get(site) != hashlib.sha256(wrap).hexdigest():
        raise VerificationError(f"the custodian did not make this wrap for {site}")
    key_id = _key_id(facts, nonce)
    secret = box.open(wrap, _info(facts, key_id, site))
    key = SecretKey(facts.scheme, key_id, secret)
    _check_key(scheme, key, check)
    return key


def tag_key(key: SecretKey) -> bytes:
    """Return the key of the ciphertext tags; 32 bytes, unknown to aggregators."""
    return derive(key.secret, _TAG_INFO + key.key_id, 32)


class KeyCabinet:
    """A site's opened run keys at rest, sealed to its own box key.

    Parameters
    ----------
    store : Store
    box : BoxKey
    """

    def __init__(self, store: Store, box: BoxKey) -> None:
        self._store = store
        self._box = box

    def keep(self, run: str, first_round: int, key: SecretKey) -> None:
        """Keep the key of a run's rounds from `first_round` on.

        Raises
        ------
        AlreadyExists
            Another key of that round is kept.
        """
        name = f"{run}/key/{first_round}"
        head = canonical({"scheme": key.scheme, "key_id": key.key_id.hex()})
        plain = len(head).to_bytes(2, "little") + head + key.secret
        info = _CABINET_INFO + name.encode()
        try:
            self._store.put(name, self._box.public.seal(plain, info))
        except AlreadyExists:  # a crash came between this and the ledger
            if self._read(name) != key:
                raise

    def all(self, run: str) -> Mapping[int, SecretKey]:
        """Return the run's keys that are kept, by first round.

        Raises
        ------
        VerificationError
            Stored bytes do not open with this site's box key, or are no run key.
        """
        names = self._store.keys(f"{run}/key/")
        rounds = [int(n) for n in (k.rsplit("/", 1)[1] for k in names) if n.isdecimal()]
        return {first: self._read(f"{run}/key/{first}") for first in sorted(rounds)}

    def destroy(self, run: str, first_round: int) -> None:
        """Remove a key; idempotent.

        What a disk keeps of a removed file opens with the site's box key only.
        """
        self._store.delete(f"{run}/key/{first_round}")

    def _read(self, name: str) -> SecretKey:
        sealed = self._store.get(name, MAX_WRAP_BYTES)
        plain = self._box.open(sealed, _CABINET_INFO + name.encode())
        # Anyone can seal to a public key, so what opened may still be nonsense.
        length = int.from_bytes(plain[:2], "little")
        try:
            head = json.loads(plain[2 : 2 + length])
            scheme, key_id = str(head["scheme"]), bytes.fromhex(head["key_id"])
        except (KeyError, TypeError, ValueError, RecursionError) as bad:
            raise VerificationError(f"kept key {name} is no run key") from bad
        return SecretKey(scheme, key_id, plain[2 + length :])


def _fields(facts: RunKeyFacts, nonce: bytes) -> dict[str, JSON]:
    return {
        "format": FORMAT,
        "federation": facts.federation,
        "run": facts.run,
        "scheme": facts.scheme,
        "custodian": facts.custodian,
        "first_round": facts.first_round,
        "nonce": nonce.hex(),
    }


def _key_id(facts: RunKeyFacts, nonce: bytes) -> bytes:
    body = canonical(_fields(facts, nonce))
    return hashlib.sha256(_LABEL + body).digest()[: ciphertext.KEY_ID_BYTES]


def _info(facts: RunKeyFacts, key_id: bytes, site: str) -> bytes:
    names = f"{facts.federation}|{facts.run}|{facts.scheme}|{site}|"
    return _LABEL + names.encode() + key_id


def _read_statement(statement: bytes, custodian: VerifyKey) -> Mapping[str, JSON]:
    if not SIGNATURE_BYTES < len(statement) <= MAX_STATEMENT_BYTES:
        raise VerificationError(
            f"run key statement of {len(statement)} bytes, "
            f"at most {MAX_STATEMENT_BYTES}"
        )
    signature, body = statement[:SIGNATURE_BYTES], statement[SIGNATURE_BYTES:]
    custodian.verify(signature, _LABEL + body)
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as bad:
        raise VerificationError("run key statement is not JSON") from bad
    if not isinstance(fields, dict):
        raise VerificationError("run key statement is not an object")
    return fields


def _known(scheme: Scheme, key: SecretKey) -> IntVector:
    slots = scheme.encryptor(key).slots
    return np.full((1, slots), _KEY_CHECK % (1 << scheme.plain_bits), dtype=np.int64)


def _check_key(scheme: Scheme, key: SecretKey, check: bytes) -> None:
    sample = ciphertext.from_bytes(check, key_id=key.key_id, max_summands=1)
    opened = scheme.decryptor(key).decrypt(sample)
    if not np.array_equal(opened, _known(scheme, key)):
        raise VerificationError("wrong run key: it does not open the custodian's check")
