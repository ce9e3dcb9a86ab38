from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsecure.errors import ConfigurationError, DataError
from fedsecure.learning import datasets
from fedsecure.learning.datasets import load_pooled, load_site
from fedsecure.trainer import JSON

USER = "tests.fakes.userfunctions"
EMBEDDED = ("digits", "breast_cancer")


def _config(name: str, **options: JSON) -> dict[str, JSON]:
    return {"name": name, "partition": "iid", **options}


def _own(function: str, **options: JSON) -> dict[str, JSON]:
    return _config("object", object=f"{USER}:{function}", **options)


def test_digits_are_scaled_by_their_public_bound() -> None:
    data = load_site(_config("digits", centre_rows=False), 0, 1)
    assert (data.train_x.min(), data.train_x.max()) == (0.0, 1.0)
    assert (data.task, data.outputs, data.input_shape) == ("multiclass", 10, (64,))


def test_each_digit_is_less_its_own_mean_unless_told_otherwise() -> None:
    plain = load_pooled(_config("digits", centre_rows=False), 3)
    found = load_pooled(_config("digits"), 3)
    for x, centred in ((plain.train_x, found.train_x), (plain.test_x, found.test_x)):
        means = x.astype(np.float64).mean(axis=1, keepdims=True)
        assert np.array_equal(centred, (x - means).astype(np.float32))
        assert np.abs(means).max() > 0.1


def test_breast_cancer_is_scaled_by_public_constants() -> None:
    whole = load_pooled(_config("breast_cancer"), 3)
    rows = np.concatenate([whole.train_x, whole.test_x])
    assert np.abs(rows.mean(axis=0)).max() < 2e-3
    assert np.abs(rows.std(axis=0) - 1).max() < 2e-3
    assert (whole.task, whole.outputs, whole.input_shape) == ("binary", 1, (30,))


@pytest.mark.parametrize(("name", "rows"), [("digits", 1797), ("breast_cancer", 569)])
def test_sites_together_hold_every_row_once(name: str, rows: int) -> None:
    whole = load_pooled(_config(name), 4)
    found = np.concatenate([whole.train_x, whole.test_x])
    alone = load_pooled(_config(name), 1)
    expected = np.concatenate([alone.train_x, alone.test_x])
    assert len(found) == rows
    assert sorted(map(bytes, found)) == sorted(map(bytes, expected))


@pytest.mark.parametrize("name", EMBEDDED)
def test_loading_twice_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    config = _config(name, partition="dirichlet", cache=str(tmp_path))
    first, second = load_site(config, 1, 3), load_site(config, 1, 3)
    assert first.train_x.tobytes() == second.train_x.tobytes()
    assert first.test_y.tobytes() == second.test_y.tobytes()


def test_the_description_says_where_rows_come_from() -> None:
    data = load_site(_config("digits"), 0, 3)
    how = "pixels / 16, a public bound; each row less its own mean"
    assert data.description["normalisation"] == how
    assert data.description["partition"] == "iid"
    assert data.public_rows == 1797


def test_rows_other_than_expected_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*, return_X_y: bool) -> tuple[Any, Any]:  # noqa: N803  theirs
        return np.zeros((3, 64)), np.zeros(3)

    monkeypatch.setattr(datasets, "load_digits", other)
    with pytest.raises(DataError, match=r"digits: sha256 .* expected f6d9e39f37dc"):
        datasets._LOADERS["digits"].__wrapped__()


@pytest.mark.parametrize("index", [-1, 3])
def test_a_site_beyond_the_cohort_is_refused(index: int) -> None:
    with pytest.raises(ConfigurationError, match="must be 0 to 2"):
        load_site(_config("digits"), index, 3)


def test_more_sites_than_rows_allow_are_refused() -> None:
    with pytest.raises(DataError, match="569 rows cannot give 60 sites"):
        load_site(_config("breast_cancer"), 0, 60)


def test_a_users_site_data_is_taken_as_it_is() -> None:
    data = load_site(_own("site_data"), 2, 3)
    assert data.train_x[0, 0] == 2
    assert data.description == {"sites": 3}


def test_a_users_site_data_cannot_be_centred() -> None:
    with pytest.raises(DataError, match="centre_rows=true would do nothing"):
        load_site(_own("site_data", centre_rows=True), 2, 3)


def test_a_users_arrays_are_centred_if_asked() -> None:
    data = load_site(_own("classes", classes=3, centre_rows=True), 0, 2)
    assert np.abs(data.train_x.mean(axis=1)).max() < 1e-6
    assert "each row less its own mean" in str(data.description["normalisation"])


def test_a_users_classes_are_split() -> None:
    data = load_site(_own("classes", classes=3), 0, 2)
    assert (data.task, data.outputs) == ("multiclass", 3)
    assert (len(data.train_x), len(data.test_x)) == (17, 3)


def test_a_users_real_numbers_make_a_regression() -> None:
    assert load_site(_own("numbers"), 0, 2).task == "regression"


def test_the_number_of_a_users_classes_must_be_said() -> None:
    with pytest.raises(DataError, match="say how many classes"):
        load_site(_own("classes"), 0, 2)


def test_more_classes_than_said_are_refused() -> None:
    with pytest.raises(DataError, match="must be 0 to 1"):
        load_site(_own("classes", classes=2), 0, 2)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("misshapen", r"X has shape \(4, 2\) and y \(3,\)"),
        ("words", "must be numbers"),
        ("nothing", "returned NoneType, must return SiteData or"),
        ("raises", "raised OSError: the disk is gone"),
    ],
)
def test_what_a_users_function_does_wrong_is_named(function: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_site(_own(function), 0, 2)
