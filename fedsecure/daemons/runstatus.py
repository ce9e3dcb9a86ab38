"""How a run at a SuperLink stands, and whether the SuperLink answers at all.

One that stands still has not ended: nothing else tells its supervisor, and its
aggregator could not lead again (docs/adr/0031).
"""

import logging
from collections.abc import Callable
from pathlib import Path

from fedsecure.errors import ProcessFailed
from fedsecure.flower.link import SuperLinkRefused

log = logging.getLogger(__name__)

SILENCES = 3
"""Questions in a row that a SuperLink may leave unanswered.

Flower gives up on one after 30 s and the next is asked within 5 s: it has 105 s. A
single one is no sign: an idle connection may be closed just when it is used again.
"""
COMPLETE = "finished:completed"


class RunFailed(ProcessFailed):
    """Flower ended the run; the daemon starts it again."""


class RunStatus:
    """The status of one run.

    Parameters
    ----------
    ask : callable
        Returns the status in Flower's words; ProcessFailed if it does not come.
    log_path : Path
        Where the SuperLink's output is; for messages.
    """

    def __init__(self, ask: Callable[[], str], log_path: Path) -> None:
        self._ask = ask
        self._log = log_path
        self._silences = 0

    def complete(self) -> bool:
        """Ask; return whether the run is complete. No answer is no, for a while.

        Raises
        ------
        RunFailed
            It ended in another way.
        ProcessFailed
            The SuperLink stands still: end it.
        """
        try:
            status = self._ask()
        except ProcessFailed as silent:
            self._count(silent)
            return False
        self._silences = 0
        if status.startswith("finished") and status != COMPLETE:
            more = "" if ": " in status else f"; see {self._log}"  # it has no reasons
            raise RunFailed(f"the run ended as {status}{more}")
        return status == COMPLETE

    def _count(self, silent: ProcessFailed) -> None:
        log.info("status: %s", silent)
        if isinstance(silent, SuperLinkRefused) and silent.answered:
            self._silences = 0
            return
        self._silences += 1
        if self._silences >= SILENCES:
            raise ProcessFailed(
                f"the SuperLink stands still: {SILENCES} questions in a row were not "
                f"answered; see {self._log}"
            ) from silent
