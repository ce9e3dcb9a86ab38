"""What the machine says of itself, gathered and not judged.

Nothing is changed, except one small file that is written into a folder and taken out
again. torch is looked for and never imported: an aggregator must not load it.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import socket
import ssl
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from fedsecure.disk import SystemDisk
from fedsecure.doctor.findings import Peer, Place, mount_kind
from fedsecure.errors import FedsecureError

DIAL_SECONDS = 2.0
_ANSWER_BYTES = 1 << 14
_PROBE_BYTES = 4096
_MOUNTS = Path("/proc/mounts")
_GPU = re.compile(r"nvidia\d+")


def installed(names: Iterable[str]) -> dict[str, str | None]:
    """Return the version of each distribution, None where it is missing."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def has_torch() -> bool:
    """Return whether torch could be imported; it is not."""
    return importlib.util.find_spec("torch") is not None


def gpus(folder: Path = Path("/dev")) -> int:
    """Return how many NVIDIA devices this machine shows."""
    try:
        return sum(_GPU.fullmatch(path.name) is not None for path in folder.iterdir())
    except OSError:
        return 0


def place(name: str, path: Path) -> Place:
    """Write, read back and remove a file in a folder; say where the folder lies.

    A folder that is missing is looked at through its nearest parent and is not made.
    """
    there = path.absolute()
    while not there.exists():
        there = there.parent
    there = there.resolve()
    kind = mount_kind(there, _mounts())
    free = shutil.disk_usage(there).free
    return Place(name, path, there.stat().st_dev, kind, free, _usable(there))


def _usable(folder: Path) -> str:
    disk, probe = SystemDisk(), folder / f"doctor-{uuid.uuid4().hex}"
    data = os.urandom(_PROBE_BYTES)
    try:
        disk.write_once(probe, data)
        same = disk.read(probe, _PROBE_BYTES) == data
        disk.delete(probe)
    except FedsecureError as bad:
        return str(bad)
    return "" if same else "gave back other bytes than were written"


def _mounts() -> str:
    try:
        return _MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""


def pair_problem(certificate: Path, key: Path) -> str:
    """Return why a certificate and a key cannot be served together; "" if they can."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as bad:
        reason = "KEY_VALUES_MISMATCH" in str(bad)
        what = "belongs to another certificate" if reason else "cannot be read"
        return f"{key} {what}"
    return ""


def listen_problem(host: str, port: int) -> int | None:
    """Return the errno of listening at an address; None if it can be done."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as bad:
        return bad.errno
    return None


def dial(name: str, address: str, root: Path) -> Peer:
    """Ask an aggregator for one answer over TLS, under the federation's authority.

    The answer's ``Date`` tells the peer's clock (RFC 9110 section 6.6.1), to a second.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        context = ssl.create_default_context(cafile=str(root))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection((host, int(port)), DIAL_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            member = _member(secure)
            skew = _skew(secure, host)
    except ssl.SSLCertVerificationError as bad:
        problem = f"its certificate does not verify: {bad.verify_message}"
        return Peer(name, address, "", problem, None)
    except (OSError, ValueError) as bad:
        return Peer(name, address, "", f"no answer ({bad})", None)
    return Peer(name, address, member, "", skew)


def _member(secure: ssl.SSLSocket) -> str:
    names = (secure.getpeercert() or {}).get("subjectAltName", ())
    found = [v for kind, v in _pairs(names) if kind == "URI"]
    return found[0] if found else ""


def _pairs(names: object) -> list[tuple[str, str]]:
    if not isinstance(names, tuple):
        return []
    return [(str(kind), str(value)) for kind, value in names]


def _skew(secure: ssl.SSLSocket, host: str) -> float | None:
    """Return the peer's clock minus ours in seconds; None if it does not say."""
    ask = f"HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    answer, ends = b"", time.monotonic() + DIAL_SECONDS
    try:
        secure.sendall(ask.encode())
        while b"\r\n\r\n" not in answer and len(answer) < _ANSWER_BYTES:
            part = secure.recv(4096)
            if not part or time.monotonic() > ends:
                break
            answer += part
    except OSError:
        return None
    return skew_of(answer, datetime.now(UTC))


def skew_of(answer: bytes, now: datetime) -> float | None:
    """Return how far an HTTP answer's ``Date`` is ahead of `now`; seconds or None."""
    found = re.search(rb"(?im)^date:[ \t]*([^\r\n]{1,64})\r?$", answer)
    if found is None:
        return None
    try:
        then = parsedate_to_datetime(found[1].decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None
    if then.tzinfo is None:
        return None
    return (then - now).total_seconds()
