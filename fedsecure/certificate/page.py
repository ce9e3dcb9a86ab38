"""A certificate for people to read: one HTML page in the style of a run's report."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, TypeAlias

from fedsecure.pages import cards, document, items, section, table

Row: TypeAlias = Mapping[str, Any]
"""A certificate's body, or a section of it."""
_EPSILON_HEADS = ("holds against", "epsilon", "accountant", "nominal PLD")

_OF_THE_WEAKEST = (
    "Its runs protected different units: the epsilon is that of the weakest (a row "
    "before a person before a site), for whom the others' noise counts half, unsampled."
)


def certificate_page(body: Row, signature: str) -> str:
    """Return the page.

    Parameters
    ----------
    body : mapping
        See `statement`.
    signature : str
        Hexadecimal; named, so that page and file can be laid side by side.
    """
    title = f"Privacy certificate of {escape(str(body['run']))}"
    return document(
        title,
        "\n".join(
            (
                _header(title, body),
                cards(_cards(body)),
                section("What is promised", _promised(body)),
                section("What was charged", _charged(body)),
                section("What was told of the models", _told(body)),
                section("How the noise was made", _noise(body)),
                section("Who took part, and how updates were hidden", _hidden(body)),
                section("Audit", _audit(body["audit"])),
                section("What is not covered", items(map(str, body["not_covered"]))),
                section("Ledgers", _ledgers(body)),
                section("How to check this", _how(body, signature)),
            )
        ),
    )


def _header(title: str, body: Row) -> str:
    issuer, promise = body["issuer"], body["promise"]
    words = (
        f"issued {body['issued']} by {issuer['role']} {issuer['name']}",
        f"federation {issuer['federation'][:16]}",
        f"plan {body['plan_digest'][:16]}",
    )
    return (
        f"<header>\n<h1>{title}</h1>\n<p>{escape(' · '.join(words))}</p>\n"
        f'<p class="verdict">{escape(str(promise["said"]))}</p>\n</header>'
    )


def _cards(body: Row) -> list[tuple[str, str, str]]:
    promise = body["promise"]
    if not body["epsilons"]:
        return [("Epsilon", '<span class="bad">none</span>', "nothing is promised")]
    relation = str(promise["relation"]).replace("_", "-")
    found = [
        ("Epsilon", f"{row['epsilon']:.3f}", f"against {row['against']}")
        for row in body["epsilons"]
    ]
    about = (
        "Delta, unit, relation",
        f"{promise['delta']:g}",
        f"one {promise['unit']}, {relation}",
    )
    return [*found, about]


def _promised(body: Row) -> str:
    if not body["epsilons"]:
        return f"<p>{escape(str(body['promise']['said']))}</p>"
    note = (
        "<p>Epsilon is by the accountant that calibrated the noise and enforced the "
        "budget. Nominal PLD values continuous noise as wide; where noise is discrete "
        "it is no proven bound.</p>"
    )
    return note + _epsilons(body["epsilons"])


def _epsilons(rows: Sequence[Row]) -> str:
    cells = (
        (
            str(row["against"]),
            f"{row['epsilon']:.4f}",
            str(row["accountant"]),
            f"{row['nominal_pld']:.4f}",
        )
        for row in rows
    )
    return table(_EPSILON_HEADS, cells, numbers={1, 3})


def _charged(body: Row) -> str:
    if not body["events"]:
        return "<p>No ledger charged anything: nothing was noised.</p>"
    events = table(
        ("site", "event", "noise multiplier", "sample rate", "steps", "shares counted"),
        (
            (
                site,
                str(event["type"]).replace("_", " "),
                f"{event['noise_multiplier']:.6g}",
                f"{event['sample_rate']:g}",
                f"{event['steps']:g}",
                str(event.get("counted_shares", "all noise is the site's own")),
            )
            for site, found in body["events"].items()
            for event in found
        ),
        numbers={2, 3, 4},
    )
    note = (
        "<p>The same data set over all time, every run that its site's ledger knows "
        "taken together, at this run's delta; every charge counts, whether its bytes "
        "left the site or not.</p>"
    )
    mixed = any(len(row["units"]) > 1 for row in body["spending"])
    note += f"\n<p>{_OF_THE_WEAKEST}</p>" if mixed else ""
    return f"{events}\n{note}\n{_over_all_time(body['spending'])}"


def _told(body: Row) -> str:
    found = body.get("counts")
    if found is None:
        plain = body["plan"]["metrics"] == "plain"
        left = "Loss and accuracy on test rows left in plain, in no epsilon."
        return f"<p>{left if plain else 'Nothing left the sites.'}</p>"
    often = "of every round's model" if found["each_round"] else "of the last model"
    note = (
        f"<p>{escape(' and '.join(found['released']))}, {often}: counts with discrete "
        f"Gaussian noise of {found['noise_multiplier']:.6g} rows on each, drawn by the "
        "site. A row changes one of them by one. Charged "
        f"{found['charged']:g} times at the site with most; by themselves they cost "
        "what follows, and the epsilons above have it in them. "
        f"{found['draws']:g} draws, each at most 2^"
        f"{found['distance_per_draw_log2']:.1f} from the exact distribution.</p>"
    )
    return note + _epsilons(found["epsilons"])


