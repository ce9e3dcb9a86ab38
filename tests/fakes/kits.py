"""A provisioned federation on disk: two aggregators, sites with a signed policy."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from ruamel.yaml import YAML

from fedsecure.access.kit import Kit, read_kit
from fedsecure.disk import SystemDisk
from fedsecure.provision.kits import provision, write_policy

RULES: Mapping[str, object] = {
    "id": "project",
    "datasets": ["data"],
    "schemes": ["insecure_plain"],
    "privacy": {
        "modes": ["example_local"],
        "min_noise_multiplier": 0.5,
        "max_epsilon": 10.0,
        "delta": 1e-5,
        "max_sample_rate": 1.0,
    },
    "update": {"max_bytes": 1 << 30, "max_l2_norm": 100.0},
    "runs": {"max_rounds": 10},
    "metrics": "plain",
}


def make_kits(root: Path, sites: int = 2, port: int = 9001) -> Path:
    """Return the folder of kits of a new federation; its aggregators at two ports."""
    members = {
        "name": "simulation",
        "aggregators": [
            {
                "name": f"agg-{i}",
                "host": "127.0.0.1",
                "port": port - 1 + i,
                "organisation": "o",
            }
            for i in (1, 2)
        ],
        "sites": [{"name": f"site-{i + 1}", "organisation": "o"} for i in range(sites)],
    }
    description = root / "federation.yaml"
    YAML(typ="safe").dump(members, description)
    now = datetime.now(UTC)
    provision(description, root / "kits", now)
    for i in range(sites):
        sign(root / "kits", f"site-{i + 1}", RULES, now)
    return root / "kits"


def sign(kits: Path, site: str, rules: Mapping[str, object], now: datetime) -> None:
    """Let a site's steward sign a policy of one project, valid a year from `now`."""
    write_policy(kits / site, [rules], site, now)


def kit(kits: Path, name: str) -> Kit:
    """Return a member's kit."""
    return read_kit(kits / name, SystemDisk(), lambda p: p.stat().st_mode)
