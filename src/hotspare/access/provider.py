"""An OpenID provider: somebody else's server that tells who somebody is.

The flow is the authorization code flow with PKCE. Section numbers are those of OpenID Connect Core 1.0
(https://openid.net/specs/openid-connect-core-1_0.html) unless another document is named.
"""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import httpx
import msgspec
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from hotspare.access.roles import ANY, Grant, Role
from hotspare.errors import ConfigError, LoginRefused, ProviderUnavailable

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a key pair of the provider. Never "none", and no HMAC, whose key clients have as well."""
_LEEWAY = 60
"""Seconds by which clocks may differ."""
_PATIENCE = 10.0
"""Seconds."""


class RoleByClaim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A role, within a scope, of those whose claim has a value, or has it in a list."""

    claim: str
    value: str
    role: Role
    repository: str = ANY
    platform: str = ANY
    tag: str = ANY

    @property
    def grant(self) -> Grant:
        """What it gives."""
        return Grant(role=self.role, repository=self.repository, platform=self.platform, tag=self.tag)


class ProviderFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of a provider, in TOML."""

    name: str
    """As the login page has it: "Log in with Example"."""
    issuer: str
    client_id: str
    client_secret_file: str
    certificate_file: str | None = None
    """Whom to believe about the provider's certificate; else those that the system does."""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "preferred_username"
    """Holds what users are called here."""
    make_users: bool = False
    """Whether somebody who comes for the first time is made a user; else an admin has to do so before."""
    roles: tuple[RoleByClaim, ...] = ()
    """What users may, found out at each login; without any, what an admin has given them."""


