"""What hiding an update costs: the peers' routes and ours, in one run.

    python experiments/benchmarks/encryption.py [--json] [--plot FILE.png]
        [--params 1e5 1e6 1e7] [--sites 3 10 16] [--routes NAME ...] [--full]

Encrypt is quantise, pack, encrypt and serialise; aggregate is parse, check, add and
serialise, all sites together; decrypt is parse, open and dequantise. CPU seconds, all
threads; each route has a fresh process. Compare ratios within one run.

By default 1e7 parameters are measured at 3 sites only; `--full` measures every size at
every number of sites (hours for the peers are minutes for us).
"""

# ruff: noqa: PLC0415 - only a run with --plot needs matplotlib

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEERS = ("naive-ckks", "nvflare-default", "flower-secaggplus")
OWN = (
    *("bfv-20-seeds", "bfv-12-seeds", "bfv-8-seeds"),
    *("bfv-20-sum", "bfv-12-sum", "bfv-8-sum"),
    *("bfv-20-feedback", "bfv-20-masked"),
    *("ckks", "insecure_plain"),
)
PHASES = ("encrypt", "aggregate", "decrypt")
FP32_BYTES = 4
JUDGED_FROM = 1_000_000
"""Parameters: below, the last, partial block weighs too much to judge."""
ROOT = Path(__file__).parents[2]
MODULE = "experiments.benchmarks.encryption_routes.phases"

Row = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A ratio of two figures of one run, and its bound by profile."""

    what: str
    form: str
    bounds: dict[str, float]
    ratio: Callable[[Row, "Rows"], float | None]
    most: bool = False
    sites: int = 0

    def met(self, value: float, profile: str) -> bool:
        bound = self.bounds[profile]
        return value <= bound if self.most else value >= bound


class Rows:
    """The measured routes, by name, size and number of sites."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.all = [row for row in rows if "encrypt_cpu_s" in row]
        self._by = {(r["name"], r["params"], r["sites"]): r for r in self.all}

    def get(self, name: str, params: int, sites: int) -> Row | None:
        return self._by.get((name, params, sites))


def _against(peer: str, phase: str) -> Callable[[Row, Rows], float | None]:
    def ratio(row: Row, rows: Rows) -> float | None:
        theirs = rows.get(peer, row["params"], row["sites"])
        key = f"{phase}_cpu_s"
        return theirs[key] / row[key] if theirs else None

    return ratio


def _fp32(way: str) -> Callable[[Row, Rows], float | None]:
    return lambda row, _: float(row[f"{way}_bytes_per_parameter"]) / FP32_BYTES


def _over_unmasked(row: Row, rows: Rows) -> float | None:
    plain = rows.get(
        row["name"].replace("masked", "seeds"), row["params"], row["sites"]
    )
    return float(row["encrypt_cpu_s"] / plain["encrypt_cpu_s"]) if plain else None


def _scaling(row: Row, rows: Rows) -> float | None:
    """Encrypt time a parameter at ten times the size, over that of this one."""
    larger = rows.get(row["name"], 10 * row["params"], row["sites"])
    if larger is None:
        return None
    return float(larger["encrypt_cpu_s"] / row["encrypt_cpu_s"] / 10)


TARGETS = (
    Target(
        "encrypt, times naive",
        "seeds",
        {"20": 16, "12": 25},
        _against("naive-ckks", "encrypt"),
    ),
    Target(
        "encrypt, times NVFlare",
        "seeds",
        {"20": 6, "12": 10},
        _against("nvflare-default", "encrypt"),
    ),
    Target(
        "server sum, times naive",
        "seeds",
        {"20": 40, "12": 60},
        _against("naive-ckks", "aggregate"),
    ),
    Target(
        "decrypt of a sum, times naive",
        "sum",
        {"20": 7, "12": 10},
        _against("naive-ckks", "decrypt"),
    ),
    Target(
        "decrypt of seeds, times naive",
        "seeds",
        {"20": 3, "12": 4.5},
        _against("naive-ckks", "decrypt"),
        sites=3,
    ),
    Target(
        "uplink, times fp32",
        "seeds",
        {"20": 0.96, "12": 0.64},
        _fp32("uplink"),
        most=True,
    ),
    Target(
        "downlink, times fp32",
        "seeds",
        {"20": 0.98, "12": 0.66},
        _fp32("downlink"),
        most=True,
    ),
    Target(
        "encrypt a parameter, 1e7 to 1e6",
        "seeds",
        {"20": 1.15, "12": 1.15},
        _scaling,
        most=True,
    ),
    Target(
        "encrypt, masked to unmasked",
        "masked",
        {"20": 1.2},
        _over_unmasked,
        most=True,
        sites=16,
    ),
)


def judged(rows: Rows) -> Iterator[Row]:
    """Each target at each size and number of sites that it can be judged at."""
    for target in TARGETS:
        for row in rows.all:
            scheme, profile, form = [*row["name"].split("-"), "", ""][:3]
            if (scheme, form) != ("bfv", target.form) or profile not in target.bounds:
                continue
            if row["params"] < JUDGED_FROM or target.sites not in {0, row["sites"]}:
                continue
            value = target.ratio(row, rows)
            if value is None:
                continue
            yield {
                "target": target.what,
                "profile": profile,
                "params": row["params"],
                "sites": row["sites"],
                "ratio": value,
                "bound": ("<= " if target.most else ">= ")
                + f"{target.bounds[profile]:g}",
                "reached": target.met(value, profile),
            }


