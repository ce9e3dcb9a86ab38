"""What an audit leaves to read: audit.html, audit.json and its pictures."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from fedsecure.audit.finding import Tier, worst
from fedsecure.audit.page import SHOWS, SHOWS_NOT, audit_page
from fedsecure.errors import ConfigurationError
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.update import JSON

FORMAT = 1
_SOFTWARE = ("fedsecure", "numpy", "torch", "tenseal", "dp-accounting")


def write_audit(
    folder: Path, tiers: Sequence[Tier], plan: PrivacyPlan, when: datetime
) -> Path:
    """Write an audit into a folder, made if missing, and return the page's path.

    Raises
    ------
    ConfigurationError
        The folder cannot be written to.
    """
    software = {name: version(name) for name in _SOFTWARE}
    document: dict[str, JSON] = {
        "format": FORMAT,
        "verdict": str(worst([tier.verdict for tier in tiers])),
        "when": when.isoformat(timespec="seconds"),
        "plan": plan.document(),
        "plan_digest": plan.digest().hex(),
        "software": dict(software),
        "tiers": [tier.document() for tier in tiers],
        "shows": list(SHOWS),
        "cannot_show": list(SHOWS_NOT),
    }
    facts = {
        "fedsecure": software["fedsecure"],
        "mode": str(plan.mode),
        "sites": f"{plan.min_contributors}, of which {plan.max_colluders} colludes",
        "noise multiplier": f"{plan.noise_multiplier:g}",
        "delta": f"{plan.delta:g}",
        "relation": str(plan.relation).replace("_", " "),
        "on": when.isoformat(" ", timespec="minutes"),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for tier in tiers:
            for picture in tier.pictures:
                (folder / f"{picture.name}.png").write_bytes(picture.png)
        text = json.dumps(_finite(document), indent=2, allow_nan=False)
        (folder / "audit.json").write_text(text + "\n", encoding="utf-8")
        page = folder / "audit.html"
        page.write_text(audit_page(tiers, facts), encoding="utf-8")
    except OSError as bad:
        raise ConfigurationError(f"--out {folder}: {bad.strerror}") from bad
    return page


def _finite(value: JSON) -> JSON:
    """Return the value with null for every NaN and Inf: JSON knows neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
