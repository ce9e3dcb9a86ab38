"""S3: what each answer of a server means, and what never shows."""

import hashlib
import os
import ssl
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedsecure import registry
from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    FedsecureError,
    NotFound,
    OutcomeUnknown,
    StorageError,
    VerificationError,
)
from fedsecure.provision import ca
from fedsecure.stores import Store
from tests.fakes.bucket import (
    BUCKET,
    KEY,
    SECRET,
    BentBucket,
    credentials_file,
    moto_bucket,
)

Call = Callable[[Store], object]
VERBS: dict[str, Call] = {
    "write": lambda store: store.put("a", b"1"),
    "read": lambda store: store.get("a", 1),
    "list": lambda store: store.keys(""),
    "delete": lambda store: store.delete("a"),
}
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def bucket() -> Iterator[BentBucket]:
    with BentBucket() as bent:
        yield bent


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with moto_bucket() as url:
        yield url


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Store]:
    def store(url: str, **settings: object) -> Store:
        made: Store = registry.load("stores", "s3").create(
            {
                "url": url,
                "bucket": BUCKET,
                "credentials": credentials_file(tmp_path),
                "timeout": 5.0,
                "attempts": 2,
                **settings,
            }
        )
        return made

    return store


Make = Callable[..., Store]


# --- put ------------------------------------------------------------------------------


def test_put_asks_for_an_object_that_is_not_there(
    bucket: BentBucket, make: Make
) -> None:
    bucket.objects["a"] = (b"theirs", {})
    with pytest.raises(AlreadyExists, match=f"{bucket.url}/{BUCKET}/a exists"):
        make(bucket.url).put("a", b"ours")
    assert bucket.objects["a"] == (b"theirs", {})


def test_put_whose_yes_was_lost_is_known_by_its_mark(
    bucket: BentBucket, make: Make
) -> None:
    bucket.faults.append("lost after")
    make(bucket.url).put("a", b"ours")
    assert bucket.objects["a"][0] == b"ours"


def test_yes_lost_at_the_last_attempt_is_read_back(
    bucket: BentBucket, make: Make
) -> None:
    bucket.faults.append("lost after")
    make(bucket.url, attempts=1).put("a", b"ours")
    assert bucket.requests == ["PUT", "HEAD"]


def test_equal_bytes_of_another_writer_are_not_ours(
    bucket: BentBucket, make: Make
) -> None:
    bucket.faults += ["lost", "other first"]
    with pytest.raises(AlreadyExists):
        make(bucket.url).put("a", b"theirs")


def test_server_that_is_busy_once_is_asked_again(
    bucket: BentBucket, make: Make
) -> None:
    bucket.faults.append("503")
    make(bucket.url).put("a", b"1")
    assert bucket.requests == ["PUT", "PUT"]


def test_conflict_over_nothing_is_tried_again(bucket: BentBucket, make: Make) -> None:
    bucket.faults.append("409")
    make(bucket.url).put("a", b"1")
    assert bucket.requests == ["PUT", "HEAD", "PUT"]


def test_conflict_that_another_writer_won_is_lost(
    bucket: BentBucket, make: Make
) -> None:
    bucket.objects["a"] = (b"theirs", {})
    bucket.faults.append("409")
    with pytest.raises(AlreadyExists):
        make(bucket.url).put("a", b"1")
    assert bucket.requests == ["PUT", "HEAD"]


@pytest.mark.parametrize("fault", ["500", "lost", "409"])
def test_put_that_stays_undecided_is_unknown(
    bucket: BentBucket, make: Make, fault: str
) -> None:
    # "409" twice: the look between the attempts sees nothing and meets no fault.
    bucket.faults += [fault, "", fault] if fault == "409" else [fault, fault]
    with pytest.raises(
        OutcomeUnknown, match=r"in 2 attempts.*may be there or come yet"
    ):
        make(bucket.url).put("a", b"1")


def test_put_that_no_server_answers_is_unknown_after_its_time(
    bucket: BentBucket, make: Make
) -> None:
    bucket.faults += ["slow", "slow"]
    with pytest.raises(OutcomeUnknown, match=r"no answer in 0\.2 s; .* raise timeout"):
        make(bucket.url, timeout=0.2, attempts=1).put("a", b"1")


