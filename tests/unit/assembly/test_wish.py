"""An operator's wish: made once, seen until it is granted."""

from pathlib import Path

from fedsecure.assembly.wish import WishFile
from fedsecure.disk import SystemDisk


def wish(tmp_path: Path, run: str = "run-1") -> WishFile:
    return WishFile.rotate(tmp_path, run, SystemDisk())


def test_nobody_wishes_at_first(tmp_path: Path) -> None:
    assert not wish(tmp_path).wanted()


def test_a_wish_is_seen_by_another_process_until_it_is_granted(tmp_path: Path) -> None:
    wish(tmp_path).make()
    assert wish(tmp_path).wanted()
    wish(tmp_path).granted()
    assert not wish(tmp_path).wanted()


def test_wishing_twice_is_one_wish(tmp_path: Path) -> None:
    wish(tmp_path).make()
    wish(tmp_path).make()
    wish(tmp_path).granted()
    assert not wish(tmp_path).wanted()


def test_granting_without_a_wish_is_no_error(tmp_path: Path) -> None:
    wish(tmp_path).granted()


def test_a_wish_is_for_one_run(tmp_path: Path) -> None:
    wish(tmp_path).make()
    assert not wish(tmp_path, "run-2").wanted()
