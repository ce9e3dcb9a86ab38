"""Rows of a site: data sets that come with scikit-learn, a CSV, or the user's own.

Embedded sets are public, so the numbers that scale them are constants of this file and
tell nothing about a site.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits

from fedsecure.errors import ConfigurationError, DataError, FedsecureError
from fedsecure.learning.dataconfig import DataConfig
from fedsecure.learning.objects import importable
from fedsecure.learning.partitions import partition
from fedsecure.learning.sitedata import Features, SiteData, pool
from fedsecure.learning.split import Problem, divide
from fedsecure.learning.tables import load_table
from fedsecure.trainer import JSON

__all__ = ["SiteData", "load_pooled", "load_site"]

_DIGESTS = {
    "digits": "f6d9e39f37dc45d327f6db33428ee58970ccceabb2535a5c179de35886b70443",
    "breast_cancer": "25e2eb7b7a8745b1bde5ba18bc4969983d2e2f403291ecd5bde4a29ef30c3859",
}
# Mean and standard deviation over all 569 rows, to four digits: public like the rows.
# fmt: off
_BREAST_MEAN = (
    14.13, 19.29, 91.97, 654.9, 0.09636, 0.1043, 0.0888, 0.04892, 0.1812, 0.0628,
    0.4052, 1.217, 2.866, 40.34, 0.007041, 0.02548, 0.03189, 0.0118, 0.02054, 0.003795,
    16.27, 25.68, 107.3, 880.6, 0.1324, 0.2543, 0.2722, 0.1146, 0.2901, 0.08395,
)
_BREAST_DEVIATION = (
    3.521, 4.297, 24.28, 351.6, 0.01405, 0.05277, 0.07965, 0.03877, 0.02739, 0.007054,
    0.2771, 0.5512, 2.02, 45.45, 0.003, 0.01789, 0.03016, 0.006165, 0.008259, 0.002644,
    4.829, 6.141, 33.57, 568.9, 0.02281, 0.1572, 0.2084, 0.06567, 0.06181, 0.01805,
)
# fmt: on


def load_site(config: Mapping[str, JSON], index: int, sites: int) -> SiteData:
    """Return the rows of site `index`, counted from 0, of `sites` sites.

    Parameters
    ----------
    config : mapping
        The `data` section; see `DataConfig`.

    Raises
    ------
    ConfigurationError
        An option is unknown or out of bounds.
    DataError
        The rows are missing, malformed, or too few.
    """
    if not 0 <= index < sites:
        raise ConfigurationError(f"site {index} of {sites}: must be 0 to {sites - 1}")
    checked = DataConfig.read(config)
    if checked.name == "csv":
        return load_table(checked, index, sites)
    if checked.name == "object":
        return _own(checked, index, sites)
    return _embedded(checked, index, sites)


def load_pooled(config: Mapping[str, JSON], sites: int) -> SiteData:
    """Return all sites' training rows and all their test rows; for baselines only."""
    return pool([load_site(config, index, sites) for index in range(sites)])


def _embedded(config: DataConfig, index: int, sites: int) -> SiteData:
    x, y, how = _LOADERS[config.name]()
    rows = partition(y, config.dealing(sites), config.cache_folder())[index]
    binary = config.name == "breast_cancer"
    description: dict[str, JSON] = {
        "name": config.name,
        "sha256": _DIGESTS[config.name],
        "licence": "comes with scikit-learn",
        "normalisation": how,
        "partition": config.partition if sites > 1 else "one site",
        "split": f"test_fraction {config.test_fraction}, by row",
        "seed": config.seed,
    }
    problem = Problem(
        "binary" if binary else "multiclass", 1 if binary else 10, description, len(y)
    )
    keys = [str(row) for row in rows]
    return divide(x[rows], y[rows], keys, config, problem)


@cache
def _digits() -> tuple[Features, NDArray[np.int64], str]:
    x, y = load_digits(return_X_y=True)
    _check_digest("digits", x, y)
    how = "pixels / 16, a public bound"
    return (x / 16).astype(np.float32), y.astype(np.int64), how


@cache
def _breast_cancer() -> tuple[Features, NDArray[np.int64], str]:
    x, y = load_breast_cancer(return_X_y=True)
    _check_digest("breast_cancer", x, y)
    scaled = (x - np.array(_BREAST_MEAN)) / np.array(_BREAST_DEVIATION)
    how = "(x - mean) / deviation by constants of the public data set"
    return scaled.astype(np.float32), y.astype(np.int64), how


_LOADERS = {"digits": _digits, "breast_cancer": _breast_cancer}


def _check_digest(name: str, x: NDArray[Any], y: NDArray[Any]) -> None:
    found = hashlib.sha256(x.astype("<f8").tobytes() + y.astype("<i8").tobytes())
    if found.hexdigest() != _DIGESTS[name]:
        raise DataError(
            f"{name}: sha256 {found.hexdigest()[:12]}.. expected "
            f"{_DIGESTS[name][:12]}..: scikit-learn ships other rows than this version "
            "was made for; install scikit-learn 1.5 to 1.9"
        )


def _own(config: DataConfig, index: int, sites: int) -> SiteData:
    """Call the user's function; the edge to code that may raise anything.

    The name comes from local configuration: never from a plan or over a wire.
    """
    function = importable(config.object, "data.object")
    try:
        made = function(index, sites)
    except FedsecureError:
        raise
    except Exception as bad:
        raise DataError(
            f"data.object={config.object} raised {type(bad).__name__}: {bad}"
        ) from bad
    if isinstance(made, SiteData):
        if config.centred:
            raise DataError(
                f"data.object={config.object} returned SiteData, which is taken as it "
                "is: data.centre_rows=true would do nothing; centre the rows there, or "
                "return (X, y)"
            )
        return made
    if not (isinstance(made, tuple) and len(made) == 2):
        raise DataError(
            f"data.object={config.object} returned {type(made).__name__}, must return "
            "SiteData or (X, y)"
        )
    return _from_arrays(config, np.asarray(made[0]), np.asarray(made[1]))


def _from_arrays(config: DataConfig, x: NDArray[Any], y: NDArray[Any]) -> SiteData:
    """Split arrays; the number of classes cannot be read from one site's rows."""
    if x.ndim < 2 or y.shape != (len(x),):
        raise DataError(
            f"data.object={config.object}: X has shape {x.shape} and y {y.shape}, must "
            "be (n, ...) and (n,)"
        )
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
        raise DataError(
            f"data.object={config.object}: X is {x.dtype} and y {y.dtype}, must be "
            "numbers"
        )
    description: dict[str, JSON] = {
        "name": config.object,
        "normalisation": "the user's",
    }
    keys = [str(row) for row in range(len(x))]
    rows = x.astype(np.float32)
    if y.dtype.kind == "f":
        problem = Problem("regression", 1, description)
        return divide(rows, y.astype(np.float32), keys, config, problem)
    if config.classes < 2:
        raise DataError(
            f"data.classes={config.classes}: y holds whole numbers, so say how many "
            "classes there are (at least 2), or return y as float for a regression"
        )
    binary = config.classes == 2
    outputs = 1 if binary else config.classes
    problem = Problem("binary" if binary else "multiclass", outputs, description)
    return divide(rows, y.astype(np.int64), keys, config, problem)
