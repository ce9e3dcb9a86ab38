"""Tier 2: an opened sum tells no more about one example than is claimed.

Every field of a ciphertext is a trial of the mechanism, with an example of clip norm C
and without one. What tells the two worlds apart bounds epsilon from below, whatever
the code says (PRIVACY.md section 16).
"""

import math
from dataclasses import dataclass

from fedsecure.accounting import enforced_with, guarantee
from fedsecure.audit.bench import Bench
from fedsecure.audit.bounds import CONFIDENCE, gaussian_epsilon, separation_bound
from fedsecure.audit.finding import Check, Tier, Verdict
from fedsecure.audit.pictures import worlds_picture
from fedsecure.audit.randomness import Meter, Provenance
from fedsecure.audit.trials import Trials
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.plan import PrivacyPlan
from fedsecure.update import JSON, IntVector, Vector

LEAST_SHARE = 0.9
"""A bound below so much of the claim shows nothing: the noise may be anything."""
FIELDS = 8190
"""Of a ciphertext, profile 20; the tag has the last coefficient."""
_LEAD = (
    "One site trains on one example of clip norm C a parameter, or on none, with the "
    "product's own gradient engine; each parameter is a trial. The auditor knows what "
    "the adversary knows, guesses the world from each field of the opened sum, and a "
    "threshold chosen on half of the trials is judged on the other half."
)


@dataclass(frozen=True, slots=True)
class Separation:
    """Two worlds as one adversary sees them, and what is claimed against it.

    Attributes
    ----------
    adversary : str
    without, within : IntVector
        A trial each, in grid steps.
    multiplier : float
        Noise over sensitivity that is left against this adversary.
    delta : float
    """

    adversary: str
    without: IntVector
    within: IntVector
    multiplier: float
    delta: float

    def claim(self) -> float:
        """Return epsilon of one step by the exact curve of a Gaussian.

        It is the least that can be claimed: the accountant that enforces says more.
        """
        return gaussian_epsilon(1 / self.multiplier, self.delta)

    def bound(self) -> float:
        """Return the epsilon that the trials prove, at 99.9%."""
        without, within = self.without.astype(float), self.within.astype(float)
        return gaussian_epsilon(separation_bound(without, within), self.delta)

    def check(self) -> Check:
        """Return failed above the claim, inconclusive below 0.9 of it."""
        bound, claim = self.bound(), self.claim()
        return Check(
            f"epsilon against {self.adversary}",
            _verdict(bound, claim),
            bound,
            f"<= {claim:.3f}, and >= {LEAST_SHARE} of it",
            f"At least {bound:.3f} at {CONFIDENCE:.1%} confidence, claimed {claim:.3f} "
            f"({bound / claim:.3f} of it), at delta {self.delta:g}, from "
            f"{self.without.size:,} trials a world.",
        )


def mechanism(plan: PrivacyPlan, ciphertexts: int, meter: Meter) -> Tier:
    """Return tier 2 for one step of a plan, on so many ciphertexts a world."""
    provenance = Provenance(meter)
    with Bench(plan, FIELDS * ciphertexts) as bench:
        trials, lattice = Trials(plan, bench.lattice, meter), bench.lattice
        seen, alone = [], []
        for number, present in enumerate((False, True), 1):
            sent = [
                trials.contribution(present=present and site == bench.sites[0])
                for site in bench.sites
            ]
            for part in sent:
                provenance.saw(part)
            opened = bench.send(number, sent)
            seen.append(opened.seen(plan.max_colluders))
            alone.append(opened.alone(0))
    found = [
        Separation(
            _colluding(plan.max_colluders),
            seen[0],
            seen[1],
            plan.noise_multiplier,
            plan.delta,
        ),
        Separation(
            "all other sites together",
            alone[0],
            alone[1],
            plan.noise_multiplier / math.sqrt(plan.shares),
            plan.delta,
        ),
    ]
    checks = [one.check() for one in found]
    picture = worlds_picture(
        *_deviations(found[0]),
        [(s.adversary, s.bound(), s.claim()) for s in found],
        LEAST_SHARE,
    )
    figures: dict[str, JSON] = {
        "trials_a_world": seen[0].size,
        "noise_multiplier": plan.noise_multiplier,
        "bound_over_claim": [s.bound() / s.claim() for s in found],
        "enforced_epsilon": _enforced(plan, lattice),
        "inflation": lattice.inflation(),
    }
    title = "Does a sum tell no more about an example than claimed?"
    return Tier(2, title, _LEAD, [provenance.check(), *checks], [picture], figures)


def _verdict(bound: float, claim: float) -> Verdict:
    if bound > claim:
        return Verdict.FAILED
    return Verdict.PASSED if bound >= LEAST_SHARE * claim else Verdict.INCONCLUSIVE


def _colluding(count: int) -> str:
    return f"outsiders with {count} colluding site{'s' if count > 1 else ''}"


def _deviations(found: Separation) -> tuple[Vector, Vector]:
    """Return both worlds in deviations of the one without."""
    centre, spread = found.without.mean(), found.without.std() or 1.0
    return (found.without - centre) / spread, (found.within - centre) / spread


def _enforced(plan: PrivacyPlan, lattice: Lattice) -> float:
    events = [lattice.event(plan)]
    return guarantee(enforced_with(events), plan.relation, events, plan.delta).epsilon
