"""A ledger in memory, for what is said about lines and not about disks."""

from collections.abc import Mapping

from fedsecure.ledger import Record
from fedsecure.update import JSON


class Paper:
    """Lines without chain, signature or disk."""

    def __init__(self) -> None:
        self.lines: list[Record] = []

    def records(self) -> tuple[Record, ...]:
        return tuple(self.lines)

    def append(
        self,
        action: str,
        what: str,
        *,
        run: str = "",
        round: int = 0,  # noqa: A002  the ledger's own word
        detail: Mapping[str, JSON] | None = None,
    ) -> Record:
        line = line_of(len(self.lines), action, what, run, round, detail or {})
        self.lines.append(line)
        return line

    def actions(self) -> list[str]:
        return [line.action for line in self.lines]


def line_of(
    seq: int, action: str, what: str, run: str, number: int, detail: Mapping[str, JSON]
) -> Record:
    return Record(
        seq=seq,
        prev="",
        time="",
        term=0,
        action=action,
        object=what,
        outcome="ok",
        code="",
        run=run,
        round=number,
        detail=detail,
        hash="",
        sig="",
    )
