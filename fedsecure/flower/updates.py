"""What sites sent in a round, from the stores: sealed under a key that ends with it."""

from dataclasses import replace

from fedsecure.checkpoint.roundkey import RoundKey
from fedsecure.flower.leader import Leader
from fedsecure.metadata import JournalEntry, Step
from fedsecure.outgoing import Bytes
from fedsecure.server_round import Accepted, read_detail
from fedsecure.update import RoundId


class Updates:
    """The updates of one leadership's rounds."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._known: tuple[RoundId, RoundKey | None] | None = None

    def new_key(self, round_id: RoundId, operation: str) -> JournalEntry:
        """Return the KEY row of a round that opens; written with its OPEN."""
        key, detail = self._leader.tools.vault.new_key(round_id)
        self._known = round_id, key
        return JournalEntry(
            round_id.run, round_id.number, Step.KEY, "", operation, detail
        )

    def keep(self, round_id: RoundId, accepted: Accepted, data: Bytes) -> Accepted:
        """Put an update on the stores; see `Vault.reserve` and `Vault.keep`.

        Returns
        -------
        Accepted
            As its row must say it: under the name that the round's key gives it. All
            later reading goes by the row, whichever version wrote it.
        """
        key = self._key(round_id)
        if key is not None:
            accepted = replace(accepted, object=key.name(accepted.digest))
        self._leader.tools.vault.reserve(len(data))
        self._leader.tools.vault.keep(accepted.object, data, key)
        return accepted

    def read(self, round_id: RoundId, name: str) -> Bytes:
        """Return an update that was kept, if this aggregator still leads.

        A successor may have hundreds to read: each is a step.
        """
        self._leader.check()
        most = self._leader.terms.max_bytes
        return self._leader.tools.vault.read(name, most, self._key(round_id))

    def drop(self, number: int) -> None:
        """Delete a round's updates: who steals the run key later finds nothing."""
        for entry in self._leader.entries(number):
            if entry.round == number and entry.step == Step.UPDATE:
                self._leader.check()
                self._leader.tools.vault.drop(str(read_detail(entry)["object"]))

    def _key(self, round_id: RoundId) -> RoundKey | None:
        """Return the round's key; None for one that an earlier version opened."""
        if self._known is None or self._known[0] != round_id:
            self._known = round_id, self._find(round_id)
        return self._known[1]

    def _find(self, round_id: RoundId) -> RoundKey | None:
        for entry in self._leader.entries(round_id.number):
            if entry.round == round_id.number and entry.step == Step.KEY:
                return self._leader.tools.vault.read_key(entry.detail, round_id)
        return None
