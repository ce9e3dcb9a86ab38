"""A federation whose plan quantises as a test says."""

from collections.abc import Mapping, Sequence
from typing import cast

from fedsecure.trainer import JSON
from tests.fakes.federation import Federation


class Quantising(Federation):
    """Three sites without privacy; keywords change its encryption section."""

    def __init__(self, rounds: int = 4, **encryption: JSON) -> None:
        self._encryption = encryption
        super().__init__(private=False, rounds=rounds)

    def _plan(
        self, sites: Sequence[str], rounds: int, scheme: str, least: int
    ) -> dict[str, JSON]:
        plan = super()._plan(sites, rounds, scheme, least)
        section = cast("Mapping[str, JSON]", plan["encryption"])
        plan["encryption"] = {**section, **self._encryption}
        return plan
