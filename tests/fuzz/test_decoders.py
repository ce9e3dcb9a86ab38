"""Twenty seconds of what `make fuzz` does for ten minutes: all targets, fixed seeds."""

import pytest

from tests.fuzz.roam import limited_memory, roam
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

SECONDS = 20.0
BATCH = 10


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_hostile_bytes_are_refused_by_name_or_read_as_they_are(target: Target) -> None:
    seconds = SECONDS * target.share / sum(each.share for each in TARGETS)
    with limited_memory():
        found = roam(target, seconds, first_seed=0, batch=BATCH)
    assert not found.failures, "\n".join(found.failures)
