"""The sum over a batch of per-example gradients, each clipped: what noise is added to.

All engines give the same vector; which one does changes time and memory, never the
privacy event (PRIVACY.md sections 5 and 12).
"""

import logging
import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from fedsecure.errors import ConfigurationError, NotFinite
from fedsecure.privacy.gradients.bookkeeping import BookKeeping, CalledTwice
from fedsecure.privacy.gradients.examples import Loss, check_buffers
from fedsecure.privacy.gradients.functorch import Functorch
from fedsecure.privacy.gradients.inspection import Engine, check_module, objections
from fedsecure.privacy.gradients.opacus_engines import Ghost, Hooks
from fedsecure.privacy.gradients.probe import probe
from fedsecure.update import Vector

log = logging.getLogger(__name__)

_MEMORY_FLOATS = 2**23
"""Floats in and out of layers held at once; speed and memory only."""
_GRADIENT_FLOATS = 2**25
"""The same for engines that hold every example's gradient."""


class GradientEngine(Protocol):
    """One way to a clipped sum of one chunk of a batch."""

    def add(self, inputs: Tensor, targets: Tensor, total: Tensor) -> None:
        """Add the clipped sum to `total`, (d,) float64, in weight order."""
        ...

    def close(self) -> None:
        """Leave the module as it was."""
        ...


_MAKE: dict[Engine, Callable[[nn.Module, Loss, float], GradientEngine]] = {
    Engine.BOOKKEEPING: BookKeeping,
    Engine.GHOST: Ghost,
    Engine.HOOKS: Hooks,
    Engine.FUNCTORCH: Functorch,
}


class ClippedGradients:
    """Clipped sums of one module, by the engine asked for or the first that can.

    Parameters
    ----------
    module : torch.nn.Module
        On CPU or CUDA; hooks may be attached until `close`. The examples are the first
        dimension of inputs, and of what every trainable layer sees.
    loss : Loss
        From outputs and targets of n examples to n losses.
    clip_norm : float
        C. Examples are clipped to C (1 - 2^-10), norm over all trainable weights.
    engine : Engine or str
        `auto`: book-keeping, else Opacus ghost, else Opacus hooks, which is logged
        once; else the layer is refused by name.

    Attributes
    ----------
    chunk : int or None
        Examples of one pass, set at the first batch from the memory they take.

    Raises
    ------
    ConfigurationError
        Unknown engine, or a module it cannot step; says what to use instead.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        clip_norm: float,
        engine: Engine | str = Engine.AUTO,
    ) -> None:
        """Choose the engine and attach it."""
        if engine not in tuple(Engine):
            raise ConfigurationError(
                f"privacy engine {engine!r} is unknown; choose one of: "
                f"{', '.join(Engine)}"
            )
        self._module, self._loss, self._clip_norm = module, loss, clip_norm
        self._size = sum(p.numel() for p in module.parameters() if p.requires_grad)
        self._automatic = engine == Engine.AUTO
        self.chunk: int | None = None
        self._start(check_module(module, Engine(engine)))
        if self._automatic and self.engine is not Engine.BOOKKEEPING:
            self._say(next(objections(module, Engine.BOOKKEEPING)))

    @property
    def engine(self) -> Engine:
        """The engine in use; never `auto`."""
        return self._kind

    def close(self) -> None:
        """Detach all hooks; the module is an ordinary one again."""
        self._engine.close()

    def sum(self, inputs: Tensor, targets: Tensor) -> Vector:
        """Return the sum of the examples' clipped gradients, shape (d,), float64.

        Parameters
        ----------
        inputs, targets : Tensor
            A Poisson sample, examples first; of no rows the sum is the zero vector. An
            example whose gradient is not finite counts as the zero vector.

        Returns
        -------
        ndarray
            In the order of ``module.named_parameters()``, trainable ones only.

        Raises
        ------
        ConfigurationError
            If examples are not kept apart, a weight got no gradient of its own for each
            example, or a buffer changed; the module is then not to be used.
        NotFinite
            If the sum is not finite although every example's share is.
        """
        self._module.train()  # Opacus' hooks look away in evaluation mode
        total = inputs.new_zeros(self._size, dtype=torch.float64)
        if len(inputs):
            before = [b.clone() for b in self._module.buffers()]
            chunk = self.chunk or self._fitting(inputs)
            check_buffers(self._module, before)  # torch.func has no words for it
            self._add_chunks(inputs, targets, chunk, total)
            check_buffers(self._module, before)
            self.chunk = chunk
        if not math.isfinite(float(total.sum())):
            raise NotFinite(
                f"the clipped sum of engine={self.engine} is not finite; nothing was "
                "sent. Report the model's layers: every example's share was finite"
            )
        return total.cpu().numpy()

    def _add_chunks(
        self, inputs: Tensor, targets: Tensor, chunk: int, total: Tensor
    ) -> None:
        """Add the chunks' sums in float64; how many there are is no one's business."""
        size = -(-len(inputs) // -(-len(inputs) // chunk))  # all of about one size
        for start in range(0, len(inputs), size):
            part = slice(start, start + size)
            self._add_chunk(inputs[part], targets[part], total)

    def _add_chunk(self, inputs: Tensor, targets: Tensor, total: Tensor) -> None:
        try:
            self._engine.add(inputs, targets, total)
        except CalledTwice as twice:
            if not self._automatic:
                raise
            check_module(self._module, Engine.HOOKS)
            self._engine.close()
            self._start(Engine.HOOKS)
            self._say(str(twice))
            self._engine.add(inputs, targets, total)

    def _start(self, kind: Engine) -> None:
        self._kind = kind
        self._engine = _MAKE[kind](self._module, self._loss, self._clip_norm)

    def _say(self, why: str) -> None:
        log.info("private gradients by engine=%s, slower: %s", self.engine, why)

    def _fitting(self, inputs: Tensor) -> int:
        """Return how many examples fit the memory, from a pass of two rows."""
        each = probe(self._module, inputs)
        if self.engine in (Engine.HOOKS, Engine.FUNCTORCH):
            return max(1, _GRADIENT_FLOATS // (each + self._size))
        return max(1, _MEMORY_FLOATS // each)
