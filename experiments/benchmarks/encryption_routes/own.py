"""Our routes, through the functions that a site and an aggregator call in a round."""

# ruff: noqa: ARG002 - signatures are `phases.Route`'s

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsecure import ciphertext, client_update, masks, registry
from fedsecure.ciphertext import Wire
from fedsecure.client_run import ClientRun
from fedsecure.keys import BoxKey
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.release import Release
from fedsecure.residual import Carry
from fedsecure.running_sum import RunningSum
from fedsecure.runplan import RunPlan, read_plan
from fedsecure.sections import EncryptionConfig
from fedsecure.shelf import Shelf
from fedsecure.update import JSON, Layout, ModelUpdate, RoundId

Array = NDArray[Any]
MAX_SITES = 16
SLOTS = 4096
ROUND = RoundId("bench", 1)


class Own:
    """One site after the other encrypts, an aggregator adds, a site opens.

    Parameters
    ----------
    sites : int
    scheme, profile : str
    params : int
    form : str
        "seeds" or "sum": the downlink, without masks and rounded to the nearest step.
        "feedback": seeds, rounded by chance, with what rounding took carried over.
        "masked": seeds, with pairwise masks of all sites under the encryption.
    """

    dtype = np.float64
    one_for_all = False

    def __init__(
        self, sites: int, scheme: str, profile: str, params: int, form: str
    ) -> None:
        self._names = tuple(f"site-{i:02}" for i in range(sites))
        self._layout = Layout(("w",), ((params,),))
        self._form = form
        self._plan = _plan(self._names, scheme, profile, form)
        made = registry.load("he", scheme).create({})
        key = made.keygen(bytes(range(16)))
        shelf: Shelf = None  # type: ignore[assignment] # a run's, not an update's
        self._runs = [
            ClientRun(n, self._plan, shelf, made, _ring(key)) for n in self._names
        ]
        self._key_id = key.key_id
        self._keys = _agreed(self._names, key.key_id) if form == "masked" else []
        self._seeds: dict[int, bytes] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="bench-")
        step = ciphertext.CHUNK_BLOCKS * self._plan.profile.a_block(SLOTS)
        store = registry.load("stores", "local").create(
            {"path": Path(self._scratch.name)}
        )
        self._carries = [Carry(store, "residual/", 1, 2 + i) for i in range(sites)]
        if form == "feedback":  # what the round before left: here nothing, in as many
            first = Carry(store, "residual/", 0, 1)  # parts and bytes as anything
            for start in range(0, params, step):
                first.keep(np.zeros(min(step, params - start)), start)

    def encrypt(self, update: Array, site: int) -> Iterator[bytes]:
        options: dict[str, Any] = {}
        if self._form == "feedback":
            options |= {"rng": _chance(site), "carry": self._carries[site]}
        if self._form == "masked":
            options["mask"] = self._masks(site)
        made = ModelUpdate(self._layout, update, 1)
        run = self._runs[site]
        yield from client_update.encrypt(run, ROUND, made, **options).chunks()

    def encoded(self, update: Array, site: int) -> Array:
        rng = _chance(site) if self._form == "feedback" else None
        return self._plan.fixed.quantize(update, 0, rng).values

    def aggregate(self, uploads: Iterable[bytes]) -> Iterator[bytes]:
        total = RunningSum(self._key_id, max_summands=MAX_SITES)
        waiting = iter(uploads)
        while data := next(waiting, None):
            total.add(Wire(data, key_id=self._key_id, max_summands=1))
            del data  # an aggregator drops one message before it takes the next
        yield from ciphertext.to_chunks(total.total())

    def decrypt(self, total: bytes) -> Array:
        participants = tuple((name, bytes(32)) for name in self._names)
        release = Release(ROUND, 0, participants, bytes(32))
        unmask = None
        if self._form == "masked":
            seeds = [self._seeds[i] for i in range(len(self._names))]
            unmask = masks.removal(self._names, self._names, seeds)
        size = self._layout.num_parameters
        return client_update.open_sum(
            self._runs[0], release, total, size, unmask=unmask
        )

    def error(self, opened: Array, encoded: Array) -> float:
        steps = opened * (len(self._names) * self._plan.fixed.scale)
        return float(np.abs(np.rint(steps) - encoded).max())

    def downlink(self, total: int, params: int) -> int:
        return total

    def _masks(self, site: int) -> masks.MaskStream:
        """This round's: its own seed is kept, as the others would be told it."""
        drawn: list[bytes] = []

        def random(size: int) -> bytes:
            drawn.append(os.urandom(size))
            return drawn[-1]

        threshold = self._plan.encryption.threshold
        made = masks.make_masks(self._keys[site], ROUND, threshold, random)
        self._seeds[site] = drawn[0]
        return made.stream


def _plan(names: tuple[str, ...], scheme: str, profile: str, form: str) -> RunPlan:
    settings = {
        "scheme": scheme,
        "profile": profile,
        "downlink": "sum" if form == "sum" else "seeds",
        "masking": "pairwise" if form == "masked" else "none",
        "range_from": "config",
        "max_contributors": MAX_SITES,
    }
    encryption = EncryptionConfig.model_validate(settings)
    sites: list[JSON] = list(names)
    document: dict[str, JSON] = {
        "format": 1,
        "federation": "bench",
        "run": ROUND.run,
        "project": "bench",
        "dataset": "bench",
        "rounds": 1,
        "sites": sites,
        "custodians": sites,
        "min_contributors": len(names),
        "seed": 7,
        "metrics": "none",
        "max_rows": 0,
        "model": {},
        "train": {},
        "privacy": PrivacyPlan(Mode.NONE).document(),
        "encryption": encryption.document(len(names), len(names), private=False),
    }
    return read_plan(document)


def _agreed(names: tuple[str, ...], key_id: bytes) -> list[masks.MaskKeys]:
    """Agreement is once a run, so it is outside the clock."""
    boxes = {name: BoxKey.generate() for name in names}
    public = {name: box.public for name, box in boxes.items()}
    return [
        masks.MaskKeys.agree(boxes[name], public, name, "bench|bench", key_id)
        for name in names
    ]


def _chance(site: int) -> np.random.Generator:
    return np.random.default_rng(site + 1)


def _ring(key: Any) -> Any:
    """Return a ring that has one key for every round."""
    return SimpleNamespace(of=lambda _: key, id_of=lambda _: key.key_id)
