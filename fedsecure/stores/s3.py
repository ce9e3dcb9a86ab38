"""A store in a bucket that speaks S3, through obstore: conditional creates only.

Correctness never rests on the server's conditional write alone: each object carries the
mark of the put that made it, so that a lost answer is told from another writer's win
(RESILIENCE section 8; 412 = exists, 409 = not decided), and `checkpoint.probe` races
creates against each store before it is trusted.
"""

import logging
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

import obstore.store
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
)

from fedsecure.bucket import Credentials, Place, read_credentials, read_place
from fedsecure.clock import Clock, SystemClock
from fedsecure.errors import (
    AlreadyExists,
    ConfigurationError,
    NotFound,
    OutcomeUnknown,
    StorageError,
    VerificationError,
)
from fedsecure.stores import Store, check_key, folder_of, is_key

if TYPE_CHECKING:  # names that obstore has in its stubs only
    from obstore.store import ClientConfig, S3Credential
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

_MARK = "fedsecure-put"
_MAX_KEYS = 1_000_000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_CONNECT = 5.0
# What obstore raises; a missing object is Python's own FileNotFoundError.
_FAILED = (BaseError, OSError)


class S3Store:
    """Write once under one prefix of one bucket; safe between threads.

    Parameters
    ----------
    place : Place
        The bucket.
    credentials : Credentials
        What requests are signed with.
    clock : Clock
        Waits between the attempts of a put.
    """

    ends_by_itself = True
    """Each attempt has its timeout, and there are so many: see `TimedStore`."""

    def __init__(self, place: Place, credentials: Credentials, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self._reading = _connect(place, credentials, place.attempts - 1)
        # obstore would answer a create that it sent twice with AlreadyExists, our own
        # object or not: `put` counts its attempts itself.
        self._writing = _connect(place, credentials, 0)

    def __repr__(self) -> str:
        return f"S3Store({self._place.of('')})"

    def get(self, key: str, max_bytes: int) -> bytes:
        """Return the object; see `Store`. Its size is checked before its bytes."""
        try:
            found = self._reading.get(check_key(key))
            size = found.meta["size"]
            if size > max_bytes:
                where = self._place.of(key)
                raise VerificationError(f"{where}: {size} bytes, at most {max_bytes}")
            return self._whole(found.stream(), key, size)
        except _FAILED as failed:
            self._refuse("read", key, failed)

    def put(self, key: str, value: bytes) -> None:
        """Create the object; see `Store`.

        Raises
        ------
        OutcomeUnknown
            The server went silent: it may hold the object, or hold it soon.
        """
        check_key(key)
        data, mark = bytes(value), uuid.uuid4().hex
        lost: Exception | None = None
        for attempt in range(self._place.attempts):
            self._pause(attempt)
            try:
                self._writing.put(
                    key,
                    data,
                    mode="create",
                    use_multipart=False,
                    attributes={_MARK: mark},
                )
            except AlreadyExistsError as exists:
                if self._is_mine(self._reading, key, mark):
                    return
                lost = exists  # 409 and nothing there: the race was not decided
            except _FAILED as failed:
                if not _may_pass(failed):
                    self._refuse("write", key, failed)
                lost = failed
            else:
                return
        self._settle(key, mark, lost)

    def keys(self, prefix: str) -> tuple[str, ...]:
        """Return keys that start with `prefix`, sorted.

        Raises
        ------
        StorageError
            Not listed; or more than 1,000,000 objects are there.
        """
        folder = folder_of(prefix)
        found: list[str] = []
        try:
            for page in self._reading.list(folder or None):
                found += [str(each["path"]) for each in page]
                if len(found) > _MAX_KEYS:
                    raise StorageError(
                        f"{self._place.of(folder)}: over {_MAX_KEYS} objects; "
                        "delete what is old, or take another prefix"
                    )
        except InvalidPathError:
            raise StorageError(
                f"{self._place.of(folder)} cannot be listed: it holds an object whose "
                "name has an empty or dotted part, which fedsecure never writes; "
                "move it away, or take a prefix of fedsecure's own"
            ) from None
        except _FAILED as failed:
            self._refuse("list", folder, failed)
        return tuple(sorted(k for k in found if k.startswith(prefix) and is_key(k)))

    def delete(self, key: str) -> None:
        """Remove the object; see `Store`."""
        try:
            self._reading.delete(check_key(key))
        except _FAILED as failed:
            if not _is_missing(failed):
                self._refuse("delete", key, failed)

    def _whole(self, chunks: "Iterable[Buffer]", key: str, size: int) -> bytes:
        """Join a body that must be as long as it was announced."""
        parts, seen = [], 0
        for chunk in chunks:
            parts.append(memoryview(chunk))
            seen += parts[-1].nbytes
            if seen > size:
                raise VerificationError(
                    f"{self._place.of(key)}: more than the {size} bytes it announced"
                )
        if seen < size:
            raise StorageError(
                f"{self._place.of(key)}: {seen} of {size} bytes came; try again"
            )
        return b"".join(parts)

    def _pause(self, attempt: int) -> None:
        if attempt:
            self._clock.sleep(min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE))

    def _is_mine(self, client: obstore.store.S3Store, key: str, mark: str) -> bool:
        """Return whether this put made what is there; False if nothing is there.

        Raises
        ------
        AlreadyExists
            Another put made it.
        """
        try:
            found = client.get(key, options={"head": True})
        except _FAILED as failed:
            if _is_missing(failed):
                return False
            self._refuse("read", key, failed)
        if found.attributes.get(_MARK) != mark:
            raise AlreadyExists(f"{self._place.of(key)} exists")
        return True

    def _settle(self, key: str, mark: str, lost: Exception | None) -> None:
        """Look once more after the last attempt: a lost answer may have been a yes."""
        try:
            if self._is_mine(self._writing, key, mark):  # once: it was silent
                return
        except AlreadyExists:
            raise
        except StorageError:
            log.debug("%s: could not be read back either", self._place.of(key))
        if lost is not None and _never_sent(lost):
            self._refuse("write", key, lost)
        raise OutcomeUnknown(
            f"could not write {self._place.of(key)} in {self._place.attempts} "
            f"attempts: {_reason(lost, self._place)}; it may be there or come yet"
        ) from None

    def _refuse(self, verb: str, key: str, failed: Exception) -> NoReturn:
        """Raise what `failed` means; the server's own words stay out of it."""
        if _is_missing(failed) and verb == "read":
            raise NotFound(f"{self._place.of(key)}: no such object") from None
        raise StorageError(
            f"could not {verb} {self._place.of(key)}: {_reason(failed, self._place)}"
        ) from None


