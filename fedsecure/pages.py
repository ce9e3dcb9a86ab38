"""One HTML page: its frame, sections, tables and pictures, all inside one file.

It holds no script, asks no other machine for anything and follows the reader's light or
dark setting. Every text from outside is escaped here.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from fedsecure.pictures import Picture

_CSS = Path(__file__).with_name("report.css")


def document(title: str, body: str) -> str:
    """Return a whole page; `title` and `body` are HTML already."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">\n"
        f"<title>{title}</title>\n<style>\n{_CSS.read_text(encoding='utf-8')}</style>\n"
        f"</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def section(title: str, content: str) -> str:
    """Return a section; `content` is HTML, `title` text."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def image(picture: Picture) -> str:
    """Return a picture, told in words to who cannot see it."""
    data = base64.b64encode(picture.svg).decode()
    alt = escape(picture.alt, quote=True)
    source = f"data:image/svg+xml;base64,{data}"
    return f'<div class="scroll"><img alt="{alt}" src="{source}"></div>'


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: set[int]
) -> str:
    """Return a table of texts.

    Parameters
    ----------
    numbers : set of int
        Columns of figures, set to the right.
    """

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=number' if i in numbers else ''}>{escape(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "\n".join(f"<tr>{line('td', cells)}</tr>" for cells in rows)
    return (
        f'<div class="scroll"><table>\n<thead><tr>{line("th", heads)}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def items(lines: Iterable[str]) -> str:
    """Return a list of texts."""
    rows = "\n".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>\n{rows}\n</ul>"


def cards(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return what is to be seen first: name and note are text, the figure is HTML."""
    made = "\n".join(
        f'<div class="card"><h2>{escape(name)}</h2><b>{value}</b>'
        f"<p>{escape(note)}</p></div>"
        for name, value, note in entries
    )
    return f'<div class="cards">\n{made}\n</div>'
