"""What a site keeps of its runs: plan, layout, models by round, and the outbox.

All of it lies in a Store, so every object is durable before the site acts on it, and
none is ever overwritten: a repeated request finds the same bytes (RESILIENCE S2).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedsecure.envelope import canonical
from fedsecure.errors import AlreadyExists, NotFound, VerificationError
from fedsecure.stores import Store
from fedsecure.trainer import JSON
from fedsecure.update import Layout, Vector

_SMALL = 1 << 20
_FLOAT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Shelf:
    """One run's shelf in a site's store.

    Attributes
    ----------
    store : Store
    run : str
    max_bytes : int
        Largest object that is read back; bytes.
    """

    store: Store
    run: str
    max_bytes: int

    def plan(self) -> Mapping[str, JSON] | None:
        """Return the plan the run was joined under, or None."""
        data = self._read("plan", _SMALL)
        return None if data is None else _object(data)

    def keep_plan(self, document: Mapping[str, JSON]) -> None:
        """Keep the plan.

        Raises
        ------
        AlreadyExists
            The run was joined under another plan, which stays. The other `keep` verbs
            raise it too: what is on the shelf never changes.
        """
        self._keep("plan", canonical(document))

    def layout(self) -> Layout | None:
        """Return the layout of the run's model, or None before the first request."""
        data = self._read("layout", _SMALL)
        return None if data is None else read_layout(data)

    def model(self, number: int) -> Vector | None:
        """Return the model after round `number` (0: the first model), or None."""
        data = self._read(f"model/{number}", self.max_bytes)
        if data is None:
            return None
        if len(data) % _FLOAT_BYTES:
            raise VerificationError(
                f"model {number} has {len(data)} bytes, not float64"
            )
        return np.frombuffer(data, dtype="<f8")

    def keep_first_model(self, layout: Layout, model: Vector) -> None:
        """Keep first model, then layout: where a layout is, the model is too."""
        self.keep_model(0, model)
        self._keep("layout", canonical(layout.document()))

    def keep_model(self, number: int, model: Vector) -> None:
        """Keep the model after round `number`."""
        self._keep(f"model/{number}", model.astype("<f8").tobytes())

    def forget_models(self, before: int) -> None:
        """Remove the models of rounds below `before`, the first one excepted."""
        for key in self.store.keys(f"{self.run}/model/"):
            name = key.rsplit("/", 1)[1]
            if name.isdecimal() and 0 < int(name) < before:
                self.store.delete(key)

    def answer(self, number: int) -> bytes | None:
        """Return the outbox's bytes for round `number` (0: the run key), or None."""
        return self._read(f"out/{number}", self.max_bytes)

    def keep_answer(self, number: int, data: bytes) -> None:
        """Put an answer into the outbox, before it may leave."""
        self._keep(f"out/{number}", data)

    def _read(self, name: str, limit: int) -> bytes | None:
        try:
            return self.store.get(f"{self.run}/{name}", limit)
        except NotFound:
            return None

    def _keep(self, name: str, data: bytes) -> None:
        try:
            self.store.put(f"{self.run}/{name}", data)
        except AlreadyExists:
            if self._read(name, max(len(data), self.max_bytes, _SMALL)) != data:
                raise


def read_layout(data: bytes) -> Layout:
    """Return the layout that JSON bytes describe.

    Raises
    ------
    VerificationError
        Not a list of [name, [sizes]] with positive sizes.
    """
    try:
        rows = json.loads(data)
        pairs = [(str(name), tuple(int(s) for s in shape)) for name, shape in rows]
    except (ValueError, TypeError, OverflowError, RecursionError) as bad:
        raise VerificationError("layout is not a list of [name, shape]") from bad
    if not pairs or any(size <= 0 for _, shape in pairs for size in shape):
        raise VerificationError("layout is empty or holds a size below 1")
    return Layout(tuple(n for n, _ in pairs), tuple(s for _, s in pairs))


def _object(data: bytes) -> Mapping[str, JSON]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as bad:
        raise VerificationError("the plan on the shelf is not JSON") from bad
    if not isinstance(value, dict):
        raise VerificationError("the plan on the shelf is not a JSON object")
    return value
