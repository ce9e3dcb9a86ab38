"""Sites of one run under one key: updates encrypted, summed and opened as in a run.

The auditor holds the key and opens what it likes. Fields, tags, encryption, sum and
opening are the product's own. Not here: the network, signatures and pairwise masks,
which cancel before any noise is seen.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from fedsecure import registry
from fedsecure.ciphertext import Wire, to_bytes
from fedsecure.client_run import ClientRun
from fedsecure.client_update import encrypt, open_sum
from fedsecure.clock import SystemClock
from fedsecure.custody import KeyCabinet
from fedsecure.disk import SystemDisk
from fedsecure.keyring import KeyRing
from fedsecure.keys import BoxKey, SigningKey
from fedsecure.ledger import Ledger
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.quantiser import FixedPoint
from fedsecure.release import Release
from fedsecure.running_sum import RunningSum
from fedsecure.runplan import RunPlan, read_plan
from fedsecure.sections import EncryptionConfig
from fedsecure.shelf import Shelf
from fedsecure.update import JSON, Layout, ModelUpdate, RoundId, Vector

RUN = "audit"
_MAX_BYTES = 1 << 30
_KEY_ID = bytes(16)


class Line:
    """What lies between a site's update and the opened sum; a folder until closed.

    Parameters
    ----------
    plan : RunPlan
    dimension : int
        d, parameters of the model.
    fixed : FixedPoint
        How values become integers, and a sum of them values again.
    """

    def __init__(self, plan: RunPlan, dimension: int, fixed: FixedPoint) -> None:
        self.plan = plan
        self._layout = Layout(("weights",), ((dimension,),))
        self._fixed = fixed
        self._scratch = tempfile.TemporaryDirectory(prefix="fed-audit-")
        folder = Path(self._scratch.name)
        self._ledger = Ledger.open(
            folder / "ledger.jsonl",
            RUN,
            SigningKey.generate(),
            SystemDisk(),
            SystemClock(),
        )
        self._run = _client_run(plan, self._ledger)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites."""
        return self.plan.sites

    def close(self) -> None:
        """Forget the run, its key and its folder."""
        self._ledger.close()
        self._scratch.cleanup()

    def encrypted(self, number: int, parts: Sequence[Vector]) -> dict[str, bytes]:
        """Return each site's ciphertext of its update, by name."""
        sent = {}
        for site, part in zip(self.sites, parts, strict=True):
            update = ModelUpdate(self._layout, part, 1)
            run = replace(self._run, site=site)
            made = encrypt(run, RoundId(RUN, number), update, fixed=self._fixed)
            sent[site] = b"".join(made.chunks())
        return sent

    def opened(self, number: int, sent: Mapping[str, bytes]) -> Vector:
        """Return what the sum of some sites' ciphertexts opens to."""
        round_id = RoundId(RUN, number)
        key_id = self._run.keys.id_of(number)
        room = self._fixed.max_contributors
        total = RunningSum(key_id, max_summands=room)
        for body in sent.values():
            total.add(Wire(body, key_id=key_id, max_summands=room))
        who = tuple((site, b"") for site in sorted(sent))
        release = Release(round_id, number - 1, who, b"")
        size = self._layout.num_parameters
        summed = to_bytes(total.total())
        return open_sum(self._run, release, summed, size, fixed=self._fixed)


def plan_of(privacy: PrivacyPlan, sites: int, settings: Mapping[str, JSON]) -> RunPlan:
    """Return a plan as any run's: bfv, fields of 24 bits, no masks.

    Parameters
    ----------
    settings : mapping
        Sections model and train.
    """
    names = [f"site-{i + 1}" for i in range(sites)]
    private = privacy.mode.shared
    encryption = EncryptionConfig(
        scheme="bfv",
        masking="none",
        profile="20",
        rounding="nearest",
        range_from="config",
        error_feedback=False,
    )
    return read_plan(
        {
            "format": 1,
            "federation": RUN,
            "run": RUN,
            "project": RUN,
            "dataset": RUN,
            "rounds": max(privacy.rounds, 1),
            "sites": list(names),
            "custodians": [names[0]],
            "min_contributors": sites,
            "seed": 7,
            "metrics": "none",
            "max_rows": 0,
            "privacy": privacy.document(),
            "encryption": encryption.document(sites, sites, private=private),
            **settings,
        }
    )


def _client_run(plan: RunPlan, ledger: Ledger) -> ClientRun:
    store = registry.load("stores", "memory").create({})
    scheme = registry.load("he", plan.scheme).create({})
    keys = KeyRing(RUN, KeyCabinet(store, BoxKey.generate()), ledger)
    keys.take(0, scheme.keygen(_KEY_ID), plan.sites[0])
    return ClientRun(plan.sites[0], plan, Shelf(store, RUN, _MAX_BYTES), scheme, keys)
