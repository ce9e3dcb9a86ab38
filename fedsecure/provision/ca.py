"""The federation's certificate authority: TLS certificates for aggregators, Flower keys.

EC P-384 root, P-256 leaves; offline: its key lies under ``ca/`` of the folder it was
made in and in no kit. It never sees an encryption key (TRUST.md section 3).
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedsecure.errors import KitError

ROOT_DAYS = 3650
LEAF_DAYS = 90
_BACKDATED = timedelta(minutes=5)  # machines' clocks differ a little


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> tuple[bytes, bytes]:
        """Return certificate and private key as PEM; the key for mode 0600 only."""
        certificate = self.certificate.public_bytes(serialization.Encoding.PEM)
        return certificate, _private_pem(self.key)


def make_authority(name: str, now: datetime) -> Authority:
    """Make a root: P-384, valid ten years, may sign leaves only."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} root")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=ROOT_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA384())
    )
    return Authority(certificate, key)


def read_authority(certificate: bytes, key: bytes) -> Authority:
    """Return the authority of two PEM files.

    Raises
    ------
    KitError
        They cannot be read.
    """
    try:
        private = serialization.load_pem_private_key(key, None)
        found = x509.load_pem_x509_certificate(certificate)
    except (ValueError, TypeError) as bad:
        raise KitError(f"the certificate authority cannot be read: {bad}") from bad
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise KitError("the certificate authority's key is not an EC key")
    return Authority(found, private)


def issue(
    authority: Authority, names: Sequence[str], member: str, now: datetime
) -> tuple[bytes, bytes]:
    """Issue a server certificate; return certificate and key as PEM.

    Parameters
    ----------
    names : sequence of str
        Host names and addresses it is good for.
    member : str
        The member's URN, ``urn:fedsecure:<federation>:<role>:<name>``.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    alternatives = [_alternative(name) for name in names]
    identifier = x509.UniformResourceIdentifier(member)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=LEAF_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([*alternatives, identifier]), critical=False
        )
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                authority.key.public_key()
            ),
            critical=False,
        )
        .sign(authority.key, hashes.SHA384())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _private_pem(key)


def make_supernode_key() -> tuple[bytes, str]:
    """Return a P-384 key for Flower's node authentication.

    The private half in OpenSSH form, as `flower-supernode` reads it; the public half as
    the PEM a SuperLink knows a node by.
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
    """Return the days a PEM certificate is still valid; negative once expired."""
    found = x509.load_pem_x509_certificate(certificate)
    return (found.not_valid_after_utc - now).total_seconds() / 86400


def check_certificate(
    certificate: bytes, root: bytes, host: str, now: datetime | None = None
) -> None:
    """Return only if a certificate is good for `host` now, under this root.

    Raises
    ------
    KitError
        Expired, not valid yet, for another host, or of another federation.
    """
    now = now or datetime.now(UTC)
    leaf = x509.load_pem_x509_certificate(certificate)
    parent = x509.load_pem_x509_certificate(root)
    try:
        leaf.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature) as bad:
        raise KitError("tls.crt was issued by another federation's authority") from bad
    if now >= leaf.not_valid_after_utc:
        raise KitError(
            f"tls.crt expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: "
            "provision the kit again"
        )
    if now < leaf.not_valid_before_utc:
        raise KitError(
            f"tls.crt is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC and "
            f"it is {now:%Y-%m-%d %H:%M}: check this machine's clock"
        )
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    good = names.get_values_for_type(x509.DNSName)
    good += [str(a) for a in names.get_values_for_type(x509.IPAddress)]
    if host not in good:
        raise KitError(f"tls.crt is for {', '.join(good)}, not for {host}")


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
