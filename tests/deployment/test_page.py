"""docs/deploy.md says what is so: its commands run, its files exist."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from cryptography import x509

from fedsecure.cli import app
from fedsecure.composition import composed
from fedsecure.config import RunConfig
from tests.fakes.tools import tool

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploy.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def shell(folder: Path, text: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],  # noqa: S607
        cwd=folder,
        env={"PATH": path, "HOME": str(folder)},
        check=True,
    )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the offline machine's folder, after the page's own first commands."""
    tool("openssl", "apt-get install openssl")
    folder = tmp_path_factory.mktemp("desk")
    (folder / "federation.yaml").write_text(blocks("yaml")[0])
    (folder / "passphrase").touch(0o600)
    (folder / "passphrase").write_text("correct horse battery staple\n")
    (folder / "server").symlink_to(ROOT / "server")
    shell(folder, next(b for b in blocks("sh") if "provision" in b))
    return folder


def test_its_first_commands_make_kits_and_certificates(desk: Path) -> None:
    assert sorted(p.parent.name for p in desk.glob("kits/*/kit.json")) == [
        "agg-1",
        "agg-2",
        "site-01",
        "site-02",
    ]
    for number in (1, 2, 3):
        host = f"host-{number}"
        command = ["openssl", "verify", "-CAfile", "pki/ca.crt"]
        asked = [*command, "-verify_hostname", f"{host}.fed.example.org"]
        subprocess.run([*asked, f"pki/{host}/tls.crt"], cwd=desk, check=True)
        assert (desk / "pki" / host / "tls.key").stat().st_mode & 0o777 == 0o600


def test_a_certificate_is_not_for_another_host(desk: Path) -> None:
    command = ["openssl", "verify", "-CAfile", "pki/ca.crt"]
    wrong = [*command, "-verify_hostname", "host-2.fed.example.org"]
    done = subprocess.run([*wrong, "pki/host-1/tls.crt"], cwd=desk, check=False)
    assert done.returncode != 0


def test_a_certificate_is_renewed_for_the_key_it_had(tmp_path: Path) -> None:
    tool("openssl", "apt-get install openssl")
    script = str(ROOT / "server" / "deploy" / "certificates.sh")
    make = [script, str(tmp_path), "host-3=10.0.0.3,::1"]
    subprocess.run(make, check=True, capture_output=True)
    key = (tmp_path / "host-3" / "tls.key").read_bytes()
    certificate = tmp_path / "host-3" / "tls.crt"
    old = certificate.read_bytes()
    subprocess.run(make, check=True, capture_output=True)
    assert certificate.read_bytes() == old  # what is there stays
    certificate.unlink()
    subprocess.run(make, check=True, capture_output=True)
    assert (tmp_path / "host-3" / "tls.key").read_bytes() == key
    made = x509.load_pem_x509_certificate(certificate.read_bytes())
    found = made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    addresses = found.value.get_values_for_type(x509.IPAddress)
    assert [str(address) for address in addresses] == ["10.0.0.3", "::1"]


@pytest.mark.parametrize("wrong", ["Host=a", "ca=a", "host-1", "host-1="])
def test_a_name_that_cannot_be_meant_is_refused(tmp_path: Path, wrong: str) -> None:
    tool("openssl", "apt-get install openssl")
    script = str(ROOT / "server" / "deploy" / "certificates.sh")
    done = subprocess.run(
        [script, str(tmp_path / "pki"), wrong], check=False, capture_output=True
    )
    assert done.returncode == 2
    assert not list(tmp_path.glob("pki/*/tls.crt"))


def planned(folder: Path, text: str) -> RunConfig:
    """Return the configuration of a plan of the page, as bash hands it over."""
    stub = folder / "bin" / "fedsecure"
    stub.parent.mkdir()
    stub.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv))\n"
    )
    stub.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],  # noqa: S607
        env={"PATH": f"{stub.parent}:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        text=True,
    )
    _, command, *given = json.loads(done.stdout)
    assert command == "plan"
    return composed([one for one in given if "=" in one])


def test_its_plan_names_three_members_and_three_copies(tmp_path: Path) -> None:
    text = next(b for b in blocks("sh") if "aggregator.json" in b)
    made = planned(tmp_path, text)
    assert len(made.lease.endpoints) == 3
    assert len({bucket.url for bucket in made.store.buckets}) == 3
    assert (made.store.replicas, made.store.quorum) == (3, 2)


def test_its_plan_for_containers_names_the_files_of_compose(tmp_path: Path) -> None:
    block = next(b for b in blocks("sh") if "database.stores.internal" in b)
    (command,) = re.findall(r"fedsecure plan (?:.*\\\n)*.*\n", block)
    made = planned(tmp_path, command.replace("...", ""))
    assert made.lease.passfile == "/run/secrets/pgpass"
    assert "sslrootcert=/run/secrets/ca.crt" in str(made.lease.url)
    assert [bucket.credentials for bucket in made.store.buckets] == [
        "/run/secrets/s3.ini"
    ]


def test_the_files_it_names_are_there() -> None:
    named = set(re.findall(r"`((?:server|clients|tests)/[\w./-]+)", PAGE))
    assert len(named) > 4
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_commands_it_names_exist() -> None:
    root = typer.main.get_command(app)
    known = {
        f"{name} {sub}"
        for name, group in root.commands.items()  # type: ignore[attr-defined]
        for sub in getattr(group, "commands", {"": None})
    }
    named = re.findall(
        r"fedsecure (\w+)(?: (\w+))?", re.sub(r"`\S*/fedsecure", "", PAGE)
    )
    groups = {k.split()[0] for k in known if not k.endswith(" ")}
    for first, second in named:
        whole = f"{first} {second}" if first in groups else f"{first} "
        if f"{first} " in known or first in groups:
            assert whole in known, whole


def test_the_ports_it_names_are_the_firewalls() -> None:
    table = re.findall(r"^\| (\d+)/tcp", PAGE, re.MULTILINE)
    rules = (ROOT / "server" / "deploy" / "firewall.nft").read_text()
    opened = set(re.findall(r"\b\d{2,5}\b", " ".join(re.findall(r"dport (.*)", rules))))
    assert opened - {"22"} == set(table)


def test_the_firewall_is_one_that_nftables_reads() -> None:
    nft = tool("nft", "apt-get install nftables")
    if os.geteuid() != 0:
        pytest.skip("nft checks rules for root only")
    rules = ROOT / "server" / "deploy" / "firewall.nft"
    subprocess.run([nft, "--check", "-f", str(rules)], check=True)
