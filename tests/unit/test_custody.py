"""The run key: only its site opens it, only its custodian makes it."""

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from typing import Any

import pytest

from fedsecure import custody, registry
from fedsecure.custody import KeyCabinet, RunKeyDocument, RunKeyFacts
from fedsecure.envelope import canonical
from fedsecure.errors import VerificationError
from fedsecure.he import Scheme, SecretKey
from fedsecure.keys import BoxKey, SigningKey
from tests.fakes.store import FlakyStore

NONCE = bytes(range(32))
BFV: Scheme = registry.load("he", "bfv").create({})
FACTS = RunKeyFacts("fed", "run-1", "bfv", "site-1")
CUSTODIAN = SigningKey.from_bytes(bytes(32))
BOXES = {f"site-{i}": BoxKey.from_bytes(bytes([i]) * 32) for i in (1, 2)}


@dataclass(frozen=True)
class Made:
    """A run key, and what went out."""

    key: SecretKey
    document: RunKeyDocument

    def open(self, site: str = "site-2", **changed: Any) -> SecretKey:
        given: dict[str, Any] = {
            "document": (self.document.statement, self.document.wraps[site]),
            "scheme": BFV,
            "facts": FACTS,
            "custodian": CUSTODIAN.public,
            "site": site,
            "box": BOXES[site],
        }
        return custody.open_run_key(**{**given, **changed})

    def restated(self, signer: SigningKey = CUSTODIAN, **changed: Any) -> bytes:
        """Return the statement with other fields, signed again."""
        body = canonical({**json.loads(self.document.statement[64:]), **changed})
        return signer.sign(b"fedsecure-run-key-v1\0" + body) + body


def _make() -> Made:
    recipients = {site: box.public for site, box in BOXES.items()}
    return Made(*custody.make_run_key(BFV, FACTS, recipients, CUSTODIAN, NONCE))


@pytest.fixture(scope="module", name="made")
def _made() -> Made:
    return _make()


def test_every_site_opens_the_same_key(made: Made) -> None:
    opened = [made.open(site) for site in BOXES]
    assert [k.secret for k in opened] == [made.key.secret] * 2
    assert [k.key_id for k in opened] == [made.key.key_id] * 2


def test_key_id_comes_from_the_nonce_and_not_from_the_key(made: Made) -> None:
    again = _make()
    assert again.key.key_id == made.key.key_id
    assert again.key.secret != made.key.secret


def test_what_goes_out_holds_no_key_byte(made: Made) -> None:
    out = b"".join([made.document.statement, *made.document.wraps.values()])
    secret = made.key.secret
    assert not any(secret[i : i + 16] in out for i in range(64, len(secret) - 16, 64))
    assert secret.hex()[200:264].encode() not in out


@pytest.mark.parametrize("length", [0, 31, 33])
def test_nonce_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(VerificationError, match="must be 32"):
        custody.make_run_key(BFV, FACTS, {}, CUSTODIAN, bytes(length))


def test_wrap_of_another_site_is_refused(made: Made) -> None:
    document = (made.document.statement, made.document.wraps["site-1"])
    with pytest.raises(VerificationError, match="did not make this wrap for site-2"):
        made.open(document=document)


def test_another_box_key_does_not_open_the_wrap(made: Made) -> None:
    with pytest.raises(VerificationError):
        made.open(box=BOXES["site-1"])


def test_statement_of_another_signer_is_refused(made: Made) -> None:
    statement = made.restated(SigningKey.from_bytes(bytes([7]) * 32))
    with pytest.raises(VerificationError, match="signature"):
        made.open(document=(statement, made.document.wraps["site-2"]))


@pytest.mark.parametrize("offset", [0, 63, 64, 200, -1])
def test_flipped_bit_in_the_statement_is_refused(made: Made, offset: int) -> None:
    statement = bytearray(made.document.statement)
    statement[offset] ^= 1
    with pytest.raises(VerificationError, match="signature"):
        made.open(document=(bytes(statement), made.document.wraps["site-2"]))


