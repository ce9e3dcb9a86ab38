"""A summary's sections on privacy and encryption."""

from dataclasses import replace

import pytest

from fedsecure.accounting import PrivacyEvent
from fedsecure.backends import Outcome
from fedsecure.ledger import Record
from fedsecure.privacy.plan import event_document
from fedsecure.protected import encryption_facts, privacy_facts
from tests.fakes.certified import NONE, plan
from tests.unit.privacy.test_promise import SHARED as EVENT

LINE = Record(
    1,
    "",
    "",
    0,
    "budget.reserve",
    "digits",
    "done",
    "",
    "run-1",
    1,
    {"event": event_document(EVENT)},
    "",
    "",
)
OUTCOME = Outcome((), {}, {"site-01": (1.0, 2.0), "site-02": (1.0, 2.0)})


def test_both_promises_are_of_what_the_ledgers_charged() -> None:
    facts = privacy_facts(plan(), OUTCOME, {"site-01": [LINE]}, 650)
    made = facts["promises"]
    assert isinstance(made, list)
    assert len(made) == 2
    assert facts["per_site"] == {"site-01": 2.0, "site-02": 2.0}
    assert (facts["unit"], facts["max_colluders"]) == ("example", 1)


def test_a_run_without_a_ledger_that_verifies_promises_nothing() -> None:
    assert privacy_facts(plan(), OUTCOME, {}, 650)["promises"] == []


def test_mode_none_promises_nothing() -> None:
    facts = privacy_facts(plan(NONE), Outcome((), {}, {}), {}, 650)
    assert (facts["mode"], facts["promises"], facts["per_site"]) == ("none", [], {})


def test_masks_fields_and_the_downlinks_form_are_told() -> None:
    facts = encryption_facts(plan(), 650)
    assert (facts["masking"], facts["masking_threshold"]) == ("pairwise", 3)
    assert (facts["profile"], facts["field_bits"]) == ("20", 24)
    assert facts["downlink"] == "seeds"


SECTION = {"noise_multiplier": 8.0, "each_round": False}
TOLD = replace(LINE, detail={"event": event_document(PrivacyEvent.of_counts(8.0, 1))})


def test_counts_are_told_with_what_they_cost_alone() -> None:
    counting = plan(metrics="dp", counts=SECTION)
    facts = privacy_facts(counting, OUTCOME, {"site-01": [LINE, TOLD]}, 650)
    counts, made = facts["counts"], facts["promises"]
    assert isinstance(counts, dict)
    assert (counts["charged"], counts["noise_multiplier"]) == (1, 8.0)
    assert float(str(counts["epsilon"])) == pytest.approx(0.4346, abs=1e-3)
    without = privacy_facts(plan(), OUTCOME, {"site-01": [LINE]}, 650)["promises"]
    assert isinstance(made, list)
    assert isinstance(without, list)
    for more, less in zip(made, without, strict=True):
        assert isinstance(more, dict)
        assert isinstance(less, dict)
        assert float(str(more["epsilon"])) > float(str(less["epsilon"]))


def test_metrics_of_another_kind_have_no_counts() -> None:
    assert privacy_facts(plan(), OUTCOME, {"site-01": [LINE]}, 650)["counts"] is None
