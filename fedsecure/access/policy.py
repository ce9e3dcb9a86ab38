"""What a site lets a run do: the steward's file, which wins over any server.

Deny by default: a missing, unsigned, expired or unreadable policy serves no round
(TRUST.md section 8). YAML is read by the rules of 1.2: under 1.1 ``22:00`` is a number
and the last of two equal keys wins silently.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fedsecure.errors import PolicyRefused, VerificationError
from fedsecure.keys import VerifyKey
from fedsecure.update import JSON

FORMAT = 1
MAX_BYTES = 1 << 18
LABEL = b"fedsecure-policy-v1\0"
_TOP = {"format", "site", "valid_until", "default", "projects"}
_PROJECT = {"id", "datasets", "schemes", "privacy", "update", "runs", "metrics"}
_PRIVACY = {
    "modes",
    "min_noise_multiplier",
    "max_epsilon",
    "delta",
    "max_sample_rate",
}


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
        _at_most(where, "runs.max_rounds", asked.rounds, self.max_rounds)
        _at_most(where, "update.max_bytes", asked.max_bytes, self.max_bytes)
        if asked.mode != "none":
            self._check_privacy(asked, f"{where}.privacy")

    def _check_privacy(self, asked: Asked, where: str) -> None:
        if asked.noise_multiplier < self.min_noise_multiplier:
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
    """A site's policy, verified."""

    site: str
    valid_until: str
    projects: Mapping[str, Project]
    digest: bytes

    def project(self, name: str, today: str) -> tuple[Project, str]:
        """Return a project's rules and where they stand in the file.

        Parameters
        ----------
        today : str
            UTC, RFC 3339.

        Raises
        ------
        PolicyRefused
            The policy expired, or does not name the project.
        """
        if today >= self.valid_until:
            raise PolicyRefused(f"policy.valid_until: expired on {self.valid_until}")
        found = self.projects.get(name)
        if found is None:
            raise PolicyRefused(f"policy.projects: {name!r} is not admitted here")
        return found, f"policy.projects[{name}]"


def read_policy(
    text: bytes, signature: bytes, steward: VerifyKey, site: str
) -> SitePolicy:
    """Return a site's policy: size, signature, parse, meaning.

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
        raise PolicyRefused("policy.yaml is not signed by the steward") from bad
    fields = _fields(_parse(text), _TOP, "policy")
    if fields["format"] != FORMAT or fields["default"] != "deny":
        raise PolicyRefused(f"policy: format must be {FORMAT} and default deny")
    if fields["site"] != site:
        raise PolicyRefused(f"policy is for site {fields['site']!r}, this is {site!r}")
    rows = fields["projects"]
    if not isinstance(rows, list):
        raise PolicyRefused("policy.projects must be a list")
    projects = dict(_project(row) for row in rows)
    digest = hashlib.sha256(text).digest()
    return SitePolicy(site, str(fields["valid_until"]), projects, digest)


def _parse(text: bytes) -> JSON:
    try:
        value: JSON = YAML(typ="safe", pure=True).load(StringIO(text.decode()))
    except (YAMLError, UnicodeDecodeError) as bad:
        raise PolicyRefused(f"policy.yaml cannot be read: {bad}") from bad
    return value


def _fields(value: JSON, expected: set[str], where: str) -> Mapping[str, JSON]:
    if not isinstance(value, dict) or set(value) != expected:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise PolicyRefused(f"{where} must have the fields {sorted(expected)}: {found}")
    return value


def _project(row: JSON) -> tuple[str, Project]:
    fields = _fields(row, _PROJECT, "policy.projects[]")
    name = str(fields["id"])
    where = f"policy.projects[{name}]"
    privacy = _fields(fields["privacy"], _PRIVACY, f"{where}.privacy")
    update = _fields(fields["update"], {"max_bytes", "max_l2_norm"}, f"{where}.update")
    runs = _fields(fields["runs"], {"max_rounds"}, f"{where}.runs")
    metrics = str(fields["metrics"])
    if metrics not in {"none", "plain"}:
        raise PolicyRefused(f"{where}.metrics={metrics!r}, must be none or plain")
    number = {
        k: _number(privacy[k], f"{where}.privacy.{k}") for k in _PRIVACY - {"modes"}
    }
    return name, Project(
        datasets=_texts(fields["datasets"], f"{where}.datasets"),
        schemes=_texts(fields["schemes"], f"{where}.schemes"),
        modes=_texts(privacy["modes"], f"{where}.privacy.modes"),
        metrics=metrics,
        max_bytes=int(_number(update["max_bytes"], f"{where}.update.max_bytes")),
        max_l2_norm=_number(update["max_l2_norm"], f"{where}.update.max_l2_norm"),
        max_rounds=int(_number(runs["max_rounds"], f"{where}.runs.max_rounds")),
        **number,
    )


def _number(value: JSON, where: str) -> float:
    wrong = isinstance(value, bool) or not isinstance(value, int | float)
    if wrong or not math.isfinite(float(str(value))) or float(str(value)) < 0:
        raise PolicyRefused(f"{where}={value!r} must be a number of at least 0")
    return float(str(value))


def _texts(value: JSON, where: str) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise PolicyRefused(f"{where} must be a list of texts")
    return frozenset(str(v) for v in value)


def _one_of(where: str, field: str, asked: str, allowed: frozenset[str]) -> None:
    if asked not in allowed:
        raise PolicyRefused(
            f"{where}.{field}: the plan has {asked!r}, allowed: {sorted(allowed)}"
        )


def _at_most(where: str, field: str, asked: float, bound: float) -> None:
    if not asked <= bound:
        raise PolicyRefused(f"{where}.{field}: the plan has {asked}, at most {bound}")
