"""The frame of every page, and its parts."""

from fedsecure.pages import cards, document, items, section, table
from tests.unit.test_report import Outline

EVIL = "<script>x</script>"


def test_a_page_asks_no_other_machine_and_runs_nothing() -> None:
    page = document("t", section("a", items(["b"])))
    assert "default-src 'none'" in page
    reader = Outline()
    reader.feed(page)
    assert (reader.open, reader.links) == ([], [])


def test_texts_are_escaped_wherever_they_stand() -> None:
    made = (
        section(EVIL, "")
        + table((EVIL,), [(EVIL,)], numbers=set())
        + items([EVIL])
        + cards([(EVIL, "1", EVIL)])
    )
    assert EVIL not in made


def test_figures_are_set_to_the_right() -> None:
    made = table(("a", "b"), [("x", "1")], numbers={1})
    assert "<td>x</td><td class=number>1</td>" in made
    assert "<th>a</th><th class=number>b</th>" in made
