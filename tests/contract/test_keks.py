"""What every key-encryption key promises: only it opens, and only for the purpose."""

import uuid
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsecure import registry
from fedsecure.checkpoint.rack import kek_rack
from fedsecure.checkpoint.seal import from_bytes, to_bytes
from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.keks import Kek
from fedsecure.keys import BoxKey
from tests.fakes.softhsm import shared_token

KEY, INFO = bytes(range(32)), b"fedsecure-seal-v1\0update/run/1/site-1"
Make = Callable[[], Kek]
"""Another key of the same kind each time."""


@pytest.fixture(params=registry.names("keks"))
def make(request: pytest.FixtureRequest) -> Make:
    return {"file": _in_a_file, "pkcs11": _in_a_token}[request.param]


def _in_a_file() -> Kek:
    settings = {"name": f"agg-{uuid.uuid4().hex}", "key": BoxKey.generate()}
    made: Kek = registry.load("keks", "file").create(settings)
    return made


def _in_a_token() -> Kek:
    settings = shared_token().settings(uuid.uuid4().hex, make=True)
    made: Kek = registry.load("keks", "pkcs11").create(settings)
    return made


@pytest.fixture
def kek(make: Make) -> Kek:
    return make()


def test_what_was_sealed_opens(kek: Kek) -> None:
    assert kek.open(kek.seal(KEY, INFO), INFO) == KEY


def test_sealing_twice_gives_other_bytes(kek: Kek) -> None:
    assert kek.seal(KEY, INFO) != kek.seal(KEY, INFO)


def test_a_sealed_key_is_short(kek: Kek) -> None:
    assert len(kek.seal(KEY, INFO)) <= len(KEY) + 48


def test_another_key_does_not_open_it(kek: Kek, make: Make) -> None:
    with pytest.raises(VerificationError):
        make().open(kek.seal(KEY, INFO), INFO)


def test_another_purpose_does_not_open_it(kek: Kek) -> None:
    with pytest.raises(VerificationError):
        kek.open(kek.seal(KEY, INFO), INFO + b"2")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(0, 59), mask=st.integers(1, 255))
def test_a_changed_byte_does_not_open(kek: Kek, at: int, mask: int) -> None:
    sealed = bytearray(kek.seal(KEY, INFO))
    sealed[at] ^= mask
    with pytest.raises(VerificationError):
        kek.open(bytes(sealed), INFO)


@pytest.mark.parametrize("length", [0, 1, 11, 12, 27, 28, 47, 59])
def test_a_cut_key_does_not_open(kek: Kek, length: int) -> None:
    with pytest.raises(VerificationError):
        kek.open(kek.seal(KEY, INFO)[:length], INFO)


def test_it_works_on_after_bytes_that_do_not_open(kek: Kek) -> None:
    with pytest.raises(VerificationError):
        kek.open(bytes(80), INFO)
    assert kek.open(kek.seal(KEY, INFO), INFO) == KEY


def test_two_keys_have_two_names(kek: Kek, make: Make) -> None:
    assert kek.id != make().id


def test_an_object_sealed_under_it_comes_back(kek: Kek) -> None:
    rack = kek_rack(kek, [])
    stored = to_bytes(rack.seal(b"data", b"obj", bytes(range(39))))
    assert kek.id in from_bytes(stored).wraps
    assert rack.open(from_bytes(stored), b"obj") == b"data"


@pytest.mark.parametrize("name", registry.names("keks"))
def test_settings_that_lack_something_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} needs"):
        registry.load("keks", name).create({})
