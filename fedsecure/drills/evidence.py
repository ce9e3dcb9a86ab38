"""A run's folders, journal and ledgers as the history that is judged."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedsecure.access.kit import Kit, read_kit
from fedsecure.access.roster import Role
from fedsecure.assembly.aggregator import aggregator_config
from fedsecure.assembly.places import open_engine, open_stores
from fedsecure.backends import Job, Outcome
from fedsecure.checkpoint.replicate import Replicas
from fedsecure.checkpoint.vault import Vault
from fedsecure.clock import SystemClock
from fedsecure.disk import SystemDisk
from fedsecure.drills.history import Commit, History
from fedsecure.errors import FedsecureError
from fedsecure.ledger import verify_ledger
from fedsecure.metadata import Head, JournalEntry, Step
from fedsecure.release import Release
from fedsecure.server_round import read_detail
from fedsecure.stores import Store

Stores = Sequence[tuple[str, Store]]


def history_of(job: Job, outcome: Outcome) -> History:
    """Return what a finished run left, verified as far as signatures reach.

    Raises
    ------
    FedsecureError
        A ledger, the journal or a manifest cannot be read at all.
    """
    config = aggregator_config(job.config, job.plan, job.folder)
    run, rounds = str(job.plan["run"]), int(str(job.plan["rounds"]))
    entries = list(open_engine(config, look=True).journal.entries(run, 0))
    kit = aggregators(job)[0]
    # Any W of N hold a commit, so any N - W + 1 of them must give it back.
    stores, left = open_stores(config), len(config.stores) - config.quorum + 1
    commits = commits_of(kit, entries, stores, left)
    leaders = [int(str(e["term"])) for e in outcome.events if e["event"] == "leader"]
    sites = {str(site) for site in _list(job.plan["sites"])}
    ledgers = {
        name: verify_ledger(path, SystemDisk())
        for name, path in outcome.ledgers.items()
        if name in sites
    }
    private = job.config.privacy.mode != "none"
    return History(run, rounds, private, entries, commits, leaders, ledgers)


def aggregators(job: Job) -> list[Kit]:
    """Return the aggregators' kits, by name."""
    found = sorted(path.parent for path in job.kits.glob("*/kit.json"))
    kits = [read_kit(path, SystemDisk(), _mode) for path in found]
    return [kit for kit in kits if kit.role == Role.AGGREGATOR]


def commits_of(
    kit: Kit, entries: Sequence[JournalEntry], stores: Stores, left: int
) -> list[Commit]:
    """Return every committed checkpoint, restored from each `left` of the stores."""
    return [_commit(kit, head, stores, left) for head in heads_of(entries)]


def heads_of(entries: Sequence[JournalEntry]) -> list[Head]:
    """Return the heads that a journal committed, in order."""
    return [head for entry in entries for head in _head(entry)]


def _head(entry: JournalEntry) -> Iterator[Head]:
    if entry.step == Step.RELEASE:
        detail = read_detail(entry)
        manifest = bytes.fromhex(str(detail["manifest"]))
        yield Head(entry.run, entry.round, int(str(detail["sequence"])), manifest, 0)


def _commit(kit: Kit, head: Head, stores: Stores, left: int) -> Commit:
    manifest = vault_of(kit, stores).manifest(head)
    restored: dict[str, Release | None] = {
        " and ".join(name for name, _ in some): _restored(kit, head, some)
        for some in itertools.combinations(stores, left)
    }
    good = [release for release in restored.values() if release is not None]
    rows = good[0].participants if good else ()
    wanted = bytes.fromhex(manifest.release)
    return Commit(
        head.round,
        head.sequence,
        manifest.term,
        head.manifest.hex(),
        manifest.prev,
        manifest.release,
        {site: digest.hex() for site, digest in rows},
        tuple(n for n, r in restored.items() if r is None or r.digest() != wanted),
    )


def _restored(kit: Kit, head: Head, stores: Stores) -> Release | None:
    try:
        return vault_of(kit, stores).verify_release(head)
    except FedsecureError:
        return None


def vault_of(kit: Kit, stores: Stores) -> Vault:
    """Return an aggregator's view of some stores, to read from."""
    members = kit.roster.of(Role.AGGREGATOR)
    return Vault(
        Replicas(stores, 1),
        kit.name,
        kit.signing,
        kit.box,
        {m.name: m.box for m in members},
        {m.name: m.signing for m in members},
        SystemClock(),
    )


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _mode(path: Path) -> int:
    return path.stat().st_mode
