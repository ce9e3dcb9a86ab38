from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsecure.errors import DataError
from fedsecure.learning import tables
from fedsecure.learning.csvfile import CsvFile, check_file
from fedsecure.learning.dataconfig import DataConfig
from fedsecure.learning.datasets import load_pooled, load_site
from fedsecure.learning.tables import draft_schema, load_table
from fedsecure.trainer import JSON

HEADER = "pid,age,sex,ill"
SCHEMA = """
columns:
  - {name: age, type: numeric, bounds: [0, 100]}
  - {name: sex, type: binary, categories: [f, m], missing: indicator}
  - {name: pid, role: id}
  - {name: ill, role: target, type: binary, categories: [no, yes]}
"""


def _rows(count: int, prefix: str = "p") -> list[str]:
    """Two rows a person; the target follows no single column."""
    rng = np.random.default_rng(3)
    ages, sexes = rng.integers(20, 90, count), rng.integers(0, 2, count)
    ills = rng.integers(0, 2, count)
    return [
        f"{prefix}{i // 2},{ages[i]},{'fm'[sexes[i]]},{('no', 'yes')[ills[i]]}"
        for i in range(count)
    ]


def _file(folder: Path, name: str, rows: Sequence[str], header: str = HEADER) -> str:
    path = folder / name
    path.write_text("\n".join([header, *rows, ""]))
    return str(path)


def _config(folder: Path, *paths: str, schema: str = SCHEMA) -> DataConfig:
    (folder / "s.yaml").write_text(schema)
    return DataConfig(
        name="csv", path=paths, target="ill", schema_path=str(folder / "s.yaml")
    )


def _two(folder: Path) -> DataConfig:
    paths = [_file(folder, f"{s}.csv", _rows(40, s)) for s in "ab"]
    return _config(folder, *paths)


def _one(folder: Path, rows: Sequence[str] = (), header: str = HEADER) -> DataConfig:
    return _config(folder, _file(folder, "a.csv", rows or _rows(40), header))


def _refused(config: DataConfig, match: str, sites: int = 1) -> None:
    with pytest.raises(DataError, match=match):
        load_table(config, 0, sites)


def test_one_file_per_site_gives_each_its_own_rows(tmp_path: Path) -> None:
    config = _two(tmp_path)
    found = [load_table(config, i, 2).description["name"] for i in range(2)]
    assert found == ["a", "b"]


def test_features_follow_the_schema_not_the_file(tmp_path: Path) -> None:
    turned = [",".join(reversed(row.split(","))) for row in _rows(40)]
    plain = load_table(_one(tmp_path), 0, 1)
    other = load_table(_one(tmp_path, turned, "ill,sex,age,pid"), 0, 1)
    assert np.array_equal(plain.train_x, other.train_x)


def test_an_indicator_is_a_column_of_its_own(tmp_path: Path) -> None:
    found = load_table(_one(tmp_path), 0, 1)
    assert found.description["features"] == ["age", "sex", "sex missing"]


def test_a_person_is_on_one_side_of_the_split(tmp_path: Path) -> None:
    rows = [f"p{i // 10},{i % 10 * 10 + i // 10},f,{'yn'[i % 2]}" for i in range(40)]
    schema = SCHEMA.replace("[no, yes]", "[y, n]")
    config = _config(tmp_path, _file(tmp_path, "a.csv", rows), schema=schema)
    data = load_table(replace(config, test_fraction=0.5), 0, 1)
    person = np.rint((data.test_x[:, 0] + 1) * 50).astype(int) % 10
    assert all((person == p).sum() == 10 for p in np.unique(person))


def test_a_site_column_tells_sites_apart(tmp_path: Path) -> None:
    rows = [f"{row},{'AB'[i >= 30]}" for i, row in enumerate(_rows(40))]
    config = _one(tmp_path, rows, f"{HEADER},hospital")
    (tmp_path / "s.yaml").write_text(SCHEMA + "  - {name: hospital, role: site}\n")
    sites = [load_table(config, i, 2) for i in range(2)]
    assert [len(s.train_x) + len(s.test_x) for s in sites] == [30, 10]


