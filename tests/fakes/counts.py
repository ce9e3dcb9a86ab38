"""A federation whose sites tell noisy counts, and who hears all that leaves them."""

import json
from typing import Any

from fedsecure.accounting import COUNTS
from fedsecure.envelope import parse
from fedsecure.ledger import Record
from tests.fakes.federation import MAX_BYTES, Federation, Site

NOISE = 8.0
ROWS, ACCURACY = 10, 0.7


def counting(*, each_round: bool = False, **more: Any) -> Federation:
    """Return a federation under metrics `dp`; 7 of 10 test rows are right."""
    federation = Federation(**more)
    federation.plan["metrics"] = "dp"
    federation.plan["counts"] = {"noise_multiplier": NOISE, "each_round": each_round}
    federation.restate()
    for site in federation.sites.values():
        site.trainer.accuracy = ACCURACY
    return federation


def charges(site: Site, number: int) -> list[Record]:
    """Return the lines by which a site paid for counts of a round."""
    paid = [r for r in site.records() if r.action == "budget.reserve"]
    return [r for r in paid if r.round == number and _kind(r) == COUNTS]


def _kind(record: Record) -> str:
    event = record.detail["event"]
    return str(event["type"]) if isinstance(event, dict) else ""


class Ear:
    """Hears every answer as it leaves a site, lost ones too.

    Parameters
    ----------
    loses : bool
        Whether the first answer of each site and round is lost on the way.

    Attributes
    ----------
    told : dict
        (site, round) -> the different counts that left.
    wrong : list of str
        What must not have left.
    """

    def __init__(self, federation: Federation, *, loses: bool = False) -> None:
        self.told: dict[tuple[str, int], set[str]] = {}
        self.wrong: list[str] = []
        self._federation, self._loses = federation, loses
        self._lost: set[tuple[str, int]] = set()
        federation.tamper = self._hear

    def violations(self) -> list[str]:
        """Return what is wrong: counts nobody paid for, or two for one charge."""
        twice = [
            f"{site} told {len(found)} different counts of round {number}"
            for (site, number), found in self.told.items()
            if len(found) > 1
        ]
        return [*self.wrong, *twice]

    def _hear(self, site: str, data: bytes) -> bytes | None:
        message = parse(data, MAX_BYTES)
        metrics = json.loads(message.header).get("metrics") or {}
        number = message.scope.round.number
        if set(metrics) - {"noisy_correct", "noisy_wrong", "noise"}:
            self.wrong.append(f"{site} told {sorted(metrics)} in round {number}")
        if metrics:
            self._check_paid(site, number)
            self.told.setdefault((site, number), set()).add(json.dumps(metrics))
        if self._loses and (site, number) not in self._lost:
            self._lost.add((site, number))
            return None
        return data

    def _check_paid(self, site: str, number: int) -> None:
        """Note counts that leave before a line of the ledger was settled for them."""
        machine = self._federation.sites[site]
        kept = [
            r.detail["reserve"]
            for r in machine.records()
            if r.action == "budget.commit"
        ]
        paid = [r for r in charges(machine, number) if r.seq in kept]
        if len(paid) != 1:
            self.wrong.append(
                f"{site} told counts of round {number}, paid {len(paid)} times"
            )
