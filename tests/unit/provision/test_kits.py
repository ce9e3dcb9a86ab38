import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from fedsecure.access.kit import Kit, install_roster, read_kit
from fedsecure.access.roster import Role
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError, StorageError
from fedsecure.provision.ca import (
    LEAF_DAYS,
    check_certificate,
    check_person,
    days_left,
    member_of,
)
from fedsecure.provision.kits import (
    ROSTER_DAYS,
    Provisioned,
    provision,
    renew,
    revoke,
)

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TEXT = """\
name: heart
aggregators:
  - {name: agg-1, host: agg.example.org, port: 9091, organisation: A}
  - {name: agg-2, host: 10.0.0.2, port: 9092, organisation: B}
sites:
  - {name: site-01, organisation: A}
  - {name: site-02, organisation: B}
operators:
  - {name: ada, organisation: A}
"""
ONE_MORE = TEXT.replace(
    "operators:", "  - {name: site-03, organisation: C}\noperators:"
)
NAMES = ["ada", "agg-1", "agg-2", "site-01", "site-02"]
SECRET = ("signing.key", "box.key", "supernode.key", "steward.key", "tls.key")


class PowerLoss(BaseException):
    """The machine is gone: nothing after it runs."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation")
    _provision(folder, TEXT)
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """Return a folder with a federation in ``kits``."""
    return Path(shutil.copytree(made, tmp_path / "home"))


def _provision(
    home: Path, text: str, now: datetime = NOW, passphrase: bytes | None = None
) -> Provisioned:
    path = home / "federation.yaml"
    path.write_text(text)
    return provision(path, home / "kits", now, passphrase)


def _tree(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    digest = hashlib.sha256
    return {
        str(p.relative_to(folder)): digest(p.read_bytes()).hexdigest() for p in files
    }


def _kits(home: Path) -> dict[str, Kit]:
    """Read every kit of a federation; a bad one raises."""
    read = partial(read_kit, disk=SystemDisk(), mode=lambda p: p.stat().st_mode)
    paths = sorted(p.parent for p in (home / "kits").glob("*/kit.json"))
    return {path.name: read(path) for path in paths}


def test_every_member_has_a_kit_that_reads(home: Path) -> None:
    assert list(_kits(home)) == NAMES


def test_again_changes_no_byte(home: Path) -> None:
    before = _tree(home)
    assert _provision(home, TEXT, NOW + DAY).added == ()
    assert _tree(home) == before


def test_one_more_site_changes_no_byte_of_the_other_kits(home: Path) -> None:
    before = {name: _tree(home / "kits" / name) for name in NAMES}
    assert _provision(home, ONE_MORE).added == ("site-03",)
    assert {name: _tree(home / "kits" / name) for name in NAMES} == before


def test_one_more_site_changes_only_the_roster_elsewhere(home: Path) -> None:
    before = _tree(home / "kits")
    _provision(home, ONE_MORE)
    after = _tree(home / "kits")
    changed = {name for name, digest in before.items() if after[name] != digest}
    new = {name.split("/")[0] for name in set(after) - set(before)}
    assert (changed, new) == ({"roster.json"}, {"site-03"})


def test_the_new_site_knows_all_others(home: Path) -> None:
    _provision(home, ONE_MORE)
    kit = _kits(home)["site-03"]
    assert sorted(kit.roster.members) == sorted([*NAMES, "site-03"])
    assert kit.roster.version == 2


def test_the_new_roster_makes_the_new_site_known_to_the_others(home: Path) -> None:
    roster = _provision(home, ONE_MORE).roster
    data = (home / "kits" / "roster.json").read_bytes()
    for name in NAMES:
        kit = install_roster(_kits(home)[name], data, SystemDisk())
        assert kit.roster == roster
        assert _kits(home)[name].roster.site("site-03")


def test_all_kits_are_of_one_federation(home: Path) -> None:
    assert len({kit.roster.federation for kit in _kits(home).values()}) == 1


def test_the_order_in_the_description_does_not_matter(home: Path) -> None:
    before = _tree(home / "kits")
    lines = TEXT.splitlines()
    turned = "\n".join([lines[0], *lines[7:], *lines[4:7], *lines[1:4]])
    assert _provision(home, turned).added == ()
    assert _tree(home / "kits") == before


def test_no_secret_is_in_two_places(home: Path) -> None:
    files = (p for p in (home / "kits").rglob("*") if p.name in SECRET)
    secrets = [p.read_bytes() for p in files]
    assert len(secrets) == 5 + 5 + 2 + 2 + 3
    everything = b"".join(p.read_bytes() for p in home.rglob("*") if p.is_file())
    assert [everything.count(secret) for secret in secrets] == [1] * len(secrets)


def test_no_kit_holds_an_encryption_key_of_a_run(home: Path) -> None:
    found = {p.name for p in (home / "kits").glob("[!c]*/*") if "key" in p.suffix}
    assert found == set(SECRET)


def test_files_and_folders_are_for_their_owner_only(home: Path) -> None:
    paths = list((home / "kits").rglob("*"))
    assert {p.stat().st_mode & 0o777 for p in paths if p.is_file()} == {0o600}
    assert {p.stat().st_mode & 0o777 for p in paths if p.is_dir()} == {0o700}


def test_a_kit_says_that_its_keys_were_made_centrally(home: Path) -> None:
    facts = json.loads((home / "kits" / "site-01" / "kit.json").read_text())
    assert (facts["origin"], facts["format"]) == ("central", 1)


@pytest.mark.parametrize("host", ["agg.example.org", "127.0.0.1", "localhost", "::1"])
def test_an_aggregator_is_served_under_its_host_and_loopback(
    home: Path, host: str
) -> None:
    kit = home / "kits" / "agg-1"
    chain, root = ((kit / n).read_bytes() for n in ("tls.crt", "ca.crt"))
    check_certificate(chain, root, host, NOW)


@pytest.mark.parametrize("name", ["agg-1", "agg-2", "ada"])
def test_a_certificate_names_federation_role_and_member(home: Path, name: str) -> None:
    kit = _kits(home)[name]
    urn = f"urn:fedsecure:{kit.roster.federation}:{kit.role}:{name}"
    assert member_of((kit.path / "tls.crt").read_bytes()) == urn


def test_an_operator_has_a_client_certificate(home: Path) -> None:
    kit = home / "kits" / "ada"
    check_person((kit / "tls.crt").read_bytes(), (kit / "ca.crt").read_bytes(), NOW)


def test_the_roster_has_the_public_half_of_a_supernodes_key(home: Path) -> None:
    kit = _kits(home)["site-01"]
    member = kit.roster.member("site-01", Role.SITE)
    assert member.supernode == (kit.path / "supernode.pub").read_text()
    private = (kit.path / "supernode.key").read_bytes()
    assert private.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("port: 9091", "port: 9093", "agg-1 is a aggregator of 'A' at agg.example.org"),
        (
            "site-02, organisation: B",
            "site-02, organisation: C",
            "site-02 is a site of",
        ),
        ("  - {name: site-02, organisation: B}\n", "", "site-02 has a kit but"),
        ("name: heart", "name: lung", "belongs to the federation 'heart'"),
        ("port: 9091", "port: 0", "port=0, must be"),
    ],
)
def test_a_change_that_is_none_of_one_more_is_refused(
    home: Path, old: str, new: str, said: str
) -> None:
    before = _tree(home / "kits")
    with pytest.raises(ConfigurationError, match=said):
        _provision(home, ONE_MORE.replace(old, new))
    assert _tree(home / "kits") == before


def test_a_bad_description_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="port=0"):
        _provision(tmp_path, TEXT.replace("9091", "0"))
    assert [p.name for p in tmp_path.iterdir()] == ["federation.yaml"]


def test_a_folder_in_the_way_is_not_touched(home: Path) -> None:
    (home / "kits" / "site-03").mkdir()
    with pytest.raises(ConfigurationError, match="already has site-03"):
        _provision(home, ONE_MORE)
    assert list((home / "kits" / "site-03").iterdir()) == []


def test_a_lost_roster_does_not_start_again_at_one(home: Path) -> None:
    (home / "kits" / "roster.json").unlink()
    with pytest.raises(ConfigurationError, match="bring the newest one back"):
        _provision(home, ONE_MORE)


def test_a_foreign_roster_is_not_continued(home: Path, tmp_path: Path) -> None:
    _provision(tmp_path, TEXT)
    shutil.copy(tmp_path / "kits" / "roster.json", home / "kits" / "roster.json")
    with pytest.raises(ConfigurationError, match="another federation"):
        _provision(home, ONE_MORE)


def test_two_at_once_are_one_after_the_other(home: Path) -> None:
    held = SystemDisk().lock(home / "kits" / ".lock")
    with pytest.raises(StorageError, match="locked by process"):
        _provision(home, ONE_MORE)
    held.release()
    assert _provision(home, ONE_MORE).added == ("site-03",)


def test_a_passphrase_is_needed_again_for_one_more_site(tmp_path: Path) -> None:
    _provision(tmp_path, TEXT, NOW, b"three officers")
    with pytest.raises(ConfigurationError, match="encrypted"):
        _provision(tmp_path, ONE_MORE, NOW)
    assert _provision(tmp_path, ONE_MORE, NOW, b"three officers").added == ("site-03",)


def test_a_roster_that_ends_soon_is_followed_by_the_next(home: Path) -> None:
    late = NOW + (ROSTER_DAYS - 29) * DAY
    done = _provision(home, TEXT, late)
    assert (done.added, done.roster.version) == ((), 2)
    done.roster.require_current((late + 300 * DAY).strftime("%Y-%m-%dT%H:%M:%SZ"))


def test_a_revoked_member_is_in_the_next_roster_as_such(home: Path) -> None:
    roster = revoke("site-02", home / "kits", NOW).roster
    assert (roster.version, roster.revoked) == (2, frozenset({"site-02"}))
    assert [m.name for m in roster.of(Role.SITE)] == ["site-01"]


def test_revoking_touches_no_kit(home: Path) -> None:
    before = {name: _tree(home / "kits" / name) for name in NAMES}
    revoke("site-02", home / "kits", NOW)
    assert {name: _tree(home / "kits" / name) for name in NAMES} == before


def test_revoking_twice_is_once(home: Path) -> None:
    revoke("site-02", home / "kits", NOW)
    assert revoke("site-02", home / "kits", NOW).roster.version == 2


def test_a_revoked_member_stays_revoked_when_one_more_comes(home: Path) -> None:
    revoke("site-02", home / "kits", NOW)
    gone = ONE_MORE.replace("  - {name: site-02, organisation: B}\n", "")
    roster = _provision(home, gone).roster
    assert (roster.version, roster.revoked) == (3, frozenset({"site-02"}))


def test_a_revoked_member_does_not_come_back_under_its_name(home: Path) -> None:
    revoke("site-02", home / "kits", NOW)
    with pytest.raises(ConfigurationError, match="site-02 was revoked and stays so"):
        _provision(home, ONE_MORE)


def test_somebody_unknown_cannot_be_revoked(home: Path) -> None:
    with pytest.raises(ConfigurationError, match="no member 'site-09'"):
        revoke("site-09", home / "kits", NOW)


@pytest.mark.parametrize("name", ["agg-1", "ada"])
def test_a_renewed_certificate_lives_on_with_the_same_key(
    home: Path, name: str
) -> None:
    kit, later = home / "kits" / name, NOW + 60 * DAY
    before = _tree(kit)
    assert renew(name, home / "kits", later) == kit / "tls.crt"
    after = _tree(kit)
    changed = {file for file in after if after[file] != before.get(file)}
    assert changed == {"tls.crt"}
    assert days_left((kit / "tls.crt").read_bytes(), later) == LEAF_DAYS


def test_a_renewed_certificate_is_good_for_the_same_host(home: Path) -> None:
    kit, later = home / "kits" / "agg-2", NOW + 60 * DAY
    renew("agg-2", home / "kits", later)
    chain, root = ((kit / n).read_bytes() for n in ("tls.crt", "ca.crt"))
    check_certificate(chain, root, "10.0.0.2", later + 80 * DAY)


@pytest.mark.parametrize("name", ["site-01", "site-09", "ca"])
def test_what_has_no_certificate_is_not_renewed(home: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="only aggregators and operators"):
        renew(name, home / "kits", NOW)


def test_a_revoked_members_certificate_is_not_renewed(home: Path) -> None:
    revoke("ada", home / "kits", NOW)
    with pytest.raises(ConfigurationError, match="ada is revoked in roster 2"):
        renew("ada", home / "kits", NOW)


def test_another_members_certificate_is_not_renewed(home: Path) -> None:
    shutil.copy(home / "kits/agg-2/tls.crt", home / "kits/agg-1/tls.crt")
    with pytest.raises(ConfigurationError, match="is the certificate of urn"):
        renew("agg-1", home / "kits", NOW)


def _die_at(step: int, where: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the power fail before durable step `step`; return a count of steps."""
    seen = 0

    def counted(cls: type, name: str) -> None:
        true = getattr(cls, name)

        def one(*args: object) -> object:
            nonlocal seen
            seen += 1
            if seen == step:
                raise PowerLoss
            return true(*args)

        where.setattr(cls, name, one)

    counted(SystemDisk, "write_once")
    counted(Path, "rename")
    counted(Path, "replace")
    counted(Path, "rmdir")
    return lambda: seen


def _steps(home: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        count = _die_at(0, patch)
        _provision(home, ONE_MORE)
        return count()


def test_power_lost_before_any_step_leaves_whole_kits_and_can_go_on(
    made: Path, tmp_path: Path
) -> None:
    steps = _steps(Path(shutil.copytree(made, tmp_path / "count")))
    assert steps > 12
    for step in range(1, steps + 1):
        home = Path(shutil.copytree(made, tmp_path / f"step-{step}"))
        before = {name: _tree(home / "kits" / name) for name in NAMES}
        with pytest.MonkeyPatch.context() as patch:
            _die_at(step, patch)
            with pytest.raises(PowerLoss):
                _provision(home, ONE_MORE)
        assert set(_kits(home)) >= set(NAMES)  # each one that is there reads
        roster = _provision(home, ONE_MORE).roster
        assert list(_kits(home)) == sorted([*NAMES, "site-03"])
        assert _kits(home)["site-03"].roster == roster
        assert roster.version == 2
        assert {name: _tree(home / "kits" / name) for name in NAMES} == before
        left = {p.name for p in (home / "kits").iterdir() if p.name[0] == "."}
        assert left == {".lock"}
