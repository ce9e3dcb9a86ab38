"""Cut processes off some ports of this machine: a control group and one nftables rule.

A socket belongs to the group its process was in when it was made, so processes join
before they connect. Both directions of a connection need packets that go out.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def missing() -> str:
    """Return why nothing can be cut off here; "" if it can."""
    if os.geteuid() or shutil.which("nft") is None:
        return "cutting off takes root and nft"
    return "" if _unified() else "cutting off takes control groups of version 2"


def _unified() -> Path | None:
    places = (_ROOT, _ROOT / "unified")
    return next((p for p in places if (p / "cgroup.procs").exists()), None)


class Group:
    """Processes that can be cut off.

    Parameters
    ----------
    name : str
    ports : sequence of int
        What they can be cut off.
    """

    def __init__(self, name: str, ports: Sequence[int]) -> None:
        self.name = f"fed{os.getpid()}{name.replace('-', '')}"
        self._ports = ports
        root = _unified()
        if root is None:
            raise RuntimeError(missing())
        self.folder = root / self.name
        self.folder.mkdir()

    @property
    def prefix(self) -> list[str]:
        """What a command begins with that runs in the group."""
        script = f'echo $$ > {self.folder}/cgroup.procs; exec "$@"'
        return ["sh", "-c", script, "sh"]

    def join(self, pids: Iterable[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (self.folder / "cgroup.procs").write_text(str(pid))

    def cut(self) -> None:
        ports = ", ".join(str(port) for port in self._ports)
        path = self.folder.relative_to(_ROOT)
        where = f"inet {self.name}"
        _nft(
            f"add table {where}\n"
            f"add chain {where} out {{ type filter hook output priority 0; }}\n"
            f'add rule {where} out socket cgroupv2 level 1 "{path}" '
            f"tcp dport {{ {ports} }} drop\n"
        )

    def heal(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            _nft(f"delete table inet {self.name}\n")

    def remove(self) -> None:
        """Remove the group; its processes must have ended."""
        self.heal()
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def _nft(text: str) -> None:
    program = shutil.which("nft") or "nft"
    subprocess.run(
        [program, "-f", "-"], input=text, text=True, check=True, capture_output=True
    )
