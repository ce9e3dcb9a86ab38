"""An etcd cluster through its JSON gateway: any member that answers, in bounded time.

`etcd3gw` speaks to one member; here a question goes on to the next one when a member is
down, stopped or without a leader, until the time is over. That is safe because every
write of the house is a transaction that compares first: sent twice, it writes once.
"""

import base64
import itertools
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import requests
from etcd3gw import Etcd3Client
from etcd3gw.exceptions import (
    ConnectionFailedError,
    ConnectionTimeoutError,
    Etcd3Exception,
)
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError

from fedsecure.errors import ConfigurationError, OutcomeUnknown, StorageError
from fedsecure.trial import check_private, is_here

JSON: TypeAlias = dict[str, Any]
_PAUSE = 0.05  # seconds between two rounds over all members
# gRPC codes that say no for good: invalid argument, not found, already exists,
# permission, exhausted, precondition, out of range, not implemented, unauthenticated.
_NO = (3, 5, 6, 7, 8, 9, 11, 12, 16)
_SHORTEST = 0.1  # seconds given to one member
_EXHAUSTED, _FULL = 8, "database space exceeded"
_ROOM = (
    "its quota (--quota-backend-bytes) is used up: compact and defragment it, or give "
    "it a larger one, then `etcdctl alarm disarm`; nothing was written half, and the "
    "run goes on where it stopped"
)


class Refused(StorageError):
    """A member answered, and the answer is no: asking another one does not help."""


class NoRoom(Refused):
    """The cluster's quota is used up.

    A member checks it before a write is agreed on and says it again after it was
    applied: of writes that are on their way when the quota ends, some are there
    although this was the answer (`quotaApplierV3` of etcd's ``server/apply.go``).
    """


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a cluster's members are and how they are asked.

    Attributes
    ----------
    endpoints : tuple of str
        ``https://host:port`` of each member.
    timeout : float
        Bound on one question, all members together, each its part; seconds.
    ca_cert, cert, key : Path or None
        TLS: the authority, and this client's certificate with its key (mode 0600).
    """

    endpoints: tuple[str, ...]
    timeout: float
    ca_cert: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def shown(self) -> str:
        """The members, for messages."""
        return f"etcd at {', '.join(self.endpoints)}"


def find_cluster(settings: Mapping[str, object], timeout: float) -> Cluster:
    """Return the cluster that settings name, if it can be asked safely.

    Raises
    ------
    ConfigurationError
        No member, something that is no member's url, plain HTTP to another machine, or
        a certificate's file that is missing or open to others.
    """
    given = settings.get("endpoints")
    named = given.split(",") if given and isinstance(given, str) else given
    if not isinstance(named, list | tuple) or not named:
        raise ConfigurationError(f"endpoints={given!r}, must name each member of etcd")
    paths = [_file(settings.get(name)) for name in ("ca_cert", "cert", "key")]
    cluster = Cluster(tuple(map(str, named)), timeout, *paths)
    for endpoint in cluster.endpoints:
        _check_endpoint(endpoint, insecure_plain=settings.get("insecure_plain") is True)
    if (cluster.cert is None) != (cluster.key is None):
        raise ConfigurationError("cert and key of an etcd client go together")
    if cluster.key is not None:
        check_private(cluster.key)
    return cluster


class Gateway:
    """The members of one cluster, asked one after the other until one answers."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._maker = 0
        self._good = 0
        self._members: list[Etcd3Client] = []
        self._open()

    def ask(
        self, what: str, path: str, body: Mapping[str, object], *, writes: bool = False
    ) -> JSON:
        """Return the cluster's answer.

        Parameters
        ----------
        what : str
            What is done; for messages.
        path : str
            Below ``/v3/``.
        writes : bool
            Whether a lost answer leaves it open what the cluster now holds.

        Raises
        ------
        Refused
            The cluster said no; of a write, that nothing was written.
        OutcomeUnknown
            `writes`, and an answer was lost, or was that its quota is used up.
        StorageError
            No member could be asked.
        """
        if self._maker != os.getpid():
            self._open()
        ends = time.monotonic() + self.cluster.timeout
        size, first = len(self._members), self._good
        unknown, reason = False, "no time"
        for turn in itertools.count():
            if time.monotonic() >= ends:
                break
            if turn and turn % size == 0:
                time.sleep(_PAUSE)
            member = (first + turn) % size
            try:
                answer = self._once(member, path, body)
            except Refused as no:
                text = f"{self.cluster.shown}: could not {what}: {no}"
                unknown |= writes and isinstance(no, NoRoom)
                raise OutcomeUnknown(text) if unknown else type(no)(text) from no
            except StorageError as silent:
                reason = str(silent)
                unknown |= writes and isinstance(silent, OutcomeUnknown)
            else:
                self._good = member
                return answer
        text = f"{self.cluster.shown}: could not {what}: {reason}"
        raise OutcomeUnknown(text) if unknown else StorageError(text)

    def ask_member(self, member: int, path: str, body: Mapping[str, object]) -> JSON:
        """Return one member's answer; like `ask`."""
        return self._once(member, path, body)

    def fetch(self, member: int, path: str) -> requests.Response:
        """Return what one member serves at a path, beside the gateway.

        Raises
        ------
        StorageError
            It does not answer, or not with 200.
        """
        client = self._members[member]
        try:
            found = client.session.get(
                f"{client.base_url}/{path}", timeout=self.cluster.timeout
            )
            found.raise_for_status()
        except requests.RequestException as failed:
            said = _nobody(failed) or _short(failed)
            raise StorageError(f"{client.base_url}: {said}") from failed
        return found

    def _open(self) -> None:
        # Also after a fork: two processes must not share a connection.
        self._maker = os.getpid()
        self._members = [_client(each, self.cluster) for each in self.cluster.endpoints]

    def _once(self, member: int, path: str, body: Mapping[str, object]) -> JSON:
        client = self._members[member]
        try:
            answer = client.post(client.get_url(path), json=body)
        except (requests.RequestException, ValueError) as failed:
            raise OutcomeUnknown(f"{client.base_url}: {_short(failed)}") from failed
        except Etcd3Exception as failed:
            raise _judged(failed, client.base_url) from failed
        if not isinstance(answer, dict) or "error" in answer:
            raise StorageError(f"{client.base_url} answered {str(answer)[:200]!r}")
        return answer


