"""The Helm chart, rendered by Helm: what the manifests mean, not how they look."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedsecure.access.kit import read_kit
from fedsecure.disk import SystemDisk
from tests.fakes.chart import Manifest, Values, ask
from tests.fakes.kits import make_kits
from tests.fakes.tools import said, tool

POSTGRES = {"matchLabels": {"app": "postgresql"}}
AGGREGATORS = {
    "image": {"repository": "registry.example/fedsecure-aggregator"},
    "aggregators": {
        "enabled": True,
        "protect": [POSTGRES],
        "egress": [{"to": [{"podSelector": POSTGRES}], "ports": [{"port": 5432}]}],
    },
}
REMOTE = {
    "image": {"repository": "registry.example/fedsecure@sha256:00", "tag": ""},
    "imagePullSecrets": ["registry"],
    "aggregators": {
        "enabled": True,
        "members": [{"name": f"agg-{n}", "secret": f"kit-{n}"} for n in (1, 2, 3)],
        "ingressFrom": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        "credentials": [],
        "storage": {"size": "5Gi", "className": "fast"},
    },
}
SITE = {
    "image": {"repository": "registry.example/fedsecure-node"},
    "site": {"enabled": True, "name": "charite", "rowsClaim": "rows"},
}
FAR_SITE = {
    "image": {"repository": "registry.example/fedsecure-node"},
    "imagePullSecrets": ["registry"],
    "site": {
        "enabled": True,
        "egressTo": [{"ipBlock": {"cidr": "192.0.2.10/32"}}],
        "nodeSelector": {"gpu": "yes"},
    },
}
GOOD: dict[str, Values] = {
    "both": AGGREGATORS,
    "remote": REMOTE,
    "site": SITE,
    "far site": FAR_SITE,
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"image": {"repository": "x"}}, "nothing to install"),
    "no image": ({"site": {"enabled": True}}, "image.repository"),
    "a moving tag": (
        {"image": {"repository": "x", "tag": "latest"}, "site": {"enabled": True}},
        "tag",
    ),
    "one aggregator": (
        {
            "image": {"repository": "x"},
            "aggregators": {
                "enabled": True,
                "members": [{"name": "agg-1", "secret": "s"}],
            },
        },
        "members",
    ),
    "an unknown option": ({**SITE, "site": {"enabled": True, "replicas": 2}}, "site"),
    "a password among the values": (
        {**AGGREGATORS, "aggregators": {"enabled": True, "password": "x"}},
        "aggregators",
    ),
}


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    every: list[Values] = [*GOOD.values()]
    return ask([*every, *(values for values, _ in BAD.values())])


@pytest.fixture(scope="module")
def charts(answer: dict[str, Any]) -> dict[str, list[Manifest]]:
    return dict(zip(GOOD, answer["rendered"], strict=False))


def of(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [m for m in manifests if m["kind"] == kind]


def pods(charts: dict[str, list[Manifest]]) -> Iterator[tuple[str, Any]]:
    for name, manifests in charts.items():
        for found in of(manifests, "StatefulSet"):
            yield f"{name}/{found['metadata']['name']}", found["spec"]["template"]


def containers(pod: Any) -> list[Any]:
    return [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]


def test_helm_finds_nothing_to_object_to(answer: dict[str, Any]) -> None:
    found = answer["lint"]
    said = [m["error"] for m in found["messages"] if m["severity"] > 1]
    assert said + found["errors"] == []


@pytest.mark.parametrize("name", BAD)
def test_helm_refuses_values_that_cannot_be_meant(
    answer: dict[str, Any], name: str
) -> None:
    refused = answer["rendered"][len(GOOD) + list(BAD).index(name)]
    assert isinstance(refused, str), refused
    assert BAD[name][1] in refused


@pytest.mark.parametrize("version", ["1.27", "1.31", "1.34", "1.37"])
def test_manifests_keep_the_schemas_of_kubernetes(
    charts: dict[str, list[Manifest]], version: str, tmp_path: Path
) -> None:
    file = tmp_path / "all.yaml"
    every = [m for manifests in charts.values() for m in manifests]
    file.write_text("".join(f"---\n{json.dumps(m)}\n" for m in every))
    program = tool("kubernetes-validate")
    code, text = said([program, "--strict", "-k", version, str(file)])
    assert code == 0, text
    assert text.count(" passed for ") == len(every)


def test_a_manifest_with_a_mistake_fails_the_schema(
    charts: dict[str, list[Manifest]], tmp_path: Path
) -> None:
    wrong = {**of(charts["both"], "NetworkPolicy")[0], "spce": {}}
    (tmp_path / "wrong.yaml").write_text(json.dumps(wrong))
    program = tool("kubernetes-validate")
    code, text = said([program, "--strict", "-k", "1.37", f"{tmp_path}/wrong.yaml"])
    assert code != 0
    assert "spce" in text


def test_each_aggregator_is_one_stateful_set_with_one_replica_and_its_own_kit(
    charts: dict[str, list[Manifest]],
) -> None:
    found = of(charts["both"], "StatefulSet")
    assert [m["metadata"]["name"] for m in found] == ["agg-1", "agg-2"]
    assert [m["spec"]["replicas"] for m in found] == [1, 1]
    kits = [
        v["secret"]["secretName"]
        for m in found
        for v in m["spec"]["template"]["spec"]["volumes"]
        if v["name"] == "secret"
    ]
    assert kits == ["fedsecure-agg-1", "fedsecure-agg-2"]


def test_two_aggregators_are_never_on_one_node(
    charts: dict[str, list[Manifest]],
) -> None:
    for name in ("both", "remote"):
        for found in of(charts[name], "StatefulSet"):
            template = found["spec"]["template"]
            (rule,) = template["spec"]["affinity"]["podAntiAffinity"][
                "requiredDuringSchedulingIgnoredDuringExecution"
            ]
            labels = rule["labelSelector"]["matchLabels"]
            assert rule["topologyKey"] == "kubernetes.io/hostname"
            assert labels.items() <= template["metadata"]["labels"].items()
            assert "fedsecure/member" not in labels  # it is of all of them


def test_a_drain_takes_one_aggregator_at_a_time(
    charts: dict[str, list[Manifest]],
) -> None:
    (budget,) = of(charts["both"], "PodDisruptionBudget")
    selected = budget["spec"]["selector"]["matchLabels"]
    assert budget["spec"]["maxUnavailable"] == 1
    for found in of(charts["both"], "StatefulSet"):
        labels = found["spec"]["template"]["metadata"]["labels"]
        assert selected.items() <= labels.items()


def test_the_address_of_an_aggregator_is_its_pods_own(
    charts: dict[str, list[Manifest]],
) -> None:
    services = of(charts["both"], "Service")
    sets = {
        m["metadata"]["name"]: m["spec"]["template"]["metadata"]["labels"]
        for m in of(charts["both"], "StatefulSet")
    }
    for service in services:
        spec = service["spec"]
        assert spec["clusterIP"] == "None"
        assert spec["publishNotReadyAddresses"] is True
        chosen = [
            n for n, own in sets.items() if spec["selector"].items() <= own.items()
        ]
        assert chosen == [service["metadata"]["name"]]


def test_every_container_is_restricted(charts: dict[str, list[Manifest]]) -> None:
    for _, pod in pods(charts):
        whole = pod["spec"]["securityContext"]
        assert whole["runAsNonRoot"] is True
        assert whole["runAsUser"] == 10001
        assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in containers(pod):
            own = each["securityContext"]
            assert own["runAsNonRoot"] is True
            assert own["readOnlyRootFilesystem"] is True
            assert own["allowPrivilegeEscalation"] is False
            assert own["privileged"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}


def test_no_pod_has_a_token_of_the_cluster_or_shares_its_host(
    charts: dict[str, list[Manifest]],
) -> None:
    for _, pod in pods(charts):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not [v for v in spec["volumes"] if "hostPath" in v]


def test_no_secret_is_made_or_put_into_an_environment(
    charts: dict[str, list[Manifest]],
) -> None:
    for name, manifests in charts.items():
        assert of(manifests, "Secret") == [], name
        assert of(manifests, "ConfigMap") == [], name
    for _, pod in pods(charts):
        for each in containers(pod):
            assert "env" not in each
            assert "envFrom" not in each


def test_the_daemon_does_not_see_the_mounted_secrets_themselves(
    charts: dict[str, list[Manifest]],
) -> None:
    for _, pod in pods(charts):
        (daemon,) = pod["spec"]["containers"]
        mounted = {m["name"] for m in daemon["volumeMounts"]}
        assert mounted <= {"state", "run", "tmp", "rows"}


def test_every_container_has_bounds_and_every_daemon_probes_of_ours(
    charts: dict[str, list[Manifest]],
) -> None:
    for _, pod in pods(charts):
        for each in containers(pod):
            assert each["resources"]["limits"]["memory"]
            assert each["resources"]["requests"]["cpu"]
        (daemon,) = pod["spec"]["containers"]
        kit = daemon["command"][-1]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            command = daemon[probe]["exec"]["command"]
            assert command == ["fedsecure", "health", "--kit", kit]


def allows(policy: Manifest, way: str, labels: dict[str, str], port: int) -> bool:
    """Return whether a policy lets pods of its own namespace through."""
    side = {"ingress": "from", "egress": "to"}[way]
    for rule in policy["spec"][way]:
        ports = {p["port"] for p in rule.get("ports", [])}
        peers = rule.get(side, [{"podSelector": {}}])
        if ports and port not in ports:
            continue
        for peer in peers:
            if "namespaceSelector" in peer or "ipBlock" in peer:
                continue
            wanted = peer["podSelector"].get("matchLabels", {})
            if wanted.items() <= labels.items():
                return True
    return False


STORE = {"app": "postgresql"}


def labels_of(charts: dict[str, list[Manifest]], name: str) -> dict[str, str]:
    found: dict[str, str] = of(charts[name], "StatefulSet")[0]["spec"]["template"][
        "metadata"
    ]["labels"]
    return found


def policies(manifests: list[Manifest], labels: dict[str, str]) -> list[Manifest]:
    return [
        p
        for p in of(manifests, "NetworkPolicy")
        if p["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    ]


@pytest.mark.parametrize("port", [5432, 2379, 8333, 9091, 443])
def test_a_site_reaches_no_engine_and_no_store(
    charts: dict[str, list[Manifest]], port: int
) -> None:
    site = labels_of(charts, "site")
    (own,) = policies(charts["site"], site)
    (stores,) = policies(charts["both"], STORE)
    assert set(own["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert not allows(own, "egress", STORE, port)
    assert not allows(stores, "ingress", site, port)


def test_a_site_reaches_the_aggregators_and_is_reached_by_nobody(
    charts: dict[str, list[Manifest]],
) -> None:
    site, aggregator = labels_of(charts, "site"), labels_of(charts, "both")
    (own,) = policies(charts["site"], site)
    (theirs,) = policies(charts["both"], aggregator)
    assert allows(own, "egress", aggregator, 9091)
    assert allows(theirs, "ingress", site, 9091)
    assert not allows(own, "ingress", aggregator, 9091)
    assert own["spec"]["ingress"] == []


def test_an_aggregator_reaches_engine_and_store_and_no_site(
    charts: dict[str, list[Manifest]],
) -> None:
    site, aggregator = labels_of(charts, "site"), labels_of(charts, "both")
    (own,) = policies(charts["both"], aggregator)
    (stores,) = policies(charts["both"], STORE)
    assert allows(own, "egress", STORE, 5432)
    assert allows(stores, "ingress", aggregator, 5432)
    assert not allows(own, "egress", site, 9091)


def test_a_far_site_reaches_the_named_addresses_only(
    charts: dict[str, list[Manifest]],
) -> None:
    (own,) = of(charts["far site"], "NetworkPolicy")
    blocks = [
        peer["ipBlock"]["cidr"]
        for rule in own["spec"]["egress"]
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    assert blocks == ["192.0.2.10/32"]
    assert not allows(own, "egress", labels_of(charts, "both"), 9091)


def test_state_is_on_a_claim_that_one_pod_alone_may_mount(
    charts: dict[str, list[Manifest]],
) -> None:
    for manifests in charts.values():
        for found in of(manifests, "StatefulSet"):
            (claim,) = found["spec"]["volumeClaimTemplates"]
            assert claim["metadata"]["name"] == "state"
            assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_a_kit_that_the_init_container_laid_is_one_that_a_daemon_opens(
    charts: dict[str, list[Manifest]], tmp_path: Path
) -> None:
    # A mounted Secret: files a group may read, behind links.
    kits = make_kits(tmp_path, sites=1)
    for folder in ("secret", "config", "credentials/engine", "lib", "run"):
        (tmp_path / folder).mkdir(parents=True)
    for file in (kits / "agg-1").glob("*"):
        hidden = tmp_path / "secret" / f"..{file.name}"
        shutil.copy(file, hidden)
        hidden.chmod(0o440)
        (tmp_path / "secret" / file.name).symlink_to(hidden)
    (tmp_path / "config" / "aggregator.json").write_text("{}")
    shutil.copy(kits / "roster.json", tmp_path / "config" / "2.json")
    (tmp_path / "credentials" / "engine" / "pgpass").write_text("secret")
    stale = tmp_path / "lib" / "kit" / "he.key"
    stale.parent.mkdir()
    stale.write_text("of an older release")
    ledger = tmp_path / "lib" / "kit" / "state" / "ledger.jsonl"
    ledger.parent.mkdir()
    ledger.write_text("kept")
    (lay,) = of(charts["both"], "StatefulSet")[0]["spec"]["template"]["spec"][
        "initContainers"
    ]
    (script,) = lay["args"]
    for inside, here in (
        ("/var/lib/fedsecure", "lib"),
        ("/run/fedsecure", "run"),
        ("/secret/", "secret/"),
        ("/config/", "config/"),
        ("/credentials/*", "credentials/*"),
    ):
        script = script.replace(inside, f"{tmp_path}/{here}")
    for _ in range(2):  # a restart lays it again
        subprocess.run([*lay["command"], script], check=True, env={**os.environ})
    kit = read_kit(tmp_path / "lib/kit", SystemDisk(), lambda p: p.stat().st_mode)
    assert kit.name == "agg-1"
    assert not stale.exists()
    assert ledger.read_text() == "kept"
    given = tmp_path / "run" / "credentials" / "engine" / "pgpass"
    assert given.stat().st_mode & 0o777 == 0o600
