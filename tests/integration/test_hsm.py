"""A run whose checkpoints are under a token's key, by an operator's commands."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedsecure import experiment, registry
from fedsecure.assembly.aggregator import aggregator_config, read_config
from fedsecure.assembly.checkpoints import open_desk
from fedsecure.backends import Job
from fedsecure.checkpoint.seal import from_bytes
from fedsecure.cli import app
from fedsecure.composition import composed
from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError, FedsecureError, StorageError
from fedsecure.metadata import JournalEntry, Step
from tests.fakes.kits import kit
from tests.fakes.softhsm import PIN, SoftToken, soft_token

pytestmark = pytest.mark.integration

ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Host:
    """An aggregator's machine after a run in one process."""

    kits: Path
    folder: Path
    token: SoftToken

    @property
    def path(self) -> Path:
        return self.kits / "agg-1"

    def take(self, **kek: object) -> None:
        """Write another key-encryption key into aggregator.json."""
        file = self.path / "aggregator.json"
        values = json.loads(file.read_text())
        file.write_text(json.dumps({**values, **kek}))

    def wraps(self) -> set[str]:
        """Return the names of all keys that any object is under."""
        stores = self.folder / "stores"
        found = [p for p in stores.rglob("*") if {"obj", "begin"} & set(p.parts)]
        return {
            name
            for path in found
            if path.is_file()
            for name in from_bytes(path.read_bytes()).wraps
        }


