"""What three hosts left, judged on one of them: ``python -m tests.fakes.verdict``.

Arguments: the kits' folder, the aggregator that is left, and the domain of hosts that
are lost. The journal is read from the engine, every commit restored from all stores
that are left; the last line printed is a JSON list of what is wrong.
"""

import json
import sys
from pathlib import Path

from fedsecure.access.kit import read_kit
from fedsecure.assembly.aggregator import read_config, read_terms
from fedsecure.assembly.places import open_engine, open_stores
from fedsecure.disk import SystemDisk
from fedsecure.drills.evidence import commits_of
from fedsecure.drills.history import History, sentences
from fedsecure.ledger import verify_ledger
from fedsecure.monitor.observer import read_lines


def judge(kits: Path, name: str, lost: str) -> dict[str, object]:
    """Return the broken invariants, and how many rounds were committed."""
    kit = read_kit(kits / name, SystemDisk(), lambda p: p.stat().st_mode)
    config = read_config(kit)
    terms = read_terms(config, kit.roster)
    entries = list(open_engine(config, look=True).journal.entries(terms.run, 0))
    stores = [s for s in open_stores(config) if lost not in s[0]]
    events = [e for p in kits.glob("agg-*/state/events.jsonl") for e in read_lines(p)]
    events.sort(key=lambda e: float(str(e["now"])))
    history = History(
        terms.run,
        terms.rounds,
        private=False,
        entries=entries,
        commits=commits_of(kit, entries, stores, len(stores)),
        leaders=[int(str(e["term"])) for e in events if e["event"] == "leader"],
        ledgers={
            site: verify_ledger(kits / site / "state" / "ledger.jsonl", SystemDisk())
            for site in terms.sites
        },
    )
    return {"broken": sentences(history), "commits": len(history.commits)}


if __name__ == "__main__":
    found = judge(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    sys.stdout.write(f"\n{json.dumps(found)}\n")
