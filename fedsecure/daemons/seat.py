"""An aggregator's seat at the lease board, as its supervisor sees it.

A ServerApp that is killed cannot give its lease up, and on a server nobody else would
lead before the lease ran out. Its supervisor knows at once that it is dead, and gives
the lease up in its place (RESILIENCE.md section 2).
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fedsecure.errors import FedsecureError
from fedsecure.metadata import Lease, LeaseBoard

log = logging.getLogger(__name__)


class Seat:
    """One aggregator's place among those who may lead.

    Parameters
    ----------
    find : callable
        Returns the board.
    name, address : str
        Of the aggregator, as its campaign gives them.
    """

    def __init__(self, find: Callable[[], LeaseBoard], name: str, address: str) -> None:
        self._find = find
        self._name = name
        self._address = address
        self._board: LeaseBoard | None = None

    def prepare(self) -> None:
        """Find the board before it is needed; one that is silent is found later."""
        with self._warned():
            self._found()

    def vacate(self) -> Lease | None:
        """Give the lease up that this aggregator holds; return it, None if it had none.

        Only for whoever knows that the process which holds it is dead. A board that
        does not answer changes nothing: the lease runs out.
        """
        with self._warned():
            board = self._found()
            lease = board.read()
            # The address too: another machine may have started under this name.
            if lease is not None and self._is_mine(lease):
                board.release(lease)
                return lease
        return None

    def _is_mine(self, lease: Lease) -> bool:
        return (lease.holder, lease.address) == (self._name, self._address)

    def _found(self) -> LeaseBoard:
        self._board = self._board or self._find()
        return self._board

    @contextmanager
    def _warned(self) -> Iterator[None]:
        try:
            yield
        except FedsecureError as silent:
            log.warning("%s: lease board: %s; the lease runs out", self._name, silent)
            self._board = None
