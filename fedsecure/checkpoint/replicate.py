"""W of N: an object counts once W stores hold it; any one of them gives it back."""

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

from fedsecure.checkpoint.fanout import Fanout
from fedsecure.checkpoint.probe import claim, try_out
from fedsecure.checkpoint.silence import Silence
from fedsecure.clock import Clock, SystemClock
from fedsecure.disk import Readable
from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    NotEnoughReplicas,
    NotFound,
    StorageError,
    VerificationError,
)
from fedsecure.outgoing import Bytes
from fedsecure.stores import RoomyStore, Store, StreamingStore

log = logging.getLogger(__name__)

T = TypeVar("T")
_OTHER_WRAPS = 1 << 20  # what says the same may be longer by its wrapped keys


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
    ) -> None:
        if not 1 <= quorum <= len(stores):
            raise ConfigurationError(
                f"store.quorum={quorum}, must be 1 to the {len(stores)} replicas"
            )
        self._stores = tuple(stores)
        self._quorum = quorum
        self._silence = Silence(clock or SystemClock())

    def probe(self, federation: str | None = None) -> None:
        """Try each store out; with `federation`, see that it is ours or claim it.

        Raises
        ------
        ConfigurationError
            Names every store that breaks a promise or holds another federation's data.
        """
        bad = []
        for name, store in self._stores:
            try:
                try_out(store)
                if federation is not None:
                    claim(store, federation)
            except (StorageError, VerificationError, ConfigurationError) as failed:
                bad.append(f"{name}: {failed}")
        if bad:
            raise ConfigurationError(
                f"{len(bad)} of {len(self._stores)} stores are not usable: "
                f"{'; '.join(bad)}. Mend them, or take them out of the configuration"
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

        def one(store: Store) -> None:
            _put_or_same(store, key, value, same)

        self._counted(key, self._in_turn(self._stores, one, self._quorum))

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
        fan = Fanout(len(eager) + bool(others), depth)

        def stream(place: int) -> str:
            name, store = eager[place]

            def one(_: Store) -> None:
                try:
                    store.put_stream(fan.read(place), key)
                except AlreadyExists as other:
                    found = cast("Store", store)
                    if not _holds_same(found, key(), max_bytes, same):
                        raise AlreadyExists(f"{key()} holds other bytes") from other
                finally:
                    fan.leave(place)

            return _attempt(name, cast("Store", store), one)

        with ThreadPoolExecutor(len(eager) + 1) as pool:
            streams = [pool.submit(stream, place) for place in range(len(eager))]
            rest = pool.submit(_joined, fan.read(len(eager))) if others else None
            fan.feed(pieces)
            failures = [each.result() for each in streams]
        if rest is not None:
            value = rest.result()
            need = self._quorum - failures.count("")

            def one(store: Store) -> None:
                _put_or_same(store, key(), value, same)

            failures += self._in_turn(others, one, need)
        self._counted(key(), failures)

    def _in_turn(
        self,
        stores: Sequence[tuple[str, Store]],
        step: Callable[[Store], None],
        need: int,
    ) -> list[str]:
        """Return why each store did not do it, "" where it did.

        Stores that were silent a moment ago come last, and are left alone once `need`
        others have done it.
        """
        answers: list[str] = []
        for name, store in self._order(stores):
            if self._silence.rests(name) and answers.count("") >= need:
                answers.append(f"{name}: was silent, and is left alone for a while")
                continue
            begun = self._silence.now()
            answers.append(_attempt(name, store, step))
            self._silence.learn(name, begun, failed=bool(answers[-1]))
        return answers

    def _order(self, stores: Sequence[tuple[str, Store]]) -> list[tuple[str, Store]]:
        return sorted(stores, key=lambda each: self._silence.rests(each[0]))

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
        short = []
        for name, store in self._stores:
            try:
                room = store.room() if isinstance(store, RoomyStore) else None
            except StorageError as failed:
                short.append(f"{name}: {failed}")
                continue
            if room is not None and room < need:
                short.append(f"{name}: {room} bytes free, {need} are needed")
        if len(self._stores) - len(short) < self._quorum:
            raise NotEnoughReplicas(
                f"{'; '.join(short)}: no more updates are taken while fewer than "
                f"{self._quorum} of {len(self._stores)} stores have room for two "
                "checkpoints. Free space there, and the run goes on where it stopped"
            )

    def get(self, key: str, max_bytes: int, read: Callable[[bytes], T]) -> T:
        """Return what `read` makes of the first copy it accepts; see `open`.

        Parameters
        ----------
        read : callable
            Stored bytes -> the verified thing; `VerificationError` passes a copy over.
        """
        return self._first(key, lambda store: read(store.get(key, max_bytes)))

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

        def one(store: Store) -> T:
            with _opened(store, key, max_bytes) as file:
                return read(file)

        return self._first(key, one)

    def _first(self, key: str, read: Callable[[Store], T]) -> T:
        bad, silent = [], []
        for name, store in self._order(self._stores):
            begun = self._silence.now()
            try:
                return read(store)
            except NotFound:
                continue
            except VerificationError as changed:
                log.error("store %s: %s: %s", name, key, changed)  # noqa: TRY400
                bad.append(f"{name}: {changed}")
            except StorageError as failed:
                self._silence.learn(name, begun, failed=True)
                silent.append(f"{name}: {failed}")
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
        silent = []
        for name, store in self._stores:
            try:
                found.update(store.keys(prefix))
            except StorageError as failed:
                silent.append(f"{name}: {failed}")
        if len(silent) >= self._quorum:
            raise StorageError(f"{prefix}: could not be listed: {'; '.join(silent)}")
        return tuple(sorted(found))

    def delete(self, key: str) -> None:
        """Delete from every store that answers; the others keep it, logged."""
        answers = self._in_turn(self._stores, lambda store: store.delete(key), 0)
        for answer in filter(None, answers):
            log.warning("store %s", answer)


def shared_devices(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Return pairs of folders that lie on one device, so that one disk loses both."""
    devices: dict[int, Path] = {}
    shared = []
    for path in paths:
        device = _existing(path).stat().st_dev
        if device in devices:
            shared.append((devices[device], path))
        devices.setdefault(device, path)
    return shared


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _attempt(name: str, store: Store, step: Callable[[Store], None]) -> str:
    """Return why a store did not do it; "" if it did."""
    try:
        step(store)
    except StorageError as failed:
        return f"{name}: {failed}"
    return ""


def _joined(pieces: Iterable[Bytes]) -> bytes:
    out = io.BytesIO()
    out.writelines(pieces)
    return out.getvalue()


@contextmanager
def _opened(store: Store, key: str, max_bytes: int) -> Iterator[Readable]:
    if isinstance(store, StreamingStore):
        with store.get_stream(key, max_bytes) as file:
            yield file
    else:
        yield io.BytesIO(store.get(key, max_bytes))


def _put_or_same(
    store: Store, key: str, value: bytes, same: Callable[[bytes], bool] | None
) -> None:
    try:
        store.put(key, value)
    except AlreadyExists as other:
        if not _holds(store, key, value, same):
            raise AlreadyExists(f"{key} holds other bytes") from other


def _holds_same(
    store: Store, key: str, max_bytes: int, same: Callable[[Bytes], bool]
) -> bool:
    try:
        return same(store.get(key, max_bytes))
    except VerificationError:  # larger, gone bad, or sealed for somebody else
        return False


def _holds(
    store: Store, key: str, value: bytes, same: Callable[[bytes], bool] | None
) -> bool:
    room = 0 if same is None else _OTHER_WRAPS
    try:
        stored = store.get(key, len(value) + room)
        return stored == value or (same is not None and same(stored))
    except VerificationError:  # it is larger
        return False
