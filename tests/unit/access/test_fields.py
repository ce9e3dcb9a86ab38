"""A policy's text and its lines."""

import pytest

from fedsecure.access.fields import Place, fields_of, parse
from fedsecure.errors import PolicyRefused

TEXT = b"""\
format: 1
projects:
  - id: heart
    privacy: {modes: [none],
              delta: 1e-5}
    runs:
      max_rounds: 9
  - id: lung
    runs: &same
      max_rounds: 7
  - id: skin
    runs: *same
"""


def test_every_field_of_a_project_has_its_line() -> None:
    _, (heart, lung, _) = parse(TEXT)
    assert heart["id"] == 3
    assert (heart["privacy.modes"], heart["privacy.delta"]) == (4, 5)
    assert heart["runs.max_rounds"] == 7
    assert lung["runs.max_rounds"] == 10


def test_a_field_by_an_alias_has_the_line_where_it_is_written() -> None:
    _, (_, lung, skin) = parse(TEXT)
    assert skin["runs.max_rounds"] == lung["runs.max_rounds"]


@pytest.mark.parametrize(
    "text", [b"", b"projects: 1", b"[1, 2]", b"projects: &a [*a]", b"? [1]\n: 2\n"]
)
def test_what_is_no_list_of_projects_has_no_lines(text: bytes) -> None:
    _, lines = parse(text)
    assert all(not row for row in lines)


def test_a_refusal_names_path_field_and_line() -> None:
    place = Place("policy.projects[heart]", {"runs.max_rounds": 7}).under("runs")
    with pytest.raises(PolicyRefused) as refused:
        place.at_most("max_rounds", 10, 9)
    said = "policy.projects[heart].runs.max_rounds: the plan has 10, at most 9"
    assert str(refused.value) == f"{said} (policy.yaml, line 7)"


def test_a_field_that_was_left_out_has_no_line() -> None:
    with pytest.raises(PolicyRefused) as refused:
        Place("policy.projects[heart]", {}).at_least("sites", 1, 2)
    assert str(refused.value).endswith("the plan has 1, at least 2")


@pytest.mark.parametrize("check", ["at_most", "at_least"])
def test_nan_is_within_no_bound(check: str) -> None:
    place = Place("policy", {})
    with pytest.raises(PolicyRefused, match="the plan has nan"):
        getattr(place, check)("field", float("nan"), 1.0)


def test_a_section_may_leave_out_what_may_be_left_out() -> None:
    assert fields_of({"a": 1}, {"a"}, "here", {"b"}) == {"a": 1}
    assert fields_of({"a": 1, "b": 2}, {"a"}, "here", {"b"}) == {"a": 1, "b": 2}
    with pytest.raises(PolicyRefused, match="here: unknown field 'c'"):
        fields_of({"a": 1, "c": 2}, {"a"}, "here", {"b"})
