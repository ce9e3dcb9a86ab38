"""Lease, journal and head in etcd: one transaction compares the term and writes.

The leader's key hangs on an etcd lease, so the cluster itself takes it away from a
leader that is silent. Every acquisition raises the key `term` in the same transaction,
and every write compares it: that the lease is gone may be noticed late, that the term
is stale never (Jepsen on etcd 3.4.3). All reads are linearizable.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from urllib.parse import unquote

from fedsecure.envelope import canonical
from fedsecure.errors import ConfigurationError, Conflict, StaleTerm, StorageError
from fedsecure.etcdgateway import (
    JSON,
    Found,
    Gateway,
    Refused,
    absent,
    delete,
    field,
    find_cluster,
    found,
    get,
    holds,
    put,
    text,
)
from fedsecure.etcdtrial import try_out
from fedsecure.keyspace import Keys, bring_up, digits
from fedsecure.metadata import (
    ENDS,
    Engine,
    Head,
    JournalEntry,
    Lease,
    Step,
    distinct,
    release_entry,
    shown,
)
from fedsecure.trial import seconds

TIMEOUT = 1.5
MAX_SKEW = 5.0
MAX_ENTRIES = 60  # etcd takes 128 operations in one transaction, an entry is two
MAX_BYTES = 1_400_000  # and 1.5 MiB, with keys
_PAGE = 64
_RACES = 8


class EtcdLeases:
    """The lease board on one key; see `LeaseBoard` for the promises."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._ids: dict[Lease, str] = {}

    def read(self) -> Lease | None:
        """Return the lease whose key is there."""
        leader = self._look("read the lease").get(self._keys.leader)
        return None if leader is None else _lease(leader)

    def acquire(self, holder: str, address: str, ttl: float) -> Lease | None:
        """Make the leader's key and raise the term, in one transaction.

        etcd counts whole seconds and rounds short ones up: a standby may wait longer
        than `ttl`, never shorter.

        Raises
        ------
        StorageError
            No answer; what was begun is revoked, or ends by itself after `ttl`.
        """
        now = self._look("look for a leader")
        if self._keys.leader in now:
            return None
        lease_id = self._grant(ttl)
        try:
            lease = self._take(Lease(holder, address, 0, ttl), lease_id, now)
        except StorageError:
            self._revoke(lease_id)
            raise
        if lease is None:
            self._revoke(lease_id)
        else:
            self._ids = {lease: lease_id}
        return lease

    def renew(self, lease: Lease) -> Lease | None:
        """Prolong the lease; None once its key is gone, or a higher term was seen.

        The key is read after the lease was prolonged: a member without a majority could
        prolong what the others have ended.
        """
        lease_id = self._ids.get(lease) or self._id_of(lease)
        if lease_id is None:
            return None
        answer = self._keys.gateway.ask(
            "renew the lease", "lease/keepalive", {"ID": lease_id}, writes=True
        )
        left = field(answer, "result", "TTL")
        return lease if left > 0 and self._id_of(lease) == lease_id else None

    def release(self, lease: Lease) -> None:
        """Revoke the lease, if it is the one that is held."""
        lease_id = self._id_of(lease)
        self._ids.pop(lease, None)
        if lease_id is not None:
            try:
                self._end(lease_id)
            except Refused:  # it has ended meanwhile
                return

    def _take(
        self, wanted: Lease, lease_id: str, now: Mapping[str, Found]
    ) -> Lease | None:
        keys = self._keys
        for _ in range(_RACES):
            term = keys.highest(now)
            lease = Lease(wanted.holder, wanted.address, term + 1, wanted.ttl)
            won, now = keys.transact(
                "acquire the lease",
                [absent(keys.leader), holds(keys.term, digits(term))],
                [
                    put(keys.leader, canonical(asdict(lease)), lease_id),
                    put(keys.term, digits(term + 1)),
                ],
                [get(keys.leader), get(keys.term)],
            )
            leader = now.get(keys.leader)
            if won:
                return lease
            if leader is not None:
                # Ours, if an earlier try of this question was heard after all.
                return _lease(leader) if leader.lease == lease_id else None
        return None

    def _look(self, what: str) -> dict[str, Found]:
        keys = self._keys
        return keys.transact(what, [], [get(keys.leader), get(keys.term)])[1]

    def _id_of(self, lease: Lease) -> str | None:
        """Return the id of the etcd lease under a leadership that still holds."""
        now = self._look("read the lease")
        leader = now.get(self._keys.leader)
        if leader is None or _lease(leader) != lease:
            return None
        return leader.lease if self._keys.highest(now) == lease.term else None

    def _grant(self, ttl: float) -> str:
        answer = self._keys.gateway.ask(
            "grant a lease", "lease/grant", {"TTL": str(math.ceil(ttl))}, writes=True
        )
        lease_id = field(answer, "ID")
        if not lease_id:
            raise StorageError(f"etcd granted a lease without an id: {answer}")
        return str(lease_id)

    def _revoke(self, lease_id: str) -> None:
        try:
            self._end(lease_id)
        except StorageError:  # then it ends by itself, and nobody renews it
            return

    def _end(self, lease_id: str) -> None:
        self._keys.gateway.ask("end a lease", "lease/revoke", {"ID": lease_id})


