import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.learning.columns import BadCell, Encoder
from fedsecure.learning.schema import Column

AGE = Column("age", type="numeric", bounds=(0.0, 120.0))
SEX = Column("sex", type="binary", categories=("f", "m"))
STAGE = Column("stage", type="categorical", categories=("I", "II", "III"))
ABSENT = ("", "NA", "?")


def _encoder(column: Column, **changed: str) -> Encoder:
    values = {name: getattr(column, name) for name in ("name", "role", "type")}
    return Encoder(
        Column(
            **{**values, **changed},
            bounds=column.bounds,
            categories=column.categories,
        ),
        ABSENT,
    )


def _refused(encoder: Encoder, cell: str, message: str) -> None:
    with pytest.raises(BadCell) as refused:
        encoder.encode(cell)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(("cell", "value"), [("0", -1), ("60", 0), (" 120 ", 1)])
def test_numbers_are_scaled_by_their_bounds(cell: str, value: float) -> None:
    assert Encoder(AGE, ABSENT).encode(cell) == (value,)


@pytest.mark.parametrize("cell", ["4O", "nan", "inf", "1_000", "=1+1", "1,5", "٣"])
def test_text_is_no_number(cell: str) -> None:
    _refused(Encoder(AGE, ABSENT), cell, f'age = "{cell}" is not a number')


def test_number_beyond_float_is_not_finite() -> None:
    _refused(Encoder(AGE, ABSENT), "1e999", 'age = "1e999" is not a finite number')


def test_number_out_of_bounds_is_refused() -> None:
    _refused(Encoder(AGE, ABSENT), "412", "age = 412 outside [0, 120]")


def test_number_out_of_bounds_is_clipped_and_counted_where_allowed() -> None:
    encoder = _encoder(AGE, outside="clip")
    assert (encoder.encode("412"), encoder.clipped) == ((1.0,), 1)


def test_dates_are_scaled() -> None:
    day = Column("seen", type="date", bounds=(737999.0, 738001.0))
    assert Encoder(day, ABSENT).encode("2021-07-29") == (0.0,)


def test_text_is_no_date() -> None:
    day = Column("seen", type="date", bounds=(1.0, 9.0))
    _refused(Encoder(day, ABSENT), "29.7.2021", 'seen = "29.7.2021" is not a date')


def test_date_out_of_bounds_is_refused() -> None:
    day = Column("seen", type="date", bounds=(1.0, 9.0))
    _refused(Encoder(day, ABSENT), "2021-07-29", "seen = 2021-07-29 is outside")


def test_binary_is_minus_one_or_one() -> None:
    encoder = Encoder(SEX, ABSENT)
    assert (encoder.encode("f"), encoder.encode("m")) == ((-1.0,), (1.0,))


def test_categories_are_one_hot() -> None:
    assert Encoder(STAGE, ABSENT).encode("II") == (0.0, 1.0, 0.0)


def test_names_say_what_each_number_is() -> None:
    names = _encoder(STAGE, missing="indicator").names
    assert names == ("stage=I", "stage=II", "stage=III", "stage missing")


def test_unknown_category_is_refused() -> None:
    _refused(Encoder(STAGE, ABSENT), "IV", 'stage = "IV" is none of: I, II, III')


def test_unknown_category_goes_to_other_where_declared() -> None:
    column = Column("stage", type="categorical", categories=("I", "other"))
    assert Encoder(column, ABSENT).encode("IV") == (0.0, 1.0)


@pytest.mark.parametrize("cell", ABSENT)
def test_missing_value_is_refused(cell: str) -> None:
    _refused(Encoder(AGE, ABSENT), cell, "age is missing")


def test_missing_value_becomes_its_constant() -> None:
    assert _encoder(AGE, missing="constant:60").encode("NA") == (0.0,)


def test_missing_value_is_indicated() -> None:
    encoder = _encoder(STAGE, missing="indicator")
    assert encoder.encode("?") == (0.0, 0.0, 0.0, 1.0)


def test_present_value_is_not_indicated() -> None:
    assert _encoder(AGE, missing="indicator").encode("0") == (-1.0, 0.0)


@given(st.floats(0, 120))
def test_what_is_within_bounds_lands_within_one(value: float) -> None:
    (scaled,) = Encoder(AGE, ABSENT).encode(repr(value))
    assert -1 <= scaled <= 1
