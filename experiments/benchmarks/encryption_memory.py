"""What encryption holds beside the update: the peak of each phase, in a fresh process.

    python experiments/benchmarks/encryption_memory.py [--params 1e7]
        [--form seeds|sum|feedback|masked] [--profile 20] [--sites 2] [--json]

A peak is VmHWM, reset at the begin of the phase (`/proc/self/clear_refs`), less what
was resident then and less what the phase is there to make: nothing for `encrypt`, whose
chunks go to a file as to the outbox; the running sum for `first`; the opened float64
vector for `open`. A message's body is resident before and is its receiver's. The bound
is 32 MiB (ENCRYPTION.md section 10).
"""

import argparse
import json
import multiprocessing
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 - the root is on the path from here on

from experiments.benchmarks.encryption_routes.own import MAX_SITES, Own  # noqa: E402
from fedsecure import ciphertext  # noqa: E402
from fedsecure.ciphertext import Wire  # noqa: E402
from fedsecure.running_sum import RunningSum  # noqa: E402

BOUND_MIB = 32.0
MIB = 1 << 20
KEY_ID = bytes(range(16))  # as `Own` has it
Found = dict[str, float]
T = TypeVar("T")


def resident(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"/proc/self/status has no {field}: this needs Linux")
    return int(found[1]) << 10


def extra(work: Callable[[], object], *, made: int = 0) -> float:
    """Return MiB at the peak of `work` above what was there and what it makes."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident("VmRSS")
    kept = work()
    peak = resident("VmHWM")
    del kept
    return round((peak - before - made) / MIB, 1)


def encrypt(
    own: Own, params: int, folder: Path, site: int
) -> tuple[Found, dict[int, bytes]]:
    update = np.random.default_rng(site).normal(0, 0.01, params)

    def work() -> None:
        with (folder / f"site-{site}").open("wb") as out:
            for chunk in own.encrypt(update, site):
                out.write(chunk)

    return {"encrypt": extra(work)}, own._seeds  # noqa: SLF001 - of masks, told to all


def aggregate(folder: Path, sites: int) -> Found:
    total = RunningSum(KEY_ID, max_summands=MAX_SITES)
    found: Found = {}

    def add(body: bytes) -> None:
        total.add(Wire(body, key_id=KEY_ID, max_summands=1))

    def write() -> None:
        with (folder / "total").open("wb") as out:
            for chunk in ciphertext.to_chunks(total.total()):
                out.write(chunk)

    for site in range(sites):
        body = (folder / f"site-{site}").read_bytes()
        shape = Wire(body, key_id=KEY_ID, max_summands=1).shape
        size = 8 * shape[0] * shape[1] * shape[2]
        made = 0 if site else size
        name = "add" if site else "first"
        value = extra(lambda body=body: add(body), made=made)
        found[name] = max(value, found.get(name, 0.0))
    return found | {"total": extra(write)}


def opening(own: Own, params: int, folder: Path) -> Found:
    body = (folder / "total").read_bytes()
    return {"open": extra(lambda: own.decrypt(body), made=8 * params)}


def alone(phase: Callable[..., T], *arguments: Any) -> T:
    """Return what a phase finds in a child of its own: a parent that never grew."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(phase(*arguments)))
    child.start()
    theirs.close()
    try:
        found: T = ours.recv()
    finally:
        child.join()
    return found


def measured(params: int, form: str, profile: str, sites: int) -> Found:
    own = Own(sites, "bfv", profile, params, form)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        rows: Found = {"encrypt": 0.0}
        for i in range(sites):
            found, seeds = alone(encrypt, own, params, folder, i)
            rows["encrypt"] = max(rows["encrypt"], found["encrypt"])
            own._seeds |= seeds  # noqa: SLF001
        rows |= alone(aggregate, folder, sites)
        return rows | alone(opening, own, params, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=float, default=1e7)
    parser.add_argument(
        "--form", choices=("seeds", "sum", "feedback", "masked"), default="seeds"
    )
    parser.add_argument("--profile", default="20")
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = measured(int(args.params), args.form, args.profile, args.sites)
    if args.json:
        facts = {"params": args.params, "form": args.form, "profile": args.profile}
        print(json.dumps({**facts, "mib": rows}))
        return
    print(f"{args.params:.0e} parameters, form {args.form}, profile {args.profile}")
    for name, value in rows.items():
        verdict = "within" if value <= BOUND_MIB else "ABOVE"
        print(f"  {name:8} {value:6.1f} MiB, {verdict} {BOUND_MIB:.0f}")


if __name__ == "__main__":
    main()