def test_a_site_column_with_more_sites_than_planned_is_refused(tmp_path: Path) -> None:
    rows = [f"{row},{'ABC'[i % 3]}" for i, row in enumerate(_rows(40))]
    config = _one(tmp_path, rows, f"{HEADER},hospital")
    (tmp_path / "s.yaml").write_text(SCHEMA + "  - {name: hospital, role: site}\n")
    _refused(config, r"holds 3 sites \(A, B, C\), the federation has 2", sites=2)


def test_one_file_is_dealt_by_person(tmp_path: Path) -> None:
    config = replace(_one(tmp_path, _rows(60)), partition="iid", test_fraction=0.0)
    sizes = [len(load_table(config, i, 3).train_x) for i in range(3)]
    assert sizes == [20, 20, 20]


def test_one_file_is_all_the_sites_own_in_a_federation(tmp_path: Path) -> None:
    config = replace(_one(tmp_path), require_schema=True, test_fraction=0.0)
    assert len(load_table(config, 1, 3).train_x) == 40


def test_two_files_for_three_sites_are_refused(tmp_path: Path) -> None:
    _refused(_two(tmp_path), "names 2 files for 3 sites", sites=3)


def test_pooled_rows_are_all_rows(tmp_path: Path) -> None:
    config = _two(tmp_path)
    section: dict[str, JSON] = {
        "name": "csv",
        "path": list(config.path),
        "target": "ill",
        "schema_path": config.schema_path,
    }
    pooled = load_pooled(section, 2)
    assert len(pooled.train_x) + len(pooled.test_x) == 80


def test_a_table_is_a_data_set_by_name(tmp_path: Path) -> None:
    path = _file(tmp_path, "a.csv", _rows(40))
    data = load_site({"name": "csv", "path": path, "target": "ill"}, 0, 1)
    assert data.task == "binary"


def test_more_than_two_categories_are_as_many_outputs(tmp_path: Path) -> None:
    rows = [
        row.replace(",no", ",maybe") if i % 3 else row
        for i, row in enumerate(_rows(60))
    ]
    schema = SCHEMA.replace(
        "binary, categories: [no", "categorical, categories: [maybe, no"
    )
    config = _config(tmp_path, _file(tmp_path, "a.csv", rows), schema=schema)
    data = load_table(config, 0, 1)
    assert (data.task, data.outputs) == ("multiclass", 3)


def test_a_numeric_target_is_scaled_by_its_bounds(tmp_path: Path) -> None:
    schema = """
columns:
  - {name: age, role: target, type: numeric, bounds: [0, 100]}
  - {name: sex, type: binary, categories: [f, m]}
  - {name: pid, role: drop}
  - {name: ill, role: drop}
"""
    rows = ["p,100,f,no", "p,0,m,no", "p,50,m,no"]
    config = _config(tmp_path, _file(tmp_path, "a.csv", rows), schema=schema)
    data = load_table(replace(config, target="age", test_fraction=0.0), 0, 1)
    assert data.train_y.tolist() == [1.0, -1.0, 0.0]


def test_missing_target_column_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    config = _one(tmp_path, _rows(40), "pid,age,sex,Ill")
    _refused(config, r'target "ill" is not in a.csv; columns: .*did you mean .Ill.')


def test_missing_target_column_without_schema_is_refused(tmp_path: Path) -> None:
    config = replace(_one(tmp_path), schema_path="", target="sick")
    _refused(config, 'target "sick" is not in a.csv')


def test_schema_with_another_target_is_refused(tmp_path: Path) -> None:
    _refused(replace(_one(tmp_path), target="sex"), "the schema's is .ill.")


def test_text_in_a_numeric_column_is_refused_with_its_line(tmp_path: Path) -> None:
    rows = [*_rows(40), "p,4O,f,no"]
    _refused(_one(tmp_path, rows), 'a.csv:42: age = "4O" is not a number')


