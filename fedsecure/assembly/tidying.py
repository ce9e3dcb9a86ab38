"""Retention for an operator: what would go, and, when told so, its going."""

from datetime import datetime, timedelta

from fedsecure.assembly.checkpoints import Desk, note
from fedsecure.checkpoint.judge import Family, family
from fedsecure.checkpoint.retention import (
    Due,
    Facts,
    Rules,
    carry_out,
    is_complete,
    read_marks,
    require_all,
    sweep,
)
from fedsecure.metadata import Step
from fedsecure.server_round import read_detail


def due(desk: Desk, now: datetime) -> list[Due]:
    """Return what the retention rules of a configuration would do now.

    Raises
    ------
    StorageError
        A store or the engine does not answer.
    """
    inventory, keep = desk.inventory, desk.config.keep
    require_all(inventory)
    rules = Rules(keep.last, keep.days, keep.every, timedelta(hours=keep.grace_hours))
    marks = read_marks(inventory.stores, inventory.held)
    return sweep(inventory, _facts(desk), rules, now, marks)


def remove(desk: Desk, steps: list[Due], now: datetime) -> int:
    """Do what is due and note it; a repeat goes on where a crash ended it."""
    removed = carry_out(desk.inventory.stores, steps, now)
    note(desk, "removed", {"keys": removed})
    return removed


def _facts(desk: Desk) -> Facts:
    complete, named, over = set[str](), set[str](), set[str]()
    of_run: dict[str, tuple[str, ...]] = {}
    journal = desk.engine.journal
    for run in {desk.run, *desk.inventory.chains}:
        entries = list(journal.entries(run, 0))
        if is_complete(journal.head(run), entries):
            complete.add(run)
        ended = {e.round for e in entries if e.step in {Step.SKIP, Step.PUBLISH}}
        objects = [
            (e, str(read_detail(e)["object"]))
            for e in entries
            if e.step in {Step.BEGIN, Step.UPDATE}
        ]
        of_run[run] = tuple(o for e, o in objects if e.step == Step.BEGIN)
        named |= {o for e, o in objects if e.round not in ended}
        over |= {o for _, o in objects if family(o) == Family.UPDATE} - named
    return Facts(frozenset(complete), frozenset(named), frozenset(over), of_run)