# --- the gateway's own words: keys and values are base64, numbers are decimal text ----


def absent(key: str) -> JSON:
    """Return the comparison that holds if there is no such key."""
    return _compare(key, "CREATE", "EQUAL", create_revision=0)


def holds(key: str, value: bytes) -> JSON:
    """Return the comparison that holds if the key has this value."""
    return _compare(key, "VALUE", "EQUAL", value=text(value))


def below(key: str, value: bytes) -> JSON:
    """Return the comparison that holds if the key is there, with a smaller value."""
    return _compare(key, "VALUE", "LESS", value=text(value))


def put(key: str, value: bytes, lease: str = "0") -> JSON:
    """Return the request that writes a key; with a lease, it goes when that ends."""
    given = {"key": text(key.encode()), "value": text(value), "lease": lease}
    return {"request_put": given}


def delete(key: str) -> JSON:
    """Return the request that takes a key away; one that is not there is no error."""
    return {"request_delete_range": {"key": text(key.encode())}}


def get(key: str) -> JSON:
    """Return the request that reads one key."""
    return {"request_range": {"key": text(key.encode())}}


def text(data: bytes) -> str:
    """Return bytes as the gateway writes them."""
    return base64.b64encode(data).decode("ascii")


@dataclass(frozen=True, slots=True)
class Found:
    """One key as the cluster holds it."""

    key: str
    value: bytes
    revision: int
    lease: str


def found(answer: Mapping[str, Any]) -> dict[str, Found]:
    """Return what a range, or all ranges of a transaction, found; by key.

    Raises
    ------
    StorageError
        It is no answer of etcd.
    """
    try:
        ranges = [answer]
        ranges += [r.get("response_range", {}) for r in answer.get("responses", [])]
        keys = [_found(kv) for each in ranges for kv in each.get("kvs", [])]
    except (ValueError, LookupError, TypeError, AttributeError) as bad:
        raise StorageError(f"etcd answered {str(answer)[:200]!r}") from bad
    return {each.key: each for each in keys}


