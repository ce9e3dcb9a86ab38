"""What a node daemon holds while it answers: the peak of each phase of a request.

    python experiments/benchmarks/node_memory.py [--params 10000000] [--json]

One site's half of a round runs behind the relay's socket in a process of its own, as in
`fedsecure node`; aggregator and second site are in this one. A peak is VmHWM, reset at
the begin of the phase (`/proc/self/clear_refs`), less what was resident then:

- `admit`: from the request, which is in memory, to the begin of the training; opens the
  last release, so it holds models of 8 bytes a parameter.
- `protect`: from the update, which is in memory, to the answer; 32 MiB is the bound.
- `send`: from the answer to its last byte at the socket.
- `repeat`: the same request once more, answered from the outbox; what the request says
  is read again, so compare it with `admit`.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from experiments.benchmarks.round_overhead import Meter, Rig, StandIn  # noqa: E402

BOUND_MIB = 32.0
LIMIT = 1 << 30
MIB = 1 << 20


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(x.split()[1]) << 10 for x in lines if x.startswith(field))


class Peaks:
    """Peaks of named phases, one after the other."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self._name, self._before = "", 0

    def begin(self, name: str) -> None:
        """End the phase before and begin another."""
        if self._name:
            peak = (resident("VmHWM") - self._before) / MIB
            self.found[self._name] = max(self.found.get(self._name, 0.0), peak)
        # Memory that was freed but not given back would hide what is taken now.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._name, self._before = name, resident("VmRSS")


class Watched:
    """A stand-in for training that tells when it begins and ends."""

    def __init__(self, inner: StandIn, peaks: Peaks) -> None:
        self.initial, self.rows = inner.initial, inner.rows
        self._inner, self._peaks = inner, peaks

    def run(self, task: Any) -> Any:
        self._peaks.begin("training")
        result = self._inner.run(task)
        self._peaks.begin("protect" if task.train else "")
        return result


def node(rig: Rig, name: str, params: int, folder: Path, control: Connection) -> None:
    """Answer requests until told to stop; tell the peaks when asked."""
    from fedsecure.assembly.node import build_round  # noqa: PLC0415 - the child's own
    from fedsecure.privacy.budget import Content  # noqa: PLC0415
    from fedsecure.relay import RelayServer  # noqa: PLC0415

    peaks = Peaks()
    half = build_round(
        rig.kit(name),
        Content(rig.dataset, "0" * 32, 100),
        rig.store(folder / "shelf"),
        folder,
    )
    trainer = Watched(StandIn(params, 1, Meter()), peaks)
    asked = 0

    def answer(data: bytes) -> Any:
        nonlocal asked
        asked += 1
        peaks.begin("repeat" if asked == 3 else "admit")
        found = half.answer(data, trainer)
        peaks.begin("send")
        return found

    server = RelayServer(folder / "r.sock", answer, LIMIT, frozenset({os.getuid()}))
    server.start()
    control.send("ready")
    while control.recv() == "sent":
        peaks.begin("")
        control.send(peaks.found)
        peaks.found = {}
    server.close()
    half.close()


def measured(params: int) -> list[Mapping[str, float]]:
    """Return the peaks of a run's requests to one site, in the order they came."""
    from fedsecure.assembly.node import build_round  # noqa: PLC0415 - after the fork
    from fedsecure.flower.link import InMemoryFederation, Node  # noqa: PLC0415
    from fedsecure.flower.mod import client_app, relayed  # noqa: PLC0415
    from fedsecure.flower.strategy import server_app  # noqa: PLC0415
    from fedsecure.privacy.budget import Content  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="node-") as scratch:
        rig = Rig.make(Path(scratch), 2, 2)
        first, second = rig.plan["sites"]
        state = Path(scratch) / "n"
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("spawn").Process(
            target=node, args=(rig, second, params, state, theirs)
        )
        child.start()
        ours.recv()
        found: list[Mapping[str, float]] = []

        def ask(data: bytes) -> Any:
            answer = relayed({"relay": str(state / "r.sock")}, data)
            ours.send("sent")
            found.append(ours.recv())
            return answer

        def through_the_socket(_: object, data: bytes) -> Any:
            answer = ask(data)
            if len(found) == 2:
                again = ask(data)
                same = bytes_of(answer) == bytes_of(again)
                if not same:
                    raise SystemExit("a repeat has other bytes")
            return answer

        folder = Path(scratch) / "sites" / first
        half = build_round(
            rig.kit(first),
            Content(rig.dataset, "0" * 32, 100),
            rig.store(folder / "shelf"),
            folder,
        )
        trainer = StandIn(params, 0, Meter())
        apps = {
            first: client_app(lambda _, data: half.answer(data, trainer)),
            second: client_app(through_the_socket),
        }
        nodes = [Node(n, n.encode(), app, {}) for n, app in apps.items()]
        strategy = rig.strategy({n.encode(): n for n in apps}, lambda _: None)
        InMemoryFederation(nodes).run(server_app(lambda _: strategy))
        ours.send("stop")
        child.join()
        half.close()
    return found


def bytes_of(answer: Any) -> bytes:
    """Return an answer's bytes, also of versions that had nothing else."""
    return answer if isinstance(answer, bytes) else answer.to_bytes()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=int, default=10_000_000)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    found = measured(chosen.params)
    names = ("first letter", "letter with a release", "the same again", "last letter")
    table = dict(zip(names, found, strict=False))
    if chosen.json:
        print(json.dumps({"params": chosen.params, "mib": table}))
        return
    print(f"{chosen.params} parameters; MiB above what was there when the phase began")
    for name, peaks in table.items():
        told = ", ".join(f"{k} {v:.1f}" for k, v in peaks.items() if k)
        print(f"  {name}: {told}")
    worst = max(p.get("protect", 0.0) for p in found)
    verdict = "kept" if worst <= BOUND_MIB else "missed"
    print(f"bound of {BOUND_MIB:.0f} MiB on protect: {verdict} ({worst:.1f})")


if __name__ == "__main__":
    main()
