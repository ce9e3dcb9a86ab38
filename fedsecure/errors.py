"""The error tree: one root, families by whose move it is.

Every message carries the value, the bound and what to do. ``exit_code`` is what the
command line ends with when the error reaches it.
"""

from typing import ClassVar


class FedsecureError(Exception):
    """Root of every error this package raises on purpose."""

    exit_code: ClassVar[int] = 1


# --- the operator's move: something is set up wrongly ---------------------------------


class ConfigurationError(FedsecureError):
    """A configuration value, file or environment cannot be used as it is."""

    exit_code = 2
    code: ClassVar[str] = "configuration"  # a site's: asking again mends nothing


class DataError(ConfigurationError):
    """A site's data does not fit its description."""


class UnknownPlug(ConfigurationError):
    """A socket has no plug of that name."""


class KitError(ConfigurationError):
    """A start-up kit is incomplete, foreign, expired or for another role."""


class KeyExposed(ConfigurationError):
    """A secret lies where it must never be; the process stops."""


class OverflowRisk(ConfigurationError):
    """The full sum would not fit its field."""


# --- refused on purpose: policy, budget, rules of the round ---------------------------


class Refused(FedsecureError):
    """A site says no; the code alone leaves the site."""

    exit_code = 3
    code: ClassVar[str] = "refused"


class PolicyRefused(Refused):
    """The site's policy does not allow what the plan asks."""

    code = "policy"


class BudgetExhausted(Refused):
    """The data set's privacy budget does not allow another reservation."""

    code = "budget"


class InputConflict(Refused):
    """A round that was answered before is asked again with another input."""

    code = "input_conflict"


class RoundOver(Refused):
    """A round whose release, or a later one's, was opened here: it needs no update."""

    code = "round_over"


class NoRoom(Refused):
    """The site's shelf has no room for an answer; nothing was paid for it."""

    code = "no_room"


class AttemptsSpent(Refused):
    """A round was paid for too often with nothing kept of it; it is not tried again."""

    code = "attempts"


class SecondAggregate(Refused):
    """A second, different aggregate of one round was offered for opening."""

    code = "second_aggregate"


class TooFewContributors(Refused):
    """An aggregate holds fewer sites than the plan allows to open."""

    code = "too_few_contributors"


class KeyMissing(Refused):
    """The site does not hold the run key it is asked to use."""

    code = "key_missing"


class KeyEnded(Refused):
    """The run key of that round ended; nothing is made or opened with it any more."""

    code = "key_ended"


class ReleaseMissing(Refused):
    """The site has not opened an earlier release it needs; releases are in order."""

    code = "release_missing"


class ClockBehind(Refused):
    """The site's clock lies before its own ledger: its policy's end means nothing."""

    code = "clock"


class NotFinite(Refused):
    """An update holds NaN or Inf."""

    code = "not_finite"


# --- the peer's fault: outside bytes that do not verify -------------------------------


class VerificationError(FedsecureError):
    """Outside bytes are not what they should be."""

    code: ClassVar[str] = "verification"


class TagMismatch(VerificationError):
    """A sum is not of exactly the updates it is said to be: its key has ended."""


class LedgerCorrupt(VerificationError):
    """A ledger's chain is broken, or older than somebody else's record of it."""

    code = "ledger"


# --- leadership -----------------------------------------------------------------------


class StaleTerm(FedsecureError):
    """A write or a request carries a term below the highest one seen.

    Attributes
    ----------
    seen : int
        The highest term seen, where the one that refused said so; else 0.
    """

    code: ClassVar[str] = "stale_term"

    def __init__(self, message: str, seen: int = 0) -> None:
        super().__init__(message)
        self.seen = seen


class LeaseLost(FedsecureError):
    """The aggregator no longer leads and must stop acting."""


class QuorumNotMet(FedsecureError):
    """Too few sites contributed before the deadline."""


# --- storage --------------------------------------------------------------------------


class StorageError(FedsecureError):
    """A store or engine could not do it, or could not be asked."""


class NotFound(StorageError):
    """No object of that key."""


class AlreadyExists(StorageError):
    """A write-once key was written before."""


class OutcomeUnknown(StorageError):
    """A write timed out: read it back by its operation id before anything else."""


class Conflict(StorageError):
    """The head is not the expected one."""


class NotEnoughReplicas(StorageError):
    """Fewer than W stores hold the object."""


# --- processes ------------------------------------------------------------------------


class TrainingFailed(FedsecureError):
    """The site's training code raised or its worker died."""

    code: ClassVar[str] = "training_failed"


class ProcessFailed(FedsecureError):
    """A child process did not start or ended too early."""


LASTING = (
    AttemptsSpent,
    BudgetExhausted,
    ClockBehind,
    ConfigurationError,
    LedgerCorrupt,
    NoRoom,
    PolicyRefused,
    TrainingFailed,
)
"""Reasons that last until somebody mends a policy, a data set or a machine."""
