"""What a site lets a run do: the steward's file, which wins over any server.

Deny by default: a missing, unsigned, expired or unreadable policy serves no round
(TRUST.md section 8). YAML is read by the rules of 1.2: under 1.1 ``22:00`` is a number
and the last of two equal keys wins silently.
"""

import difflib
import hashlib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import StringIO

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError

from fedsecure.errors import PolicyRefused, VerificationError
from fedsecure.keys import VerifyKey
from fedsecure.update import JSON

FORMAT = 1
MAX_BYTES = 1 << 18
LABEL = b"fedsecure-policy-v1\0"
_TOP = {"format", "site", "valid_until", "default", "projects"}
_PROJECT = {"id", "datasets", "schemes", "privacy", "update", "runs", "metrics"}
_MAY = {"open_layers"}
"""Fields of a project that may be left out: what they allow is then refused."""
_PRIVACY = {
    "modes",
    "min_noise_multiplier",
    "max_epsilon",
    "delta",
    "max_sample_rate",
}
_INSTANT = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3])(:[0-5]\d){2}Z"
)


class _PlainTexts(SafeConstructor):
    """Leaves a date as the text it is, so that one written form is compared."""


_PlainTexts.add_constructor(
    "tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a plan asks of a site, in the policy's words.

    Attributes
    ----------
    project, dataset, scheme, metrics, mode : str
    rounds : int
    noise_multiplier, sample_rate, delta : float
        0 in mode `none`.
    max_bytes : int
        Of one update on the wire; 0 while the layout is unknown.
    open_layers : bool
        Whether tensors are left without encryption.
    """

    project: str
    dataset: str
    scheme: str
    metrics: str
    mode: str
    rounds: int
    noise_multiplier: float
    sample_rate: float
    delta: float
    max_bytes: int
    open_layers: bool = False


@dataclass(frozen=True, slots=True)
class Project:
    """What one project may do.

    Attributes
    ----------
    datasets, schemes, modes : frozenset of str
    metrics : str
        "none" or "plain": the most that may leave.
    min_noise_multiplier, max_sample_rate, max_epsilon, delta : float
    max_bytes : int
    max_l2_norm : float
    max_rounds : int
    open_layers : bool
        Whether a run may encrypt some tensors only; false unless the file says so.
    """

    datasets: frozenset[str]
    schemes: frozenset[str]
    modes: frozenset[str]
    metrics: str
    min_noise_multiplier: float
    max_sample_rate: float
    max_epsilon: float
    delta: float
    max_bytes: int
    max_l2_norm: float
    max_rounds: int
    open_layers: bool = False

    def check(self, asked: Asked, where: str) -> None:
        """Return only if all that is asked is allowed.

        Raises
        ------
        PolicyRefused
            Names the field, the value asked and the bound.
        """
        _one_of(where, "datasets", asked.dataset, self.datasets)
        _one_of(where, "schemes", asked.scheme, self.schemes)
        _one_of(where, "privacy.modes", asked.mode, self.modes)
        if asked.metrics != "none" and self.metrics == "none":
            raise PolicyRefused(f"{where}.metrics: the plan releases metrics, none may")
        if asked.open_layers and not self.open_layers:
            raise PolicyRefused(
                f"{where}.open_layers: the plan encrypts some tensors only "
                "(encryption.encrypt_layers), all must be: the steward sets "
                "open_layers: true and signs again, or the plan encrypts all"
            )
        _at_most(where, "runs.max_rounds", asked.rounds, self.max_rounds)
        _at_most(where, "update.max_bytes", asked.max_bytes, self.max_bytes)
        if asked.mode != "none":
            self._check_privacy(asked, f"{where}.privacy")

    def _check_privacy(self, asked: Asked, where: str) -> None:
        # Written so that NaN, which compares false with everything, is refused.
        if not asked.noise_multiplier >= self.min_noise_multiplier:
            raise PolicyRefused(
                f"{where}.min_noise_multiplier: the plan has "
                f"{asked.noise_multiplier}, at least {self.min_noise_multiplier}"
            )
        _at_most(where, "max_sample_rate", asked.sample_rate, self.max_sample_rate)
        _at_most(where, "delta", asked.delta, self.delta)

    def check_norm(self, norm: float, where: str) -> None:
        """Return only if an update of this L2 norm may leave."""
        _at_most(where, "update.max_l2_norm", norm, self.max_l2_norm)


@dataclass(frozen=True, slots=True)
class SitePolicy:
    """A site's policy, verified.

    Attributes
    ----------
    site : str
    valid_until : str
        UTC, RFC 3339 with seconds and ``Z``; from this second on nothing is served.
    projects : mapping of str to Project
    digest : bytes
        SHA-256 of the file; named in admissions and refusals.
    """

    site: str
    valid_until: str
    projects: Mapping[str, Project]
    digest: bytes

    def project(self, name: str, today: str) -> tuple[Project, str]:
        """Return a project's rules and where they stand in the file.

        Parameters
        ----------
        today : str
            UTC, RFC 3339 with seconds and ``Z``, such as 2027-06-30T00:00:00Z.

        Raises
        ------
        PolicyRefused
            The policy expired, or does not name the project.
        """
        if today >= self.valid_until:
            raise PolicyRefused(f"policy.valid_until: expired on {self.valid_until}")
        found = self.projects.get(name)
        if found is None:
            raise PolicyRefused(
                f"policy.projects: {name!r} is not admitted at {self.site}, only "
                f"{sorted(self.projects)}: the steward adds it and signs again"
            )
        return found, f"policy.projects[{name}]"


def read_policy(
    text: bytes, signature: bytes, steward: VerifyKey, site: str
) -> SitePolicy:
    """Return a site's policy: size, signature, parse, meaning.

    A field this version would not honour is refused like a misspelt one: a bound that
    nobody checks is worse than none.

    Raises
    ------
    PolicyRefused
        Unsigned, of another site, unknown or repeated field, or a value that is none.
    """
    if len(text) > MAX_BYTES:
        raise PolicyRefused(f"policy of {len(text)} bytes, at most {MAX_BYTES}")
    try:
        steward.verify(signature, LABEL + text)
    except VerificationError as bad:
        raise PolicyRefused(
            f"policy.yaml of {site} is not signed by its steward: sign it again after "
            "every change"
        ) from bad
    fields = _fields(_parse(text), _TOP, "policy")
    _exactly("policy.format", fields["format"], FORMAT)
    _exactly("policy.default", fields["default"], "deny")
    _exactly("policy.site", fields["site"], site)
    until = fields["valid_until"]
    if not isinstance(until, str) or not _INSTANT.fullmatch(until):
        raise PolicyRefused(
            f"policy.valid_until={_show(until)}, must be UTC such as "
            "2027-06-30T00:00:00Z"
        )
    projects = _projects(fields["projects"])
    return SitePolicy(site, until, projects, hashlib.sha256(text).digest())


def _parse(text: bytes) -> JSON:
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _PlainTexts
    try:
        written = text.decode()
        if any(line.startswith("%") for line in written.splitlines()):
            # "%YAML 1.1" would bring back the rules this file must not be read by.
            raise PolicyRefused("policy.yaml: a line starting with % is not allowed")
        value: JSON = yaml.load(StringIO(written))
    except (YAMLError, ValueError, RecursionError) as bad:
        raise PolicyRefused(f"policy.yaml cannot be read: {bad}") from bad
    return value


def _fields(
    value: JSON, expected: set[str], where: str, may: Collection[str] = ()
) -> Mapping[str, JSON]:
    if not isinstance(value, dict):
        raise PolicyRefused(f"{where}={_show(value)}, must have {sorted(expected)}")
    known = expected.union(may)
    for name in value:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {sorted(known)}"
            raise PolicyRefused(f"{where}: unknown field {_show(name)}; {hint}")
    missing = sorted(expected - set(value))
    if missing:
        raise PolicyRefused(f"{where}: missing {', '.join(missing)}")
    return value


def _exactly(where: str, value: JSON, wanted: int | str) -> None:
    if type(value) is not type(wanted) or value != wanted:
        raise PolicyRefused(f"{where}={_show(value)}, must be {wanted!r}")


def _projects(rows: JSON) -> Mapping[str, Project]:
    if not isinstance(rows, list):
        raise PolicyRefused(f"policy.projects={_show(rows)}, must be a list")
    projects: dict[str, Project] = {}
    for number, row in enumerate(rows):
        name, project = _project(row, f"policy.projects[{number}]")
        if name in projects:
            raise PolicyRefused(f"policy.projects[{number}].id={name!r} is there twice")
        projects[name] = project
    return projects


def _project(row: JSON, place: str) -> tuple[str, Project]:
    fields = _fields(row, _PROJECT, place, _MAY)
    name = fields["id"]
    if not isinstance(name, str) or not name:
        raise PolicyRefused(f"{place}.id={_show(name)}, must be a text")
    where = f"policy.projects[{name}]"
    privacy = _fields(fields["privacy"], _PRIVACY, f"{where}.privacy")
    update = _fields(fields["update"], {"max_bytes", "max_l2_norm"}, f"{where}.update")
    runs = _fields(fields["runs"], {"max_rounds"}, f"{where}.runs")
    metrics = fields["metrics"]
    if not isinstance(metrics, str) or metrics not in {"none", "plain"}:
        raise PolicyRefused(f"{where}.metrics={_show(metrics)}, must be none or plain")
    open_layers = fields.get("open_layers", False)
    if not isinstance(open_layers, bool):
        raise PolicyRefused(
            f"{where}.open_layers={_show(open_layers)}, must be true or false"
        )
    number = {
        k: _number(privacy[k], f"{where}.privacy.{k}") for k in _PRIVACY - {"modes"}
    }
    return name, Project(
        datasets=_texts(fields["datasets"], f"{where}.datasets"),
        schemes=_texts(fields["schemes"], f"{where}.schemes"),
        modes=_texts(privacy["modes"], f"{where}.privacy.modes"),
        metrics=metrics,
        max_bytes=_count(update["max_bytes"], f"{where}.update.max_bytes"),
        max_l2_norm=_number(update["max_l2_norm"], f"{where}.update.max_l2_norm"),
        max_rounds=_count(runs["max_rounds"], f"{where}.runs.max_rounds"),
        open_layers=open_layers,
        **number,
    )


def _number(value: JSON, where: str) -> float:
    wrong = isinstance(value, bool) or not isinstance(value, int | float)
    try:
        number = math.nan if wrong else float(str(value))
    except (OverflowError, ValueError):  # an integer of thousands of digits
        number = math.inf
    if not (math.isfinite(number) and number >= 0):
        raise PolicyRefused(f"{where}={_show(value)}, must be a number of at least 0")
    return number


def _count(value: JSON, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PolicyRefused(
            f"{where}={_show(value)}, must be a whole number, 0 or more"
        )
    return value


def _texts(value: JSON, where: str) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise PolicyRefused(f"{where}={_show(value)}, must be a list of texts")
    return frozenset(str(v) for v in value)


def _show(value: object) -> str:
    """Return a scalar as written, a container as its kind: aliases can nest forever."""
    if isinstance(value, str | float | bool) or value is None:
        return repr(value)[:80]
    if isinstance(value, int):
        return hex(value)[:80] if value.bit_length() > 128 else repr(value)
    return f"a {type(value).__name__}"


def _one_of(where: str, field: str, asked: str, allowed: frozenset[str]) -> None:
    if asked not in allowed:
        raise PolicyRefused(
            f"{where}.{field}: the plan has {asked!r}, allowed: {sorted(allowed)}"
        )


def _at_most(where: str, field: str, asked: float, bound: float) -> None:
    if not asked <= bound:
        raise PolicyRefused(f"{where}.{field}: the plan has {asked}, at most {bound}")
