"""The line is the product's: a mean of updates comes out as quantised ones add up."""

import numpy as np
import pytest

from fedsecure.audit.line import Line, plan_of
from fedsecure.audit.programme import PLAN
from fedsecure.privacy.plan import Mode, PrivacyPlan

SECTIONS = {"model": {}, "train": {"learning_rate": 1.0}}


def test_without_privacy_a_mean_comes_out() -> None:
    plan = plan_of(PrivacyPlan(Mode.NONE), 3, SECTIONS)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    parts = [rng.uniform(-1, 1, 100) for _ in range(3)]
    with Line(plan, 100, plan.fixed) as line:
        mean = line.opened(1, line.encrypted(1, parts))
    assert mean == pytest.approx(np.mean(parts, axis=0), abs=1e-5)


def test_a_plan_of_the_audit_is_a_runs_plan() -> None:
    plan = plan_of(PLAN, 5, SECTIONS)  # type: ignore[arg-type]
    assert plan.scheme == "bfv"
    assert plan.profile.field_bits == 24
    assert plan.shared_noise
    assert not plan.encryption.masked
