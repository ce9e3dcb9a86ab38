import ssl
import stat
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedsecure.errors import KitError
from fedsecure.keys import SigningKey
from fedsecure.provision import ca

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
URN = "urn:fedsecure:ab12:aggregator:agg-1"
DAY = timedelta(days=1)


@cache
def _pair() -> tuple[ca.Authority, ca.Authority]:
    root = ca.make_authority("heart", NOW)
    return root, ca.make_issuing(root, "heart", NOW)


@cache
def _root_pem() -> bytes:
    return _pair()[0].pem()[0]


@cache
def _server() -> tuple[bytes, bytes]:
    return ca.issue(_pair()[1], ["agg.example.org", "127.0.0.1", "::1"], URN, NOW)


@cache
def _person() -> tuple[bytes, bytes]:
    return ca.issue_person(_pair()[1], "urn:fedsecure:ab12:operator:ada", NOW)


@pytest.mark.parametrize("host", ["agg.example.org", "127.0.0.1", "::1"])
def test_a_certificate_is_good_for_each_host_it_names(host: str) -> None:
    ca.check_certificate(_server()[0], _root_pem(), host, NOW)


@pytest.mark.parametrize("host", ["other.example.org", "127.0.0.2", "example.org"])
def test_another_host_is_named_in_the_refusal(host: str) -> None:
    with pytest.raises(KitError, match=f"agg.example.org.*not for {host}"):
        ca.check_certificate(_server()[0], _root_pem(), host, NOW)


def test_an_expired_certificate_is_refused_with_its_date() -> None:
    with pytest.raises(KitError, match="expired on 2027-02-23 12:00"):
        ca.check_certificate(
            _server()[0], _root_pem(), "127.0.0.1", NOW + ca.LEAF_DAYS * DAY
        )


def test_one_second_before_its_end_a_certificate_is_good() -> None:
    last = NOW + ca.LEAF_DAYS * DAY - timedelta(seconds=1)
    ca.check_certificate(_server()[0], _root_pem(), "127.0.0.1", last)


def test_a_certificate_of_tomorrow_points_at_the_clock() -> None:
    with pytest.raises(KitError, match="check this machine's clock"):
        ca.check_certificate(_server()[0], _root_pem(), "127.0.0.1", NOW - DAY)


def test_a_certificate_of_another_authority_of_the_same_name_is_refused() -> None:
    stranger = ca.make_authority("heart", NOW)
    with pytest.raises(KitError, match=r"not issued by the authority in ca.crt"):
        ca.check_certificate(_server()[0], stranger.pem()[0], "127.0.0.1", NOW)


def test_a_leaf_cannot_issue() -> None:
    leaf = ca.read_authority(*_server())
    forged, _ = ca.issue(leaf, ["127.0.0.1"], URN, NOW)
    chain = forged + _server()[0]
    with pytest.raises(KitError, match="not issued by"):
        ca.check_certificate(chain, _root_pem(), "127.0.0.1", NOW)


def test_an_issuing_authority_cannot_make_another_one() -> None:
    root, issuing = _pair()
    below = ca.make_issuing(issuing, "below", NOW)
    leaf, _ = ca.issue(below, ["127.0.0.1"], URN, NOW)
    chain = leaf + issuing.pem()[0]
    with pytest.raises(KitError, match="not issued by"):
        ca.check_certificate(chain, root.pem()[0], "127.0.0.1", NOW)


def test_an_operators_certificate_is_no_servers() -> None:
    with pytest.raises(KitError, match="no host"):
        ca.check_certificate(_person()[0], _root_pem(), "127.0.0.1", NOW)


def test_a_servers_certificate_is_no_operators() -> None:
    with pytest.raises(KitError, match="another use"):
        ca.check_person(_server()[0], _root_pem(), NOW)


def test_an_operators_certificate_is_good() -> None:
    ca.check_person(_person()[0], _root_pem(), NOW)


def test_an_operators_certificate_expires() -> None:
    with pytest.raises(KitError, match="expired"):
        ca.check_person(_person()[0], _root_pem(), NOW + 91 * DAY)


def test_the_member_stands_in_the_certificate() -> None:
    assert ca.member_of(_server()[0]) == URN


