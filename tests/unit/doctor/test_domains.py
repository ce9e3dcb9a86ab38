from pathlib import Path

import pytest

from fedsecure.doctor.domains import (
    judge_bind,
    judge_domains,
    judge_engine,
    judge_ntp,
    judge_reach,
)
from fedsecure.doctor.findings import Level
from fedsecure.doctor.reach import Server


def stores(*hosts: str, down: str = "") -> list[Server]:
    return [Server("store", h, 8333, "refused" if h == down else "") for h in hosts]


def members(*hosts: str, down: tuple[str, ...] = ()) -> list[Server]:
    return [Server("engine", h, 2379, "refused" if h in down else "") for h in hosts]


@pytest.mark.parametrize(
    ("host", "found", "level"),
    [
        ("agg.example.org", ["192.0.2.11"], Level.OK),
        ("agg.example.org", ["192.0.2.11", "2001:db8::1"], Level.OK),
        ("192.0.2.11", ["192.0.2.11"], Level.OK),
        ("localhost", ["127.0.0.1", "::1"], Level.OK),
        ("127.0.0.1", ["127.0.0.1"], Level.OK),
        ("agg.example.org", [], Level.FAIL),
        ("agg.example.org", ["127.0.1.1"], Level.FAIL),
        ("agg.example.org", ["fe80::1%eth0"], Level.OK),
        ("0.0.0.0", ["0.0.0.0"], Level.WARN),  # noqa: S104 - what is warned of
        ("::", ["::"], Level.WARN),
    ],
)
def test_where_an_aggregator_will_listen(
    host: str, found: list[str], level: Level
) -> None:
    judged = judge_bind(host, found)
    assert judged.level == level
    assert bool(judged.advice) == (level != Level.OK)


def test_debians_own_line_of_the_hosts_file_is_named() -> None:
    assert "127.0.1.1" in judge_bind("agg.example.org", ["127.0.1.1"]).advice


def test_a_copy_a_host_and_a_member_a_host_is_nothing_to_say() -> None:
    servers = [*stores("a", "b", "c"), *members("a", "b", "c")]
    assert judge_domains(servers, [], "etcd", distinct=True) == []


@pytest.mark.parametrize(("distinct", "level"), [(True, "fail"), (False, "warn")])
def test_two_copies_with_one_host_are_found(*, distinct: bool, level: str) -> None:
    (found,) = judge_domains(stores("a", "b", "a"), [], "etcd", distinct=distinct)
    assert found.level == level
    assert "2 copies are on a" in found.message


def test_two_members_on_one_host_are_found() -> None:
    (found,) = judge_domains(members("a", "a", "b"), [], "etcd", distinct=False)
    assert found.message == "2 of 3 members are on a"


def test_a_folder_is_no_store_of_several_hosts() -> None:
    (found,) = judge_domains([], [Path("/ck")], "postgresql", distinct=False)
    assert "an aggregator on another host reads no copy" in found.message


def test_a_folder_is_a_store_of_one_machine() -> None:
    assert judge_domains([], [Path("/ck")], "embedded", distinct=False) == []


def test_one_copy_out_of_reach_is_a_warning_while_enough_are_written() -> None:
    found = judge_reach(stores("a", "b", "c", down="b"), 2)
    assert [f.level for f in found] == [Level.OK, Level.WARN, Level.OK]
    assert found[1].message == "b:8333: refused"


def test_too_few_copies_in_reach_fail() -> None:
    found = judge_reach(stores("a", "b", down="b"), 2)
    assert [f.level for f in found] == [Level.OK, Level.FAIL]


@pytest.mark.parametrize(
    ("down", "level"), [(("a",), Level.WARN), (("a", "b"), Level.FAIL)]
)
def test_a_majority_of_members_must_be_in_reach(
    down: tuple[str, ...], level: Level
) -> None:
    found = judge_reach(members("a", "b", "c", down=down), 2)
    assert {f.level for f in found} == {level, Level.OK}


def test_an_engine_that_says_who_leads_is_fit() -> None:
    assert judge_engine("etcd", "").level == Level.OK


def test_an_engine_that_does_not_is_named_with_its_own_words() -> None:
    found = judge_engine("etcd", "etcd at https://a does not answer")
    assert (found.level, found.message) == (
        Level.FAIL,
        "etcd at https://a does not answer",
    )


@pytest.mark.parametrize(("kept", "level"), [(True, "ok"), (False, "warn")])
def test_a_clock_that_nobody_keeps_is_a_warning(*, kept: bool, level: str) -> None:
    assert judge_ntp(kept=kept).level == level


def test_a_kernel_that_does_not_say_is_a_warning() -> None:
    assert "does not say" in judge_ntp(kept=None).message
