"""What a replicated, sealed, signed checkpoint costs beside the bare disk.

    python experiments/benchmarks/checkpoint.py --dir DIR [--size-mib 1024]
        [--repeats 5] [--json] [--plot FILE]

Replicate: `Vault.release` of one signed release to three local stores, W = 3, against a
raw writer of as many bytes to three files at once (write, fdatasync), as
`disk_limit.py` writes them; and against the same writer when it tells the kernel, piece
by piece, that nothing will be read soon, as our local store does. Restore:
`Vault.verify_release` (read, name, unseal, SHA-256 of the body, signature, all digests)
against a raw read plus SHA-256, and `Vault.read_release` (name and tags) against a raw
read plus BLAKE3; both read what was read once before. All take turns, so that what else
a machine does hits each of them; the ratio of each turn, its median and its range
count, absolute figures do not. Round: what three updates of 100 MB cost an aggregator
to keep, the release, and to drop, of a round of 60 s. MB is 10^6 bytes.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from fedsecure import registry
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.vault import Vault
from fedsecure.clock import SystemClock
from fedsecure.envelope import Kind, Scope, sign_head
from fedsecure.keys import BoxKey, SigningKey
from fedsecure.metadata import Head
from fedsecure.outgoing import Outgoing
from fedsecure.release import Release, release_of, root
from fedsecure.update import RoundId

SCHEMA = "fedsecure.bench.checkpoint/3"
MIB, MB = 1 << 20, 10**6
PIECE = 8 * MIB
STORES = 3
WRITE_TARGET, RESTORE_TARGET = 0.90, 1.5
ROUND_BYTES, ROUND_SECONDS, ROUND_TARGET = 100 * MB, 60.0, 0.03
PARTICIPANTS = {f"site-{n}": bytes([n]) * 32 for n in range(1, 4)}


@dataclass
class Turns:
    """Seconds of wall and of CPU of each step, turn by turn."""

    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    def time(self, name: str, step: Callable[[], Any]) -> Any:
        """Take a step's times."""
        before, start = time.process_time(), time.perf_counter()
        result = step()
        self.wall.setdefault(name, []).append(time.perf_counter() - start)
        self.cpu.setdefault(name, []).append(time.process_time() - before)
        return result

    def ratio(self, above: str, below: str) -> dict[str, Any]:
        """Return the ratio of two steps: its median, least and largest of all turns."""
        each = [a / b for a, b in zip(self.wall[above], self.wall[below], strict=True)]
        return {
            "median": statistics.median(each),
            "least": min(each),
            "most": max(each),
        }


