"""A security key in software: makes passkeys and signs with them, rightly or as an attacker would."""

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from webauthn.helpers import bytes_to_base64url

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40
"""Flags of authenticator data (Web Authentication Level 3, 6.1)."""


@dataclass
class Authenticator:
    """One passkey, for whatever site asks."""

    origin: str
    rp_id: str = "hotspare.example"
    flags: int = PRESENT | VERIFIED
    counter: int = 0
    """Signatures so far; it grows by one with each unless it is 0."""
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    handle: str = ""

    def create(self, options: dict[str, Any]) -> dict[str, Any]:
        """Make the passkey, as ``navigator.credentials.create`` does."""
        self.handle = options["user"]["id"]
        client = self._client("webauthn.create", options)
        public = self.key.public_key().public_numbers()
        cose = cbor2.dumps(
            {1: 2, 3: -7, -1: 1, -2: public.x.to_bytes(32, "big"), -3: public.y.to_bytes(32, "big")}
        )
        attested = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + cose
        data = self._data(ATTESTED) + attested
        made = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        return self._credential(clientDataJSON=client, attestationObject=made)

    def get(self, options: dict[str, Any]) -> dict[str, Any]:
        """Sign, as ``navigator.credentials.get`` does."""
        if self.counter:
            self.counter += 1
        client, data = self._client("webauthn.get", options), self._data()
        signature = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        credential = self._credential(clientDataJSON=client, authenticatorData=data, signature=signature)
        credential["response"]["userHandle"] = self.handle
        return credential

    def _client(self, kind: str, options: dict[str, Any]) -> bytes:
        said = {"type": kind, "challenge": options["challenge"], "origin": self.origin, "crossOrigin": False}
        return json.dumps(said).encode()

    def _data(self, flags: int = 0) -> bytes:
        site = hashlib.sha256(self.rp_id.encode()).digest()
        return site + bytes([self.flags | flags]) + self.counter.to_bytes(4, "big")

    def _credential(self, **response: bytes) -> dict[str, Any]:
        number = bytes_to_base64url(self.id)
        fields: dict[str, Any] = {name: bytes_to_base64url(value) for name, value in response.items()}
        return {
            "id": number,
            "rawId": number,
            "type": "public-key",
            "response": fields,
            "clientExtensionResults": {},
        }
