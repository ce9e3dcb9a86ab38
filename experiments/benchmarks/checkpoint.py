"""What a replicated, sealed, signed checkpoint costs beside the bare disk.

    python experiments/benchmarks/checkpoint.py --dir DIR [--size-mib 256] [--json]

Replicate: `Vault.release` of one object to three local stores, W = 3, against a raw
writer of the same bytes to three files at once (write, fdatasync), in turns within the
same minute. Restore: `Vault.verify_release` (read, name, unseal, signature, digest)
against a raw read of the sealed object plus its SHA-256. Ratios within one run only;
other tenants of a disk change the absolute figures by factors. MB is 10^6 bytes.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedsecure import registry
from fedsecure.checkpoint import seal
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.vault import Vault
from fedsecure.clock import SystemClock
from fedsecure.envelope import Kind, Scope, sign
from fedsecure.keys import BoxKey, SigningKey
from fedsecure.metadata import Head
from fedsecure.release import Release, release_of, root
from fedsecure.update import RoundId

SCHEMA = "fedsecure.bench.checkpoint/1"
MIB, MB = 1 << 20, 10**6
PIECE = 8 * MIB
STORES = 3
WRITE_TARGET, RESTORE_TARGET = 0.90, 1.5
PARTICIPANTS = {"site-1": b"1" * 32}


def seconds(step: Callable[[], object]) -> float:
    """Return how long a step takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def raw_write(folder: Path, data: bytes, number: int) -> None:
    """Write the same bytes into three files at once, durable on return."""
    failed: list[OSError] = []

    def write(path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view[:PIECE]) :]
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            failed.append(error)

    names = [folder / f"raw-{number}-{i}" for i in range(STORES)]
    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        name.unlink(missing_ok=True)
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


def make_release(body: bytes, number: int, key: SigningKey) -> tuple[bytes, Release]:
    """Return a signed release of that many bytes, as a leader hands it over."""
    release = release_of(RoundId("bench", number), number - 1, PARTICIPANTS, body)
    scope = Scope(release.round, "*", b"k" * 32, b"l" * 32, b"p" * 32)
    header = {**release.header(), "term": 1}
    made = sign(Kind.RELEASE, scope, header, body, signer="agg-1", key=key)
    return made.to_bytes(), release


def measured(folder: Path, size: int, repeats: int) -> dict[str, Any]:
    """Return seconds of each turn; the first turn of each kind does not count."""
    vault, key = make_vault(folder)
    body = os.urandom(size)
    writes: list[tuple[float, float]] = []
    restores: list[tuple[float, float]] = []
    head: Head | None = None
    closed = root(PARTICIPANTS.items())
    for turn in range(repeats + 1):
        data, release = make_release(body, turn + 1, key)
        before = head

        def replicate() -> None:
            nonlocal head
            head = vault.release(data, release, closed, 1, before)  # noqa: B023

        raw = seconds(lambda: raw_write(folder, body, turn))  # noqa: B023
        ours = seconds(replicate)
        stored = folder / "store-0" / vault.manifest(_known(head)).object
        raw_read = seconds(lambda: hashlib.sha256(stored.read_bytes()))  # noqa: B023
        restore = seconds(lambda: vault.verify_release(_known(head)))
        if turn:
            writes.append((raw, ours))
            restores.append((raw_read, restore))
        for place in range(STORES):  # the disk need hold one release only
            (
                folder / f"store-{place}" / stored.relative_to(folder / "store-0")
            ).unlink()
    return {"writes": writes, "restores": restores, "parts": parts(body)}


def _known(head: Head | None) -> Head:
    if head is None:
        raise ValueError("nothing was released yet")
    return head


def parts(body: bytes) -> dict[str, float]:
    """Return CPU seconds per GB of what is done to a checkpoint's bytes."""
    box = BoxKey.generate()
    size = len(body) / 1e9
    names = {"agg-1": box.public}
    start = time.process_time()
    sealed = seal.seal(body, names, b"bench", os.urandom(39))
    sealed_at = time.process_time()
    stored = seal.to_bytes(sealed)
    joined_at = time.process_time()
    seal.object_name(stored)
    named_at = time.process_time()
    seal.unseal(seal.from_bytes(stored), "agg-1", box, b"bench")
    opened_at = time.process_time()
    hashlib.sha256(stored).digest()
    return {
        "seal": (sealed_at - start) / size,
        "join": (joined_at - sealed_at) / size,
        "blake3": (named_at - joined_at) / size,
        "unseal": (opened_at - named_at) / size,
        "sha256": (time.process_time() - opened_at) / size,
    }


def summed(found: dict[str, Any], size: int) -> dict[str, Any]:
    """Return medians, ratios and whether the targets are met."""
    raw, ours = (statistics.median(t) for t in zip(*found["writes"], strict=True))
    read, restore = (statistics.median(t) for t in zip(*found["restores"], strict=True))
    share = statistics.median(r / o for r, o in found["writes"])
    times = statistics.median(o / r for r, o in found["restores"])
    return {
        "raw_write_mb_per_s": STORES * size / MB / raw,
        "replicate_mb_per_s": STORES * size / MB / ours,
        "replicate_share_of_raw": share,
        "write_target": WRITE_TARGET,
        "write_target_met": share >= WRITE_TARGET,
        "raw_read_and_hash_mb_per_s": size / MB / read,
        "restore_mb_per_s": size / MB / restore,
        "restore_times_raw": times,
        "restore_target": RESTORE_TARGET,
        "restore_target_met": times <= RESTORE_TARGET,
        "cpu_seconds_per_gb": found["parts"],
    }


def table(report: dict[str, Any]) -> str:
    """Return the report as aligned text."""
    result = report["result"]
    lines = [
        f"{report['size_mib']} MiB, {STORES} stores, median of {report['repeats']}"
    ]
    for name, value in result.items():
        if isinstance(value, dict):
            lines += [f"  cpu s/GB {k:<23} {v:>10.2f}" for k, v in value.items()]
        else:
            shown = f"{value:,.2f}" if isinstance(value, float) else str(value)
            lines.append(f"{name:<34} {shown:>10}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; exit 0 whether or not a target is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, default=Path(), help="where to write")
    parser.add_argument("--size-mib", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.size_mib < 1 or args.repeats < 1 or not args.dir.is_dir():
        parser.error("--size-mib and --repeats must be 1 or more, --dir a folder")
    size = args.size_mib * MIB
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="checkpoint-") as work:
        found = measured(Path(work).absolute(), size, args.repeats)
    report = {
        "schema": SCHEMA,
        "machine": {
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "load_1min": round(os.getloadavg()[0], 2),
        },
        "size_mib": args.size_mib,
        "repeats": args.repeats,
        "result": summed(found, size),
    }
    print(table(report), file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
