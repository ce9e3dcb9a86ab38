"""An etcd cluster before it is trusted: version, members, alarms, fsync, clock, a race.

etcd tells nobody whether it was started with ``--unsafe-no-fsync``, but it counts what
it syncs: members whose counter stands still while the race writes are refused.
"""

import logging
import re
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests

from fedsecure.errors import ConfigurationError, StorageError
from fedsecure.etcdgateway import Gateway, absent, found, get, put, text
from fedsecure.trial import check_skew, one_winner

log = logging.getLogger(__name__)

SYNC_SECONDS = 3.0
"""How long a follower may take to sync what the cluster has acknowledged."""
_MEND = {
    "CORRUPT": "members differ: take out the one that does, and let it join anew",
    "NOSPACE": (
        "its quota (--quota-backend-bytes) is used up: `etcdctl compact`, `etcdctl "
        "defrag`, or a larger quota"
    ),
}
_SYNCED = re.compile(
    r"^etcd_disk_wal_fsync_duration_seconds_count (\S+)$", re.MULTILINE
)


def try_out(gateway: Gateway, prefix: str, max_skew: float) -> None:
    """Try a cluster out; members that are down are only logged.

    Raises
    ------
    ConfigurationError
        It must not hold a lease: what it is and why is said.
    StorageError
        No quorum of it answers.
    """
    shown = gateway.cluster.shown
    there = _reachable(gateway, max_skew)
    ids = {_cluster_id(gateway, member) for member in there}
    if len(ids) > 1:
        raise ConfigurationError(f"{shown} are members of {len(ids)} clusters, not 1")
    _check_members(gateway, shown)
    alarms = gateway.ask("read alarms", "maintenance/alarm", {"action": "GET"})
    raised = {str(each.get("alarm")) for each in alarms.get("alarms", [])}
    if raised:
        mend = "; ".join(_MEND.get(alarm, "mend it") for alarm in sorted(raised))
        raise ConfigurationError(
            f"{shown} has the alarm {', '.join(sorted(raised))}: {mend}; then "
            "`etcdctl alarm disarm`, and start this aggregator again"
        )
    before = _synced(gateway, there)
    keys: set[str] = set()

    def claim(key: str) -> bool:
        keys.add(f"{prefix}{key}")
        return _claim(gateway, f"{prefix}{key}")

    one_winner(shown, claim)
    for key in keys:
        gateway.ask("clear a trial", "kv/deleterange", {"key": text(key.encode())})
    _check_synced(gateway, before)


def version_problem(version: str) -> str:
    """Return why a version must not hold a lease; "" if it may.

    3.5.0 to 3.5.5 can corrupt data, earlier ones than 3.4.22 lose lease fixes
    (RESILIENCE section 5).
    """
    parts = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if parts is None:
        return f"names no version but {version[:40]!r}"
    number = tuple(int(part) for part in parts.groups())
    if number < (3, 4, 22) or (3, 5, 0) <= number < (3, 5, 6):
        return f"is etcd {version}, must be 3.4.22 or later, or 3.5.6 or later"
    return ""


def _reachable(gateway: Gateway, max_skew: float) -> list[int]:
    there, silent = [], ""
    for member, endpoint in enumerate(gateway.cluster.endpoints):
        try:
            answer = gateway.fetch(member, "version")
            version = str(answer.json()["etcdserver"])
        except StorageError as down:
            log.warning("a member of etcd does not answer: %s", down)
            silent = str(down)
            continue
        except (ValueError, LookupError, TypeError) as other:
            raise ConfigurationError(f"{endpoint} is no etcd") from other
        problem = version_problem(version)
        if problem:
            raise ConfigurationError(f"{endpoint} {problem}")
        skew = _skew(answer)
        if skew is not None:
            check_skew(endpoint, skew, max_skew)
        there.append(member)
    if not there:
        raise StorageError(f"{gateway.cluster.shown}: no member answers ({silent})")
    return there


def _skew(answer: requests.Response) -> float | None:
    """Return how far the ``Date`` of an answer is ahead of us, to a second."""
    try:
        then = parsedate_to_datetime(answer.headers["Date"])
        return (then - datetime.now(UTC)).total_seconds()
    except (LookupError, ValueError, TypeError):
        return None


def _cluster_id(gateway: Gateway, member: int) -> str:
    status = gateway.ask_member(member, "maintenance/status", {})
    return str(status.get("header", {}).get("cluster_id"))


def _check_members(gateway: Gateway, shown: str) -> None:
    answer = gateway.ask("list members", "cluster/member/list", {})
    voting = [m for m in answer.get("members", []) if not m.get("isLearner")]
    if len(voting) == 2:
        raise ConfigurationError(
            f"{shown} has two members: it stops when either is lost; use one or three"
        )
    if len(voting) == 1:
        log.warning("%s is one member: leadership stops when it is lost", shown)


def _claim(gateway: Gateway, key: str) -> bool:
    mine = uuid.uuid4().bytes
    body = {
        "compare": [absent(key)],
        "success": [put(key, mine)],
        "failure": [get(key)],
    }
    answer = gateway.ask("make a key", "kv/txn", body, writes=True)
    # A first try may have been heard although its answer was lost.
    return bool(answer.get("succeeded")) or mine in [
        each.value for each in found(answer).values()
    ]


def _synced(gateway: Gateway, members: Iterable[int]) -> dict[int, float]:
    """Return how often each member synced, of those that say."""
    counts = {}
    for member in members:
        try:
            count = _SYNCED.search(gateway.fetch(member, "metrics").text)
        except StorageError:
            count = None
        if count is None:
            where = gateway.cluster.endpoints[member]
            log.warning("%s shows no metrics: whether it syncs is not known", where)
        else:
            counts[member] = float(count[1])
    return counts


def _check_synced(gateway: Gateway, before: dict[int, float]) -> None:
    waiting = dict(before)
    ends = time.monotonic() + SYNC_SECONDS
    while waiting and time.monotonic() < ends:
        now = _synced(gateway, waiting)
        waiting = {m: n for m, n in waiting.items() if now.get(m, n + 1) <= n}
        if waiting:
            time.sleep(0.02)
    for member in waiting:
        raise ConfigurationError(
            f"{gateway.cluster.endpoints[member]} wrote without fsync: a power cut "
            "would lose terms; start it without --unsafe-no-fsync"
        )
