"""A copy goes bad while a real ServerApp leads, and is good again before the run ends.

The leader looks at its stores a minute after it began to lead: the run has as many
rounds as that takes, and some after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedsecure import experiment, registry
from fedsecure.backends import Job
from fedsecure.composition import composed
from fedsecure.trainer import JSON

pytestmark = [
    pytest.mark.integration,
    pytest.mark.flower,
    pytest.mark.chaos,
    pytest.mark.timeout(400),
]

SITES, ROUNDS, STRIKE_AFTER = 2, 24, 3
CONFIG = (
    "backend=deployment",
    "data=breast_cancer",
    "model=logistic",
    f"federation.sites={SITES}",
    f"federation.rounds={ROUNDS}",
    "privacy=none",
    "encryption=insecure_plain",
    "store.replicas=3",
)


@dataclass
class Decay:
    """One bit changes in every object of one store, once, between two rounds."""

    folder: Path
    sound: dict[str, bytes] = field(default_factory=dict)

    def watch(self, event: Mapping[str, JSON]) -> None:
        """Strike when the round before is released."""
        struck = event["event"] == "released" and event["round"] == STRIKE_AFTER
        if struck and not self.sound:
            for path in sorted(self.folder.rglob("*")):
                if path.is_file() and "obj" in path.relative_to(self.folder).parts:
                    self._flip(path)

    def _flip(self, path: Path) -> None:
        data = path.read_bytes()
        self.sound[str(path)] = data
        path.chmod(0o600)
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def test_a_bad_copy_is_mended_while_rounds_go_on(tmp_path: Path) -> None:
    config = composed([*CONFIG, f"run_root={tmp_path}"])
    parts = experiment._simulated(config)
    kits, folder = experiment._kits(config, tmp_path), tmp_path / "run"
    plan = experiment.make_plan(config, kits, parts)
    folder.mkdir()
    decay = Decay(folder / "stores" / "1")
    backend = registry.load("backends", "deployment").create({})
    outcome = backend.run(Job(config, plan, kits, folder, decay.watch))
    told = [(str(event["event"]), event.get("round")) for event in outcome.events]
    assert decay.sound
    mended = next(e for e in outcome.events if e["event"] == "repaired")
    assert mended["repaired"] == mended["bad"] == len(decay.sound)
    assert told.index(("repaired", None)) < told.index(("released", ROUNDS))
    for path, data in decay.sound.items():
        assert Path(path).read_bytes() == data
