"""A site's keys of one run: from which round on each is used, and which have ended.

A run begins with one key and gets another at each rotation. Rounds never mix keys: the
one of a round is the last that was made for it or for an earlier one. A key that ended
opens nothing and encrypts nothing any more, whatever is asked; what has ended and what
was destroyed is in the site's ledger first (ENCRYPTION.md section 11).
"""

import itertools

from fedsecure.custody import KeyCabinet
from fedsecure.errors import KeyEnded, KeyMissing, VerificationError
from fedsecure.he import SecretKey
from fedsecure.ledger import Ledger, Record
from fedsecure.trainer import JSON


class KeyRing:
    """The keys of one run at one site.

    Parameters
    ----------
    run : str
    cabinet : KeyCabinet
        Where the secrets lie.
    ledger : Ledger
        The site's own: which keys there were, and their ends.
    """

    def __init__(self, run: str, cabinet: KeyCabinet, ledger: Ledger) -> None:
        self._run = run
        self._cabinet = cabinet
        self._ledger = ledger
        self._secrets = dict(cabinet.all(run))
        self._ids: dict[int, bytes] = {}
        self._ended: dict[int, str] = {}
        for record in ledger.records():
            if record.run == run and record.action.startswith("key."):
                self._replay(record)

    def of(self, number: int) -> SecretKey:
        """Return the key of a round.

        Raises
        ------
        KeyMissing
            This site was not given one yet.
        KeyEnded
            It ended: after a failed tag, or with its run.
        """
        first = self._first(number)
        if first in self._ended:
            raise KeyEnded(
                f"run {self._run}: the run key of round {number} ended "
                f"({self._ended[first]}); start a new run, or rotate its key with "
                "`fedsecure keys rotate` at the aggregator"
            )
        key = self._secrets.get(first)
        if key is None:
            raise KeyMissing(f"run {self._run}: this site has no key of round {number}")
        return key

    def id_of(self, number: int) -> bytes:
        """Return the id of a round's key, whether it ended or not; else KeyMissing."""
        return self._ids[self._first(number)]

    def knows(self, first_round: int) -> bool:
        """Return whether the key that was made for this round and on came here."""
        return first_round in self._ids

    def take(self, first_round: int, key: SecretKey, custodian: str) -> None:
        """Keep a key, for `first_round` and later; its id in the ledger.

        Raises
        ------
        VerificationError
            It is for an earlier round than a key that came before: keys never go back.
        """
        latest = max(self._ids, default=-1)
        if first_round <= latest:
            raise VerificationError(
                f"run key for round {first_round} on, this site has one for {latest} on"
            )
        self._cabinet.keep(self._run, first_round, key)
        detail: dict[str, JSON] = {"custodian": custodian, "first_round": first_round}
        self._write("key.opened", key.key_id, detail)
        self._secrets[first_round] = key
        self._ids[first_round] = key.key_id

    def end(self, number: int, reason: str) -> None:
        """End the key of a round for good, and destroy it."""
        first = self._first(number)
        if first not in self._ended:
            detail: dict[str, JSON] = {"reason": reason, "first_round": first}
            self._write("key.ended", self._ids[first], detail)
            self._ended[first] = reason
        self._secrets.pop(first, None)
        self._cabinet.destroy(self._run, first)

    def retire(self, opened: int) -> None:
        """Destroy the keys that no round after `opened` needs: each has a successor."""
        later = sorted(self._ids)
        for first, following in itertools.pairwise(later):
            if following <= opened and first not in self._ended:
                self.end(first, "rotated")

    def retire_all(self) -> None:
        """Destroy every key: the run is over."""
        for first in sorted(self._ids):
            self.end(first, "the run is over")

    def _first(self, number: int) -> int:
        fitting = [first for first in self._ids if first <= number]
        if not fitting:
            raise KeyMissing(f"run {self._run}: this site has no run key yet")
        return max(fitting)

    def _replay(self, record: Record) -> None:
        first = int(str(record.detail["first_round"]))
        if record.action == "key.opened":
            self._ids[first] = bytes.fromhex(record.object)
        elif record.action == "key.ended":
            self._ended[first] = str(record.detail["reason"])
            self._secrets.pop(first, None)

    def _write(self, action: str, key_id: bytes, detail: dict[str, JSON]) -> None:
        self._ledger.append(action, key_id.hex(), run=self._run, detail=detail)
