"""A store whose every answer comes in bounded time, for who reads them all.

Who writes and restores asks `Replicas`, which goes on without a store that hangs. Who
looks at every copy, one store after the other, needs to be told that one is silent.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from fedsecure.checkpoint.call import Moved
from fedsecure.checkpoint.patience import Patience
from fedsecure.errors import StorageError
from fedsecure.stores import Store, TimedStore

T = TypeVar("T")


class BoundedStore:
    """A store that fails once it stood still for `Bounds.longest`, then at once.

    Until the call that was left behind returns; see `patience`.

    Parameters
    ----------
    name : str
        For messages.
    store : Store
    patience : Patience
    """

    def __init__(self, name: str, store: Store, patience: Patience) -> None:
        self._name, self._store, self._patience = name, store, patience

    def get(self, key: str, max_bytes: int) -> bytes:
        """Return an object; see `Store`."""
        return self._asked(lambda _: self._store.get(key, max_bytes))

    def put(self, key: str, value: bytes) -> None:
        """Write an object; see `Store`."""
        self._asked(lambda _: self._store.put(key, value))

    def keys(self, prefix: str) -> tuple[str, ...]:
        """Return keys; see `Store`."""
        return self._asked(lambda _: self._store.keys(prefix))

    def delete(self, key: str) -> None:
        """Remove an object; see `Store`."""
        self._asked(lambda _: self._store.delete(key))

    def _asked(self, ask: Callable[[Moved], T]) -> T:
        if self._patience.stuck(self._name):
            raise StorageError("it does not return, and is left alone until it does")
        call = self._patience.begin(self._name, ask)
        for each in self._patience.gather([call], lambda: False):
            return each.result()
        raise StorageError("it was not asked")


def bounded(
    stores: Sequence[tuple[str, Store]], patience: Patience
) -> tuple[tuple[str, Store], ...]:
    """Return the same stores, each bounded, by itself or here."""
    return tuple(
        (name, s if isinstance(s, TimedStore) else BoundedStore(name, s, patience))
        for name, s in stores
    )
