import errno
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

from fedsecure.access.policy import Project, SitePolicy
from fedsecure.access.privacyrules import PrivacyRules
from fedsecure.access.roster import Roster
from fedsecure.doctor.findings import (
    LOW_BYTES,
    NO_BYTES,
    Finding,
    Level,
    Peer,
    Place,
    judge_certificate,
    judge_clock,
    judge_origin,
    judge_pair,
    judge_peers,
    judge_places,
    judge_policy,
    judge_port,
    judge_python,
    judge_roster,
    judge_torch,
    judge_versions,
    mount_kind,
)
from fedsecure.errors import PolicyRefused
from fedsecure.provision import ca

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
URN = "urn:fedsecure:ab:aggregator:agg-1"
ADDRESS = "127.0.0.1:9091"
SILENT = Peer("agg-1", ADDRESS, "", "no answer", None)
PINS = {"flwr": ("1.41", "1.43")}


@cache
def _made() -> tuple[bytes, bytes, bytes]:
    root = ca.make_authority("heart", NOW)
    issuing = ca.make_issuing(root, "heart", NOW)
    chain, _ = ca.issue(issuing, ["127.0.0.1"], URN, NOW)
    person, _ = ca.issue_person(issuing, "urn:fedsecure:ab:operator:ada", NOW)
    return root.pem()[0], chain, person


def _certificate(days: float = 0, host: str = "127.0.0.1", urn: str = URN) -> Finding:
    root, chain, _ = _made()
    return judge_certificate(chain, root, urn, host, NOW + timedelta(days=days))


def _place(
    name: str = "store 1",
    *,
    device: int = 1,
    kind: str = "ext4",
    free: int = LOW_BYTES,
    problem: str = "",
) -> Place:
    return Place(name, Path("/data") / name, device, kind, free, problem)


def _levels(found: list[Finding]) -> list[Level]:
    return [finding.level for finding in found]


@pytest.mark.parametrize("version", [(3, 11), (3, 13)])
def test_a_known_python_is_good(version: tuple[int, int]) -> None:
    assert judge_python(version).level == Level.OK


@pytest.mark.parametrize("version", [(3, 10), (3, 14), (2, 12)])
def test_another_python_is_not(version: tuple[int, int]) -> None:
    assert judge_python(version).level == Level.FAIL


@pytest.mark.parametrize("version", ["1.41", "1.41.0", "1.42.9", "1.42.0+local"])
def test_a_version_inside_its_pin_is_good(version: str) -> None:
    assert _levels(judge_versions({"flwr": version}, PINS)) == [Level.OK]


@pytest.mark.parametrize(
    "version", ["1.40.9", "1.43", "1.43.0", "2.0", "unknown", None]
)
def test_a_version_outside_its_pin_fails_with_what_to_install(
    version: str | None,
) -> None:
    (found,) = judge_versions({"flwr": version}, PINS)
    assert found.level == Level.FAIL
    assert found.advice == 'pip install "flwr>=1.41,<1.43"'


def test_a_roster_that_counts_is_good() -> None:
    roster = Roster("ab", 3, {}, "2027-01-01T00:00:00Z")
    assert judge_roster(roster, "2026-12-31T00:00:00Z").level == Level.OK


def test_an_expired_roster_fails() -> None:
    roster = Roster("ab", 3, {}, "2027-01-01T00:00:00Z")
    found = judge_roster(roster, "2027-01-02T00:00:00Z")
    assert found.level == Level.FAIL
    assert "roster.d" in found.advice


def test_keys_made_centrally_are_warned_of() -> None:
    assert _levels(judge_origin("central", steward_key=False)) == [Level.WARN]


def test_a_stewards_key_in_the_kit_is_warned_of() -> None:
    (found,) = judge_origin("member", steward_key=True)
    assert (found.name, found.level) == ("steward", Level.WARN)


def _policy(until: str, projects: tuple[str, ...] = ("demo",)) -> SitePolicy:
    some = frozenset({"x"})
    rules = PrivacyRules(some, 1.0, 1e-5, 1.0, 1.0, 1.0)
    project = Project(some, some, rules, "none", 1, 1.0, 1)
    return SitePolicy("site-01", until, dict.fromkeys(projects, project), b"")