def test_number_out_of_bounds_is_refused_with_its_line(tmp_path: Path) -> None:
    rows = [*_rows(40), "p,412,f,no"]
    _refused(_one(tmp_path, rows), r"a.csv:42: age = 412 outside \[0, 100\]")


def test_rows_are_centred_if_asked(tmp_path: Path) -> None:
    plain = load_table(_two(tmp_path), 0, 2).train_x
    found = load_table(replace(_two(tmp_path), centre_rows=True), 0, 2).train_x
    assert np.allclose(found, plain - plain.mean(axis=1, keepdims=True), atol=1e-7)
    assert np.abs(found - plain).max() > 0.1


def test_clipped_cells_are_counted(tmp_path: Path) -> None:
    schema = SCHEMA.replace("[0, 100]}", "[0, 100], outside: clip}")
    path = _file(tmp_path, "a.csv", [*_rows(40), "p,412,f,no"])
    data = load_table(_config(tmp_path, path, schema=schema), 0, 1)
    assert data.description["clipped_cells"] == 1


@pytest.mark.parametrize(
    ("cell", "match"),
    [
        ("", "target ill is missing"),
        ("NA", "target ill is missing"),
        ("maybe", 'ill = "maybe"'),
    ],
)
def test_bad_target_is_refused_with_its_line(
    tmp_path: Path, cell: str, match: str
) -> None:
    _refused(_one(tmp_path, [*_rows(40), f"p,40,f,{cell}"]), f"a.csv:42: {match}")


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf"])
def test_target_that_is_not_finite_is_refused(tmp_path: Path, cell: str) -> None:
    schema = """
columns:
  - {name: sex, type: binary, categories: [f, m]}
  - {name: age, role: target, type: numeric, bounds: [0, 100]}
  - {name: pid, role: drop}
  - {name: ill, role: drop}
"""
    path = _file(tmp_path, "a.csv", [f"p,{cell},f,no"])
    config = replace(_config(tmp_path, path, schema=schema), target="age")
    _refused(config, f'a.csv:2: age = "{cell}" is not a number')


def test_missing_id_is_refused(tmp_path: Path) -> None:
    _refused(_one(tmp_path, [*_rows(40), ",40,f,no"]), "a.csv:42: the id is missing")


def test_five_bad_cells_are_shown_then_a_count(tmp_path: Path) -> None:
    rows = [row.replace(",f,", ",x,").replace(",m,", ",x,") for row in _rows(40)]
    _refused(_one(tmp_path, rows), "and 35 more")


def test_columns_that_differ_are_shown_as_a_table(tmp_path: Path) -> None:
    first = _file(tmp_path, "a.csv", _rows(4))
    second = _file(tmp_path, "b.csv", ["p,1,no,2"], "pid,age,ill,extra")
    with pytest.raises(DataError) as refused:
        load_table(_config(tmp_path, first, second), 0, 2)
    assert str(refused.value).splitlines()[1:] == [
        "column | in schema | a.csv | b.csv",
        "sex | yes | yes | no",
        "extra | no | no | yes",
    ]


def test_site_without_rows_is_refused(tmp_path: Path) -> None:
    config = _config(tmp_path, _file(tmp_path, "a.csv", []))
    _refused(config, "site a.csv: 0 rows")


def test_site_with_too_few_rows_is_refused(tmp_path: Path) -> None:
    _refused(replace(_one(tmp_path), min_rows=41), "site a.csv: 40 rows, .*=41")


def test_site_of_one_class_is_refused(tmp_path: Path) -> None:
    rows = [row.replace("yes", "no") for row in _rows(40)]
    _refused(_one(tmp_path, rows), "site a.csv: all 40 rows are of one class")


def test_task_that_does_not_fit_the_target_is_refused(tmp_path: Path) -> None:
    config = replace(_one(tmp_path), task="regression")
    _refused(config, r"set data\.task=classification")


