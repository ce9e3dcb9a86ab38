"""Copies that are gone or changed, on folders and in buckets, by the commands."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedsecure import registry
from fedsecure.cli import app
from fedsecure.stores import Store
from tests.fakes.bucket import BUCKET, credentials_file, moto_bucket
from tests.integration.test_checkpoints import Place

pytestmark = pytest.mark.integration


@dataclass
class Held:
    """A complete run on three stores."""

    kit: Path
    stores: list[Store]

    def key(self, prefix: str) -> str:
        return self.stores[0].keys(prefix)[-1]

    def lose(self, key: str, count: int) -> None:
        for store in self.stores[:count]:
            store.delete(key)

    def change(self, key: str, count: int) -> None:
        for store in self.stores[:count]:
            data = bytearray(store.get(key, 1 << 20))
            data[-3] ^= 1
            store.delete(key)
            store.put(key, bytes(data))

    def typed(self, command: str) -> Result:
        return CliRunner().invoke(app, ["checkpoint", command, str(self.kit)])


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with moto_bucket() as url:
        yield url


@pytest.fixture(params=["local", "s3"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Held:
    place = Place(tmp_path)
    place.write_run()
    folders: list[dict[str, Any]] = [{"path": str(place.store(i))} for i in range(3)]
    local = registry.load("stores", "local")
    written = [local.create(folder) for folder in folders]
    if request.param == "local":
        return Held(place.path, written)
    url, credentials = request.getfixturevalue("moto_url"), credentials_file(tmp_path)
    buckets = [
        {
            "url": url,
            "bucket": BUCKET,
            "prefix": f"{tmp_path.name}-{i}",
            "credentials": str(credentials),
            "allow_http": True,
        }
        for i in range(3)
    ]
    s3 = registry.load("stores", "s3")
    stores = [s3.create(bucket) for bucket in buckets]
    for source, target in zip(written, stores, strict=True):
        for key in source.keys(""):
            target.put(key, source.get(key, 1 << 20))
    file = place.path / "aggregator.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "stores": buckets}))
    return Held(place.path, stores)


@pytest.mark.parametrize("prefix", ["obj/", "manifest/", "begin/"])
@pytest.mark.parametrize("count", [1, 2])
def test_missing_on_one_or_two_of_three_is_named_and_brought_back(
    held: Held, prefix: str, count: int
) -> None:
    key = held.key(prefix)
    held.lose(key, count)
    said = held.typed("verify")
    assert said.exit_code == 1
    assert said.output.count(key) == count
    assert "missing" in said.output
    assert "checkpoint restore" in said.output
    assert held.typed("restore").exit_code == 0
    assert held.typed("verify").exit_code == 0


@pytest.mark.parametrize("prefix", ["obj/", "manifest/"])
def test_missing_on_all_is_named_with_what_is_left_to_do(
    held: Held, prefix: str
) -> None:
    key = held.key(prefix)
    held.lose(key, 3)
    assert held.typed("verify").exit_code == 1
    said = held.typed("restore")
    assert said.exit_code == 1
    named = {"obj/": f"{key}: no good copy", "manifest/": "run-1 is not all here"}
    assert named[prefix] in said.output
    assert "bring back a store" in said.output


@pytest.mark.parametrize("count", [1, 2])
def test_a_corrupt_manifest_is_named_and_replaced(held: Held, count: int) -> None:
    key = held.key("manifest/")
    held.change(key, count)
    said = held.typed("verify")
    assert said.exit_code == 1
    assert said.output.count(key) == count
    assert "changed" in said.output
    assert held.typed("restore").exit_code == 0
    assert held.typed("verify").exit_code == 0


def test_a_manifest_that_is_corrupt_everywhere_is_never_an_empty_list(
    held: Held,
) -> None:
    held.change(held.key("manifest/"), 3)
    assert "is not all here" in held.typed("list").output
    assert held.typed("verify").exit_code == 1
    assert held.typed("restore").exit_code == 1


@pytest.mark.parametrize("held", ["local"], indirect=True)
def test_a_store_that_cannot_be_asked_is_named_by_a_restore_that_mends_the_others(
    held: Held,
) -> None:
    held.lose(held.key("obj/"), 1)
    config = json.loads((held.kit / "aggregator.json").read_text())
    silent = Path(config["stores"][2])
    shutil.rmtree(silent)
    silent.touch()
    said = held.typed("restore")
    assert said.exit_code == 1
    assert "1 copies were made good" in said.output
    assert f"{silent} could not be asked, nothing was mended there" in said.output


@pytest.mark.parametrize("held", ["local"], indirect=True)
def test_a_file_that_is_not_ours_is_named_where_it_lies_and_missed_nowhere(
    held: Held,
) -> None:
    held.stores[0].put("stranger", b"")
    said = held.typed("verify")
    assert said.exit_code == 1
    assert said.output.count("stranger") == 1
    assert "move it out of the store" in said.output
    assert "missing" not in said.output
