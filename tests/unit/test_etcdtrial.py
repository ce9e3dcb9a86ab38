"""A cluster that must not hold a lease is refused by name."""

import itertools
import logging
from typing import Any

import pytest

from fedsecure import etcdtrial
from fedsecure.errors import ConfigurationError, StorageError
from fedsecure.etcdgateway import Gateway, find_cluster
from tests.fakes.member import Answer, Member, member

COUNT = "etcd_disk_wal_fsync_duration_seconds_count"


def _well(**more: Any) -> dict[str, Any]:
    """Return the answers of a member that lets one racer win and counts its syncs."""
    made: set[str] = set()
    synced = itertools.count()

    def txn(body: Any) -> Answer:
        key = body["compare"][0]["key"]
        first = key not in made
        made.add(key)
        return 200, {"succeeded": first}

    return {
        "/v3/kv/txn": txn,
        "/metrics": lambda _: (200, f"# HELP\n{COUNT} {next(synced)}\nother 1\n"),
        **more,
    }


def _try(*members: Member | str, max_skew: float = 5.0) -> None:
    endpoints = [each if isinstance(each, str) else each.endpoint for each in members]
    gateway = Gateway(find_cluster({"endpoints": endpoints}, 1.0))
    etcdtrial.try_out(gateway, "/p/", max_skew)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcdtrial, "SYNC_SECONDS", 0.2)


@pytest.mark.parametrize("version", ["3.4.22", "3.4.30", "3.5.6", "3.5.21", "3.6.0"])
def test_version_that_keeps_its_promises_passes(version: str) -> None:
    assert etcdtrial.version_problem(version) == ""


@pytest.mark.parametrize("version", ["2.3.8", "3.3.27", "3.4.21", "3.5.0", "3.5.5"])
def test_version_that_can_lose_data_is_named(version: str) -> None:
    problem = etcdtrial.version_problem(version)
    assert problem.startswith(f"is etcd {version}, must be 3.4.22 or later, or 3.5.6")


def test_version_that_is_none_is_named() -> None:
    assert "names no version" in etcdtrial.version_problem("soon")


def test_well_cluster_passes_and_keeps_nothing_of_the_trial() -> None:
    with member(_well()) as one:
        _try(one)
    made = {
        body["compare"][0]["key"] for path, body in one.asked if path == "/v3/kv/txn"
    }
    cleared = {body["key"] for path, body in one.asked if path == "/v3/kv/deleterange"}
    assert made
    assert made == cleared


def test_old_member_is_refused() -> None:
    old = _well(**{"/version": (200, {"etcdserver": "3.5.1"})})
    with (
        member(old) as one,
        pytest.raises(ConfigurationError, match=r"is etcd 3\.5\.1"),
    ):
        _try(one)


@pytest.mark.parametrize(
    "answer", [(200, "<html>"), (200, {"version": "1"}), (200, [])]
)
def test_url_of_something_else_is_refused(answer: Any) -> None:
    with (
        member({"/version": answer}) as one,
        pytest.raises(ConfigurationError, match="is no etcd"),
    ):
        _try(one)


def test_members_of_two_clusters_are_refused() -> None:
    other = _well(**{"/v3/maintenance/status": (200, {"header": {"cluster_id": "8"}})})
    with (
        member(_well()) as one,
        member(other) as two,
        pytest.raises(ConfigurationError, match="members of 2 clusters"),
    ):
        _try(one, two)


def test_member_that_is_down_is_logged_and_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with member(_well()) as one:
        _try("http://127.0.0.1:1", one)
    assert "a member of etcd does not answer: http://127.0.0.1:1" in caplog.text


def test_nobody_there_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match=r"no member answers \(.*Connection refused"):
        _try("http://127.0.0.1:1")


def test_two_members_are_refused() -> None:
    two = _well(**{"/v3/cluster/member/list": (200, {"members": [{}, {}]})})
    with (
        member(two) as one,
        pytest.raises(ConfigurationError, match="use one or three"),
    ):
        _try(one)


def test_learner_is_no_member() -> None:
    listed = {"members": [{}, {}, {"isLearner": True}]}
    two = _well(**{"/v3/cluster/member/list": (200, listed)})
    with member(two) as one, pytest.raises(ConfigurationError, match="two members"):
        _try(one)


def test_single_member_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    single = _well(**{"/v3/cluster/member/list": (200, {"members": [{}]})})
    with member(single) as one:
        _try(one)
    assert "is one member" in caplog.text


def test_alarm_is_refused_by_its_name() -> None:
    alarms = {"alarms": [{"memberID": "1", "alarm": "CORRUPT"}]}
    bad = _well(**{"/v3/maintenance/alarm": (200, alarms)})
    with member(bad) as one, pytest.raises(ConfigurationError, match="alarm CORRUPT"):
        _try(one)


def test_alarm_of_a_quota_says_how_to_end_it() -> None:
    alarms = {"alarms": [{"memberID": "1", "alarm": "NOSPACE"}]}
    bad = _well(**{"/v3/maintenance/alarm": (200, alarms)})
    with (
        member(bad) as one,
        pytest.raises(ConfigurationError, match=r"`etcdctl compact`.*`etcdctl alarm"),
    ):
        _try(one)


def test_cluster_that_lets_several_win_is_refused() -> None:
    loose = _well(**{"/v3/kv/txn": (200, {"succeeded": True})})
    with member(loose) as one, pytest.raises(ConfigurationError, match="let 8 of 8"):
        _try(one)


def test_member_whose_sync_counter_stands_still_is_refused() -> None:
    still = _well(**{"/metrics": (200, f"{COUNT} 6\n")})
    with (
        member(still) as one,
        pytest.raises(ConfigurationError, match="wrote without fsync") as refused,
    ):
        _try(one)
    assert one.endpoint in str(refused.value)


@pytest.mark.parametrize("answer", [(404, "no"), (200, "nothing of it\n")])
def test_member_that_shows_no_metrics_is_warned_of(
    answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    with member(_well(**{"/metrics": answer})) as one:
        _try(one)
    assert "whether it syncs is not known" in caplog.text


def test_clock_of_a_member_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with member(_well()) as one, caplog.at_level(logging.INFO):
        _try(one)
    assert f"the clock of {one.endpoint} is" in caplog.text


def test_clock_beyond_the_bound_is_refused() -> None:
    with member(_well()) as one:
        one.date = "Thu, 01 Jan 2015 00:00:00 GMT"
        with pytest.raises(ConfigurationError, match="s from ours, at most 5 s"):
            _try(one)


def test_clock_that_is_not_shown_is_not_judged() -> None:
    with member(_well()) as one:
        one.date = "some day"
        _try(one)
