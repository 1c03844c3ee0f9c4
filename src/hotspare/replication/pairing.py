"""Making two hosts known to each other: what the one prints is typed in at the other.

The token names an agent, the fingerprint of its certificate, and a secret that is good once and for a short
time. So each side knows whom it speaks to, before it trusts it.
"""

import base64
import binascii
import hmac
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING

import msgspec

from hotspare.errors import PermissionRefused, UsageError
from hotspare.replication.link.client import Client
from hotspare.replication.link.server import Caller
from hotspare.replication.link.tls import fingerprint_of
from hotspare.replication.link.wire import LOCAL, STRANGER, Nothing, Verb
from hotspare.replication.model import Peer

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent

_OFFER_SECONDS = 600.0


class Token(msgspec.Struct, frozen=True, array_like=True):
    """What is carried from one host to the other by people."""

    address: str
    port: int
    fingerprint: str
    secret: str

    def encode(self) -> str:
        """Give one word without blanks."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Token":
        """Read it. Raises ``UsageError``."""
        try:
            return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=cls)
        except (ValueError, binascii.Error) as error:
            raise UsageError(
                "That is no token of pairing",
                meaning="Nothing was done",
                hint='Run "hotspare replica pair" on the other host and copy the word that it prints',
            ) from error


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """Be ready to be paired."""

    address: str
    """Where the other host reaches this one."""


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """The token, see ``Token``."""

    token: str


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a stranger to be trusted."""

    secret: str
    peer: Peer
    """Who asks. Without an address, the one that it comes from is taken."""
    authority: bytes


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """The one who was asked."""

    peer: Peer
    authority: bytes


class Accept(msgspec.Struct, frozen=True, kw_only=True):
    """Pair with the host whose token this is."""

    token: str
    address: str
    """Where the other host reaches this one."""


OFFER = Verb("pair.offer", Offer, Offered, LOCAL)
ACCEPT = Verb("pair.accept", Accept, Peer, LOCAL)
JOIN = Verb("pair.join", Join, Joined, STRANGER)
LIST = Verb("pair.list", Nothing, list[Peer], LOCAL)


def register(agent: "Agent") -> None:
    """Let an agent be paired."""
    pairing = _Pairing(agent)
    agent.services.register(OFFER, pairing.offer)
    agent.services.register(ACCEPT, pairing.accept)
    agent.services.register(JOIN, pairing.join)
    agent.services.register(LIST, lambda _caller, _asked, _body: agent.identity.peers())


class _Pairing:
    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._secret = ""
        self._until = 0.0

    def offer(self, _caller: Caller, asked: Offer, _body: bytes) -> Offered:
        self._secret = os.urandom(16).hex()
        self._until = time.monotonic() + _OFFER_SECONDS
        identity = self._agent.identity
        token = Token(asked.address, self._agent.port, identity.fingerprint, self._secret)
        return Offered(token=token.encode())

    def join(self, _caller: Caller, asked: Join, _body: bytes) -> Joined:
        secret, self._secret = self._secret, ""  # one attempt
        if not secret or time.monotonic() > self._until or not hmac.compare_digest(secret, asked.secret):
            raise PermissionRefused(
                "The token is not good any more",
                meaning="The hosts were not paired",
                hint='Run "hotspare replica pair" there again: a token is good once, for 10 minutes',
            )
        self._agent.identity.trust(asked.peer, asked.authority)
        return Joined(peer=self._me(""), authority=self._agent.identity.authority)

    def accept(self, _caller: Caller, asked: Accept, _body: bytes) -> Peer:
        token = Token.decode(asked.token)
        join = Join(
            secret=token.secret, peer=self._me(asked.address), authority=self._agent.identity.authority
        )
        with _Stranger(token) as stranger:
            joined = stranger.call(JOIN, join)
        peer: Peer = msgspec.structs.replace(joined.peer, address=token.address, port=token.port)
        self._agent.identity.trust(peer, joined.authority)
        return peer

    def _me(self, address: str) -> Peer:
        identity = self._agent.identity
        return Peer(id=identity.id, name=identity.name, address=address, port=self._agent.port)


class _Stranger(Client):
    """Asks an agent that does not know us yet, of which we know the certificate's fingerprint."""

    def __init__(self, token: Token) -> None:
        super().__init__(f"The agent at {token.address}:{token.port}")
        self._token = token

    def _connect(self, timeout: float) -> socket.socket:
        plain = socket.create_connection((self._token.address, self._token.port), timeout)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # it is the fingerprint that counts
        try:
            secured = context.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise
        certificate = secured.getpeercert(binary_form=True) or b""
        if not hmac.compare_digest(fingerprint_of(certificate), self._token.fingerprint):
            secured.close()
            raise PermissionRefused(
                f"The agent at {self._token.address} is not the one that made the token",
                meaning="The hosts were not paired, and nothing was sent",
                hint="Somebody else may answer at that address",
            )
        return secured