def raw_write(folder: Path, data: bytes, *, given_back: bool = False) -> None:
    """Write the same bytes into three files at once, durable on return.

    `given_back`: tell the kernel of each piece that it will not be read soon, as the
    local store does (POSIX_FADV_DONTNEED): it is written out at once.
    """
    failed: list[OSError] = []

    def write(path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                view, start = memoryview(data), 0
                while view:
                    count = os.write(descriptor, view[:PIECE])
                    if given_back:
                        advice = os.POSIX_FADV_DONTNEED
                        os.posix_fadvise(descriptor, start, count, advice)
                    view, start = view[count:], start + count
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            failed.append(error)

    names = [folder / f"raw-{i}" for i in range(STORES)]
    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def make_vault(folder: Path) -> tuple[Vault, SigningKey]:
    """Return a vault over three local stores that must all hold an object."""
    local = registry.load("stores", "local")
    paths = [str(folder / f"store-{i}") for i in range(STORES)]
    stores = [(path, local.create({"path": path})) for path in paths]
    signing, box = SigningKey.generate(), BoxKey.generate()
    vault = Vault(
        Replicas(stores, STORES),
        "agg-1",
        signing,
        box,
        {"agg-1": box.public},
        {"agg-1": signing.public},
        SystemClock(),
        max_bytes=1 << 33,
    )
    return vault, signing


def make_release(body: bytes, number: int, key: SigningKey) -> tuple[Outgoing, Release]:
    """Return a signed release of that many bytes, as a leader hands it over."""
    release = release_of(RoundId("bench", number), number - 1, PARTICIPANTS, body)
    scope = Scope(release.round, "*", b"k" * 32, b"l" * 32, b"p" * 32)
    header = {**release.header(), "term": 1}
    about = len(body), release.sum_digest.hex()
    head = sign_head(Kind.RELEASE, scope, header, about, signer="agg-1", key=key)
    return Outgoing.of(head.to_bytes(), body), release


def measured(folder: Path, size: int, repeats: int) -> Turns:
    """Return the times of each turn; the first one is thrown away."""
    vault, key = make_vault(folder)
    body, turns, head = os.urandom(size), Turns(), None
    for number in range(1, repeats + 2):
        turns = turns if number > 2 else Turns()
        head = _turn(folder, turns, (vault, key), body, number, head)
    return turns


def _turn(
    folder: Path,
    turns: Turns,
    made: tuple[Vault, SigningKey],
    body: bytes,
    number: int,
    before: Head | None,
) -> Head:
    vault, key = made
    for name, given_back in (("raw write", False), ("raw write, given back", True)):
        turns.time(name, lambda g=given_back: raw_write(folder, body, given_back=g))  # type: ignore[misc]
        for place in range(STORES):
            (folder / f"raw-{place}").unlink()
    data, release = turns.time("release", lambda: make_release(body, number, key))
    closed = root(PARTICIPANTS.items())
    head: Head = turns.time(
        "replicate", lambda: vault.release(data, release, closed, 1, before)
    )
    stored = folder / "store-0" / vault.manifest(head).object
    stored.read_bytes()
    turns.time("raw read and sha256", lambda: hashlib.sha256(stored.read_bytes()))
    turns.time("verify", lambda: vault.verify_release(head))
    turns.time("raw read and blake3", lambda: blake3(stored.read_bytes()).digest())
    turns.time("read", lambda: vault.read_release(head))
    for place in range(STORES):  # the disk need hold one release only
        shutil.rmtree(folder / f"store-{place}" / "obj")
    return head


def round_cost(folder: Path, repeats: int) -> Turns:
    """Return what an aggregator's checkpoint costs of a round of 100 MB."""
    vault, key = make_vault(folder)
    body, turns, head = os.urandom(ROUND_BYTES), Turns(), None
    closed = root(PARTICIPANTS.items())

    def whole(number: int, before: Head | None) -> Head:
        round_key, _ = vault.new_key(RoundId("bench", number))
        for site in PARTICIPANTS:
            vault.keep(f"update/{number}-{site}", body, round_key)
        data, release = make_release(body, number, key)
        made = vault.release(data, release, closed, 1, before)
        for site in PARTICIPANTS:
            vault.drop(f"update/{number}-{site}")
        return made

    for number in range(1, repeats + 1):
        head = turns.time("round", lambda n=number, h=head: whole(n, h))  # type: ignore[misc]
    return turns


def summed(turns: Turns, rounds: Turns) -> dict[str, Any]:
    """Return ratios, and whether the targets are met."""
    share = turns.ratio("raw write", "replicate")
    best = turns.ratio("raw write, given back", "replicate")
    verify = turns.ratio("verify", "raw read and sha256")
    read = turns.ratio("read", "raw read and blake3")
    cost = {
        "wall": statistics.median(rounds.wall["round"]) / ROUND_SECONDS,
        "cpu": statistics.median(rounds.cpu["round"]) / ROUND_SECONDS,
        "most_wall": max(rounds.wall["round"]) / ROUND_SECONDS,
    }
    cpu = {name: statistics.median(each) for name, each in turns.cpu.items()}
    return {
        "replicate_share_of_raw": share,
        "replicate_share_of_raw_given_back": best,
        "write_target_met": share["median"] >= WRITE_TARGET,
        "verify_times_raw_read_and_sha256": verify,
        "read_times_raw_read_and_blake3": read,
        "restore_target_met": verify["median"] <= RESTORE_TARGET,
        "share_of_a_60_s_round": cost,
        "round_target_met": max(cost["wall"], cost["cpu"]) <= ROUND_TARGET,
        "cpu_seconds": cpu,
        "wall_seconds": turns.wall,
    }


def table(report: dict[str, Any]) -> str:
    """Return the report as aligned text."""
    result, lines = report["result"], []
    lines.append(
        f"{report['size_mib']} MiB, {STORES} stores, {report['repeats']} turns"
    )
    for name in (
        "replicate_share_of_raw",
        "replicate_share_of_raw_given_back",
        "verify_times_raw_read_and_sha256",
        "read_times_raw_read_and_blake3",
    ):
        found = result[name]
        spread = f"{found['least']:.2f} to {found['most']:.2f}"
        lines.append(f"{name:<36} {found['median']:>6.2f}  ({spread})")
    cost = result["share_of_a_60_s_round"]
    lines.append(
        f"{'share_of_a_60_s_round':<36} wall {cost['wall']:.2%}, cpu {cost['cpu']:.2%}"
        f", most {cost['most_wall']:.2%}"
    )
    for name, value in result["cpu_seconds"].items():
        lines.append(f"  cpu s {name:<29} {value:>6.2f}")
    lines += [f"{n:<36} {result[n]}" for n in result if n.endswith("_met")]
    return "\n".join(lines)


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw the seconds of every turn."""
    import matplotlib  # noqa: ICN001, PLC0415 - not where nothing is drawn

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    wall = report["result"]["wall_seconds"]
    figure, axes = plt.subplots(figsize=(8, 4))
    for place, (name, each) in enumerate(wall.items()):
        axes.plot(each, [place] * len(each), "o", label=name)
    axes.set_yticks(range(len(wall)), list(wall))
    axes.set_xlabel(f"seconds of {report['size_mib']} MiB")
    axes.set_xlim(left=0)
    figure.tight_layout()
    figure.savefig(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; exit 0 whether or not a target is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, default=Path(), help="where to write")
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args(argv)
    if args.size_mib < 1 or args.repeats < 1 or not args.dir.is_dir():
        parser.error("--size-mib and --repeats must be 1 or more, --dir a folder")
    size, need = args.size_mib * MIB, (args.size_mib * MIB + ROUND_BYTES) * 2 * STORES
    free = shutil.disk_usage(args.dir).free
    if free < need:
        parser.error(f"--dir has {free // MB} MB free, {need // MB} MB are needed")
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="checkpoint-") as work:
        turns = measured(Path(work).absolute(), size, args.repeats)
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="checkpoint-") as work:
        rounds = round_cost(Path(work).absolute(), args.repeats)
    report = {
        "schema": SCHEMA,
        "machine": {
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "load_1min": round(os.getloadavg()[0], 2),
        },
        "size_mib": args.size_mib,
        "repeats": args.repeats,
        "result": summed(turns, rounds),
    }
    print(table(report), file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(report, indent=2))
    if args.plot:
        plot(report, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
