"""The server's own certificate, made when it first runs: there is no other to begin with."""

import ipaddress
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hotspare.errors import ConfigError

_LASTS = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Where a certificate and its key are."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as browsers and ``openssl x509 -fingerprint`` show it."""
        try:
            parsed = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"The certificate {self.certificate} cannot be read: {error}",
                meaning="The server was not started",
                hint="Mend it; or remove it and its key, and a new one is made",
            ) from error
        return parsed.fingerprint(hashes.SHA256()).hex(":").upper()


def own_certificate(folder: Path, name: str | None = None) -> Certificate:
    """Give the certificate in a folder, made when there is none: for this host's names and loopback.

    Raises ``ConfigError``.
    """
    own = Certificate(folder / "certificate.pem", folder / "key.pem")
    if not own.certificate.exists() or not own.key.exists():
        _make(own, name or socket.gethostname())
    return own


def _make(own: Certificate, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    names: list[x509.GeneralName] = [x509.DNSName(one) for one in dict.fromkeys((name, "localhost"))]
    names += [x509.IPAddress(ipaddress.ip_address(one)) for one in ("127.0.0.1", "::1")]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LASTS)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        own.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        own.key.unlink(missing_ok=True)
        # Nobody else may read the key, not even for the moment in which it is written.
        with os.fdopen(os.open(own.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
        own.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    except OSError as error:
        raise ConfigError(
            f"The server's certificate cannot be written to {own.key.parent}: {error.strerror}",
            meaning="The server was not started",
            hint="Name a folder that this user may write with HOTSPARE_STATE_FOLDER",
        ) from error
