"""A configuration's privacy and encryption sections of a plan: noise and fields chosen.

What a site reads is `runplan`; this is the other end, where a run is designed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedsecure import registry
from fedsecure.accounting import (
    LEAST_COUNT_NOISE,
    PrivacyEvent,
    Relation,
    guarantee,
)
from fedsecure.config import RunConfig
from fedsecure.encoding import profile
from fedsecure.encryption import read_encryption
from fedsecure.errors import ConfigurationError
from fedsecure.learning.sitedata import SiteData
from fedsecure.learning.training import LocalTrainer
from fedsecure.privacy.calibration import calibrate, calibrate_event
from fedsecure.privacy.counts import CountsPlan
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.selection import encrypted_tensors
from fedsecure.update import JSON

MOST_INFLATION = 0.02
"""Noise that narrow fields may cost before wide ones are taken (ENCRYPTION section 5).
"""
_FINE = 1e4


def private_plan(config: RunConfig) -> PrivacyPlan:
    """Return the privacy plan, its noise calibrated if an epsilon was asked for.

    With the accountant it is enforced with: `pld` for local noise, which is continuous
    to all digits, `rdp` at whole orders for shared noise (PRIVACY section 6).
    """
    asked, rounds = config.privacy, config.federation.rounds
    if asked.mode == "none":
        return PrivacyPlan(Mode.NONE)
    mode = Mode(asked.mode)
    plan = PrivacyPlan(
        mode,
        clip_norm=asked.clip_norm,
        noise_multiplier=asked.noise_multiplier or 1.0,
        sample_rate=asked.sample_rate,
        steps_per_round=asked.steps_per_round,
        rounds=rounds,
        delta=asked.delta,
        divisor=config.divisor or 0.0,
        min_contributors=config.federation.quorum if mode.shared else 0,
        max_colluders=asked.max_colluders if mode.shared else 0,
    )
    if asked.target_epsilon is None:
        return plan
    counts = counts_plan(config)
    beside = [] if counts is None else [counts.event(counts.releases(rounds))]
    noise = _calibrated(plan, asked.target_epsilon, beside)
    return replace(plan, noise_multiplier=noise)


def counts_plan(config: RunConfig) -> CountsPlan | None:
    """Return the plan's section on counts; None unless metrics leave as `dp`.

    With the noise that all of a run's releases cost `metrics_epsilon` with, by the
    run's own accountant; less than the sampler's least noise is not to be had, so a
    great epsilon is not spent in full.
    """
    asked, rounds = config.privacy, config.federation.rounds
    most = asked.counts_epsilon
    if asked.metrics != "dp" or most is None:
        return None
    least = CountsPlan(LEAST_COUNT_NOISE, asked.metrics_each_round)
    releases, relation = least.releases(rounds), Relation.ADD_OR_REMOVE_ONE
    name = "rdp" if Mode(asked.mode).shared else "pld"
    if guarantee(name, relation, [least.event(releases)], asked.delta).epsilon <= most:
        return least
    times = calibrate_event(
        most,
        asked.delta,
        relation,
        registry.load("accounting", name).create,
        lambda x: PrivacyEvent.of_counts(max(x, 1) * LEAST_COUNT_NOISE, releases),
    )
    return replace(least, noise_multiplier=times * LEAST_COUNT_NOISE)


def whole_run(privacy: PrivacyPlan, counts: CountsPlan | None) -> list[PrivacyEvent]:
    """Return all that a run does to a site's rows, before the model's size is known."""
    return events_until(privacy, counts, privacy.rounds, ended=True)


def events_until(
    privacy: PrivacyPlan, counts: CountsPlan | None, rounds: int, *, ended: bool
) -> list[PrivacyEvent]:
    """Return what so many rounds of a run do; `ended`: its last counts are told too."""
    events = [event_of(privacy, rounds)]
    told = int(ended) + (rounds if counts is not None and counts.each_round else 0)
    if counts is not None and told:
        events.append(counts.event(told))
    return events


def _calibrated(
    plan: PrivacyPlan, target: float, beside: Sequence[PrivacyEvent]
) -> float:
    relation = Relation.ADD_OR_REMOVE_ONE
    if plan.mode.shared:
        rdp = registry.load("accounting", "rdp").create
        return calibrate_event(
            target,
            plan.delta,
            relation,
            rdp,
            lambda z: event_of(replace(plan, noise_multiplier=z), plan.rounds),
            beside,
        )
    return calibrate(
        target,
        plan.delta,
        plan.sample_rate,
        plan.steps_per_round * plan.rounds,
        relation,
        registry.load("accounting", "pld").create,
        beside,
    )


def event_of(plan: PrivacyPlan, rounds: int) -> PrivacyEvent:
    """Return what `rounds` rounds cost, before the model's size is known.

    For shared noise on a grid much finer than the noise, which every lattice is: at two
    grid steps a share the size changes epsilon in the ninth digit (PRIVACY section 6).
    """
    if not plan.mode.shared:
        return plan.event(rounds)
    return PrivacyEvent.of_shares(
        plan.noise_multiplier,
        plan.sample_rate,
        plan.steps_per_round * rounds,
        plan.shares,
        _FINE,
        1,
    )


def encryption_section(
    config: RunConfig,
    privacy: PrivacyPlan,
    parts: Sequence[SiteData],
    settings: Mapping[str, JSON],
) -> dict[str, JSON]:
    """Return the plan's section on encryption, with fields that hold the noise.

    Parameters
    ----------
    parts : sequence of SiteData
        Of the sites, where a simulation has them; empty: the model's size is not known,
        and the widest fields are taken.

    Raises
    ------
    ConfigurationError
        The fields asked for do not hold the noise; a pattern of tensors to encrypt
        matches none of the model's; or with such patterns, what a site would refuse.
    """
    federation, chosen = config.federation, config.encryption
    private = privacy.mode is not Mode.NONE
    if privacy.mode.shared and chosen.profile is None:
        name = _narrowest(config, privacy, parts, settings)
        chosen = chosen.model_copy(update={"profile": name})
    sites, quorum = federation.sites, federation.quorum
    section = chosen.document(sites, quorum, private=private)
    if chosen.encrypt_layers:  # a site would refuse the same, and not say why
        read_encryption(section, sites, quorum, private=private)
        if parts:
            trainer = LocalTrainer(parts[0], objects=config.model.objects)
            encrypted_tensors(trainer.initial(settings)[0], chosen.encrypt_layers)
    return section


def _narrowest(
    config: RunConfig,
    privacy: PrivacyPlan,
    parts: Sequence[SiteData],
    settings: Mapping[str, JSON],
) -> str:
    if not parts:
        return "wide"
    trainer = LocalTrainer(parts[0], objects=config.model.objects)
    size = trainer.initial(settings)[0].num_parameters
    sites = config.federation.sites
    try:
        grid = Lattice.of(privacy, size, profile("20").field_bits, sites)
    except ConfigurationError:
        return "wide"
    return "20" if grid.inflation() <= MOST_INFLATION else "wide"