@pytest.mark.parametrize(
    ("policy", "level", "said"),
    [
        (_policy("2027-06-30T00:00:00Z"), Level.OK, "admits demo"),
        (_policy("2026-12-10T00:00:00Z"), Level.WARN, "until 2026-12-10"),
        (_policy("2026-11-25T12:00:00Z"), Level.FAIL, "no round is served"),
        (_policy("2027-06-30T00:00:00Z", ()), Level.WARN, "admits no project"),
        (PolicyRefused("policy.yaml is not signed"), Level.FAIL, "not signed"),
    ],
)
def test_a_policy_is_judged_by_what_it_serves(
    policy: SitePolicy | PolicyRefused, level: Level, said: str
) -> None:
    found = judge_policy(policy, "2026-11-25T12:00:00Z", "2026-12-25T12:00:00Z")
    assert found.level == level
    assert said in found.message


@pytest.mark.parametrize(
    ("left", "level", "said"),
    [
        (31, Level.OK, "31 days left"),
        (30, Level.WARN, "mark of 30"),
        (14, Level.WARN, "mark of 14"),
        (7, Level.WARN, "mark of 7"),
        (1.5, Level.WARN, "mark of 7"),
        (1, Level.FAIL, "mark of 1"),
        (0, Level.FAIL, "expired on 2027-02-23"),
        (-10, Level.FAIL, "expired on 2027-02-23"),
    ],
)
def test_a_certificates_last_days_are_counted(
    left: float, level: Level, said: str
) -> None:
    found = _certificate(ca.LEAF_DAYS - left)
    assert found.level == level
    assert said in found.message


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (_certificate(-1), "check this machine's clock"),
        (_certificate(host="10.0.0.9"), "not for 10.0.0.9"),
        (_certificate(urn=URN + "9"), f"is {URN}'s, must be {URN}9's"),
        (judge_certificate(b"no", _made()[0], URN, None, NOW), "no PEM certificate"),
        (judge_certificate(_made()[1], b"no", URN, None, NOW), "no PEM certificate"),
        (judge_certificate(_made()[1], _made()[0], URN, None, NOW), "another use"),
    ],
)
def test_a_certificate_that_does_not_fit_fails(found: Finding, said: str) -> None:
    assert found.level == Level.FAIL
    assert said in found.message
    assert found.advice


def test_an_operators_certificate_needs_no_host() -> None:
    root, _, person = _made()
    urn = "urn:fedsecure:ab:operator:ada"
    assert judge_certificate(person, root, urn, None, NOW).level == Level.OK


def test_a_key_of_another_certificate_fails() -> None:
    assert judge_pair("tls.key belongs to another").level == Level.FAIL


def test_a_free_port_is_good() -> None:
    assert judge_port(ADDRESS, None, URN, SILENT).level == Level.OK


def test_a_port_held_by_this_aggregator_is_good() -> None:
    itself = Peer("agg-1", ADDRESS, URN, "", 0.0)
    assert judge_port(ADDRESS, errno.EADDRINUSE, URN, itself).level == Level.OK


@pytest.mark.parametrize(
    "holder",
    [SILENT, Peer("agg-1", ADDRESS, URN + "9", "", 0.0)],
    ids=["dumb", "other"],
)
def test_a_port_held_by_another_fails(holder: Peer) -> None:
    found = judge_port(ADDRESS, errno.EADDRINUSE, URN, holder)
    assert found.level == Level.FAIL
    assert "sport = :9091" in found.advice


def test_an_address_of_another_machine_fails() -> None:
    found = judge_port(ADDRESS, errno.EADDRNOTAVAIL, URN, SILENT)
    assert found.level == Level.FAIL
    assert "one of this machine's" in found.advice


def test_one_silent_aggregator_of_two_is_a_warning() -> None:
    found = judge_peers([SILENT, Peer("agg-2", "a:1", URN, "", None)])
    assert _levels(found) == [Level.WARN, Level.OK]


def test_no_aggregator_at_all_fails() -> None:
    assert _levels(judge_peers([SILENT, SILENT])) == [Level.FAIL, Level.FAIL]