def field(answer: Mapping[str, Any], *names: str) -> int:
    """Return a number in an answer; 0 where the gateway leaves it out, as it may.

    Raises
    ------
    StorageError
        It is no answer of etcd.
    """
    value: Any = answer
    try:
        for name in names:
            value = value.get(name, {})
        return int(value or 0)
    except (ValueError, TypeError, AttributeError) as bad:
        raise StorageError(f"etcd answered {str(answer)[:200]!r}") from bad


def _found(kv: Mapping[str, Any]) -> Found:
    return Found(
        base64.b64decode(kv["key"]).decode(),
        base64.b64decode(kv.get("value", "")),
        int(kv["create_revision"]),
        str(kv.get("lease", "0")),
    )


def _compare(key: str, target: str, result: str, **value: object) -> JSON:
    named = {"key": text(key.encode()), "target": target, "result": result}
    return {**named, **value}


def _judged(failed: Etcd3Exception, where: str) -> StorageError:
    """Return what a failure says of the question: refused, not asked, or unknown."""
    reason = f"{where}: {_short(failed)}"
    if isinstance(failed, ConnectionTimeoutError):
        return OutcomeUnknown(f"{where}: no answer in time")
    if isinstance(failed, ConnectionFailedError):
        # Nobody listens there: certainly not asked. Else the answer may be lost.
        nobody = _nobody(failed.__context__)
        return StorageError(f"{where}: {nobody}") if nobody else OutcomeUnknown(reason)
    try:
        code = json.loads(failed.detail_text or "")["code"]
    except (ValueError, LookupError, TypeError):
        return OutcomeUnknown(f"{reason}; that is no answer of etcd's client port")
    if code == _EXHAUSTED and _FULL in reason:
        return NoRoom(f"{reason}: {_ROOM}")
    return Refused(reason) if code in _NO else OutcomeUnknown(reason)


def _nobody(failed: BaseException | None) -> str:
    """Return why a member was certainly not asked; "" if it may have been."""
    why = getattr(next(iter(getattr(failed, "args", ())), None), "reason", None)
    if not isinstance(why, NewConnectionError):
        return ""
    said = getattr(why.__cause__, "strerror", None) or "no connection"
    return f"{said}; does that member run?"


def _short(failed: Exception) -> str:
    detail = getattr(failed, "detail_text", None)
    try:
        said = str(json.loads(detail)["error"]) if detail else ""
    except (ValueError, LookupError, TypeError):
        said = ""
    return (said or detail or str(failed) or type(failed).__name__)[:200]


def _client(endpoint: str, cluster: Cluster) -> Etcd3Client:
    parts = urlsplit(endpoint)
    session = requests.Session()
    session.trust_env = False  # no proxy and no .netrc between us and the lease
    session.max_redirects = 0
    session.mount(f"{parts.scheme}://", HTTPAdapter(pool_maxsize=16))
    if cluster.ca_cert is not None:
        session.verify = str(cluster.ca_cert)
    if cluster.cert is not None and cluster.key is not None:
        session.cert = (str(cluster.cert), str(cluster.key))
    share = max(_SHORTEST, cluster.timeout / len(cluster.endpoints))
    return Etcd3Client(
        host=parts.hostname or "",
        port=parts.port or 2379,
        protocol=parts.scheme,
        timeout=share,
        api_path="/v3/",
        session=session,
    )


def _file(given: object) -> Path | None:
    if given is None:
        return None
    path = Path(str(given))
    if not path.is_file():
        raise ConfigurationError(f"{path} is no file, must be a certificate or its key")
    return path


def _check_endpoint(endpoint: str, *, insecure_plain: bool) -> None:
    shape = "must be https://host:port"
    try:
        parts = urlsplit(endpoint)
        port, host = parts.port, parts.hostname
    except ValueError as bad:
        raise ConfigurationError(f"an endpoint of etcd is no url, {shape}") from bad
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            f"an endpoint of etcd at {host} has a password in it, {shape}: name a "
            "client certificate instead"
        )
    if parts.scheme not in ("http", "https") or not host or parts.path.strip("/"):
        raise ConfigurationError(f"endpoint {endpoint!r} of etcd, {shape}")
    if port is None:
        raise ConfigurationError(f"endpoint {endpoint!r} of etcd has no port, {shape}")
    if parts.scheme == "http" and not is_here(host) and not insecure_plain:
        raise ConfigurationError(
            f"endpoint {endpoint!r} of etcd is another machine without TLS, {shape}"
        )
