from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from fedsecure.errors import DataError
from fedsecure.learning import partitions
from fedsecure.learning.partitions import KINDS, Labels, Partition, Rows, partition

LABELS: Labels = np.arange(403, dtype=np.int64) % 4


def _never(labels: Labels, how: Partition) -> list[list[int]]:
    pytest.fail("computed although it was cached")


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_dealt_once(kind: str, tmp_path: Path) -> None:
    dealt = partition(LABELS, Partition(kind, 5), tmp_path)
    assert np.array_equal(np.sort(np.concatenate(dealt)), np.arange(len(LABELS)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_deals_the_same_bytes(kind: str, tmp_path: Path) -> None:
    first = partition(LABELS, Partition(kind, 5), tmp_path / "one")
    second = partition(LABELS, Partition(kind, 5), tmp_path / "two")
    assert [a.tobytes() for a in first] == [b.tobytes() for b in second]


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_deals_otherwise(kind: str, tmp_path: Path) -> None:
    first = partition(LABELS, Partition(kind, 5, seed=1), tmp_path)
    second = partition(LABELS, Partition(kind, 5, seed=2), tmp_path)
    assert [a.tobytes() for a in first] != [b.tobytes() for b in second]


@pytest.mark.parametrize("kind", KINDS)
def test_one_site_gets_all_rows(kind: str, tmp_path: Path) -> None:
    (rows,) = partition(LABELS, Partition(kind, 1), tmp_path)
    assert np.array_equal(rows, np.arange(len(LABELS)))


@pytest.mark.parametrize("kind", ["dirichlet", "shards"])
def test_a_cached_partition_is_not_computed_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = partition(LABELS, Partition(kind, 5), tmp_path)
    monkeypatch.setattr(partitions, "_partitioner_parts", _never)
    second = partition(LABELS, Partition(kind, 5), tmp_path)
    assert [a.tobytes() for a in first] == [b.tobytes() for b in second]


def test_other_labels_are_not_served_from_the_cache(tmp_path: Path) -> None:
    partition(LABELS, Partition("shards", 2), tmp_path)
    partition(LABELS[::-1].copy(), Partition("shards", 2), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def _spoil(folder: Path, dealt: tuple[Rows, ...] | None) -> None:
    (path,) = folder.iterdir()
    if dealt is None:
        path.write_bytes(b"no archive")
    else:
        np.savez(path, site0=dealt[0], site1=dealt[1])


def test_a_torn_cache_file_is_computed_again(tmp_path: Path) -> None:
    first = partition(LABELS, Partition("shards", 2), tmp_path)
    _spoil(tmp_path, None)
    again = partition(LABELS, Partition("shards", 2), tmp_path)
    assert [a.tobytes() for a in first] == [b.tobytes() for b in again]


def test_a_cache_file_that_lost_a_row_is_computed_again(tmp_path: Path) -> None:
    first = partition(LABELS, Partition("shards", 2), tmp_path)
    _spoil(tmp_path, (first[0][1:], first[1]))
    again = partition(LABELS, Partition("shards", 2), tmp_path)
    assert len(again[0]) == len(first[0])


def test_a_cache_folder_that_cannot_be_written_costs_no_run(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    dealt = partition(LABELS, Partition("shards", 2), blocked)
    assert sum(map(len, dealt)) == len(LABELS)


def test_by_size_gives_later_sites_more(tmp_path: Path) -> None:
    dealt = partition(LABELS, Partition("by_size", 4), tmp_path)
    assert [len(rows) for rows in dealt] == [40, 80, 121, 162]


def test_iid_gives_all_sites_the_same_number(tmp_path: Path) -> None:
    dealt = partition(LABELS, Partition("iid", 4), tmp_path)
    assert {len(rows) for rows in dealt} == {100, 101}


def test_shards_give_a_site_few_labels(tmp_path: Path) -> None:
    labels: Labels = np.arange(400, dtype=np.int64) % 4
    how = Partition("shards", 4, labels_per_site=1)
    dealt = partition(labels, how, tmp_path)
    assert [len(np.unique(labels[rows])) for rows in dealt] == [1, 1, 1, 1]


def test_small_alpha_is_more_uneven_than_large(tmp_path: Path) -> None:
    def unevenness(alpha: float) -> float:
        how = Partition("dirichlet", 4, alpha=alpha, min_partition_size=1)
        dealt = partition(LABELS, how, tmp_path)
        shares = [np.bincount(LABELS[rows].astype(int), minlength=4) for rows in dealt]
        return float(np.std(shares))

    assert unevenness(0.3) > 3 * unevenness(1000)


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_rows_for_all_sites_are_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="403 rows cannot give 50 sites at least 10"):
        partition(LABELS, Partition(kind, 50), tmp_path)


def test_min_partition_size_is_a_bound_for_by_size(tmp_path: Path) -> None:
    how = Partition("by_size", 5, min_partition_size=30)
    with pytest.raises(DataError, match="gives site 0 26 rows, at least 30"):
        partition(LABELS, how, tmp_path)


def test_an_impossible_dirichlet_says_what_to_change(tmp_path: Path) -> None:
    how = Partition("dirichlet", 10, alpha=0.01, min_partition_size=40)
    with pytest.raises(
        DataError, match=r"alpha=0\.01.* does not give 10 sites 40 rows"
    ):
        partition(LABELS, how, tmp_path)


@pytest.mark.parametrize("kind", ["dirichlet", "shards"])
def test_a_regression_cannot_be_dealt_by_label(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="use iid or by_size"):
        partition(np.zeros(100, np.float32), Partition(kind, 2), tmp_path)


def test_fewer_rows_than_shards_are_refused(tmp_path: Path) -> None:
    # ShardPartitioner 0.6.1 divides by zero here.
    how = Partition("shards", 2, labels_per_site=2, min_partition_size=1)
    with pytest.raises(DataError, match="2 rows cannot be cut in 4 shards"):
        partition(np.zeros(2, np.int64), how, tmp_path)


def test_an_unknown_kind_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose one of: iid, dirichlet, shards"):
        Partition("random", 2)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_out_of_bounds_is_refused(alpha: float) -> None:
    with pytest.raises(DataError, match="alpha="):
        Partition("dirichlet", 2, alpha=alpha)


@pytest.mark.parametrize("name", ["sites", "labels_per_site", "min_partition_size"])
def test_counts_below_one_are_refused(name: str) -> None:
    numbers = {"sites": 2, "labels_per_site": 2, "min_partition_size": 2, name: 0}
    with pytest.raises(DataError, match=f"{name}=0, must be at least 1"):
        Partition("iid", **numbers)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(DataError, match="seed=-1"):
        Partition("iid", 2, seed=-1)


def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(partitions, "version", missing)
    with pytest.raises(DataError, match=r"pip install 'fedsecure\[data\]'"):
        partition(LABELS, Partition("dirichlet", 2), tmp_path)


def test_iid_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_partitioner_parts", _never)
    assert len(partition(LABELS, Partition("iid", 2), tmp_path)) == 2


def test_the_cache_lies_in_the_xdg_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert partitions.default_cache() == Path("/somewhere/fedsecure/partitions")


def test_a_relative_xdg_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    # XDG base directory specification 0.8: a relative path is invalid.
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert partitions.default_cache() == Path.home() / ".cache/fedsecure/partitions"
