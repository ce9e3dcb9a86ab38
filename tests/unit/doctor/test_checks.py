import json
import re
import shutil
import socket
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedsecure.doctor import probes
from fedsecure.doctor.checks import PINS, SITE_PINS, checks, worst
from fedsecure.doctor.findings import Finding, Level
from fedsecure.provision.kits import provision

NOW = datetime.now(UTC)


class Calendar:
    """A clock that stands where it is put."""

    def __init__(self, wall: datetime) -> None:
        self._wall = wall

    def now(self) -> float:
        return 0.0

    def wall(self) -> datetime:
        return self._wall

    def sleep(self, seconds: float) -> None:
        raise AssertionError("doctor does not wait")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation")
    (folder / "federation.yaml").write_text(
        "name: heart\n"
        f"aggregators: [{{name: agg-1, host: 127.0.0.1, port: {_free_port()}, "
        "organisation: A}]\n"
        "sites: [{name: site-01, organisation: A}]\n"
        "operators: [{name: ada, organisation: A}]\n"
    )
    provision(folder / "federation.yaml", folder / "kits", NOW)
    return folder / "kits"


@pytest.fixture
def kits(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "kits"))


def _found(path: Path | None, days: float = 0) -> dict[str, Finding]:
    found = checks(path, Calendar(NOW + timedelta(days=days)))
    return {finding.name: finding for finding in found}


def _configure(kits: Path, **changes: object) -> None:
    config = {
        "plan": {},
        "deadline": 10,
        "lease": str(kits / "lease"),
        "ttl": 3,
        "stores": [str(kits / "s1"), str(kits / "s2")],
        "quorum": 2,
        **changes,
    }
    (kits / "agg-1" / "aggregator.json").write_text(json.dumps(config))


def test_without_a_kit_the_machine_alone_is_looked_at() -> None:
    assert set(_found(None)) == {"python", *PINS}


def test_a_folder_that_is_no_kit_is_the_last_finding(tmp_path: Path) -> None:
    found = checks(tmp_path, Calendar(NOW))
    assert (found[-1].name, found[-1].level) == ("kit", Level.FAIL)


def test_a_new_aggregators_kit_is_fit(kits: Path) -> None:
    found = _found(kits / "agg-1")
    names = ("kit", "roster", "certificate", "tls key", "port")
    assert [found[name].level for name in names] == [Level.OK] * 5


def test_an_aggregators_stores_are_looked_at(kits: Path) -> None:
    _configure(kits)
    found = _found(kits / "agg-1")
    assert {"store 1", "store 2", "lease", "state"} <= set(found)
    assert found["replicas"].level == Level.WARN


def test_replicas_that_must_not_share_a_device_fail(kits: Path) -> None:
    _configure(kits, require_distinct_devices=True)
    assert _found(kits / "agg-1")["replicas"].level == Level.FAIL


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", "[" * 100_000])
def test_a_bad_configuration_is_a_finding(kits: Path, text: str) -> None:
    (kits / "agg-1" / "aggregator.json").write_text(text)
    found = _found(kits / "agg-1")["configuration"]
    assert found.level == Level.FAIL
    assert "aggregator.json" in found.message


def test_an_unknown_key_in_a_configuration_is_a_finding(kits: Path) -> None:
    _configure(kits, quroum=2)
    assert "quroum" in _found(kits / "agg-1")["configuration"].message


def test_an_expired_certificate_is_found(kits: Path) -> None:
    found = _found(kits / "agg-1", days=91)["certificate"]
    assert found.level == Level.FAIL
    assert "expired" in found.message


def test_a_clock_set_back_is_found(kits: Path) -> None:
    found = _found(kits / "agg-1", days=-1)["certificate"]
    assert "check this machine's clock" in found.message


def test_an_expired_roster_is_found(kits: Path) -> None:
    assert _found(kits / "site-01", days=367)["roster"].level == Level.FAIL


def test_a_key_of_another_kit_is_found(kits: Path) -> None:
    shutil.copy(kits / "ada" / "tls.key", kits / "agg-1" / "tls.key")
    assert _found(kits / "agg-1")["tls key"].level == Level.FAIL


def test_a_held_port_is_found(kits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "DIAL_SECONDS", 0.1)  # the holder never answers
    roster = json.loads((kits / "roster.json").read_bytes()[96:])
    address = roster["members"][1]["address"]
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        assert _found(kits / "agg-1")["port"].level == Level.FAIL


def test_a_sites_kit_is_looked_at_without_a_certificate(kits: Path) -> None:
    found = _found(kits / "site-01")
    assert {"policy", "torch", "state", *SITE_PINS} <= set(found)
    assert "certificate" not in found


def test_a_site_that_reaches_no_aggregator_is_told(kits: Path) -> None:
    assert _found(kits / "site-01")["aggregator agg-1"].level == Level.FAIL


@pytest.mark.parametrize("name", ["policy.yaml", "policy.yaml.sig", "steward.pub"])
def test_a_site_without_a_policy_is_told(kits: Path, name: str) -> None:
    (kits / "site-01" / name).unlink()
    found = _found(kits / "site-01")["policy"]
    assert found.level == Level.FAIL
    assert name in found.message


def test_an_edited_policy_is_found(kits: Path) -> None:
    with (kits / "site-01" / "policy.yaml").open("a") as file:
        file.write("# one more line\n")
    assert "not signed" in _found(kits / "site-01")["policy"].message


def test_a_device_that_is_not_there_is_found(kits: Path) -> None:
    text = json.dumps({"data": {"name": "digits"}, "device": "cuda:99"})
    (kits / "site-01" / "node.json").write_text(text)
    assert _found(kits / "site-01")["torch"].level == Level.FAIL


def test_an_operators_kit_is_fit_but_for_the_silent_aggregator(kits: Path) -> None:
    found = _found(kits / "ada")
    bad = {name for name, finding in found.items() if finding.level == Level.FAIL}
    assert bad == {"aggregator agg-1"}


def test_looking_changes_no_file(kits: Path) -> None:
    before = sorted(kits.rglob("*"))
    for name in ("agg-1", "site-01", "ada"):
        checks(kits / name, Calendar(NOW))
    assert sorted(kits.rglob("*")) == before


def test_no_key_is_in_any_finding(kits: Path) -> None:
    for name in ("agg-1", "site-01", "ada"):
        text = repr(checks(kits / name, Calendar(NOW)))
        for path in (kits / name).glob("*.key"):
            assert path.read_bytes().hex() not in text
            assert repr(path.read_bytes()) not in text


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([], Level.OK),
        ([Level.OK, Level.WARN], Level.WARN),
        ([Level.FAIL, Level.WARN, Level.OK], Level.FAIL),
    ],
)
def test_the_worst_finding_counts(levels: list[Level], expected: Level) -> None:
    assert worst([Finding("x", level, "") for level in levels]) == expected


def test_versions_are_bound_as_the_package_asks() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["site"]]
    bounds = dict(
        re.findall(r"^([a-z-]+)>=([^,\n]+,<.+)$", "\n".join(asked), re.MULTILINE)
    )
    for name, (first, end) in (PINS | SITE_PINS).items():
        assert bounds[name] == f"{first},<{end}"
