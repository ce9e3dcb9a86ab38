"""A key-encryption key that never leaves its token: AES-256-GCM in a PKCS#11 device.

The key is made in the token, sensitive and not extractable (PKCS#11 3.1, section 4.4).
Sealing is C_Encrypt under CKM_AES_GCM, a mechanism that hardware has too: twelve random
bytes in front, the purpose as additional data (NIST SP 800-38D section 8.2.2: at most
2^32 sealings a key). A PIN that the token refused is not tried again, in no process:
the token's own flags say so, and few wrong ones lock it.
"""

import contextlib
import os
import threading
from collections.abc import Mapping
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, TokenFlag

from fedsecure.errors import ConfigurationError, StorageError, VerificationError
from fedsecure.keks import Kek
from fedsecure.tokenplace import Place, read_pin, read_place

_NONCE, _TAG, _KEY_BITS, _ID_BYTES = 12, 16, 256, 16
_WARNED = (
    TokenFlag.USER_PIN_COUNT_LOW
    | TokenFlag.USER_PIN_FINAL_TRY
    | TokenFlag.USER_PIN_LOCKED
)
_CHANGED = (
    pkcs11.EncryptedDataInvalid,
    pkcs11.EncryptedDataLenRange,
    pkcs11.ArgumentsBad,
    pkcs11.MechanismParamInvalid,
)


