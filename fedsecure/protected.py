"""What a summary says of a run's protection: epsilons, masks, fields and downlink."""

from collections.abc import Mapping, Sequence

from fedsecure.accounting import COUNTS, PrivacyEvent
from fedsecure.announcement import private_plan_of
from fedsecure.backends import Outcome
from fedsecure.downlink import downlink_form
from fedsecure.encoding import profile
from fedsecure.ledger import Record
from fedsecure.privacy.charged import charged
from fedsecure.privacy.counts import counts_of
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.privacy.promise import of_the_worst_off, silo_warning
from fedsecure.update import JSON

_FACTS = (
    "mode",
    "delta",
    "relation",
    "noise_multiplier",
    "clip_norm",
    "sample_rate",
    "divisor",
    "min_contributors",
    "max_colluders",
)


def privacy_facts(
    plan: Mapping[str, JSON],
    outcome: Outcome,
    ledgers: Mapping[str, Sequence[Record]],
    parameters: int,
) -> dict[str, JSON]:
    """Return the section `privacy`: the plan's figures, and both epsilons.

    Parameters
    ----------
    ledgers : mapping of str to sequence of Record
        By owner, those that verify; the epsilons are of what they charged.
    parameters : int
        Coordinates of the model; 0: not known.
    """
    privacy, section = private_plan_of(plan), plan["privacy"]
    facts = section if isinstance(section, dict) else {}
    per_site: dict[str, JSON] = {
        site: history[-1] for site, history in outcome.epsilons.items() if history
    }
    told: dict[str, JSON] = {k: facts[k] for k in _FACTS}
    if privacy is None:
        return {**told, "per_site": per_site, "promises": []}
    run, sites = str(plan["run"]), plan["sites"]
    events = [charged(ledgers[site], run) for site in per_site if site in ledgers]
    made = of_the_worst_off(privacy, events)
    count = len(sites) if isinstance(sites, list) else 0
    return {
        **told,
        "unit": privacy.mode.unit,
        "per_site": per_site,
        "promises": [promise.document() for promise in made],
        "counts": _counts_facts(plan, privacy, events),
        "warning": silo_warning(privacy, count, parameters) if parameters else None,
    }


def _counts_facts(
    plan: Mapping[str, JSON],
    privacy: PrivacyPlan,
    by_site: Sequence[Sequence[PrivacyEvent]],
) -> JSON:
    """Return how noisy counts were and what they cost by themselves; None: none left.

    Of the site that was charged most for them; the promises have it in them.
    """
    counts = counts_of(plan, privacy)
    if counts is None:
        return None
    told = [[e for e in events if e.kind == COUNTS] for events in by_site]
    made = of_the_worst_off(privacy, told)
    return {
        **counts.document(),
        "charged": max((sum(e.steps for e in events) for events in told), default=0),
        "epsilon": made[0].enforced.epsilon if made else 0.0,
        "accountant": made[0].enforced.accountant if made else "",
    }


def encryption_facts(plan: Mapping[str, JSON], parameters: int) -> dict[str, JSON]:
    """Return the section `encryption`: what was chosen, every open choice made."""
    section, sites = plan["encryption"], plan["sites"]
    if not isinstance(section, dict) or not isinstance(sites, list):
        return {}
    name = str(section["profile"])
    form = downlink_form(
        str(section["downlink"]),
        len(sites),
        parameters,
        float(str(section["link_mbps"])),
    )
    return {
        "scheme": section["scheme"],
        "encrypt_layers": section["encrypt_layers"],
        "profile": name,
        "field_bits": profile(name).field_bits,
        "masking": section["masking"],
        "masking_threshold": section["masking_threshold"],
        "downlink": form,
    }
