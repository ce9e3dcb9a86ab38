"""One route measured in a process of its own; prints one line of JSON.

    python -m experiments.benchmarks.encryption_routes.phases ROUTE PARAMS SITES

Uploads and the total travel through a file, as they would through a network: reading
and writing it is outside the clock, and its bytes are outside the memory measured.
"""

# ruff: noqa: PLC0415 - each route's process imports only what it measures

import argparse
import ctypes
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MIB = 2**20
UPDATE_STD = 0.01
WARM = 4096
OPTIONAL = {"tenseal", "flwr"}
NEIGHBOURS = 2
"""Masks a site in SecAgg+: its least useful number, and its fastest."""
HEAVY = 10_000_000
"""Parameters from which a peer encrypts once, where one ciphertext may do for all."""
LIGHT = 4_000_000
"""Parameters times sites up to which aggregate and open are timed three times."""


class Route(Protocol):
    """A way to the mean of the sites' updates that does not show them."""

    dtype: Any
    one_for_all: bool

    def encrypt(self, update: Array, site: int) -> Iterator[bytes]: ...

    def encoded(self, update: Array, site: int) -> Array: ...

    def aggregate(self, uploads: Iterable[bytes]) -> Iterator[bytes]: ...

    def decrypt(self, total: bytes) -> Array: ...

    def error(self, opened: Array, encoded: Array) -> float: ...

    def downlink(self, total: int, params: int) -> int: ...


def build(name: str, params: int, sites: int) -> Route:
    from experiments.benchmarks.encryption_routes import peers

    if name == "naive-ckks":
        return peers.Ckks(sites, [60, 40, 40, 60], symmetric=False)
    if name == "nvflare-default":
        return peers.Ckks(sites, [60, 40, 40], symmetric=True)
    if name == "flower-secaggplus":
        return peers.SecAggPlus(sites, NEIGHBOURS)
    from experiments.benchmarks.encryption_routes.own import Own

    scheme, profile, form = [*name.split("-"), "20", "seeds"][:3]
    return Own(sites, scheme, profile, params, form)


class Watch:
    """CPU seconds of this process, all threads, and the peak of its memory."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self.peak = 0
        self._since = 0.0

    @contextmanager
    def step(self, *, first: bool) -> Iterator[None]:
        if first:  # its peak is reported: what was freed before must not hide it
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status("VmRSS")
        self.cpu, self._since = 0.0, time.process_time()
        yield
        self.cpu += time.process_time() - self._since
        self.peak = _status("VmHWM") - before

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.cpu += time.process_time() - self._since
        yield
        self._since = time.process_time()


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith(field))


class Post:
    """Messages as they lie between the parties: a file, and where each one is."""

    def __init__(self, file: IO[bytes], watch: Watch) -> None:
        self._file = file
        self._watch = watch
        self._messages: list[tuple[int, int]] = []

    def send(self, pieces: Iterable[bytes]) -> None:
        at = size = self._file.seek(0, 2)
        for piece in pieces:
            with self._watch.stopped():
                self._file.seek(size)  # what makes the pieces reads the same file
                size += self._file.write(piece)
        self._messages.append((at, size - at))

    def receive(self, message: int) -> bytes:
        at, size = self._messages[message]
        with self._watch.stopped():
            self._file.seek(at)
            return self._file.read(size)

    def size(self, message: int) -> int:
        return self._messages[message][1]


def measure(name: str, params: int, sites: int) -> dict[str, Any]:
    warm = build(name, WARM, sites)
    for _ in warm.encrypt(_update(WARM, 0).astype(warm.dtype), 0):
        pass  # imports, tables, pools
    route = build(name, params, sites)
    watch = Watch()
    times = 3 if params * sites <= LIGHT else 1
    enough = 3 if params < HEAVY else 1
    distinct = min(sites, enough) if route.one_for_all else sites
    with tempfile.TemporaryFile() as file:
        post = Post(file, watch)
        truth = np.zeros(params)
        encrypts: list[tuple[float, int]] = []
        for site in range(distinct):
            update = _update(params, site).astype(route.dtype)
            with watch.step(first=not encrypts):
                post.send(route.encrypt(update, site))
            encrypts.append((watch.cpu, watch.peak))
            weight = len(range(site, sites, distinct))
            truth += route.encoded(update, site) * weight
            del update

        def aggregate() -> None:
            post.send(route.aggregate(post.receive(i % distinct) for i in range(sites)))

        aggregates = _timed(watch, aggregate, times)
        opened: list[Array] = []
        total = post.receive(-1)

        def decrypt() -> None:
            opened[:] = [route.decrypt(total)]

        decrypts = _timed(watch, decrypt, times)
        up, down = post.size(0), route.downlink(post.size(-1), params)
    return {
        "name": name,
        "params": params,
        "sites": sites,
        "encrypt_cpu_s": statistics.median(cpu for cpu, _ in encrypts),
        "aggregate_cpu_s": statistics.median(cpu for cpu, _ in aggregates),
        "decrypt_cpu_s": statistics.median(cpu for cpu, _ in decrypts),
        "uplink_bytes_per_parameter": up / params,
        "downlink_bytes_per_parameter": down / params,
        "peak_rss_mb": encrypts[0][1] / MIB,
        "aggregate_peak_rss_mb": aggregates[0][1] / MIB,
        "decrypt_peak_rss_mb": decrypts[0][1] / MIB,
        "max_error_steps": route.error(opened[0], truth),
    }


def _timed(
    watch: Watch, work: Callable[[], None], times: int
) -> list[tuple[float, int]]:
    found: list[tuple[float, int]] = []
    for _ in range(times):
        with watch.step(first=not found):
            work()
        found.append((watch.cpu, watch.peak))
    return found


def _update(params: int, site: int) -> Array:
    return np.random.default_rng(site).normal(0.0, UPDATE_STD, params)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("route")
    parser.add_argument("params", type=int)
    parser.add_argument("sites", type=int)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        found = measure(arguments.route, arguments.params, arguments.sites)
    except ModuleNotFoundError as missing:
        if missing.name not in OPTIONAL:
            raise
        found = {"name": arguments.route, "skipped": str(missing)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
