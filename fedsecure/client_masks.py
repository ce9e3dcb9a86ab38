"""A site's masks: made with its update, opened once, for the set that was closed."""

from collections.abc import Callable

from fedsecure.client_run import ClientRun, Identity, Peers
from fedsecure.envelope import Kind, Verified
from fedsecure.errors import VerificationError
from fedsecure.masks import (
    MaskKeys,
    MaskStream,
    RoundMasks,
    make_masks,
    open_shares,
    removal,
)
from fedsecure.onesum import OneSum, Own
from fedsecure.pledge import Bytes, bundle_bytes, cut, owed, read_secrets
from fedsecure.receipts import HEADS
from fedsecure.release import Release, read_participants
from fedsecure.update import JSON, RoundId


class ClientMasks:
    """Masks of all runs of a site.

    Parameters
    ----------
    me : Identity
    peers : Peers
        The roster: the box keys masks are agreed with.
    sums : OneSum
    random : callable
        n -> n bytes of the system's generator.
    """

    def __init__(
        self, me: Identity, peers: Peers, sums: OneSum, random: Callable[[int], bytes]
    ) -> None:
        self._me = me
        self._peers = peers
        self._sums = sums
        self._random = random
        self._keys: dict[tuple[str, bytes], MaskKeys] = {}

    def make(self, run: ClientRun, round_id: RoundId) -> RoundMasks | None:
        """Return the masks of an update, or None if the run has none."""
        if not run.plan.encryption.masked:
            return None
        threshold = run.plan.encryption.threshold
        keys = self._of(run, round_id)
        return make_masks(keys, round_id, threshold, self._random)

    def reveal(
        self,
        run: ClientRun,
        request: Verified,
        own: Own,
        term: int,
        heads: Callable[[], dict[str, JSON]],
    ) -> bytes:
        """Return the signed shares that open the masks over a closed set.

        Asked again for the same set, the same shares.

        Parameters
        ----------
        own : callable
            Returns the digest of this site's update of the round, if it sent one.
        heads : callable
            Returns the heads of ledgers that go with the answer, own line included.

        Raises
        ------
        SecondAggregate
            Masks of this round were opened, or its sum was, for another set.
        TooFewContributors, VerificationError
            The set is not one the plan allows, or a bundle is not its site's.
        """
        plan, round_id = run.plan, request.scope.round
        if not plan.encryption.masked:
            raise VerificationError(f"run {plan.run} has no masks to open")
        participants = read_participants(request.header.get("participants"))
        bundles = cut(request.body, bundle_bytes(len(plan.sites)))
        names = {site for site, _ in participants}
        keys = self._of(run, round_id)
        shares = open_shares(keys, round_id, names, bundles)
        self._sums.reveal(run, round_id, participants, own, term)
        header: dict[str, JSON] = {HEADS: heads()}
        scope = run.scope(round_id)
        return self._me.sign(Kind.SHARES, scope, header, shares).to_bytes()

    def _of(self, run: ClientRun, round_id: RoundId) -> MaskKeys:
        key_id = run.keys.id_of(round_id.number)
        key = (run.plan.run, key_id)
        if key not in self._keys:
            boxes = {site: self._peers.box(site) for site in run.plan.sites}
            scope = f"{run.plan.federation}|{run.plan.run}"
            self._keys[key] = MaskKeys.agree(
                self._me.box, boxes, self._me.site, scope, key_id
            )
        return self._keys[key]


def unmasking(run: ClientRun, release: Release, secrets: Bytes) -> MaskStream | None:
    """Return what takes the masks off a release's sum, or None if it has none.

    Raises
    ------
    VerificationError
        Another number of secrets than the set owes.
    """
    if not run.plan.encryption.masked:
        if len(secrets):
            raise VerificationError(f"{len(secrets)} bytes behind an unmasked sum")
        return None
    opened = read_secrets(secrets, len(owed(run.plan.sites, release.sites)))
    return removal(run.plan.sites, release.sites, opened)
