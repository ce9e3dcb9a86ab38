"""Who is who among the nodes of a simulation, which have no keys to be known by.

On a network a node is known by its supernode key (`link.site_nodes`). This believes
anyone: only one process, or one machine's simulation, may use it.
"""

import threading
from collections.abc import Mapping

from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.flower import records
from fedsecure.flower.post import Directory, Grid

WHO = b"who"
"""The letter that asks; a site answers it with its name. No envelope is so short."""
_LONGEST_NAME = 64
_SECONDS = 60.0


def rollcall(grid: Grid, sites: int) -> Directory:
    """Return a directory that asks every node once, through the mod, which site it is.

    The directory raises ConfigurationError for a node whose ClientApp lacks the mod.
    """
    lock, known = threading.Lock(), dict[str, int]()

    def directory() -> Mapping[str, int]:
        with lock:
            if len(known) < sites:
                known.update(_answers(grid, set(known.values())))
            return known

    return directory


def _answers(grid: Grid, known: set[int]) -> dict[str, int]:
    asked = sorted(set(grid.get_node_ids()) - known)
    letters = [records.message(WHO, node, "rollcall") for node in asked]
    found = {}
    for reply in grid.send_and_receive(letters, timeout=_SECONDS):
        try:
            name = records.read(reply, _LONGEST_NAME).decode("ascii")
        except (VerificationError, ValueError) as bad:
            raise ConfigurationError(
                f"a node does not say which site it is ({bad}): put secure_mod first "
                "in ClientApp(mods=[...])"
            ) from bad
        found[name] = reply.metadata.src_node_id
    return found