def test_put_that_never_left_is_no_unknown_outcome(make: Make) -> None:
    with pytest.raises(StorageError, match="nothing answers there") as refused:
        make(NOBODY, attempts=1).put("a", b"1")
    assert type(refused.value) is StorageError


def test_attempts_are_bounded(bucket: BentBucket, make: Make) -> None:
    bucket.faults += ["500"] * 20
    with pytest.raises(StorageError):
        make(bucket.url, attempts=3).put("a", b"1")
    assert bucket.requests == ["PUT"] * 3 + ["HEAD"]


def test_refused_put_is_not_repeated(bucket: BentBucket, make: Make) -> None:
    bucket.faults += ["403"]
    with pytest.raises(StorageError, match="credentials are refused"):
        make(bucket.url).put("a", b"1")
    assert bucket.requests == ["PUT"]


def test_large_object_is_one_request(bucket: BentBucket, make: Make) -> None:
    data = bytes(6 * 2**20)  # obstore's own parts would begin at 5 MiB
    make(bucket.url).put("a", data)
    assert (bucket.requests, bucket.objects["a"][0]) == (["PUT"], data)


# --- get, keys, delete ----------------------------------------------------------------


def test_read_is_repeated_until_it_succeeds(bucket: BentBucket, make: Make) -> None:
    bucket.objects["a"] = (b"1", {})
    bucket.faults.append("500")
    assert make(bucket.url).get("a", 1) == b"1"


def test_object_that_ends_early_is_an_error(bucket: BentBucket, make: Make) -> None:
    bucket.objects["a"] = (b"12345678", {})
    bucket.faults += ["short", "short"]
    with pytest.raises(StorageError, match="could not read"):
        make(bucket.url, attempts=1).get("a", 8)


def test_object_of_no_announced_length_is_refused(
    bucket: BentBucket, make: Make
) -> None:
    bucket.objects["a"] = (b"12345678", {})
    bucket.faults += ["no length", "no length"]
    with pytest.raises(StorageError, match="could not read"):
        make(bucket.url).get("a", 8)


@pytest.mark.parametrize(
    ("announced", "error", "words"),
    [
        (7, VerificationError, "more than the 7 bytes it announced"),
        (9, StorageError, "8 of 9 bytes came"),
    ],
)
def test_body_is_as_long_as_it_was_announced(
    make: Make, announced: int, error: type[FedsecureError], words: str
) -> None:
    store: Any = make(NOBODY)
    with pytest.raises(error, match=words):
        store._whole([b"1234", b"5678"], "a", announced)


def test_object_that_is_too_large_is_refused_before_its_bytes(
    bucket: BentBucket, make: Make
) -> None:
    bucket.objects["a"] = (b"12345678", {})
    bucket.faults.append("short")  # only the announcement is good
    with pytest.raises(VerificationError, match="8 bytes, at most 7"):
        make(bucket.url).get("a", 7)


def test_foreign_objects_that_are_no_keys_are_left_out(
    bucket: BentBucket, make: Make
) -> None:
    for name in ("fed/a", "fed/a b", "fed/=x", "other/b", "federal"):
        bucket.objects[name] = (b"1", {})
    assert make(bucket.url, prefix="fed").keys("") == ("a",)


def test_foreign_object_that_hides_the_list_is_named(
    bucket: BentBucket, make: Make
) -> None:
    bucket.objects["fed/x//y"] = (b"1", {})
    with pytest.raises(StorageError, match=r"fed cannot be listed.*move it away"):
        make(bucket.url, prefix="fed").keys("")


def test_list_that_has_no_end_is_refused(
    bucket: BentBucket, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedsecure.stores.s3._MAX_KEYS", 2)
    bucket.objects |= {str(n): (b"1", {}) for n in range(3)}
    with pytest.raises(StorageError, match="over 2 objects"):
        make(bucket.url).keys("")


def test_prefixes_do_not_see_each_other(bucket: BentBucket, make: Make) -> None:
    one, two = make(bucket.url, prefix="a"), make(bucket.url, prefix="ab")
    one.put("k", b"1")
    two.put("k", b"2")
    assert (one.keys(""), one.get("k", 1), two.get("k", 1)) == (("k",), b"1", b"2")


def test_object_that_goes_between_list_and_delete_is_no_error(
    bucket: BentBucket, make: Make
) -> None:
    bucket.faults.append("404")
    make(bucket.url).delete("a")


# --- every verb -----------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_missing_bucket_is_named_and_is_no_missing_object(
    moto_url: str, make: Make, verb: str
) -> None:
    with pytest.raises(StorageError, match="no bucket 'not-there'") as refused:
        VERBS[verb](make(moto_url, bucket="not-there"))
    assert not isinstance(refused.value, NotFound)


