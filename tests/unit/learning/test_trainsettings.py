import pytest

from fedsecure.errors import ConfigurationError
from fedsecure.learning.trainsettings import TrainSettings, read_seed
from fedsecure.trainer import JSON


def test_what_is_left_out_has_its_default() -> None:
    assert TrainSettings.read({}) == TrainSettings()


def test_whole_numbers_written_as_floats_are_whole() -> None:
    # A plan's canonical JSON (RFC 8785) does not tell 3 from 3.0.
    assert TrainSettings.read({"epochs": 3.0}).epochs == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("momentum", 1.0),
        ("momentum", -0.1),
    ],
)
def test_a_number_out_of_bounds_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"train.{name}=.*must be from"):
        TrainSettings.read({name: value})


@pytest.mark.parametrize("value", ["3", True, None, [3]])
def test_what_is_no_number_is_refused(value: JSON) -> None:
    with pytest.raises(ConfigurationError, match=r"epochs=.* is not a number"):
        TrainSettings.read({"epochs": value})


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"\['lr'\]"):
        TrainSettings.read({"lr": 0.1})


def test_a_section_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not a mapping"):
        TrainSettings.read([1])


@pytest.mark.parametrize("seed", [None, "7", True, -1, 0.5, 2**53])
def test_a_seed_that_is_no_small_whole_number_is_refused(seed: JSON) -> None:
    with pytest.raises(ConfigurationError, match="seed="):
        read_seed({"seed": seed})


def test_a_seed_is_read() -> None:
    assert read_seed({"seed": 7.0}) == 7
