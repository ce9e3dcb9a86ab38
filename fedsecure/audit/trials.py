"""Clipped sums in which every parameter is a trial, by the product's own engine.

The model is one number a word. An example is one word, so its gradient lies along one
parameter, and the engine clips it there: n examples of n words are n neighbouring data
sets side by side, each of one example of norm C.
"""

import torch
from torch import Tensor, nn

from fedsecure.privacy.engine import PrivateEngine
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.mechanism import RandomSource
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.update import IntVector

_STEEP = 100.0
"""An example's gradient in clip norms before it is clipped."""


class Trials:
    """One site's contributions, with examples or without.

    Parameters
    ----------
    plan : PrivacyPlan
        Of a mode in which noise is shared, with a sample rate of 1.
    lattice : Lattice
    source : RandomSource
    """

    def __init__(
        self, plan: PrivacyPlan, lattice: Lattice, source: RandomSource
    ) -> None:
        self._plan, self._lattice, self._source = plan, lattice, source

    def contribution(self, *, present: bool) -> IntVector:
        """Return clip, noise and grid at work on an example a parameter, or on none."""
        d = self._lattice.dimension
        rows = torch.arange(d if present else 0).unsqueeze(1)
        with PrivateEngine(
            nn.Embedding(d, 1), self._plan, self._loss, self._source, learning_rate=1.0
        ) as engine:
            return engine.contribute(rows, rows, self._lattice)[0]

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        _ = targets
        return _STEEP * self._plan.clip_norm * outputs.flatten(1).sum(1)
