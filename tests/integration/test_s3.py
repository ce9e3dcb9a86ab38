"""The s3 store against a real server: what holds, and what a dying server does."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.checkpoint.probe import claim, try_out
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    NotFound,
    StorageError,
)
from fedsecure.stores import Store
from tests.fakes.bucket import BUCKET, KEY, SECRET, credentials_file
from tests.fakes.weed import PATIENCE, READER, READER_SECRET, Weed

pytestmark = pytest.mark.integration
MIB = 2**20
Make = Callable[..., Store]


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    server = Weed(tmp_path_factory.mktemp("weed"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def store(url: str, key: str = KEY, secret: str = SECRET, **more: object) -> Store:
        made: Store = registry.load("stores", "s3").create(
            {
                "url": url,
                "bucket": BUCKET,
                "prefix": f"run-{uuid.uuid4().hex}",
                "credentials": credentials_file(tmp_path, key, secret),
                **more,
            }
        )
        return made

    return store


def test_real_server_passes_the_probe(weed: Weed, make: Make) -> None:
    try_out(make(weed.url), rounds=2)


def test_claimed_prefix_is_refused_to_another_federation(
    weed: Weed, make: Make
) -> None:
    claim(make(weed.url, prefix="shared"), "ab" * 32)
    with pytest.raises(ConfigurationError, match="give each federation"):
        claim(make(weed.url, prefix="shared"), "cd" * 32)


def test_bytes_come_back_as_they_went(weed: Weed, make: Make) -> None:
    data = os.urandom(8 * MIB)
    store = make(weed.url)
    store.put("obj/a", data)
    assert store.get("obj/a", 8 * MIB) == data


def test_listing_goes_over_several_pages(weed: Weed, make: Make) -> None:
    store = make(weed.url)
    for n in range(1001):
        store.put(f"obj/{n:04}", b"")
    assert len(store.keys("obj/")) == 1001


def test_folder_and_object_of_one_name_do_not_hide_each_other(
    weed: Weed, make: Make
) -> None:
    store = make(weed.url)
    store.put("a/b", b"1")
    with pytest.raises(NotFound):
        store.get("a", 1)
    assert store.keys("a") == ("a/b",)


@pytest.mark.parametrize(
    ("key", "secret"), [(KEY, "wrong"), ("NOBODY", SECRET), (READER, READER_SECRET)]
)
def test_wrong_credentials_are_named_and_not_shown(
    weed: Weed, make: Make, key: str, secret: str
) -> None:
    with pytest.raises(ConfigurationError, match="credentials are refused") as refused:
        Replicas([("bucket", make(weed.url, key, secret))], 1).probe()
    assert not [word for word in (key, secret) if word in str(refused.value)]


def test_missing_bucket_is_named(weed: Weed, make: Make) -> None:
    with pytest.raises(ConfigurationError, match="no bucket 'not-there'"):
        Replicas([("bucket", make(weed.url, bucket="not-there"))], 1).probe()


def test_https_is_not_spoken_with_a_server_of_http(weed: Weed, make: Make) -> None:
    store = make(weed.url.replace("http:", "https:"), attempts=1)
    with pytest.raises(StorageError, match="check url, certificate"):
        store.keys("")


def test_server_that_stops_answering_costs_the_timeout_and_no_more(
    weed: Weed, make: Make
) -> None:
    store = make(weed.url, timeout=0.5, attempts=2)
    store.put("a", b"1")
    weed.pause()
    try:
        begun = time.monotonic()
        with pytest.raises(StorageError, match=r"no answer in 0\.5 s"):
            store.get("a", 1)
        assert time.monotonic() - begun < 5
    finally:
        weed.resume()
    assert make(weed.url).keys("") == ()


def test_checkpoints_go_on_while_the_bucket_is_silent(
    weed: Weed, make: Make, tmp_path: Path
) -> None:
    local = registry.load("stores", "local")
    folders: list[Store] = [
        local.create({"path": tmp_path / name}) for name in ("one", "two")
    ]
    bucket = make(weed.url, timeout=0.5, attempts=1)
    replicas = Replicas([("bucket", bucket), ("1", folders[0]), ("2", folders[1])], 2)
    weed.pause()
    try:
        replicas.put("obj/a", b"1")
    finally:
        weed.resume()
    assert replicas.get("obj/a", 1, bytes) == b"1"
    assert [store.keys("") for store in folders] == [("obj/a",)] * 2


def test_put_paused_past_its_timeout_is_settled_by_its_own_mark(
    weed: Weed, make: Make
) -> None:
    store = make(weed.url, timeout=0.5, attempts=8)
    weed.pause()
    timer = threading.Timer(0.8, weed.resume)
    timer.start()
    try:
        store.put("a", b"1")  # an earlier attempt may have won: it is our own
    finally:
        timer.join()
    assert store.get("a", 1) == b"1"
    with pytest.raises(AlreadyExists):
        store.put("a", b"2")


def _kill_in_a_put(server: Weed, store: Store) -> list[str]:
    """Write 1 MiB objects until the server is killed; return the acknowledged keys."""
    done: list[str] = []
    refused = threading.Event()

    def write() -> None:
        for n in range(256):
            try:
                store.put(f"obj/{n}", bytes([n]) * MIB)
            except StorageError:
                refused.set()
                return
            done.append(f"obj/{n}")

    writer = threading.Thread(target=write)
    writer.start()
    while len(done) < 5 and writer.is_alive():
        time.sleep(0.01)
    server.kill()
    writer.join()
    assert refused.is_set(), "the put that the kill met must not be acknowledged"
    return done


def _read_when_ready(store: Store, key: str) -> bytes:
    """Return an object of a server that has just started (weed: 10 to 20 s)."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return store.get(key, MIB)
        except NotFound:
            raise
        except StorageError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


@pytest.mark.chaos  # long: it waits for a server that is silent
def test_server_killed_in_a_put_keeps_what_it_acknowledged_and_no_half(
    tmp_path: Path, make: Make
) -> None:
    server = Weed(tmp_path / "weed")
    try:
        server.start()
        done = _kill_in_a_put(server, make(server.url, attempts=2, prefix="kept"))
        server.start()
        again = make(server.url, prefix="kept")
        assert len(done) >= 5
        assert set(done) <= set(again.keys("obj/"))
        for key in again.keys("obj/"):
            assert _read_when_ready(again, key) == bytes([int(key[4:])]) * MIB
    finally:
        server.kill()
