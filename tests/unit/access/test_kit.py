import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from fedsecure.access.kit import Kit, install_roster, read_kit
from fedsecure.access.roster import Role, Roster
from fedsecure.disk import SystemDisk
from fedsecure.errors import KeyExposed, KitError
from fedsecure.keys import SigningKey
from fedsecure.provision.ca import unlock_seed
from fedsecure.provision.kits import provision, revoke

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
TEXT = """\
name: heart
aggregators: [{name: agg-1, host: 127.0.0.1, port: 9091, organisation: A}]
sites: [{name: site-01, organisation: A}, {name: site-02, organisation: B}]
operators: [{name: ada, organisation: A}]
"""


def _mode(path: Path) -> int:
    return path.stat().st_mode


read = partial(read_kit, disk=SystemDisk(), mode=_mode)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation")
    (folder / "federation.yaml").write_text(TEXT)
    provision(folder / "federation.yaml", folder / "kits", NOW)
    return folder / "kits"


@pytest.fixture
def kits(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "kits"))


def _root(kits: Path) -> SigningKey:
    return unlock_seed((kits / "ca" / "roster.key").read_bytes(), None)


def _signed(kits: Path, roster: Roster) -> bytes:
    return roster.signed(_root(kits))


@pytest.mark.parametrize(
    ("name", "role"),
    [("agg-1", "aggregator"), ("site-01", "site"), ("ada", "operator")],
)
def test_a_kit_says_whose_it_is(kits: Path, name: str, role: str) -> None:
    kit = read(kits / name)
    assert (kit.name, kit.role, kit.path) == (name, role, kits / name)


def test_a_kits_keys_are_those_of_the_roster(kits: Path) -> None:
    kit = read(kits / "site-01")
    member = kit.roster.member("site-01", Role.SITE)
    assert (kit.signing.public, kit.box.public) == (member.signing, member.box)


def test_a_kit_of_the_wanted_role_is_returned(kits: Path) -> None:
    kit = read(kits / "site-01")
    assert kit.require(Role.SITE) is kit


def test_a_kit_of_another_role_is_refused_by_name(kits: Path) -> None:
    with pytest.raises(
        KitError, match="kit of site site-01, needed is one of role aggregator"
    ):
        read(kits / "site-01").require(Role.AGGREGATOR)


def test_a_folder_without_kit_json_is_no_kit(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"no kit\.json: pass a folder that"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"{}", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b" " * 2_000_000, "at most"),
        (b'{"format": 2, "federation": "", "name": "", "role": "site"}', "format 2"),
        (b'{"format": 1, "federation": "", "name": "", "role": "king"}', "role='king'"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else value,
)
def test_a_bad_kit_json_is_refused(kits: Path, data: bytes, said: str) -> None:
    (kits / "site-01" / "kit.json").write_bytes(data)
    with pytest.raises(KitError, match=said):
        read(kits / "site-01")


@pytest.mark.parametrize(
    "name", ["signing.key", "box.key", "supernode.key", "supernode.pub", "ca.crt"]
)
def test_a_missing_file_is_named(kits: Path, name: str) -> None:
    (kits / "site-01" / name).unlink()
    with pytest.raises(KitError, match=name):
        read(kits / "site-01")


@pytest.mark.parametrize("name", ["tls.crt", "tls.key"])
def test_an_aggregator_without_its_certificate_is_incomplete(
    kits: Path, name: str
) -> None:
    (kits / "agg-1" / name).unlink()
    with pytest.raises(KitError, match=f"{name} is missing.*incomplete"):
        read(kits / "agg-1")


def test_a_missing_roster_is_named(kits: Path) -> None:
    (kits / "site-01" / "roster.json").unlink()
    with pytest.raises(KitError, match=r"roster\.json"):
        read(kits / "site-01")


@pytest.mark.parametrize("size", [0, 31, 33, 4096])
def test_a_key_of_another_length_is_refused(kits: Path, size: int) -> None:
    (kits / "site-01" / "signing.key").write_bytes(bytes(size))
    with pytest.raises(KitError, match="copy the whole kit again"):
        read(kits / "site-01")