class TokenKek:
    """A key in a token, by a session that is opened again once if it was lost.

    Parameters
    ----------
    place : Place
    retry_pin : bool
        Log in although the token says that the last PIN was wrong.
    make : bool
        Make the key first; it must not be there.
    """

    def __init__(
        self, place: Place, *, retry_pin: bool = False, make: bool = False
    ) -> None:
        self._place, self._retry_pin = place, retry_pin
        self._lock = threading.Lock()
        self._library = _library(place)
        self._session = self._log_in(writing=make)
        if make:
            _make(self._session, place)
        self._key = _find(self._session, place)
        self._id = _checked_id(self._key, place)

    def __repr__(self) -> str:
        return f"TokenKek({self._place})"

    @property
    def id(self) -> str:
        """``pkcs11:`` and the key's CKA_ID, hexadecimal."""
        return self._id

    def seal(self, secret: bytes, info: bytes) -> bytes:
        """Return `secret` under AES-256-GCM in the token; 28 bytes longer.

        Raises
        ------
        StorageError
            The token is gone, or refuses.
        """
        nonce = os.urandom(_NONCE)
        with self._lock:
            try:
                sealed = self._encrypt(secret, nonce, info)
            except pkcs11.PKCS11Error as lost:
                self._again(lost)
                sealed = self._encrypt_or_say(secret, nonce, info)
        if len(sealed) != len(secret) + _TAG:
            raise StorageError(
                f"{self._place}: AES-GCM gave {len(sealed)} bytes for {len(secret)}, "
                f"must be {_TAG} more: this module cannot be used"
            )
        return nonce + sealed

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Return what `seal` sealed.

        Raises
        ------
        VerificationError
            Another key, another `info`, or changed bytes.
        StorageError
            The token is gone, or refuses.
        """
        if len(sealed) < _NONCE + _TAG:
            raise VerificationError(f"{len(sealed)} bytes were sealed under no key")
        with self._lock:
            try:
                return self._decrypt(sealed, info)
            except _CHANGED as bad:
                raise self._not_ours() from bad
            except pkcs11.PKCS11Error as lost:
                return self._decrypt_again(sealed, info, lost)

    def _decrypt_again(
        self, sealed: bytes, info: bytes, lost: pkcs11.PKCS11Error
    ) -> bytes:
        """Open in a new session; a key that works there and refuses says: changed.

        SoftHSM answers CKR_GENERAL_ERROR where a tag does not fit.
        """
        self._again(lost)
        try:
            return self._decrypt(sealed, info)
        except pkcs11.PKCS11Error as bad:
            self._encrypt_or_say(b"probe", bytes(_NONCE), os.urandom(_NONCE))
            raise self._not_ours() from bad

    def _not_ours(self) -> VerificationError:
        return VerificationError(f"a wrapped key does not open with {self._place}")

    def _encrypt(self, secret: bytes, nonce: bytes, info: bytes) -> bytes:
        how = pkcs11.GCMParams(nonce, info, 8 * _TAG)
        found = self._key.encrypt(
            secret, mechanism=Mechanism.AES_GCM, mechanism_param=how
        )
        return bytes(found)

    def _encrypt_or_say(self, secret: bytes, nonce: bytes, info: bytes) -> bytes:
        try:
            return self._encrypt(secret, nonce, info)
        except pkcs11.PKCS11Error as refused:
            raise _unusable(self._place, refused) from refused

    def _decrypt(self, sealed: bytes, info: bytes) -> bytes:
        how = pkcs11.GCMParams(sealed[:_NONCE], info, 8 * _TAG)
        found = self._key.decrypt(
            sealed[_NONCE:], mechanism=Mechanism.AES_GCM, mechanism_param=how
        )
        return bytes(found)

    def _again(self, lost: pkcs11.PKCS11Error) -> None:
        """Open a new session, once: devices end sessions, and links break."""
        with contextlib.suppress(pkcs11.PKCS11Error):  # it may be gone: that is why
            self._session.close()
        try:
            self._session = self._log_in(writing=False)
            self._key = _find(self._session, self._place)
            self._same(_checked_id(self._key, self._place))
        except (StorageError, ConfigurationError) as gone:
            raise StorageError(
                f"{self._place} was lost while running ({_shown(lost)}), and does not "
                f"come back: {gone}. Then start again"
            ) from gone

    def _same(self, found: str) -> None:
        if found != self._id:
            raise ConfigurationError(
                f"{self._place} is {found} now, it was {self._id}: put the token back "
                "that has it"
            )

    def _log_in(self, *, writing: bool) -> Any:
        place = self._place
        token = _token(self._library, place)
        warned = token.flags & _WARNED
        if warned & TokenFlag.USER_PIN_LOCKED:
            raise ConfigurationError(
                f"token {place.token!r} has locked its user PIN: its security officer "
                "must set it again; nothing was tried"
            )
        if warned and not self._retry_pin:
            raise ConfigurationError(
                f"token {place.token!r} says that the last user PIN was wrong, and few "
                f"tries lock it: see that {place.pin} holds the right one, then run "
                "`fedsecure kek show KIT --retry-pin`, which tries it once"
            )
        try:
            return token.open(rw=writing, user_pin=read_pin(place))
        except pkcs11.UserAlreadyLoggedIn:  # another key of the same token, here
            return token.open(rw=writing)
        except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange) as wrong:
            raise ConfigurationError(
                f"token {place.token!r} refuses the user PIN in {place.pin}; it is not "
                "tried again. Mend the file, then run `fedsecure kek show KIT "
                "--retry-pin`, which tries it once"
            ) from wrong
        except pkcs11.PinLocked as locked:
            raise ConfigurationError(
                f"token {place.token!r} has locked its user PIN: its security officer "
                "must set it again"
            ) from locked
        except pkcs11.PKCS11Error as refused:
            raise _unusable(place, refused) from refused


def create(settings: Mapping[str, object]) -> Kek:
    """Open a key in a token.

    Parameters
    ----------
    settings : mapping
        ``module``, ``token``, ``label``, and ``pin_file`` (absolute, mode 0600) or
        ``pin_credential`` (a systemd credential's name). ``make``: make the key first.
        ``retry_pin``: log in although the last PIN was wrong.

    Raises
    ------
    ConfigurationError
        A setting; a module that cannot be loaded; no such key, or one that could leave
        the token; a wrong or locked PIN.
    StorageError
        The token is not there, or refuses.
    """
    place = read_place(settings)
    return TokenKek(
        place,
        retry_pin=settings.get("retry_pin") is True,
        make=settings.get("make") is True,
    )


def _library(place: Place) -> Any:
    try:
        return pkcs11.lib(place.module)
    except pkcs11.PKCS11Error as failed:
        raise ConfigurationError(
            f"kek module {place.module} cannot be loaded ({_shown(failed)}): name the "
            "PKCS#11 library that came with the device, such as "
            "/usr/lib/softhsm/libsofthsm2.so"
        ) from failed


def _token(library: Any, place: Place) -> Any:
    try:
        slots = library.get_slots(token_present=True)
    except pkcs11.PKCS11Error as refused:
        raise _unusable(place, refused) from refused
    found = []
    for slot in slots:
        with contextlib.suppress(pkcs11.PKCS11Error):  # one that is dead is not ours
            token = slot.get_token()
            found += [token] if token.label == place.token else []
    if len(found) != 1:
        raise StorageError(
            f"{len(found)} tokens are labelled {place.token!r} behind {place.module}, "
            "must be one: plug it in, mend its network, or correct the label"
        )
    return found[0]


def _find(session: Any, place: Place) -> Any:
    wanted = {
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: KeyType.AES,
        Attribute.LABEL: place.label,
    }
    try:
        found = list(session.get_objects(wanted))
    except pkcs11.PKCS11Error as refused:
        raise _unusable(place, refused) from refused
    if len(found) != 1:
        raise ConfigurationError(
            f"{len(found)} AES keys of token {place.token!r} are labelled "
            f"{place.label!r}, must be one: make it with `fedsecure kek make KIT`, or "
            "correct the label"
        )
    return found[0]


def _make(session: Any, place: Place) -> None:
    wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: place.label}
    try:
        if list(session.get_objects(wanted)):
            raise ConfigurationError(f"{place} exists: it is never made anew")
        session.generate_key(
            KeyType.AES,
            _KEY_BITS,
            id=os.urandom(_ID_BYTES),
            label=place.label,
            store=True,
            capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
            template={
                Attribute.SENSITIVE: True,
                Attribute.EXTRACTABLE: False,
                Attribute.PRIVATE: True,
                Attribute.MODIFIABLE: False,
            },
        )
    except pkcs11.DeviceMemory as full:
        raise StorageError(
            f"token {place.token!r} is full: remove a key that nothing needs, or take "
            "another token"
        ) from full
    except pkcs11.PKCS11Error as refused:
        raise _unusable(place, refused) from refused


def _checked_id(key: Any, place: Place) -> str:
    try:
        extractable, sensitive = key[Attribute.EXTRACTABLE], key[Attribute.SENSITIVE]
        bits, found = 8 * int(key[Attribute.VALUE_LEN]), bytes(key[Attribute.ID])
    except pkcs11.PKCS11Error as refused:
        raise _unusable(place, refused) from refused
    if extractable or not sensitive or bits != _KEY_BITS:
        raise ConfigurationError(
            f"{place} has {bits} bits, extractable={extractable}, sensitive="
            f"{sensitive}; it must have {_KEY_BITS} and never leave the token: make "
            "one with `fedsecure kek make KIT`"
        )
    if not found:
        raise ConfigurationError(f"{place} has no CKA_ID: objects could not name it")
    return f"pkcs11:{found.hex()}"


def _unusable(place: Place, refused: pkcs11.PKCS11Error) -> StorageError:
    return StorageError(
        f"{place} cannot be used: {_shown(refused)}. Look at the device and its log"
    )


def _shown(error: pkcs11.PKCS11Error) -> str:
    return f"{type(error).__name__} {error}".strip()
