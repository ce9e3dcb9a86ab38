"""A federation of real Flower processes whose leader is killed in mid-round.

One run serves the tests of failover and, for the deployment backend, the contract of
backends: three sites, three rounds, two aggregators, SIGKILL of the leading one
with all its processes once it accepted an update of round 2.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedsecure import custody, experiment, registry
from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.roster import Role
from fedsecure.backends import Job, Outcome
from fedsecure.composition import composed
from fedsecure.disk import SystemDisk
from fedsecure.drills.processes import processes_of
from fedsecure.he import SecretKey
from fedsecure.stores import Store
from fedsecure.summary import Digest, digest
from fedsecure.trainer import JSON

SITES, ROUNDS, KILL_IN = 3, 3, 2
CONFIG = (
    "backend=deployment",
    "data=breast_cancer",
    "model=logistic",
    f"federation.sites={SITES}",
    f"federation.rounds={ROUNDS}",
    f"backend.kill_leader_in_round={KILL_IN}",
    "privacy=example_local",
    "privacy.target_epsilon=8",
    "encryption=bfv",
    "encryption.masking=none",  # masks on real processes: test_same_model
)


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished run: folders, what it left, its processes, what was shown."""

    kits: Path
    folder: Path
    plan: Mapping[str, JSON]
    outcome: Outcome
    tables: Digest
    pids: frozenset[int]
    keys: Mapping[str, SecretKey]
    scanned: Mapping[int, bool]
    shown: list[Mapping[str, JSON]]

    def members(self, role: Role) -> list[Kit]:
        """Return the kits of one role, by name."""
        found = sorted(path.parent for path in self.kits.glob("*/kit.json"))
        kits = [
            read_kit(path, SystemDisk(), lambda p: p.stat().st_mode) for path in found
        ]
        return [kit for kit in kits if kit.role == role]


def key_of(site: Kit, run: str) -> SecretKey:
    """Return the run key as a site keeps it while the run lasts."""
    shelf: Store = registry.load("stores", "local").create(
        {"path": site.state / "shelf"}
    )
    return custody.KeyCabinet(shelf, site.box).all(run)[0]


def holds(pid: int, probe: bytes) -> bool:
    """Return whether a process has these bytes in memory, environment or command."""
    root = Path(f"/proc/{pid}")
    if probe in (root / "environ").read_bytes() + (root / "cmdline").read_bytes():
        return True
    with (root / "mem").open("rb", buffering=0) as memory:
        for line in (root / "maps").read_text().splitlines():
            span, flags = line.split()[:2]
            start, end = (int(edge, 16) for edge in span.split("-"))
            if "r" not in flags or end - start > 1 << 31:
                continue
            with suppress(OSError, ValueError, OverflowError):
                memory.seek(start)
                if probe in memory.read(end - start):
                    return True
    return False


def half_of(key: SecretKey) -> bytes:
    """Return bytes that nothing but this key holds: two dozen from its middle."""
    return key.secret[len(key.secret) // 2 :][:24]


def deployed(root: Path) -> Ran:
    """Run it below `root`; about a minute and a half."""
    config = composed([*CONFIG, f"run_root={root}"])
    parts = experiment._simulated(config)
    kits, folder = experiment._kits(config, root), root / "run"
    plan = experiment.make_plan(config, kits, parts)
    folder.mkdir()
    seen: set[int] = set()
    keys: dict[str, SecretKey] = {}
    scanned: dict[int, bool] = {}
    shown: list[Mapping[str, JSON]] = []

    def show(event: Mapping[str, JSON]) -> None:
        shown.append(event)
        if event["event"] == "opened":
            seen.update(processes_of(root))
        if event["event"] == "released" and not keys:
            found = Ran(kits, folder, plan, None, None, frozenset(), {}, {}, [])  # type: ignore[arg-type]
            for kit in found.members(Role.SITE):
                keys[kit.name] = key_of(kit, str(plan["run"]))
            probe = half_of(keys["site-01"])
            for aggregator in found.members(Role.AGGREGATOR):
                for pid in processes_of(aggregator.path):
                    with suppress(OSError):
                        scanned[pid] = holds(pid, probe)

    backend = registry.load("backends", "deployment").create({})
    outcome = backend.run(Job(config, plan, kits, folder, show))
    return Ran(
        kits,
        folder,
        plan,
        outcome,
        digest(outcome, plan),
        frozenset(seen),
        keys,
        scanned,
        shown,
    )