def test_an_authority_names_no_member() -> None:
    with pytest.raises(KitError, match="names no host and no member"):
        ca.member_of(_root_pem())


def test_days_left_are_those_of_the_first_to_expire() -> None:
    assert ca.days_left(_server()[0], NOW) == ca.LEAF_DAYS


def test_days_left_are_negative_once_expired() -> None:
    assert ca.days_left(_server()[0], NOW + 100 * DAY) == -10


@pytest.mark.parametrize("bad", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAA"])
def test_bytes_that_are_no_certificate_are_a_kit_error(bad: bytes) -> None:
    with pytest.raises(KitError, match="no PEM certificate"):
        ca.days_left(bad, NOW)


@pytest.mark.parametrize(
    "host", ["", "Upper.example.org", "a b", "x..y", "-a.org", "a" * 64, "1.2.3.400"]
)
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(KitError, match="must be a host name"):
        ca.host_of(host)


def test_root_and_issuing_are_p384_and_leaves_p256() -> None:
    leaf = x509.load_pem_x509_certificate(_server()[0]).public_key()
    keys = [a.certificate.public_key() for a in _pair()]
    curves = [k.curve.name for k in [*keys, leaf] if hasattr(k, "curve")]
    assert curves == ["secp384r1", "secp384r1", "secp256r1"]


def test_a_supernode_key_is_the_pair_flower_reads() -> None:
    private, public = ca.make_supernode_key()
    loaded = serialization.load_ssh_private_key(private, None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    again = serialization.load_pem_public_key(public.encode())
    assert private.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert loaded.public_key() == again


def test_an_encrypted_authority_opens_with_its_passphrase() -> None:
    certificate, key = _pair()[1].pem(b"three officers")
    assert b"ENCRYPTED" in key
    read = ca.read_authority(certificate, key, b"three officers")
    assert read.key.public_key() == _pair()[1].key.public_key()


@pytest.mark.parametrize(
    ("passphrase", "reason"), [(None, "encrypted"), (b"two", "passphrase is wrong")]
)
def test_an_encrypted_authority_stays_shut(
    passphrase: bytes | None, reason: str
) -> None:
    certificate, key = _pair()[1].pem(b"three officers")
    with pytest.raises(KitError, match=reason):
        ca.read_authority(certificate, key, passphrase)


def test_key_and_certificate_of_two_authorities_are_refused() -> None:
    root, issuing = _pair()
    with pytest.raises(KitError, match="do not belong together"):
        ca.read_authority(root.pem()[0], issuing.pem()[1])


def test_the_roster_key_survives_its_file() -> None:
    key = SigningKey.generate()
    pem = ca.lock_seed(key, b"pass")
    assert ca.unlock_seed(pem, b"pass").to_bytes() == key.to_bytes()


def test_another_kind_of_key_is_no_roster_key() -> None:
    with pytest.raises(KitError, match="not an Ed25519 key"):
        ca.unlock_seed(_pair()[0].pem()[1], None)


def test_an_authority_is_printed_without_its_key() -> None:
    assert "key" not in repr(_pair()[0])


def test_openssl_accepts_the_chain_and_the_host(tmp_path: Path) -> None:
    """Second road: a TLS 1.3 handshake by OpenSSL, in memory."""
    chain, key = _server_of_today(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    assert _handshake(server, client, "127.0.0.1") == "TLSv1.3"


def test_openssl_refuses_another_host(tmp_path: Path) -> None:
    chain, key = _server_of_today(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        _handshake(server, client, "10.0.0.1")


def _server_of_today(folder: Path) -> tuple[Path, Path]:
    now = datetime.now(UTC)
    root = ca.make_authority("heart", now)
    chain, key = ca.issue(ca.make_issuing(root, "heart", now), ["127.0.0.1"], URN, now)
    for name, data in (("ca.crt", root.pem()[0]), ("chain", chain), ("key", key)):
        (folder / name).write_bytes(data)
        (folder / name).chmod(stat.S_IRUSR | stat.S_IWUSR)
    return folder / "chain", folder / "key"


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str | None:
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(back, there, server_hostname=host)
    far = server.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for side in (near, far):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return near.version()
