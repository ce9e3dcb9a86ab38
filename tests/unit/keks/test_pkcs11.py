"""What a token does to an aggregator: wrong PINs, keys that may leave, lost tokens."""

import contextlib
import logging
import uuid
from typing import Any

import pytest

from fedsecure import registry
from fedsecure.errors import (
    ConfigurationError,
    StorageError,
)
from fedsecure.keks import Kek
from tests.fakes.softhsm import PIN, SoftToken, shared_token, soft_token

KEY, INFO = bytes(range(32)), b"purpose"


def create(settings: dict[str, object]) -> Kek:
    made: Kek = registry.load("keks", "pkcs11").create(settings)
    return made


@pytest.fixture
def token() -> SoftToken:
    return soft_token()


def _pin(token: SoftToken, pin: str) -> None:
    token.pin_file.write_text(pin)


def test_the_key_is_found_again_under_its_label() -> None:
    settings = shared_token().settings(uuid.uuid4().hex)
    made = create({**settings, "make": True})
    assert create(settings).id == made.id
    assert create(settings).open(made.seal(KEY, INFO), INFO) == KEY


def test_the_key_cannot_leave_its_token() -> None:
    import pkcs11
    from pkcs11 import Attribute

    made: Any = create(shared_token().settings(uuid.uuid4().hex, make=True))
    key = made._key
    assert key[Attribute.SENSITIVE]
    assert key[Attribute.NEVER_EXTRACTABLE]
    with pytest.raises(pkcs11.PKCS11Error):
        key[Attribute.VALUE]


def test_a_key_is_never_made_over_another() -> None:
    settings = shared_token().settings(uuid.uuid4().hex, make=True)
    create(settings)
    with pytest.raises(ConfigurationError, match="exists: it is never made anew"):
        create(settings)


def test_a_key_that_may_leave_is_refused(token: SoftToken) -> None:
    import pkcs11
    from pkcs11 import Attribute, KeyType

    label, found = uuid.uuid4().hex, []
    for slot in pkcs11.lib(str(token.settings()["module"])).get_slots(True):
        with contextlib.suppress(pkcs11.PKCS11Error):  # another test's, pulled out
            found += [t for t in [slot.get_token()] if t.label == token.label]
    with found[0].open(rw=True, user_pin=PIN) as session:
        session.generate_key(
            KeyType.AES,
            256,
            label=label,
            id=b"1",
            store=True,
            template={Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False},
        )
    with pytest.raises(ConfigurationError, match="never leave the token"):
        create(token.settings(label))


def test_a_label_that_no_key_has_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"0 AES keys .* 'nobody'.*kek make"):
        create(shared_token().settings("nobody"))


def test_a_token_that_is_not_there_is_named() -> None:
    settings = {**shared_token().settings(), "token": "unplugged"}
    with pytest.raises(StorageError, match="0 tokens are labelled 'unplugged'"):
        create(settings)


@pytest.mark.parametrize("module", ["/nope/lib.so", "/etc/hostname", ""])
def test_a_module_that_cannot_be_loaded_is_named(module: str) -> None:
    settings = {**shared_token().settings(), "module": module}
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        create(settings)


def test_a_wrong_pin_names_token_and_file_and_never_the_pin(token: SoftToken) -> None:
    _pin(token, "1111-wrong")
    with pytest.raises(ConfigurationError) as refused:
        create(token.settings(make=True))
    assert token.label in str(refused.value)
    assert str(token.pin_file) in str(refused.value)
    assert "1111" not in repr(refused.value)


def test_a_wrong_pin_is_tried_once(token: SoftToken) -> None:
    _pin(token, "1111-wrong")
    with pytest.raises(ConfigurationError, match="refuses the user PIN"):
        create(token.settings(make=True))
    _pin(token, PIN)  # right now, yet only a person may say so
    with pytest.raises(ConfigurationError, match="last user PIN was wrong"):
        create(token.settings(make=True))
    assert create(token.settings(make=True, retry_pin=True)).id
    assert create(token.settings()).id


def test_a_locked_pin_is_not_tried(
    token: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pkcs11 import TokenFlag

    module = registry.load("keks", "pkcs11")

    class Locked:
        label, flags = token.label, TokenFlag.USER_PIN_LOCKED

        def open(self, **_: object) -> None:
            pytest.fail("a login was tried")

    monkeypatch.setattr(module, "_token", lambda *_: Locked())
    for retry in (False, True):
        with pytest.raises(ConfigurationError, match="has locked its user PIN"):
            create(token.settings(retry_pin=retry))


def test_a_token_that_was_pulled_says_so(token: SoftToken) -> None:
    kek = create(token.settings(make=True))
    sealed = kek.seal(KEY, INFO)
    token.take_away()
    said = rf"lost while running.*{token.label}"
    with pytest.raises(StorageError, match=said):
        kek.open(sealed, INFO)
    with pytest.raises(StorageError, match=said):
        kek.seal(KEY, INFO)


def test_a_token_that_was_pulled_is_no_matter_to_others(token: SoftToken) -> None:
    create(token.settings(make=True))
    token.take_away()
    kek = create(shared_token().settings(uuid.uuid4().hex, make=True))
    assert kek.open(kek.seal(KEY, INFO), INFO) == KEY


def test_a_session_that_the_device_ended_is_opened_again() -> None:
    kek: Any = create(shared_token().settings(uuid.uuid4().hex, make=True))
    sealed = kek.seal(KEY, INFO)
    kek._session.close()
    assert kek.open(sealed, INFO) == KEY
    kek._session.close()
    assert kek.open(kek.seal(KEY, INFO), INFO) == KEY


def test_a_full_token_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import pkcs11

    module: Any = registry.load("keks", "pkcs11")

    class Full:
        def get_objects(self, _: object) -> list[object]:
            return []

        def generate_key(self, *_: object, **__: object) -> None:
            raise pkcs11.DeviceMemory

    settings = shared_token().settings()
    with pytest.raises(StorageError, match="is full: remove a key"):
        module._make(Full(), module.read_place(settings))


def test_a_device_that_refuses_is_no_verdict_on_the_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pkcs11

    kek: Any = create(shared_token().settings(uuid.uuid4().hex, make=True))
    sealed = kek.seal(KEY, INFO)

    def refuse(*_: object) -> bytes:
        raise pkcs11.DeviceError

    monkeypatch.setattr(kek, "_decrypt", refuse)
    monkeypatch.setattr(kek, "_encrypt", refuse)
    with pytest.raises(StorageError, match="cannot be used: DeviceError"):
        kek.open(sealed, INFO)


def test_the_pin_is_in_no_log_and_no_repr(
    token: SoftToken, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    kek = create(token.settings(make=True))
    shown = repr(kek) + repr(vars(kek)) + caplog.text
    assert token.label in shown
    assert PIN not in shown


def test_two_keys_of_one_token_work_side_by_side() -> None:
    settings = shared_token().settings
    keks = [create(settings(uuid.uuid4().hex, make=True)) for _ in range(2)]
    sealed = [kek.seal(KEY, INFO) for kek in keks]
    assert [k.open(s, INFO) for k, s in zip(keks, sealed, strict=True)] == [KEY, KEY]


def test_threads_share_one_session() -> None:
    from concurrent.futures import ThreadPoolExecutor

    kek = create(shared_token().settings(uuid.uuid4().hex, make=True))

    def there_and_back(n: int) -> bool:
        return kek.open(kek.seal(bytes([n]) * 32, INFO), INFO) == bytes([n]) * 32

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(100)))
