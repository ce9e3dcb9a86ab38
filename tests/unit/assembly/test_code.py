"""The digest of the code: every source that counts counts, and nothing else does."""

from pathlib import Path

import pytest

from fedsecure.assembly.code import digest, own_digest
from fedsecure.disk import SystemDisk
from tests.fakes.disk import FakeDisk

PACKAGE = Path("/package")
SOURCES = ("body.py", "checkpoint/vault.py", "flower/driver.py", "metadata/etcd.py")


def _disk(**changed: bytes) -> FakeDisk:
    files = dict.fromkeys(SOURCES, b"code") | changed
    return FakeDisk(cached={PACKAGE / name: data for name, data in files.items()})


@pytest.mark.parametrize("name", SOURCES)
def test_each_source_counts(name: str) -> None:
    assert digest(PACKAGE, _disk(**{name: b"else"})) != digest(PACKAGE, _disk())


def test_a_source_more_counts() -> None:
    more = _disk(**{"flower/more.py": b""})
    assert digest(PACKAGE, more) != digest(PACKAGE, _disk())


@pytest.mark.parametrize("name", ["flower/__pycache__/driver.pyc", "config.py"])
def test_what_decides_nothing_does_not_count(name: str) -> None:
    assert digest(PACKAGE, _disk(**{name: b"x"})) == digest(PACKAGE, _disk())


def test_where_code_lies_does_not_count() -> None:
    there = FakeDisk(cached={Path("/b") / name: b"code" for name in SOURCES})
    assert digest(Path("/b"), there) == digest(PACKAGE, _disk())


def test_our_own_code_has_one() -> None:
    assert own_digest(SystemDisk()) == own_digest(SystemDisk())
    assert own_digest(SystemDisk()) != digest(PACKAGE, FakeDisk())
