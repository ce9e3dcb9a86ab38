"""What every store promises: write once, read with a limit, only under its keys."""

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    NotFound,
    VerificationError,
)
from fedsecure.stores import Store
from tests.fakes.bucket import BUCKET, credentials_file, moto_bucket
from tests.fakes.store import FlakyStore

BAD_KEYS = (
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a b",
    "a\0",
    "a\n",
    "ä",
    "a\\b",
    ".tmp-1",
    "a/.tmp-1",
    "x" * 256,
)


def _plug(name: str) -> Callable[[Path], Store]:
    def make(folder: Path) -> Store:
        store: Store = registry.load("stores", name).create({"path": folder / "store"})
        return store

    return make


MAKERS = {name: _plug(name) for name in registry.names("stores")}
MAKERS["flaky (fake)"] = lambda _: FlakyStore()


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with moto_bucket() as url:
        yield url


@pytest.fixture(params=sorted(MAKERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param != "s3":
        return MAKERS[request.param](tmp_path)
    settings = {
        "url": request.getfixturevalue("moto_url"),
        "bucket": BUCKET,
        "prefix": uuid.uuid4().hex,
        "credentials": credentials_file(tmp_path),
    }
    made: Store = registry.load("stores", "s3").create(settings)
    return made


def test_what_was_put_is_got(store: Store) -> None:
    store.put("a/b-1_2.x", b"data")
    assert store.get("a/b-1_2.x", 4) == b"data"


def test_empty_object_is_an_object(store: Store) -> None:
    store.put("a", b"")
    assert store.get("a", 0) == b""


def test_missing_key_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        store.get("a", 1)


def test_larger_object_is_refused(store: Store) -> None:
    store.put("a", b"12345")
    with pytest.raises(VerificationError, match="5 bytes, at most 4"):
        store.get("a", 4)


def test_second_put_is_refused_and_changes_nothing(store: Store) -> None:
    store.put("a", b"first")
    with pytest.raises(AlreadyExists):
        store.put("a", b"second")
    assert store.get("a", 10) == b"first"


def test_second_put_of_the_same_bytes_is_refused_too(store: Store) -> None:
    store.put("a", b"1")
    with pytest.raises(AlreadyExists):
        store.put("a", b"1")


def test_bytes_changed_after_the_put_do_not_reach_the_store(store: Store) -> None:
    data = bytearray(b"12")
    store.put("a", memoryview(data))  # type: ignore[arg-type]
    data[0] = 0
    assert store.get("a", 2) == b"12"


def test_keys_are_sorted_and_filtered_by_prefix(store: Store) -> None:
    for key in ("b/1", "a/2", "a/10", "ab", "a/sub/1"):
        store.put(key, b"1")
    assert store.keys("") == ("a/10", "a/2", "a/sub/1", "ab", "b/1")
    assert store.keys("a/") == ("a/10", "a/2", "a/sub/1")
    assert store.keys("a") == ("a/10", "a/2", "a/sub/1", "ab")
    assert store.keys("a/1") == ("a/10",)
    assert store.keys("c/") == ()


def test_deleted_object_is_gone_and_may_be_written_again(store: Store) -> None:
    store.put("a/b", b"1")
    store.delete("a/b")
    assert store.keys("") == ()
    with pytest.raises(NotFound):
        store.get("a/b", 1)
    store.put("a/b", b"2")
    assert store.get("a/b", 1) == b"2"


def test_delete_of_a_missing_key_is_no_error(store: Store) -> None:
    store.delete("a/b")
    assert store.keys("") == ()


@pytest.mark.parametrize("key", BAD_KEYS)
def test_key_that_is_no_plain_name_is_refused_by_every_verb(
    store: Store, key: str
) -> None:
    with pytest.raises(ConfigurationError, match="parts must be"):
        store.put(key, b"1")
    with pytest.raises(ConfigurationError, match="parts must be"):
        store.get(key, 1)
    with pytest.raises(ConfigurationError, match="parts must be"):
        store.delete(key)
    assert store.keys("") == ()


@pytest.mark.parametrize("prefix", ["/", "/etc/", "../", "a/../../", "a//", "./"])
def test_prefix_outside_the_store_is_refused(store: Store, prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="parts must be"):
        store.keys(prefix)


def test_of_writers_of_one_key_exactly_one_wins(store: Store) -> None:
    won: list[bytes] = []
    ready = threading.Barrier(8)

    def write(value: bytes) -> None:
        ready.wait()
        try:
            store.put("a", value)
        except AlreadyExists:
            return
        won.append(value)

    threads = [threading.Thread(target=write, args=(b"%d" % i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [store.get("a", 1)]
