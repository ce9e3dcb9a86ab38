"""What a durable ledger line costs beside a bare append of the same bytes.

    python experiments/benchmarks/ledger.py [--lines 400] [--folder DIR] [--json]

Three loops take turns, line by line, on one disk: a raw `write` and `fsync` of as many
bytes, `Ledger.append` (encode, hash, sign, write, fsync), and a whole
reservation (guard by `rdp` over all spending so far, then the append). Medians, and
their ratio to the raw append: the disk's own speed cancels. The goal of PRIVACY.md
section 19 is 5 ms for the median append.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from fedsecure import registry  # noqa: E402
from fedsecure.accounting import PrivacyEvent, Relation  # noqa: E402
from fedsecure.clock import SystemClock  # noqa: E402
from fedsecure.disk import SystemDisk  # noqa: E402
from fedsecure.keys import SigningKey  # noqa: E402
from fedsecure.ledger import Ledger  # noqa: E402
from fedsecure.privacy.budget import Budget, Ceiling, Content  # noqa: E402
from fedsecure.update import RoundId  # noqa: E402

BOUND_MS = 5.0
EVENT = PrivacyEvent("poisson_gaussian", 100.0, 0.01, 1)
DETAIL = {
    "plan": "0" * 64,
    "event": {
        "type": "poisson_gaussian",
        "noise_multiplier": 100.0,
        "sample_rate": 0.01,
        "steps": 1,
        "relation": "add_or_remove_one",
        "unit": "example",
    },
    "epsilon_after": {"guard": 0.1, "delta": 1e-5},
}


def timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return (time.perf_counter() - start) * 1e3


def raw(path: Path, size: int) -> Callable[[], None]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    line = b"x" * (size - 1) + b"\n"

    def append() -> None:
        os.write(handle, line)
        os.fsync(handle)

    return append


def measure(folder: Path, lines: int) -> dict[str, float]:
    key = SigningKey.generate()
    ledgers = [
        Ledger.open(folder / name / "ledger.jsonl", name, key, SystemDisk(), clock)
        for name, clock in (("plain", SystemClock()), ("budget", SystemClock()))
    ]
    ceiling = Ceiling(1e3, 1e-5, Relation.ADD_OR_REMOVE_ONE, bytes(32))
    guard = registry.load("accounting", "rdp").create
    content = Content("ward", "fingerprint", 1_000)
    budget = Budget.open(ledgers[1], content, ceiling, [guard])
    plain = folder / "plain" / "ledger.jsonl"
    before = plain.stat().st_size
    ledgers[0].append("budget.reserve", "ward", run="run", round=1, detail=DETAIL)
    size = plain.stat().st_size - before
    bare = raw(folder / "raw", size)
    found: dict[str, list[float]] = {"raw": [], "append": [], "reserve": []}
    for number in range(1, lines + 1):
        found["raw"].append(timed(bare))
        found["append"].append(
            timed(
                lambda n=number: ledgers[0].append(
                    "budget.reserve", "ward", run="run", round=n, detail=DETAIL
                )
            )
        )
        round_id = RoundId("run", number)
        found["reserve"].append(
            timed(lambda r=round_id: budget.reserve(r, b"p" * 32, EVENT))
        )
    medians = {name: statistics.median(times) for name, times in found.items()}
    return {
        "lines": lines,
        "line_bytes": size,
        "raw_ms": medians["raw"],
        "append_ms": medians["append"],
        "append_p99_ms": statistics.quantiles(found["append"], n=100)[98],
        "reserve_ms": medians["reserve"],
        "append_over_raw": medians["append"] / medians["raw"],
        "reserve_over_raw": medians["reserve"] / medians["raw"],
        "bound_ms": BOUND_MS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = measure(Path(folder), given.lines)
    if given.json:
        print(json.dumps(found))
        return
    print(
        f"append {found['append_over_raw']:.2f} x, reserve "
        f"{found['reserve_over_raw']:.2f} x a raw fsynced append of "
        f"{found['line_bytes']:.0f} bytes (medians of {found['lines']:.0f}; append "
        f"{found['append_ms']:.2f} ms, bound {BOUND_MS:.0f} ms: "
        f"{'kept' if found['append_ms'] <= BOUND_MS else 'NOT KEPT'})"
    )


if __name__ == "__main__":
    main()
