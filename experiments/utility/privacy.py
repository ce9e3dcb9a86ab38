"""What accuracy a privacy budget buys, with the noise inside the encrypted sum.

    python experiments/utility/privacy.py [--json] [--plot FILE] [--splits 6]
        [--draws 100] [--data digits,breast_cancer] [--product] [--tune]

Five sites, logistic regression, delta 1e-5, add-or-remove-one. An arm's accuracy is the
mean over splits 0 to 5 (rows of train and test, first model) and draws of the noise:
`--draws` for the arms whose distance is a goal, a fifth for the others, 2 for Opacus.
Settings are the constants of `SETTINGS`: they were chosen on splits 100 to 105, which
`--tune` shows again, and stood here before a split below 100 was looked at. One thread.

`--product` sends one configuration through `backend=inprocess`: keys, encryption,
ledgers and all. The other arms leave encryption out, for the sum it opens is exact;
one step of each problem is compared with the product's engine all the same.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from private.federation import Setting, distributed, local, pooled, without
from private.peers import flower_fixed, opacus_per_site
from private.problems import Problem, problem
from private.product import check_engine, whole_path

mpl.use("Agg")
import matplotlib.pyplot as plt

TUNED_ON = range(100, 106)
SETTINGS: dict[tuple[str, float], Setting] = {
    ("digits", 0.5): Setting(40, 1.0, 1.0, 2.0),
    ("digits", 1.0): Setting(40, 1.0, 1.0, 4.0),
    ("digits", 3.0): Setting(40, 1.0, 1.0, 12.0),
    ("digits", 8.0): Setting(40, 1.0, 1.0, 24.0),
    ("breast_cancer", 1.0): Setting(40, 1.0, 0.5, 2.0),
    ("breast_cancer", 3.0): Setting(40, 1.0, 0.5, 2.0),
}
"""Of noise that is shared or central: steps, sample rate, clip norm, learning rate."""
ALONE = 0.5
"""Sites that add full noise take so much of the rate: theirs is sqrt(5) as large."""
FLOWER = Setting(3, 1.0, 1.0, 2.0, steps_per_round=20)
"""Three rounds of twenty local steps: more rounds cost it more noise than they give."""
GOALS = {
    ("digits", 0.5): (85.0, 83.0),
    ("digits", 1.0): (90.0, 89.0),
    ("digits", 3.0): (93.0, 92.5),
    ("digits", 8.0): (94.5, 94.0),
    ("breast_cancer", 1.0): (95.5, None),
    ("breast_cancer", 3.0): (96.3, None),
}
NEAR = 0.3
FEW = 2
"""Draws of Opacus, whose steps take a hundred times as long."""
COMPARED = ("pooled", "distributed, h=5", "distributed, h=4")
"""Arms with a goal; the others are there to be looked at, with a fifth of the draws."""
Arm = Callable[[Problem, Setting, float, int], float]
ARMS: dict[str, Arm] = {
    "pooled, PLD": lambda p, s, e, d: pooled(p, s, e, "pld", d),
    "pooled": lambda p, s, e, d: pooled(p, s, e, "rdp", d),
    "distributed, h=5": lambda p, s, e, d: distributed(p, s, e, 5, d),
    "distributed, h=4": lambda p, s, e, d: distributed(p, s, e, 4, d),
    "local": lambda p, s, e, d: local(p, _alone(s), e, d),
    "Opacus per site": lambda p, s, e, d: opacus_per_site(p, _alone(s), e, d),
    "Flower fixed clipping": lambda p, _, e, d: flower_fixed(p, FLOWER, e, d),
}
COLOURS = ("#999999", "#555555", "#1b6ca8", "#2f9e5b", "#c9622b", "#b03a6f", "#8a6d3b")


def draws_of(arm: str, draws: int) -> int:
    if arm.startswith("Opacus"):
        return min(draws, FEW)
    return draws if arm in COMPARED else -(-draws // 5)


def _alone(setting: Setting) -> Setting:
    return replace(setting, rate=ALONE * setting.rate)


def row(
    problems: Sequence[Problem], epsilon: float, draws: int, arms: Sequence[str]
) -> dict[str, Any]:
    """Return the means of all arms at one epsilon, and whether the goals are met."""
    name = problems[0].name
    setting = SETTINGS[name, epsilon]
    found: dict[str, Any] = {"data": name, "epsilon": epsilon}
    means: dict[str, Any] = {}
    for arm in arms:
        count = draws_of(arm, draws)
        by_split = means[arm] = np.array(
            [
                np.mean([ARMS[arm](p, setting, epsilon, d) for d in range(count)])
                for p in problems
            ]
        )
        found[arm] = round(float(np.mean(by_split)), 2)
        error = np.std(by_split, ddof=1) / math.sqrt(len(by_split))
        found[f"{arm} +-"] = round(float(error), 2)
    every, most = GOALS[name, epsilon]
    found["goal h=5"], found["goal h=4"] = every, most
    found["met"] = bool(
        found["distributed, h=5"] >= every
        and (most is None or found["distributed, h=4"] >= most)
    )
    behind = means["pooled"] - means["distributed, h=5"]  # the same splits
    found["behind pooled"] = round(float(behind.mean()), 2)
    found["behind pooled +-"] = round(
        float(behind.std(ddof=1)) / math.sqrt(len(behind)), 2
    )
    found["near pooled"] = found["behind pooled"] <= NEAR
    return found


def tune(name: str, epsilons: Sequence[float]) -> None:
    """Print what `SETTINGS` was chosen from: pooled noise, other splits."""
    problems = [problem(name, split) for split in TUNED_ON]
    for epsilon in epsilons:
        chosen = SETTINGS[name, epsilon]
        for factor in (0.5, 0.75, 1.0, 1.5, 2.0):
            setting = replace(chosen, rate=factor * chosen.rate)
            mean = np.mean(
                [
                    pooled(p, setting, epsilon, "rdp", d)
                    for p in problems
                    for d in range(2)
                ]
            )
            print(
                f"{name} epsilon {epsilon}: rate {setting.rate}: {mean:.2f} %",
                flush=True,
            )


def plot(rows: Sequence[dict[str, Any]], plain: float, path: Path) -> None:
    """Draw all arms on a broken axis: one of them is far below the others."""
    figure, axes = plt.subplots(
        2, 1, figsize=(6.6, 5.4), sharex=True, height_ratios=(4, 1)
    )
    digits = [row for row in rows if row["data"] == "digits"]
    epsilons = [row["epsilon"] for row in digits]
    for axis, ends in zip(axes, ((66, 98), (5, 50)), strict=True):
        for arm, colour in zip(ARMS, COLOURS, strict=True):
            if arm in digits[0]:
                axis.errorbar(
                    epsilons,
                    [row[arm] for row in digits],
                    [row[f"{arm} +-"] for row in digits],
                    label=arm,
                    color=colour,
                    marker="o",
                    ms=3,
                    lw=1.2,
                )
        axis.axhline(plain, color="black", lw=0.8, ls="--", label="no privacy")
        axis.set_ylim(*ends)
        axis.grid(axis="y", lw=0.3)
    axes[0].set_title("digits, five sites, mean of six splits")
    axes[0].set_ylabel("accuracy, %")
    axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    axes[1].set_xscale("log")
    axes[1].set_xticks(epsilons, [f"{epsilon:g}" for epsilon in epsilons])
    axes[1].minorticks_off()
    axes[1].set_xlabel("epsilon at delta = 1e-5")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--splits", type=int, default=6)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--data", default="digits,breast_cancer")
    parser.add_argument("--product", action="store_true")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--arms", default="", help="only those whose name holds this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.tune:
        tune("digits", (0.5, 1.0, 3.0, 8.0))
        tune("breast_cancer", (1.0, 3.0))
        return
    begun, rows, plain, checked = os.times(), [], {}, {}
    arms = [arm for arm in ARMS if arm in COMPARED or arguments.arms in arm]
    for name in arguments.data.split(","):
        problems = [problem(name, split) for split in range(arguments.splits)]
        plain[name] = round(float(np.mean([without(p) for p in problems])), 2)
        for data, epsilon in SETTINGS:
            if data == name:
                rows.append(row(problems, epsilon, arguments.draws, arms))
        checked[name] = check_engine(problems[0], SETTINGS[name, 3.0], 3.0)
    result: dict[str, Any] = {
        "draws": {arm: draws_of(arm, arguments.draws) for arm in arms},
        "rows": rows,
        "no_privacy": plain,
        "engine_differs_by": checked,
    }
    if arguments.product:
        one, setting = problem("digits", 0), SETTINGS["digits", 3.0]
        drawn = [distributed(one, setting, 3.0, 4, draw) for draw in range(8)]
        result["product"] = {
            "accuracy": whole_path(one, setting, 3.0),
            "loop_mean": float(np.mean(drawn)),
            "loop_least": min(drawn),
            "loop_most": max(drawn),
        }
    used = os.times()
    result["cpu_seconds"] = round(used.user + used.system - begun.user - begun.system)
    if arguments.plot:
        plot(rows, plain["digits"], arguments.plot)
    print(json.dumps(result, indent=1) if arguments.json else _shown(result, arms))


def _shown(result: dict[str, Any], arms: Sequence[str]) -> str:
    lines = [f"no privacy: {result['no_privacy']}"]
    for found in result["rows"]:
        figures = "  ".join(
            f"{arm} {found[arm]:.1f}+-{found[f'{arm} +-']:.1f}" for arm in arms
        )
        goal = f"{found['goal h=5']}, {found['goal h=4']}"
        word = "met" if found["met"] else "MISSED"
        near = "within" if found["near pooled"] else "NOT within"
        lines.append(
            f"{found['data']} epsilon {found['epsilon']}: {figures}  "
            f"goal {goal} {word}; "
            f"{found['behind pooled']:+.2f} +- {found['behind pooled +-']:.2f} behind "
            f"pooled, {near} {NEAR}"
        )
    lines += [
        f"{k}: {result[k]}"
        for k in ("engine_differs_by", "product", "cpu_seconds")
        if k in result
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
