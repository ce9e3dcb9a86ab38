"""The chain is told by ``prev``: orphans are no part of it, forks are refused."""

from dataclasses import replace

import pytest

from fedsecure.checkpoint.chain import follow, longest
from fedsecure.checkpoint.manifest import Manifest
from fedsecure.errors import VerificationError
from fedsecure.metadata import Head

FIRST = Manifest(
    "run", 1, 1, 1, 0, "", "r1", "root", "obj/1", 9, "k", "p", "now", "agg-1"
)


def after(before: Manifest, number: int, **changes: object) -> Manifest:
    made = replace(
        before,
        round=number,
        sequence=number,
        after=before.round,
        prev=before.digest().hex(),
        release=f"r{number}",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


SECOND = after(FIRST, 2)
THIRD = after(SECOND, 3)


def head(manifest: Manifest) -> Head:
    digest = manifest.digest()
    return Head("run", manifest.round, manifest.sequence, digest, manifest.term)


def test_the_head_says_where_the_chain_ends() -> None:
    chain = follow("run", [THIRD, FIRST, SECOND], head(SECOND))
    assert chain.links == (FIRST, SECOND)
    assert chain.orphans == (THIRD,)


def test_without_a_head_the_longest_chain_is_taken() -> None:
    assert longest("run", [THIRD, FIRST, SECOND]).links == (FIRST, SECOND, THIRD)


def test_a_gap_is_named() -> None:
    chain = longest("run", [THIRD, FIRST])
    assert chain.links == (FIRST,)
    assert follow("run", [THIRD, FIRST], head(THIRD)).missing == SECOND.digest().hex()


def test_two_sealings_of_one_release_are_no_fork() -> None:
    twin = replace(SECOND, sequence=5, term=2, writer="agg-2")
    third = after(twin, 3, sequence=6)
    assert longest("run", [FIRST, SECOND, twin, third]).links == (FIRST, twin, third)


def test_two_releases_after_one_are_refused() -> None:
    fork = replace(SECOND, sequence=5, release="other", writer="agg-2")
    with pytest.raises(VerificationError, match=r"2 \(by agg-1\) and 5 \(by agg-2\)"):
        longest("run", [FIRST, SECOND, fork])


def test_another_run_is_no_part_of_it() -> None:
    assert longest("run", [replace(FIRST, run="other")]).links == ()
