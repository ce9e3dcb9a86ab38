"""Norms of products that are never made: |A^T G|^2 = <A A^T, G G^T>.

Exact in numbers without rounding. In float32 terms of both signs cancel, and what is
left may be smaller than the truth, so that an example would be clipped too little: a
sum that cancels too far is refused, and the caller makes the product.
"""

import torch
from torch import Tensor

_CANCELLATION = 64.0
"""Sum of magnitudes over the sum: above it, up to 2^-11 of the norm may be error."""

_SMALL = 2**15
"""Floats of a product for one example that are no matter."""


def prefers_gram(positions: int, into: int, out: int) -> bool:
    """Return whether two Gram matrices are better than each example's product.

    In multiplications they are if positions x (into + out) < into x out; but the
    product, where small, is made once for the norm and for the sum, which saves the
    second product. Where it is large it is also memory that grows with the batch.
    """
    return into * out > max(_SMALL, positions * (into + out))


def gram_norms(a: Tensor, g: Tensor) -> Tensor | None:
    """Return squared norms of every ``a[i].T @ g[i]``, shape (n,), float64.

    Parameters
    ----------
    a, g : Tensor
        Shapes (n, positions, into) and (n, positions, out).

    Returns
    -------
    Tensor or None
        None if some example's terms cancel too far to be trusted.
    """
    a, a_scale = _scaled(a)
    g, g_scale = _scaled(g)
    terms = (a @ a.transpose(1, 2)) * (g @ g.transpose(1, 2))
    squares = terms.sum((1, 2), dtype=torch.float64)
    magnitudes = terms.abs().sum((1, 2), dtype=torch.float64)
    # NaN compares as false: such an example counts as zero whatever its norm.
    if bool((magnitudes > _CANCELLATION * squares).any()):
        return None
    return squares * (a_scale.double() * g_scale.double()).square()


def _scaled(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return values of magnitude at most 1, and each example's scale, shape (n,).

    Without it squares below 1e-38 would vanish, and with them the norm.
    """
    scale = values.abs().amax((1, 2))
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return values / scale[:, None, None], scale
