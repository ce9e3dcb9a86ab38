"""A run certified from what it left, and the certificate checked again."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fedsecure.certificate.issue import Issued, issue, verify
from fedsecure.certificate.issuer import issuer_of_kit, keep_issuer
from fedsecure.clock import SystemClock
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError, LedgerCorrupt, VerificationError
from fedsecure.ledger import Ledger
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.plan import event_document
from fedsecure.provision.kits import provision
from fedsecure.registry import load
from fedsecure.shelf import Shelf
from fedsecure.update import JSON
from tests.fakes.certified import (
    LOCAL,
    NONE,
    ROUNDS,
    SHARED,
    SITES,
    SIZE,
    WHEN,
    Keys,
    left_by_a_run,
    plan,
)


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="module")
def folder(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return left_by_a_run(tmp_path_factory.mktemp("run") / "run", keys)


@pytest.fixture(scope="module")
def issued(folder: Path) -> Issued:
    return issue(folder, WHEN)


def body(issued: Issued) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(issued.file.read_text(encoding="utf-8"))
    inside: dict[str, Any] = found["certificate"]
    return inside


def test_file_and_page_lie_in_the_runs_folder(issued: Issued, folder: Path) -> None:
    assert (issued.file, issued.page) == (
        folder / "certificate.json",
        folder / "certificate.html",
    )
    assert issued.page.is_file()


def test_what_was_issued_is_found_in_order(issued: Issued) -> None:
    found = verify(issued.file)
    assert verify(issued.file.parent).said == found.said
    assert found.certificate.member.name == "site-01"
    assert found.said == issued.said


def test_both_epsilons_are_said_with_whom_they_hold_against(issued: Issued) -> None:
    first, second = issued.said
    assert "against outsiders and aggregators, with at most one site" in first
    assert "against all other sites together" in second
    assert "one example, add-or-remove-one, rdp; nominal PLD" in first


def test_the_worst_off_site_is_what_is_certified(keys: Keys, tmp_path: Path) -> None:
    charges = {"site-01": 1, "site-02": ROUNDS, "site-03": 2}
    few = left_by_a_run(tmp_path / "few", keys, charges=charges)
    all_alike = left_by_a_run(tmp_path / "all", keys)
    assert (
        body(issue(few, WHEN))["epsilons"] == body(issue(all_alike, WHEN))["epsilons"]
    )


def test_local_noise_has_one_epsilon(keys: Keys, tmp_path: Path) -> None:
    made = issue(left_by_a_run(tmp_path / "run", keys, LOCAL), WHEN)
    assert len(made.said) == 1
    assert "against everybody but the site itself" in made.said[0]
    assert verify(made.file).said == made.said


def test_without_privacy_it_says_plainly_that_nothing_is_promised(
    keys: Keys, tmp_path: Path
) -> None:
    made = issue(left_by_a_run(tmp_path / "run", keys, NONE), WHEN)
    assert made.said[0].startswith("Nothing is promised about anybody's rows")
    assert verify(made.file).said == made.said
    assert body(made)["epsilons"] == []


def test_it_is_written_where_it_is_asked_for(folder: Path, tmp_path: Path) -> None:
    made = issue(folder, WHEN, out=tmp_path / "new" / "place")
    assert made.file.parent == tmp_path / "new" / "place"


def test_a_place_that_is_none_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="--out"):
        issue(folder, WHEN, out=tmp_path / "file" / "below")


def test_a_ledger_that_does_not_verify_is_not_certified(
    keys: Keys, tmp_path: Path
) -> None:
    run = left_by_a_run(tmp_path / "run", keys)
    path = run / "sites" / SITES[1] / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"steps":1', b'"steps":0', 1))
    with pytest.raises(LedgerCorrupt, match="edited"):
        issue(run, WHEN)


def test_a_ledger_of_another_federation_is_not_certified(
    keys: Keys, tmp_path: Path
) -> None:
    run = left_by_a_run(tmp_path / "run", Keys())
    for path in (run / "issuer").iterdir():
        path.unlink()
    keep_issuer(keys.issuer(), run)
    with pytest.raises(LedgerCorrupt, match="foreign key"):
        issue(run, WHEN)


def test_a_folder_without_a_plan_is_no_run(keys: Keys, tmp_path: Path) -> None:
    keep_issuer(keys.issuer(), tmp_path)
    with pytest.raises(ConfigurationError, match=r"holds no plan\.json"):
        issue(tmp_path, WHEN)


def test_a_run_with_kits_of_its_own_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--kit"):
        issue(tmp_path, WHEN)


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such certificate"):
        verify(tmp_path / "none.json")


def test_a_certificate_that_was_edited_is_refused(
    issued: Issued, tmp_path: Path
) -> None:
    text = issued.file.read_text(encoding="utf-8")
    forged = tmp_path / "forged.json"
    forged.write_text(text.replace('"max_colluders": 1', '"max_colluders": 2', 1))
    with pytest.raises(VerificationError, match="was changed"):
        verify(forged)


MEMBERS = {
    "name": "heart",
    "aggregators": [
        {"name": "agg-1", "host": "127.0.0.1", "port": 9091, "organisation": "Hub"}
    ],
    "sites": [{"name": "site-01", "organisation": "North"}],
}


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kits of a federation whose site took part in a run of daemons."""
    folder = tmp_path_factory.mktemp("kits")
    YAML(typ="safe").dump(MEMBERS, folder / "federation.yaml")
    provision(folder / "federation.yaml", folder / "kits", WHEN)
    site = folder / "kits" / "site-01"
    state, key = site / "state", issuer_of_kit(site).key
    store = load("stores", "local").create({"path": state / "shelf"})
    Shelf(store, "run-1", 1 << 20).keep_plan(plan())
    event = Lattice.of(SHARED, SIZE, 24, 3).event(SHARED)
    path = state / "ledger.jsonl"
    ledger = Ledger.open(path, "site-01", key, SystemDisk(), SystemClock())
    detail: dict[str, JSON] = {"event": event_document(event)}
    ledger.append("budget.reserve", "digits", run="run-1", round=1, detail=detail)
    ledger.close()
    return folder / "kits"


def test_a_site_certifies_from_its_own_kit_what_its_ledger_knows(kits: Path) -> None:
    made = issue(Path("run-1"), WHEN, kit=kits / "site-01")
    assert made.file == kits / "site-01" / "state" / "certificate.json"
    assert set(body(made)["ledgers"]) == {"site-01"}
    assert verify(made.file, kits / "agg-1").certificate.member.name == "site-01"


def test_an_aggregator_knows_no_run_by_its_name(kits: Path) -> None:
    with pytest.raises(ConfigurationError, match="agg-1 keeps no plan of a run"):
        issue(Path("run-1"), WHEN, kit=kits / "agg-1")


def test_a_certificate_of_another_federation_is_told_apart(
    issued: Issued, kits: Path
) -> None:
    with pytest.raises(VerificationError, match="is of federation"):
        verify(issued.file, kits / "site-01")