def fresh(name: str, params: int, sites: int) -> Row:
    """Measure a route in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", MODULE, name, str(params), str(sites)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise SystemExit(f"{name} at {params} parameters, {sites} sites: {reason}")
    row: Row = json.loads(done.stdout.splitlines()[-1])
    if "skipped" in row:
        return row | {"params": params, "sites": sites}
    for phase in PHASES:
        work = params * (sites if phase == "aggregate" else 1)
        spent = max(row[f"{phase}_cpu_s"], 1e-9)
        row[f"{phase}_mparams_per_core_s"] = work / spent / 1e6
    for way in ("uplink", "downlink"):
        row[f"{way}_times_fp32"] = row[f"{way}_bytes_per_parameter"] / FP32_BYTES
    return row


def cases(
    sizes: Sequence[int], cohorts: Sequence[int], *, full: bool
) -> list[tuple[int, int]]:
    heavy = 10 * JUDGED_FROM
    return [
        (params, sites)
        for params in sizes
        for sites in cohorts
        if full or params < heavy or sites == min(cohorts)
    ]


HEAD = (
    "route              encrypt s (Mp/s)   aggregate s (Mp/s)  decrypt s (Mp/s)"
    "   up B/p x fp32   down B/p x fp32   +MiB  error"
)


def line(row: Row) -> str:
    if "skipped" in row:
        return f"{row['name']:<18} skipped: {row['skipped']}"
    times = "  ".join(
        f"{row[f'{p}_cpu_s']:>9.4f} ({row[f'{p}_mparams_per_core_s']:>6.1f})"
        for p in PHASES
    )
    ways = "  ".join(
        f"{row[f'{w}_bytes_per_parameter']:>8.3f} {row[f'{w}_times_fp32']:>6.3f}"
        for w in ("uplink", "downlink")
    )
    peak, error = row["peak_rss_mb"], row["max_error_steps"]
    return f"{row['name']:<18}{times}  {ways}  {peak:>6.1f}  {error:.2g}"


def verdicts(found: Sequence[Row]) -> Iterator[str]:
    for each in found:
        word = "reached" if each["reached"] else "MISSED"
        yield (
            f"{each['target']:<34} {each['profile']:>3} bit {each['params']:>10,}"
            f" {each['sites']:>3} sites {each['ratio']:>8.3f}"
            f"  {each['bound']:<8} {word}"
        )


def plot(rows: Rows, path: Path) -> None:
    """Bars of one case, the largest with the fewest sites that has a peer."""
    from matplotlib.figure import Figure

    peered = [r for r in rows.all if r["name"] in PEERS] or rows.all
    case = max(((r["params"], -r["sites"]) for r in peered), default=(0, 0))
    shown = [r for r in rows.all if (r["params"], -r["sites"]) == case][::-1]
    figure = Figure(figsize=(11, 0.45 * len(shown) + 1.8), layout="constrained")
    speed, size = figure.subplots(1, 2, sharey=True)
    places = range(len(shown))
    for i, phase in enumerate(PHASES):
        values = [r[f"{phase}_mparams_per_core_s"] for r in shown]
        speed.barh([y + 0.27 * (1 - i) for y in places], values, 0.25, label=phase)
    for i, way in enumerate(("uplink", "downlink")):
        values = [r[f"{way}_times_fp32"] for r in shown]
        size.barh([y + 0.2 * (0.5 - i) * 2 for y in places], values, 0.36, label=way)
    size.axvline(1, color="0.3", linewidth=1, linestyle="--")
    speed.set_yticks(list(places), [r["name"] for r in shown])
    speed.set(xscale="log", title="Million parameters a CPU second")
    size.set(xscale="log", title="Bytes on the wire, times a plain float32 update")
    for axes in (speed, size):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{case[0]:,} parameters, {-case[1]} sites", x=0.01, ha="left")
    figure.savefig(path, dpi=120)


def _count(text: str) -> int:
    value = float(text)
    if value < 1 or value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 1")
    return int(value)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--params", type=_count, nargs="+", default=[100_000, 1_000_000, 10_000_000]
    )
    parser.add_argument("--sites", type=_count, nargs="+", default=[3, 10, 16])
    names = [*PEERS, *OWN]
    parser.add_argument("--routes", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--full", action="store_true", help="every size at every number"
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of the table")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    arguments = parser.parse_args(argv)
    if not all(2 <= sites <= 16 for sites in arguments.sites):
        parser.error(f"--sites={arguments.sites}, each must be from 2 to 16")
    return arguments


def main() -> None:
    arguments = parse()
    say: Callable[[str], None] = (lambda _: None) if arguments.json else print
    began, rows = time.monotonic(), []
    for params, sites in cases(arguments.params, arguments.sites, full=arguments.full):
        say(f"\n{params:,} parameters, {sites} sites\n{HEAD}")
        for name in arguments.routes:
            rows.append(fresh(name, params, sites))
            say(line(rows[-1]))
    measured = Rows(rows)
    found = list(judged(measured))
    say("\n" + "\n".join(verdicts(found)))
    say(f"\n{time.monotonic() - began:.0f} s of wall-clock")
    if arguments.json:
        skipped = [row for row in rows if "skipped" in row]
        document = {"routes": measured.all, "targets": found, "skipped": skipped}
        print(json.dumps(document, indent=1))
    if arguments.plot:
        plot(measured, arguments.plot)


if __name__ == "__main__":
    main()
