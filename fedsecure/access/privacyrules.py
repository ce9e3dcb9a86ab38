"""The section `privacy` of a site's policy: what a plan must promise to be served.

The stricter of plan and policy wins: a plan below a bound is refused by the field's
name, and what is counted by this file (ceilings, relation, accountant) is counted so
whatever the plan says (PRIVACY.md section 9).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsecure.access.fields import Place, count, fields_of, number, texts, word
from fedsecure.errors import PolicyRefused
from fedsecure.update import JSON

MODES = (
    "none",
    "example_distributed",
    "user_distributed",
    "example_local",
    "silo",
)
UNITS = ("example", "user", "site")
"""From the weakest to the strongest: an earlier one is part of a later one. A promise
to the whole holds for a part at another price (docs/adr/0023)."""
RELATIONS = ("add_or_remove_one", "replace_one")
ACCOUNTANTS = ("pld", "rdp")
CHANGES = ("inherit", "refuse")
NEEDED = frozenset(
    ["modes", "max_epsilon", "delta", "min_noise_multiplier", "max_sample_rate"]
)
_UNIT_OF = {"user_distributed": "user", "silo": "site"}
_SHARED = frozenset(["example_distributed", "user_distributed", "silo"])


@dataclass(frozen=True, slots=True)
class Promise:
    """What a plan promises about the rows, in the policy's words.

    Attributes
    ----------
    mode, unit : str
    noise_multiplier, sample_rate, delta : float
        0 in mode `none`.
    contributors : int
        Sites without which no sum is opened.
    colluders : int
        How many of them may tell their own share of the noise; 0 where none is shared.
    """

    mode: str = "none"
    unit: str = "example"
    noise_multiplier: float = 0.0
    sample_rate: float = 0.0
    delta: float = 0.0
    contributors: int = 0
    colluders: int = 0


@dataclass(frozen=True, slots=True)
class PrivacyRules:
    """The section, each field checked by itself.

    Attributes
    ----------
    modes : frozenset of str
    max_epsilon, delta : float
        Of a data set, over all time.
    min_noise_multiplier, max_sample_rate : float
    per_run_epsilon : float
        Of one run; left out: `max_epsilon`.
    min_surviving_sites : int
        Sites that a private sum must be of; left out: 1.
    max_colluding_sites : int
        Sites whose shares of the noise may be known and the promise still holds: a
        plan of shared noise must bear as many; left out: 1.
    unit : str
        The weakest unit served; left out: example.
    relation : str
        What the ceilings are about; left out: add_or_remove_one.
    accountant : str
        Who may say that a ceiling is kept: `rdp` alone, or `pld` where `rdp` says too
        much; left out: pld.
    content_changes : str
        Whether other rows under the same id `inherit` all spending and are served, or
        are `refuse`d; left out: inherit.
    """

    modes: frozenset[str]
    max_epsilon: float
    delta: float
    min_noise_multiplier: float
    max_sample_rate: float
    per_run_epsilon: float
    min_surviving_sites: int = 1
    max_colluding_sites: int = 1
    unit: str = "example"
    relation: str = "add_or_remove_one"
    accountant: str = "pld"
    content_changes: str = "inherit"

    @property
    def guards(self) -> tuple[str, ...]:
        """Return the accountants that are asked, the cheapest first."""
        return ("rdp",) if self.accountant == "rdp" else ("rdp", "pld")

    @property
    def weakest(self) -> str:
        """Return the weakest unit that a run may protect, by `unit` and `modes`."""
        served = [_UNIT_OF.get(mode, "example") for mode in self.modes - {"none"}]
        weakest = min(served, key=UNITS.index, default="example")
        return max(weakest, self.unit, key=UNITS.index)

    def check(self, promise: Promise, place: Place) -> None:
        """Return only if a plan promises enough.

        Raises
        ------
        PolicyRefused
            Names the field, its line, what the plan has and the bound.
        """
        place.one_of("modes", promise.mode, self.modes)
        if promise.mode == "none":
            return
        least, most = self.min_noise_multiplier, self.max_sample_rate
        place.at_least("min_noise_multiplier", promise.noise_multiplier, least)
        place.at_most("max_sample_rate", promise.sample_rate, most)
        place.at_most("delta", promise.delta, self.delta)
        place.at_least(
            "min_surviving_sites", promise.contributors, self.min_surviving_sites
        )
        if promise.mode in _SHARED:
            place.at_least(
                "max_colluding_sites", promise.colluders, self.max_colluding_sites
            )
            if self.relation == "replace_one":
                place.refuse(
                    "relation",
                    f"noise of mode {promise.mode} is valued under add_or_remove_one "
                    "only, the site counts under replace_one",
                )
        place.one_of("unit", promise.unit, UNITS[UNITS.index(self.unit) :])


def read_rules(value: JSON, where: str) -> PrivacyRules:
    """Return the rules that a policy's section says.

    Raises
    ------
    PolicyRefused
        Unknown or missing field, a value that is none, or two that exclude each other.
    """
    may = set(PrivacyRules.__slots__) - NEEDED
    fields = fields_of(value, NEEDED, where, may)
    modes = texts(fields["modes"], f"{where}.modes")
    strange = sorted(modes - set(MODES))
    if strange:
        raise PolicyRefused(f"{where}.modes: {strange} are none of {list(MODES)}")
    numbers = {
        name: number(fields[name], f"{where}.{name}") for name in NEEDED - {"modes"}
    }
    run = number(fields.get("per_run_epsilon", numbers["max_epsilon"]), where + _RUN)
    rules = PrivacyRules(
        modes=modes,
        per_run_epsilon=run,
        min_surviving_sites=_least(fields, "min_surviving_sites", where),
        max_colluding_sites=_least(fields, "max_colluding_sites", where),
        unit=_word(fields, "unit", UNITS, where),
        relation=_word(fields, "relation", RELATIONS, where),
        accountant=_word(fields, "accountant", ACCOUNTANTS, where),
        content_changes=_word(fields, "content_changes", CHANGES, where),
        **numbers,
    )
    _check_together(rules, where)
    return rules


def strictest(rules: Sequence[PrivacyRules]) -> PrivacyRules:
    """Return what holds for a data set that several projects may use.

    Its ceilings, relation, accountant and content: a budget is one, whoever asks. Its
    unit is the weakest of all: what is served to one is spent for all.
    """
    return PrivacyRules(
        modes=frozenset(),
        max_epsilon=min(r.max_epsilon for r in rules),
        delta=min(r.delta for r in rules),
        min_noise_multiplier=max(r.min_noise_multiplier for r in rules),
        max_sample_rate=min(r.max_sample_rate for r in rules),
        per_run_epsilon=min(r.per_run_epsilon for r in rules),
        unit=min((r.weakest for r in rules), key=UNITS.index),
        relation=max((r.relation for r in rules), key=RELATIONS.index),
        accountant=max((r.accountant for r in rules), key=ACCOUNTANTS.index),
        content_changes=max((r.content_changes for r in rules), key=CHANGES.index),
    )


_RUN = ".per_run_epsilon"


def _check_together(rules: PrivacyRules, where: str) -> None:
    if not 0 < rules.per_run_epsilon <= rules.max_epsilon:
        raise PolicyRefused(
            f"{where}{_RUN}={rules.per_run_epsilon}, must be above 0 and at most "
            f"max_epsilon={rules.max_epsilon}"
        )
    if rules.relation == "replace_one" and rules.accountant == "rdp":
        raise PolicyRefused(
            f"{where}.accountant=rdp values nothing under relation=replace_one: "
            "take pld (PRIVACY.md section 6)"
        )


def _least(fields: Mapping[str, JSON], name: str, where: str) -> int:
    return count(fields.get(name, 1), f"{where}.{name}")


def _word(
    fields: Mapping[str, JSON], name: str, words: Sequence[str], where: str
) -> str:
    return word(fields.get(name, words[0]), f"{where}.{name}", words)
