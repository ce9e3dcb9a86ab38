from pathlib import Path

import pytest

from fedsecure.errors import ConfigurationError, DataError
from fedsecure.learning.dataconfig import DataConfig
from fedsecure.trainer import JSON

CSV: dict[str, JSON] = {"name": "csv", "path": "a.csv", "target": "y"}


def test_null_stands_for_the_default() -> None:
    section: dict[str, JSON] = {"alpha": None, "path": None, "allow": None}
    assert DataConfig.read(section) == DataConfig()


@pytest.mark.parametrize(
    ("section", "centred"),
    [
        ({"name": "digits"}, True),
        ({"name": "digits", "centre_rows": False}, False),
        ({"name": "breast_cancer"}, False),
        (CSV, False),
        ({**CSV, "centre_rows": True}, True),
    ],
)
def test_digits_alone_are_centred_unless_told(
    section: dict[str, JSON], *, centred: bool
) -> None:
    assert DataConfig.read(section).centred is centred


def test_one_path_is_a_list_of_one() -> None:
    assert DataConfig.read(CSV).path == ("a.csv",)


def test_a_whole_number_may_stand_for_a_real_one() -> None:
    assert DataConfig.read({"alpha": 1}).alpha == 1.0


def test_an_unknown_option_suggests_the_near_one() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'alpha'"):
        DataConfig.read({"alhpa": 1.0})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "7"),
        ("seed", True),
        ("seed", 1.5),
        ("alpha", "x"),
        ("target", 3),
        ("centre_rows", 1),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: JSON) -> None:
    with pytest.raises(ConfigurationError, match=f"data.{name}=.*must be of type"):
        DataConfig.read({name: value})


def test_a_list_holds_texts_only() -> None:
    with pytest.raises(ConfigurationError, match="must be a list of texts"):
        DataConfig.read({"missing": ["", 3]})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "mnist"),
        ("test_fraction", 1.0),
        ("test_fraction", -0.1),
        ("test_fraction", float("nan")),
        ("task", "survival"),
        ("delimiter", ",,"),
        ("max_rows", 0),
        ("min_rows", 0),
    ],
)
def test_a_value_out_of_bounds_is_refused(name: str, value: JSON) -> None:
    with pytest.raises(ConfigurationError, match=f"data.{name}="):
        DataConfig.read({name: value})


def test_partition_options_are_checked_even_for_one_site() -> None:
    with pytest.raises(DataError, match="alpha=0"):
        DataConfig.read({"alpha": 0.0})


@pytest.mark.parametrize("left_out", ["path", "target"])
def test_a_csv_needs_path_and_target(left_out: str) -> None:
    section = {name: value for name, value in CSV.items() if name != left_out}
    with pytest.raises(ConfigurationError, match="name=csv needs"):
        DataConfig.read(section)


def test_a_column_of_persons_is_a_csvs() -> None:
    with pytest.raises(ConfigurationError, match="return SiteData with train_users"):
        DataConfig.read({"user_column": "pid"})


def test_an_object_must_be_named() -> None:
    with pytest.raises(ConfigurationError, match="name=object needs"):
        DataConfig.read({"name": "object"})


def test_the_cache_folder_may_be_named() -> None:
    assert DataConfig.read({"cache": "/c"}).cache_folder() == Path("/c")


def test_without_a_name_the_cache_is_the_users() -> None:
    assert DataConfig().cache_folder() is None


def test_dealing_carries_all_options() -> None:
    section: dict[str, JSON] = {"partition": "shards", "labels_per_site": 3, "seed": 1}
    how = DataConfig.read(section).dealing(5)
    assert (how.kind, how.sites, how.labels_per_site, how.seed) == ("shards", 5, 3, 1)
