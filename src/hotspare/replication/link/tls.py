"""Who is who: each agent has a small authority of its own, and trusts those of the agents it was paired with.

The same certificates are used between agents and, by QEMU, for the disks. Their names are ids of agents,
never addresses, so that a host may move; and they do not run out, so that no clock matters.
"""

import os
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hotspare.errors import MachineNotFound, UsageError
from hotspare.replication.kept import write_struct
from hotspare.replication.model import Peer
from hotspare.whole_file import replace_file

_FROM = datetime(2020, 1, 1, tzinfo=UTC)
_UNTIL = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # "no well-defined expiration date", RFC 5280


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """Who this agent is."""

    id: str
    name: str


class Identity:
    """This agent's certificates, and the agents that it trusts.

    Attributes:
        id: stands in its certificate.
        name: what people call this host.
    """

    def __init__(self, folder: Path, me: Named) -> None:
        self.folder = folder
        self.id = me.id
        self.name = me.name

    @classmethod
    def open(cls, folder: Path, name: str = "") -> Self:
        """Open the identity that is kept in a folder, or make one.

        Args:
            folder: where it is; only root may look inside.
            name: what people call this host, if it is made; empty for its host name.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = folder / "identity.json"
        if not kept.exists():
            _make_certificates(folder, me := Named(id=os.urandom(8).hex(), name=name or os.uname().nodename))
            write_struct(kept, me)  # the last, so that what is there is whole
        return cls(folder, msgspec.json.decode(kept.read_bytes(), type=Named))

    @property
    def authority(self) -> bytes:
        """The certificate of its authority, for those who are to trust it (PEM)."""
        return (self.folder / "ca-cert.pem").read_bytes()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its own certificate."""
        return fingerprint_of(ssl.PEM_cert_to_DER_cert((self.folder / "host-cert.pem").read_text()))

    # Those that are trusted

    def trust(self, peer: Peer, authority: bytes) -> None:
        """Trust an agent from now on. Raises ``UsageError`` for what is no certificate of its own."""
        if peer.id == self.id:
            raise UsageError("A host cannot be paired with itself", meaning="Nothing was changed")
        _check_peer(peer, authority)
        folder = self._peer_folder(peer.id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(folder / "ca-cert.pem", authority)
        write_struct(folder / "peer.json", peer)

    def peers(self) -> list[Peer]:
        """List the agents that are trusted, by name."""
        found = [
            msgspec.json.decode(kept.read_bytes(), type=Peer)
            for kept in (self.folder / "peers").glob("*/peer.json")
        ]
        return sorted(found, key=lambda peer: peer.name)

    def peer(self, name: str) -> Peer:
        """Find one by id or name. Raises ``MachineNotFound``."""
        for peer in self.peers():
            if name in {peer.id, peer.name}:
                return peer
        raise MachineNotFound(
            f"This host has not been paired with a host {name!r}",
            meaning="Nothing was done",
            hint='See "hotspare replica pair --help"',
        )

    def authority_of(self, peer: str) -> bytes:
        """Give the certificate of the authority of an agent that is trusted, by its id."""
        return (self._peer_folder(peer) / "ca-cert.pem").read_bytes()

    def _peer_folder(self, peer: str) -> Path:
        return self.folder / "peers" / peer

    # For connections

    def server_context(self) -> ssl.SSLContext:
        """Give what an end that is connected to needs.

        A caller without certificate gets in, and may do nothing but be paired; one with a certificate that
        we do not trust does not.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.folder / "host-cert.pem", self.folder / "host-key.pem")
        context.verify_mode = ssl.CERT_OPTIONAL
        authorities = [self.authority, *(self.authority_of(peer.id) for peer in self.peers())]
        context.load_verify_locations(cadata=b"".join(authorities).decode())
        return context

    def client_context(self, peer: str) -> ssl.SSLContext:
        """Give what connects to an agent that is trusted; ``server_hostname`` is its id.

        Also good for NBD connections to disks that it serves.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.folder / "host-cert.pem", self.folder / "host-key.pem")
        authority = self.authority if peer == self.id else self.authority_of(peer)
        context.load_verify_locations(cadata=authority.decode())
        return context

    def write_qemu_credentials(self, folder: Path, *, trusted: list[str], server: bool) -> None:
        """Write a folder as QEMU's ``tls-creds-x509`` object wants it.

        Args:
            folder: made if it is not there; who runs QEMU must be let in by the caller.
            trusted: ids of the agents whose certificates are accepted, beside our own.
            server: for the end that is connected to.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # QEMU wants to find the issuer of its own certificate there as well.
        authorities = [self.authority, *(self.authority_of(one) for one in trusted if one != self.id)]
        replace_file(folder / "ca-cert.pem", b"".join(authorities))
        role = "server" if server else "client"
        for part in ("cert", "key"):
            content = (self.folder / f"host-{part}.pem").read_bytes()
            replace_file(folder / f"{role}-{part}.pem", content)


def fingerprint_of(certificate: bytes) -> str:
    """Give the SHA-256 of a certificate (DER), in hexadecimal."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(certificate)
    return digest.finalize().hex()


def id_in(certificate: bytes) -> str:
    """Give the id of the agent that a certificate (DER) is of; empty when it is none of ours."""
    names = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _check_peer(peer: Peer, authority: bytes) -> None:
    try:
        certificate = x509.load_pem_x509_certificate(authority)
    except ValueError as error:
        raise UsageError(
            "What the other host sent is no certificate", meaning="Nothing was changed"
        ) from error
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not peer.id.isalnum() or not names or names[0].value != f"authority of {peer.id}":
        raise UsageError("The other host's certificate is not its own", meaning="Nothing was changed")


def _make_certificates(folder: Path, me: Named) -> None:
    authority_key, host_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = _name(f"authority of {me.id}")
    authority = (
        _certificate(issuer, issuer, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        # A host that is trusted may vouch for itself only, not for other hosts.
        .add_extension(
            x509.NameConstraints(permitted_subtrees=[x509.DNSName(me.id)], excluded_subtrees=None),
            critical=True,
        )
        .sign(authority_key, hashes.SHA256())
    )
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    host = (
        _certificate(_name(me.id), issuer, host_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(me.id)]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    for role, certificate in (("ca", authority), ("host", host)):
        replace_file(folder / f"{role}-cert.pem", certificate.public_bytes(serialization.Encoding.PEM))
    private = host_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    replace_file(folder / "host-key.pem", private)  # the authority's is not needed again, so it is not kept


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
