"""Which manifests are a run's releases: the chain by ``prev``, from its head back.

Numbers may have gaps and a key may hold a dead writer's orphan, so the chain alone says
what was committed (RESILIENCE.md section 8). Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fedsecure.checkpoint.manifest import Manifest
from fedsecure.errors import VerificationError
from fedsecure.metadata import Head


@dataclass(frozen=True, slots=True)
class Chain:
    """The manifests of one run.

    Attributes
    ----------
    run : str
    links : tuple of Manifest
        The releases, oldest first.
    missing : str
        Digest of the manifest the oldest link names and nobody has; "": none.
    orphans : tuple of Manifest
        Those of dead writers.
    """

    run: str
    links: tuple[Manifest, ...]
    missing: str
    orphans: tuple[Manifest, ...]


def follow(run: str, found: Iterable[Manifest], head: Head) -> Chain:
    """Return the chain that ends at the engine's head."""
    return _back(run, set(found), head.manifest.hex())


def longest(run: str, found: Iterable[Manifest]) -> Chain:
    """Return the chain a run has when no engine says where it ends.

    A manifest that was sealed and not committed is part of it: one CLOSE has one
    release digest, so it is the release the run would have made.

    Raises
    ------
    VerificationError
        Two releases follow one: names both, and a person must decide.
    """
    manifests = set(found)
    _refuse_forks(run, manifests)
    named = {manifest.prev for manifest in manifests}
    tips = {m.digest().hex() for m in manifests if m.run == run} - named
    chains = [_back(run, manifests, tip) for tip in tips]
    if not chains:
        return Chain(run, (), "", ())
    return max(chains, key=_rank)


def _rank(chain: Chain) -> tuple[bool, int, int, str]:
    tip = chain.links[-1]
    return not chain.missing, tip.round, tip.term, tip.digest().hex()


def _back(run: str, manifests: set[Manifest], tip: str) -> Chain:
    known = {m.digest().hex(): m for m in manifests if m.run == run}
    links: list[Manifest] = []
    wanted = tip
    while wanted in known:  # ends: a digest cannot be part of what it is made of
        links.append(known[wanted])
        wanted = known[wanted].prev
    orphans = sorted(set(known.values()) - set(links), key=lambda m: m.sequence)
    return Chain(run, tuple(reversed(links)), wanted, tuple(orphans))


def _refuse_forks(run: str, manifests: set[Manifest]) -> None:
    # Told apart by release, not by manifest: two leaders may each have sealed one.
    after: dict[int, Manifest] = {}
    for manifest in sorted(manifests, key=lambda m: (m.round, m.sequence)):
        if manifest.run != run:
            continue
        other = after.setdefault(manifest.after, manifest)
        if other.release != manifest.release:
            raise VerificationError(
                f"run {run}: manifests {other.sequence} (by {other.writer}) and "
                f"{manifest.sequence} (by {manifest.writer}) are different releases "
                f"after round {manifest.after}: compare them with what the sites "
                "opened, and move the other one out of the stores"
            )
