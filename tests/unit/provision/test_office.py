from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedsecure.errors import KitError
from fedsecure.provision.ca import ISSUING_DAYS, LEAF_DAYS, check_certificate, issue
from fedsecure.provision.office import open_office, read_passphrase

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=ISSUING_DAYS - LEAF_DAYS + 1)
URN = "urn:fedsecure:ab:aggregator:agg-1"


def _tree(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_opened_again_it_is_the_same_authority(tmp_path: Path) -> None:
    first = open_office(tmp_path, "heart", NOW, None)
    before = _tree(tmp_path)
    again = open_office(tmp_path, "heart", NOW, None)
    assert again.roster_key.public == first.roster_key.public
    assert _tree(tmp_path) == before


def test_its_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    open_office(tmp_path, "heart", NOW, None)
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "ca").iterdir()} == {0o600}


def test_a_passphrase_encrypts_every_private_key(tmp_path: Path) -> None:
    open_office(tmp_path, "heart", NOW, b"pass")
    private = [d for d in _tree(tmp_path / "ca").values() if b"PRIVATE" in d]
    assert len(private) == 3
    assert all(b"BEGIN ENCRYPTED PRIVATE KEY" in data for data in private)


@pytest.mark.parametrize(
    ("made", "opened", "said"),
    [
        (b"pass", None, "are encrypted: pass the file"),
        (b"pass", b"word", "passphrase is wrong"),
        (None, b"word", "not encrypted"),
    ],
)
def test_another_passphrase_does_not_open_it(
    tmp_path: Path, made: bytes | None, opened: bytes | None, said: str
) -> None:
    open_office(tmp_path, "heart", NOW, made)
    with pytest.raises(KitError, match=said) as shut:
        open_office(tmp_path, "heart", NOW, opened)
    assert "word" not in str(shut.value).replace("the passphrase", "")


def test_another_federation_does_not_open_it(tmp_path: Path) -> None:
    open_office(tmp_path, "heart", NOW, None)
    with pytest.raises(KitError, match=r"federation 'heart'.*is of 'lung'"):
        open_office(tmp_path, "lung", NOW, None)


def test_any_name_opens_it_where_none_is_asked(tmp_path: Path) -> None:
    first = open_office(tmp_path, "heart", NOW, None)
    assert open_office(tmp_path, None, NOW, None).root == first.root


def test_without_a_name_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="holds no federation"):
        open_office(tmp_path, None, NOW, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", ["roster.json", "site-01/kit.json"])
def test_a_lost_authority_is_not_made_anew(tmp_path: Path, left: str) -> None:
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).touch()
    with pytest.raises(KitError, match="bring the authority's folder back"):
        open_office(tmp_path, "heart", NOW, None)


@pytest.mark.parametrize("name", ["ca.crt", "roster.key", "issuing.pem"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    open_office(tmp_path, "heart", NOW, None)
    (tmp_path / "ca" / name).unlink()
    with pytest.raises(KitError, match=f"{name} is missing"):
        open_office(tmp_path, "heart", NOW, None)


@pytest.mark.parametrize("name", ["", "roster.key", "root.key"])
def test_a_folder_or_key_others_may_read_is_refused(tmp_path: Path, name: str) -> None:
    open_office(tmp_path, "heart", NOW, None)
    (tmp_path / "ca" / name).chmod(0o750)
    with pytest.raises(KitError, match="chmod go-rwx"):
        open_office(tmp_path, "heart", NOW, None)


def test_what_a_crash_left_half_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / ".ca").mkdir()
    (tmp_path / ".ca" / "root.key").write_bytes(b"half")
    office = open_office(tmp_path, "heart", NOW, None)
    assert office.root.startswith(b"-----BEGIN CERTIFICATE-----")
    assert not (tmp_path / ".ca").exists()


def test_the_root_key_is_not_needed_from_day_to_day(tmp_path: Path) -> None:
    first = open_office(tmp_path, "heart", NOW, None)
    (tmp_path / "ca" / "root.key").unlink()
    assert open_office(tmp_path, "heart", NOW, None).root == first.root


def test_an_issuing_authority_is_replaced_before_a_leaf_could_outlive_it(
    tmp_path: Path,
) -> None:
    first = open_office(tmp_path, "heart", NOW, b"pass")
    later = open_office(tmp_path, "heart", LATER, b"pass")
    assert later.issuing.certificate != first.issuing.certificate
    chain, _ = issue(later.issuing, ["127.0.0.1"], URN, LATER)
    end = LATER + timedelta(days=LEAF_DAYS - 1)
    check_certificate(chain, first.root, "127.0.0.1", end)


def test_the_root_key_is_asked_for_when_it_is_needed(tmp_path: Path) -> None:
    open_office(tmp_path, "heart", NOW, None)
    (tmp_path / "ca" / "root.key").unlink()
    with pytest.raises(KitError, match=r"root\.key is missing: bring"):
        open_office(tmp_path, "heart", LATER, None)


@pytest.mark.parametrize("text", [b"three officers", b"three officers\r\nnote\n"])
def test_a_passphrase_is_the_first_line_of_its_file(
    tmp_path: Path, text: bytes
) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(text)
    path.chmod(0o600)
    assert read_passphrase(path) == b"three officers"


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_passphrase_that_others_may_read_is_refused(
    tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(b"three officers")
    path.chmod(mode)
    with pytest.raises(KitError, match="chmod 600") as refused:
        read_passphrase(path)
    assert "three" not in str(refused.value)


@pytest.mark.parametrize("text", [b"", b"\nsecond line"])
def test_an_empty_passphrase_is_none(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(KitError, match="first line is empty"):
        read_passphrase(path)


def test_a_missing_passphrase_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="nowhere is missing"):
        read_passphrase(tmp_path / "nowhere")
