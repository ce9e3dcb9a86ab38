"""Which rows belong to which site, when one data set is dealt to several.

Uneven labels are dealt by flwr-datasets' partitioners, so that a split can be compared
with other Flower work. They are slow to import and slow on many rows; the indices they
give are therefore kept in a cache folder under a digest of labels and parameters.
"""

import hashlib
import io
import json
import logging
import os
import warnings
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fedsecure.disk import SystemDisk
from fedsecure.errors import AlreadyExists, DataError, StorageError, VerificationError

Rows = NDArray[np.int64]
"""Row numbers, shape (n,), int64, ascending."""
Labels = NDArray[np.int64] | NDArray[np.float32]
"""Class of each row, shape (n,), int64; or a regression's target, float32."""

KINDS = ("iid", "dirichlet", "shards", "by_size")
_MAX_CACHE_BYTES = 1 << 30
_UNREADABLE = (ValueError, KeyError, OSError, EOFError, BadZipFile, zlib.error)
_EXTRA = "pip install 'fedsecure[data]'"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Partition:
    """How rows are dealt; equal values deal equal rows.

    Attributes
    ----------
    kind : str
        `iid`; `dirichlet` (label shares drawn per site, Hsu et al., arXiv 1909.06335);
        `shards` (rows sorted by label and cut, McMahan et al. 2017, section 3);
        `by_size` (site i gets a part proportional to i + 1).
    sites : int
    seed : int
    alpha : float
        Of `dirichlet`; small is uneven.
    labels_per_site : int
        Of `shards`: shards a site gets, each of one label or two neighbours.
    min_partition_size : int
        Rows every site gets at least; at least 1.
    """

    kind: str
    sites: int
    seed: int = 7
    alpha: float = 0.5
    labels_per_site: int = 2
    min_partition_size: int = 10

    def __post_init__(self) -> None:
        """Refuse an unknown kind and numbers out of bounds."""
        if self.kind not in KINDS:
            raise DataError(
                f"data.partition={self.kind!r}, choose one of: {', '.join(KINDS)}"
            )
        for name in ("sites", "labels_per_site", "min_partition_size"):
            if getattr(self, name) < 1:
                raise DataError(f"{name}={getattr(self, name)}, must be at least 1")
        if not 0 < self.alpha <= 1e6:
            raise DataError(f"alpha={self.alpha}, must be above 0 and at most 1e6")
        if self.seed < 0:
            raise DataError(f"data.seed={self.seed}, must not be negative")


def partition(
    labels: Labels, how: Partition, cache: Path | None = None
) -> tuple[Rows, ...]:
    """Deal rows to sites: each row once, none lost, equal input gives equal rows.

    Parameters
    ----------
    labels : array
        Shape (n,).
    cache : Path, optional
        Folder of computed indices; `default_cache()` if left out. A folder that cannot
        be used costs time, never a run.

    Raises
    ------
    DataError
        Fewer rows than the sites need, labels that cannot be shared out, a site that
        would get fewer than `min_partition_size` rows, or flwr-datasets missing.
    """
    _check_possible(labels, how)
    if how.sites == 1:
        return (np.arange(len(labels), dtype=np.int64),)
    if how.kind in {"iid", "by_size"}:
        return _deal(labels, how)
    path = (cache or default_cache()) / f"{_key(labels, how)}.npz"
    dealt = _cached(path, len(labels), how.sites)
    if dealt is None:
        dealt = _deal(labels, how)
        _keep(path, dealt)
    return dealt


def default_cache() -> Path:
    """Return the user's cache folder for indices (XDG base directories, 0.8)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "fedsecure" / "partitions"


def _check_possible(labels: Labels, how: Partition) -> None:
    least = how.sites * how.min_partition_size
    if len(labels) < least:
        raise DataError(
            f"{len(labels)} rows cannot give {how.sites} sites at least "
            f"{how.min_partition_size} each: lower federation.sites or "
            "data.min_partition_size"
        )
    shards = how.sites * how.labels_per_site
    if how.kind == "shards" and len(labels) < shards:
        raise DataError(
            f"{len(labels)} rows cannot be cut in {shards} shards: lower "
            "federation.sites or data.labels_per_site"
        )
    if how.kind in {"dirichlet", "shards"} and labels.dtype.kind == "f":
        raise DataError(
            f"data.partition={how.kind} shares out classes, and the target is a "
            "number: use iid or by_size"
        )


def _key(labels: Labels, how: Partition) -> str:
    parameters = {**asdict(how), "flwr-datasets": _version(), "format": 1}
    text = json.dumps(parameters, sort_keys=True).encode()
    return hashlib.sha256(text + b"\0" + labels.tobytes()).hexdigest()


def _version() -> str:
    """Return the partitioners' version: another one may deal otherwise."""
    try:
        return version("flwr-datasets")
    except PackageNotFoundError as missing:
        raise DataError(
            f"dealing rows to sites needs the package flwr-datasets: {_EXTRA}"
        ) from missing


