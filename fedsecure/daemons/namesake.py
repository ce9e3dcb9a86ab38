"""Two aggregators of one name: whoever starts second finds the first and stops.

A lease names its holder. One that is in this aggregator's own name at its start is its
last life's, which ends within the ttl, or somebody else's who has the same kit.
"""

from fedsecure.clock import Clock
from fedsecure.errors import ConfigurationError
from fedsecure.metadata import LeaseBoard

_PATIENCE = 1.5  # ttls: a server may round up
_LOOK = 0.1


def refuse_namesake(board: LeaseBoard, name: str, clock: Clock) -> None:
    """Return once nobody leads under this name; at once if nobody does.

    Parameters
    ----------
    name : str
        This aggregator's, which does not lead yet.

    Raises
    ------
    ConfigurationError
        Somebody goes on leading under it.
    StorageError
        The board does not answer.
    """
    first = board.read()
    if first is None or first.holder != name:
        return
    patience = _PATIENCE * first.ttl
    ends = clock.now() + patience
    while clock.now() < ends:
        lease = board.read()
        if lease is None or lease.holder != name:
            return
        if lease.term > first.term:
            break
        clock.sleep(_LOOK)
    raise ConfigurationError(
        f"another process leads as {name} (term {first.term}, address "
        f"{first.address or 'unknown'}), {patience:.1f} s after this one started: two "
        "aggregators run with one kit; end one of them, and provision another name "
        "for a second aggregator"
    )
