"""What a site lets a run do: the steward's file, which wins over any server.

Deny by default: a missing, unsigned, expired or unreadable policy serves no round
(TRUST.md section 8). YAML is read by the rules of 1.2: under 1.1 ``22:00`` is a number
and the last of two equal keys wins silently.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedsecure.access.fields import (
    Place,
    count,
    exactly,
    fields_of,
    number,
    parse,
    show,
    texts,
    word,
)
from fedsecure.access.privacyrules import PrivacyRules, Promise, read_rules
from fedsecure.errors import PolicyRefused, VerificationError
from fedsecure.keys import VerifyKey
from fedsecure.update import JSON

FORMAT = 1
MAX_BYTES = 1 << 18
LABEL = b"fedsecure-policy-v1\0"
_TOP = {"format", "site", "valid_until", "default", "projects"}
_PROJECT = {"id", "datasets", "schemes", "privacy", "update", "runs", "metrics"}
METRICS = ("none", "dp", "plain")
"""What may be told of a model's quality, from the strictest word on."""
_MAY = {"open_layers"}
"""Fields of a project that may be left out: what they allow is then refused."""
_INSTANT = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3])(:[0-5]\d){2}Z"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a plan asks of a site, in the policy's words.

    Attributes
    ----------
    project, dataset, scheme, metrics : str
    promise : Promise
    rounds : int
    max_bytes : int
        Of one update on the wire; 0 while the layout is unknown.
    open_layers : bool
        Whether tensors are left without encryption.
    count_noise : float
        Of metrics `dp`: standard deviation on a count, in rows, one of which a row of
        the data set changes by one; else 0.
    """

    project: str
    dataset: str
    scheme: str
    metrics: str
    promise: Promise
    rounds: int
    max_bytes: int
    open_layers: bool = False
    count_noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Project:
    """What one project may do.

    Attributes
    ----------
    datasets, schemes : frozenset of str
    privacy : PrivacyRules
    metrics : str
        The most that may leave: "none", "dp" (noisy counts, charged) or "plain".
    max_bytes : int
    max_l2_norm : float
    max_rounds : int
    open_layers : bool
        Whether a run may encrypt some tensors only; false unless the file says so.
    lines : mapping of str to int
        Where its fields stand in the file; see `Place`.
    """

    datasets: frozenset[str]
    schemes: frozenset[str]
    privacy: PrivacyRules
    metrics: str
    max_bytes: int
    max_l2_norm: float
    max_rounds: int
    open_layers: bool = False
    lines: Mapping[str, int] = field(default_factory=dict)

    def check(self, asked: Asked, where: str) -> None:
        """Return only if all that is asked is allowed.

        Raises
        ------
        PolicyRefused
            Names the field, its line, the value asked and the bound.
        """
        place = Place(where, self.lines)
        place.one_of("datasets", asked.dataset, self.datasets)
        place.one_of("schemes", asked.scheme, self.schemes)
        self._check_metrics(asked, place)
        if asked.open_layers and not self.open_layers:
            place.refuse(
                "open_layers",
                "the plan encrypts some tensors only (encryption.encrypt_layers), all "
                "must be: the steward sets open_layers: true and signs again, or the "
                "plan encrypts all",
            )
        place.under("runs").at_most("max_rounds", asked.rounds, self.max_rounds)
        place.under("update").at_most("max_bytes", asked.max_bytes, self.max_bytes)
        self.privacy.check(asked.promise, place.under("privacy"))

    def _check_metrics(self, asked: Asked, place: Place) -> None:
        if METRICS.index(asked.metrics) > METRICS.index(self.metrics):
            may = {
                "none": "none may",
                "dp": "only counts with noise may (privacy.metrics=dp)",
            }
            place.refuse(
                "metrics",
                f"the plan releases metrics ({asked.metrics}), {may[self.metrics]}",
            )
        if asked.metrics == "dp":
            least = self.privacy.min_noise_multiplier
            place.under("privacy").at_least(
                "min_noise_multiplier", asked.count_noise, least
            )

    def check_norm(self, norm: float, where: str) -> None:
        """Return only if an update of this L2 norm may leave."""
        place = Place(where, self.lines).under("update")
        place.at_most("max_l2_norm", norm, self.max_l2_norm)


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
    value, lines = parse(text)
    fields = fields_of(value, _TOP, "policy")
    exactly("policy.format", fields["format"], FORMAT)
    exactly("policy.default", fields["default"], "deny")
    exactly("policy.site", fields["site"], site)
    until = fields["valid_until"]
    if not isinstance(until, str) or not _INSTANT.fullmatch(until):
        raise PolicyRefused(
            f"policy.valid_until={show(until)}, must be UTC such as "
            "2027-06-30T00:00:00Z"
        )
    projects = _projects(fields["projects"], lines)
    return SitePolicy(site, until, projects, hashlib.sha256(text).digest())


def _projects(rows: JSON, lines: list[Mapping[str, int]]) -> Mapping[str, Project]:
    if not isinstance(rows, list):
        raise PolicyRefused(f"policy.projects={show(rows)}, must be a list")
    projects: dict[str, Project] = {}
    for index, (row, places) in enumerate(zip(rows, lines, strict=True)):
        name, project = _project(row, f"policy.projects[{index}]", places)
        if name in projects:
            raise PolicyRefused(f"policy.projects[{index}].id={name!r} is there twice")
        projects[name] = project
    return projects


def _project(row: JSON, place: str, lines: Mapping[str, int]) -> tuple[str, Project]:
    fields = fields_of(row, _PROJECT, place, _MAY)
    name = fields["id"]
    if not isinstance(name, str) or not name:
        raise PolicyRefused(f"{place}.id={show(name)}, must be a text")
    where = f"policy.projects[{name}]"
    privacy = read_rules(fields["privacy"], f"{where}.privacy")
    bounds = {"max_bytes", "max_l2_norm"}
    update = fields_of(fields["update"], bounds, f"{where}.update")
    runs = fields_of(fields["runs"], {"max_rounds"}, f"{where}.runs")
    open_layers = fields.get("open_layers", False)
    if not isinstance(open_layers, bool):
        raise PolicyRefused(
            f"{where}.open_layers={show(open_layers)}, must be true or false"
        )
    return name, Project(
        datasets=texts(fields["datasets"], f"{where}.datasets"),
        schemes=texts(fields["schemes"], f"{where}.schemes"),
        privacy=privacy,
        metrics=word(fields["metrics"], f"{where}.metrics", METRICS),
        max_bytes=count(update["max_bytes"], f"{where}.update.max_bytes"),
        max_l2_norm=number(update["max_l2_norm"], f"{where}.update.max_l2_norm"),
        max_rounds=count(runs["max_rounds"], f"{where}.runs.max_rounds"),
        open_layers=open_layers,
        lines=lines,
    )
