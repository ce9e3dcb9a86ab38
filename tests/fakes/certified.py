"""A run's folder as a run with shared noise leaves it, in milliseconds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedsecure.access.roster import Member, Role, Roster, federation_id
from fedsecure.accounting import PrivacyEvent
from fedsecure.certificate.issuer import Issuer, keep_issuer
from fedsecure.clock import SystemClock
from fedsecure.disk import SystemDisk
from fedsecure.keys import BoxKey, SigningKey
from fedsecure.ledger import Ledger
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.plan import Mode, PrivacyPlan, event_document

SITES = ("site-01", "site-02", "site-03")
WHEN = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)
SIZE, ROUNDS, KEY_ID = 650, 4, "0123456789abcdef" * 2
COUNT_NOISE = 8.0
COUNTING: dict[str, Any] = {
    "metrics": "dp",
    "counts": {"noise_multiplier": COUNT_NOISE, "each_round": False},
}
"""What a plan has that tells counts at its end."""
SHARED = PrivacyPlan(
    Mode.EXAMPLE_DISTRIBUTED,
    clip_norm=0.5,
    noise_multiplier=3.0,
    sample_rate=1.0,
    steps_per_round=1,
    rounds=ROUNDS,
    delta=1e-5,
    divisor=1400.0,
    min_contributors=3,
    max_colluders=1,
)
NONE = PrivacyPlan(Mode.NONE)
LOCAL = PrivacyPlan(
    Mode.EXAMPLE_LOCAL,
    clip_norm=0.5,
    noise_multiplier=2.0,
    sample_rate=0.2,
    steps_per_round=2,
    rounds=ROUNDS,
    delta=1e-5,
    divisor=90.0,
)


@dataclass
class Keys:
    """A federation's root and one signing key a member."""

    root: SigningKey = field(default_factory=SigningKey.generate)
    members: dict[str, SigningKey] = field(
        default_factory=lambda: {
            name: SigningKey.generate() for name in (*SITES, "agg-1")
        }
    )

    @property
    def roster(self) -> Roster:
        """The roster of all members."""
        members = {
            name: Member(
                name,
                Role.SITE if name in SITES else Role.AGGREGATOR,
                "org",
                key.public,
                _BOX,
                "",
                "",
            )
            for name, key in self.members.items()
        }
        federation = federation_id(self.root.public)
        return Roster(federation, 1, members, "2030-01-01T00:00:00Z")

    def issuer(self, name: str = "site-01") -> Issuer:
        """Return a member that can sign."""
        roster = self.roster
        role = roster.members[name].role
        signed = roster.signed(self.root)
        return Issuer(name, role, roster, signed, self.members[name])


_BOX = BoxKey.generate().public


def plan(privacy: PrivacyPlan = SHARED, **changes: Any) -> dict[str, Any]:
    """Return a run's plan; `changes` replace whole fields."""
    return {
        "format": 1,
        "federation": "f",
        "run": "run-1",
        "project": "demo",
        "dataset": "digits",
        "rounds": ROUNDS,
        "sites": [*SITES],
        "custodians": [*SITES],
        "min_contributors": 3,
        "seed": 7,
        "metrics": "plain",
        "max_rows": 0,
        "model": {"name": "logistic"},
        "train": {},
        "privacy": privacy.document(),
        "encryption": {
            "scheme": "bfv",
            "profile": "20",
            "value_range": 1.0,
            "range_from": "config",
            "range_multiple": 4.0,
            "rounding": "nearest",
            "error_feedback": False,
            "max_contributors": 16,
            "downlink": "auto",
            "link_mbps": 100.0,
            "masking": "pairwise",
            "masking_threshold": 3,
            "encrypt_layers": [],
        },
        **changes,
    }


def left_by_a_run(
    folder: Path,
    keys: Keys,
    privacy: PrivacyPlan = SHARED,
    charges: Mapping[str, int] | None = None,
    told: int = 0,
    **changes: Any,
) -> Path:
    """Write a run's folder and return it.

    Parameters
    ----------
    charges : mapping of str to int
        Rounds that each site's ledger charged; all of them by default.
    told : int
        How often each site told counts with `COUNT_NOISE`; a plan says so in `changes`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plan(privacy, **changes))
    (folder / "plan.json").write_text(text, encoding="utf-8")
    for site in SITES:
        count = ROUNDS if charges is None else charges[site]
        path = folder / "sites" / site / "ledger.jsonl"
        _site(path, site, keys, privacy, count, told)
    aggregator = folder / "aggregators" / "agg-1"
    _opened(aggregator / "ledger.jsonl", "agg-1", keys).close()
    began = {"event": "began", "now": 1.0, "parameters": SIZE}
    (aggregator / "events.jsonl").write_text(json.dumps(began) + "\n", "utf-8")
    keep_issuer(keys.issuer(), folder)
    return folder


def _site(
    path: Path, name: str, keys: Keys, privacy: PrivacyPlan, count: int, told: int
) -> None:
    ledger = _opened(path, name, keys)
    ledger.append(
        "key.opened", KEY_ID, run="run-1", detail={"custodian": name, "first_round": 0}
    )
    for number in range(1, count + 1):
        if privacy.mode is not Mode.NONE:
            document = event_document(_event(privacy))
            ledger.append(
                "budget.reserve",
                "digits",
                run="run-1",
                round=number,
                detail={"event": {**document, "unit": privacy.mode.unit}},
            )
        ledger.append(
            "aggregate.opened",
            "run-1",
            run="run-1",
            round=number,
            detail={"root": "00", "release": "00", "sites": 3 if number > 1 else 2},
        )
    for number in range(ROUNDS + 2 - told, ROUNDS + 2):
        document = event_document(PrivacyEvent.of_counts(COUNT_NOISE, 1))
        ledger.append(
            "budget.reserve",
            "digits",
            run="run-1",
            round=number,
            detail={"event": {**document, "unit": privacy.mode.unit}},
        )
    ledger.close()


def _event(privacy: PrivacyPlan) -> Any:
    if not privacy.mode.shared:
        return privacy.event()
    return Lattice.of(privacy, SIZE, 24, 3).event(privacy)


def _opened(path: Path, name: str, keys: Keys) -> Ledger:
    path.parent.mkdir(parents=True, exist_ok=True)
    return Ledger.open(path, name, keys.members[name], SystemDisk(), SystemClock())
