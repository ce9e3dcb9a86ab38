"""How a daemon ends: by signal, cleanly, with an exit code that says why."""

import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from fedsecure.errors import FedsecureError


def on_stop() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def told(number: int, frame: FrameType | None) -> None:
        _ = number, frame
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    return stop


def log_to_stderr() -> None:
    """Log as systemd's journal likes it; no request lines of the HTTP client."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)


def run_main(main: Callable[[Path], int], kit: Path) -> None:
    """Run a daemon's main and exit: 0 done, 1 failed, 2 configuration, 3 refused."""
    log_to_stderr()
    try:
        sys.exit(main(kit))
    except FedsecureError as bad:
        sys.stderr.write(f"{bad}\n")
        sys.exit(bad.exit_code)
