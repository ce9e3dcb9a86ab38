"""What a run promises, and against whom: every epsilon with those it holds against.

With shared noise there are two. Whoever lacks a site's noise sees the sum behind all
counted shares; all other sites together know theirs, and see it behind one alone
(PRIVACY.md section 4).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fedsecure.accounting import (
    Guarantee,
    PrivacyEvent,
    Relation,
    enforced_with,
    grouped,
    guarantee,
    nominal,
)
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.update import JSON


@dataclass(frozen=True, slots=True)
class Promise:
    """One epsilon.

    Attributes
    ----------
    against : str
        Whom it holds against, in words.
    enforced : Guarantee
        By the accountant that the run was calibrated and its budget enforced with.
    nominal : Guarantee
        By `pld`, of continuous noise as wide: not proven where noise is discrete.
    """

    against: str
    enforced: Guarantee
    nominal: Guarantee

    def document(self) -> dict[str, JSON]:
        """Return the promise as plain JSON values."""
        return {
            "against": self.against,
            "epsilon": self.enforced.epsilon,
            "accountant": self.enforced.accountant,
            "nominal_pld": self.nominal.epsilon,
        }


def promises(
    plan: PrivacyPlan, events: Sequence[PrivacyEvent], outsiders: str = ""
) -> tuple[Promise, ...]:
    """Return what events of one data set promise, the strongest adversary last.

    Nothing in mode `none`, and nothing of no events.

    Parameters
    ----------
    plan : PrivacyPlan
        Says mode, relation and delta.
    events : sequence of PrivacyEvent
        All that was done to the data, of this run or of all.
    outsiders : str
        Whom the first epsilon of shared noise holds against; by the plan unless given.

    Raises
    ------
    ConfigurationError
        No accountant knows an event.
    """
    if plan.mode is Mode.NONE or not events:
        return ()
    merged = grouped(events)
    if not any(event.counted_shares for event in merged):
        return (_promise("everybody but the site itself", plan, merged),)
    alone = [e.own_share() if e.counted_shares else e for e in merged]
    return (
        _promise(outsiders or _outsiders(plan), plan, merged),
        _promise("all other sites together", plan, alone),
    )


def of_the_worst_off(
    plan: PrivacyPlan, by_site: Iterable[Sequence[PrivacyEvent]]
) -> tuple[Promise, ...]:
    """Return the promises to whoever's rows were used most, as `promises`."""
    alike = {tuple(grouped(events)) for events in by_site}
    found = [promises(plan, events) for events in sorted(alike, key=repr)]
    spent = [promise for promise in found if promise]
    return max(spent, key=lambda made: made[0].enforced.epsilon, default=())


def _outsiders(plan: PrivacyPlan) -> str:
    count = plan.max_colluders
    sites = "one site" if count == 1 else f"{count} sites"
    return f"outsiders and aggregators, with at most {sites} on their side"


def mean_noise(plan: PrivacyPlan, sites: int) -> float:
    """Return the noise on a coordinate of the mean of `sites`, in clip norms.

    Of silo: z sqrt(K / h) / K, all K sites adding their share.
    """
    return plan.noise_multiplier * math.sqrt(sites / plan.shares) / sites


def silo_warning(plan: PrivacyPlan, sites: int, parameters: int) -> str | None:
    """Return why whole updates of so few sites drown in their noise; None: they do not.

    A mean's norm is at most one clip norm, its noise's is sqrt(d) times that of one
    coordinate: a step is noise unless z sqrt(d) sqrt(K / h) is below K.

    Parameters
    ----------
    parameters : int
        d, the coordinates of the model.
    """
    if plan.mode is not Mode.SILO:
        return None
    each = mean_noise(plan, sites)
    whole = each * math.sqrt(parameters)
    if whole < 1:
        return None
    wide = plan.noise_multiplier * math.sqrt(sites / plan.shares)
    needed = math.ceil(wide * math.sqrt(parameters))
    return (
        f"silo with {sites} sites is useless here: noise of {each:.2g} clip norms on "
        f"every coordinate of the mean, {whole:.2g} over {parameters:,} coordinates, "
        f"where the mean itself is at most 1. It takes about {needed:,} sites at this "
        "epsilon; protect examples instead (privacy=example_distributed)"
    )


def _promise(against: str, plan: PrivacyPlan, events: list[PrivacyEvent]) -> Promise:
    return Promise(against, *_valued(plan.relation, tuple(events), plan.delta))


@lru_cache(maxsize=64)  # sites of a run are charged alike, and summed up more than once
def _valued(
    relation: Relation, events: tuple[PrivacyEvent, ...], delta: float
) -> tuple[Guarantee, Guarantee]:
    spent = guarantee(enforced_with(events), relation, events, delta)
    return spent, nominal(relation, events, delta)
