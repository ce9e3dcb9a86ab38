"""The settings of a bucket: what is refused, and that a secret shows nowhere."""

import logging
import traceback
from pathlib import Path

import pytest

from fedsecure.bucket import Credentials, Place, read_credentials, read_place
from fedsecure.errors import ConfigurationError, FedsecureError, KeyExposed

GOOD: dict[str, object] = {"url": "https://s3.example:9000", "bucket": "checkpoints"}
SECRET = "wJalrXUtnFEMI"  # noqa: S105 (AWS's own example)
WHOLE = f"[default]\naws_access_key_id = K\naws_secret_access_key = {SECRET}\n"


def _file(folder: Path, text: str, mode: int = 0o600) -> dict[str, object]:
    path = folder / "credentials"
    path.write_text(text)
    path.chmod(mode)
    return {"credentials": str(path)}


# --- the place ------------------------------------------------------------------------


def test_two_settings_are_enough() -> None:
    assert read_place(GOOD) == Place("https://s3.example:9000", "checkpoints")


def test_place_of_a_key_begins_with_the_url() -> None:
    place = read_place({**GOOD, "prefix": "fed/a"})
    assert place.of("k/1") == "https://s3.example:9000/checkpoints/fed/a/k/1"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("url", None),
        ("url", 3),
        ("url", ""),
        ("url", "s3.example"),
        ("url", "ftp://s3.example"),
        ("url", "https://"),
        ("url", "https://s3.example:99999"),
        ("url", "https://[::1"),
        ("url", "https://s3.example/bucket"),
        ("url", "https://s3.example?x=1"),
        ("bucket", None),
        ("bucket", "ab"),
        ("bucket", "A_B"),
        ("bucket", "a/b"),
        ("prefix", "/a"),
        ("prefix", "a/"),
        ("prefix", "a//b"),
        ("prefix", "../a"),
        ("prefix", None),
        ("region", "eu west"),
        ("timeout", 0),
        ("timeout", float("nan")),
        ("timeout", float("inf")),
        ("timeout", True),
        ("timeout", "5"),
        ("attempts", 0),
        ("attempts", 21),
        ("attempts", 1.5),
        ("allow_http", "yes"),
        ("ca", "relative.pem"),
        ("ca", "/no/such.pem"),
    ],
)
def test_setting_out_of_bounds_is_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"store {setting}"):
        read_place({**GOOD, setting: value})


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="no setting secret_access_key; it has"
    ):
        read_place({**GOOD, "secret_access_key": SECRET})


def test_value_of_an_unknown_setting_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_place({**GOOD, "secret_access_key": SECRET})
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("url", [f"https://u:{SECRET}@h", f"https://{SECRET}@h:1/x"])
def test_password_in_the_url_is_refused_unshown(url: str) -> None:
    with pytest.raises(KeyExposed) as refused:
        read_place({**GOOD, "url": url})
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"]
)
def test_http_is_for_loopback(url: str) -> None:
    assert read_place({**GOOD, "url": url}).url == url


@pytest.mark.parametrize("host", ["10.0.0.1", "s3.example", "localhost.example"])
def test_http_elsewhere_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="is not encrypted: take https"):
        read_place({**GOOD, "url": f"http://{host}:1"})


def test_http_elsewhere_that_is_allowed_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        read_place({**GOOD, "url": "http://10.0.0.1:1", "allow_http": True})
    assert "http://10.0.0.1:1 is not encrypted (allow_http)" in caplog.text


def test_authority_is_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"pem")
    assert read_place({**GOOD, "ca": str(tmp_path / "ca.pem")}).ca == b"pem"


# --- credentials ----------------------------------------------------------------------


def test_credentials_come_from_a_file(tmp_path: Path) -> None:
    found = read_credentials(_file(tmp_path, WHOLE + "aws_session_token = T\n"))
    assert found == Credentials("K", SECRET, "T")


def test_percent_in_a_secret_is_a_percent(tmp_path: Path) -> None:
    text = WHOLE.replace(SECRET, "a%b%%c")
    assert read_credentials(_file(tmp_path, text)) == Credentials("K", "a%b%%c")


def test_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "K")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    assert read_credentials({}) == Credentials("K", SECRET)


def test_file_does_not_mix_with_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "other")
    assert read_credentials(_file(tmp_path, WHOLE)).token is None


def test_empty_environment_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(ConfigurationError, match="name a file of mode 0600") as refused:
        read_credentials({})
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(KeyExposed, match=f"mode {mode:04o}, must be .* 0600: .*chmod"):
        read_credentials(_file(tmp_path, WHOLE, mode))


@pytest.mark.parametrize(
    "text",
    [
        "",
        SECRET,
        f"aws_secret_access_key = {SECRET}",
        f"[default]\naws_secret_access_key = {SECRET}",
        f"[default]\n{SECRET}",
        f"[other]\naws_access_key_id = K\naws_secret_access_key = {SECRET}",
        f"[default]\naws_secret_access_key={SECRET}\naws_secret_access_key={SECRET}",
    ],
)
def test_file_without_both_is_refused_and_shows_no_secret(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"\[default\]") as refused:
        read_credentials(_file(tmp_path, text))
    told = "".join(traceback.format_exception(refused.value))
    assert SECRET not in told


@pytest.mark.parametrize("path", ["relative", 3, "/no/such/file", "/"])
def test_path_that_is_no_file_is_refused(path: object) -> None:
    with pytest.raises(FedsecureError):
        read_credentials({"credentials": path})


def test_credentials_show_nothing_of_themselves() -> None:
    assert repr(Credentials("K", SECRET, "T")) == "Credentials()"
