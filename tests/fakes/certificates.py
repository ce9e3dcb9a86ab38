"""An authority with a server and a client, as PEM files; for TLS on loopback."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def write_certificates(folder: Path) -> Path:
    """Write ca.pem and, for server and client, NAME.pem with NAME.key (mode 0600)."""
    authority = ec.generate_private_key(ec.SECP256R1())
    _write(folder, "ca", "authority", authority, authority)
    for name in ("server", "client"):
        _write(folder, name, name, ec.generate_private_key(ec.SECP256R1()), authority)
    return folder


def _write(
    folder: Path,
    file: str,
    common: str,
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePrivateKey,
) -> None:
    now = datetime.now(UTC)
    is_ca = key is authority
    built = (
        x509.CertificateBuilder()
        .subject_name(_name(common))
        .issuer_name(_name("authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(authority, hashes.SHA256())
    )
    (folder / f"{file}.pem").write_bytes(built.public_bytes(Encoding.PEM))
    secret = folder / f"{file}.key"
    secret.touch(0o600)
    secret.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
