"""The least noise that keeps a run within its epsilon."""

import pytest

from fedsecure import registry
from fedsecure.accounting import PrivacyEvent, Relation
from fedsecure.errors import ConfigurationError
from fedsecure.privacy.calibration import calibrate, calibrate_event

ADD = Relation.ADD_OR_REMOVE_ONE


@pytest.mark.parametrize("name", ["rdp", "pld"])
@pytest.mark.parametrize(
    ("target", "q", "steps"), [(3.0, 0.1, 80), (1.0, 1.0, 40), (0.1, 0.02, 100)]
)
def test_calibration_meets_the_target_from_below(
    name: str, target: float, q: float, steps: int
) -> None:
    create = registry.load("accounting", name).create
    z = calibrate(target, 1e-5, q, steps, ADD, create)
    spent = create(ADD)
    spent.compose(PrivacyEvent("poisson_gaussian", z, q, steps))
    assert target * (1 - 5.1e-4) <= spent.epsilon(1e-5) <= target


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_target_that_is_no_promise_is_refused(target: float) -> None:
    create = registry.load("accounting", "rdp").create
    with pytest.raises(ConfigurationError, match=r"target_epsilon=.*must be positive"):
        calibrate(target, 1e-5, 0.1, 10, ADD, create)


def test_target_no_noise_can_meet_is_refused() -> None:
    create = registry.load("accounting", "rdp").create
    with pytest.raises(ConfigurationError, match="noise multiplier above 1024"):
        calibrate(1e-5, 1e-5, 1.0, 1_000_000, ADD, create)


def test_target_that_would_be_no_noise_is_refused() -> None:
    create = registry.load("accounting", "rdp").create
    with pytest.raises(ConfigurationError, match="lower epsilon"):
        calibrate(1e6, 1e-5, 1.0, 1, ADD, create)


def test_discrete_path_is_calibrated_with_what_enforces_it() -> None:
    create = registry.load("accounting", "rdp").create

    def event(z: float) -> PrivacyEvent:
        return PrivacyEvent.of_shares(z, 1.0, 40, 4, 50.0, 650)

    z = calibrate_event(1.0, 1e-5, Relation.ADD_OR_REMOVE_ONE, create, event)
    spent = create(Relation.ADD_OR_REMOVE_ONE)
    spent.compose(event(z))
    assert 0.9995 <= spent.epsilon(1e-5) <= 1.0
