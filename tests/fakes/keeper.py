"""What an etcd cluster keeps, in a dict: transactions, ranges and leases over JSON."""

import base64
import threading
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.member import Answer


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


class Keeper:
    """Keys with their revisions; leases end when told.

    Attributes
    ----------
    lose : list of str
        Paths whose next answer is lost after what was asked is done.
    """

    def __init__(self) -> None:
        self.kept: dict[bytes, tuple[bytes, int, str]] = {}
        self.leases: dict[str, int] = {}
        self.revision = 1
        self.lose: list[str] = []
        self._turn = threading.RLock()

    def answers(self) -> dict[str, Callable[[Any], Answer]]:
        """Return what a member in front of it says."""
        work = {
            "/v3/kv/txn": self.txn,
            "/v3/kv/range": self.range,
            "/v3/lease/grant": self.grant,
            "/v3/lease/keepalive": self.keepalive,
            "/v3/lease/revoke": self.revoke,
        }
        return {path: self._losing(path, done) for path, done in work.items()}

    def end(self, lease: str) -> None:
        """Let a lease end, with its keys."""
        self.leases.pop(lease, None)
        self.kept = {k: v for k, v in self.kept.items() if v[2] != lease}

    def txn(self, body: Mapping[str, Any]) -> dict[str, Any]:
        held = all(self._holds(each) for each in body["compare"])
        if held and any("request_put" in each for each in body["success"]):
            self.revision += 1
        work = body["success"] if held else body["failure"]
        done = [self._do(each) for each in work]
        return {"succeeded": held, "responses": done}

    def range(self, body: Mapping[str, Any]) -> dict[str, Any]:
        start, end = _bytes(body["key"]), _bytes(body.get("range_end", ""))
        at = int(body.get("revision", 0)) or self.revision
        keys = sorted(
            key
            for key, (_, revision, _) in self.kept.items()
            if (start <= key < end if end else key == start) and revision <= at
        )
        limit = int(body.get("limit", 0)) or len(keys)
        kvs = [self._shown(key) for key in keys[:limit]]
        header = {"revision": str(self.revision)}
        return {"kvs": kvs, "header": header, "more": len(keys) > limit}

    def grant(self, body: Mapping[str, Any]) -> dict[str, Any]:
        lease = str(len(self.leases) + 1001)
        self.leases[lease] = int(body["TTL"])
        return {"ID": lease, "TTL": body["TTL"]}

    def keepalive(self, body: Mapping[str, Any]) -> dict[str, Any]:
        ttl = self.leases.get(str(body["ID"]))
        return {"result": {"ID": body["ID"], **({"TTL": str(ttl)} if ttl else {})}}

    def revoke(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.end(str(body["ID"]))
        return {}

    def _losing(
        self, path: str, work: Callable[[Any], dict[str, Any]]
    ) -> Callable[[Any], Answer]:
        def answer(body: Any) -> Answer:
            with self._turn:
                done = work(body)
                if path in self.lose:
                    self.lose.remove(path)
                    return None
                return 200, done

        return answer

    def _holds(self, compare: Mapping[str, Any]) -> bool:
        found = self.kept.get(_bytes(compare["key"]))
        if compare["target"] == "CREATE":
            return found is None
        if found is None:
            return False
        wanted = _bytes(compare["value"])
        return found[0] == wanted if compare["result"] == "EQUAL" else found[0] < wanted

    def _do(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if "request_range" in request:
            return {"response_range": self.range(request["request_range"])}
        given = request["request_put"]
        key = _bytes(given["key"])
        made = self.kept[key][1] if key in self.kept else self.revision
        self.kept[key] = (_bytes(given["value"]), made, str(given["lease"]))
        return {"response_put": {}}

    def _shown(self, key: bytes) -> dict[str, str]:
        value, revision, lease = self.kept[key]
        return {
            "key": base64.b64encode(key).decode(),
            "value": base64.b64encode(value).decode(),
            "create_revision": str(revision),
            "lease": lease,
        }
