"""``federation.yaml``: who is to take part, read strictly by the rules of YAML 1.2."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fedsecure.access.roster import Role
from fedsecure.errors import ConfigurationError
from fedsecure.provision.ca import host_of

MAX_BYTES = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,14}")
_RESERVED = {"ca"}  # the authority's own folder
_GROUPS = {
    "aggregators": (Role.AGGREGATOR, {"name", "host", "port", "organisation"}),
    "sites": (Role.SITE, {"name", "organisation"}),
    "operators": (Role.OPERATOR, {"name", "organisation"}),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A member as ``federation.yaml`` asks for it.

    Attributes
    ----------
    name : str
        a-z, 0-9 and '-', at most 15 characters; a folder's name.
    role : Role
    organisation : str
    address : str
        "host:port" of an aggregator, an IPv6 host in brackets; "" for others.
    host : str
        Its host alone; "" for others.
    """

    name: str
    role: Role
    organisation: str
    address: str
    host: str


def read_description(path: Path) -> tuple[str, list[Wanted]]:
    """Return a federation's name and members from ``federation.yaml``.

    Raises
    ------
    ConfigurationError
        Not readable, an unknown or missing field, a bad value, or a name twice.
    """
    fields = _known(_load(path), {"name", *_GROUPS}, str(path))
    name = _text(fields, "name", str(path))
    wanted = [
        _wanted(row, *_GROUPS[group], where=f"{path}: {group}[{number}]")
        for group in _GROUPS
        for number, row in enumerate(_rows(fields, group, path))
    ]
    _refuse_doubles(wanted, path)
    for role in (Role.AGGREGATOR, Role.SITE):
        if not any(member.role == role for member in wanted):
            raise ConfigurationError(f"{path}: {role}s is empty, at least 1 is needed")
    return _checked_name(name, f"{path}: name"), wanted


def _load(path: Path) -> object:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigurationError(f"{path}: {size} bytes, at most {MAX_BYTES}")
        text = path.read_text(encoding="utf-8")
        value: object = YAML(typ="safe", pure=True).load(StringIO(text))
    except (OSError, YAMLError, ValueError, RecursionError) as bad:
        raise ConfigurationError(f"{path} cannot be read: {bad}") from bad
    return value


def _rows(fields: Mapping[str, object], group: str, path: Path) -> list[object]:
    rows = fields.get(group, [])
    if not isinstance(rows, list):
        kind = type(rows).__name__
        raise ConfigurationError(f"{path}: {group} must be a list, not {kind}")
    return rows


def _wanted(row: object, role: Role, names: set[str], where: str) -> Wanted:
    fields = _known(row, names, where)
    missing = sorted(names - set(fields))
    if missing:
        raise ConfigurationError(f"{where}: missing {', '.join(missing)}")
    name = _checked_name(_text(fields, "name", where), f"{where}.name")
    organisation = _text(fields, "organisation", where)
    host, address = "", ""
    if role == Role.AGGREGATOR:
        host, address = _address(fields, where)
    return Wanted(name, role, organisation, address, host)


def _address(fields: Mapping[str, object], where: str) -> tuple[str, str]:
    host, port = _text(fields, "host", where), fields["port"]
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise ConfigurationError(f"{where}.port={port!r}, must be 1 to 65535")
    try:
        host_of(host)
    except ConfigurationError as bad:
        raise ConfigurationError(f"{where}: {bad}") from bad
    return host, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _known(value: object, names: set[str], where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where} must have the fields {sorted(names)}")
    for key in value:
        if key not in names:
            close = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {sorted(names)}"
            raise ConfigurationError(
                f"{where}: unknown field {str(key)[:80]!r}; {hint}"
            )
    return value


def _text(fields: Mapping[str, object], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > 200:
        found = repr(value)[:80] if isinstance(value, str) else type(value).__name__
        raise ConfigurationError(
            f"{where}.{name}={found}, must be a text of 1 to 200 characters"
        )
    return value


def _checked_name(name: str, where: str) -> str:
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ConfigurationError(
            f"{where}={name!r}: use a-z, 0-9 and '-', at most 15 characters, and not "
            f"{', '.join(_RESERVED)}"
        )
    return name


def _refuse_doubles(wanted: list[Wanted], path: Path) -> None:
    for what in ("name", "address"):
        values = [v for v in (getattr(member, what) for member in wanted) if v]
        twice = sorted({v for v in values if values.count(v) > 1})
        if twice:
            raise ConfigurationError(
                f"{path}: {what} {', '.join(twice)} is there twice"
            )
