"""A backup's roster beside what the stores know, before a byte is written."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.access.roster import federation_id
from fedsecure.assembly import comeback
from fedsecure.assembly.comeback import require_roster
from fedsecure.checkpoint.book import Book
from fedsecure.checkpoint.manifest import Manifest
from fedsecure.checkpoint.patience import Bounds
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.rosters import Rosters
from fedsecure.clock import SystemClock
from fedsecure.config import AggregatorConfig
from fedsecure.disk import SystemDisk
from fedsecure.errors import KitError
from fedsecure.keys import SigningKey
from fedsecure.stores.local import LocalStore
from tests.fakes.federation import Federation
from tests.fakes.hung import HungStore

ROOT = SigningKey.from_bytes(b"r" * 32)
OURS = federation_id(ROOT.public)


class Office:
    """Rosters signed by one root, and stores with a round released under the second."""

    def __init__(self, folder: Path) -> None:
        self.paths = [str(folder / str(i)) for i in range(2)]
        made = Federation()
        self.rosters = {
            version: replace(
                made.roster,
                federation=OURS,
                version=version,
                expires="2030-01-01T00:00:00Z",
            )
            for version in (1, 2, 3)
        }
        local = registry.load("stores", "local")
        stores = [(path, local.create({"path": path})) for path in self.paths]
        pen = made.signing("agg-1")
        book = Book(
            Replicas(stores, 2),
            "agg-1",
            pen,
            {"agg-1": pen.public},
            SystemClock(),
            rosters=Rosters(self.rosters[2]),
        )
        texts = dict.fromkeys(("prev", "release", "root", "key_id", "plan"), "aa")
        book.write(
            Manifest(
                run="run",
                round=1,
                sequence=1,
                term=1,
                after=0,
                object="obj/aa",
                size=1,
                time="",
                writer="agg-1",
                **texts,  # type: ignore[arg-type]
            )
        )

    def roster(self, version: int) -> bytes:
        return self.rosters[version].signed(ROOT)

    def config(self, **changed: object) -> bytes:
        values = {
            "plan": {"run": "run"},
            "deadline": 5.0,
            "lease": "/lease",
            "ttl": 3.0,
            "stores": self.paths,
            "quorum": 2,
        }
        made = AggregatorConfig.model_validate({**values, **changed})
        return json.dumps(made.model_dump(mode="json")).encode()

    def ask(self, version: int, config: bytes, **there: bytes) -> None:
        backup = {"roster.json": self.roster(version), "aggregator.json": config}
        beside = {f"roster.d/{name}.json": there[name] for name in there}
        require_roster("/kit", OURS, backup, beside)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


@pytest.mark.parametrize("version", [2, 3])
def test_a_backup_as_new_as_the_checkpoints_comes_back(
    office: Office, version: int
) -> None:
    office.ask(version, office.config())


def test_an_older_backup_is_refused_with_both_versions(office: Office) -> None:
    with pytest.raises(
        KitError,
        match="/kit: nothing was written: run run: round 1 was released under roster "
        r"2, this kit has roster 1: copy roster 2 .* put it there, then repeat the res",
    ):
        office.ask(1, office.config())


def test_an_older_backup_comes_back_to_a_newer_roster(office: Office) -> None:
    office.ask(1, office.config(), newer=office.roster(2))


def test_a_roster_of_another_federation_in_the_folder_is_refused(
    office: Office,
) -> None:
    stranger = office.rosters[3].signed(SigningKey.from_bytes(b"s" * 32))
    with pytest.raises(KitError, match="of another federation: nothing was written"):
        office.ask(2, office.config(), newer=stranger)


def test_a_site_names_no_stores_and_asks_none(office: Office) -> None:
    require_roster("/kit", OURS, {"roster.json": office.roster(1)}, {})


def test_a_configuration_this_version_cannot_read_is_said_and_comes_back(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for bad in (b"no json", b'{"later": 1}', b"[" * 100_000):
            office.ask(1, bad)
    assert caplog.text.count("the stores were not asked for a newer roster") == 3


def test_a_store_that_does_not_answer_is_said_and_no_condition(
    office: Office, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "credentials"
    secret.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    secret.chmod(0o600)
    bucket = {
        "url": "http://127.0.0.1:1",  # nobody listens there
        "bucket": "copies",
        "credentials": str(secret),
        "timeout": 0.1,
        "attempts": 1,
        "allow_http": True,
    }
    with caplog.at_level(logging.WARNING):
        office.ask(2, office.config(stores=[bucket, office.paths[0]], quorum=1))
    assert "copies/ could not be asked for a newer roster than 2" in caplog.text
    with pytest.raises(KitError, match="under roster 2, this kit has roster 1"):
        office.ask(1, office.config(stores=[bucket, office.paths[0]], quorum=1))


def test_a_store_on_a_mount_that_is_gone_is_said_and_no_condition(
    office: Office,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hung = HungStore(LocalStore(tmp_path / "nfs", SystemDisk()))
    monkeypatch.setattr(comeback, "open_stores", lambda _: (("nfs", hung),))
    monkeypatch.setattr(comeback, "_BOUNDS", Bounds(0.1, 0.2))
    with caplog.at_level(logging.WARNING):
        office.ask(1, office.config())
    hung.come_back()
    assert "store nfs could not be asked for a newer roster than 1" in caplog.text
