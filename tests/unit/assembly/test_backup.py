"""A kit in one file is the kit again in an empty folder, and never goes over newer."""

import shutil
from pathlib import Path

import pytest

from fedsecure.access.kit import read_kit
from fedsecure.assembly.backup import (
    after_restore,
    create,
    lid_of,
    restore,
    verify,
)
from fedsecure.assembly.filing import LEDGER, Act
from fedsecure.checkpoint.sealedfile import Passphrase
from fedsecure.clock import SystemClock
from fedsecure.disk import Disk, SystemDisk
from fedsecure.errors import AlreadyExists, KitError, StorageError, VerificationError
from fedsecure.ledger import Ledger, verify_ledger
from tests.fakes.kits import kit, make_kits

LID = Passphrase(b"correct horse", 1 << 14)


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kits(tmp_path_factory.mktemp("kits"))


@pytest.fixture
def site(provisioned: Path, tmp_path: Path) -> Path:
    """Return a site's kit that has three ledger lines and a shelf."""
    shutil.copytree(provisioned / "site-1", tmp_path / "site-1")
    state = tmp_path / "site-1" / "state"
    SystemDisk().write_once(state / "shelf" / "run" / "plan", b"a plan")
    SystemDisk().write_once(state / "shelf" / "run" / "out" / "1", b"an answer")
    SystemDisk().write_once(state / "daemon.log", b"no need of this")
    grow(tmp_path / "site-1", 2)
    return tmp_path / "site-1"


def ledger(path: Path) -> Ledger:
    found = read_kit(path, SystemDisk(), lambda p: p.stat().st_mode)
    return Ledger.open(
        path / LEDGER, found.name, found.signing, SystemDisk(), SystemClock()
    )


def grow(path: Path, lines: int) -> None:
    opened = ledger(path)
    for number in range(lines):
        opened.append("budget.reserve", f"line {number}")
    opened.close()


def lines(path: Path) -> int:
    return len(verify_ledger(path / LEDGER, SystemDisk()))


def test_a_kit_is_whole_again_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    create(site, tmp_path / "b", LID)
    restore(tmp_path / "b", tmp_path / "other", LID)
    found = kit(tmp_path, "other")
    assert found.name == "site-1"
    assert lines(tmp_path / "other") == 3
    assert (found.state / "shelf" / "run" / "out" / "1").read_bytes() == b"an answer"
    assert not (found.state / "daemon.log").exists()


def test_its_own_box_key_opens_it(site: Path, tmp_path: Path) -> None:
    made = create(site, tmp_path / "b")
    assert verify(tmp_path / "b", lid_of(site)) == made
    assert made.ledger is not None
    assert made.ledger.seq == 3


def test_another_kits_box_key_does_not(
    site: Path, provisioned: Path, tmp_path: Path
) -> None:
    create(site, tmp_path / "b")
    with pytest.raises(VerificationError):
        verify(tmp_path / "b", lid_of(provisioned / "site-2"))


def test_no_secret_of_the_kit_is_in_the_file(site: Path, tmp_path: Path) -> None:
    create(site, tmp_path / "b", LID)
    data = (tmp_path / "b").read_bytes()
    for key in site.glob("*.key"):
        assert key.read_bytes() not in data
    assert b"an answer" not in data


def test_others_cannot_read_it(site: Path, tmp_path: Path) -> None:
    create(site, tmp_path / "b", LID)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600


def test_a_backup_is_never_written_over(site: Path, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"an older one")
    with pytest.raises(AlreadyExists):
        create(site, tmp_path / "b", LID)
    assert (tmp_path / "b").read_bytes() == b"an older one"


def test_a_flipped_byte_is_found_and_nothing_is_written(
    site: Path, tmp_path: Path
) -> None:
    create(site, tmp_path / "b", LID)
    data = bytearray((tmp_path / "b").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(VerificationError):
        restore(tmp_path / "bad", tmp_path / "other", LID)
    assert not (tmp_path / "other").exists()


def test_a_longer_ledger_stays(site: Path, tmp_path: Path) -> None:
    create(site, tmp_path / "b", LID)
    grow(site, 2)
    assert restore(tmp_path / "b", site, LID)[LEDGER] == Act.LONGER
    assert lines(site) == 5


def test_a_shorter_ledger_is_continued(site: Path, tmp_path: Path) -> None:
    shorter = (site / LEDGER).read_bytes()
    grow(site, 2)
    create(site, tmp_path / "b", LID)
    (site / LEDGER).write_bytes(shorter)
    assert restore(tmp_path / "b", site, LID)[LEDGER] == Act.CONTINUE
    assert lines(site) == 5


def test_a_ledger_that_went_on_otherwise_is_refused(site: Path, tmp_path: Path) -> None:
    shorter = (site / LEDGER).read_bytes()
    grow(site, 2)
    create(site, tmp_path / "b", LID)
    (site / LEDGER).write_bytes(shorter)
    grow(site, 3)
    before = (site / LEDGER).read_bytes()
    (site / "state" / "shelf" / "run" / "plan").unlink()
    with pytest.raises(KitError, match=r"holds other state/ledger\.jsonl"):
        restore(tmp_path / "b", site, LID)
    assert (site / LEDGER).read_bytes() == before
    assert not (site / "state" / "shelf" / "run" / "plan").exists()


def test_a_running_daemon_is_noticed_at_both_ends(site: Path, tmp_path: Path) -> None:
    opened = ledger(site)
    assert not create(site, tmp_path / "b", LID).quiet
    with pytest.raises(StorageError, match="end it first"):
        restore(tmp_path / "b", site, LID)
    opened.close()
    assert create(site, tmp_path / "c", LID).quiet


class Cut(SystemDisk):
    """A disk that is gone before its n-th file."""

    def __init__(self, files: int) -> None:
        super().__init__()
        self.left = files

    def write_once(self, path: Path, data: bytes) -> None:
        if self.left == 0:
            raise StorageError("the disk is gone")
        self.left -= 1
        super().write_once(path, data)


@pytest.fixture(scope="module")
def packed(provisioned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a backup of twelve files and a ledger."""
    out = tmp_path_factory.mktemp("packed") / "b"
    grow(provisioned / "site-2", 2)
    assert len(create(provisioned / "site-2", out, LID).files) > 10
    return out


@pytest.mark.parametrize("files", range(11))
def test_a_restore_that_stops_after_any_file_is_no_kit_and_can_be_repeated(
    packed: Path, tmp_path: Path, files: int
) -> None:
    disk: Disk = Cut(files)
    with pytest.raises(StorageError):
        restore(packed, tmp_path / "other", LID, disk)
    with pytest.raises(KitError):
        kit(tmp_path, "other")
    restore(packed, tmp_path / "other", LID)
    assert kit(tmp_path, "other").name == "site-2"
    assert lines(tmp_path / "other") == 3


def test_a_person_is_told_that_an_older_ledger_will_be_refused(
    site: Path, tmp_path: Path
) -> None:
    said = after_restore(create(site, tmp_path / "b", LID))
    assert "ends at line 3" in said
    assert "refused" in said
