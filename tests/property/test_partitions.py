"""Whatever the labels: each row once, none lost, no site below its minimum."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedsecure.errors import DataError
from fedsecure.learning.partitions import KINDS, Partition, partition

_HOW = st.builds(
    Partition,
    kind=st.sampled_from(KINDS),
    sites=st.integers(1, 8),
    seed=st.integers(0, 2**32),
    labels_per_site=st.integers(1, 4),
    min_partition_size=st.integers(1, 12),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), _HOW)
def test_each_row_once_and_no_site_below_its_minimum(
    labels: list[int], how: Partition
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            dealt = partition(np.array(labels, dtype=np.int64), how, Path(folder))
        except DataError:
            assume(False)  # refused, and nothing else, is the other way out
    assert len(dealt) == how.sites
    assert sorted(np.concatenate(dealt).tolist()) == list(range(len(labels)))
    assert how.sites == 1 or min(map(len, dealt)) >= how.min_partition_size