class _Metadata(msgspec.Struct, frozen=True):
    """What a provider says of itself (OpenID Connect Discovery 1.0, 3), as far as it is used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


@dataclass(frozen=True, slots=True)
class Begun:
    """What a login that was begun is known by, at the provider and when it comes back."""

    state: str
    nonce: str
    verifier: str
    """Of PKCE (RFC 7636)."""
    redirect: str
    """Where the provider sends the browser."""


def read_provider(path: Path) -> "Provider":
    """Read the file that says who the provider is. Raises ``ConfigError``; asks the provider nothing."""
    try:
        said = msgspec.toml.decode(path.read_bytes(), type=ProviderFile)
        secret = Path(said.client_secret_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"{path}, which says who the identity provider is, cannot be used: {error}",
            meaning="Nothing was done",
            hint='See "Single sign-on" in docs/console.md for what it has to hold',
        ) from error
    if not _is_safe(said.issuer) or "openid" not in said.scopes or not secret:
        raise ConfigError(
            f"{path}, which says who the identity provider is, cannot be used",
            meaning="Nothing was done",
            hint='Its issuer begins with https://, its scopes have "openid", and its secret is not empty',
        )
    return Provider(said, secret)


class Provider:
    """A provider that can be asked. Safe for several threads."""

    def __init__(self, said: ProviderFile, secret: str) -> None:
        self.said = said
        self._secret = secret

    def address(self, begun: Begun) -> str:
        """Give where the browser has to go to log in (3.1.2.1). Raises ``ProviderUnavailable``."""
        metadata = self._metadata()
        with self._client(metadata, begun.redirect) as client:
            made, _ = client.create_authorization_url(
                metadata.authorization_endpoint,
                state=begun.state,
                nonce=begun.nonce,
                code_verifier=begun.verifier,
            )
        return str(made)

    def end_address(self, back: str) -> str | None:
        """Give where the browser has to go to log out (RP-Initiated Logout 1.0); None for nowhere.

        Raises ``ProviderUnavailable``.
        """
        endpoint = self._metadata().end_session_endpoint
        if endpoint is None:
            return None
        query = urlencode({"client_id": self.said.client_id, "post_logout_redirect_uri": back})
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    def claims(self, code: str, begun: Begun) -> dict[str, Any]:
        """Give what the provider says of who has logged in there (3.1.3, 5.3).

        Raises:
            LoginRefused: it does not take the code, or what it says is not as it has to be.
            ProviderUnavailable: it does not answer.
        """
        metadata = self._metadata()
        try:
            with self._client(metadata, begun.redirect) as client:
                token = client.fetch_token(
                    metadata.token_endpoint,
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=begun.verifier,
                )
        except OAuthError as error:
            raise _refused(f"{self.said.name} does not take its own code: {error.error}") from error
        except (httpx.HTTPError, ValueError) as error:
            raise self._unavailable(error) from error
        if not isinstance(token.get("id_token"), str):
            raise _refused(f"{self.said.name} does not say who it is")
        claims = self.verified(token["id_token"], self._json(metadata.jwks_uri), begun.nonce)
        wanted = {self.said.name_claim, *(rule.claim for rule in self.said.roles)}
        if metadata.userinfo_endpoint is None or wanted <= claims.keys():
            return claims
        more = self._json(metadata.userinfo_endpoint, f"Bearer {token.get('access_token')}")
        if more.get("sub") != claims["sub"]:  # 5.3.2
            raise _refused(f"{self.said.name} speaks of two different people")
        return {**more, **claims}

    def verified(self, token: str, keys: dict[str, Any], nonce: str) -> dict[str, Any]:
        """Give the claims of an ID token that is good for this login (3.1.3.7).

        Args:
            token: three parts of base64url.
            keys: JSON Web Key Set of the provider.
            nonce: which this login was begun with.

        Raises:
            LoginRefused: signature, issuer, audience, expiry or nonce are wrong.
        """
        rules = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY,
            iss={"essential": True, "value": self.said.issuer},
            aud={"essential": True, "value": self.said.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            claims = jwt.decode(
                token, KeySet.import_key_set(cast("Any", keys)), algorithms=list(_ALGORITHMS)
            ).claims
            rules.validate(claims)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise _refused(f"What {self.said.name} says cannot be believed: {error}") from error
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if (several or "azp" in claims) and claims.get("azp") != self.said.client_id:
            raise _refused(f"What {self.said.name} says was meant for another program")
        return claims

    def _client(self, metadata: _Metadata, redirect: str) -> OAuth2Client:
        methods = metadata.token_endpoint_auth_methods_supported
        basic = "client_secret_basic" in methods or "client_secret_post" not in methods
        return OAuth2Client(
            self.said.client_id,
            self._secret,
            token_endpoint_auth_method="client_secret_basic" if basic else "client_secret_post",
            scope=" ".join(self.said.scopes),
            redirect_uri=redirect,
            code_challenge_method="S256",
            timeout=_PATIENCE,
            verify=self.said.certificate_file or True,
        )

    def _metadata(self) -> _Metadata:
        """Ask the provider about itself (OpenID Connect Discovery 1.0, 4): each time, as it may be down."""
        found = self._json(f"{self.said.issuer.rstrip('/')}/.well-known/openid-configuration")
        try:
            metadata = msgspec.convert(found, _Metadata)
        except msgspec.ValidationError as error:
            raise self._unavailable(error) from error
        ends = (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri)
        more = [one for one in (metadata.userinfo_endpoint, metadata.end_session_endpoint) if one]
        if metadata.issuer != self.said.issuer or not all(_is_safe(one) for one in (*ends, *more)):
            raise self._unavailable("it says that it is another, or has addresses without TLS")
        return metadata

    def _json(self, url: str, authorization: str | None = None) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        if authorization:
            headers["Authorization"] = authorization
        verify = self.said.certificate_file or True
        try:
            answer = httpx.get(url, headers=headers, timeout=_PATIENCE, verify=verify)
            return msgspec.json.decode(answer.raise_for_status().content, type=dict[str, Any])
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, why: object) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"{self.said.name} does not answer as it should: {why}",
            meaning="Nothing was done; who has a password here can log in with it",
            hint="Try again later, or log in with name and password",
        )


def _is_safe(url: str) -> bool:
    """Tell whether a URL is one over TLS, or of this host."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return bool(parts.hostname)
    try:
        return parts.scheme == "http" and ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _refused(what: str) -> LoginRefused:
    return LoginRefused(what, meaning="Nothing was done", hint="Begin again, or ask an admin")
