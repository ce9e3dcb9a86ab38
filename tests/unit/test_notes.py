"""What a report says beside its figures."""

from fedsecure.config import RunConfig
from fedsecure.notes import run_notes


def notes(*patterns: str) -> str:
    encryption = {"encrypt_layers": list(patterns)} if patterns else {}
    config = RunConfig.parse({"encryption": encryption})
    return " ".join(map(str, run_notes(config, shared=False)))


def test_a_run_with_open_layers_says_who_read_them() -> None:
    said = notes("fc.*", "out")
    assert "Only the tensors fc.*, out were encrypted" in said
    assert "gradient inversion" in said


def test_a_run_that_encrypts_all_says_nothing_of_layers() -> None:
    assert "Only the tensors" not in notes()
