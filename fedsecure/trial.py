"""Trials of a server before it is trusted: its place, its clock, a race."""

import ipaddress
import logging
import stat
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from fedsecure.errors import ConfigurationError, StorageError

log = logging.getLogger(__name__)

RACERS = 8
ROUNDS = 2


def one_winner(
    server: str,
    claim: Callable[[str], bool],
    *,
    racers: int = RACERS,
    rounds: int = ROUNDS,
) -> None:
    """Let many make the same key at once; exactly one may be told that it did.

    Servers were seen that let 2 to all 32 of 32 racers win (RESILIENCE section 8).

    Parameters
    ----------
    server : str
        What is tried; for the refusal.
    claim : callable
        Makes a key if it is not there and says whether it did.

    Raises
    ------
    ConfigurationError
        None or several won: two leaders could hold one term there.
    StorageError
        A racer got no answer, so the trial says nothing.
    """
    for _ in range(rounds):
        won = sum(_race(claim, f"trial-{uuid.uuid4().hex}", racers))
        if won != 1:
            raise ConfigurationError(
                f"{server} let {won} of {racers} make one key at once, must be 1: it "
                "cannot keep a lease; use another server"
            )


def check_skew(server: str, skew: float, bound: float) -> None:
    """Report how far a server's time of day is ahead of ours; refuse beyond `bound`.

    No lease depends on it: those are judged by one clock. Certificates, and Flower's
    authentication of nodes, do depend on clocks that agree.

    Parameters
    ----------
    skew, bound : float
        Seconds.

    Raises
    ------
    ConfigurationError
        Further apart than `bound`.
    """
    if abs(skew) > bound:
        raise ConfigurationError(
            f"the clock of {server} is {skew:+.1f} s from ours, at most {bound:g} s: "
            "set both by NTP, or raise max_skew"
        )
    log.info("the clock of %s is %+.3f s from ours", server, skew)


def seconds(settings: Mapping[str, object], name: str, default: float) -> float:
    """Return a setting that is a bound in seconds.

    Raises
    ------
    ConfigurationError
        Not 0.1 to 60.
    """
    value = settings.get(name, default)
    if not isinstance(value, int | float) or not 0.1 <= value <= 60:
        raise ConfigurationError(f"{name}={value!r}, must be 0.1 to 60 seconds")
    return float(value)


def check_private(path: Path) -> None:
    """Refuse a file with secrets that others can read.

    Raises
    ------
    ConfigurationError
        Missing, no regular file, or of a mode beyond 0600.
    """
    try:
        mode = path.stat().st_mode
    except OSError as missing:
        raise ConfigurationError(f"{path}: {missing.strerror}") from missing
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise ConfigurationError(
            f"{path} has mode {stat.S_IMODE(mode):04o}, must be a file of 0600: others "
            f"can read the secrets in it; chmod 600 {path}"
        )


def is_here(host: str) -> bool:
    """Return whether a host, or the folder of a socket, is on this machine."""
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _race(claim: Callable[[str], bool], key: str, racers: int) -> list[bool]:
    start = threading.Barrier(racers)
    answers: list[bool] = []
    failed: list[StorageError] = []

    def run() -> None:
        start.wait()
        try:
            answers.append(claim(key))
        except StorageError as no_answer:
            failed.append(no_answer)

    threads = [threading.Thread(target=run, name="trial") for _ in range(racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return answers
