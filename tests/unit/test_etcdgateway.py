"""A question goes on to the next member, ends in time, and says what is known."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fedsecure.errors import ConfigurationError, OutcomeUnknown, StorageError
from fedsecure.etcdgateway import (
    Gateway,
    NoRoom,
    Refused,
    absent,
    below,
    field,
    find_cluster,
    found,
    get,
    holds,
    put,
    text,
)
from tests.fakes.member import Member, member

TXN = "/v3/kv/txn"
NOBODY = "http://127.0.0.1:1"
NO_LEADER = (503, {"error": "etcdserver: no leader", "code": 14})


def _gateway(*endpoints: str, timeout: float = 0.6) -> Gateway:
    return Gateway(find_cluster({"endpoints": list(endpoints)}, timeout))


def _asked(one: Member) -> int:
    return len([path for path, _ in one.asked if path == TXN])


def test_answer_of_a_member_is_returned() -> None:
    with member({TXN: (200, {"succeeded": True})}) as one:
        assert _gateway(one.endpoint).ask("write", "kv/txn", {"a": 1}) == {
            "succeeded": True
        }
        assert one.asked == [(TXN, {"a": 1})]


def test_member_that_is_down_is_passed_over() -> None:
    with member({TXN: (200, {"n": 1})}) as one:
        assert _gateway(NOBODY, one.endpoint).ask("read", "kv/txn", {}) == {"n": 1}


def test_member_without_a_leader_is_passed_over() -> None:
    with member({TXN: NO_LEADER}) as lost, member({TXN: (200, {"n": 1})}) as one:
        gateway = _gateway(lost.endpoint, one.endpoint)
        assert gateway.ask("write", "kv/txn", {}, writes=True) == {"n": 1}
        assert _asked(lost) == 1


def test_member_that_answered_last_is_asked_first() -> None:
    with member({TXN: NO_LEADER}) as lost, member({TXN: (200, {"n": 1})}) as one:
        gateway = _gateway(lost.endpoint, one.endpoint)
        for _ in range(3):
            gateway.ask("write", "kv/txn", {})
        assert (_asked(lost), _asked(one)) == (1, 3)


def test_cluster_that_elects_a_leader_meanwhile_answers() -> None:
    answers = [NO_LEADER, NO_LEADER, (200, {"n": 1})]
    with member({TXN: lambda _: answers.pop(0)}) as one:
        assert _gateway(one.endpoint).ask("write", "kv/txn", {}) == {"n": 1}


def test_no_of_the_cluster_is_asked_once() -> None:
    no = (400, {"error": "etcdserver: request is too large", "code": 3})
    with member({TXN: no}) as one, member({TXN: no}) as two:
        with pytest.raises(Refused, match=r"could not write: .* request is too large"):
            _gateway(one.endpoint, two.endpoint).ask("write", "kv/txn", {}, writes=True)
        assert (_asked(one), _asked(two)) == (1, 0)


FULL = (429, {"error": "etcdserver: mvcc: database space exceeded", "code": 8})


def test_write_that_met_a_quota_is_an_unknown_outcome_and_says_what_to_do() -> None:
    with member({TXN: FULL}) as one, pytest.raises(OutcomeUnknown) as said:
        _gateway(one.endpoint).ask("append", "kv/txn", {}, writes=True)
    assert "could not append" in str(said.value)
    assert "--quota-backend-bytes" in str(said.value)
    assert "`etcdctl alarm disarm`" in str(said.value)
    assert _asked(one) == 1


def test_answer_of_something_else_says_so() -> None:
    with member({}) as one, pytest.raises(StorageError, match="no answer of etcd's"):
        _gateway(one.endpoint, timeout=0.2).ask("look", "kv/txn", {})


def test_what_writes_nothing_and_meets_a_quota_is_refused() -> None:
    with member({TXN: FULL}) as one, pytest.raises(NoRoom):
        _gateway(one.endpoint).ask("look", "kv/txn", {})


def test_member_that_is_busy_is_no_quota() -> None:
    busy = (429, {"error": "etcdserver: too many requests", "code": 8})
    with member({TXN: busy}) as one, pytest.raises(Refused) as said:
        _gateway(one.endpoint).ask("append", "kv/txn", {}, writes=True)
    assert "quota" not in str(said.value)


def test_no_after_an_answer_that_was_lost_leaves_a_write_unknown() -> None:
    no = (400, {"error": "no", "code": 3})
    with member({TXN: None}) as lost, member({TXN: no}) as one:
        gateway = _gateway(lost.endpoint, one.endpoint)
        with pytest.raises(OutcomeUnknown):
            gateway.ask("append", "kv/txn", {}, writes=True)


def test_nobody_there_is_a_storage_error_in_time() -> None:
    start = time.monotonic()
    with pytest.raises(StorageError, match="could not write") as failed:
        _gateway(NOBODY, timeout=0.3).ask("write", "kv/txn", {}, writes=True)
    assert f"{NOBODY}: Connection refused; does that member run?" in str(failed.value)
    assert not isinstance(failed.value, OutcomeUnknown)
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize("answer", [None, NO_LEADER, (500, "?"), (200, "no json")])
def test_write_whose_answer_is_lost_is_an_unknown_outcome(answer: Any) -> None:
    with (
        member({TXN: answer}) as one,
        pytest.raises(OutcomeUnknown, match="could not write"),
    ):
        _gateway(one.endpoint, timeout=0.2).ask("write", "kv/txn", {}, writes=True)


def test_read_whose_answer_is_lost_is_a_storage_error() -> None:
    with member({TXN: None}) as one, pytest.raises(StorageError) as failed:
        _gateway(one.endpoint, timeout=0.2).ask("read", "kv/txn", {})
    assert not isinstance(failed.value, OutcomeUnknown)


def test_member_that_is_silent_costs_its_share_of_the_time() -> None:
    def slow(_: object) -> None:
        time.sleep(0.9)

    with member({TXN: slow}) as one, member({TXN: (200, {"n": 1})}) as two:
        gateway = _gateway(one.endpoint, two.endpoint, timeout=0.4)
        start = time.monotonic()
        assert gateway.ask("write", "kv/txn", {}) == {"n": 1}
        assert time.monotonic() - start < 0.8


def test_stream_with_an_error_is_no_answer() -> None:
    with (
        member({"/v3/lease/keepalive": (200, {"error": {"message": "no"}})}) as one,
        pytest.raises(StorageError, match="answered"),
    ):
        _gateway(one.endpoint, timeout=0.2).ask("renew", "lease/keepalive", {})


def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", NOBODY)
    monkeypatch.setenv("http_proxy", NOBODY)
    with member({TXN: (200, {"n": 1})}) as one:
        assert _gateway(one.endpoint).ask("read", "kv/txn", {}) == {"n": 1}


@pytest.mark.parametrize("endpoints", [None, [], "", 7])
def test_cluster_without_members_is_refused(endpoints: object) -> None:
    with pytest.raises(ConfigurationError, match="endpoints"):
        find_cluster({"endpoints": endpoints}, 1.0)


@pytest.mark.parametrize(
    "endpoint",
    [
        "ftp://127.0.0.1:1",
        "127.0.0.1:2379",
        "http://127.0.0.1",
        "http://:1",
        "http://127.0.0.1:x",
        "http://127.0.0.1:1/path",
        "http://[::1:1",
    ],
)
def test_endpoint_that_is_no_members_url_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="must be https://host:port"):
        find_cluster({"endpoints": [endpoint]}, 1.0)


def test_password_in_an_endpoint_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="has a password in it") as refused:
        find_cluster({"endpoints": ["https://me:s3cret-word@etcd.example:2379"]}, 1.0)
    assert "s3cret-word" not in str(refused.value)


def test_other_machine_without_tls_is_refused_unless_asked_for_by_name() -> None:
    settings = {"endpoints": ["http://etcd.example:2379"]}
    with pytest.raises(ConfigurationError, match="another machine without TLS"):
        find_cluster(settings, 1.0)
    assert find_cluster({**settings, "insecure_plain": True}, 1.0)


def test_certificate_and_key_go_together(tmp_path: Path) -> None:
    (tmp_path / "cert").touch()
    settings = {"endpoints": ["https://h:1"], "cert": tmp_path / "cert"}
    with pytest.raises(ConfigurationError, match="go together"):
        find_cluster(settings, 1.0)


def test_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    for name in ("cert", "key"):
        (tmp_path / name).touch(0o644)
    paths = {name: tmp_path / name for name in ("cert", "key")}
    with pytest.raises(ConfigurationError, match="mode 0644"):
        find_cluster({"endpoints": ["https://h:1"], **paths}, 1.0)
    (tmp_path / "key").chmod(0o600)
    assert find_cluster({"endpoints": ["https://h:1"], **paths}, 1.0).key


def test_certificate_that_is_missing_is_refused(tmp_path: Path) -> None:
    settings = {"endpoints": ["https://h:1"], "ca_cert": tmp_path / "missing"}
    with pytest.raises(ConfigurationError, match="is no file"):
        find_cluster(settings, 1.0)


def test_words_of_the_gateway_are_base64_and_decimal() -> None:
    assert absent("k") == {
        "key": "aw==",
        "target": "CREATE",
        "result": "EQUAL",
        "create_revision": 0,
    }
    assert holds("k", b"v")["value"] == "dg=="
    assert (holds("k", b"v")["result"], below("k", b"v")["result"]) == ("EQUAL", "LESS")
    assert put("k", b"v", "9") == {
        "request_put": {"key": "aw==", "value": "dg==", "lease": "9"}
    }
    assert get("k") == {"request_range": {"key": "aw=="}}


def test_keys_of_all_ranges_are_found() -> None:
    one = {"key": text(b"a"), "value": text(b"1"), "create_revision": "4"}
    two = {"key": text(b"b"), "create_revision": "5", "lease": "77"}
    answer = json.loads(
        json.dumps({"responses": [{"response_range": {"kvs": [one, two]}}, {}]})
    )
    assert [(k.key, k.value, k.revision, k.lease) for k in found(answer).values()] == [
        ("a", b"1", 4, "0"),
        ("b", b"", 5, "77"),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        {"kvs": [{}]},
        {"kvs": [{"key": "aw==", "create_revision": "x"}]},
        {"kvs": [{"key": "/", "create_revision": "1"}]},
        {"kvs": 7},
        {"responses": [None]},
    ],
)
def test_answer_that_is_none_of_etcds_is_a_storage_error(answer: Any) -> None:
    with pytest.raises(StorageError, match="etcd answered"):
        found(answer)


def test_number_that_is_left_out_is_nought() -> None:
    assert field({"result": {"TTL": "3"}}, "result", "TTL") == 3
    assert field({"result": {}}, "result", "TTL") == 0
    assert field({}, "result", "TTL") == 0


@pytest.mark.parametrize("answer", [{"a": "x"}, {"a": [1]}, {"a": {"b": 1}}])
def test_number_that_is_none_is_a_storage_error(answer: Any) -> None:
    with pytest.raises(StorageError, match="etcd answered"):
        field(answer, "a")
