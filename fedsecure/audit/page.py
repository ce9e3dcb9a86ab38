"""An audit as one HTML page: style and pictures are inside it, it holds no script."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from fedsecure.audit.finding import Tier, Verdict, worst
from fedsecure.pictures import Picture

_CSS = Path(__file__).parents[1] / "report.css"
_MORE_CSS = """
.verdict b { padding: 1px 9px; border-radius: 9px; color: var(--paper); }
.passed { background: var(--good); } .failed { background: var(--bad); }
.inconclusive { background: var(--muted); }
.card b.passed, .card b.failed, .card b.inconclusive { background: none; }
.card b.passed { color: var(--good); } .card b.failed { color: var(--bad); }
.card b.inconclusive { color: var(--muted); }
.cards { grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); }
td.said { white-space: normal; min-width: 300px; } td.said p { margin: 2px 0 0; }
td.said p { color: var(--muted); font-size: 13.5px; line-height: 1.4; }
td.bound { white-space: normal; min-width: 110px; max-width: 180px; }
td.mark { font-weight: 600; }
td.mark span { padding: 1px 8px; border-radius: 8px; color: var(--paper); }
"""
_VERDICTS = {
    Verdict.PASSED: "No contradiction of the claims was found.",
    Verdict.INCONCLUSIVE: "Some checks show nothing: see which, and why.",
    Verdict.FAILED: "At least one claim is contradicted: do not rely on it.",
}
SHOWS = (
    (
        "That noise has the promised width and shape, is fresh in every round, is "
        "of integers and of the operating system's generator, and survives "
        "encryption bit for bit."
    ),
    (
        "That one step of this code at noise multiplier 1 leaks no more than "
        "claimed, up to the confidence and the share of the claim printed. Half the "
        "noise, a lost share, noise used twice and a clip 1.25 times too wide are "
        "found by tiers 1 and 2: the package's tests plant each of them."
    ),
    "What the same attacks bring in without noise: how much is at stake.",
)
SHOWS_NOT = (
    (
        "That a claim is true. A pass is the absence of a contradiction, at the "
        "power printed; the proof is the accountant's and that of the records in "
        "docs/adr."
    ),
    (
        "Anything about past runs or other machines: the code of this installation "
        "was run on rows of the audit's own."
    ),
    "A generator that looks like the system's and whose seed somebody knows.",
    (
        "Sampling below a rate of 1 and composition over rounds, which are the "
        "accountant's; networks, signatures, pairwise masks; side channels of time "
        "and memory."
    ),
    (
        "Stronger attacks than these. The membership attack sees the last model "
        "only, and bounds from one run are weak: half the noise may pass tier 3."
    ),
)


def audit_page(tiers: Sequence[Tier], facts: Mapping[str, str]) -> str:
    """Return the audit as one HTML document.

    Parameters
    ----------
    tiers : sequence of Tier
    facts : mapping of str to str
        What was audited, by label.
    """
    body = "\n".join(
        (
            _header(tiers, facts),
            _cards(tiers),
            *(_tier(tier) for tier in tiers),
            _section("What this audit shows", _list(SHOWS)),
            _section("What it cannot show", _list(SHOWS_NOT)),
            "<footer>The same figures, for programs: <code>audit.json</code>.</footer>",
        )
    )
    style = _CSS.read_text(encoding="utf-8") + _MORE_CSS
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">\n"
        f"<title>fedsecure privacy audit</title>\n<style>\n{style}</style>\n"
        f"</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(tiers: Sequence[Tier], facts: Mapping[str, str]) -> str:
    verdict = worst([tier.verdict for tier in tiers])
    words = " · ".join(f"{label} {value}" for label, value in facts.items())
    return (
        f"<header>\n<h1>Privacy audit</h1>\n<p>{escape(words)}</p>\n"
        f'<p class="verdict"><b class="{verdict}">{verdict}</b> '
        f"{escape(_VERDICTS[verdict])}</p>\n</header>"
    )


def _cards(tiers: Sequence[Tier]) -> str:
    cards = []
    for tier in tiers:
        passed = sum(check.verdict is Verdict.PASSED for check in tier.checks)
        cards.append(
            f'<div class="card"><h2>Tier {tier.number}</h2>'
            f'<b class="{tier.verdict}">{tier.verdict}</b>'
            f"<p>{escape(tier.title)} {passed} of {len(tier.checks)} checks passed."
            "</p></div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _tier(tier: Tier) -> str:
    rows = "\n".join(
        f'<tr><td class="said">{escape(c.name)}<p>{escape(c.said)}</p></td>'
        f'<td class="mark"><span class="{c.verdict}">{c.verdict}</span></td>'
        f'<td class="number">{c.value:.4g}</td>'
        f'<td class="bound">{escape(c.bound)}</td></tr>'
        for c in tier.checks
    )
    heads = ("check", "verdict", "value", "held against")
    table = (
        '<div class="scroll"><table>\n<thead><tr>'
        + "".join(f"<th>{head}</th>" for head in heads)
        + f"</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )
    pictures = "\n".join(_image(picture) for picture in tier.pictures)
    lead = f"<p>{escape(tier.lead)}</p>"
    return _section(f"Tier {tier.number}: {tier.title}", f"{lead}\n{pictures}\n{table}")


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _list(lines: Iterable[str]) -> str:
    rows = "\n".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>\n{rows}\n</ul>"


def _image(picture: Picture) -> str:
    data = base64.b64encode(picture.svg).decode()
    alt = escape(picture.alt, quote=True)
    source = f"data:image/svg+xml;base64,{data}"
    return f'<div class="scroll"><img alt="{alt}" src="{source}"></div>'
