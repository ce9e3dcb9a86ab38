"""What broken stores must not cost, and that they were broken at all."""

from pathlib import Path

import pytest

from fedsecure.backends import Event, Outcome
from fedsecure.clock import SystemClock
from fedsecure.drills import stores
from fedsecure.drills.scene import BREAK_IN, Scene
from fedsecure.drills.stores import ChangedCopies, FullDisk, LostStore, OtherMachine
from fedsecure.errors import VerificationError
from fedsecure.metadata import Head

UPDATE: Event = {"event": "update", "source": "agg-1", "round": BREAK_IN, "now": 1.0}
NOTHING = Outcome((), {}, {})


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path, SystemClock())
    for number in ("1", "2", "3"):
        (made.run / "stores" / number).mkdir(parents=True)
    return made


@pytest.mark.parametrize("kind", [ChangedCopies, LostStore, FullDisk, OtherMachine])
def test_a_drill_in_which_nothing_broke_says_so(
    kind: type[ChangedCopies | LostStore | FullDisk | OtherMachine],
) -> None:
    assert f"nothing broke in round {BREAK_IN}" in kind().missed(NOTHING)


def test_one_bit_of_each_copy_changes(scene: Scene) -> None:
    copy = scene.run / "stores" / "1" / "object"
    copy.write_bytes(b"abc")
    fault = ChangedCopies()
    fault.begin(scene)
    fault.see(UPDATE)
    assert copy.read_bytes() == b"acc"
    assert fault.missed(NOTHING) == []


def test_a_store_with_nothing_to_change_shows_nothing(scene: Scene) -> None:
    fault = ChangedCopies()
    fault.begin(scene)
    fault.see(UPDATE)
    assert fault.missed(NOTHING) == ["the store was empty"]


def test_a_lost_store_is_no_folder_any_more(scene: Scene) -> None:
    fault = LostStore()
    fault.begin(scene)
    fault.see(UPDATE)
    assert (scene.run / "stores" / "1").is_file()
    assert fault.missed(NOTHING) == []


class Copy:
    """A copy of a store that lacks some rounds."""

    def __init__(self, *lacks: int) -> None:
        self._lacks = lacks

    def verify_release(self, head: Head) -> None:
        if head.round in self._lacks:
            raise VerificationError("no manifest")


def other(
    monkeypatch: pytest.MonkeyPatch, scene: Scene, rounds: list[int], *lacks: int
) -> OtherMachine:
    """Return the fault after it copied a store in which these rounds lay."""
    (scene.kits / "agg-1").mkdir(parents=True)
    (scene.kits / "agg-1" / "kit.json").touch()
    ledger = scene.run / "sites" / "a" / "ledger.jsonl"
    ledger.parent.mkdir(parents=True)
    ledger.write_text("two\nlines\n")
    heads = [Head("run", number, number, b"", 1) for number in rounds]
    monkeypatch.setattr(stores, "heads_of", lambda _: heads)
    monkeypatch.setattr(stores, "read_kit", lambda *_: None)
    monkeypatch.setattr(stores, "vault_of", lambda *_: Copy(*lacks))
    fault = OtherMachine()
    fault.begin(scene)
    fault.see(UPDATE)
    return fault


def test_a_copy_that_gives_all_rounds_back_is_what_was_promised(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    assert other(monkeypatch, scene, [1]).missed(NOTHING) == []


def test_a_copy_that_lacks_a_round_breaks_the_promise(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    assert other(monkeypatch, scene, [1], 1).missed(NOTHING) == [
        "round 1 is not in the copy: no manifest"
    ]


def test_a_copy_of_nothing_breaks_the_promise(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    assert other(monkeypatch, scene, []).missed(NOTHING) == [
        "no round was committed before the copy"
    ]


def test_a_ledger_that_went_back_breaks_the_promise(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    fault = other(monkeypatch, scene, [1])
    ledger = scene.run / "sites" / "a" / "ledger.jsonl"
    ledger.write_text("two\n")
    assert fault.missed(NOTHING) == [f"{ledger} is shorter than before"]
