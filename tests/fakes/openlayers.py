"""A federation whose plan encrypts some tensors of a model of several blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from fedsecure.ciphertext import announced_bytes
from fedsecure.outgoing import Bytes
from fedsecure.release import plan_digest
from fedsecure.trainer import JSON
from fedsecure.update import Layout, Vector
from tests.fakes.federation import Federation
from tests.fakes.trainer import ToyTrainer

A_BLOCK = 2 * 4095
"""Values a block with profile 20."""
WIDE = Layout(("body.w", "head.w", "head.b"), ((4, A_BLOCK), (A_BLOCK,), (3,)))
"""Blocks 0 to 3 are the body's, 4 and 5 the head's and the weight's."""


class WideTrainer(ToyTrainer):
    """The toy with more parameters, of which a site's own target is a part."""

    def __init__(self, site: str, layout: Layout = WIDE) -> None:
        super().__init__(site)
        self._layout = layout
        self._target = np.resize(self._target, layout.num_parameters)

    def initial(self, settings: Mapping[str, JSON]) -> tuple[Layout, Vector]:
        _ = settings
        return self._layout, np.linspace(-0.1, 0.1, self._layout.num_parameters)


def federation_of(
    patterns: Sequence[str],
    *,
    layout: Layout = WIDE,
    masked: bool = False,
    rounds: int = 1,
    min_contributors: int = 3,
    changes: Mapping[str, JSON] | None = None,
) -> Federation:
    """Return three sites under `bfv`, without privacy, that encrypt these tensors."""
    made = Federation(
        scheme="bfv",
        private=False,
        masked=masked,
        rounds=rounds,
        threshold=2,
        min_contributors=min_contributors,
    )
    section = cast("dict[str, JSON]", made.plan["encryption"])
    section.update({"encrypt_layers": list(patterns), **(changes or {})})
    made.terms = replace(made.terms, plan_digest=plan_digest(made.plan))
    for name, site in made.sites.items():
        site.trainer = WideTrainer(name, layout)
        site.trainer.paid = lambda _: 1
    return made


def cut(body: Bytes) -> tuple[bytes, bytes, bytes]:
    """Return the encrypted blocks, the open ones, and what is behind."""
    body = bytes(body)
    first = announced_bytes(body)
    second = first + announced_bytes(body[first:])
    return body[:first], body[first:second], body[second:]