def create(settings: Mapping[str, object]) -> Store:
    """Return the store of a bucket; the settings are those of `bucket`.

    Raises
    ------
    ConfigurationError
        A setting is missing, unknown or out of bounds; no credentials.
    KeyExposed
        The credentials can be read by others.
    """
    place = read_place(settings)
    credentials = read_credentials(settings)
    try:
        return S3Store(place, credentials, SystemClock())
    except (BaseError, ValueError):
        raise ConfigurationError(
            f"no client can be made for {place.of('')}: store "
            f"ca={settings.get('ca')!r} must be a file of PEM certificates"
        ) from None


# --- the client -----------------------------------------------------------------------


def _connect(
    place: Place, credentials: Credentials, retries: int
) -> obstore.store.S3Store:
    def provide() -> "S3Credential":
        return {
            "access_key_id": credentials.access_key_id,
            "secret_access_key": credentials.secret_access_key,
            "token": credentials.token,
            "expires_at": None,
        }

    client: ClientConfig = {
        "allow_http": place.url.startswith("http://"),
        "allow_invalid_certificates": False,
        "timeout": timedelta(seconds=place.timeout),
        "connect_timeout": timedelta(seconds=min(_CONNECT, place.timeout)),
    }
    if place.ca is not None:
        client["root_certificate"] = place.ca
    return obstore.store.S3Store(
        place.bucket,
        prefix=place.prefix or None,
        # Each is said aloud because obstore takes what is unsaid from AWS_* variables.
        config={
            "endpoint": place.url,
            "aws_endpoint_url_s3": place.url,
            "region": place.region,
            "virtual_hosted_style_request": False,
            "conditional_put": "etag",
            "disable_bulk_delete": True,
            "skip_signature": False,
            "unsigned_payload": False,
            "s3_express": False,
        },
        client_options=client,
        retry_config={
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=place.timeout * (retries + 1)),
            "backoff": {
                "init_backoff": timedelta(seconds=_FIRST_PAUSE),
                "max_backoff": timedelta(seconds=_LONGEST_PAUSE),
                "base": 2,
            },
        },
        credential_provider=provide,
    )


# --- what an error means --------------------------------------------------------------


def _code(failed: Exception) -> str:
    found = re.search(r"<Code>([A-Za-z0-9]{1,64})</Code>", str(failed))
    return found[1] if found else ""


def _status(failed: Exception) -> int:
    found = re.search(r"status(?: code)?: (\d{3})\b", str(failed))
    return int(found[1]) if found else 0


def _is_missing(failed: Exception) -> bool:
    # A bucket that is missing is no object that is missing.
    return isinstance(failed, FileNotFoundError) and _code(failed) != "NoSuchBucket"


def _never_sent(failed: Exception) -> bool:
    return "kind: Connect" in str(failed)


def _may_pass(failed: Exception) -> bool:
    status = _status(failed)
    return status in {0, 408, 409, 429} or status >= 500


def _reason(failed: Exception | None, place: Place) -> str:
    code, status = (_code(failed), _status(failed)) if failed else ("", 0)
    said = f" (HTTP {status} {code})".replace(" )", ")") if status else ""
    if code == "NoSuchBucket":
        return f"there is no bucket {place.bucket!r}{said}; make it, or correct bucket"
    if status in {401, 403}:
        return (
            f"the credentials are refused{said}; check the access key, its secret, the "
            "region and the key's right to read, write, list and delete here"
        )
    if failed is not None and _never_sent(failed):
        return "nothing answers there; check url, certificate, and that the server runs"
    if failed is not None and "kind: Timeout" in str(failed):
        return f"no answer in {place.timeout:g} s; check the server or raise timeout"
    if status:
        return f"the server answered{said}; see its log"
    return "the connection broke; check the server and the network"
