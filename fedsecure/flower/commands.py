"""Command lines and environments of Flower's own processes."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "NO_PROXY": "localhost,127.0.0.1",
    "PYTHONUNBUFFERED": "1",
    "OMP_NUM_THREADS": "1",
}
SERVER_HEAP = {"MALLOC_MMAP_THRESHOLD_": "262144"}
"""Give a large block back to the system when freed: else each thread keeps a model."""
_PROGRAMS = Path(sys.executable).parent
_TOKENS = (  # paths, no secrets: where a PKCS#11 library finds its device and its PIN
    "CREDENTIALS_DIRECTORY",
    "SOFTHSM2_CONF",
    "ChrystokiConfigurationPath",
    "CS_PKCS11_R3_CFG",
    "NFAST_HOME",
    "TPM2_PKCS11_STORE",
    "YUBIHSM_PKCS11_CONF",
)
_KEPT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_DIR", "PYTHONPATH"),
    *_TOKENS,
)


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of an aggregator's TLS files."""

    root: Path
    certificate: Path
    key: Path


def superlink(host: str, port: int, tls: Tls, database: Path) -> list[str]:
    """Return the command of a SuperLink with TLS and node authentication."""
    return [
        _program("flower-superlink"),
        "--host",
        host,
        "--port",
        str(port),
        "--ssl-ca-certfile",
        str(tls.root),
        "--ssl-certfile",
        str(tls.certificate),
        "--ssl-keyfile",
        str(tls.key),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
        "--database",
        str(database),
    ]


def supernode(
    superlink_address: str, root: Path, key: Path, relay: Path, port: int
) -> list[str]:
    """Return the command of a supernode that relays to the node daemon's socket."""
    return [
        _program("flower-supernode"),
        "--superlink",
        superlink_address,
        "--root-certificates",
        str(root),
        "--auth-supernode-private-key",
        str(key),
        "--node-config",
        f'relay="{relay}"',
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a child's whole environment: offline, its own FLWR_HOME, no secret."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    # Flower starts its own programs by name: this environment's come first.
    kept["PATH"] = os.pathsep.join([str(_PROGRAMS), kept.get("PATH", os.defpath)])
    home.mkdir(parents=True, exist_ok=True)
    return {**kept, **_OFFLINE, "FLWR_HOME": str(home), **(extra or {})}


def _program(name: str) -> str:
    """Return a console script of this very environment."""
    return str(_PROGRAMS / name)
