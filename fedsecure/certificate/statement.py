"""What a certificate says, before it is signed: everything a reader must know.

Nothing here is taken from anybody's word: plan and ledgers say what was charged, the
accountants what that costs. Row counts and fingerprints of rows are left out.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

from fedsecure.accounting import COUNTS, PrivacyEvent
from fedsecure.certificate.issuer import Issuer
from fedsecure.certificate.mechanism import mechanism
from fedsecure.certificate.spent import (
    counts_facts,
    epsilons,
    event_documents,
    events_by_site,
    spending,
)
from fedsecure.certificate.traces import Traces, least_participants
from fedsecure.downlink import downlink_form
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.release import plan_digest
from fedsecure.update import JSON

FORMAT = 1
NOTHING = (
    "Nothing is promised about anybody's rows: the run had no differential privacy, "
    "and every sum that was opened may tell of them."
)
_SOFTWARE = ("numpy", "torch", "opacus", "dp-accounting", "tenseal", "cryptography")
NOT_COVERED = (
    (
        "Preprocessing: whatever was computed from rows before training, such as "
        "bounds of columns or a choice of rows."
    ),
    "The choice of features and of the model, if rows were looked at for it.",
    (
        "Rows without an id: such a row is known by its number, and one taken from the "
        "middle of a file renames those after it."
    ),
    (
        "A search for learning rates or other settings on the same rows: every such "
        "run is charged by itself, and one outside the ledger by nobody."
    ),
    (
        "The epsilon against all other sites together rests on one share of noise: its "
        "site must have drawn it as its ledger says, and keep it to itself."
    ),
    (
        "Side channels: time, memory, sizes of messages, and what a machine's owner "
        "sees on it."
    ),
    ("A row on which the model's own code raises: its site refuses, which is seen."),
    (
        "The spending of all time, where a later run was chosen after seeing an "
        "earlier one: composition is proven for plans fixed beforehand (ADR 0023)."
    ),
    (
        "Rounding of floating-point sums beyond the margin of the clip, 2**-10 of it: "
        "enough for linear layers, not shown for convolutions, where every position "
        "is a term."
    ),
)
METRICS = "Loss and accuracy on test rows left the sites in plain, round by round."
COUNTS_ONLY = "Of test rows only counts with noise left; the epsilons include them."
NO_METRICS = "No metrics left the sites."
_UNCOVERED = {"plain": METRICS, "dp": COUNTS_ONLY}


def statement(
    traces: Traces,
    issuer: Issuer,
    when: datetime,
    audit: Mapping[str, JSON] | None,
) -> dict[str, JSON]:
    """Return a certificate's body.

    Parameters
    ----------
    traces : Traces
    issuer : Issuer
    when : datetime
        In UTC.
    audit : mapping or None
        See `audited.read_audit`.
    """
    plan, privacy = traces.plan, _privacy(traces.plan)
    by_site = events_by_site(traces) if privacy.mode is not Mode.NONE else {}
    promised = epsilons(privacy, by_site)
    body: dict[str, JSON] = {
        "format": FORMAT,
        "issued": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "issuer": {
            "name": issuer.name,
            "role": str(issuer.role),
            "federation": issuer.roster.federation,
            "key": issuer.key.public.raw.hex(),
            "roster": issuer.signed_roster.hex(),
        },
        "run": traces.run,
        "plan": dict(plan),
        "plan_digest": plan_digest(plan).hex(),
        "promise": _promise(privacy),
        "epsilons": promised,
        "events": {site: event_documents(found) for site, found in by_site.items()},
        "counts": counts_facts(plan, privacy, by_site),
        "spending": _spending(traces, privacy),
        "mechanism": _mechanism(traces, privacy, by_site, promised),
        "participants": _participants(traces, privacy),
        "encryption": _encryption(traces),
        "ledgers": {
            owner: {"lines": len(records), "head": records[-1].hash}
            for owner, records in sorted(traces.ledgers.items())
        },
        "audit": None if audit is None else dict(audit),
        "software": software(),
        "not_covered": [
            _UNCOVERED.get(str(plan["metrics"]), NO_METRICS),
            *NOT_COVERED,
        ],
    }
    return body


def software() -> dict[str, JSON]:
    """Return what computed this certificate; what is not installed is left out."""
    found: dict[str, JSON] = {"python": python_version()}
    for name in ("fedsecure", *_SOFTWARE):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _privacy(plan: Mapping[str, JSON]) -> PrivacyPlan:
    section = plan["privacy"]
    if not isinstance(section, dict) or section.get("mode") == Mode.NONE:
        return PrivacyPlan(Mode.NONE)
    return PrivacyPlan.from_document(section)


def _promise(privacy: PrivacyPlan) -> dict[str, JSON]:
    if privacy.mode is Mode.NONE:
        return {"mode": "none", "said": NOTHING}
    return {
        "mode": str(privacy.mode),
        "unit": privacy.mode.unit,
        "relation": str(privacy.relation),
        "delta": privacy.delta,
        "said": (
            f"Whether any one {privacy.mode.unit} was among a site's rows "
            f"({str(privacy.relation).replace('_', '-')}) can be told from what the "
            "run let out no better than the epsilons below allow, each against those "
            "named beside it."
        ),
    }


def _spending(traces: Traces, privacy: PrivacyPlan) -> list[JSON]:
    if privacy.mode is Mode.NONE:
        return []
    dataset = str(traces.plan["dataset"])
    return [
        spending(traces, privacy, site, dataset)
        for site in sorted(traces.sites & set(_cohort(traces)))
    ]


def _mechanism(
    traces: Traces,
    privacy: PrivacyPlan,
    by_site: Mapping[str, Sequence[PrivacyEvent]],
    promised: Sequence[JSON],
) -> JSON:
    if not promised:
        return None
    steps = max(
        sum(e.steps for e in events if e.kind != COUNTS) for events in by_site.values()
    )
    sizes = {e.dimension for events in by_site.values() for e in events} - {0}
    parameters = max(sizes, default=traces.parameters)
    if not parameters or not steps:
        return None
    most = max(float(str(p["epsilon"])) for p in promised if isinstance(p, dict))
    encryption = traces.plan["encryption"]
    section = encryption if isinstance(encryption, dict) else {}
    count = len(_cohort(traces))
    return mechanism(privacy, section, count, parameters, steps, most)


def _participants(traces: Traces, privacy: PrivacyPlan) -> dict[str, JSON]:
    return {
        "sites": len(_cohort(traces)),
        "min_contributors": traces.plan["min_contributors"],
        "max_colluders": privacy.max_colluders,
        "least_seen": least_participants(traces),
    }


def _encryption(traces: Traces) -> dict[str, JSON]:
    section = traces.plan["encryption"]
    if not isinstance(section, dict):
        return {}
    keys = {record.object for record in traces.of_run("key.opened")}
    link = float(str(section["link_mbps"]))
    form = downlink_form(
        str(section["downlink"]), len(_cohort(traces)), traces.parameters, link
    )
    names = ("scheme", "profile", "masking", "masking_threshold", "encrypt_layers")
    return {
        **{name: section[name] for name in names},
        "downlink": form,
        "key_ids": [*sorted(keys)],
    }


def _cohort(traces: Traces) -> list[str]:
    sites = traces.plan["sites"]
    return [str(site) for site in sites] if isinstance(sites, list) else []
