"""A certificate's signature: whose it is, and that nothing was changed."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from fedsecure.access.roster import Role
from fedsecure.certificate.signed import MAX_BYTES, read_certificate, signed
from fedsecure.errors import VerificationError
from fedsecure.keys import SigningKey
from tests.fakes.certified import Keys


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


def body(keys: Keys, name: str = "site-01") -> dict[str, Any]:
    issuer = keys.issuer(name)
    return {
        "run": "run-1",
        "epsilon": 2.5,
        "whole": 3.0,
        "issuer": {
            "name": name,
            "role": "site",
            "federation": issuer.roster.federation,
            "key": issuer.key.public.raw.hex(),
            "roster": issuer.signed_roster.hex(),
        },
    }


def test_what_was_signed_is_read_back_with_its_issuer(keys: Keys) -> None:
    found = read_certificate(signed(body(keys), keys.members["site-01"]))
    assert found.body["epsilon"] == 2.5
    assert (found.member.name, found.member.role) == ("site-01", Role.SITE)
    assert found.roster == keys.roster


def test_another_layout_of_the_same_json_is_the_same_certificate(keys: Keys) -> None:
    data = signed(body(keys), keys.members["site-01"])
    again = json.dumps(json.loads(data), sort_keys=True).encode()
    assert read_certificate(again).body == read_certificate(data).body


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["certificate"].update(epsilon=2.4),
        lambda d: d["certificate"].update(more=1),
        lambda d: d["certificate"].pop("run"),
        lambda d: d.update(signature="00" * 64),
    ],
)
def test_a_changed_certificate_is_refused(
    keys: Keys, change: Callable[[dict[str, Any]], object]
) -> None:
    document = json.loads(signed(body(keys), keys.members["site-01"]))
    change(document)
    with pytest.raises(VerificationError, match="changed after 'site-01' signed it"):
        read_certificate(json.dumps(document).encode())


def test_a_stranger_may_not_sign_in_a_members_name(keys: Keys) -> None:
    stranger = SigningKey.generate()
    own = body(keys)
    own["issuer"]["key"] = stranger.public.raw.hex()
    with pytest.raises(VerificationError, match="does not have for that member"):
        read_certificate(signed(own, stranger))


def test_a_roster_of_another_federation_is_refused(keys: Keys) -> None:
    own = body(keys)
    own["issuer"]["roster"] = Keys().issuer().signed_roster.hex()
    with pytest.raises(VerificationError, match="another federation"):
        read_certificate(signed(own, keys.members["site-01"]))


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b'{"certificate": 3, "signature": "00"}', b"\xff", b"null"],
)
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(VerificationError, match="not well formed"):
        read_certificate(data)


def test_a_short_signature_is_refused(keys: Keys) -> None:
    document = json.loads(signed(body(keys), keys.members["site-01"]))
    document["signature"] = "00"
    with pytest.raises(VerificationError, match="has 1 bytes"):
        read_certificate(json.dumps(document).encode())


def test_a_huge_file_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(VerificationError, match="at most"):
        read_certificate(b" " * (MAX_BYTES + 1))
