from pathlib import Path

import pytest

from fedsecure.errors import DataError
from fedsecure.learning.schema import MARK, parse_schema, read_schema

GOOD = """
columns:
  - {name: age, type: numeric, bounds: [0, 120], unit: years}
  - {name: sex, type: binary, categories: [f, m], missing: indicator}
  - {name: seen, type: date, bounds: [2001-01-01, 2024-12-31], outside: clip}
  - {name: stage, type: categorical, categories: [1, 2, no], missing: "constant:no"}
  - {name: pid, role: id}
  - {name: note, role: drop}
  - {name: outcome, role: target, type: binary, categories: [no, yes]}
"""


def _refused(text: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        parse_schema(text, "s.yaml", strict=True)


def _one(column: str) -> str:
    target = "{name: y, role: target, type: binary, categories: [a, b]}"
    return f"columns:\n  - {column}\n  - {target}\n"


def test_features_keep_the_order_of_the_file() -> None:
    names = [c.name for c in parse_schema(GOOD, "s", strict=True).features]
    assert names == ["age", "sex", "seen", "stage"]


def test_words_of_yaml_1_1_are_texts() -> None:
    schema = parse_schema(GOOD, "s", strict=True)
    assert schema.target.categories == ("no", "yes")


def test_numbers_may_be_categories() -> None:
    assert parse_schema(GOOD, "s", strict=True).features[3].categories[0] == "1"


def test_dates_are_bounds_in_days() -> None:
    low, high = parse_schema(GOOD, "s", strict=True).features[2].bounds
    assert high - low == 8765


def test_digest_is_of_the_text() -> None:
    other = parse_schema(GOOD + "\n", "s", strict=True).digest
    assert parse_schema(GOOD, "s", strict=True).digest != other


def test_mark_of_a_draft_is_refused_with_its_line() -> None:
    _refused(GOOD.replace("unit: years}", f"unit: years}}  {MARK}"), "line 3 still")


def test_mark_of_a_draft_passes_where_the_steward_only_tries() -> None:
    assert parse_schema(f"{GOOD}{MARK}\n", "s", strict=False).target.name == "outcome"


@pytest.mark.parametrize(
    ("column", "match"),
    [
        ("{name: a, type: word}", "type 'word': choose one of: numeric"),
        ("{name: a}", "type None"),
        ("{name: a, role: label, type: numeric}", "role 'label'"),
        ("{name: a, type: numeric}", "bounds None, must be"),
        ("{name: a, type: numeric, bounds: [1, 1]}", "finite and rising"),
        ("{name: a, type: numeric, bounds: [0, .inf]}", "finite and rising"),
        ("{name: a, type: numeric, bounds: [x, 1]}", "neither a number nor a date"),
        ("{name: a, type: numeric, bounds: [0, 1], categories: [a]}", "do nothing"),
        ("{name: a, type: categorical}", "must be a list of texts"),
        ("{name: a, type: categorical, categories: [true, b]}", "quote true"),
        ("{name: a, type: categorical, categories: [b, b]}", "2 different"),
        ("{name: a, type: binary, categories: [a, b, c]}", "has 2 categories, not 3"),
        ("{name: a, type: numeric, bounds: [0, 1], missing: mean}", "choose error"),
        ("{name: a, type: binary, categories: [a, b], missing: 'constant:c'}", "among"),
        ("{name: a, type: numeric, bounds: [0, 1], outside: wrap}", "'wrap'"),
        ("{name: a, type: numeric, bounds: [0, 1], bound: 3}", "unknown keys"),
        ("{name: y, type: numeric, bounds: [0, 1]}", "described twice"),
        ("{name: z, role: target, type: numeric, bounds: [0, 1]}", "exactly one"),
        ("{name: a, role: drop}", "no column has the role feature"),
        ("just text", "is not a mapping with a name"),
    ],
)
def test_bad_column_is_refused(column: str, match: str) -> None:
    _refused(_one(column), match)


def test_missing_target_cannot_be_made_up() -> None:
    _refused(GOOD.replace("[no, yes]}", "[no, yes], missing: indicator}"), "target")


def test_two_site_columns_are_refused() -> None:
    _refused(GOOD + "  - {name: a, role: site}\n  - {name: b, role: site}\n", "at most")


def test_other_top_level_keys_are_refused() -> None:
    _refused(GOOD + "more: 1\n", "must hold one list")


def test_text_that_is_no_yaml_is_refused() -> None:
    _refused("columns: [", "is not YAML")


def test_repeated_yaml_key_is_refused() -> None:
    _refused(_one("{name: a, name: b, type: numeric, bounds: [0, 1]}"), "is not YAML")


def test_missing_schema_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_schema(tmp_path / "none.yaml", strict=True)


def test_schema_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(GOOD)
    schema = read_schema(tmp_path / "s.yaml", strict=True)
    assert schema == parse_schema(GOOD, "s", strict=True)
