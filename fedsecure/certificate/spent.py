"""What was charged, as a certificate lists it: events by site, and of all time."""

import math
from collections.abc import Mapping, Sequence

from fedsecure.accounting import COUNTS, PrivacyEvent, grouped
from fedsecure.certificate.traces import Traces
from fedsecure.ledger import Record
from fedsecure.privacy.charged import charged, unit_of
from fedsecure.privacy.counts import counts_of
from fedsecure.privacy.mechanism import DiscreteGaussian
from fedsecure.privacy.plan import PrivacyPlan, event_document
from fedsecure.privacy.promise import of_the_worst_off, promises
from fedsecure.update import JSON

_IN_EACH_RUN = (
    "outsiders and aggregators, with as many sites on their side as each run's plan "
    "allows for"
)


def events_by_site(traces: Traces) -> dict[str, list[PrivacyEvent]]:
    """Return what each site's ledger charged for this run; equal events as one."""
    found = {
        site: grouped(charged(traces.ledgers[site], traces.run))
        for site in sorted(traces.sites)
    }
    return {site: events for site, events in found.items() if events}


def event_documents(events: Sequence[PrivacyEvent]) -> list[JSON]:
    """Return events as plain JSON values."""
    return [event_document(event) for event in events]


def epsilons(
    plan: PrivacyPlan, by_site: Mapping[str, Sequence[PrivacyEvent]]
) -> list[JSON]:
    """Return every epsilon of the run, for the site whose rows were used most."""
    made = of_the_worst_off(plan, by_site.values())
    return [promise.document() for promise in made]


def counts_facts(
    plan: Mapping[str, JSON],
    privacy: PrivacyPlan,
    by_site: Mapping[str, Sequence[PrivacyEvent]],
) -> JSON:
    """Return what a run's noisy counts were and cost by themselves; None: none left.

    Of the site that was charged most for them. What they cost is in `epsilons` too.
    """
    counts = counts_of(plan, privacy)
    if counts is None:
        return None
    told = {
        site: [event for event in events if event.kind == COUNTS]
        for site, events in by_site.items()
    }
    times = [sum(e.steps for e in events) for events in told.values()]
    distance = DiscreteGaussian(counts.noise_multiplier).distance
    return {
        **counts.document(),
        "released": ["correctly classified test rows", "other test rows"],
        "sensitivity": 1,
        "charged": max(times, default=0),
        "draws": 2 * sum(times),
        "distance_per_draw_log2": math.log2(distance),
        "epsilons": epsilons(privacy, told),
    }


def all_time(plan: PrivacyPlan, events: Sequence[PrivacyEvent]) -> list[JSON]:
    """Return what all runs on a data set cost together, at this plan's delta."""
    made = promises(plan, events, outsiders=_IN_EACH_RUN)
    return [promise.document() for promise in made]


def spending(
    traces: Traces, plan: PrivacyPlan, site: str, dataset: str
) -> dict[str, JSON]:
    """Return what a site's data set has spent in all runs together.

    Valued at the run's public delta, whatever the site's own: that may follow from a
    row count, which is nobody's business.
    """
    records = traces.ledgers[site]
    events = grouped(charged(records, None, dataset))
    reserved = _reservations(records, dataset)
    return {
        "site": site,
        "dataset": dataset,
        "runs": len({record.run for record in reserved}),
        "reservations": len(reserved),
        "units": [*sorted({unit_of(record) for record in reserved})],
        "events": event_documents(events),
        "epsilons": all_time(plan, events),
    }


def _reservations(records: Sequence[Record], dataset: str) -> list[Record]:
    return [
        record
        for record in records
        if record.action == "budget.reserve" and record.object == dataset
    ]
