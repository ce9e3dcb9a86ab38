"""A release becomes the next model: unmask, decrypt, check tags, add, keep."""

from fedsecure.body import cut_sum
from fedsecure.client_masks import unmasking
from fedsecure.client_quantiser import agree, agreed
from fedsecure.client_run import ClientRun
from fedsecure.client_update import open_sum, sum_parts
from fedsecure.errors import ReleaseMissing, TagMismatch
from fedsecure.outgoing import Bytes
from fedsecure.release import Release
from fedsecure.update import Vector


def opened_model(run: ClientRun, release: Release, body: Bytes) -> Vector:
    """Return the model after a release that may be opened; kept before it is used.

    The newest one, if this site is further: a new leader does not know what sites have
    opened and sends all of it again, even when the run is over and its key is gone.

    Parameters
    ----------
    body : Bytes
        The encrypted sum, open blocks if the plan has any, and what takes masks off.

    Raises
    ------
    ReleaseMissing
        The model it builds on is not here.
    TagMismatch
        The sum is not of exactly the participants' updates: its key has ended.
    VerificationError
        Another key or size.
    """
    known = run.shelf.model(release.round.number)
    if known is None:
        known = run.shelf.model_beyond(release.round.number)
    if known is not None:
        return known
    before = run.shelf.model(release.after)
    if before is None:
        raise ReleaseMissing(f"open the release of round {release.after} first")
    model = before + _step(run, release, memoryview(body), before.size)
    agree(run, release.round.number, before, model)
    run.shelf.keep_model(release.round.number, model)
    run.shelf.forget_models(release.after)
    run.keys.retire(release.round.number)
    return model


def _step(run: ClientRun, release: Release, body: memoryview, size: int) -> Vector:
    _, secrets = cut_sum(body, sum_parts(run, release, size))
    total, fixed = body[: len(body) - len(secrets)], agreed(run, release.after)
    unmask = unmasking(run, release, secrets)
    try:
        return open_sum(run, release, total, size, fixed=fixed, unmask=unmask)
    except TagMismatch:
        # One bit a key is all a forger may learn (ENCRYPTION section 1).
        run.keys.end(release.round.number, "a tag failed")
        raise
