"""Tier 3: the picture that an update holds, with and without noise.

The gradient of a first linear layer on one example is an outer product, g x^T beside
g: whoever opens it divides and has x (Phong et al. 2017). Encryption hides single
updates; it does not protect a sum in which one example stands alone, which a malicious
model can bring about. Noise does (PRIVACY.md section 16).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fedsecure.audit.bench import Bench
from fedsecure.audit.finding import Check, Tier, Verdict, judged
from fedsecure.audit.line import Line, plan_of
from fedsecure.audit.pictures import digits_picture
from fedsecure.audit.randomness import Meter
from fedsecure.audit.victim import Rows, dealt, digits, trained
from fedsecure.learning.sitedata import SiteData
from fedsecure.learning.training import LocalTrainer
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.update import JSON, Layout, Vector

EXACT_DB = 60.0
"""From here on a copy cannot be told from the original, which has 17 grey levels."""
LEVELS = (0.1, 1.0)
"""Noise multipliers shown; the last one is judged."""
_SIDE = 8
_SECTIONS: Mapping[str, JSON] = {
    "model": {"name": "logistic"},
    "train": {"learning_rate": 1.0, "batch_size": 1},
}
_LEAD = (
    "A site holds one example; the first layer's part of what it sends is divided by "
    "the bias' part. The other sites send noise alone: the worst case, which a "
    "malicious model can bring about and in which encryption hides nothing, for the "
    "opened sum is that one update."
)


@dataclass(frozen=True, slots=True)
class Copies:
    """What an attacker makes of some updates.

    Attributes
    ----------
    label : str
    made : Vector
        Shape (n, 64), from 0 to 1.
    decibel : float
        Mean peak signal-to-noise ratio against the originals.
    found : int
        How many are nearest to their own original among all training rows.
    """

    label: str
    made: Vector
    decibel: float
    found: int


def inversion(plan: PrivacyPlan, meter: Meter) -> Tier:
    """Return what gradient inversion makes of one digit of each class."""
    rows = digits()
    everyone = rows.train_x.astype(np.float64)
    chosen = np.array([int(np.argmax(rows.train_y == k)) for k in range(rows.outputs)])
    truth = everyone[chosen]

    def copies(label: str, made: Vector) -> Copies:
        found = int(np.count_nonzero(_nearest(made, everyone) == chosen))
        return Copies(label, made, peak_signal(truth, made), found)

    plain = copies("an update as it is", _unprotected(rows, chosen))
    opened = copies(
        "encrypted, no noise", _encrypted(rows, chosen, plan.min_contributors)
    )
    noisy = [
        copies(
            f"noise multiplier {z:g}",
            _protected(replace(plan, noise_multiplier=z), rows, chosen, meter),
        )
        for z in LEVELS
    ]
    blind = np.broadcast_to(everyone.mean(axis=0), truth.shape)
    guess = copies("the average digit", np.asarray(blind))
    all_rows = (plain, opened, *noisy, guess)
    shown = [("the example", truth)]
    shown += [(f"{c.label}\n{c.decibel:.0f} dB", c.made) for c in all_rows]
    picture = digits_picture([(s, p.reshape(-1, _SIDE, _SIDE)) for s, p in shown])
    figures: dict[str, JSON] = {
        c.label: {"psnr_db": c.decibel, "identified": c.found, "of": len(chosen)}
        for c in all_rows
    }
    checks = [
        _instrument(plain, opened, len(chosen)),
        _hidden(noisy[-1], guess, len(chosen)),
    ]
    title = "What does one update show of the example it was made of?"
    return Tier(3, title, _LEAD, checks, [picture], figures)


def inverted(gradient: Vector, layout: Layout) -> Vector:
    """Return the input that a first linear layer's gradient was made of.

    The least-squares quotient over the layer's outputs: exact without noise.

    Parameters
    ----------
    gradient : Vector
        Of one example, in any scale; the layer's weights first, then its bias.
    layout : Layout
        Its first two tensors are of shapes (outputs, inputs) and (outputs,).
    """
    outputs, inputs = layout.shapes[0]
    size = outputs * inputs
    weight, bias = gradient[:size].reshape(outputs, inputs), gradient[size:][:outputs]
    return np.asarray(bias @ weight / max(float(bias @ bias), 1e-300))


def peak_signal(truth: Vector, made: Vector) -> float:
    """Return the mean peak signal-to-noise ratio, decibel; 400 for no error at all."""
    errors = np.mean(np.square(truth - made), axis=1)
    return float(np.mean(-10 * np.log10(np.maximum(errors, 1e-40))))


def _unprotected(rows: SiteData, chosen: Rows) -> Vector:
    layout, updates = _updates(rows, chosen)
    return np.array([np.clip(inverted(u, layout), 0, 1) for u in updates])


def _encrypted(rows: SiteData, chosen: Rows, sites: int) -> Vector:
    """Return copies from sums in which the other sites did not move the model."""
    layout, updates = _updates(rows, chosen)
    plan = plan_of(PrivacyPlan(Mode.NONE), sites, _SECTIONS)
    still, made = [np.zeros(layout.num_parameters)] * (sites - 1), []
    with Line(plan, layout.num_parameters, plan.fixed) as line:
        for number, update in enumerate(updates, 1):
            mean = line.opened(number, line.encrypted(number, [update, *still]))
            made.append(np.clip(inverted(mean, layout), 0, 1))
    return np.array(made)


def _updates(rows: SiteData, chosen: Rows) -> tuple[Layout, list[Vector]]:
    """Return what each example alone makes of the first model, without privacy."""
    settings: dict[str, JSON] = {**_SECTIONS, "privacy": {"mode": "none"}, "seed": 7}
    layout, updates = LocalTrainer(rows).initial(settings)[0], []
    for number, part in enumerate(dealt(rows, chosen, len(chosen)), 1):
        trainer = LocalTrainer(part)
        model = trainer.initial(settings)[1]
        updates.append(trained(trainer, layout, model, settings, number).delta)
    return layout, updates


def _protected(plan: PrivacyPlan, rows: SiteData, chosen: Rows, meter: Meter) -> Vector:
    layout, model = LocalTrainer(rows).initial({**_SECTIONS, "seed": 7})
    nothing, made = np.zeros(layout.num_parameters), []
    with Bench(plan, layout.num_parameters, _SECTIONS) as bench:
        for number, part in enumerate(dealt(rows, chosen, len(chosen)), 1):
            trainer = LocalTrainer(part, source=meter)
            delta = trained(trainer, layout, model, bench.plan.settings, number).delta
            others = [
                bench.lattice.contribute(nothing, meter)[0] for _ in bench.sites[1:]
            ]
            sent = bench.send(number, [delta.astype(np.int64), *others])
            seen = sent.seen(plan.max_colluders) / bench.lattice.steps
            made.append(np.clip(inverted(seen, layout), 0, 1))
    return np.array(made)


def _nearest(made: Vector, everyone: Vector) -> Rows:
    away = np.square(made[:, None, :] - everyone[None, :, :]).sum(axis=2)
    return np.asarray(away.argmin(axis=1))


def _instrument(plain: Copies, opened: Copies, count: int) -> Check:
    worse = min(plain.decibel, opened.decibel)
    works = worse >= EXACT_DB and plain.found == opened.found == count
    return Check(
        "the attack works without noise",
        Verdict.PASSED if works else Verdict.INCONCLUSIVE,
        worse,
        f">= {EXACT_DB:.0f} dB",
        f"{plain.found} of {count} examples are copied as they are from an update "
        f"({plain.decibel:.0f} dB), and {opened.found} from the opened sum of one that "
        f"was encrypted ({opened.decibel:.0f} dB): encryption hides single updates, "
        "not what a sum shows.",
    )


def _hidden(noisy: Copies, guess: Copies, count: int) -> Check:
    return Check(
        "the attack fails with noise",
        judged(passed=noisy.decibel <= guess.decibel),
        noisy.decibel,
        f"<= {guess.decibel:.1f} dB",
        f"{noisy.decibel:.1f} dB with {noisy.label}, {noisy.found} of {count} found "
        "again; who shows the average digit and looks at no update has "
        f"{guess.decibel:.1f} dB.",
    )
