"""All targets: every decoder that reads outside bytes, and both halves of a round."""

from tests.fuzz.halftargets import HALF_TARGETS
from tests.fuzz.signedtargets import SIGNED_TARGETS
from tests.fuzz.target import Target
from tests.fuzz.wiretargets import WIRE_TARGETS

TARGETS: tuple[Target, ...] = (*WIRE_TARGETS, *SIGNED_TARGETS, *HALF_TARGETS)