def _deal(labels: Labels, how: Partition) -> tuple[Rows, ...]:
    """Deal shuffled row numbers and check what was dealt."""
    order = np.random.default_rng(how.seed).permutation(len(labels))
    if how.kind in {"iid", "by_size"}:
        return _check_sizes(_cut(order, how), how)
    parts = _partitioner_parts(labels[order], how)
    dealt = [order[np.asarray(part, dtype=np.int64)] for part in parts]
    taken = np.zeros(len(labels), dtype=bool)
    taken[np.concatenate(dealt)] = True
    # ShardPartitioner cuts equal shards and drops the rest: deal it one by one.
    for turn, row in enumerate(np.flatnonzero(~taken)):
        site = turn % how.sites
        dealt[site] = np.append(dealt[site], row)
    if not _complete(dealt, len(labels)):
        raise DataError(f"data.partition={how.kind} dealt a row twice: do not use it")
    return _check_sizes(dealt, how)


def _cut(order: Rows, how: Partition) -> list[Rows]:
    """Cut shuffled rows in equal parts, or in parts proportional to 1, 2, 3, ..."""
    shares = np.arange(1, how.sites + 1) if how.kind == "by_size" else 1
    total = np.cumsum(np.broadcast_to(shares, (how.sites,)))
    ends = total * len(order) // total[-1]
    return np.split(order, ends[:-1])


def _check_sizes(dealt: list[Rows], how: Partition) -> tuple[Rows, ...]:
    for site, rows in enumerate(dealt):
        if len(rows) < how.min_partition_size:
            raise DataError(
                f"data.partition={how.kind} gives site {site} {len(rows)} rows, at "
                f"least {how.min_partition_size} are asked for: lower federation.sites "
                "or data.min_partition_size, or raise data.alpha"
            )
    return tuple(np.sort(rows) for rows in dealt)


def _partitioner_parts(labels: Labels, how: Partition) -> list[list[int]]:
    """Return positions in `labels` by site.

    The partitioners see row numbers and labels, never values, and get no network.
    """
    # Seconds to import and an optional extra: only here, and once per split.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from datasets import Dataset  # noqa: PLC0415
    from flwr_datasets import partitioner as kinds  # noqa: PLC0415

    make: dict[str, Callable[[], Any]] = {
        "shards": lambda: kinds.ShardPartitioner(
            how.sites, "label", how.labels_per_site, seed=how.seed
        ),
        "dirichlet": lambda: kinds.DirichletPartitioner(
            how.sites,
            "label",
            how.alpha,
            how.min_partition_size,
            self_balancing=False,
            seed=how.seed,
        ),
    }
    columns = {"i": list(range(len(labels))), "label": labels.tolist()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each new Dirichlet attempt warns
        chosen = make[how.kind]()
        chosen.dataset = Dataset.from_dict(columns)
        try:
            return [list(chosen.load_partition(i)["i"]) for i in range(how.sites)]
        except ValueError as refused:
            raise DataError(
                f"data.partition={how.kind} with alpha={how.alpha}, "
                f"labels_per_site={how.labels_per_site} does not give {how.sites} "
                f"sites {how.min_partition_size} rows each: {refused}"
            ) from refused


def _complete(dealt: list[Rows], total: int) -> bool:
    """Tell whether every row number below `total` is there exactly once."""
    rows = np.concatenate(dealt)
    return bool(np.array_equal(np.sort(rows), np.arange(total)))


def _cached(path: Path, total: int, sites: int) -> tuple[Rows, ...] | None:
    """Return kept indices, or None; what does not hold every row once is removed."""
    disk = SystemDisk()
    try:
        file = io.BytesIO(disk.read(path, _MAX_CACHE_BYTES))
    except (StorageError, VerificationError):
        return None
    try:
        with np.load(file, allow_pickle=False) as kept:
            dealt = [kept[f"site{i}"].astype(np.int64) for i in range(sites)]
    except _UNREADABLE:
        dealt = []
    if dealt and _complete(dealt, total):
        return tuple(dealt)
    log.warning("%s is not a partition of %d rows: computed again", path, total)
    try:
        disk.delete(path)
    except StorageError as refused:
        log.warning("%s", refused)
    return None


def _keep(path: Path, dealt: tuple[Rows, ...]) -> None:
    file = io.BytesIO()
    named: dict[str, Any] = {f"site{i}": rows for i, rows in enumerate(dealt)}
    np.savez(file, **named)
    try:
        SystemDisk().write_once(path, file.getvalue())
    except AlreadyExists:
        return  # another site on this machine was as quick
    except StorageError as refused:
        log.warning("partition is not cached: %s", refused)
