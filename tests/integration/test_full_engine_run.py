"""Real Flower processes over a database whose disk fills up in mid-round."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedsecure import experiment, registry
from fedsecure.backends import Job
from fedsecure.composition import composed
from fedsecure.trainer import JSON
from tests.fakes import takeover, verdict
from tests.fakes.fullservers import NO_ROOM, FullServer, postgresql_without_data_room
from tests.fakes.servers import no_postgresql
from tests.fakes.smalldisk import no_small_disk

LACKS = no_postgresql() or no_small_disk()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.flower,
    pytest.mark.chaos,
    pytest.mark.timeout(290),
    pytest.mark.skipif(bool(LACKS), reason=LACKS),
]
ROUNDS, FULL_IN = 3, 2
CONFIG = (
    "backend=deployment",
    "lease=postgresql",
    "data=breast_cancer",
    "model=logistic",
    "privacy=none",
    "encryption=bfv",
    "encryption.masking=none",
    "federation.sites=2",
    f"federation.rounds={ROUNDS}",
)


@dataclass
class Strike:
    """The database's disk is full from an opened round on, until two leaders lost."""

    server: FullServer
    lost: list[str] = field(default_factory=list)
    full: bool = False
    released: list[int] = field(default_factory=list)

    def see(self, event: Mapping[str, JSON]) -> None:
        if event["event"] == "released":
            self.released.append(int(str(event["round"])))
        if event["event"] == "opened" and event["round"] == FULL_IN and not self.lost:
            board = takeover.engine(self.server.plug, self.server.settings)
            self.server.exhaust(board.journal, int(str(event["term"])))
            self.full = True
        if event["event"] == "lost" and self.full:
            self.lost.append(str(event["reason"]))
            if len(self.lost) == 2:
                self.server.heal()
                self.full = False


def test_the_run_waits_says_why_and_ends_with_nothing_lost_or_doubled(
    tmp_path: Path,
) -> None:
    with postgresql_without_data_room() as server:
        url = f"lease.url={server.settings['url']}"
        config = composed([*CONFIG, url, f"run_root={tmp_path}"])
        parts = experiment._simulated(config)
        kits, folder = experiment._kits(config, tmp_path), tmp_path / "run"
        plan = experiment.make_plan(config, kits, parts)
        folder.mkdir()
        strike = Strike(server)
        backend = registry.load("backends", "deployment").create({})
        backend.run(Job(config, plan, kits, folder, strike.see))
        judged = verdict.judge(kits, "agg-1", "no store of that name")
    assert len(strike.lost) >= 2
    assert any(NO_ROOM in reason for reason in strike.lost)
    assert strike.released == [*range(1, ROUNDS + 1)]
    assert judged == {"broken": [], "commits": ROUNDS}