def test_keys_of_another_member_are_refused(kits: Path) -> None:
    shutil.copy(kits / "site-02" / "box.key", kits / "site-01" / "box.key")
    with pytest.raises(KitError, match="not those the roster has for site-01"):
        read(kits / "site-01")


def test_a_renamed_member_is_refused(kits: Path) -> None:
    path = kits / "site-01" / "kit.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": "site-09"}))
    with pytest.raises(KitError, match="'site-09' is no site"):
        read(kits / "site-01")


def test_a_roster_of_another_federation_is_refused(kits: Path, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(TEXT)
    provision(tmp_path / "other.yaml", tmp_path / "other", NOW)
    shutil.copy(tmp_path / "other" / "roster.json", kits / "site-01" / "roster.json")
    with pytest.raises(KitError, match="another federation"):
        read(kits / "site-01")


@pytest.mark.parametrize("name", ["signing.key", "supernode.key", "steward.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610])
def test_a_key_that_others_may_touch_is_refused(
    kits: Path, name: str, mode: int
) -> None:
    (kits / "site-01" / name).chmod(mode)
    with pytest.raises(KitError, match=f"chmod 600 .*{name}"):
        read(kits / "site-01")


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_kit_that_others_may_write_is_refused(kits: Path, mode: int) -> None:
    (kits / "site-01").chmod(mode)
    with pytest.raises(KitError, match="chmod go-w"):
        read(kits / "site-01")


@pytest.mark.parametrize(
    "name",
    [
        "run.key",
        "he.key",
        "secret.key",
        "supernode.key",
        "steward.key",
        "policy.yaml",
        "anything.key",
        "state/run.key",
        "old/site/supernode.key",
    ],
)
def test_an_aggregators_kit_with_a_sites_secret_stops(kits: Path, name: str) -> None:
    path = kits / "agg-1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"secret bytes")
    with pytest.raises(KeyExposed, match=name) as stopped:
        read(kits / "agg-1")
    assert "secret bytes" not in str(stopped.value)


def test_an_aggregators_daemon_may_keep_keys_of_its_own_in_its_state(
    kits: Path,
) -> None:
    path = kits / "agg-1" / "state" / "loopback.key"
    path.parent.mkdir()
    path.touch(0o600)
    assert read(kits / "agg-1").name == "agg-1"


@pytest.mark.parametrize("kit", ["agg-1", "site-01", "ada"])
@pytest.mark.parametrize("name", ["root.key", "roster.key", "ca.key", "issuing.key"])
def test_the_authoritys_keys_are_in_no_kit(kits: Path, kit: str, name: str) -> None:
    (kits / kit / name).touch(0o600)
    with pytest.raises(KeyExposed, match=name):
        read(kits / kit)


def test_a_key_is_in_no_text_of_a_kit(kits: Path) -> None:
    kit = read(kits / "site-01")
    shown = repr(kit)
    for key in (kit.signing.to_bytes(), kit.box.to_bytes()):
        assert key.hex() not in shown
        assert repr(key) not in shown


def test_a_newer_roster_beside_the_kit_counts(kits: Path) -> None:
    folder = kits / "site-01" / "roster.d"
    folder.mkdir()
    revoke("site-02", kits, NOW)
    shutil.copy(kits / "roster.json", folder / "any name.json")
    kit = read(kits / "site-01")
    assert (kit.roster.version, kit.roster.revoked) == (2, frozenset({"site-02"}))


def test_an_older_roster_beside_the_kit_does_not(kits: Path) -> None:
    old = (kits / "roster.json").read_bytes()
    revoke("site-02", kits, NOW)
    kit = install_roster(
        read(kits / "site-01"), (kits / "roster.json").read_bytes(), SystemDisk()
    )
    (kit.path / "roster.d" / "old.json").write_bytes(old)
    assert read(kit.path).roster.version == 2


def test_a_kit_tells_the_earlier_rosters_it_has_oldest_first(kits: Path) -> None:
    kit = read(kits / "site-01")
    assert kit.earlier == ()
    for version in (3, 2):
        newer = _signed(kits, replace(kit.roster, version=version))
        folder = kit.path / "roster.d"
        folder.mkdir(exist_ok=True)
        (folder / f"{version}.json").write_bytes(newer)
    shutil.copy(folder / "3.json", folder / "again.json")
    found = read(kit.path)
    assert found.roster.version == 3
    assert [roster.version for roster in found.earlier] == [1, 2]


def test_installing_keeps_the_roster_before_as_an_earlier_one(kits: Path) -> None:
    kit = read(kits / "site-01")
    newer = _signed(kits, replace(kit.roster, version=2))
    assert install_roster(kit, newer, SystemDisk()).earlier == (kit.roster,)


def test_a_forged_roster_beside_the_kit_stops_it(kits: Path) -> None:
    folder = kits / "site-01" / "roster.d"
    folder.mkdir()
    roster = read(kits / "site-01").roster
    newer = replace(roster, version=9)
    (folder / "9.json").write_bytes(newer.signed(SigningKey.generate()))
    with pytest.raises(KitError, match="another federation"):
        read(kits / "site-01")


def test_a_revoked_members_kit_is_refused(kits: Path) -> None:
    folder = kits / "site-02" / "roster.d"
    folder.mkdir()
    revoke("site-02", kits, NOW)
    shutil.copy(kits / "roster.json", folder)
    with pytest.raises(KitError, match="'site-02' is revoked in roster 2"):
        read(kits / "site-02")


def test_an_installed_roster_is_there_when_the_kit_is_read_again(kits: Path) -> None:
    kit = read(kits / "site-01")
    newer = _signed(kits, replace(kit.roster, version=2))
    assert install_roster(kit, newer, SystemDisk()).roster.version == 2
    assert read(kits / "site-01").roster.version == 2


def test_installing_changes_no_byte_of_the_kits_own_files(kits: Path) -> None:
    kit = read(kits / "site-01")
    before = {p: p.read_bytes() for p in kit.path.iterdir()}
    newer = _signed(kits, replace(kit.roster, version=2))
    install_roster(kit, newer, SystemDisk())
    assert {p: p.read_bytes() for p in before} == before


def test_installing_the_same_roster_changes_nothing(kits: Path) -> None:
    kit = read(kits / "site-01")
    same = (kits / "roster.json").read_bytes()
    assert install_roster(kit, same, SystemDisk()) is kit
    assert not (kit.path / "roster.d").exists()


def _older(kits: Path, kit: Kit) -> bytes:
    return _signed(kits, replace(kit.roster, version=1, expires="2030-01-01T00:00:00Z"))


def _without(kits: Path, kit: Kit) -> bytes:
    members = {k: v for k, v in kit.roster.members.items() if k != kit.name}
    return _signed(kits, replace(kit.roster, version=2, members=members))


def _other_keys(kits: Path, kit: Kit) -> bytes:
    mine = kit.roster.members[kit.name]
    changed = replace(mine, signing=SigningKey.generate().public)
    members = {**kit.roster.members, kit.name: changed}
    return _signed(kits, replace(kit.roster, version=2, members=members))


def _revoked(kits: Path, kit: Kit) -> bytes:
    roster = replace(kit.roster, version=2, revoked=frozenset({kit.name}))
    return _signed(kits, roster)


def _forged(kits: Path, kit: Kit) -> bytes:
    return replace(kit.roster, version=2).signed(SigningKey.generate())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_older, "may not replace roster 1"),
        (_without, "is no site"),
        (_other_keys, "other keys for site-01"),
        (_revoked, "is revoked"),
        (_forged, "another federation"),
    ],
)
def test_a_roster_that_does_not_fit_the_kit_is_not_installed(
    kits: Path, make: Callable[[Path, Kit], bytes], said: str
) -> None:
    kit = read(kits / "site-01")
    with pytest.raises(KitError, match=said):
        install_roster(kit, make(kits, kit), SystemDisk())
    assert not (kit.path / "roster.d").exists()