@pytest.mark.parametrize("field", ["federation", "run", "scheme", "custodian"])
def test_statement_for_something_else_is_refused(made: Made, field: str) -> None:
    facts = replace(FACTS, **{field: "other"})
    with pytest.raises(VerificationError, match="for another run"):
        made.open(facts=facts)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"nonce": "zz"}, "not well formed"),
        ({"check": 5}, "not well formed"),
        ({"nonce": bytes(32).hex()}, "for another run"),
        ({"format": 2}, "for another run"),
        ({"key_id": bytes(16).hex()}, "for another run"),
        ({"wraps": []}, "for another run"),
        ({"wraps": {}}, "did not make this wrap"),
    ],
)
def test_statement_that_does_not_fit_is_refused(
    made: Made, changed: dict[str, Any], reason: str
) -> None:
    document = (made.restated(**changed), made.document.wraps["site-2"])
    with pytest.raises(VerificationError, match=reason):
        made.open(document=document)


@pytest.mark.parametrize("length", [0, 64, (1 << 20) + 1])
def test_statement_of_a_wrong_size_is_refused(made: Made, length: int) -> None:
    with pytest.raises(VerificationError, match="at most 1048576"):
        made.open(document=(bytes(length), made.document.wraps["site-2"]))


def test_wrong_key_fails_the_check_and_not_the_training(made: Made) -> None:
    other = BFV.keygen(made.key.key_id)
    info = b"fedsecure-run-key-v1\0fed|run-1|bfv|site-2|" + made.key.key_id
    wrap = BOXES["site-2"].public.seal(other.secret, info)
    wraps = {"site-2": hashlib.sha256(wrap).hexdigest()}
    with pytest.raises(VerificationError, match="wrong run key"):
        made.open(document=(made.restated(wraps=wraps), wrap))


def test_tag_key_is_equal_at_all_sites_and_is_not_the_key(made: Made) -> None:
    tag_keys = {custody.tag_key(made.open(site)) for site in BOXES}
    assert len(tag_keys) == 1
    (tag_key,) = tag_keys
    assert len(tag_key) == 32
    assert tag_key not in made.key.secret


def test_tag_key_differs_by_key_id(made: Made) -> None:
    moved = replace(made.key, key_id=bytes(16))
    assert custody.tag_key(moved) != custody.tag_key(made.key)


def test_no_step_logs_the_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        made = _make()
        made.open()
    text = caplog.text + repr(made.key)
    assert made.key.secret.hex()[200:232] not in text
    assert "secret" not in text.lower().replace("secretkey", "")


def test_cabinet_gives_back_what_it_kept(made: Made) -> None:
    cabinet = KeyCabinet(FlakyStore(), BOXES["site-1"])
    cabinet.keep("run-1", made.key)
    assert cabinet.get("run-1") == made.key


def test_cabinet_knows_no_key_of_another_run(made: Made) -> None:
    cabinet = KeyCabinet(FlakyStore(), BOXES["site-1"])
    cabinet.keep("run-1", made.key)
    assert cabinet.get("run-2") is None


def test_cabinet_holds_no_key_byte_in_plain(made: Made) -> None:
    store = FlakyStore()
    KeyCabinet(store, BOXES["site-1"]).keep("run-1", made.key)
    (sealed,) = store.objects.values()
    assert made.key.secret[64:96] not in sealed


def test_cabinet_of_another_site_does_not_open(made: Made) -> None:
    store = FlakyStore()
    KeyCabinet(store, BOXES["site-1"]).keep("run-1", made.key)
    with pytest.raises(VerificationError):
        KeyCabinet(store, BOXES["site-2"]).get("run-1")


def test_key_moved_to_another_run_does_not_open(made: Made) -> None:
    store = FlakyStore()
    cabinet = KeyCabinet(store, BOXES["site-1"])
    cabinet.keep("run-1", made.key)
    store.objects["run-2/key"] = store.objects["run-1/key"]
    with pytest.raises(VerificationError):
        cabinet.get("run-2")
