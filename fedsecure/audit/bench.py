"""A federation in memory for the auditor, who holds the run key and opens anything.

Noise, fields, tags, encryption, sum and opening are the product's own. Not here: the
network, signatures and pairwise masks, which cancel before any noise is seen.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from fedsecure import registry
from fedsecure.ciphertext import Wire, to_bytes
from fedsecure.client_run import ClientRun
from fedsecure.client_update import encrypt, open_sum
from fedsecure.clock import SystemClock
from fedsecure.custody import KeyCabinet
from fedsecure.disk import SystemDisk
from fedsecure.errors import ConfigurationError
from fedsecure.keyring import KeyRing
from fedsecure.keys import BoxKey, SigningKey
from fedsecure.ledger import Ledger
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.release import Release
from fedsecure.running_sum import RunningSum
from fedsecure.runplan import RunPlan, read_plan
from fedsecure.sections import EncryptionConfig
from fedsecure.shelf import Shelf
from fedsecure.update import JSON, IntVector, Layout, ModelUpdate, RoundId, Vector

RUN = "audit"
_MAX_BYTES = 1 << 30
_KEY_ID = bytes(16)
_PLAIN: Mapping[str, JSON] = {"model": {}, "train": {"learning_rate": 1.0}}


class Bench:
    """Sites of one run, and the one key they share; a folder of its own until closed.

    Parameters
    ----------
    privacy : PrivacyPlan
        Of a mode in which noise is shared. There are as many sites as a sum needs: the
        fewest, so the least noise.
    dimension : int
        d, parameters of the model.
    settings : mapping, optional
        Sections model and train, where the run trains.

    Attributes
    ----------
    plan : RunPlan
    lattice : Lattice
    sites : tuple of str

    Raises
    ------
    ConfigurationError
        Another mode, or a grid that does not fit its fields.
    """

    def __init__(
        self,
        privacy: PrivacyPlan,
        dimension: int,
        settings: Mapping[str, JSON] = _PLAIN,
    ) -> None:
        if not privacy.mode.shared:
            raise ConfigurationError(
                f"privacy mode {privacy.mode} shares no noise: there is no sum to audit"
            )
        self.sites = tuple(f"site-{i + 1}" for i in range(privacy.min_contributors))
        self.plan = read_plan(_document(privacy, self.sites, settings))
        self.lattice: Lattice = self.plan.lattice(dimension)
        self._layout = Layout(("weights",), ((dimension,),))
        self._fixed = replace(self.plan.wholes(dimension), unit=1.0)
        self._scratch = tempfile.TemporaryDirectory(prefix="fed-audit-")
        folder = Path(self._scratch.name)
        self._ledger = Ledger.open(
            folder / "ledger.jsonl",
            RUN,
            SigningKey.generate(),
            SystemDisk(),
            SystemClock(),
        )
        self._run = _client_run(self.plan, self._ledger)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget the run, its key and its folder."""
        self._ledger.close()
        self._scratch.cleanup()

    def send(self, number: int, parts: Sequence[IntVector]) -> "Round":
        """Return a round in which each site sent its integers, one after the other."""
        round_id = RoundId(RUN, number)
        sent = []
        for site, part in zip(self.sites, parts, strict=True):
            update = ModelUpdate(self._layout, part.astype(np.float64), 1)
            run = replace(self._run, site=site)
            made = encrypt(run, round_id, update, fixed=self._fixed)
            sent.append(b"".join(made.chunks()))
        return Round(self, round_id, tuple(sent))

    def opened(self, round_id: RoundId, sent: Mapping[str, bytes]) -> IntVector:
        """Return the sum of some sites' ciphertexts, opened; integers of the grid."""
        key_id = self._run.keys.id_of(round_id.number)
        room = self._fixed.max_contributors
        total = RunningSum(key_id, max_summands=room)
        for body in sent.values():
            total.add(Wire(body, key_id=key_id, max_summands=room))
        who = tuple((site, b"") for site in sorted(sent))
        release = Release(round_id, round_id.number - 1, who, b"")
        size = self._layout.num_parameters
        found: Vector = open_sum(
            self._run, release, to_bytes(total.total()), size, fixed=self._fixed
        )
        return np.rint(found).astype(np.int64)


class Round:
    """What the sites of a bench sent in one round, still encrypted."""

    def __init__(
        self, bench: Bench, round_id: RoundId, sent: tuple[bytes, ...]
    ) -> None:
        self._bench, self._round, self._sent = bench, round_id, sent

    def sum(self) -> IntVector:
        """Return the sum of all sites, opened."""
        return self._bench.opened(
            self._round, dict(zip(self._bench.sites, self._sent, strict=True))
        )

    def alone(self, index: int) -> IntVector:
        """Return one site's update, opened: what a run never does."""
        site = self._bench.sites[index]
        return self._bench.opened(self._round, {site: self._sent[index]})

    def seen(self, colluders: int) -> IntVector:
        """Return the sum as the adversary of the first epsilon knows it.

        The last `colluders` sites tell what they sent, and it is taken off.
        """
        total = self.sum()
        for index in range(len(self._sent) - colluders, len(self._sent)):
            total -= self.alone(index)
        return total


def _client_run(plan: RunPlan, ledger: Ledger) -> ClientRun:
    store = registry.load("stores", "memory").create({})
    scheme = registry.load("he", plan.scheme).create({})
    keys = KeyRing(RUN, KeyCabinet(store, BoxKey.generate()), ledger)
    keys.take(0, scheme.keygen(_KEY_ID), plan.sites[0])
    shelf = Shelf(store, RUN, _MAX_BYTES)
    return ClientRun(plan.sites[0], plan, shelf, scheme, keys)


def _document(
    privacy: PrivacyPlan, sites: Sequence[str], settings: Mapping[str, JSON]
) -> dict[str, JSON]:
    """Return a plan as any run's: bfv, fields for privacy, no masks."""
    encryption = EncryptionConfig(scheme="bfv", masking="none")
    return {
        "format": 1,
        "federation": "audit",
        "run": RUN,
        "project": "audit",
        "dataset": "audit",
        "rounds": privacy.rounds,
        "sites": list(sites),
        "custodians": [sites[0]],
        "min_contributors": privacy.min_contributors,
        "seed": 7,
        "metrics": "none",
        "max_rows": 0,
        "privacy": privacy.document(),
        "encryption": encryption.document(
            len(sites), privacy.min_contributors, private=True
        ),
        **settings,
    }
