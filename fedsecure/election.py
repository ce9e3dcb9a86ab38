"""Who should lead, decided without touching anything: load, decide, act, sleep.

`decide` takes what was observed and returns what to do and a sentence that says why,
for an operator at three in the morning. It reads no clock, asks no engine and knows no
Flower.
"""

from dataclasses import dataclass
from enum import StrEnum

from fedsecure.errors import ConfigurationError
from fedsecure.metadata import Lease

RENEWALS_PER_TTL = 6
MARGIN = 0.5 / 3  # of the ttl: 0.5 s at 3 s (RESILIENCE section 5)


class Act(StrEnum):
    """What the loop does next."""

    WAIT = "wait"
    CAMPAIGN = "campaign"
    RENEW = "renew"
    LEAD = "lead"
    STEP_DOWN = "step_down"


@dataclass(frozen=True, slots=True)
class Standing:
    """What an aggregator knows of its own leadership.

    Attributes
    ----------
    name : str
    lease : Lease or None
        The lease it holds, or None.
    valid_until : float
        Until when it may act without asking; seconds of the monotonic clock.
    renewed : float
        When the last successful renewal was sent.
    """

    name: str
    lease: Lease | None = None
    valid_until: float = 0.0
    renewed: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why."""

    act: Act
    reason: str


def decide(
    standing: Standing,
    observed: Lease | None,
    now: float,
    *,
    ailment: str,
    frozen: bool,
    yielding: bool = False,
) -> Decision:
    """Return the next act.

    Parameters
    ----------
    standing : Standing
        What this aggregator holds.
    observed : Lease or None
        What the board says; None means free, never "could not ask": the caller passes
        its last standing on when the board does not answer.
    now : float
        Seconds of the monotonic clock.
    ailment : str
        Why this aggregator could not do a leader's work now; "" if it could.
    frozen : bool
        Whether an operator paused this aggregator.
    yielding : bool
        Whether an operator handed leadership over: others come first for a while.
    """
    if standing.lease is None:
        if yielding and observed is None:
            return Decision(Act.WAIT, "leadership was handed over: others come first")
        return _as_standby(standing, observed, ailment=ailment, frozen=frozen)
    if frozen:
        return Decision(Act.STEP_DOWN, "an operator paused this aggregator")
    if yielding:
        return Decision(Act.STEP_DOWN, "an operator handed leadership over")
    return _as_leader(standing, standing.lease, observed, now, ailment=ailment)


def granted(standing: Standing, lease: Lease, sent: float) -> Standing:
    """Return the standing after a lease was granted to a call sent at `sent`.

    Validity counts from the sending, less a margin: the answer may have taken long.
    """
    valid_until = sent + lease.ttl * (1 - MARGIN)
    return Standing(standing.name, lease, valid_until, sent)


def lost(standing: Standing) -> Standing:
    """Return the standing of one that no longer leads."""
    return Standing(standing.name)


def ended(standing: Standing, now: float) -> str:
    """Return why a holder may not act any more by its own clock; "" while it may.

    A clock that went back says nothing about when the lease ends, so it ends at once: a
    holder that believed it would lead for as long as the clock went back.

    Parameters
    ----------
    standing : Standing
        With a lease.
    now : float
        Seconds of the monotonic clock.
    """
    if now < standing.renewed:
        back = standing.renewed - now
        return f"has no known end: the clock went back {back:.2f} s"
    if now >= standing.valid_until:
        return f"ended {now - standing.valid_until:.2f} s ago, not renewed"
    return ""


def check_ttl(ttl: float) -> float:
    """Return `ttl` if it leaves time for two renewals.

    Raises
    ------
    ConfigurationError
        Below 0.3 s or above 60 s.
    """
    if not 0.3 <= ttl <= 60:
        raise ConfigurationError(f"lease.ttl={ttl}, must be 0.3 to 60 seconds")
    return ttl


def _as_standby(
    standing: Standing, observed: Lease | None, *, ailment: str, frozen: bool
) -> Decision:
    if observed is not None and observed.holder != standing.name:
        return Decision(Act.WAIT, f"{observed.holder} leads with term {observed.term}")
    if frozen:
        return Decision(Act.WAIT, "the lease is free, and this aggregator is paused")
    if ailment:
        return Decision(
            Act.WAIT, f"the lease is free, and {standing.name} cannot lead: {ailment}"
        )
    return Decision(Act.CAMPAIGN, "the lease is free")


def _as_leader(
    standing: Standing,
    lease: Lease,
    observed: Lease | None,
    now: float,
    *,
    ailment: str,
) -> Decision:
    if why := ended(standing, now):
        return Decision(Act.STEP_DOWN, f"term {lease.term} {why}")
    if observed is not None and observed.term > lease.term:
        return Decision(
            Act.STEP_DOWN, f"{observed.holder} leads with term {observed.term}"
        )
    if ailment:
        # At once, and not by waiting for the lease to end: an ailment is told late.
        return Decision(
            Act.STEP_DOWN, f"{standing.name} gives up term {lease.term}: {ailment}"
        )
    if now - standing.renewed >= lease.ttl / RENEWALS_PER_TTL:
        return Decision(Act.RENEW, f"term {lease.term} is due for renewal")
    return Decision(Act.LEAD, f"term {lease.term} is valid")