def _over_all_time(rows: Sequence[Row]) -> str:
    shared = any(len(row["epsilons"]) > 1 for row in rows)
    heads = ("site", "data set", "runs", "rounds", "epsilon")
    return table(
        (*heads, "against all other sites") if shared else heads,
        (
            (
                str(row["site"]),
                str(row["dataset"]),
                str(row["runs"]),
                str(row["reservations"]),
                *(f"{made['epsilon']:.4f}" for made in row["epsilons"]),
            )
            for row in rows
        ),
        numbers={2, 3, 4, 5},
    )


def _noise(body: Row) -> str:
    found = body["mechanism"]
    if found is None:
        return "<p>There was none.</p>"
    clamp = found["clamp"]
    rows = [
        ("generator", found["generator"]),
        ("sampler", found["sampler"]),
        ("noise of one site", f"{found['sigma_in_steps']:.6g} steps of the grid"),
        ("sensitivity, in steps", f"{found['integer_sensitivity']:.6g}"),
        ("noise that rounding costs", f"{found['inflation']:.2%}, in the multiplier"),
        (
            "clamp before noise",
            "none" if clamp is None else f"{clamp:,} steps a coordinate and site",
        ),
        (
            "draws and distance",
            (
                f"{found['draws']:,} draws, each at most "
                f"2^{found['distance_per_draw_log2']:.1f} from the exact distribution"
            ),
        ),
        (
            "charged to delta for it",
            (
                f"{found['charged_to_delta']:.2g}, which makes "
                f"{found['delta_with_it']:.12g}"
            ),
        ),
    ]
    return table(("what", "this run"), rows, numbers=set())


def _hidden(body: Row) -> str:
    part, how = body["participants"], body["encryption"]
    least = part["least_seen"]
    masks = how["masking"]
    if masks != "none":
        masks = f"{masks}; shares of {how['masking_threshold']} sites open a round's"
    rows = [
        ("sites", str(part["sites"])),
        ("contributors a sum needs", str(part["min_contributors"])),
        ("least that a sum had", "no sum was opened" if least is None else str(least)),
        ("colluding sites allowed for", str(part["max_colluders"])),
        ("encryption", f"{how['scheme']}, profile {how['profile']}"),
        ("masks", masks),
        ("downlink", str(how["downlink"])),
        ("keys", ", ".join(map(str, how["key_ids"])) or "none"),
    ]
    return table(("what", "this run"), rows, numbers=set())


def _audit(found: Row | None) -> str:
    if found is None:
        return (
            "<p>No audit is part of this certificate. <code>fedsecure privacy audit -o "
            "DIR</code> makes one, <code>--audit DIR/audit.json</code> adds it.</p>"
        )
    head = (
        f"<p>Of an installation of fedsecure {escape(found['fedsecure'])}, on "
        f"{escape(found['when'])}, at noise multiplier {found['noise_multiplier']:g}: "
        f"<b>{escape(found['verdict'])}</b>. A pass is the absence of a contradiction "
        "at the power that each line names, and no proof.</p>"
    )
    rows = (
        (f"{tier['tier']}", check["name"], check["verdict"], check["bound"])
        for tier in found["tiers"]
        for check in tier["checks"]
    )
    checks = table(("tier", "check", "verdict", "held against"), rows, numbers=set())
    said = items(
        f"{check['name']}: {check['said']}"
        for tier in found["tiers"]
        for check in tier["checks"]
    )
    return f"{head}\n{checks}\n<p>What each found:</p>\n{said}"


def _ledgers(body: Row) -> str:
    return table(
        ("owner", "lines", "head"),
        (
            (owner, f"{found['lines']:,}", str(found["head"])[:32])
            for owner, found in body["ledgers"].items()
        ),
        numbers={1},
    )


def _how(body: Row, signature: str) -> str:
    software = ", ".join(f"{k} {v}" for k, v in body["software"].items())
    return items(_lines(body, signature, software))


def _lines(body: Row, signature: str, software: str) -> Iterable[str]:
    issuer = body["issuer"]
    return (
        (
            "fedsecure privacy certificate FILE --verify checks the signature and "
            "computes every epsilon again from the events."
        ),
        f"Federation {issuer['federation']}: compare it with the one you know.",
        f"Signed by {issuer['role']} {issuer['name']}, key {issuer['key']}.",
        f"Signature {signature}.",
        f"Plan {body['plan_digest']}; the file holds all of it.",
        f"Computed with {software}.",
    )
