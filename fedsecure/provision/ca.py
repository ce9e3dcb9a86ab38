"""The federation's certificate authority: TLS certificates, and Flower's node keys.

A P-384 root (ten years) signs a P-384 issuing authority (two years), which signs P-256
leaves (90 days). Both keys lie under ``ca/`` of the folder they were made in and in no
kit; once the issuing key exists, the root key can be kept on other media. The authority
never sees an encryption key (TRUST.md section 3).
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from fedsecure.errors import KitError
from fedsecure.keys import SigningKey

ROOT_DAYS = 3650
ISSUING_DAYS = 730
LEAF_DAYS = 90
_BACKDATED = timedelta(minutes=5)  # machines' clocks differ a little
_HOST = re.compile(
    r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*"
    r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
    re.ASCII,
)  # RFC 1123; a last label that starts with a digit would be an address


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority with its private key; never printed."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    def pem(self, passphrase: bytes | None = None) -> tuple[bytes, bytes]:
        """Return certificate and private key as PEM; the key for mode 0600 only."""
        return _pem(self.certificate), _private_pem(self.key, passphrase)


def make_authority(name: str, now: datetime) -> Authority:
    """Make a root: P-384, valid ten years, may sign issuing authorities only."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _subject(f"{name} root")
    return Authority(_authority(subject, key, None, now), key)