class EtcdJournal:
    """Journal and head in keys; see `Journal` for the promises."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def append(self, term: int, entries: Sequence[JournalEntry]) -> None:
        """Write all entries or none, if `term` is the highest.

        Raises
        ------
        OutcomeUnknown
            No answer: append the same entries again, that is no second write.
        """
        keys, left = self._keys, distinct(entries)
        _check_size(left)
        for _ in range(_RACES):
            compare = [each for e in left for each in self._new(e)]
            success = [each for n, e in enumerate(left) for each in self._puts(e, n)]
            success += [delete(self._keys_of_round(e)) for e in left if e.step in ENDS]
            failure = [get(key) for e in left for key in self._keys_of(e)]
            won, now = keys.transact(
                "append",
                [keys.fence(term), *compare],
                [*success, keys.raised(term)],
                [*failure, get(keys.term)],
            )
            if won:
                return
            self._refuse_stale(term, now)
            left = [e for e in left if not self._written(e, now)]
        raise StorageError(f"{keys.gateway.cluster.shown}: could not append: busy")

    def entries(self, run: str, first_round: int) -> Iterator[JournalEntry]:
        """Yield the run's entries in the order written."""
        yield from (e for _, e in sorted(self._numbered(run, first_round), key=_first))

    def head(self, run: str) -> Head | None:
        """Return the run's head."""
        key = self._keys.head(run)
        _, now = self._keys.transact("read the head", [], [get(key)])
        return _head(now[key]) if key in now else None

    def advance(
        self, term: int, expected: Head | None, new: Head, closed: bytes = b""
    ) -> None:
        """Move the head and write its RELEASE entry, if nobody else did.

        Raises
        ------
        OutcomeUnknown
            No answer: advance to the same head again, that is no second release.
        """
        keys, entry = self._keys, release_entry(new)
        key = keys.head(new.run)
        where = absent(key) if expected is None else holds(key, _value(expected))
        won, now = keys.transact(
            "move the head",
            [keys.fence(term), where, *self._new(entry), *self._state(new, closed)],
            [put(key, _value(new)), *self._puts(entry, 0), keys.raised(term)],
            [get(key), get(keys.term)],
        )
        if won:
            return
        self._refuse_stale(term, now)
        head = _head(now[key]) if key in now else None
        if head != new:
            raise Conflict(
                f"head of {new.run} is {shown(head)}, expected {shown(expected)}, or "
                f"round {new.round} was released or skipped before, or is not closed "
                "over the set that would be released"
            )
        self.append(term, [])  # a repeat under a higher term raises it

    def _state(self, new: Head, closed: bytes) -> list[JSON]:
        """Return the comparisons that hold while a round's state lets its head move."""
        keys, steps = self._keys, (Step.OPEN, Step.CLOSE, Step.SKIP)
        opened, close, skip = (keys.place(new.run, new.round, s, "") for s in steps)
        if not closed:
            return [absent(opened), absent(close), absent(skip)]
        # Its value holds more than the detail: it is read, and compared whole.
        now = keys.transact("read the CLOSE row", [], [get(close)])[1]
        if close not in now or self._entry(new.run, now[close])[1].detail != closed:
            return [absent(keys.term)]  # holds never: the answer says what is wrong
        return [holds(close, now[close].value), absent(skip)]

    def _keys_of(self, entry: JournalEntry) -> tuple[str, str]:
        place = self._keys.place(entry.run, entry.round, entry.step, entry.site)
        return place, self._keys.operation(entry.operation)

    def _keys_of_round(self, entry: JournalEntry) -> str:
        return self._keys.place(entry.run, entry.round, Step.KEY, "")

    def _new(self, entry: JournalEntry) -> list[JSON]:
        return [absent(key) for key in self._keys_of(entry)]

    def _puts(self, entry: JournalEntry, index: int) -> list[JSON]:
        place, operation = self._keys_of(entry)
        about = canonical({"index": index, "operation": entry.operation})
        value = about + b"\n" + entry.detail
        return [put(place, value), put(operation, place.encode())]

    def _refuse_stale(self, term: int, now: Mapping[str, Found]) -> None:
        highest = self._keys.highest(now)
        if term < highest:
            raise StaleTerm(f"term {term} may not write: term {highest} leads")

    def _written(self, entry: JournalEntry, now: Mapping[str, Found]) -> bool:
        place, operation = self._keys_of(entry)
        if place not in now and operation not in now:
            return False
        if place in now and self._entry(entry.run, now[place])[1] == entry:
            return True
        raise Conflict(
            f"{entry.step} of round {entry.round} {entry.site} was written before, or "
            f"operation {entry.operation} for something else"
        )

    def _numbered(
        self, run: str, first_round: int
    ) -> Iterator[tuple[tuple[int, int], JournalEntry]]:
        start = self._keys.journal(run)
        key, end = f"{start}{first_round:012d}/", f"{start[:-1]}0"
        revision, more = "0", True
        while more:
            body = {
                "key": text(key.encode()),
                "range_end": text(end.encode()),
                "limit": str(_PAGE),
                "revision": revision,
            }
            answer = self._keys.gateway.ask("read the journal", "kv/range", body)
            page = found(answer)
            yield from (self._entry(run, each) for each in page.values())
            # All pages of one moment: later entries may lie on earlier pages.
            if revision == "0":
                revision = str(field(answer, "header", "revision"))
            more = bool(answer.get("more")) and bool(page)
            key = f"{max(page, default='')}\0"

    def _entry(self, run: str, kept: Found) -> tuple[tuple[int, int], JournalEntry]:
        try:
            number, step, site = kept.key[len(self._keys.journal(run)) :].split("/")
            about, detail = kept.value.split(b"\n", 1)
            given = json.loads(about)
            entry = JournalEntry(
                run, int(number), Step(step), unquote(site), given["operation"], detail
            )
            return (kept.revision, int(given["index"])), entry
        except (ValueError, LookupError, TypeError) as bad:
            raise StorageError(f"{kept.key} is no journal entry") from bad


