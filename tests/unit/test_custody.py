"""The run key: who opens it, what is refused, what shows nothing of it."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from fedsecure import custody, registry
from fedsecure.custody import (
    KeyCabinet,
    RunKeyDocument,
    RunKeyFacts,
    make_run_key,
    open_run_key,
    tag_key,
)
from fedsecure.envelope import canonical
from fedsecure.errors import AlreadyExists, VerificationError
from fedsecure.he import Scheme, SecretKey
from fedsecure.keys import SIGNATURE_BYTES, BoxKey, SigningKey, VerifyKey
from fedsecure.update import JSON
from tests.fakes.store import FlakyStore

FACTS = RunKeyFacts("clinics", "run-1", "bfv", "site-a")
NONCE = bytes(range(32))
CUSTODIAN = SigningKey.from_bytes(bytes(32))
BOXES = {f"site-{x}": BoxKey.from_bytes(x.encode() * 32) for x in "abc"}
Edit = Callable[[dict[str, JSON]], object]


class Made:
    """A run key as the custodian made it, and how a site opens it."""

    def __init__(self, nonce: bytes = NONCE) -> None:
        self.scheme: Scheme = registry.load("he", "bfv").create({})
        boxes = {site: box.public for site, box in BOXES.items()}
        made = make_run_key(self.scheme, FACTS, boxes, CUSTODIAN, nonce)
        self.key: SecretKey = made[0]
        self.document: RunKeyDocument = made[1]

    def open(
        self,
        site: str = "site-b",
        *,
        statement: bytes | None = None,
        wrap: bytes | None = None,
        facts: RunKeyFacts = FACTS,
        custodian: VerifyKey = CUSTODIAN.public,
        box: BoxKey | None = None,
    ) -> SecretKey:
        given = self.document
        pair = (
            given.statement if statement is None else statement,
            given.wraps[site] if wrap is None else wrap,
        )
        owned = BOXES[site] if box is None else box
        return open_run_key(pair, self.scheme, facts, custodian, site, owned)

    def edited(self, edit: Edit) -> bytes:
        """Return the statement after a change that the custodian signed."""
        fields = json.loads(self.document.statement[SIGNATURE_BYTES:])
        edit(fields)
        return signed(canonical(fields))


def signed(body: bytes) -> bytes:
    return CUSTODIAN.sign(custody._LABEL + body) + body


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


# --- opening --------------------------------------------------------------------------


@pytest.mark.parametrize("site", sorted(BOXES))
def test_every_recipient_opens_the_custodians_key(made: Made, site: str) -> None:
    assert made.open(site) == made.key


def test_another_custodians_signature_is_refused(made: Made) -> None:
    other = SigningKey.generate().public
    with pytest.raises(VerificationError, match="signature"):
        made.open(custodian=other)


@pytest.mark.parametrize(
    "facts",
    [
        replace(FACTS, federation="others"),
        replace(FACTS, run="run-2"),
        replace(FACTS, scheme="ckks"),
        replace(FACTS, custodian="site-c"),
    ],
    ids=["federation", "run", "scheme", "custodian"],
)
def test_a_key_for_something_else_is_refused(made: Made, facts: RunKeyFacts) -> None:
    with pytest.raises(VerificationError, match="for another run"):
        made.open(facts=facts)


def test_another_sites_wrap_is_refused(made: Made) -> None:
    with pytest.raises(VerificationError, match="did not make this wrap for site-b"):
        made.open(wrap=made.document.wraps["site-c"])


def test_a_site_that_is_no_recipient_is_refused(made: Made) -> None:
    with pytest.raises(VerificationError, match="did not make this wrap for site-z"):
        made.open("site-z", wrap=made.document.wraps["site-b"], box=BOXES["site-b"])


def test_another_box_key_does_not_open(made: Made) -> None:
    with pytest.raises(VerificationError, match="does not open with this key"):
        made.open(box=BoxKey.generate())


def test_a_wrap_of_another_run_does_not_open_under_this_statement(made: Made) -> None:
    # Same bytes, listed and signed for this run: the info it was sealed under differs.
    other = Made(bytes(32))
    listed = other.document.wraps["site-b"]
    digest = hashlib.sha256(listed).hexdigest()
    statement = made.edited(lambda f: f.update(wraps={"site-b": digest}))
    with pytest.raises(VerificationError, match="does not open with this key"):
        made.open(statement=statement, wrap=listed)


def test_a_key_that_is_not_the_statements_says_wrong_run_key(made: Made) -> None:
    twin = Made()  # the same nonce, so the same key id, and another key
    check = json.loads(twin.document.statement[SIGNATURE_BYTES:])["check"]
    statement = made.edited(lambda f: f.update(check=check))
    with pytest.raises(VerificationError, match="wrong run key"):
        made.open(statement=statement)


def test_another_key_in_a_listed_wrap_says_wrong_run_key(made: Made) -> None:
    other = made.scheme.keygen(made.key.key_id)
    info = custody._info(FACTS, made.key.key_id, "site-b")
    wrap = BOXES["site-b"].public.seal(other.secret, info)
    listed: dict[str, JSON] = {"site-b": hashlib.sha256(wrap).hexdigest()}
    statement = made.edited(lambda f: f.update(wraps=listed))
    with pytest.raises(VerificationError, match="wrong run key"):
        made.open(statement=statement, wrap=wrap)


# --- hostile bytes --------------------------------------------------------------------


def positions(size: int) -> Iterator[int]:
    yield from range(SIGNATURE_BYTES + 400)
    yield from range(SIGNATURE_BYTES + 400, size, 997)
    yield size - 1


def test_no_flipped_bit_of_the_statement_goes_unnoticed(made: Made) -> None:
    whole = made.document.statement
    for at in positions(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        with pytest.raises(VerificationError):
            made.open(statement=bytes(changed))


def test_no_flipped_bit_of_the_wrap_goes_unnoticed(made: Made) -> None:
    whole = made.document.wraps["site-b"]
    for at in range(0, len(whole), 499):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        with pytest.raises(VerificationError):
            made.open(wrap=bytes(changed))


@pytest.mark.parametrize(
    "size", [0, 1, SIGNATURE_BYTES, custody.MAX_STATEMENT_BYTES + 1]
)
def test_a_statement_of_impossible_size_is_refused_by_size(
    made: Made, size: int
) -> None:
    with pytest.raises(VerificationError, match=f"statement of {size} bytes"):
        made.open(statement=bytes(size))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[]", b"null", b"{}", b"[" * 100_000],
    ids=["empty", "cut", "no text", "list", "null", "no fields", "deep"],
)
def test_signed_nonsense_is_refused(made: Made, body: bytes) -> None:
    with pytest.raises(VerificationError):
        made.open(statement=signed(body))


NONSENSE: list[Edit] = [
    lambda f: f.update(format=2),
    lambda f: f.update(nonce="00"),
    lambda f: f.update(nonce="zz"),
    lambda f: f.update(nonce=7),
    lambda f: f.update(key_id="00" * 16),
    lambda f: f.update(wraps=[]),
    lambda f: f.update(wraps={}),
    lambda f: f.update(check=""),
    lambda f: f.update(check="not hex"),
    lambda f: f.update(check=None),
    lambda f: f.pop("check"),
    lambda f: f.pop("wraps"),
    lambda f: f.pop("nonce"),
]


@pytest.mark.parametrize("edit", NONSENSE, ids=range(len(NONSENSE)))
def test_a_signed_statement_without_meaning_is_refused(made: Made, edit: Edit) -> None:
    with pytest.raises(VerificationError):
        made.open(statement=made.edited(edit))


# --- what shows nothing ---------------------------------------------------------------


def test_a_key_id_is_of_the_statement_and_not_of_the_key(made: Made) -> None:
    twin = Made()
    assert twin.key.key_id == made.key.key_id
    assert twin.key.secret != made.key.secret


def test_another_nonce_makes_another_key_id(made: Made) -> None:
    assert Made(bytes(32)).key.key_id != made.key.key_id


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_nonce_of_another_length_is_refused(made: Made, size: int) -> None:
    boxes = {site: box.public for site, box in BOXES.items()}
    with pytest.raises(VerificationError, match="must be 32"):
        make_run_key(made.scheme, FACTS, boxes, CUSTODIAN, bytes(size))


def test_what_travels_holds_nothing_of_the_key(made: Made) -> None:
    travels = made.document.statement + b"".join(made.document.wraps.values())
    secret, derived = made.key.secret, tag_key(made.key)
    for piece in (secret[100:116], secret[-16:], derived[:16]):
        assert piece not in travels
        assert piece.hex().encode() not in travels


def test_tag_keys_are_equal_at_all_sites_and_none_is_the_run_key(made: Made) -> None:
    mine, theirs = tag_key(made.open("site-a")), tag_key(made.open("site-c"))
    assert mine == theirs
    assert len(mine) == 32
    assert mine not in made.key.secret


def test_a_tag_key_is_another_in_another_run(made: Made) -> None:
    moved = replace(made.key, key_id=bytes(16))
    assert tag_key(moved) != tag_key(made.key)


def test_no_step_logs_the_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        fresh = Made()
        fresh.open()
    shown = caplog.text + repr(fresh.key) + repr(fresh.document)
    assert fresh.key.secret.hex()[200:232] not in shown
    assert repr(fresh.key.secret[100:116])[2:-1] not in shown


# --- at rest --------------------------------------------------------------------------


def test_a_kept_key_comes_back(made: Made) -> None:
    cabinet = KeyCabinet(FlakyStore(), BOXES["site-b"])
    cabinet.keep("run-1", 0, made.key)
    assert cabinet.all("run-1") == {0: made.key}


def test_a_run_without_a_key_has_none(made: Made) -> None:
    cabinet = KeyCabinet(FlakyStore(), BOXES["site-b"])
    cabinet.keep("run-1", 0, made.key)
    assert cabinet.all("run-2") == {}


def test_the_first_kept_key_stays(made: Made) -> None:
    cabinet = KeyCabinet(FlakyStore(), BOXES["site-b"])
    cabinet.keep("run-1", 0, made.key)
    with pytest.raises(AlreadyExists):
        cabinet.keep("run-1", 0, Made().key)
    assert cabinet.all("run-1") == {0: made.key}


def test_what_is_kept_holds_nothing_of_the_key_in_the_clear(made: Made) -> None:
    store = FlakyStore()
    KeyCabinet(store, BOXES["site-b"]).keep("run-1", 0, made.key)
    assert made.key.secret[100:116] not in b"".join(store.objects.values())


def test_another_site_does_not_open_what_is_kept(made: Made) -> None:
    store = FlakyStore()
    KeyCabinet(store, BOXES["site-b"]).keep("run-1", 0, made.key)
    with pytest.raises(VerificationError):
        KeyCabinet(store, BOXES["site-c"]).all("run-1")


def test_a_key_moved_to_another_run_does_not_open(made: Made) -> None:
    store = FlakyStore()
    KeyCabinet(store, BOXES["site-b"]).keep("run-1", 0, made.key)
    store.objects["run-2/key/0"] = store.objects["run-1/key/0"]
    with pytest.raises(VerificationError):
        KeyCabinet(store, BOXES["site-b"]).all("run-2")


def test_a_flipped_bit_at_rest_is_noticed(made: Made) -> None:
    store = FlakyStore()
    KeyCabinet(store, BOXES["site-b"]).keep("run-1", 0, made.key)
    store.flip("run-1/key/0", 200)
    with pytest.raises(VerificationError):
        KeyCabinet(store, BOXES["site-b"]).all("run-1")


@pytest.mark.parametrize(
    "plain",
    [b"", b"\xff\xff", b"\2\0{}", b"\2\0[]", b"\4\0null", b"\1\0{"],
    ids=["empty", "cut", "no fields", "list", "null", "broken"],
)
def test_nonsense_that_somebody_sealed_to_the_site_is_refused(plain: bytes) -> None:
    store, box = FlakyStore(), BOXES["site-b"]
    sealed = box.public.seal(plain, custody._CABINET_INFO + b"run-1/key/0")
    store.objects["run-1/key/0"] = sealed
    with pytest.raises(VerificationError, match="is no run key"):
        KeyCabinet(store, box).all("run-1")
