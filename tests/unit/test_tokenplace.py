"""Where the PIN may come from, and what is said when it does not."""

from pathlib import Path

import pytest

from fedsecure.errors import ConfigurationError
from fedsecure.tokenplace import Place, read_pin, read_place

SETTINGS: dict[str, object] = {"module": "/lib.so", "token": "t", "label": "l"}


@pytest.fixture
def pin_file(tmp_path: Path) -> Path:
    path = tmp_path / "pin"
    path.touch(0o600)
    path.write_text("4321\nnot this line\n")
    return path


def _place(path: Path) -> Place:
    return read_place({**SETTINGS, "pin_file": str(path)})


def test_the_pin_is_the_first_line(pin_file: Path) -> None:
    assert read_pin(_place(pin_file)) == "4321"


def test_a_line_may_end_as_on_windows(pin_file: Path) -> None:
    pin_file.write_bytes(b"4321\r\n")
    assert read_pin(_place(pin_file)) == "4321"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_pin_that_others_may_read_is_refused(pin_file: Path, mode: int) -> None:
    pin_file.chmod(mode)
    with pytest.raises(ConfigurationError, match="can be read by others: chmod 600"):
        read_pin(_place(pin_file))


@pytest.mark.parametrize(
    ("data", "said"), [(b"", "empty"), (b"\n4321", "empty"), (b"\xff\xfe", "UTF-8")]
)
def test_a_file_without_a_pin_is_refused(
    pin_file: Path, data: bytes, said: str
) -> None:
    pin_file.write_bytes(data)
    with pytest.raises(ConfigurationError, match=said) as refused:
        read_pin(_place(pin_file))
    assert "4321" not in str(refused.value)


def test_a_missing_file_names_the_token(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="must hold the PIN of token 't'"):
        read_pin(_place(tmp_path / "nothing"))


def test_a_folder_or_a_relative_path_is_no_pin_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no absolute path of a file"):
        read_pin(_place(tmp_path))


def test_a_credential_of_systemd_is_read_whatever_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hsm-pin").write_text("4321")
    (tmp_path / "hsm-pin").chmod(0o440)  # as systemd shows it: an ACL is behind
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_pin(read_place({**SETTINGS, "pin_credential": "hsm-pin"})) == "4321"


@pytest.mark.parametrize("name", ["hsm-pin", "../pin", ".."])
def test_a_credential_that_does_not_reach_the_process_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigurationError, match="LoadCredential="):
        read_place({**SETTINGS, "pin_credential": name})


@pytest.mark.parametrize(
    "pins", [{}, {"pin_file": "/a", "pin_credential": "b"}, {"pin": "4321"}]
)
def test_one_place_of_the_pin_is_needed(pins: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="never the PIN itself") as refused:
        read_place({**SETTINGS, **pins})
    assert "4321" not in str(refused.value)


@pytest.mark.parametrize("field", ["module", "token", "label"])
def test_a_missing_field_is_named(field: str) -> None:
    settings = {k: v for k, v in SETTINGS.items() if k != field}
    with pytest.raises(ConfigurationError, match=f"needs {field}"):
        read_place({**settings, "pin_file": "/a"})


def test_a_place_shows_labels_and_no_pin(pin_file: Path) -> None:
    shown = f"{_place(pin_file)} {_place(pin_file)!r}"
    assert "'t'" in shown
    assert "4321" not in shown
