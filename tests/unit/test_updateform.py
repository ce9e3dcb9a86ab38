"""How a run's updates begin: by plan, key, and layout where tensors are open."""

from dataclasses import replace

import pytest

from fedsecure import registry
from fedsecure.ciphertext import HEADER_BYTES
from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.runplan import RunPlan, read_plan
from fedsecure.updateform import selection, update_form, update_seeded
from tests.fakes.federation import Federation
from tests.fakes.openlayers import WIDE, federation_of

SIZE = WIDE.num_parameters
PLAN = read_plan(federation_of(["head.*"]).plan)


def encrypting(*patterns: str) -> RunPlan:
    return replace(PLAN, encryption=replace(PLAN.encryption, encrypt_layers=patterns))


def test_without_patterns_no_layout_is_needed() -> None:
    found = selection(read_plan(Federation().plan), SIZE, 4096, None)
    assert not found.opened.size


def test_with_patterns_the_layout_says_which_blocks() -> None:
    assert list(selection(PLAN, SIZE, 4096, WIDE).opened) == [0, 1, 2, 3]


def test_the_layout_is_not_guessed() -> None:
    with pytest.raises(VerificationError, match="no layout of 40953 parameters"):
        selection(PLAN, SIZE, 4096, None)


def test_a_layout_of_another_size_is_refused() -> None:
    with pytest.raises(VerificationError, match="no layout of 7 parameters"):
        selection(PLAN, 7, 4096, WIDE)


def test_patterns_that_do_not_fit_the_model_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="matches no tensor"):
        selection(encrypting("tail"), SIZE, 4096, WIDE)


@pytest.mark.parametrize(("patterns", "parts"), [(("head.*",), 2), ((".*",), 1)])
def test_there_is_no_empty_part(patterns: tuple[str, ...], parts: int) -> None:
    scheme = registry.load("he", "bfv").create({})
    key = scheme.keygen(bytes(16))
    form = update_form(encrypting(*patterns), scheme, key, SIZE, WIDE)
    assert len(form.to_bytes()) == parts * HEADER_BYTES


def test_custodian_and_sites_find_the_same_downlink() -> None:
    for downlink, seeded in (("seeds", True), ("sum", False)):
        plan = replace(PLAN, encryption=replace(PLAN.encryption, downlink=downlink))
        assert update_seeded(plan, SIZE) == seeded