def test_date_is_no_target(tmp_path: Path) -> None:
    schema = SCHEMA.replace(
        "type: binary, categories: [no, yes]",
        "type: date, bounds: [2001-01-01, 2002-01-01]",
    )
    path = _file(tmp_path, "a.csv", _rows(40))
    _refused(_config(tmp_path, path, schema=schema), "nothing here predicts one")


def test_copy_of_the_target_is_refused(tmp_path: Path) -> None:
    rows = [f"{row},{row.rsplit(',', 1)[1]}" for row in _rows(40)]
    schema = SCHEMA + "  - {name: twin, type: binary, categories: [no, yes]}\n"
    path = _file(tmp_path, "a.csv", rows, f"{HEADER},twin")
    _refused(_config(tmp_path, path, schema=schema), 'feature "twin" tells the target')


def test_bounds_must_be_declared_at_a_site(tmp_path: Path) -> None:
    config = replace(_one(tmp_path), schema_path="", require_schema=True)
    _refused(config, r"data\.schema_path is missing")


def test_draft_is_refused_at_a_site(tmp_path: Path) -> None:
    config = _one(tmp_path)
    (tmp_path / "s.yaml").write_text(draft_schema(config.path[0]))
    _refused(replace(config, require_schema=True), "still says")


def test_without_schema_the_description_says_that_bounds_are_not_private(
    tmp_path: Path,
) -> None:
    data = load_table(replace(_one(tmp_path), schema_path=""), 0, 1)
    assert "not private" in str(data.description["normalisation"])


def test_change_between_check_and_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _one(tmp_path)

    def checked(name: str, reading: DataConfig) -> CsvFile:
        found = check_file(name, reading)
        _file(tmp_path, "a.csv", _rows(42))
        return found

    monkeypatch.setattr(tables, "check_file", checked)
    _refused(config, "changed while it was read")


def test_formulas_are_text(tmp_path: Path) -> None:
    rows = [*_rows(40), "p,=40,f,no"]
    _refused(_one(tmp_path, rows), 'a.csv:42: age = "=40" is not a number')


# --- whose a row is -------------------------------------------------------------------

VISITS = SCHEMA.replace("role: id}", "role: drop}")


def _persons(folder: Path) -> DataConfig:
    config = _config(folder, _file(folder, "a.csv", _rows(40)), schema=VISITS)
    return replace(config, user_column="pid")


def test_both_rows_of_a_person_carry_its_number_and_neither_is_tested_on(
    tmp_path: Path,
) -> None:
    found = load_table(_persons(tmp_path), 0, 1)
    assert found.train_users is not None
    assert set(np.bincount(found.train_users)) == {2}
    assert len(found.test_x) >= 4


def test_a_person_is_dealt_to_one_site(tmp_path: Path) -> None:
    config = replace(_persons(tmp_path), partition="iid", min_partition_size=2)
    counts = [load_table(config, i, 3).train_users for i in range(3)]
    assert all(set(np.bincount(c)) == {2} for c in counts if c is not None)


def test_rows_have_no_persons_unless_a_column_is_named(tmp_path: Path) -> None:
    assert load_table(_one(tmp_path), 0, 1).train_users is None


def test_a_person_the_model_would_read_is_refused(tmp_path: Path) -> None:
    config = replace(_one(tmp_path), user_column="age")
    _refused(config, r'data\.user_column="age" has the role feature')


def test_a_person_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    config = replace(_one(tmp_path), user_column="who")
    _refused(config, r'data\.user_column="who" has the role absent')


def test_a_draft_takes_the_persons_column_for_the_id(tmp_path: Path) -> None:
    header, rows = "id,person,age,ill", [f"{i},p{i % 9},{i},{i % 2}" for i in range(40)]
    path = _file(tmp_path, "v.csv", rows, header)
    config = DataConfig(name="csv", path=(path,), target="ill", user_column="person")
    found = load_table(config, 0, 1)
    assert found.users <= 9
    assert found.description["features"] == ["age"]
