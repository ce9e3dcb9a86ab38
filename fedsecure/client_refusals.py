"""How a site says no: a code to who asked, the reason to its own log."""

import logging

from fedsecure.client_run import Identity
from fedsecure.envelope import Kind, Scope
from fedsecure.errors import LASTING
from fedsecure.outgoing import Outgoing
from fedsecure.trainer import JSON

log = logging.getLogger(__name__)


class Refusals:
    """A site's refusals; what lasts is said aloud once.

    Parameters
    ----------
    me : Identity
    """

    def __init__(self, me: Identity) -> None:
        self._me = me
        self._said: set[str] = set()

    def of(self, scope: Scope, reason: Exception) -> Outgoing:
        """Say no with a code only: the reason stays here (PRIVACY section 10)."""
        code = str(getattr(reason, "code", "failed"))
        # Loud once: `fedsecure run` keeps warnings off the terminal.
        loud = isinstance(reason, LASTING) and code not in self._said
        self._said.add(code)
        level = logging.ERROR if loud else logging.WARNING
        log.log(level, "site %s refuses (%s): %s", self._me.site, code, reason)
        header: dict[str, JSON] = {"code": code, "term": getattr(reason, "seen", 0)}
        return Outgoing.of(self._me.sign(Kind.REFUSAL, scope, header, b"").to_bytes())
