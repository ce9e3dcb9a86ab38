"""The rosters a kit has, and what a checkpoint's roster is worth beside them; pure.

Rosters change while a run goes on, so a checkpoint's need not be ours. It may be older:
nobody was revoked in it who still takes part in ours. It may not be newer: under ours
somebody could take part whom it revoked. Members and revocations only ever grow
(`access.roster`), so each roster a kit kept bounds the ones it did not keep: who is
revoked in an older one was so by then, who is missing in a newer one was not there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from fedsecure.access.kit import Kit
from fedsecure.access.roster import Role, Roster
from fedsecure.checkpoint.manifest import Manifest, Unread
from fedsecure.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Rosters:
    """A kit's own roster, and the earlier ones that it still has.

    Attributes
    ----------
    current : Roster
    earlier : tuple of Roster
        In any order; none is an answer, too.
    """

    current: Roster
    earlier: tuple[Roster, ...] = ()

    @staticmethod
    def of(kit: Kit) -> "Rosters":
        """Return those of a kit."""
        return Rosters(kit.roster, kit.earlier)

    def named_in(self, manifest: Manifest) -> Manifest:
        """Return a manifest that is made now, with our roster named in it."""
        return replace(
            manifest,
            roster=self.current.version,
            roster_digest=self.current.digest(),
            federation=self.current.federation,
        )

    def lives(self, name: str) -> bool:
        """Return whether an aggregator was not revoked since."""
        return self.current.takes_part(name)

    def require_known(self, manifest: Manifest) -> None:
        """Return only if this kit can judge a checkpoint: not foreign, not newer.

        Raises
        ------
        ConfigurationError
            Names the versions, and what to do.
        """
        under = f" under roster {manifest.roster}"
        self._require_ours(manifest.federation, _about(manifest), under)
        if manifest.roster > self.current.version:
            raise ConfigurationError(
                f"{_about(manifest)} under roster {manifest.roster}"
                f"{self._older(manifest.roster)}"
            )

    def require_unread(self, key: str, unread: Unread) -> None:
        """Return unless a manifest that cannot be read is foreign or names a newer one.

        What it says is not verified. It is believed as far as a refusal goes: with an
        older roster the last releases of a run look like nobody's, and would be passed
        over.

        Parameters
        ----------
        key : str
            Where it lies.

        Raises
        ------
        ConfigurationError
            It says so.
        """
        self._require_ours(unread.federation, f"{key}: {unread}", "")
        if unread.federation and unread.roster > self.current.version:
            raise ConfigurationError(
                f"{key}: {unread}{self._older(unread.roster)}. If no roster "
                f"{unread.roster} was ever made, somebody put it there: move {key} out "
                "of the stores"
            )

    def compare(self, manifest: Manifest) -> None:
        """Return only if a checkpoint may have been made as it says.

        As `require_known`; then its roster is the one we have under that number, if we
        have it, and its writer was an aggregator in it and not revoked.

        Raises
        ------
        ConfigurationError
            Names the versions, and what to do.
        """
        self.require_known(manifest)
        for roster in (*self.earlier, self.current):
            if roster.version == manifest.roster:
                _require_same(manifest, roster)
        if manifest.roster:
            self._require_writer(manifest)

    def require(self, manifest: Manifest) -> None:
        """Return only if a run may go on from a checkpoint.

        As `compare`. One that does not say its roster counts unless its writer was
        revoked since: before or after cannot be told.

        Raises
        ------
        ConfigurationError
            Names the versions, and what to do.
        """
        self.compare(manifest)
        if not manifest.roster and manifest.writer in self.current.revoked:
            raise ConfigurationError(
                f"{_about(manifest)} by {manifest.writer}, which roster "
                f"{self.current.version} of this kit revokes, and its manifest of "
                f"format {manifest.format} does not say whether that was before or "
                "after: begin a new run from the model that the sites have"
            )

    def require_chain(self, links: Sequence[Manifest]) -> None:
        """Return only if a run may go on from the last of its releases, oldest first.

        Raises
        ------
        ConfigurationError
            One of them may not have been made as it says, or was made under an older
            roster than the one before it.
        """
        for link in links:
            self.compare(link)
        for before, link in pairwise(links):
            if link.roster < before.roster:
                raise ConfigurationError(
                    f"{_about(link)} by {link.writer} under "
                    f"{_named(link.roster)}, round {before.round} before it under "
                    f"roster {before.roster}: {link.writer} wrote with a roster that "
                    "was out of date, or its key is in other hands; find out which, "
                    "and begin a new run from the model that the sites have"
                )
        if links:
            self.require(links[-1])

    def _require_ours(self, federation: str, what: str, under: str) -> None:
        if federation not in {"", self.current.federation}:
            raise ConfigurationError(
                f"{what}{under} of federation {federation[:16]!r}, this kit has roster "
                f"{self.current.version} of federation "
                f"{self.current.federation[:16]!r}: name the stores of this kit's "
                "federation, or take a kit of the other one"
            )

    def _require_writer(self, manifest: Manifest) -> None:
        name, version = manifest.writer, manifest.roster
        for roster in (*self.earlier, self.current):
            member = roster.members.get(name)
            stranger = member is None or member.role != Role.AGGREGATOR
            if roster.version <= version and name in roster.revoked:
                wrong = f"revoked since roster {roster.version} or before"
            elif roster.version >= version and stranger:
                wrong = f"no aggregator in roster {roster.version}"
            else:
                continue
            raise ConfigurationError(
                f"{_about(manifest)} by {name} under roster {version}, but {name} is "
                f"{wrong}: do not go on from it; find out who has the key of {name}, "
                "and begin a new run from the model that the sites have"
            )

    def _older(self, version: int) -> str:
        return (
            f", this kit has roster {self.current.version}: copy roster {version} "
            "or a newer one (roster.json, where the kits were made) into roster.d/ of "
            "this kit, and start again; under an older one a revoked member could take "
            "part"
        )


def _about(manifest: Manifest) -> str:
    """Return how a sentence about a checkpoint begins."""
    return f"run {manifest.run}: round {manifest.round} was released"


def _require_same(manifest: Manifest, ours: Roster) -> None:
    if manifest.roster_digest != ours.digest():
        raise ConfigurationError(
            f"{_about(manifest)} under a roster {manifest.roster} of digest "
            f"{manifest.roster_digest[:12]}, this kit's roster {ours.version} has "
            f"{ours.digest()[:12]}: two rosters were made under one number; find out "
            "which one is right, and hand out the next one to all kits"
        )


def _named(version: int) -> str:
    return f"roster {version}" if version else "a roster it does not say"
