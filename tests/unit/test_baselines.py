"""The runs that a run is held against."""

import pytest

from fedsecure.baselines import plainly, unprotected, with_local_noise
from fedsecure.composition import composed

SHARED = composed([])


def test_local_noise_is_drawn_in_full_at_the_same_epsilon() -> None:
    local = with_local_noise(SHARED, 2.5)
    assert local is not None
    asked = local.privacy
    assert (asked.mode, asked.target_epsilon) == ("example_local", 2.5)
    assert (asked.clip_norm, asked.sample_rate) == (0.5, 1.0)
    assert local.train == SHARED.train


def test_a_site_divides_by_its_own_part_of_the_batch() -> None:
    local = with_local_noise(SHARED, 2.5)
    assert local is not None
    assert local.privacy.divisor == pytest.approx(1400 / 3)


def test_rounds_and_rows_are_the_same() -> None:
    local = with_local_noise(SHARED, 2.5)
    assert local is not None
    assert local.federation.rounds == SHARED.federation.rounds
    assert (local.data, local.model) == (SHARED.data, SHARED.model)


@pytest.mark.parametrize("mode", ["none", "example_local", "silo"])
def test_other_modes_have_no_arm_of_local_noise(mode: str) -> None:
    assert with_local_noise(composed([f"privacy={mode}"]), 2.5) is None


def test_the_unprotected_run_has_neither_privacy_nor_encryption() -> None:
    plain = unprotected(SHARED)
    assert plain is not None
    assert (plain.privacy.mode, plain.encryption.scheme) == ("none", "insecure_plain")
    assert (plain.backend.name, plain.store.name) == ("inprocess", "memory")


def test_a_noisy_steps_learning_rate_is_none_for_plain_sgd() -> None:
    assert SHARED.train.learning_rate == 16
    assert plainly(SHARED)["learning_rate"] == 0.5


def test_a_local_runs_learning_rate_stays() -> None:
    local = composed(["privacy=example_local", "train.learning_rate=0.7"])
    assert plainly(local)["learning_rate"] == 0.7


def test_what_is_not_protected_is_its_own_baseline() -> None:
    assert unprotected(composed(["experiment=digits_quick"])) is None


def test_a_daemons_run_is_compared_in_one_process() -> None:
    for made in (with_local_noise(composed(["experiment=demo"]), 3.0),):
        assert made is not None
        assert made.backend.name == "inprocess"
        assert made.backend.kill_leader_in_round is None


def test_baselines_of_a_run_that_tells_counts_measure_in_plain() -> None:
    told = composed(["privacy.metrics=dp", "privacy.metrics_each_round=true"])
    local, plain = with_local_noise(told, 2.5), unprotected(told)
    for baseline in (local, plain):
        assert baseline is not None
        assert baseline.privacy.metrics == "plain"
        assert not baseline.privacy.metrics_each_round