def make_issuing(root: Authority, name: str, now: datetime) -> Authority:
    """Make an issuing authority: P-384, valid two years, may sign leaves only."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _subject(f"{name} issuing {now:%Y-%m-%d}")
    return Authority(_authority(subject, key, root, now), key)


def read_authority(
    certificate: bytes, key: bytes, passphrase: bytes | None = None
) -> Authority:
    """Return the authority of two PEM files.

    Raises
    ------
    KitError
        They cannot be read, do not belong together, or the passphrase is wrong.
    """
    private = _load_private(key, passphrase)
    found = _load(certificate, "the authority's certificate")[0]
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise KitError("the certificate authority's key is not an EC key")
    if private.public_key() != found.public_key():
        raise KitError("the authority's key and certificate do not belong together")
    return Authority(found, private)


def lock_seed(key: SigningKey, passphrase: bytes | None) -> bytes:
    """Return a signing key as PEM (PKCS#8), encrypted if there is a passphrase."""
    raw = ed25519.Ed25519PrivateKey.from_private_bytes(key.to_bytes())
    return _private_pem(raw, passphrase)


def unlock_seed(pem: bytes, passphrase: bytes | None) -> SigningKey:
    """Return the signing key that `lock_seed` stored.

    Raises
    ------
    KitError
        Not such a file, or a wrong or missing passphrase.
    """
    private = _load_private(pem, passphrase)
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise KitError("the roster key is not an Ed25519 key")
    return SigningKey.from_bytes(private.private_bytes_raw())


def issue(
    authority: Authority, names: Sequence[str], member: str, now: datetime
) -> tuple[bytes, bytes]:
    """Issue a server certificate; return its chain and its key as PEM.

    Parameters
    ----------
    names : sequence of str
        Host names and addresses it is good for.
    member : str
        The member's URN, ``urn:fedsecure:<federation>:<role>:<name>``.

    Raises
    ------
    KitError
        A name that is neither a host name nor an address.
    """
    hosts = [host_of(name) for name in dict.fromkeys(names)]
    return _leaf(authority, hosts, member, ExtendedKeyUsageOID.SERVER_AUTH, now)


def issue_person(
    authority: Authority, member: str, now: datetime
) -> tuple[bytes, bytes]:
    """Issue a client certificate for an operator; return its chain and key as PEM."""
    return _leaf(authority, [], member, ExtendedKeyUsageOID.CLIENT_AUTH, now)


def renew_chain(authority: Authority, certificate: bytes, now: datetime) -> bytes:
    """Return a new chain for the same key, names and use as an old certificate.

    Raises
    ------
    KitError
        It cannot be read, or its key is none of ours.
    """
    old = _load(certificate, "tls.crt")[0]
    key = old.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise KitError("tls.crt holds a key this authority does not issue")
    (purpose,) = old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return _chain(authority, key, [*_alternatives(old)], purpose, now)


def make_supernode_key() -> tuple[bytes, str]:
    """Return a P-384 key for Flower's node authentication.

    The private half in OpenSSH form, the only one `flower-supernode` reads (FLOWER.md
    section 14); the public half as the PEM a SuperLink knows a node by.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private, public.decode()


def days_left(certificate: bytes, now: datetime) -> float:
    """Return the days until the first certificate of a PEM chain expires.

    Negative once one has. KitError if it cannot be read.
    """
    until = min(c.not_valid_after_utc for c in _load(certificate, "certificate"))
    return (until - now).total_seconds() / 86400


def member_of(certificate: bytes) -> str:
    """Return the member's URN of a certificate; KitError if it names none."""
    leaf = _load(certificate, "certificate")[0]
    for name in _alternatives(leaf).get_values_for_type(x509.UniformResourceIdentifier):
        if name.startswith("urn:fedsecure:"):
            return name
    raise KitError("the certificate names no member of a federation")


def check_certificate(
    certificate: bytes, root: bytes, host: str, now: datetime
) -> None:
    """Return only if a server's chain is good for `host` now, under this root.

    Raises
    ------
    KitError
        Expired, not valid yet, for another host, or of another federation.
    """
    leaf, *rest = _load(certificate, "tls.crt")
    host = host.strip("[]")  # an IPv6 host as an address has it
    _check_dates([leaf, *rest], now)
    _check_host(leaf, host)
    try:
        _policy(root, now).build_server_verifier(host_of(host)).verify(leaf, rest)
    except VerificationError as bad:
        raise _foreign(leaf, bad) from bad


def check_person(certificate: bytes, root: bytes, now: datetime) -> None:
    """Return only if an operator's chain is good now, under this root.

    Raises
    ------
    KitError
        Expired, not valid yet, or of another federation.
    """
    leaf, *rest = _load(certificate, "tls.crt")
    _check_dates([leaf, *rest], now)
    try:
        _policy(root, now).build_client_verifier().verify(leaf, rest)
    except VerificationError as bad:
        raise _foreign(leaf, bad) from bad


def _policy(root: bytes, now: datetime) -> PolicyBuilder:
    return PolicyBuilder().store(Store(_load(root, "ca.crt"))).time(now)


def _foreign(leaf: x509.Certificate, bad: Exception) -> KitError:
    return KitError(
        f"tls.crt of {leaf.subject.rfc4514_string()} was not issued by the authority "
        f"in ca.crt, or for another use: {bad}. Take both files from the same kit"
    )


def _check_dates(chain: Sequence[x509.Certificate], now: datetime) -> None:
    for found in chain:
        if now >= found.not_valid_after_utc:
            raise KitError(
                f"tls.crt expired on {found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: "
                "renew it where the authority is, then copy tls.crt into this kit"
            )
        if now < found.not_valid_before_utc:
            raise KitError(
                f"tls.crt is valid from {found.not_valid_before_utc:%Y-%m-%d %H:%M} "
                f"UTC and it is {now:%Y-%m-%d %H:%M}: check this machine's clock"
            )


def _check_host(leaf: x509.Certificate, host: str) -> None:
    names = _alternatives(leaf)
    good = names.get_values_for_type(x509.DNSName)
    good += [str(a) for a in names.get_values_for_type(x509.IPAddress)]
    if host not in good:
        raise KitError(
            f"tls.crt is for {', '.join(good) or 'no host'}, not for {host}: use one "
            "of these as the address, or provision an aggregator with the new one"
        )


def _alternatives(leaf: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        kind = x509.SubjectAlternativeName
        return leaf.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound as missing:
        raise KitError("the certificate names no host and no member") from missing


def host_of(name: str) -> x509.IPAddress | x509.DNSName:
    """Return a host name or an address as certificates have it; KitError if neither."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        if not _HOST.fullmatch(name):
            raise KitError(
                f"host={name!r}, must be a host name in lower case or an address"
            ) from None
        return x509.DNSName(name)


def common_name(name: x509.Name) -> str:
    """Return the common name of a subject or issuer."""
    (found,) = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found.value)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    # RFC 5280 section 4.2.1.3: bit 0 signs handshakes, 5 and 6 sign certificates, CRLs.
    off = (False,) * 4
    return x509.KeyUsage(not authority, *off, authority, authority, *off[:2])


def _authority(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    parent: Authority | None,
    now: datetime,
) -> x509.Certificate:
    """Build a root (no parent, one authority below it) or an issuing authority."""
    signer = key if parent is None else parent.key
    days, depth = (ROOT_DAYS, 1) if parent is None else (ISSUING_DAYS, 0)
    return (
        _builder(subject, key.public_key(), parent, now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(signer, hashes.SHA384())
    )


def _leaf(
    authority: Authority,
    hosts: Sequence[x509.GeneralName],
    member: str,
    purpose: ObjectIdentifier,
    now: datetime,
) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [*hosts, x509.UniformResourceIdentifier(member)]
    chain = _chain(authority, key.public_key(), names, purpose, now)
    return chain, _private_pem(key, None)


def _chain(
    authority: Authority,
    key: ec.EllipticCurvePublicKey,
    names: Sequence[x509.GeneralName],
    purpose: ObjectIdentifier,
    now: datetime,
) -> bytes:
    member = [n.value for n in names if isinstance(n, x509.UniformResourceIdentifier)]
    subject = _subject(member[0].rsplit(":", 1)[-1])
    certificate = (
        _builder(subject, key, authority, now, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .sign(authority.key, hashes.SHA384())
    )
    return _pem(certificate) + _pem(authority.certificate)


def _builder(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    parent: Authority | None,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    issuer = subject if parent is None else parent.certificate.subject
    signer = key if parent is None else parent.key.public_key()
    own = x509.SubjectKeyIdentifier.from_public_key(key)
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(own, critical=False)
        .add_extension(above, critical=False)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
    passphrase: bytes | None,
) -> bytes:
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        lock = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock
    )


def _load(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as bad:
        raise KitError(f"{what} cannot be read: it is no PEM certificate") from bad


def _load_private(pem: bytes, passphrase: bytes | None) -> object:
    encrypted = b"ENCRYPTED PRIVATE KEY" in pem
    if encrypted and not passphrase:
        raise KitError(
            "the authority's keys are encrypted: pass the file with the passphrase"
        )
    if passphrase and not encrypted:
        raise KitError(
            "the authority's keys are not encrypted: leave the passphrase out"
        )
    try:
        return serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError) as bad:
        reason = "the passphrase is wrong" if encrypted else "it is no PEM private key"
        raise KitError(f"the authority's key cannot be read: {reason}") from bad
