"""A store in a folder: how keys become files."""

from pathlib import Path

import pytest

from fedsecure import registry
from fedsecure.errors import ConfigurationError
from fedsecure.stores import Store


def _store(folder: Path) -> Store:
    store: Store = registry.load("stores", "local").create({"path": folder})
    return store


def test_objects_outlive_the_store_object(tmp_path: Path) -> None:
    _store(tmp_path / "s").put("a/b", b"1")
    assert _store(tmp_path / "s").get("a/b", 1) == b"1"


def test_parts_of_a_key_are_folders_and_file(tmp_path: Path) -> None:
    _store(tmp_path).put("a/b", b"1")
    assert (tmp_path / "a" / "b").read_bytes() == b"1"


@pytest.mark.parametrize("plug", ["local", "memory"])
@pytest.mark.parametrize("prefix", ["/", "/etc/", "../", "a/../../", "a//", "./"])
def test_prefix_that_leads_outside_the_store_is_refused(
    tmp_path: Path, plug: str, prefix: str
) -> None:
    store: Store = registry.load("stores", plug).create({"path": tmp_path / "s"})
    (tmp_path / "secret").write_bytes(b"1")
    with pytest.raises(ConfigurationError, match="parts must be"):
        store.keys(prefix)


def test_files_without_a_keys_name_are_not_listed(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.put("a", b"1")
    (tmp_path / "not a key").write_bytes(b"1")
    (tmp_path / ".tmp-half").write_bytes(b"1")
    assert store.keys("") == ("a",)


def test_folder_and_file_are_for_the_owner_alone(tmp_path: Path) -> None:
    _store(tmp_path / "s").put("a/b", b"1")
    for path in (tmp_path / "s", tmp_path / "s" / "a", tmp_path / "s" / "a" / "b"):
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("path", [None, "relative", 3, ""])
def test_path_must_be_absolute(path: object) -> None:
    with pytest.raises(ConfigurationError, match="must be an absolute folder"):
        registry.load("stores", "local").create({"path": path})
