"""Tier 3: were you in it? One run with hundreds of canaries, each in by a coin toss.

A canary is a digit with a wrong label: what a model does well on it, it learned by
heart. The one-run bound is weak (PRIVACY.md section 16): it can show that a claim is
false and never that it is true.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsecure.accounting import enforced_with, guarantee
from fedsecure.audit.bench import Bench
from fedsecure.audit.bounds import CONFIDENCE, auc_interval, one_run_epsilon
from fedsecure.audit.finding import Check, Tier, Verdict, judged
from fedsecure.audit.pictures import curves_picture
from fedsecure.audit.randomness import Meter
from fedsecure.audit.victim import (
    Rows,
    accuracy,
    dealt,
    digits,
    losses,
    protected_run,
    unprotected_run,
)
from fedsecure.learning.sitedata import SiteData
from fedsecure.learning.training import LocalTrainer
from fedsecure.privacy.mechanism import RandomSource
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.update import JSON, Layout, Vector

CANARIES = 400
GUESSED = 0.25
"""Share of canaries a guess is made for: half of it in, half of it out; fixed here."""
NOISE, ROUNDS = 4.0, 40
_SHOWN = 0.95
_SECTIONS: Mapping[str, JSON] = {"model": {"name": "mlp", "hidden": [64]}}
_LEAD = (
    "Canaries are digits with a wrong label; each is in the run or not by a fair coin "
    "of its own. A low loss of the final model says that a canary was in. The same "
    "rows are trained on twice: with the noise of the plan, through the encryption, "
    "and as federated averaging without any."
)


@dataclass(frozen=True, slots=True)
class Canaries:
    """Rows with wrong labels, and which of them are in.

    Attributes
    ----------
    rows : SiteData
        All digits, the canaries' labels changed.
    places : Rows
        Which training rows are canaries.
    inside : array of bool
        By canary.
    """

    rows: SiteData
    places: Rows
    inside: NDArray[np.bool_]

    def members(self) -> Rows:
        """Return the training rows of the run."""
        out = self.places[~self.inside]
        return np.setdiff1d(np.arange(len(self.rows.train_x)), out)

    def scores(self, layout: Layout, model: Vector) -> tuple[Vector, Vector]:
        """Return minus the loss, of canaries inside and of those outside."""
        x, y = self.rows.train_x[self.places], self.rows.train_y[self.places]
        found = -losses(layout, model, x, y)
        return found[self.inside], found[~self.inside]


@dataclass(frozen=True, slots=True)
class Attack:
    """What loss says about membership after one run."""

    label: str
    members: Vector
    others: Vector
    accuracy: float
    delta: float

    def auc(self) -> tuple[float, float, float]:
        """Return the area under the curve and its interval at 95%."""
        return auc_interval(self.members, self.others, _SHOWN)

    def bound(self) -> float:
        """Return the epsilon that the guesses prove, at 99.9%."""
        scores = np.concatenate([self.members, self.others])
        inside = np.arange(len(scores)) < len(self.members)
        half = int(len(scores) * GUESSED / 2)
        order = np.argsort(scores)
        correct = int(inside[order[-half:]].sum() + (~inside[order[:half]]).sum())
        return one_run_epsilon(len(scores), 2 * half, correct, self.delta, CONFIDENCE)

    def document(self) -> dict[str, JSON]:
        """Return the figures as plain JSON values."""
        area, low, high = self.auc()
        return {
            "auc": area,
            "auc_interval_95": [low, high],
            "epsilon_at_least": self.bound(),
            "accuracy": self.accuracy,
        }


def membership(plan: PrivacyPlan, meter: Meter) -> Tier:
    """Return what the loss of the final model tells about who was in the run."""
    run = replace(plan, noise_multiplier=NOISE, rounds=ROUNDS)
    canaries = planted(digits(), meter)
    noisy, claim = _protected(run, canaries, meter)
    plain = _unprotected(run, canaries)
    curves = [
        (f"{a.label}: AUC {a.auc()[0]:.2f}", a.members, a.others)
        for a in (plain, noisy)
    ]
    picture = curves_picture(curves, "Who was in?")
    checks = [_power(plain), _within(noisy, claim), _advantage(noisy)]
    figures: dict[str, JSON] = {
        "canaries": CANARIES,
        "claimed_epsilon": claim,
        "noise_multiplier": NOISE,
        "rounds": ROUNDS,
        "with_noise": noisy.document(),
        "without_noise": plain.document(),
    }
    return Tier(3, "Does the model tell who was in?", _LEAD, checks, [picture], figures)


def planted(rows: SiteData, source: RandomSource) -> Canaries:
    """Return canaries among the rows: places and labels are public, coins are not."""
    public = np.random.default_rng(7)
    places = public.permutation(len(rows.train_x))[:CANARIES]
    labels = rows.train_y.copy()
    shift = public.integers(1, rows.outputs, CANARIES)
    labels[places] = (labels[places] + shift) % rows.outputs
    coins = np.unpackbits(np.frombuffer(source.bytes(CANARIES), np.uint8))[:CANARIES]
    return Canaries(replace(rows, train_y=labels), places, coins.astype(np.bool_))


def _protected(
    plan: PrivacyPlan, canaries: Canaries, meter: Meter
) -> tuple[Attack, float]:
    """Return the attack on a run with noise, and the epsilon claimed for it."""
    members = canaries.members()
    public = replace(plan, divisor=float(len(canaries.rows.train_x)))
    sections: dict[str, JSON] = {**_SECTIONS, "train": {"learning_rate": 1.0}}
    size = LocalTrainer(canaries.rows).initial({**sections, "seed": 7})[0]
    with Bench(public, size.num_parameters, sections) as bench:
        events = [bench.lattice.event(public, public.rounds)]
        parts = dealt(canaries.rows, members, len(bench.sites))
        layout, model = protected_run(bench, parts, meter)
    name = enforced_with(events)
    claim = guarantee(name, public.relation, events, public.delta).epsilon
    scores = canaries.scores(layout, model)
    right = accuracy(canaries.rows, layout, model)
    return Attack("with noise", *scores, right, public.delta), claim


def _unprotected(plan: PrivacyPlan, canaries: Canaries) -> Attack:
    settings: dict[str, JSON] = {
        **_SECTIONS,
        "train": {"learning_rate": 0.5, "epochs": 5},
        "privacy": {"mode": "none"},
        "seed": 7,
    }
    parts = dealt(canaries.rows, canaries.members(), plan.min_contributors)
    layout, model = unprotected_run(parts, settings, plan.rounds)
    scores = canaries.scores(layout, model)
    right = accuracy(canaries.rows, layout, model)
    return Attack("without noise", *scores, right, plan.delta)


def _said(attack: Attack) -> str:
    area, low, high = attack.auc()
    return f"AUC {area:.3f} ({_SHOWN:.0%} interval {low:.3f} to {high:.3f})"


def _power(plain: Attack) -> Check:
    return Check(
        "the attack works without noise",
        Verdict.PASSED if plain.auc()[1] > 0.5 else Verdict.INCONCLUSIVE,
        plain.auc()[0],
        "interval above 0.5",
        f"{_said(plain)}; it proves epsilon >= {plain.bound():.2f} at "
        f"{CONFIDENCE:.1%}. Accuracy {plain.accuracy:.1%}.",
    )


def _within(noisy: Attack, claim: float) -> Check:
    bound = noisy.bound()
    return Check(
        "one run contradicts no claim",
        judged(passed=bound <= claim),
        bound,
        f"<= {claim:.2f}",
        f"With noise multiplier {NOISE:g} over {ROUNDS} rounds epsilon {claim:.2f} is "
        f"claimed; {CANARIES} canaries prove {bound:.2f} at {CONFIDENCE:.1%}. Weak by "
        "nature: half the noise may pass here, and is tier 2's to find.",
    )


def _advantage(noisy: Attack) -> Check:
    low = noisy.auc()[1]
    return Check(
        "membership is hidden from the loss",
        Verdict.PASSED if low <= 0.6 else Verdict.INCONCLUSIVE,
        noisy.auc()[0],
        "interval reaches below 0.6",
        f"{_said(noisy)}; 0.5 is a coin. Accuracy {noisy.accuracy:.1%}.",
    )
