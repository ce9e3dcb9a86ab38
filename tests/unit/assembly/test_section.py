"""A daemon's configuration file: absent, good, and each way of being bad."""

from pathlib import Path

import pytest

from fedsecure.assembly.section import MAX_BYTES, read_section
from fedsecure.config import NodeConfig
from fedsecure.errors import ConfigurationError, VerificationError


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_section(NodeConfig, tmp_path / "node.json") is None


def test_a_good_file_is_checked_into_its_section(tmp_path: Path) -> None:
    path = tmp_path / "node.json"
    path.write_text('{"data": {"name": "digits"}, "device": "cpu"}')
    found = read_section(NodeConfig, path)
    assert found is not None
    assert found.device == "cpu"


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"data": {}, "devise": "cpu"}'])
def test_a_bad_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "node.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"node\.json"):
        read_section(NodeConfig, path)


def test_a_file_beyond_the_bound_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "node.json"
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(VerificationError, match=str(MAX_BYTES)):
        read_section(NodeConfig, path)
