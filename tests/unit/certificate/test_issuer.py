"""Who signs: a kit's member, or the one that a simulated run left behind."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from fedsecure.access.roster import Role
from fedsecure.certificate.issuer import issuer_of_kit, keep_issuer, kept_issuer
from fedsecure.errors import ConfigurationError, KitError
from fedsecure.provision.kits import provision
from tests.fakes.certified import Keys

MEMBERS = {
    "name": "heart",
    "aggregators": [
        {"name": "agg-1", "host": "127.0.0.1", "port": 9091, "organisation": "Hub"}
    ],
    "sites": [{"name": "site-01", "organisation": "North"}],
    "operators": [{"name": "op-1", "organisation": "Hub"}],
}


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kits")
    YAML(typ="safe").dump(MEMBERS, folder / "federation.yaml")
    provision(folder / "federation.yaml", folder / "kits", datetime.now(UTC))
    return folder / "kits"


@pytest.mark.parametrize(
    ("name", "role"), [("site-01", Role.SITE), ("agg-1", Role.AGGREGATOR)]
)
def test_a_kits_member_signs(kits: Path, name: str, role: Role) -> None:
    issuer = issuer_of_kit(kits / name)
    assert (issuer.name, issuer.role) == (name, role)
    assert issuer.roster.members[name].signing == issuer.key.public


def test_an_operator_saw_nothing_and_may_not_sign(kits: Path) -> None:
    with pytest.raises(KitError, match="who saw nothing of the run"):
        issuer_of_kit(kits / "op-1")


def test_who_is_kept_is_found_again(tmp_path: Path) -> None:
    issuer = Keys().issuer()
    keep_issuer(issuer, tmp_path)
    found = kept_issuer(tmp_path)
    assert (found.name, found.role, found.roster) == (
        issuer.name,
        issuer.role,
        issuer.roster,
    )
    assert found.key.public == issuer.key.public


def test_a_kept_key_is_its_owners_alone(tmp_path: Path) -> None:
    keep_issuer(Keys().issuer(), tmp_path)
    assert (tmp_path / "issuer" / "signing.key").stat().st_mode & 0o777 == 0o600


def test_a_folder_without_a_member_asks_for_a_kit(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name a site's or an aggregator's"):
        kept_issuer(tmp_path)


@pytest.mark.parametrize("file", ["name", "roster.json", "signing.key"])
def test_a_member_that_was_tampered_with_is_refused(tmp_path: Path, file: str) -> None:
    keep_issuer(Keys().issuer(), tmp_path)
    other = tmp_path / "other"
    keep_issuer(Keys().issuer("site-02"), other)
    path = tmp_path / "issuer" / file
    path.write_bytes((other / "issuer" / file).read_bytes())
    with pytest.raises(ConfigurationError, match="issuer"):
        kept_issuer(tmp_path)
