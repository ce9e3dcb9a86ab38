"""The bench sums what was sent, exactly, and opens what the auditor asks for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsecure.audit.bench import Bench
from fedsecure.audit.programme import PLAN
from fedsecure.errors import ConfigurationError, TagMismatch
from fedsecure.privacy.plan import Mode
from fedsecure.update import IntVector

SIZE = 9000  # two blocks


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench(PLAN, SIZE) as made:
        yield made


@pytest.fixture(scope="module")
def parts() -> list[IntVector]:
    rng = np.random.default_rng(1)
    return [rng.integers(-50_000, 50_000, SIZE) for _ in range(5)]


def test_there_are_as_many_sites_as_a_sum_needs(bench: Bench) -> None:
    assert len(bench.sites) == PLAN.min_contributors


def test_a_sum_is_exact(bench: Bench, parts: list[IntVector]) -> None:
    assert np.array_equal(bench.send(1, parts).sum(), sum(parts))


def test_a_part_is_opened_alone(bench: Bench, parts: list[IntVector]) -> None:
    sent = bench.send(2, parts)
    assert np.array_equal(sent.alone(3), parts[3])


def test_what_colluders_tell_is_taken_off(bench: Bench, parts: list[IntVector]) -> None:
    sent = bench.send(3, parts)
    assert np.array_equal(sent.seen(2), sum(parts[:3]))


def test_tags_are_checked_as_in_a_run(bench: Bench, parts: list[IntVector]) -> None:
    sent = bench.send(4, parts)
    twice = dict.fromkeys(bench.sites[:2], sent._sent["site-1"])
    with pytest.raises(Exception, match="repeats a seed"):
        bench.opened(4, twice)
    with pytest.raises(TagMismatch):
        bench.opened(4, {"site-2": sent._sent["site-1"]})


def test_a_mode_without_shared_noise_is_refused() -> None:
    local = replace(PLAN, mode=Mode.EXAMPLE_LOCAL, min_contributors=0, max_colluders=0)
    with pytest.raises(ConfigurationError, match="no sum to audit"):
        Bench(local, SIZE)


def test_nothing_is_left_on_the_disk() -> None:
    made = Bench(PLAN, 10)
    folder = Path(made._scratch.name)
    assert (folder / "ledger.jsonl").is_file()
    made.close()
    assert not folder.exists()
