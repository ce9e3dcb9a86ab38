"""What an operator meets: each fault is named at the start, with what to do about it.

The daemon's own look before it starts anything, against real servers.
"""

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.config import AggregatorConfig
from fedsecure.daemons.aggregator import AggregatorDaemon
from fedsecure.errors import ConfigurationError, FedsecureError, StorageError
from fedsecure.metadata import Engine, Lease
from tests.fakes.bucket import BUCKET, credentials_file, moto_bucket
from tests.fakes.federation import Federation
from tests.fakes.kits import kit, make_kits
from tests.fakes.ports import free_port
from tests.fakes.servers import etcd, no_etcd, no_postgresql, postgresql
from tests.fakes.smalldisk import SmallDisk, no_small_disk

pytestmark = pytest.mark.integration

ENGINES = ("embedded", "postgresql", "etcd")
TTL = 2.0


@dataclass
class Aggregator:
    """One aggregator's kit, with an engine and three local stores."""

    kits: Path
    folder: Path
    engine: dict[str, object]
    newer: Callable[[], None]

    @property
    def path(self) -> Path:
        return self.kits / "agg-1"

    def write(self, **changed: object) -> None:
        plan = dict(Federation(sites=2, rounds=3).plan)
        plan["federation"] = kit(self.kits, "agg-1").roster.federation
        made = {
            "plan": plan,
            "deadline": 5.0,
            "lease": str(self.folder / "lease"),
            "ttl": TTL,
            "stores": [str(self.folder / f"store-{i}") for i in range(3)],
            "quorum": 2,
            "engine": self.engine,
            **changed,
        }
        (self.path / "aggregator.json").write_text(json.dumps(made))

    def opened(self) -> Engine:
        values = json.loads((self.path / "aggregator.json").read_text())
        config = AggregatorConfig.model_validate(values)
        settings = config.engine.settings(config.lease)
        made: Engine = registry.load("metadata", config.engine.name).create(settings)
        return made

    def refused(self) -> FedsecureError:
        """Return why the daemon does not start; nothing was started."""
        with pytest.raises(FedsecureError) as said:
            AggregatorDaemon(kit(self.kits, "agg-1")).serve(threading.Event())
        assert not (self.path / "state" / "superlink.log").exists()
        print(f"\nLINE[{said.value.exit_code}] {said.value}")  # noqa: T201
        return said.value


@pytest.fixture(scope="module")
def made_kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kits(tmp_path_factory.mktemp("kits"))


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, object]]:
    found: dict[str, object] = {}
    if no_postgresql() or no_etcd():
        pytest.skip(no_postgresql() or no_etcd())
    with postgresql() as database, etcd(1) as cluster:
        found["postgresql"], found["etcd"] = database, cluster
        yield found


@pytest.fixture(params=ENGINES)
def aggregator(
    request: pytest.FixtureRequest, made_kits: Path, tmp_path: Path
) -> Aggregator:
    shutil.copytree(made_kits, tmp_path / "kits")
    made = Aggregator(tmp_path / "kits", tmp_path, {"name": "embedded"}, lambda: None)
    lease = tmp_path / "lease"
    if request.param == "embedded":

        def newer() -> None:
            (base,) = [p for p in lease.iterdir() if p.suffix in {".sqlite", ".db"}]
            with sqlite3.connect(base) as open_:
                open_.execute("PRAGMA user_version = 2")
            open_.close()

        made.newer = newer
    else:
        _on_a_server(made, request, str(request.param))
    made.write()
    return made


def _on_a_server(made: Aggregator, request: pytest.FixtureRequest, name: str) -> None:
    server = request.getfixturevalue("servers")[name]
    if name == "postgresql":
        schema = f"s{abs(hash(made.folder)):x}"[:40]
        made.engine = {"name": name, "url": server.url, "database_schema": schema}
        made.newer = lambda: server.run("UPDATE format SET version = 2", schema)
    else:
        prefix = f"/{made.folder.name}/"
        made.engine = {"name": name, "endpoints": server.endpoints, "prefix": prefix}

        def newer() -> None:
            from fedsecure.etcdgateway import Gateway, find_cluster, put

            gateway = Gateway(find_cluster({"endpoints": server.endpoints}, 2.0))
            body = {"success": [put(f"{prefix}format", b"2")]}
            gateway.ask("write", "kv/txn", body, writes=True)

        made.newer = newer


def test_an_engine_of_a_newer_version_is_refused_by_name(
    aggregator: Aggregator,
) -> None:
    aggregator.opened()
    aggregator.newer()
    error = aggregator.refused()
    assert isinstance(error, ConfigurationError)
    assert "of format 2, this version knows 1" in str(error)
    assert "upgrade" in str(error)


def test_a_second_process_of_one_name_stops_and_says_so(
    aggregator: Aggregator,
) -> None:
    leases = aggregator.opened().leases
    lease = leases.acquire("agg-1", "elsewhere:9091", TTL)
    assert lease is not None
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(leases.renew, lease, ended))
    beating.start()
    try:
        error = aggregator.refused()
    finally:
        ended.set()
        beating.join()
        leases.release(lease)
    assert isinstance(error, ConfigurationError)
    assert "another process leads as agg-1" in str(error)
    assert "elsewhere:9091" in str(error)


def _beat(
    renew: Callable[[Lease], object], lease: Lease, ended: threading.Event
) -> None:
    while not ended.wait(0.2):
        renew(lease)


NOWHERE: dict[str, Callable[[], dict[str, object]]] = {
    "postgresql": lambda: {"url": f"postgresql://fed@127.0.0.1:{free_port()}/fed"},
    "etcd": lambda: {"endpoints": [f"http://127.0.0.1:{free_port()}"]},
}