@pytest.mark.parametrize("verb", VERBS)
def test_refused_credentials_say_what_to_check(
    bucket: BentBucket, make: Make, verb: str
) -> None:
    bucket.faults.append("403")
    with pytest.raises(StorageError, match=rf"could not {verb} .*HTTP 403.*access key"):
        VERBS[verb](make(bucket.url))


@pytest.mark.parametrize("verb", VERBS)
def test_nobody_at_the_url_is_named(make: Make, verb: str) -> None:
    with pytest.raises(StorageError, match=f"{NOBODY}.*nothing answers"):
        VERBS[verb](make(NOBODY, attempts=1))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fault", ["403", "500", "lost"])
def test_no_error_shows_a_credential_or_the_servers_words(
    bucket: BentBucket, make: Make, verb: str, fault: str
) -> None:
    bucket.faults += [fault] * 4
    with pytest.raises(FedsecureError) as refused:
        VERBS[verb](make(bucket.url, attempts=1))
    told = "".join(traceback.format_exception(refused.value))
    assert not [word for word in (KEY, SECRET, "<Error>") if word in told]


def test_store_shows_where_it_is_and_no_credential(make: Make) -> None:
    store: Any = make(NOBODY, prefix="fed/a")
    assert repr(store) == f"S3Store({NOBODY}/{BUCKET}/fed/a)"
    shown = f"{vars(store)} {store._writing.config}"
    assert not [word for word in (KEY, SECRET) if word in shown]


def test_environment_does_not_change_a_store(
    bucket: BentBucket, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": NOBODY,
        "AWS_ENDPOINT_URL_S3": NOBODY,
        "AWS_CONDITIONAL_PUT": "disabled",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_SESSION_TOKEN": "other",
    }.items():
        monkeypatch.setenv(name, value)
    store = make(bucket.url)
    store.put("a", b"1")
    with pytest.raises(AlreadyExists):
        store.put("a", b"1")


# --- https ----------------------------------------------------------------------------


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    now = datetime.now(UTC)
    root = ca.make_authority("heart", now)
    issuing = ca.make_issuing(root, "heart", now)
    urn = "urn:fedsecure:ab:aggregator:agg-1"
    chain, key = ca.issue(issuing, ["127.0.0.1"], urn, now)
    other = ca.make_authority("heart", now).pem()[0]
    files = {"ca": root.pem()[0], "other": other, "tls": chain, "key": key}
    for name, data in files.items():
        (tmp_path / f"{name}.pem").write_bytes(data)
    return tmp_path


@pytest.fixture
def secure(kit: Path) -> Iterator[BentBucket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kit / "tls.pem", kit / "key.pem")
    with BentBucket(context) as bent:
        yield bent


def test_private_authority_is_trusted_when_it_is_named(
    secure: BentBucket, kit: Path, make: Make
) -> None:
    store = make(secure.url, ca=str(kit / "ca.pem"))
    store.put("a", b"1")
    assert store.get("a", 1) == b"1"


@pytest.mark.parametrize("named", [{}, {"ca": "other.pem"}])
def test_certificate_of_another_authority_is_refused(
    secure: BentBucket,
    kit: Path,
    make: Make,
    named: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ALLOW_INVALID_CERTIFICATES", "true")
    settings = {name: str(kit / file) for name, file in named.items()}
    with pytest.raises(StorageError, match="check url, certificate"):
        make(secure.url, attempts=1, **settings).put("a", b"1")
    assert secure.requests == []


def test_authority_that_is_no_pem_is_refused(kit: Path, make: Make) -> None:
    (kit / "ca.pem").write_bytes(b"nonsense")
    with pytest.raises(ConfigurationError, match="must be a file of PEM"):
        make("https://127.0.0.1:9", ca=str(kit / "ca.pem"))


# --- moto -----------------------------------------------------------------------------


def test_moto_keeps_the_mark_and_the_bytes(moto_url: str, make: Make) -> None:
    data = os.urandom(70_000)
    store = make(moto_url, prefix="bytes")
    store.put("a", data)
    got = store.get("a", 70_000)
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
