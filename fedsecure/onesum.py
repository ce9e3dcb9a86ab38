"""One sum a round: which sites' updates this site helped to add up, never two sets.

Two sums of one round over different sites would show one site's update behind its own
share of noise (PRIVACY.md section 11), and two answers about the masks of one round
would show it behind none (ENCRYPTION.md section 13). What was opened or revealed is
written to the site's ledger before it is done, and read from there at start.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from fedsecure.client_run import ClientRun
from fedsecure.errors import (
    ReleaseMissing,
    SecondAggregate,
    TooFewContributors,
    VerificationError,
)
from fedsecure.ledger import Ledger
from fedsecure.release import Release, root
from fedsecure.trainer import JSON
from fedsecure.update import RoundId

Participants = Sequence[tuple[str, bytes]]
"""Sites and the digests of their updates."""
Own: TypeAlias = Callable[[], bytes | None]
"""Returns the digest of this site's update of the round, if it sent one."""


class OneSum:
    """A site's memory of the sums it opened and the masks it opened for them.

    Parameters
    ----------
    site : str
        This one.
    ledger : Ledger
        The site's own.
    """

    def __init__(self, site: str, ledger: Ledger) -> None:
        self._site = site
        self._ledger = ledger
        self._opened: dict[tuple[str, int], bytes] = {}
        self._roots: dict[tuple[str, int], str] = {}
        for record in ledger.records():
            key = (record.run, record.round)
            if record.action == "aggregate.opened":
                self._opened[key] = bytes.fromhex(str(record.detail["release"]))
            if record.action in {"aggregate.opened", "masks.revealed"}:
                self._roots[key] = str(record.detail["root"])

    def digest(self, run: str, number: int) -> bytes | None:
        """Return the digest of the release opened in a round, or None."""
        return self._opened.get((run, number))

    def newest(self, run: str) -> int:
        """Return the latest round of a run whose release was opened here; 0: none."""
        return max((n for name, n in self._opened if name == run), default=0)

    def open(self, run: ClientRun, release: Release, own: Own, term: int) -> None:
        """Return only if this release may be opened here; durable before it is.

        Parameters
        ----------
        own : callable
            Returns the digest of this site's update of the round, if it sent one.

        Raises
        ------
        SecondAggregate
            Another sum of this round was opened, or its masks were for another set.
        ReleaseMissing
            The release it builds on was not opened yet.
        TooFewContributors
            Fewer sites than the plan allows, or a stranger among them.
        VerificationError
            It counts an update this site never sent.
        """
        key, digest = (run.plan.run, release.round.number), release.digest()
        opened = self._opened.get(key)
        if opened == digest:
            return
        detail: dict[str, JSON] = {
            "release": digest.hex(),
            "root": root(release.participants).hex(),
            "sites": len(release.participants),
        }
        if opened is not None:
            self._refuse("aggregate.second", release.round, detail, term)
            raise SecondAggregate(
                f"round {key[1]} was opened as {opened.hex()[:12]}; "
                f"{digest.hex()[:12]} is refused"
            )
        self._check_set(run, release.round, release.participants, own, term)
        if release.after and (run.plan.run, release.after) not in self._opened:
            raise ReleaseMissing(f"open the release of round {release.after} first")
        self._write("aggregate.opened", release.round, detail, term)
        self._opened[key] = digest

    def reveal(
        self,
        run: ClientRun,
        round_id: RoundId,
        participants: Participants,
        own: Own,
        term: int,
    ) -> None:
        """Return only if the masks over this set may be opened; durable before it.

        Raises
        ------
        SecondAggregate, TooFewContributors, VerificationError
            As for `open`.
        """
        self._check_set(run, round_id, participants, own, term)
        if (run.plan.run, round_id.number) not in self._roots:
            detail: dict[str, JSON] = {
                "root": root(participants).hex(),
                "sites": len(participants),
            }
            self._write("masks.revealed", round_id, detail, term)

    def _check_set(
        self,
        run: ClientRun,
        round_id: RoundId,
        participants: Participants,
        own: Own,
        term: int,
    ) -> None:
        names = {site for site, _ in participants}
        strangers = sorted(names - set(run.plan.sites))
        if strangers or len(names) < run.plan.min_contributors:
            raise TooFewContributors(
                f"round {round_id.number}: {len(names)} contributors, at least "
                f"{run.plan.min_contributors}; strangers: {strangers}"
            )
        counted = dict(participants).get(self._site)
        if counted is not None and counted != own():
            raise VerificationError("the set counts an update this site never sent")
        found = root(participants).hex()
        known = self._roots.get((run.plan.run, round_id.number), found)
        if known != found:
            detail: dict[str, JSON] = {"root": found, "known": known}
            self._refuse("masks.second", round_id, detail, term)
            raise SecondAggregate(
                f"round {round_id.number} was closed over the set {known[:12]} here; "
                f"{found[:12]} is refused"
            )

    def _write(
        self, action: str, round_id: RoundId, detail: Mapping[str, JSON], term: int
    ) -> None:
        self._ledger.append(
            action,
            round_id.run,
            run=round_id.run,
            round=round_id.number,
            term=term,
            detail=detail,
        )
        self._roots[round_id.run, round_id.number] = str(detail["root"])

    def _refuse(
        self, action: str, round_id: RoundId, detail: Mapping[str, JSON], term: int
    ) -> None:
        self._ledger.append(
            action,
            round_id.run,
            run=round_id.run,
            round=round_id.number,
            term=term,
            outcome="refused",
            code=SecondAggregate.code,
            detail=detail,
        )
