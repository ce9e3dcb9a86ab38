"""A server is tried before it is trusted."""

import logging
import threading
from pathlib import Path

import pytest

from fedsecure.errors import ConfigurationError, StorageError
from fedsecure.trial import check_private, check_skew, is_here, one_winner, seconds


class Table:
    """A key table; `honest` ones let one caller make a key."""

    def __init__(self, *, honest: bool) -> None:
        self.honest = honest
        self.made: list[str] = []
        self._turn = threading.Lock()

    def claim(self, key: str) -> bool:
        with self._turn:
            first = key not in self.made
            self.made.append(key)
            return first or not self.honest


def test_server_with_one_winner_passes() -> None:
    table = Table(honest=True)
    one_winner("the server", table.claim, racers=4, rounds=3)
    assert len(table.made) == 12
    assert len(set(table.made)) == 3


def test_server_that_lets_several_win_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="the server let 4 of 4 make one key"):
        one_winner("the server", Table(honest=False).claim, racers=4)


def test_server_that_lets_nobody_win_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="let 0 of 4"):
        one_winner("the server", lambda _: False, racers=4)


def test_race_without_an_answer_says_nothing() -> None:
    def silent(key: str) -> bool:
        raise StorageError("no answer")

    with pytest.raises(StorageError, match="no answer"):
        one_winner("the server", silent, racers=2)


@pytest.mark.parametrize("skew", [-5.0, 0.0, 5.0])
def test_clock_within_the_bound_is_reported(
    skew: float, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        check_skew("the server", skew, 5.0)
    assert f"the clock of the server is {skew:+.3f} s from ours" in caplog.text


@pytest.mark.parametrize("skew", [-5.1, 5.1])
def test_clock_beyond_the_bound_is_refused(skew: float) -> None:
    with pytest.raises(
        ConfigurationError, match=r"is [+-]5.1 s from ours, at most 5 s"
    ):
        check_skew("the server", skew, 5.0)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_text("hidden")
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"mode {mode:04o}, must be") as bad:
        check_private(path)
    assert "hidden" not in str(bad.value)


def test_secret_of_its_owner_passes(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch(0o600)
    check_private(path)


def test_missing_secret_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        check_private(tmp_path / "missing")
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigurationError, match="must be a file"):
        check_private(tmp_path)


@pytest.mark.parametrize(
    "host", ["", "localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "/run/pg", "@x"]
)
def test_this_machine_is_here(host: str) -> None:
    assert is_here(host)


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "db.example", "localhost.evil", "2001::1"]
)
def test_another_machine_is_not_here(host: str) -> None:
    assert not is_here(host)


@pytest.mark.parametrize("value", [0, 0.05, 61, "1", None, float("nan")])
def test_bound_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"must be 0\.1 to 60 seconds"):
        seconds({"timeout": value}, "timeout", 1.0)


def test_bound_that_is_not_named_has_its_default() -> None:
    assert seconds({}, "timeout", 1.5) == 1.5
    assert seconds({"timeout": 2}, "timeout", 1.5) == 2.0
