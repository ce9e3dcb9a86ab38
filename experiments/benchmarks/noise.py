"""What a share of secure noise costs: discrete Gaussians beside floating-point ones.

    python experiments/benchmarks/noise.py [--json] [--coordinates N] [--repeats 7]

CPU seconds of this process, the least of the repeats, one thread, all in one run. The
product's sampler draws from the operating system; numpy's PCG64 and torch's generator
are seeded, and torch.normal is what Opacus adds. Its `secure_mode` needs torchcsprng,
which has no release for this Python: timed is its arithmetic, four torch.normal draws
added and halved. The bound on the distance of a draw is the sampler's own; the tests of
`mechanism` hold the table to exact integers.
"""

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fedsecure.privacy.mechanism import DiscreteGaussian

SIGMAS = (10.0, 1_000.0, 60_000.0)
GOAL_SECONDS = 0.35
GOAL_DISTANCE = 2.0**-64


class System:
    """The operating system's generator."""

    def bytes(self, n: int) -> bytes:
        return os.urandom(n)


def least(work: Callable[[], object], repeats: int) -> float:
    """Return CPU seconds of the cheapest repeat."""
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return min(found)


def opacus_secure(count: int) -> torch.Tensor:
    """Return what opacus.optimizers.optimizer._generate_noise adds in secure_mode."""
    total = torch.zeros(count)
    for _ in range(4):
        total += torch.normal(mean=0, std=1.0, size=(count,))
    return total / 2


def peers(count: int, repeats: int) -> dict[str, float]:
    generator = np.random.default_rng(0)
    work: dict[str, Callable[[], object]] = {
        "numpy_normal": lambda: generator.normal(size=count),
        "torch_normal": lambda: torch.normal(mean=0, std=1.0, size=(count,)),
        "opacus_secure_mode": lambda: opacus_secure(count),
        "system_bytes": lambda: os.urandom(8 * count),
    }
    return {name: least(made, repeats) for name, made in work.items()}


def row(sigma: float, count: int, repeats: int) -> dict[str, Any]:
    begun = time.process_time()
    noise = DiscreteGaussian(sigma)
    built = time.process_time() - begun
    seconds = least(lambda: noise.draw(count, System()), repeats)
    return {
        "sigma": sigma,
        "seconds_per_million": seconds * 1e6 / count,
        "table_seconds": built,
        "distance_per_draw": noise.distance,
        "met": seconds * 1e6 / count <= GOAL_SECONDS
        and noise.distance <= GOAL_DISTANCE,
    }


def opendp(count: int) -> float | None:
    """Return OpenDP's CPU seconds per million draws at sigma 1,000, if it is there."""
    if importlib.util.find_spec("opendp") is None:
        return None
    import opendp.prelude as dp  # type: ignore[import-not-found] # noqa: PLC0415

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    draw = space >> dp.m.then_gaussian(1_000.0)
    few = count // 100
    return least(lambda: draw([0] * few), 1) * 1e6 / few


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--coordinates", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count, repeats = arguments.coordinates, arguments.repeats
    beside = {k: s * 1e6 / count for k, s in peers(count, repeats).items()}
    rows = [row(sigma, count, repeats) for sigma in SIGMAS]
    for found in rows:
        for name in ("numpy_normal", "torch_normal", "opacus_secure_mode"):
            found[f"over_{name}"] = found["seconds_per_million"] / beside[name]
    result = {"peers": beside, "opendp": opendp(count), "rows": rows}
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    for name, seconds in beside.items():
        print(f"{name:<20} {seconds:8.4f} CPU s per 1e6")
    for found in rows:
        over = ", ".join(
            f"{found[f'over_{name}']:.1f} x {name}"
            for name in ("numpy_normal", "torch_normal", "opacus_secure_mode")
        )
        print(
            f"sigma {found['sigma']:>8,.0f}: "
            f"{found['seconds_per_million']:.4f} CPU s per 1e6 = {over}; "
            f"table {found['table_seconds']:.3f} s; distance per draw <= "
            f"2^{np.log2(found['distance_per_draw']):.0f} "
            f"({'met' if found['met'] else 'NOT met'})"
        )
    if result["opendp"] is not None:
        print(f"OpenDP at sigma 1,000: {result['opendp']:.1f} CPU s per 1e6")


if __name__ == "__main__":
    main()
