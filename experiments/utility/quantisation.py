"""What quantising costs in accuracy: fp32 beside 20, 12 and 8 bits, paired by seed.

    python experiments/utility/quantisation.py [--json] [--plot FILE] [--seeds 5]
        [--models digits,mnist_size] [--images fashion|digits28] [--only TEXT]
        [--rows 6000] [--rounds 15]

Five sites train in this process with the product's own trainer, quantiser, residual,
weights and FedAvg arithmetic. Encryption is left out of the loop, for it is exact; one
round of each arm is sent through it all the same and must open to the same floats.
Seed s decides rows of train and test, first model, shuffling and rounding, so an arm is
compared with fp32 on the same everything. One thread.
"""

import argparse
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from quantised.arms import ARMS, WAYS, Arm
from quantised.federation import run_arm
from quantised.problems import FASHION, SITES, digits, mnist_size

mpl.use("Agg")
import matplotlib.pyplot as plt

ALLOWED = 0.2  # points
COLOURS = {"20": "#1b6ca8", "12": "#2f9e5b", "8": "#c9622b"}


def summarised(problem: str, results: dict[Arm, list[dict[str, float]]]) -> list[Any]:
    """Return a row for each arm: means over seeds, and points lost, paired."""
    whole = np.array([run["accuracy"] for run in results[Arm()]])
    rows = []
    for arm, runs in results.items():
        accuracy = np.array([run["accuracy"] for run in runs])
        lost = whole - accuracy
        error = lost.std(ddof=1) / math.sqrt(len(lost)) if len(lost) > 1 else 0.0
        rows.append(
            {
                "model": problem,
                "arm": arm.name,
                "profile": arm.profile or "fp32",
                "bits": arm.bits if arm.profile else 32,
                "rounding": arm.rounding if arm.profile else "",
                "error_feedback": arm.feedback,
                "range_from": arm.ranges if arm.profile else "",
                "way": arm.way if arm.profile else "",
                "accuracy": round(float(accuracy.mean()), 3),
                "points_lost": round(float(lost.mean()), 3),
                "standard_error": round(float(error), 3),
                "saturated_share": float(np.mean([r["saturated_share"] for r in runs])),
                "largest_update": float(np.max([r["largest_update"] for r in runs])),
            }
        )
    return rows


def supported(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return, for each way, the smallest profile that loses at most 0.2 everywhere."""
    tried = {row["way"] for row in rows}
    return {
        Arm("8", *way).way: _smallest(rows, Arm("8", *way))
        for way in WAYS
        if Arm("8", *way).way in tried
    }


def _smallest(rows: Sequence[dict[str, Any]], way: Arm) -> str:
    for bits in ("8", "12", "20"):
        name = replace(way, profile=bits).name
        lost = [row["points_lost"] for row in rows if row["arm"] == name]
        if lost and max(lost) <= ALLOWED:
            return bits
    return "none"


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    models = sorted({row["model"] for row in rows})
    figure, axes = plt.subplots(
        1, len(models), figsize=(5.5 * len(models), 3.8), sharey=True, squeeze=False
    )
    names = [Arm("8", *way).way for way in WAYS]
    for axis, model in zip(axes[0], models, strict=True):
        for shift, bits in zip((-0.25, 0, 0.25), COLOURS, strict=True):
            chosen = [r for r in rows if (r["model"], r["bits"]) == (model, int(bits))]
            axis.barh(
                [names.index(row["way"]) + shift for row in chosen],
                [row["points_lost"] for row in chosen],
                0.23,
                xerr=[row["standard_error"] for row in chosen],
                label=f"{bits} bit",
                color=COLOURS[bits],
                error_kw={"lw": 0.8},
            )
        axis.axvline(ALLOWED, color="black", lw=0.8, ls="--")
        axis.set_yticks(range(len(names)), names)
        axis.set_title(model)
        axis.set_xlabel("points of accuracy lost against fp32")
    axes[0][0].invert_yaxis()  # shared
    axes[0][-1].legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def arms_of(profiles: str, only: str) -> Iterator[Arm]:
    wanted = set(profiles.split(","))
    return (
        arm
        for arm in ARMS
        if not arm.profile or (arm.profile in wanted and only in arm.name)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", default="digits,mnist_size")
    parser.add_argument("--profiles", default="20,12,8")
    parser.add_argument("--only", default="", help="arms whose name holds this")
    parser.add_argument("--rows", type=int, default=6_000, help="of mnist_size")
    parser.add_argument("--rounds", type=int, default=15, help="of mnist_size")
    parser.add_argument("--images", choices=("fashion", "digits28"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = arguments.images or ("fashion" if FASHION.is_dir() else "digits28")
    begun, rows = os.times(), []
    for name in arguments.models.split(","):
        results: dict[Arm, list[dict[str, float]]] = {}
        for seed in range(arguments.seeds):
            problem = (
                digits(seed)
                if name == "digits"
                else mnist_size(seed, images, arguments.rows, arguments.rounds)
            )
            for arm in arms_of(arguments.profiles, arguments.only):
                results.setdefault(arm, []).append(run_arm(problem, arm, seed))
        rows += summarised(name, results)
    used = os.times()
    found = {
        "images": images,
        "seeds": arguments.seeds,
        "sites": SITES,
        "rows": rows,
        "smallest_profile": supported(rows),
        "cpu_seconds": round(used.user + used.system - begun.user - begun.system, 1),
    }
    if arguments.plot:
        plot(rows, arguments.plot)
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for row in rows:
        print(
            f"{row['model']:<11} {row['arm']:<52} {row['accuracy']:7.2f} % "
            f"{row['points_lost']:+7.3f} +- {row['standard_error']:.3f} lost  "
            f"cut {row['saturated_share']:.2e}"
        )
    for way, bits in found["smallest_profile"].items():
        print(f"smallest profile that loses <= {ALLOWED}: {bits:<4} with {way}")
    print(f"images: {images}; {found['cpu_seconds']} CPU s")


if __name__ == "__main__":
    main()