def test_a_peers_clock_is_judged_with_it() -> None:
    found = judge_peers([Peer("agg-2", "a:1", URN, "", 3600.0)])
    assert [f.name for f in found] == ["aggregator agg-2", "clock"]


@pytest.mark.parametrize(
    ("skew", "level"),
    [
        (0.0, Level.OK),
        (-5.0, Level.OK),
        (5.1, Level.WARN),
        (-30.0, Level.WARN),
        (30.1, Level.FAIL),
        (-3600.0, Level.FAIL),
    ],
)
def test_a_clock_is_judged_in_both_directions(skew: float, level: Level) -> None:
    assert judge_clock("agg-1", skew).level == level


def test_a_folder_on_a_full_disk_is_not_said_to_want_other_rights() -> None:
    full, _ = judge_places([_place(problem="could not write: No space left on device")])
    assert full.advice.startswith("Free space on that disk")


@pytest.mark.parametrize(
    ("place", "levels"),
    [
        (_place(), [Level.OK, Level.OK]),
        (_place(problem="read-only"), [Level.FAIL, Level.OK]),
        (_place(kind="tmpfs"), [Level.FAIL, Level.OK]),
        (_place(kind="nfs4"), [Level.WARN, Level.OK]),
        (_place(kind="overlay"), [Level.WARN, Level.OK]),
        (_place(free=LOW_BYTES - 1), [Level.OK, Level.WARN]),
        (_place(free=NO_BYTES), [Level.OK, Level.WARN]),
        (_place(free=NO_BYTES - 1), [Level.OK, Level.FAIL]),
    ],
)
def test_a_folder_is_judged_by_use_and_room(place: Place, levels: list[Level]) -> None:
    assert _levels(judge_places([place])) == levels


def test_all_that_is_wrong_says_what_to_do() -> None:
    kinds = ("tmpfs", "nfs", "overlay")
    places = [_place(kind=kind, free=0) for kind in kinds]
    places.append(_place(problem="read-only"))
    found = [f for f in judge_places(places) if f.level != Level.OK]
    assert len(found) == 7
    assert all(f.advice for f in found)


@pytest.mark.parametrize(("distinct", "level"), [(False, "warn"), (True, "fail")])
def test_replicas_on_one_device_are_named(*, distinct: bool, level: str) -> None:
    places = [_place("store 1"), _place("store 2", device=2), _place("store 3")]
    last = judge_places(places, distinct=distinct)[-1]
    assert (last.name, last.level) == ("replicas", level)
    assert "store 1 and store 3" in last.message


def test_a_store_may_share_its_device_with_the_state() -> None:
    found = judge_places([_place("store 1"), _place("state")], distinct=True)
    assert "replicas" not in [f.name for f in found]


@pytest.mark.parametrize(
    ("device", "installed", "gpus", "level"),
    [
        ("auto", True, 0, Level.OK),
        ("cpu", True, 0, Level.OK),
        ("cuda", True, 1, Level.OK),
        ("cuda:1", True, 2, Level.OK),
        ("cuda", True, 0, Level.FAIL),
        ("cuda:1", True, 1, Level.FAIL),
        ("gpu", True, 1, Level.FAIL),
        ("auto", False, 1, Level.FAIL),
    ],
)
def test_a_torch_device_must_be_there(
    *, device: str, installed: bool, gpus: int, level: Level
) -> None:
    assert judge_torch(device, installed=installed, gpus=gpus).level == level


MOUNTS = """\
overlay / overlay rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
/dev/sda1 /data ext4 rw 0 0
server:/x /data/far nfs4 rw 0 0
/dev/sdb1 /with\\040space xfs rw 0 0
/dev/sdc1 /data ext2 rw 0 0

broken
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "overlay"),
        ("/dev/shm/x", "tmpfs"),  # noqa: S108 - a name, not a file
        ("/data/far/x", "nfs4"),
        ("/data/farther", "ext2"),
        ("/data", "ext2"),
        ("/database", "overlay"),
        ("/with space/x", "xfs"),
    ],
)
def test_the_innermost_and_last_mount_counts(path: str, kind: str) -> None:
    assert mount_kind(Path(path), MOUNTS) == kind


def test_without_a_list_of_mounts_the_kind_is_unknown() -> None:
    assert mount_kind(Path("/data"), "") == "unknown"
