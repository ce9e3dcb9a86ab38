"""The drills by name."""

from collections.abc import Mapping

from fedsecure.drills.drill import Drill
from fedsecure.drills.hosts import LOST_HOST, STOPPED_HOST, LostHost, StoppedHost

DRILLS: Mapping[str, Drill] = {
    "failover": Drill(
        "The leader's host is lost in mid-round: SIGKILL of all its processes.",
        LOST_HOST,
        LostHost,
    ),
    "pause": Drill(
        "The leader's host stands still beyond its lease, and comes back: SIGSTOP.",
        STOPPED_HOST,
        StoppedHost,
    ),
}
