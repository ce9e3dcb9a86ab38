from pathlib import Path

import pytest

from fedsecure.errors import DataError
from fedsecure.learning.dataconfig import DataConfig
from fedsecure.learning.schema import MARK, Column, Schema, parse_schema
from fedsecure.learning.tables import draft_schema, load_table


def _draft(folder: Path, text: str, config: DataConfig | None = None) -> str:
    path = folder / "a.csv"
    path.write_text(text)
    return draft_schema(path, config)


def _schema(folder: Path, text: str, config: DataConfig | None = None) -> Schema:
    return parse_schema(_draft(folder, text, config), "draft", strict=False)


def _column(folder: Path, *cells: str) -> Column:
    """Draft a column x beside a feature and a target."""
    rows = [f'"{cell}",{i + 1},{"ab"[i % 2]}' for i, cell in enumerate(cells)]
    return _schema(folder, "\n".join(["x,z,y", *rows, ""])).columns[0]


def test_numbers_get_their_bounds(tmp_path: Path) -> None:
    column = _column(tmp_path, "3", "1.5", "2")
    assert (column.type, column.bounds) == ("numeric", (1.5, 3.0))


def test_dates_get_their_bounds(tmp_path: Path) -> None:
    assert _column(tmp_path, "2021-01-01", "2021-01-31", "2021-01-02").type == "date"


def test_words_are_categories(tmp_path: Path) -> None:
    assert _column(tmp_path, "u", "v", "w").categories == ("u", "v", "w")


def test_two_words_are_binary(tmp_path: Path) -> None:
    assert _column(tmp_path, "u", "v", "u").type == "binary"


def test_yes_and_no_stay_words(tmp_path: Path) -> None:
    assert _column(tmp_path, "yes", "no").categories == ("no", "yes")


def test_constant_is_dropped(tmp_path: Path) -> None:
    assert _column(tmp_path, "7", "7").role == "drop"


def test_free_text_is_dropped(tmp_path: Path) -> None:
    assert _column(tmp_path, *(f"text {i}" for i in range(21))).role == "drop"


def test_missing_cells_get_an_indicator(tmp_path: Path) -> None:
    assert _column(tmp_path, "1", "NA", "2").missing == "indicator"


def test_every_guess_from_rows_is_marked(tmp_path: Path) -> None:
    text = _draft(tmp_path, "n,c,d,y\n1,u,2021-01-01,a\n2,v,2021-01-02,b\n3,w,,a\n")
    assert text.count(MARK) == 4


def test_last_column_is_the_target_unless_said(tmp_path: Path) -> None:
    assert _schema(tmp_path, "x,y\n1,a\n2,b\n3,a\n").target.name == "y"


def test_target_and_site_can_be_said(tmp_path: Path) -> None:
    config = DataConfig(target="x", site_column="y")
    schema = _schema(tmp_path, "x,y,z\n1,a,4\n2,b,5\n1,a,6\n", config)
    assert (schema.target.name, schema.named("site")) == ("x", "y")


def test_column_named_like_an_id_is_one(tmp_path: Path) -> None:
    assert _schema(tmp_path, "PID,x,y\n1,1,a\n2,2,b\n3,3,a\n").named("id") == "PID"


def test_second_column_named_like_an_id_is_none(tmp_path: Path) -> None:
    schema = _schema(tmp_path, "id,pid,x,y\n1,a,1,a\n2,b,2,b\n3,c,3,a\n")
    assert [c.role for c in schema.columns[:2]] == ["id", "feature"]


def test_few_whole_numbers_are_classes(tmp_path: Path) -> None:
    assert _schema(tmp_path, "x,y\n1,0\n2,1\n3,10\n").target.categories == (
        "0",
        "1",
        "10",
    )


def test_target_of_fractions_is_numeric(tmp_path: Path) -> None:
    assert _schema(tmp_path, "x,y\n1,0.5\n2,1\n3,2\n").target.type == "numeric"


def test_task_decides_what_whole_numbers_are(tmp_path: Path) -> None:
    config = DataConfig(task="regression")
    assert _schema(tmp_path, "x,y\n1,0\n2,1\n3,2\n", config).target.type == "numeric"


def test_target_of_one_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 different values"):
        _draft(tmp_path, "x,y\n1,a\n2,a\n")


def test_files_with_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,a\n")
    (tmp_path / "b.csv").write_text("z,y\n1,a\n")
    paths = (str(tmp_path / "a.csv"), str(tmp_path / "b.csv"))
    config = DataConfig(name="csv", path=paths, target="y")
    with pytest.raises(DataError, match=r"b\.csv has other columns than a\.csv"):
        load_table(config, 0, 2)


def test_odd_names_survive(tmp_path: Path) -> None:
    schema = _schema(tmp_path, '"a: ""#é"" - ",y\n1,a\n2,b\n3,a\n')
    assert schema.columns[0].name == 'a: "#é" - '
