"""The drills by name."""

from collections.abc import Mapping
from functools import partial

from fedsecure.drills import clocks, partition
from fedsecure.drills.drill import Drill, in_federation
from fedsecure.drills.hosts import LOST_HOST, STOPPED_HOST, LostHost, StoppedHost
from fedsecure.drills.needs import missing, missing_faketime
from fedsecure.drills.stores import (
    IN_PROCESS,
    ChangedCopies,
    FullDisk,
    LostStore,
    OtherMachine,
)

DRILLS: Mapping[str, Drill] = {
    "failover": Drill(in_federation(LOST_HOST, LostHost)),
    "pause": Drill(in_federation(STOPPED_HOST, StoppedHost)),
    "partition": Drill(
        partition.rehearse, partial(missing, ["ip", "nft", "etcd"], root=True)
    ),
    "disk-full": Drill(
        in_federation(IN_PROCESS, FullDisk),
        partial(missing, ["mount", "umount"], root=True),
    ),
    "corrupt": Drill(in_federation(IN_PROCESS, ChangedCopies)),
    "store-loss": Drill(in_federation(IN_PROCESS, LostStore)),
    "clock": Drill(clocks.rehearse, missing_faketime),
    "restore": Drill(in_federation(IN_PROCESS, OtherMachine)),
}
