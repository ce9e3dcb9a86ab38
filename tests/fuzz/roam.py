"""Roam over the targets for a while: `python -m tests.fuzz.roam`.

Each batch has a seed of its own, which is printed with what was found; the bytes that
failed are saved and can be tried again. Under a limit of memory a decoder that believes
a count dies of it here rather than on somebody's server.
"""

import argparse
import contextlib
import hashlib
import logging
import resource
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.database import InMemoryExampleDatabase

from fedsecure.errors import FedsecureError
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

BATCH = 40
"""Examples a seed; the time is looked at between batches."""
CPU_SECONDS = 5.0
"""What one example may take: thousands of times what it does."""
MEMORY_BYTES = 1 << 30
"""Address space a decoder may take beyond what the process has."""
SAVED = Path("runs") / "fuzz"


@dataclass
class Found:
    """What a target was seen to do."""

    seeds: list[int] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def attempt(target: Target, data: bytes) -> str:
    """Return how a target ends on these bytes; raises what it may never raise."""
    began, outcome, sentence = time.process_time(), "read", ""
    try:
        target.probe(data)
    except FedsecureError as refused:
        outcome, sentence = type(refused).__name__, str(refused)
    if outcome != "read":
        assert outcome != FedsecureError.__name__, "an error without a name"
        assert sentence, "a refusal without a sentence"
    took = time.process_time() - began
    assert took < CPU_SECONDS, f"{took:.1f} s for {len(data)} bytes"
    return outcome


def roam(target: Target, seconds: float, first_seed: int, batch: int = BATCH) -> Found:
    """Try batches until the time is over; at least one, and none after a failure."""
    found, ends = Found(), time.monotonic() + seconds
    while not found.failures and (not found.seeds or time.monotonic() < ends):
        found.seeds.append(first_seed + len(found.seeds))
        _batch(target, found, batch)
    return found


def _batch(target: Target, found: Found, examples: int) -> None:
    last = b""

    @seed(found.seeds[-1])
    @settings(
        max_examples=examples,
        deadline=None,
        database=InMemoryExampleDatabase(),
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def try_one(data: bytes) -> None:
        nonlocal last
        last = data
        found.outcomes[attempt(target, data)] += 1

    try:
        try_one()
    except Exception as bad:  # noqa: BLE001 - whatever it is, it is what was looked for
        kept = save(target.name, last)
        found.failures.append(f"seed {found.seeds[-1]}, {kept}: {bad!r}")


def save(name: str, data: bytes) -> Path:
    """Keep bytes that failed; `--replay` tries them again."""
    path = SAVED / name / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def limited_memory(more: int = MEMORY_BYTES) -> Iterator[None]:
    """Bound the process's address space to what it has and `more` bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    bound = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (bound, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _replay(path: Path) -> None:
    name = path.parent.name
    target = next(t for t in TARGETS if t.name == name)
    _say(f"{name}: {attempt(target, path.read_bytes())}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Roam over all targets, or those named; 1 if something was found."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--seconds", type=float, default=600.0)
    reader.add_argument("--seed", type=int, default=secrets.randbits(31))
    reader.add_argument("--only", nargs="*", default=[t.name for t in TARGETS])
    reader.add_argument("--replay", type=Path)
    options = reader.parse_args(arguments)
    if options.replay is not None:
        _replay(options.replay)
        return 0
    logging.disable(logging.WARNING)  # refusals are what is looked for
    chosen = [t for t in TARGETS if t.name in options.only]
    _say(f"{len(chosen)} targets, {options.seconds:.0f} s, --seed {options.seed}")
    failed = total = 0
    with limited_memory():
        for target in chosen:
            seconds = options.seconds * target.share / sum(t.share for t in chosen)
            found = roam(target, seconds, options.seed)
            count = found.outcomes.total()
            total, failed = total + count, failed + len(found.failures)
            seen = ", ".join(f"{k} {n}" for k, n in found.outcomes.most_common())
            seeds = f"{found.seeds[0]}..{found.seeds[-1]}"
            _say(f"{target.name:<14} {count:>7} examples, seeds {seeds}: {seen}")
            for failure in found.failures:
                _say(f"  FOUND {failure}")
    _say(f"{total} examples, {failed} targets failed; bytes are in {SAVED}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
