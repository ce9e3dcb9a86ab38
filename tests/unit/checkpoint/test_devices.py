"""Folders of one disk are told apart from those of two; who hangs stops nobody."""

import threading
from pathlib import Path

import pytest

from fedsecure.checkpoint import devices
from fedsecure.checkpoint.call import Moved
from fedsecure.checkpoint.devices import shared_devices


def test_folders_of_one_disk_are_found_before_they_exist(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name / "store" for name in "abc")
    one.mkdir(parents=True)
    assert shared_devices([one, two, three]) == [(one, two), (one, three)]


def test_folders_of_two_disks_are_apart(tmp_path: Path) -> None:
    shm = Path("/dev/shm")  # noqa: S108 - another file system, nothing is written
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has no second file system at /dev/shm")
    assert shared_devices([tmp_path, shm]) == []


def test_a_mount_that_does_not_answer_is_on_no_device_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, back, plain = tmp_path / "gone", threading.Event(), devices._device

    def hangs(path: Path, moved: Moved) -> int:
        if path == gone:
            back.wait(30.0)
        return plain(path, moved)

    monkeypatch.setattr(devices, "_device", hangs)
    one, two = tmp_path / "1", tmp_path / "2"
    assert shared_devices([one, gone, two], 0.05) == [(one, two)]
    back.set()
