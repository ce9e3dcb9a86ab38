"""A certificate computed again: its plan's digest, its events, each epsilon of them.

Shows that the figures follow from the events, not that the events are all there were:
that is the ledgers', whose heads the certificate names and others keep.
"""

import math
from collections.abc import Mapping, Sequence

from fedsecure.accounting import COUNTS, PrivacyEvent
from fedsecure.certificate.signed import Certificate
from fedsecure.certificate.spent import all_time, counts_facts, epsilons
from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.privacy.counts import CountsPlan, counts_of
from fedsecure.privacy.plan import Mode, PrivacyPlan, read_event
from fedsecure.release import plan_digest
from fedsecure.update import JSON

_ALIKE = 1e-6
"""Relative difference of two versions of an accountant that is no contradiction."""


def check(certificate: Certificate) -> list[JSON]:
    """Return the epsilons, computed again from the events and as stated.

    Raises
    ------
    VerificationError
        The plan is another than its digest, an event another than the plan's, or a
        figure another than its events cost: says which.
    """
    body = certificate.body
    try:
        return _check(body)
    except (KeyError, TypeError, ValueError, ConfigurationError) as bad:
        raise VerificationError(f"certificate cannot be read: {bad!r}") from bad


def _check(body: Mapping[str, JSON]) -> list[JSON]:
    plan = _mapping(body["plan"])
    if plan_digest(plan).hex() != body["plan_digest"]:
        raise VerificationError("certificate's plan is not the one of its digest")
    if plan["run"] != body["run"]:
        raise VerificationError(
            f"certificate is of run {body['run']}, its plan of {plan['run']}"
        )
    section = _mapping(plan["privacy"])
    if section.get("mode") == Mode.NONE:
        return _promises_nothing(body)
    privacy = PrivacyPlan.from_document(section)
    _require_words(privacy, _mapping(body["promise"]))
    by_site = {
        site: _events(events) for site, events in _mapping(body["events"]).items()
    }
    counts = counts_of(plan, privacy)
    for site, events in by_site.items():
        _require_of(privacy, counts, site, events)
    _require_counts(plan, privacy, by_site, body.get("counts"))
    found = epsilons(privacy, by_site)
    _require_same("the run", found, _list(body["epsilons"]))
    for row in map(_mapping, _list(body["spending"])):
        spent = all_time(privacy, _events(row["events"]))
        whose = f"{row['site']}'s spending over all time"
        _require_same(whose, spent, _list(row["epsilons"]))
    return found


def _promises_nothing(body: Mapping[str, JSON]) -> list[JSON]:
    if body["epsilons"] or _mapping(body["promise"])["mode"] != Mode.NONE:
        raise VerificationError(
            "certificate promises an epsilon for a plan of mode none, which has none"
        )
    return []


def _require_words(privacy: PrivacyPlan, promise: Mapping[str, JSON]) -> None:
    for name, own in (
        ("mode", str(privacy.mode)),
        ("unit", privacy.mode.unit),
        ("relation", str(privacy.relation)),
        ("delta", privacy.delta),
    ):
        if promise[name] != own:
            raise VerificationError(
                f"certificate says {name} {promise[name]!r}, its plan {own!r}"
            )


def _require_of(
    privacy: PrivacyPlan,
    counts: CountsPlan | None,
    site: str,
    events: Sequence[PrivacyEvent],
) -> None:
    shares = privacy.shares if privacy.mode.shared else 0
    for event in events:
        if event.kind == COUNTS:
            _require_count(counts, site, event)
            continue
        own = (event.noise_multiplier, event.sample_rate, event.counted_shares)
        if own != (privacy.noise_multiplier, privacy.sample_rate, shares):
            raise VerificationError(
                f"certificate: an event of {site} has noise multiplier, sample rate "
                f"and shares {own}, its plan others"
            )


def _require_count(counts: CountsPlan | None, site: str, event: PrivacyEvent) -> None:
    if counts is None or event != counts.event(event.steps):
        planned = None if counts is None else counts.noise_multiplier
        raise VerificationError(
            f"certificate: {site} told counts with noise of {event.noise_multiplier} "
            f"rows, its plan allows {planned}"
        )


def _require_counts(
    plan: Mapping[str, JSON],
    privacy: PrivacyPlan,
    by_site: Mapping[str, Sequence[PrivacyEvent]],
    stated: JSON,
) -> None:
    """Compute the certificate's section on counts again; None where none may leave."""
    found = counts_facts(plan, privacy, by_site)
    if found is None and stated is None:
        return
    own, said = _mapping(found), _mapping(stated)
    for name in sorted(set(own) | set(said)):
        if name != "epsilons" and own.get(name) != said.get(name):
            raise VerificationError(
                f"certificate, counts: {name} {said.get(name)!r}, must be "
                f"{own.get(name)!r}"
            )
    _require_same("the counts", _list(own["epsilons"]), _list(said["epsilons"]))


def _require_same(whose: str, found: Sequence[JSON], stated: Sequence[JSON]) -> None:
    if len(found) != len(stated):
        raise VerificationError(
            f"certificate states {len(stated)} epsilons of {whose}, its events have "
            f"{len(found)}"
        )
    for own, said in zip(map(_mapping, found), map(_mapping, stated), strict=True):
        for name in ("against", "accountant"):
            if own[name] != said[name]:
                raise VerificationError(
                    f"certificate, {whose}: {name} {said[name]!r}, must be "
                    f"{own[name]!r}"
                )
        for name in ("epsilon", "nominal_pld"):
            computed, told = float(str(own[name])), float(str(said[name]))
            if not math.isclose(computed, told, rel_tol=_ALIKE):
                raise VerificationError(
                    f"certificate, {whose} against {said['against']}: {name} "
                    f"{told:.6g} is stated, its events cost {computed:.6g}"
                )


def _events(value: JSON) -> list[PrivacyEvent]:
    return [read_event(_mapping(event)) for event in _list(value)]


def _mapping(value: JSON) -> Mapping[str, JSON]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no section")
    return value


def _list(value: JSON) -> list[JSON]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value
