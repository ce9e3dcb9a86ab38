"""Rows less their own mean: what all rows share fills no clipped gradient.

A row's result is a function of that row alone. It tells nothing of another one, so a
unit's share of a sum stays bounded by the clip norm and the step costs no privacy.
"""

from math import prod

import numpy as np

from fedsecure.errors import DataError
from fedsecure.learning.sitedata import Features


def centred(x: Features) -> Features:
    """Return every row less the mean of its own numbers, shape as given, float32.

    Parameters
    ----------
    x : array
        Shape (n, *input_shape).

    Raises
    ------
    DataError
        A row is one number: less its mean it is nothing.
    """
    width = prod(x.shape[1:])
    if width < 2:
        raise DataError(
            "data.centre_rows=true with rows of one number: less its own mean each is "
            "0, and nothing is left to learn from; set data.centre_rows=false"
        )
    rows = x.reshape(len(x), width)
    means = rows.mean(axis=1, keepdims=True, dtype=np.float64)
    return np.asarray(rows - means, dtype=np.float32).reshape(x.shape)
