"""What a report says beside its figures."""

import pytest

from fedsecure.composition import composed
from fedsecure.config import RunConfig
from fedsecure.notes import run_notes


def notes(*patterns: str) -> str:
    encryption = {"encrypt_layers": list(patterns)} if patterns else {}
    config = RunConfig.parse({"encryption": encryption})
    return " ".join(map(str, run_notes(config, shared=False)))


def of_run(*words: str) -> str:
    return " ".join(map(str, run_notes(composed([*words]), shared=False)))


def test_a_run_with_open_layers_says_who_read_them() -> None:
    said = notes("fc.*", "out")
    assert "Only the tensors fc.*, out were encrypted" in said
    assert "gradient inversion" in said


def test_a_run_that_encrypts_all_says_nothing_of_layers() -> None:
    assert "Only the tensors" not in notes()


def test_shared_noise_says_what_its_second_epsilon_rests_on() -> None:
    assert "rests on one share of noise" in of_run()


@pytest.mark.parametrize("mode", ["none", "example_local"])
def test_other_modes_have_no_second_epsilon(mode: str) -> None:
    assert "share of noise" not in of_run(f"privacy={mode}")


def test_baselines_with_a_learning_rate_of_their_own_say_so() -> None:
    said = of_run()
    assert "plain SGD at learning rate 0.5: the run's 16 is of a noisy step" in said


def test_baselines_with_the_runs_learning_rate_need_no_word() -> None:
    assert "plain SGD" not in of_run("privacy=example_local")
    assert "plain SGD" not in of_run("baselines=false")


def test_one_run_beside_another_may_differ_by_chance() -> None:
    assert "may be chance" in of_run()
    assert "may be chance" not in of_run("baselines=false")
    assert "may be chance" not in of_run("privacy=none")


def test_noisy_counts_are_said_to_be_paid_for_and_noisy() -> None:
    said = of_run("privacy.metrics=dp")
    assert "noisy counts of test rows, paid for out of the same epsilon" in said
    assert "in plain" not in said


def test_metrics_that_stay_need_no_word() -> None:
    said = of_run("privacy.metrics=none")
    assert "test rows" not in said
