"""What a run says before it begins: what it is, what it will cost, what is wrong."""

from collections.abc import Mapping

from fedsecure.accounting import enforced_with, guarantee
from fedsecure.backends import Event
from fedsecure.config import RunConfig
from fedsecure.planning import events_until, whole_run
from fedsecure.privacy.counts import CountsPlan, counts_of
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.privacy.promise import Promise, promises, silo_warning
from fedsecure.update import JSON


def announced(
    config: RunConfig, plan: Mapping[str, JSON], parameters: int
) -> list[Event]:
    """Return the events that say what is about to run.

    Parameters
    ----------
    parameters : int
        Coordinates of the model; 0: not known before a site has built it.
    """
    privacy, federation = private_plan_of(plan), config.federation
    counts = counts_of(plan, privacy)
    text = (
        f"{plan['run']} on {config.backend.name}: {federation.sites} sites, "
        f"{federation.rounds} rounds, {config.data.name} with {config.model.name}; "
        f"{_protection(privacy, counts)}; {config.encryption.scheme} encryption"
    )
    if config.encryption.encrypt_layers:
        text += f" of {', '.join(config.encryption.encrypt_layers)} only"
    facts: dict[str, JSON] = {
        "event": "plan",
        "text": text,
        "epsilons": [] if privacy is None else _by_round(privacy, counts),
        "delta": 0.0 if privacy is None else privacy.delta,
        "relation": "" if privacy is None else str(privacy.relation),
        "scheme": config.encryption.scheme,
    }
    warned = None
    if privacy is not None and parameters:
        warned = silo_warning(privacy, federation.sites, parameters)
    return [facts, *([] if warned is None else [{"event": "warned", "text": warned}])]


def private_plan_of(plan: Mapping[str, JSON]) -> PrivacyPlan | None:
    """Return a plan document's privacy plan; None in mode `none`."""
    section = plan["privacy"]
    if not isinstance(section, dict) or section["mode"] == Mode.NONE:
        return None
    return PrivacyPlan.from_document(section)


def _protection(privacy: PrivacyPlan | None, counts: CountsPlan | None) -> str:
    if privacy is None:
        return "no differential privacy"
    said = promises(privacy, whole_run(privacy, counts))
    words = str(privacy.relation).replace("_", "-")
    return (
        f"{privacy.mode} (unit: {privacy.mode.unit}), "
        f"noise multiplier {privacy.noise_multiplier:.3f}, "
        f"{', '.join(map(_in_words, said))}, "
        f"δ {privacy.delta:g}, {words}, after {privacy.rounds} rounds"
        f"{'' if counts is None else _counts_in_words(counts, privacy.rounds)}"
    )


def _counts_in_words(counts: CountsPlan, rounds: int) -> str:
    times = counts.releases(rounds)
    often = "once, at the end" if times == 1 else f"{times} times"
    return (
        f" and counts of test rows told {often}, with noise of "
        f"{counts.noise_multiplier:.1f} rows on each"
    )


def _in_words(promise: Promise) -> str:
    return f"ε {promise.enforced.epsilon:.2f} against {promise.against}"


def _by_round(privacy: PrivacyPlan, counts: CountsPlan | None) -> list[JSON]:
    """Return epsilon after each round, against those the first promise names.

    Counts that are told at the end alone come after the last round.
    """
    spent: list[JSON] = []
    for number in range(1, privacy.rounds + 1):
        events = events_until(privacy, counts, number, ended=False)
        name = enforced_with(events)
        spent.append(guarantee(name, privacy.relation, events, privacy.delta).epsilon)
    return spent
