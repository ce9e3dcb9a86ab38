"""A site's policy as its steward writes it, and the signature without which it is void.

In a kit made centrally the steward's key lies beside the policy, so that a
demonstration runs at once. A site that means it makes its own key, keeps
``steward.key`` off the node, and leaves ``steward.pub`` there, not writable by the
daemon's user (TRUST.md section 8).
"""

import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML

from fedsecure.access.policy import LABEL, MAX_BYTES, read_policy
from fedsecure.disk import SystemDisk
from fedsecure.errors import KitError, NotFound
from fedsecure.keys import KEY_BYTES, SigningKey

_NOTE = """\
# What this site lets a run do; anything else is refused, whatever a server asks.
# Written by `fedsecure provision` for a demonstration (origin: central). The steward
# reviews and edits it, then signs it again: fedsecure policy sign KIT
"""
_MEANING: Mapping[str, str] = {
    "accountant": "who may say that a ceiling is kept: rdp alone, or pld after it",
    "content_changes": "other rows under the same id: inherit all spending, or refuse",
    "delta": "at most; below 1/rows (1/users where the unit is the user)",
    "max_colluding_sites": "a plan of shared noise must bear at least so many",
    "max_epsilon": "of a data set, over all runs and all time: a hard stop",
    "max_l2_norm": "of an update without shared noise",
    "max_sample_rate": "at most; in (0, 1]",
    "metrics": "the most that leaves: none, dp (noisy counts, charged) or plain",
    "min_noise_multiplier": "noise over what one unit can move; at least",
    "min_surviving_sites": "a private sum is of at least so many sites",
    "modes": "none, example_distributed, user_distributed, example_local, silo",
    "open_layers": "true lets a run leave some tensors without encryption",
    "per_run_epsilon": "of one run; at most max_epsilon",
    "relation": "what the ceilings are about: add_or_remove_one or replace_one",
    "unit": "the weakest that is served: example, user or site",
}
"""What is written above a field, wherever it stands."""
DEMO_RULES: Mapping[str, object] = {
    "id": "demo",
    "datasets": ["digits", "breast-cancer", "csv", "object"],
    "schemes": ["bfv"],
    "privacy": {
        "modes": [
            "none",
            "example_distributed",
            "user_distributed",
            "example_local",
        ],
        "min_noise_multiplier": 0.3,
        "max_epsilon": 10.0,
        "per_run_epsilon": 10.0,
        "delta": 1e-5,
        "max_sample_rate": 1.0,
        "min_surviving_sites": 1,
        "max_colluding_sites": 1,
        "unit": "example",
        "relation": "add_or_remove_one",
        "accountant": "pld",
        "content_changes": "inherit",
    },
    "update": {"max_bytes": 1_000_000_000, "max_l2_norm": 1000.0},
    "runs": {"max_rounds": 1000},
    "metrics": "plain",
    "open_layers": False,
}


def make_steward(kit: Path) -> None:
    """Make the steward's key pair in a new kit."""
    steward, disk = SigningKey.generate(), SystemDisk()
    disk.write_once(kit / "steward.key", steward.to_bytes())
    disk.write_once(kit / "steward.pub", steward.public.raw)


def write_policy(
    kit: Path, rules: Sequence[Mapping[str, object]], site: str, now: datetime
) -> None:
    """Write and sign a site's policy: valid a year, these projects, nothing else.

    Between the two files the old signature does not fit: the site refuses every round.

    Raises
    ------
    KitError
        The kit has no steward's key.
    PolicyRefused
        The rules are none that a site would accept.
    """
    until = now.replace(year=now.year + 1, day=1).strftime("%Y-%m-%dT%H:%M:%SZ")
    policy = {
        "format": 1,
        "site": site,
        "valid_until": until,
        "default": "deny",
        "projects": [dict(rule) for rule in rules],
    }
    yaml, text = YAML(typ="safe", pure=True), StringIO()
    yaml.default_flow_style = False
    yaml.dump(policy, text)
    data = (_NOTE + _explained(text.getvalue())).encode()
    key = _steward(kit)
    read_policy(data, key.sign(LABEL + data), key.public, site)
    replace_file(kit / "policy.yaml", data)
    sign_policy(kit)


def sign_policy(kit: Path) -> None:
    """Sign a site's ``policy.yaml`` with the steward's key in its kit.

    Raises
    ------
    KitError
        The kit has no policy or no steward's key.
    """
    key = _steward(kit)
    try:
        text = SystemDisk().read(kit / "policy.yaml", MAX_BYTES)
    except NotFound as missing:
        raise KitError(f"{kit} has no policy.yaml: it is no site's kit") from missing
    replace_file(kit / "policy.yaml.sig", key.sign(LABEL + text))


def replace_file(path: Path, data: bytes) -> None:
    """Put a file in place of another, whole or not at all; mode 0600."""
    temporary = path.parent / f".tmp-{uuid.uuid4().hex}"
    SystemDisk().write_once(temporary, data)
    os.replace(temporary, path)  # noqa: PTH105 - the system call this is about


def _explained(text: str) -> str:
    """Return the file with a comment above each field that `_MEANING` knows."""
    lines = []
    for line in text.splitlines():
        name, indent = line.strip().partition(":")[0], len(line) - len(line.lstrip())
        if name in _MEANING:
            lines.append(f"{' ' * indent}# {_MEANING[name]}")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _steward(kit: Path) -> SigningKey:
    try:
        return SigningKey.from_bytes(SystemDisk().read(kit / "steward.key", KEY_BYTES))
    except NotFound as missing:
        raise KitError(
            f"{kit} has no steward.key: sign where the steward keeps it"
        ) from missing
