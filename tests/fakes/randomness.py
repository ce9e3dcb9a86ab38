"""Random sources for tests: a fixed stream, given bytes, and the system's own."""

import hashlib
import os


class Stream:
    """SHAKE-256 of a seed and a counter: the same bytes on every machine."""

    def __init__(self, seed: str) -> None:
        self._seed, self._calls = seed, 0

    def bytes(self, n: int) -> bytes:
        self._calls += 1
        return hashlib.shake_256(f"{self._seed}/{self._calls}".encode()).digest(n)


class Script:
    """Given bytes, in order; asking for another number of them fails the test."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def bytes(self, n: int) -> bytes:
        piece = self._pieces.pop(0)
        assert len(piece) == n
        return piece


class System:
    """The operating system's generator."""

    def bytes(self, n: int) -> bytes:
        return os.urandom(n)
