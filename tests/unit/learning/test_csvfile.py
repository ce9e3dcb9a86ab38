import os
from pathlib import Path

import pytest

from fedsecure.errors import DataError
from fedsecure.learning import csvfile
from fedsecure.learning.csvfile import check_file, lines, unchanged
from fedsecure.learning.dataconfig import DataConfig

READING = DataConfig()


def _file(folder: Path, text: str, encoding: str = "utf-8") -> str:
    path = folder / "b.csv"
    path.write_bytes(text.encode(encoding))
    return str(path)


def _refused(folder: Path, text: str, match: str, config: DataConfig = READING) -> None:
    with pytest.raises(DataError, match=match):
        check_file(_file(folder, text), config)


def test_well_formed_file_is_described(tmp_path: Path) -> None:
    found = check_file(_file(tmp_path, 'a,b\n1,"x\ny"\n\n2,z\n'), READING)
    assert (found.header, found.rows) == (("a", "b"), 2)


def test_lines_carry_their_last_line_number(tmp_path: Path) -> None:
    found = check_file(_file(tmp_path, 'a,b\n1,"x\ny"\n\n2,z\n'), READING)
    assert list(lines(found, READING)) == [(3, ["1", "x\ny"]), (5, ["2", "z"])]


def test_short_line_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path, "a,b\n1,2\n3\n", "b.csv:3: 1 fields, the header has 2")


def test_long_line_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path, "a,b\n1,2,3\n", "b.csv:2: 3 fields, the header has 2")


def test_five_bad_lines_are_shown_then_a_count(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        check_file(_file(tmp_path, "a,b\n" + "1\n" * 7), READING)
    shown = str(refused.value).splitlines()
    assert (len(shown), shown[-1]) == (6, "and 2 more")


def test_repeated_column_names_both_positions(tmp_path: Path) -> None:
    _refused(tmp_path, "a,b,a\n", '"a" is at positions 1 and 3')


def test_nameless_column_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path, "a,,b\n", "column 2 has no name")


def test_wrong_delimiter_names_the_right_one(tmp_path: Path) -> None:
    _refused(tmp_path, "a;b;c\n1;2;3\n", "data.delimiter=';' would split it into 3")


def test_byte_order_mark_names_the_encoding(tmp_path: Path) -> None:
    config = DataConfig(encoding="utf-8")
    _refused(tmp_path, "\ufeffa,b\n", "byte order mark", config)


def test_byte_order_mark_is_no_part_of_a_name_by_default(tmp_path: Path) -> None:
    assert check_file(_file(tmp_path, "\ufeffa,b\n"), READING).header == ("a", "b")


def test_other_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"encoding, for instance latin-1"):
        check_file(_file(tmp_path, "a,b\né,1\n", "latin-1"), READING)


def test_unknown_encoding_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path, "a,b\n", "data.encoding='utf-9'", DataConfig(encoding="utf-9"))


def test_nul_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path, "a,b\n1,\0\n", "b.csv:2: holds a NUL")


def test_stray_quote_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path, 'a,b\n1,"x"y\n', "b.csv:2: .*expected after")


def test_cell_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csvfile, "MAX_CELL", 10)
    _refused(tmp_path, "a,b\n1," + "x" * 11 + "\n", "b.csv:2: field larger")


def test_line_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csvfile, "_MAX_LINE", 10)
    _refused(tmp_path, "a,b\n1," + "x" * 11 + "\n", "b.csv:2: line longer than 10")


def test_too_many_rows_are_refused(tmp_path: Path) -> None:
    config = DataConfig(max_rows=2)
    _refused(tmp_path, "a\n1\n2\n3\n", "more than data.max_rows=2", config)


def test_too_many_columns_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csvfile, "MAX_COLUMNS", 2)
    _refused(tmp_path, "a,b,c\n", "3 columns, at most 2")


def test_too_large_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csvfile, "MAX_FILE_BYTES", 3)
    _refused(tmp_path, "a,b\n", "has 4 bytes, at most 3")


def test_empty_file_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path, "", "b.csv is empty")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no file"):
        check_file(str(tmp_path / "none.csv"), READING)


def test_unreadable_file_names_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    _refused(tmp_path, "a\n", f"cannot be read by user id {os.getuid()}")


def test_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.csv").symlink_to(_file(tmp_path, "a\n"))
    with pytest.raises(DataError, match=r"outside data\.root"):
        check_file(str(root / "link.csv"), DataConfig(root=str(root)))


def test_file_inside_the_root_is_read(tmp_path: Path) -> None:
    config = DataConfig(root=str(tmp_path))
    assert check_file(_file(tmp_path, "a\n1\n"), config).rows == 1


def test_change_while_reading_is_refused(tmp_path: Path) -> None:
    path = Path(_file(tmp_path, "a\n1\n"))
    with pytest.raises(DataError, match="changed while it was read"), unchanged(path):
        path.write_text("a\n2\n")


def test_column_with_another_case_is_suggested(tmp_path: Path) -> None:
    found = check_file(_file(tmp_path, "age,Outcome\n"), READING)
    with pytest.raises(DataError) as refused:
        found.position("outcome", "target")
    assert str(refused.value) == (
        'target "outcome" is not in b.csv; columns: age, Outcome; did you mean '
        "'Outcome'?"
    )
