"""What a run promised about its rows and how it hid them, as a part of its report."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, TypeAlias

from fedsecure.pages import image, table
from fedsecure.pictures import Picture

Row: TypeAlias = Mapping[str, Any]
"""A section of the summary."""
NOTHING = "This run made no promise of differential privacy."
_WHERE = {
    "example_distributed": "a share of noise from every site, inside the encrypted sum",
    "user_distributed": "a share of noise from every site, inside the encrypted sum",
    "example_local": "full noise at every site",
    "silo": "a share of noise on every site's whole update",
}
_FACTS = (
    ("noise_multiplier", "noise multiplier"),
    ("clip_norm", "clip norm"),
    ("sample_rate", "sample rate"),
    ("divisor", "public divisor"),
)


def relation_in_words(relation: object) -> str:
    """Return a relation as it is read: add-or-remove-one."""
    return str(relation).replace("_", "-")


def epsilon_card(privacy: Row) -> tuple[str, str, str]:
    """Return the card of epsilon: name, figure and whom the other one is against."""
    said = _promises(privacy)
    if not said:
        return "Epsilon", "none", "no differential privacy"
    first = said[0]
    shown = f"{first['epsilon']:.3f}"
    relation = relation_in_words(privacy["relation"])
    note = f"δ {privacy['delta']:g}, {relation}"
    if len(said) == 1:
        return "Epsilon", shown, f"against {first['against']}; {note}"
    other = said[1]
    note = f"{other['epsilon']:.3f} against {other['against']}; {note}"
    return "Epsilon, outsiders and aggregators", shown, note


def privacy_section(privacy: Row, picture: Picture | None) -> str:
    """Return what was promised, to whom, and what each site's ledger has charged."""
    if not _promises(privacy):
        return f"<p>{NOTHING}</p>"
    warned, found = privacy.get("warning"), privacy.get("counts")
    return "\n".join(
        part
        for part in (
            f'<p class="bad">{escape(str(warned))}</p>' if warned else "",
            f"<p>{escape(_mode_in_words(privacy))}</p>",
            _epsilons(privacy),
            f"<p>{escape(_reading(privacy))}</p>",
            f"<p>{escape(counts_in_words(found))}</p>" if found else "",
            image(picture) if picture else "",
            _by_site(privacy),
        )
        if part
    )


def encryption_section(summary: Row) -> str:
    """Return how updates were hidden on their way."""
    found = summary.get("encryption")
    if not found:
        return f"<p>Scheme {escape(str(summary['scheme']))}.</p>"
    return table(("what", "this run"), encryption_facts(found), numbers=set())


def encryption_facts(found: Row) -> list[tuple[str, str]]:
    """Return the summary's section on encryption as rows of words."""
    scheme = str(found["scheme"])
    masks = "none"
    if found["masking"] != "none":
        masks = (
            f"{found['masking']}, under the encryption; the shares of any "
            f"{found['masking_threshold']} sites take them off a sum"
        )
    downlink = {
        "seeds": "seeds: one polynomial of the sum and a seed of each summand",
        "sum": "sum: both polynomials",
    }
    form = str(found["downlink"])
    layers = found.get("encrypt_layers")
    only = f"{', '.join(layers)} only; all others travelled open" if layers else "all"
    return [
        ("scheme", f"{scheme} (NOT encrypted)" if scheme == _OPEN else scheme),
        ("encrypted tensors", "none" if scheme == _OPEN else only),
        ("pairwise masks", masks),
        ("profile", f"{found['profile']}: fields of {found['field_bits']} bits"),
        ("downlink", downlink.get(form, form)),
    ]


_OPEN = "insecure_plain"


def _promises(privacy: Row) -> Sequence[Row]:
    said: Sequence[Row] = privacy.get("promises") or ()
    return said


def _mode_in_words(privacy: Row) -> str:
    mode = str(privacy["mode"])
    facts = [
        f"{label} {privacy[key]:.4g}"
        for key, label in _FACTS
        if privacy.get(key) is not None
    ]
    if privacy.get("max_colluders"):
        facts.append(
            f"at least {privacy['min_contributors']} contributors, "
            f"{privacy['max_colluders']} of them may collude"
        )
    where = _WHERE.get(mode, "")
    unit = f"one {privacy.get('unit', 'example')} is protected"
    relation = relation_in_words(privacy["relation"])
    return (
        f"Mode {mode}: {where}; {unit}, {relation}, at delta {privacy['delta']:g}; "
        f"{', '.join(facts)}."
    )


def _epsilons(privacy: Row) -> str:
    return table(
        ("holds against", "epsilon", "accountant", "nominal PLD"),
        (
            (
                str(row["against"]),
                f"{row['epsilon']:.3f}",
                str(row["accountant"]),
                f"{row['nominal_pld']:.3f}",
            )
            for row in _promises(privacy)
        ),
        numbers={1, 3},
    )


def _reading(privacy: Row) -> str:
    if len(_promises(privacy)) == 1:
        return (
            "Every site adds all the noise itself, so the figure holds whoever else "
            "pools what they know."
        )
    return (
        "Epsilon is that of the accountant which calibrated the noise and kept the "
        "budget. Nominal PLD values continuous noise as wide: tighter, and for the "
        "discrete noise of this run no proven bound. All other sites together know "
        "their own shares, and one site's own share is left between them and its rows."
    )


def counts_in_words(found: Row) -> str:
    """Return what noisy counts are, how noisy, and what they cost."""
    times = int(found["charged"])
    often = "once" if times == 1 else f"{times} times"
    return (
        "Accuracy is of two counts of test rows at each site, correct and wrong, told "
        f"{often} with discrete Gaussian noise of {found['noise_multiplier']:.3g} rows "
        "on each; nothing else that was measured left. By themselves they cost epsilon "
        f"{found['epsilon']:.3f}, which the figures above have in them; the noise is "
        "the site's own, so they cost the same against everybody."
    )


def _by_site(privacy: Row) -> str:
    relation = relation_in_words(privacy.get("relation", ""))
    return table(
        ("site's ledger", "epsilon of this run", "delta", "relation"),
        (
            (site, f"{epsilon:.3f}", f"{privacy['delta']:g}", relation)
            for site, epsilon in sorted(privacy["per_site"].items())
        ),
        numbers={1, 2},
    )
