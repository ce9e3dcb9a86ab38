"""A run by command that encrypts its last layer only: same model, and told so."""

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from typer.testing import CliRunner

from fedsecure.cli import app

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

WORDS = (
    "backend=inprocess",
    "privacy=none",
    "model=mlp",
    "model.hidden=[1024]",
    "federation.rounds=2",
    "baselines=false",
)


@cache
def ran(*more: str) -> tuple[Path, str]:
    """Return the folder of a run, and what was printed."""
    root = mkdtemp(prefix="fed-")
    result = CliRunner().invoke(app, ["run", *WORDS, f"run_root={root}", *more])
    assert result.exit_code == 0, result.output
    return Path(result.output.split()[-1]), result.output


def models(folder: Path) -> set[bytes]:
    found = folder.glob("sites/*/shelf/*/model/2")
    return {path.read_bytes() for path in found}


@pytest.mark.parametrize("masking", ["none", "pairwise"])
def test_the_last_layer_alone_is_encrypted_and_the_model_is_the_same(
    masking: str,
) -> None:
    some, _ = ran("encryption.encrypt_layers=[3.*]", f"encryption.masking={masking}")
    whole, _ = ran()
    assert len(models(some)) == 1
    assert models(some) == models(whole)


def test_summary_and_output_say_so() -> None:
    folder, said = ran("encryption.encrypt_layers=[3.*]", "encryption.masking=pairwise")
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert summary["encryption"]["encrypt_layers"] == ["3.*"]
    assert any("Only the tensors 3.* were encrypted" in n for n in summary["notes"])
    assert "bfv encryption of 3.* only" in " ".join(said.split())


def test_a_pattern_of_no_tensor_ends_the_command_with_a_sentence(
    tmp_path: Path,
) -> None:
    words = ["run", *WORDS, f"run_root={tmp_path}", "encryption.encrypt_layers=[9.*]"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code != 0
    assert not list(tmp_path.iterdir())
