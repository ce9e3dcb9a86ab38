"""W of N: an object counts once W stores hold it; any one of them gives it back."""

import logging
import uuid
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import TypeVar

from fedsecure.checkpoint.broadcast import Broadcast
from fedsecure.checkpoint.call import Call, Moved
from fedsecure.checkpoint.patience import Bounds, Patience
from fedsecure.checkpoint.probe import claim, try_out
from fedsecure.checkpoint.single import (
    MovingStore,
    opened,
    put_or_same,
    stream_or_same,
)
from fedsecure.clock import Clock, SystemClock
from fedsecure.disk import Readable
from fedsecure.errors import (
    ConfigurationError,
    NotEnoughReplicas,
    NotFound,
    StorageError,
    VerificationError,
)
from fedsecure.outgoing import Bytes
from fedsecure.stores import RoomyStore, Store, StreamingStore

log = logging.getLogger(__name__)

S = TypeVar("S")
T = TypeVar("T")


class Replicas:
    """N stores that are written together.

    Parameters
    ----------
    stores : sequence of (str, Store)
        Name for messages, and store.
    quorum : int
        W: how many must hold an object before it counts.
    clock : Clock, optional
        How long a store that kept us waiting is left alone; see `silence`.
    bounds : Bounds, optional
        How long a store that does not answer is waited for; see `patience`.

    Raises
    ------
    ConfigurationError
        W is not in 1 to N.
    """

    def __init__(
        self,
        stores: Sequence[tuple[str, Store]],
        quorum: int,
        clock: Clock | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        if not 1 <= quorum <= len(stores):
            raise ConfigurationError(
                f"store.quorum={quorum}, must be 1 to the {len(stores)} replicas"
            )
        self._stores = tuple(stores)
        self._quorum = quorum
        self._patience = Patience(clock or SystemClock(), bounds or Bounds())

    def probe(self, federation: str | None = None) -> None:
        """Try each store out; with `federation`, see that it is ours or claim it.

        Raises
        ------
        ConfigurationError
            Names every store that breaks a promise or holds another federation's data;
            one that hangs only where fewer than W others are fit.
        """
        fit, hung, bad = list[str](), list[str](), list[str]()

        def one(store: Store, moved: Moved) -> None:
            asked = MovingStore(store, moved)
            first = f"probe/{uuid.uuid4().hex}"
            asked.put(first, b"1")  # one that hangs holds this thread, and no racers
            asked.delete(first)
            try_out(asked)
            if federation is not None:
                claim(asked, federation)

        for call in self._asked(one, lambda: len(fit) >= self._quorum):
            try:
                call.result()
            except (StorageError, VerificationError, ConfigurationError) as failed:
                (bad if call.over else hung).append(f"{call.name}: {failed}")
            else:
                fit.append(call.name)
        if bad or len(fit) < self._quorum:
            bad += hung
            raise ConfigurationError(
                f"{len(bad)} of {len(self._stores)} stores are not usable: "
                f"{'; '.join(bad)}. Mend them, or take them out of the configuration"
            )
        for each in hung:
            log.warning(
                "store %s: %d others are enough to start; mend it, until then no other "
                "may fail",
                each,
                len(fit),
            )

    def put(
        self,
        key: str,
        value: bytes,
        same: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Write to every store; return once W hold it.

        Equal bytes that are there already count: a repeat is no error. A store that
        holds other bytes (another writer's, or a copy gone bad) does not hold it.

        Parameters
        ----------
        same : callable, optional
            Whether what a store holds instead says the same: of what is sealed anew by
            each writer, copies differ and are equally good.

        Raises
        ------
        NotEnoughReplicas
            Fewer than W hold it.
        """

        def one(store: Store, _: Moved) -> None:
            put_or_same(store, key, value, same)

        answers: list[str] = []
        self._tallied(self._stores, one, self._quorum, answers)
        self._counted(key, answers)

    def put_stream(
        self,
        pieces: Iterable[Bytes],
        depth: int,
        max_bytes: int,
        key: Callable[[], str],
        same: Callable[[Bytes], bool],
    ) -> None:
        """As `put`, of pieces: stores that take them write side by side, meanwhile.

        Parameters
        ----------
        pieces : iterable of bytes
            A piece may change once `depth` - 1 more were taken.
        max_bytes : int
            Largest object that may be there already.
        key : callable
            () -> the key, asked for after the last piece.
        same : callable
            See `put`.
        """
        eager = [(n, s) for n, s in self._stores if isinstance(s, StreamingStore)]
        others = [(n, s) for n, s in self._stores if not isinstance(s, StreamingStore)]
        need, answers = max(self._quorum - len(others), 0), list[str]()
        asked = self._spared(eager, need, answers)
        sent = Broadcast(self._patience, asked, depth, need, joins=bool(others))
        sent.send(
            pieces,
            lambda store, taken: stream_or_same(store, taken, key, max_bytes, same),
        )
        _tally(sent.answers(lambda: answers.count("") >= need, max_bytes), answers)
        if others:
            value = sent.whole()

            def one(store: Store, _: Moved) -> None:
                put_or_same(store, key(), value, same)

            self._tallied(others, one, self._quorum, answers)
        self._counted(key(), answers)

    def _spared(
        self,
        stores: Sequence[tuple[str, StreamingStore]],
        need: int,
        answers: list[str],
    ) -> list[tuple[str, StreamingStore]]:
        """Return the stores to write to: without those that are stuck, if that does."""
        well = [(n, s) for n, s in stores if not self._patience.stuck(n)]
        if len(well) < need:
            return list(stores)
        left = [name for name, _ in stores if self._patience.stuck(name)]
        answers += [f"{name}: does not return, and is left alone" for name in left]
        return well

    def _tallied(
        self,
        stores: Sequence[tuple[str, Store]],
        ask: Callable[[Store, Moved], None],
        need: int,
        answers: list[str],
    ) -> None:
        """Ask one store after the other; add why it did not do it, "" where it did.

        Stores that rest come last, and are left alone once `need` others did it.
        """

        def enough() -> bool:
            return answers.count("") >= need

        calls = self._patience.in_turn(stores, ask, enough, lambda _: enough())
        _tally(calls, answers)

    def _counted(self, key: str, answers: Sequence[str]) -> None:
        """Return if W stores answered with no failure."""
        failures = [answer for answer in answers if answer]
        held = len(answers) - len(failures)
        if failures:
            log.warning("%s: %d of %d: %s", key, held, len(self._stores), failures)
        if held < self._quorum:
            raise NotEnoughReplicas(
                f"{key}: {held} of {len(self._stores)} stores hold it, "
                f"{self._quorum} must: {'; '.join(failures)}. Nothing is released that "
                "would not survive a store: bring one back, or repair it with "
                "`fedsecure checkpoint restore`, and the run goes on where it stopped"
            )

    def require_room(self, need: int) -> None:
        """Return only if W stores have as many bytes left, or cannot tell.

        Raises
        ------
        NotEnoughReplicas
            Names each store that has not.
        """
        answers: list[str] = []

        def room(store: Store, _: Moved) -> None:
            left = store.room() if isinstance(store, RoomyStore) else None
            if left is not None and left < need:
                raise StorageError(f"{left} bytes free, {need} are needed")

        _tally(self._asked(room, lambda: answers.count("") >= self._quorum), answers)
        if answers.count("") < self._quorum:
            raise NotEnoughReplicas(
                f"{'; '.join(filter(None, answers))}: no more updates are taken while "
                f"fewer than {self._quorum} of {len(self._stores)} stores have room "
                "for two checkpoints. Free space there, and the run goes on where it "
                "stopped"
            )

    def _asked(
        self, ask: Callable[[Store, Moved], T], enough: Callable[[], bool]
    ) -> Generator[Call[T], None, None]:
        """Ask all stores, those that rest last and only if they are needed.

        One that was slow once may have the only copy; see `Patience.in_turn`.
        """
        return self._patience.in_turn(self._stores, ask, enough, lambda _: enough())

    def get(self, key: str, max_bytes: int, read: Callable[[bytes], T]) -> T:
        """Return what `read` makes of the first copy it accepts; see `open`.

        Parameters
        ----------
        read : callable
            Stored bytes -> the verified thing; `VerificationError` passes a copy over.
        """
        return self._first(key, lambda store, _: store.get(key, max_bytes), read)

    def open(self, key: str, max_bytes: int, read: Callable[[Readable], T]) -> T:
        """Return what `read` makes of the first copy it accepts, read in order.

        Parameters
        ----------
        read : callable
            A file -> the verified thing; `VerificationError` passes a copy over.

        Raises
        ------
        NotFound
            Every store was asked, and none has it.
        VerificationError
            Every store was asked, and no copy is good.
        StorageError
            No good copy, and a store that could not be asked may have one.
        """

        def one(store: Store, moved: Moved) -> T:
            with opened(store, key, max_bytes, moved) as file:
                return read(file)

        return self._first(key, one, lambda found: found)

    def _first(
        self,
        key: str,
        ask: Callable[[Store, Moved], S],
        read: Callable[[S], T],
    ) -> T:
        bad, silent, without = list[str](), list[str](), 0

        def nowhere() -> bool:  # W stores would have held what counts
            return without > len(self._stores) - self._quorum

        with closing(self._asked(ask, nowhere)) as calls:
            for call in calls:
                try:
                    return read(call.result())
                except NotFound:
                    without += 1
                except VerificationError as changed:
                    log.error("store %s: %s: %s", call.name, key, changed)  # noqa: TRY400
                    bad.append(f"{call.name}: {changed}")
                except StorageError as failed:
                    silent.append(f"{call.name}: {failed}")
        if silent:
            raise StorageError(f"{key}: no good copy: {'; '.join(silent + bad)}")
        if bad:
            raise VerificationError(f"{key}: no good copy: {'; '.join(bad)}")
        raise NotFound(f"{key}: in none of {len(self._stores)} stores")

    def keys(self, prefix: str) -> tuple[str, ...]:
        """Return the keys any reachable store has, sorted.

        Raises
        ------
        StorageError
            So few answered that a key on W stores may be on none of them.
        """
        found: set[str] = set()
        silent = list[str]()
        answered, least = 0, len(self._stores) - self._quorum + 1
        asked = self._asked(
            lambda store, _: store.keys(prefix), lambda: answered >= least
        )
        for call in asked:
            try:
                found.update(call.result())
                answered += 1
            except StorageError as failed:
                silent.append(f"{call.name}: {failed}")
        if answered < least:
            raise StorageError(f"{prefix}: could not be listed: {'; '.join(silent)}")
        return tuple(sorted(found))

    def delete(self, key: str) -> None:
        """Delete from every store that answers; the others keep it, logged."""
        answers: list[str] = []
        self._tallied(self._stores, lambda store, _: store.delete(key), 0, answers)
        for answer in filter(None, answers):
            log.warning("store %s", answer)


def _tally(calls: Iterable[Call[None]], answers: list[str]) -> None:
    """Add why each store did not do it; "" if it did."""
    for call in calls:
        try:
            call.result()
        except StorageError as failed:
            answers.append(f"{call.name}: {failed}")
        else:
            answers.append("")
