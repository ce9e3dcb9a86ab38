"""What the settings of a bucket say: where it is, how long to wait, who signs.

Credentials come from the environment or from a file of mode 0600, never from the
settings themselves, and show themselves nowhere.
"""

import configparser
import ipaddress
import logging
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from fedsecure.errors import ConfigurationError, KeyExposed

log = logging.getLogger(__name__)

_MAX_FILE = 65536
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")
_PREFIX = re.compile(
    r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}){0,7}|"
)
_SETTINGS = [
    "url",
    "bucket",
    "prefix",
    "region",
    "credentials",
    "ca",
    "timeout",
    "attempts",
    "allow_http",
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the objects lie, and how long to wait for them.

    Attributes
    ----------
    url : str
        Scheme, host and port of the server; nothing else, no name or password.
    bucket : str
        Its bucket.
    prefix : str
        A key before every key; "" for the whole bucket.
    region : str
        What the server calls its region; it is signed with.
    timeout : float
        Seconds for one whole request, its body included.
    attempts : int
        Requests for one call, the first included.
    ca : bytes, optional
        PEM of a private certificate authority, beside the system's.
    """

    url: str
    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    timeout: float = 30.0
    attempts: int = 4
    ca: bytes | None = field(default=None, repr=False)

    def of(self, key: str) -> str:
        """Return the place of one key, for messages."""
        return "/".join(p for p in (self.url, self.bucket, self.prefix, key) if p)


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key; it shows nothing of itself."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def read_place(settings: Mapping[str, object]) -> Place:
    """Return where the bucket is.

    Parameters
    ----------
    settings : mapping
        ``url`` and ``bucket``; optional ``prefix`` (""), ``region`` ("us-east-1"),
        ``ca`` (a PEM file of a private authority), ``timeout`` (30 s a request),
        ``attempts`` (4), ``allow_http`` (False; loopback needs it not), and
        ``credentials`` (see `read_credentials`).

    Raises
    ------
    ConfigurationError
        A setting is missing, unknown or out of bounds.
    KeyExposed
        The URL holds a password.
    """
    unknown = sorted(set(settings) - set(_SETTINGS))
    if unknown:
        raise ConfigurationError(
            f"store s3 has no setting {', '.join(unknown)}; it has "
            f"{', '.join(_SETTINGS)}"
        )
    return Place(
        url=_url(settings.get("url"), settings.get("allow_http", False)),
        bucket=_text(settings, "bucket", "", _BUCKET, "a bucket's name"),
        prefix=_text(settings, "prefix", "", _PREFIX, "plain names between /"),
        region=_text(settings, "region", "us-east-1", _REGION, "a region's name"),
        timeout=_number(settings, "timeout", 30.0, 0.1, 3600.0),
        attempts=int(_number(settings, "attempts", 4, 1, 20)),
        ca=_authority(settings.get("ca")),
    )


def read_credentials(settings: Mapping[str, object]) -> Credentials:
    """Return the access key from ``settings["credentials"]`` or the environment.

    The file has mode 0600 and AWS's own form: ``aws_access_key_id``,
    ``aws_secret_access_key`` and perhaps ``aws_session_token`` under ``[default]``.
    Without a file the same names in capitals are read from the environment.

    Raises
    ------
    ConfigurationError
        No file, no such names in it, or nothing in the environment.
    KeyExposed
        The file can be read by others.
    """
    path = settings.get("credentials")
    if path is None:
        values: Mapping[str, str] = {k.lower(): v for k, v in os.environ.items()}
        where = "the environment; set them, or name a file of mode 0600 in credentials"
    elif isinstance(path, str | Path) and Path(path).is_absolute():
        values = _private(Path(path))
        where = f"{path}; write them under [default]"
    else:
        raise ConfigurationError(
            "store credentials must be the absolute path of a file"
        )
    key, secret = (
        values.get(f"aws_{n}") for n in ("access_key_id", "secret_access_key")
    )
    if not key or not secret:
        raise ConfigurationError(
            f"store s3: no aws_access_key_id and aws_secret_access_key in {where}"
        )
    return Credentials(key, secret, values.get("aws_session_token") or None)


def _private(path: Path) -> Mapping[str, str]:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise KeyExposed(
                f"{path} has mode {stat.S_IMODE(mode):04o}, must be a file of 0600: "
                f"others can read the access key in it; chmod 600 {path}"
            )
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_FILE)
        parsed = configparser.ConfigParser(interpolation=None)
        parsed.read_string(text)
    except OSError as missing:
        raise ConfigurationError(f"{path}: {missing.strerror}") from missing
    except (configparser.Error, UnicodeDecodeError):
        # Their own messages quote the line, which may hold the secret.
        raise ConfigurationError(
            f"{path} is no INI file; write aws_access_key_id and "
            "aws_secret_access_key under [default]"
        ) from None
    return dict(parsed["default"]) if parsed.has_section("default") else {}


def _url(url: object, allow_http: object) -> str:
    if not isinstance(allow_http, bool):
        raise ConfigurationError(f"store allow_http={allow_http!r}, must be a boolean")
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError("store url must be https://HOST[:PORT]") from None
    if "@" in parts.netloc:
        raise KeyExposed(
            "store url holds a name or a password; take it out, and name a file of "
            "mode 0600 in credentials"
        )
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigurationError("store url must be https://HOST[:PORT]")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(
            f"store url has more than https://HOST[:PORT] ({host}); bucket and prefix "
            "are settings of their own"
        )
    if parts.scheme == "http" and not _is_loopback(host):
        if not allow_http:
            raise ConfigurationError(
                f"store url http://{parts.netloc} is not encrypted: take https, or set "
                "allow_http if the network is yours alone"
            )
        log.warning("store http://%s is not encrypted (allow_http)", parts.netloc)
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _text(
    settings: Mapping[str, object],
    name: str,
    default: str,
    form: re.Pattern[str],
    what: str,
) -> str:
    value = settings.get(name, default)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ConfigurationError(f"store {name}={value!r}, must be {what}")
    return value


def _number(
    settings: Mapping[str, object], name: str, default: float, low: float, high: float
) -> float:
    value = settings.get(name, default)
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not low <= value <= high
        or (isinstance(default, int) and value != int(value))
    ):
        raise ConfigurationError(f"store {name}={value!r}, must be {low} to {high}")
    return float(value)


def _authority(path: object) -> bytes | None:
    if path is None:
        return None
    if not isinstance(path, str | Path) or not Path(path).is_absolute():
        raise ConfigurationError(
            f"store ca={path!r}, must be the absolute path of a file"
        )
    try:
        return Path(path).read_bytes()
    except OSError as missing:
        raise ConfigurationError(f"store ca {path}: {missing.strerror}") from missing