def typed(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def good(*words: object) -> str:
    said = typed(*words)
    assert said.exit_code == 0, (said.output, said.exception)
    return said.output


def refused(*words: object) -> FedsecureError:
    said = typed(*words)
    assert isinstance(said.exception, FedsecureError), said.output
    return said.exception


def hsm(token: SoftToken, key: str = "checkpoints") -> dict[str, object]:
    return {"name": "pkcs11", **token.settings(key)}


def ran(root: Path, token: SoftToken, *, under_token: bool) -> Host:
    overrides = [
        "backend=inprocess",
        "data=breast_cancer",
        "model=logistic",
        "privacy=none",
        "encryption=insecure_plain",
        "federation.sites=2",
        f"federation.rounds={ROUNDS}",
        f"run_root={root}",
    ]
    if under_token:
        registry.load("keks", "pkcs11").create({**token.settings(), "make": True})
        overrides += [f"store.kek.{k}={v}" for k, v in hsm(token).items()]
    config = composed(overrides)
    parts = experiment._simulated(config)
    kits, folder = experiment._kits(config, root), root / "run"
    plan = experiment.make_plan(config, kits, parts)
    folder.mkdir()
    backend = registry.load("backends", "inprocess").create({})
    backend.run(Job(config, plan, kits, folder, lambda _: None))
    made = aggregator_config(config, plan, folder)
    told = json.dumps(made.model_dump(mode="json"))
    (kits / "agg-1" / "aggregator.json").write_text(told)
    return Host(kits, folder, token)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return ran(tmp_path_factory.mktemp("hsm"), soft_token(), under_token=True)


@pytest.fixture
def host(finished: Host, tmp_path: Path) -> Host:
    """Return a copy of the machine for one test."""
    kits, folder = tmp_path / "kits", tmp_path / "run"
    shutil.copytree(finished.kits, kits)
    shutil.copytree(finished.folder, folder)
    path = kits / "agg-1" / "aggregator.json"
    path.write_text(
        path.read_text().replace(str(finished.folder), str(folder)), encoding="utf-8"
    )
    return Host(kits, folder, finished.token)


def test_every_object_is_under_the_tokens_key_alone(host: Host) -> None:
    (name,) = host.wraps()
    assert name.startswith("pkcs11:")
    assert name in good("kek", "show", host.path)


def test_what_the_token_opens_is_verified_and_restored(host: Host) -> None:
    assert f"{ROUNDS} releases" in good("checkpoint", "verify", host.path)
    shutil.rmtree(host.folder / "stores" / "1")
    assert typed("checkpoint", "verify", host.path).exit_code == 1
    good("checkpoint", "restore", host.path)
    good("checkpoint", "verify", host.path)


def test_a_lost_engine_is_made_again_with_the_token(host: Host) -> None:
    shutil.rmtree(host.folder / "lease")
    good("checkpoint", "restore", "--engine", host.path)
    good("checkpoint", "verify", host.path)


def test_a_backup_is_under_the_token_too_and_comes_back_without_the_kit(
    host: Host, tmp_path: Path
) -> None:
    out, empty = tmp_path / "backup", tmp_path / "empty"
    good("backup", "create", host.path, out)
    assert PIN.encode() not in out.read_bytes()
    config = tmp_path / "aggregator.json"
    shutil.copy(host.path / "aggregator.json", config)
    good("backup", "verify", host.path, out)
    shutil.rmtree(host.path)
    good("backup", "restore", empty, out, "--kek", config)
    assert read_config(kit(tmp_path, "empty")).kek.name == "pkcs11"


def test_checkpoints_go_from_the_kits_key_to_the_tokens_and_on_to_another(
    tmp_path: Path,
) -> None:
    token = soft_token()
    host = ran(tmp_path, token, under_token=False)
    assert "agg-1" in host.wraps()
    host.take(kek=hsm(token))
    good("kek", "make", host.path)
    good("kek", "rewrap", host.path)
    (first,) = host.wraps()
    good("checkpoint", "verify", host.path)
    host.take(kek=hsm(token, "next"), kek_before=[hsm(token)])
    good("kek", "make", host.path)
    good("kek", "rewrap", host.path)
    (second,) = host.wraps()
    assert second != first
    host.take(kek_before=[])
    good("checkpoint", "verify", host.path)
    events = (host.path / "state" / "events.jsonl").read_text()
    assert events.count("rewrapped") == 2


def test_an_open_round_whose_key_is_under_the_earlier_one_is_told(host: Host) -> None:
    good("kek", "show", host.path)
    host.take(
        kek=hsm(host.token, "later"),
        kek_before=[hsm(host.token)],
    )
    good("kek", "make", host.path)
    desk = open_desk(host.path)
    lease = desk.engine.leases.acquire("agg-1", "", 60.0)
    assert lease is not None
    detail = canonical({"wraps": {"pkcs11:earlier": "00"}})
    row = JournalEntry(desk.run, ROUNDS + 1, Step.KEY, "", "key", detail)
    desk.engine.journal.append(lease.term, [row])
    desk.engine.leases.release(lease)
    assert f"round {ROUNDS + 1} is open" in good("kek", "rewrap", host.path)


def test_a_key_that_is_not_named_any_more_is_asked_for(host: Host) -> None:
    host.take(kek={"name": "file"})
    said = typed("checkpoint", "verify", host.path)
    assert said.exit_code == 1
    assert "kek_before" in said.output


def test_a_pin_inside_the_kit_is_refused(host: Host) -> None:
    inside = host.path / "pin"
    inside.touch(0o600)
    inside.write_text(PIN)
    host.take(kek={**hsm(host.token), "pin_file": str(inside)})
    error = refused("checkpoint", "verify", host.path)
    assert isinstance(error, ConfigurationError)
    assert "lies in the kit" in str(error)


def test_nothing_is_exchanged_while_somebody_leads(host: Host) -> None:
    engine = registry.load("metadata", "embedded").create(
        {"path": str(host.folder / "lease")}
    )
    lease = engine.leases.acquire("agg-2", "", 60.0)
    assert lease is not None
    error = refused("kek", "rewrap", host.path)
    engine.leases.release(lease)
    assert "somebody leads" in str(error)
    assert error.exit_code == 2


def test_a_token_that_is_away_is_named(host: Host) -> None:
    host.take(kek={**hsm(host.token), "token": "away"})
    error = refused("checkpoint", "verify", host.path)
    assert isinstance(error, StorageError)
    assert "0 tokens are labelled 'away'" in str(error)
