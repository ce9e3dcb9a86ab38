"""Is an opened release the one its manifest names: signature and every digest."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from fedsecure.checkpoint.manifest import Manifest
from fedsecure.envelope import Kind, read_head, verify_head
from fedsecure.errors import VerificationError
from fedsecure.keys import VerifyKey
from fedsecure.release import Release, read_release_head, root


class BodyHash:
    """SHA-256 over a message's body, fed with the whole message chunk by chunk.

    A context: hashed in a thread of its own, while the next chunk is made; all of it
    was at the end of the context.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._begun, self._size = False, 0
        self._side = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._side.shutdown()
        if kind is None and self._last is not None:
            self._last.result()

    def update(self, chunk: memoryview) -> None:
        """Take the next chunk; the one before may change from now on."""
        before, self._last = self._last, self._side.submit(self._take, chunk)
        if before is not None:
            before.result()

    def _take(self, chunk: memoryview) -> None:
        if not self._begun:  # the first one holds the message's head
            chunk = chunk[read_head(chunk)[1] :]
            self._begun = True
        self._hash.update(chunk)
        self._size += len(chunk)

    def found(self) -> tuple[int, bytes]:
        """Return the body's length, and its digest."""
        return self._size, self._hash.digest()


def prove(
    data: memoryview,
    body: BodyHash,
    keys: Mapping[str, VerifyKey],
    manifest: Manifest,
) -> Release:
    """Return the release of a message whose body was hashed while it was opened.

    Parameters
    ----------
    keys : mapping of str to VerifyKey
        The aggregators'.

    Raises
    ------
    VerificationError
        By nobody of them, changed, or another release.
    """
    head, (size, digest) = read_head(data)[0], body.found()
    key = keys.get(head.signer)
    if key is None:
        raise VerificationError(f"release is signed by {head.signer!r}")
    header = verify_head(head, key, kinds=(Kind.RELEASE,))
    if (head.body_bytes, head.body_sha256) != (size, digest.hex()):
        raise VerificationError("the release's body was changed")
    release = read_release_head(header, head.scope.round, digest)
    names = (release.digest().hex(), root(release.participants).hex())
    if names != (manifest.release, manifest.root):
        raise VerificationError("the release is not the one its manifest names")
    return release
