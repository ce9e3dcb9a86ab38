"""Keys: RFC vectors, what does not open, and what is never printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsecure.errors import ConfigurationError, VerificationError
from fedsecure.keys import BoxKey, BoxPublic, SigningKey, VerifyKey, derive

KEY = SigningKey.from_bytes(b"k" * 32)
BOX = BoxKey.from_bytes(b"b" * 32)
SEALED = BOX.public.seal(b"secret", b"purpose")

# RFC 8032 section 7.1, tests 1 to 3: seed, public key, message, signature.
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bac"
            "c61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e"
            "458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290"
            "ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC8032)
def test_signatures_are_those_of_rfc_8032(
    seed: str, public: str, message: str, signature: str
) -> None:
    key = SigningKey.from_bytes(bytes.fromhex(seed))
    assert key.public == VerifyKey(bytes.fromhex(public))
    assert key.sign(bytes.fromhex(message)).hex() == signature
    key.public.verify(bytes.fromhex(signature), bytes.fromhex(message))


def test_derivation_is_hkdf_of_rfc_5869() -> None:
    # Appendix A.3: SHA-256, no salt, no info.
    okm = derive(bytes([0x0B] * 22), b"", 42)
    assert okm.hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
        "9d201395faa4b61a96c8"
    )


def test_keys_for_different_purposes_differ() -> None:
    assert derive(b"s" * 32, b"one", 32) != derive(b"s" * 32, b"two", 32)


def test_another_message_does_not_verify() -> None:
    with pytest.raises(VerificationError, match="does not verify"):
        KEY.public.verify(KEY.sign(b"one"), b"two")


def test_another_key_does_not_verify() -> None:
    other = SigningKey.from_bytes(b"o" * 32)
    with pytest.raises(VerificationError):
        other.public.verify(KEY.sign(b"one"), b"one")


@given(signature=st.binary(max_size=80))
def test_any_bytes_as_signature_are_refused(signature: bytes) -> None:
    with pytest.raises(VerificationError):
        KEY.public.verify(signature, b"message")


@pytest.mark.parametrize("raw", [bytes(32), b"\xff" * 32, b"\x01" + bytes(31)])
def test_public_key_that_is_no_good_point_verifies_nothing(raw: bytes) -> None:
    with pytest.raises(VerificationError):
        VerifyKey(raw).verify(KEY.sign(b"message"), b"message")


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_key_of_another_length_is_refused(length: int) -> None:
    for make in (SigningKey.from_bytes, BoxKey.from_bytes, VerifyKey, BoxPublic):
        with pytest.raises(ConfigurationError, match=f"{length} bytes, must have 32"):
            make(bytes(length))


def test_keys_survive_their_bytes() -> None:
    assert SigningKey.from_bytes(KEY.to_bytes()).public == KEY.public
    assert BoxKey.from_bytes(BOX.to_bytes()).public == BOX.public


def test_generated_keys_differ() -> None:
    assert SigningKey.generate().public != SigningKey.generate().public
    assert BoxKey.generate().public != BoxKey.generate().public


def test_box_opens_what_was_sealed_to_it() -> None:
    assert BOX.open(SEALED, b"purpose") == b"secret"


def test_sealing_is_randomised() -> None:
    assert BOX.public.seal(b"secret", b"purpose") != SEALED


def test_box_does_not_open_for_another_purpose() -> None:
    with pytest.raises(VerificationError, match="does not open"):
        BOX.open(SEALED, b"other")


def test_another_box_does_not_open() -> None:
    with pytest.raises(VerificationError):
        BoxKey.from_bytes(b"c" * 32).open(SEALED, b"purpose")


@given(at=st.integers(0, len(SEALED) - 1), mask=st.integers(1, 255))
def test_changed_sealed_byte_is_refused(at: int, mask: int) -> None:
    data = bytearray(SEALED)
    data[at] ^= mask
    # The top bit of an X25519 point does not count (RFC 7748 section 5), yet HPKE
    # hashes the point as sent, so it is noticed too.
    with pytest.raises(VerificationError):
        BOX.open(bytes(data), b"purpose")


@given(sealed=st.binary(max_size=100))
def test_any_bytes_are_refused_by_the_box(sealed: bytes) -> None:
    with pytest.raises(VerificationError):
        BOX.open(sealed, b"purpose")


@pytest.mark.parametrize("key", [KEY, BOX], ids=["signing", "box"])
def test_private_key_is_never_shown(key: SigningKey | BoxKey) -> None:
    secret = key.to_bytes()
    for shown in (repr(key), str(key), f"{key}"):
        assert secret.hex() not in shown
        assert repr(secret) not in shown
