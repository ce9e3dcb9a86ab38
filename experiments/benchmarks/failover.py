"""How long nobody leads: from a fault to a new leader, and to a round that goes on.

    python experiments/benchmarks/failover.py [--json] [--plot FILE] [--kept FILE]
        [--members embedded,etcd,postgresql] [--repeats 20]
        [--flower embedded,etcd,postgresql] [--faults "host lost,pause"] [--strikes 4]
        [--seconds 600] [--process 20]

Members (`--members`) are processes of their own that hold the lease by the product's
own campaign (`fedsecure.drills.member`), with nobody else around. `--flower` runs a
whole federation of real Flower processes, two or three aggregators and two sites, whose
leader is struck again and again in mid-round; `--process` does it without Flower's
processes. etcd (three members) and PostgreSQL are started on loopback. The lease is 3 s
everywhere.

Host lost: SIGKILL of all processes of the leader, its supervisor stopped before. Pause:
SIGSTOP of all of them. Partition: no packet to the engine. Crash: SIGKILL of the one
process that holds the lease, under its supervisor. All times are of the clock since
boot, which every process reads; `load` is the machine's load average, the highest of a
row's pieces: on a busy machine the figures are the scheduler's too. `--kept` gathers
pieces in a file: run it again for more samples, or with nothing to do for the table.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.outages import federation, inprocess, members
from experiments.benchmarks.outages.engines import ENGINES
from experiments.benchmarks.outages.samples import Kept, figures, plot, table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--members", default="")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--flower", default="")
    parser.add_argument("--faults", default=",".join(federation.FAULTS))
    parser.add_argument("--strikes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--process", type=int, default=0)
    asked = parser.parse_args()
    kept = Kept(asked.kept)
    for plug in filter(None, asked.members.split(",")):
        with ENGINES[plug]() as engine:
            members.measure(engine, asked.repeats, kept)
    if asked.process:
        inprocess.measure(asked.process, kept)
    for plug in filter(None, asked.flower.split(",")):
        with ENGINES[plug]() as engine:
            for fault in asked.faults.split(","):
                federation.measure(engine, fault, asked.strikes, kept, asked.seconds)
    found = figures(kept.rows)
    if asked.plot:
        plot(found, asked.plot)
    print(json.dumps(found, indent=1) if asked.json else table(found))


if __name__ == "__main__":
    main()
