"""A site that means harm: it changes its answers and signs them again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from fedsecure.envelope import Envelope, Kind, parse
from fedsecure.metadata import Step
from fedsecure.trainer import JSON, TrainingResult
from fedsecure.update import Layout, ModelUpdate, Vector
from tests.fakes.federation import MAX_BYTES, Federation
from tests.fakes.forgery import altered
from tests.fakes.trainer import ToyTrainer

LIAR = "site-3"
HONEST = ("site-1", "site-2")
Change: TypeAlias = Callable[[bytes], bytes]
"""A body -> the body that is signed and sent instead."""
WIDE = Layout(("w",), ((20_000,),))
"""Three blocks of profile 20."""


class WideTrainer(ToyTrainer):
    """The toy on a model of three blocks."""

    def __init__(self, site: str) -> None:
        super().__init__(site)
        self._target = np.random.default_rng([*site.encode()]).uniform(
            -0.5, 0.5, WIDE.num_parameters
        )

    def initial(self, settings: Mapping[str, JSON]) -> tuple[Layout, Vector]:
        _ = settings
        return WIDE, np.zeros(WIDE.num_parameters)


class Downlink(Federation):
    """A federation whose plan has another form of the sum, or other sizes."""

    chosen: Mapping[str, JSON] = {"downlink": "sum"}

    def _plan(
        self, sites: Sequence[str], rounds: int, scheme: str, least: int
    ) -> dict[str, JSON]:
        plan = super()._plan(sites, rounds, scheme, least)
        encryption = plan["encryption"]
        assert isinstance(encryption, dict)
        return {**plan, "encryption": {**encryption, **self.chosen}}


def trio(
    *, scheme: str = "bfv", masked: bool = False, wide: bool = False, rounds: int = 1
) -> Federation:
    """Return a federation of three sites, two of which are enough."""
    found = Federation(
        private=False, rounds=rounds, min_contributors=2, scheme=scheme, masked=masked
    )
    if wide:
        for name, site in found.sites.items():
            site.trainer = WideTrainer(name)
    return found


def lies(
    federation: Federation,
    change: Change,
    kind: Kind = Kind.UPDATE,
    number: int | None = None,
    liar: str = LIAR,
) -> None:
    """Have a site's answers of this kind, in this round or all, changed and signed."""

    def tamper(site: str, data: bytes) -> bytes:
        found = parse(data, MAX_BYTES)
        if site != liar or found.kind != kind:
            return data
        if number not in {None, found.scope.round.number}:
            return data
        return altered(federation, data, body=change(bytes(found.body)))

    federation.tamper = tamper


def rejected(federation: Federation) -> list[tuple[JSON, JSON]]:
    """Return (site, code) of every answer that did not count."""
    notes = (f for event, f in federation.notes.events if event == "rejected")
    return [(fields["site"], fields["code"]) for fields in notes]


def steps(federation: Federation) -> set[tuple[int, Step]]:
    """Return what is journalled of each round."""
    return {(entry.round, entry.step) for entry in federation.journal()}


def mean_of(federation: Federation, sites: Sequence[str], rounds: int = 1) -> Vector:
    """Return FedAvg over these sites in plain floats."""
    _, model = federation.sites[sites[0]].trainer.initial({})
    for _ in range(rounds):
        moved = [federation.sites[name].trainer.step(model) for name in sites]
        model = model + np.mean(moved, axis=0)
    return np.asarray(model)


def off_by(federation: Federation, sites: Sequence[str], rounds: int = 1) -> float:
    """Return how far all sites' one model is from FedAvg over `sites`."""
    models = set(federation.models().values())
    assert len(models) == 1
    model = np.frombuffer(models.pop(), dtype="<f8")
    return float(np.abs(model - mean_of(federation, sites, rounds)).max())


def weighing(federation: Federation, site: str, rows: int) -> None:
    """Have a site say that it trained on so many rows."""

    def change(result: TrainingResult) -> TrainingResult:
        update = result.update
        if update is None:
            return result
        claimed = ModelUpdate(update.layout, update.delta, rows)
        return replace(result, update=claimed)

    federation.sites[site].trainer.change = change


def recover(federation: Federation, site: str, release: Envelope) -> None:
    """Have a site open a release, as from a letter."""
    federation.sites[site].half().recover(parse(release.to_bytes(), MAX_BYTES))


def ends(federation: Federation, site: str) -> list[str]:
    """Return the reasons for which a site's keys ended, from its ledger."""
    records = federation.sites[site].records()
    return [str(r.detail["reason"]) for r in records if r.action == "key.ended"]