@pytest.mark.parametrize("aggregator", ["postgresql", "etcd"], indirect=True)
def test_an_engine_that_is_down_is_named_and_may_be_tried_again(
    aggregator: Aggregator,
) -> None:
    name = str(aggregator.engine["name"])
    aggregator.write(engine={**aggregator.engine, **NOWHERE[name]()})
    error = aggregator.refused()
    assert isinstance(error, StorageError)
    assert error.exit_code == 1  # systemd starts it again: the server may come
    assert f"{name} at " in str(error)
    assert "start the engine" in str(error)
    assert "127.0.0.1" in str(error)


WRONG: dict[str, dict[str, object]] = {
    "postgresql": {"url": "http://db:5432/fed"},
    "etcd": {"endpoints": ["e1:2379"]},
}


@pytest.mark.parametrize("aggregator", ["postgresql", "etcd"], indirect=True)
def test_an_engine_url_that_is_none_is_refused_for_good(
    aggregator: Aggregator,
) -> None:
    name = str(aggregator.engine["name"])
    aggregator.write(engine={**aggregator.engine, **WRONG[name]})
    error = aggregator.refused()
    assert isinstance(error, ConfigurationError)
    assert "url" in str(error) or "endpoint" in str(error)


@pytest.mark.parametrize("aggregator", ["embedded"], indirect=True)
def test_a_lease_folder_that_cannot_be_one_is_named(aggregator: Aggregator) -> None:
    (aggregator.folder / "file").touch()
    aggregator.write(lease=str(aggregator.folder / "file"))
    assert str(aggregator.folder / "file") in str(aggregator.refused())


@pytest.mark.skipif(bool(no_small_disk()), reason=no_small_disk())
@pytest.mark.parametrize("aggregator", ["embedded"], indirect=True)
def test_a_full_disk_under_the_aggregators_own_state_is_named(
    aggregator: Aggregator,
) -> None:
    disk = SmallDisk(aggregator.path / "state", 1)
    try:
        disk.fill()
        error = aggregator.refused()
    finally:
        disk.close()
    assert error.exit_code == 1  # systemd starts it again: somebody may make room
    assert f"{disk.folder}: No space left on device" in str(error)
    assert "free space on that disk" in str(error)


@pytest.mark.skipif(bool(no_small_disk()), reason=no_small_disk())
@pytest.mark.parametrize("aggregator", ["embedded"], indirect=True)
def test_a_full_disk_under_the_lease_is_named(aggregator: Aggregator) -> None:
    disk = SmallDisk(aggregator.folder / "lease", 1)
    try:
        disk.fill()
        error = aggregator.refused()
    finally:
        disk.close()
    assert isinstance(error, StorageError)
    assert "database or disk is full" in str(error)
    assert "0 are free there" in str(error)


@pytest.mark.parametrize("aggregator", ["embedded"], indirect=True)
def test_local_stores_of_another_federation_are_named(aggregator: Aggregator) -> None:
    store = aggregator.folder / "store-1"
    other = registry.load("stores", "local").create({"path": str(store)})
    other.put("federation", b"fedsecure federation 1 c0ffee\n")
    error = aggregator.refused()
    assert isinstance(error, ConfigurationError)
    assert f"{store}: it holds the data of federation c0ffee" in str(error)


@pytest.mark.parametrize("aggregator", ["embedded"], indirect=True)
def test_a_bucket_of_another_federation_is_named(
    aggregator: Aggregator, tmp_path: Path
) -> None:
    with moto_bucket() as url:
        place = {"url": url, "bucket": BUCKET, "allow_http": True, "prefix": "p"}
        place["credentials"] = str(credentials_file(tmp_path))
        other = registry.load("stores", "s3").create(place)
        other.put("federation", b"fedsecure federation 1 c0ffee\n")
        aggregator.write(stores=[place], quorum=1)
        error = aggregator.refused()
    assert isinstance(error, ConfigurationError)
    assert f"{url}/{BUCKET}/p: it holds the data of federation c0ffee" in str(error)


@pytest.mark.parametrize("aggregator", ["embedded"], indirect=True)
def test_a_token_that_cannot_be_used_stops_the_daemon_before_it_starts_anything(
    aggregator: Aggregator,
) -> None:
    pytest.importorskip("pkcs11", reason="the extra hsm is not installed")
    place = {"module": "/nope.so", "token": "t", "label": "l", "pin_file": "/nope"}
    aggregator.write(kek={"name": "pkcs11", **place})
    error = aggregator.refused()
    assert isinstance(error, ConfigurationError)
    assert "kek module /nope.so cannot be loaded" in str(error)


@pytest.mark.parametrize("aggregator", ["embedded"], indirect=True)
def test_a_newer_aggregators_configuration_is_refused_by_an_older_one(
    aggregator: Aggregator,
) -> None:
    aggregator.write(from_the_future=1)
    error = aggregator.refused()
    assert isinstance(error, ConfigurationError)
    assert "unknown key 'from_the_future'; known keys: plan, deadline, lease" in str(
        error
    )


@pytest.mark.parametrize("aggregator", ["embedded"], indirect=True)
def test_the_command_prints_one_line_and_its_exit_code_says_whose_move_it_is(
    aggregator: Aggregator,
) -> None:
    aggregator.opened()
    aggregator.newer()
    program = Path(sys.executable).with_name("fedsecure")
    said = subprocess.run(
        [program, "aggregator", "--kit", aggregator.path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert "Traceback" not in said.stderr
    assert "of format 2, this version knows 1" in said.stderr
