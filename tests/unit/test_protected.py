"""A summary's sections on privacy and encryption."""

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