def create(settings: Mapping[str, object]) -> Engine:
    """Return the engine in the cluster at ``settings["endpoints"]``.

    Parameters
    ----------
    settings : Mapping
        ``endpoints`` (list of urls, every member); ``prefix`` ("/fedsecure/");
        ``ca_cert``, ``cert``, ``key`` (paths; the key of mode 0600); ``timeout`` (1.5
        s, of one question to all members); ``max_skew`` (5 s, between the clocks);
        ``insecure_plain`` (false: TLS to other machines); ``trial`` (true; false for
        whoever only looks: an operator wants to see a sick cluster too).

    Raises
    ------
    ConfigurationError
        A setting cannot be used, the cluster does not fsync or has an alarm, its keys
        are of another version, or it failed the trial.
    StorageError
        No quorum of it answers.
    """
    prefix = str(settings.get("prefix") or "/fedsecure/")
    if not (prefix.startswith("/") and prefix.endswith("/")):
        raise ConfigurationError(f"prefix={prefix!r}, must begin and end with /")
    gateway = Gateway(find_cluster(settings, seconds(settings, "timeout", TIMEOUT)))
    max_skew = seconds(settings, "max_skew", MAX_SKEW)
    if settings.get("trial") is not False:
        try_out(gateway, prefix, max_skew)
    keys = Keys(gateway, prefix)
    bring_up(keys)
    return Engine(EtcdLeases(keys), EtcdJournal(keys))


def _check_size(entries: Sequence[JournalEntry]) -> None:
    size = sum(len(e.detail) + len(e.operation) + len(e.site) for e in entries)
    if len(entries) > MAX_ENTRIES or size > MAX_BYTES:
        raise StorageError(
            f"append of {len(entries)} entries with {size} bytes, etcd takes at most "
            f"{MAX_ENTRIES} with {MAX_BYTES} in one transaction: append them apart"
        )


def _lease(leader: Found) -> Lease:
    try:
        given = json.loads(leader.value)
        return Lease(
            given["holder"], given["address"], int(given["term"]), float(given["ttl"])
        )
    except (ValueError, LookupError, TypeError) as bad:
        raise StorageError(f"{leader.key} is no lease") from bad


def _value(head: Head) -> bytes:
    return canonical({**asdict(head), "manifest": head.manifest.hex()})


def _head(kept: Found) -> Head:
    try:
        given = json.loads(kept.value)
        return Head(**{**given, "manifest": bytes.fromhex(given["manifest"])})
    except (ValueError, LookupError, TypeError) as bad:
        raise StorageError(f"{kept.key} is no head") from bad


def _first(numbered: tuple[tuple[int, int], JournalEntry]) -> tuple[int, int]:
    return numbered[0]
