"""An audit's result, as a certificate repeats it: the verdict with its power."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError, NotFound, VerificationError
from fedsecure.update import JSON

_LARGEST = 1 << 24


def read_audit(path: Path) -> dict[str, JSON]:
    """Return what ``audit.json`` found, check by check, and the digest of the file.

    A check's words name the trials, the confidence and the share of the claim they
    reach: without them a pass says nothing.

    Raises
    ------
    ConfigurationError
        No such file, or not one that `fedsecure privacy audit` wrote.
    """
    try:
        data = SystemDisk().read(path, _LARGEST)
        found = json.loads(data)
        tiers = [_tier(tier) for tier in found["tiers"]]
        return {
            "sha256": hashlib.sha256(data).hexdigest(),
            "when": str(found["when"]),
            "verdict": str(found["verdict"]),
            "noise_multiplier": found["plan"]["noise_multiplier"],
            "fedsecure": str(found["software"]["fedsecure"]),
            "tiers": [*tiers],
            "cannot_show": [str(line) for line in found["cannot_show"]],
        }
    except NotFound as missing:
        raise ConfigurationError(
            f"--audit {path}: {missing}; `fedsecure privacy audit -o DIR` writes "
            "DIR/audit.json"
        ) from missing
    except (ValueError, KeyError, TypeError, VerificationError) as bad:
        raise ConfigurationError(
            f"--audit {path} is no audit.json of `fedsecure privacy audit`: {bad!r}"
        ) from bad


def _tier(tier: Mapping[str, JSON]) -> dict[str, JSON]:
    checks = tier["checks"]
    if not isinstance(checks, list):
        raise TypeError("checks is no list")
    return {
        "tier": tier["tier"],
        "title": str(tier["title"]),
        "verdict": str(tier["verdict"]),
        "checks": [_check(check) for check in checks],
    }


def _check(check: JSON) -> JSON:
    if not isinstance(check, dict):
        raise TypeError("a check is no mapping")
    return {key: str(check[key]) for key in ("name", "verdict", "bound", "said")}
