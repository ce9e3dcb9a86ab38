"""How near the reported epsilon is to the best that is known, setting by setting.

    python experiments/benchmarks/tightness.py [--json] [--plot FILE.png]

Continuous noise: the report against dp-accounting's PLD on a grid of 1e-4, called
directly. Discrete noise: the report against dp-accounting's RDP at whole orders, and
over the nominal PLD, which is no bound there. Opacus' PRV is the second opinion. The
neighbouring relation is add-or-remove-one, delta 1e-5. Exit code 1: a bound is missed.
"""

# ruff: noqa: PLC0415 - only a run with --plot needs matplotlib

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from dp_accounting import (
    GaussianDpEvent,
    PoissonSampledDpEvent,
    PrivacyAccountant,
    SelfComposedDpEvent,
)
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from fedsecure.accounting import (
    GAUSSIAN,
    PrivacyEvent,
    Relation,
    enforced_with,
    guarantee,
    nominal,
)
from fedsecure.moments import ORDERS

ADD, DELTA = Relation.ADD_OR_REMOVE_ONE, 1e-5
ALLOWED = 0.002
"""Epsilon that a continuous report may lie above PLD(1e-4)."""
CONTINUOUS = (
    (0.01, 1.1, 1_000),
    (0.01, 1.1, 10_000),
    (0.01, 4.0, 10_000),
    (1.0, 10.0, 50),
    (0.1, 2.0, 300),
    (0.02, 0.5, 500),
    (256 / 60_000, 1.1, 14_062),
    (256 / 60_000, 0.7, 10_546),
)
DISCRETE = (
    (1.0, 48.5, 40),
    (1.0, 25.7, 40),
    (1.0, 9.5, 40),
    (1.0, 4.1, 40),
    (0.2, 16.4, 100),
    (0.2, 8.3, 100),
    (0.2, 3.2, 100),
    (0.2, 1.5, 100),
)
SHARES, SENSITIVITY, DIMENSION = 4, 1_000.0, 650

Row = dict[str, Any]


def theirs(spent: PrivacyAccountant, q: float, z: float, steps: int) -> float:
    """Return epsilon by a dp-accounting accountant, without this house's code."""
    step = PoissonSampledDpEvent(q, GaussianDpEvent(z))
    spent.compose(SelfComposedDpEvent(step, steps))
    return float(spent.get_epsilon(DELTA))


def prv(q: float, z: float, steps: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Opacus' making
        from opacus.accountants import PRVAccountant

        accountant = PRVAccountant()
        accountant.history = [(z, q, steps)]
        return float(accountant.get_epsilon(DELTA, eps_error=0.01))


def reported(event: PrivacyEvent) -> tuple[float, str]:
    name = enforced_with([event])
    return guarantee(name, ADD, [event], DELTA).epsilon, name


def continuous(q: float, z: float, steps: int) -> Row:
    epsilon, name = reported(PrivacyEvent(GAUSSIAN, z, q, steps))
    best = theirs(PLDAccountant(value_discretization_interval=1e-4), q, z, steps)
    other = prv(q, z, steps)
    return {
        "noise": "continuous",
        "q": q,
        "z": z,
        "steps": steps,
        "accountant": name,
        "epsilon": epsilon,
        "reference": best,
        "prv": other,
        "met": epsilon <= best + ALLOWED and 0 <= other - epsilon <= 0.015,
    }


def discrete(q: float, z: float, steps: int) -> Row:
    event = PrivacyEvent.of_shares(z, q, steps, SHARES, SENSITIVITY, DIMENSION)
    epsilon, name = reported(event)
    whole = theirs(RdpAccountant(ORDERS), q, z, steps)
    shown = nominal(ADD, [event], DELTA).epsilon
    return {
        "noise": "discrete",
        "q": q,
        "z": z,
        "steps": steps,
        "accountant": name,
        "epsilon": epsilon,
        "reference": whole,
        "nominal_pld": shown,
        "over_nominal": epsilon / shown,
        "alone": own(event),
        "met": abs(epsilon / whole - 1) <= 1e-9,
    }


def own(event: PrivacyEvent) -> float:
    """Return the second epsilon: against all other sites together."""
    return reported(event.own_share())[0]


def table(rows: list[Row]) -> str:
    lines = [
        "noise       q        z      steps   by    epsilon  reference  over nominal"
    ]
    for row in rows:
        ratio = row.get("over_nominal")
        lines.append(
            f"{row['noise']:<11} {row['q']:<8.4g} {row['z']:<6g} {row['steps']:<7} "
            f"{row['accountant']:<5} {row['epsilon']:<8.4f} {row['reference']:<10.4f} "
            f"{'' if ratio is None else f'{ratio:.3f}':<6}"
            f"{'' if row['met'] else '  MISSED'}"
        )
    return "\n".join(lines)


def draw(rows: list[Row], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    chosen = [row for row in rows if row["noise"] == "discrete"]
    labels = [f"q {r['q']:g}\nz {r['z']:g}\nT {r['steps']}" for r in chosen]
    at = range(len(chosen))
    shares = f"second ε, own share alone (h = {SHARES})"
    axis.plot(at, [r["alone"] for r in chosen], "^", color="0.5", label=shares)
    axis.plot(at, [r["epsilon"] for r in chosen], "o", label="reported: whole orders")
    axis.plot(at, [r["nominal_pld"] for r in chosen], "_", ms=14, label="nominal PLD")
    axis.set_xticks(list(at), labels)
    axis.set_yscale("log")
    axis.set_ylabel(f"ε at δ {DELTA:g}, add-or-remove-one")
    axis.legend(loc="upper left")
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    rows = [continuous(*s) for s in CONTINUOUS] + [discrete(*s) for s in DISCRETE]
    print(json.dumps(rows, indent=2) if options.json else table(rows))
    if options.plot is not None:
        draw(rows, options.plot)
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
