"""Where an S3 store is and how to reach it: its URL, and what the environment says.

Two forms of URL: ``s3:https://host[:port]/bucket/prefix`` for any server, and ``s3://bucket/prefix`` for the
one that ``AWS_ENDPOINT_URL`` names, else Amazon's. Credentials come from the environment alone, because
a URL ends up in logs, shell histories and process lists.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from hotspare.errors import ConfigError, UsageError

_EXAMPLE = "s3:https://host/bucket/prefix or s3://bucket/prefix"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_PREFIX = re.compile(r"(?:[A-Za-z0-9._-]+/)*[A-Za-z0-9._-]+|")
_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
FILE_VARIABLES = {
    f"HOTSPARE_S3_{name}_FILE": f"AWS_{name}"
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
}
"""Variables that name files with credentials, and those that hold such a credential itself."""
_DEFAULT_TIMEOUT = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """One place in one bucket, and the right to use it."""

    url: str
    endpoint: str | None
    """Base URL of the server, without the bucket; None for Amazon's of the region."""
    bucket: str
    prefix: str
    """Without slashes at its ends; may be empty."""
    region: str
    access_key_id: str | None = None
    """None to ask the host's role (Amazon only)."""
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    ca_bundle: Path | None = None
    """PEM file of certificates to trust beside the system's."""
    allow_http: bool = False
    """Whether the endpoint is reached without encryption."""
    timeout: int = _DEFAULT_TIMEOUT
    """Seconds that one request may take, the transfer of its object included."""
    checksum: Literal["SHA256"] | None = "SHA256"
    """The additional checksum that is sent with each PUT."""


def read_s3_settings(url: str, environment: Mapping[str, str]) -> S3Settings:
    """Resolve a URL and the environment.

    Raises:
        UsageError: the URL is none of ours, holds credentials, or asks for plain HTTP to another host.
        ConfigError: a variable cannot be used, or credentials are missing.
    """
    endpoint, place = _split(url, environment)
    bucket, _, prefix = place.strip("/").partition("/")
    prefix = prefix.strip("/")
    if not _BUCKET.fullmatch(bucket) or not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/")):
        raise UsageError(
            f"'{url}' names no bucket and prefix that could be used",
            hint=f"Write {_EXAMPLE}, with letters, digits, '.', '_' and '-'",
        )
    allow_http = endpoint is not None and endpoint.startswith("http:")
    if endpoint and allow_http:
        _require_http_is_meant(endpoint, environment)
    access_key_id = _secret("ACCESS_KEY_ID", environment)
    secret_access_key = _secret("SECRET_ACCESS_KEY", environment)
    _require_credentials(access_key_id, secret_access_key, endpoint, environment)
    return S3Settings(
        url=f"s3:{endpoint}/{place.strip('/')}" if url.startswith("s3:http") else f"s3://{place.strip('/')}",
        endpoint=endpoint,
        bucket=bucket,
        prefix=prefix,
        region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
        session_token=_secret("SESSION_TOKEN", environment),
        ca_bundle=_ca_bundle(environment),
        allow_http=allow_http,
        timeout=_timeout(environment),
        checksum=_checksum(environment),
    )


def _split(url: str, environment: Mapping[str, str]) -> tuple[str | None, str]:
    """Give the endpoint and ``bucket/prefix``."""
    if url.startswith("s3://"):
        parts = urlsplit(url)
        _refuse_extras(parts)
        return _endpoint_of_environment(environment), parts.netloc + parts.path
    parts = urlsplit(url.removeprefix("s3:"))
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(f"'{_without_user(url)}' is no URL of an S3 store", hint=f"Write {_EXAMPLE}")
    _refuse_extras(parts)
    return f"{parts.scheme}://{parts.netloc}", parts.path


def _endpoint_of_environment(environment: Mapping[str, str]) -> str | None:
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if value := environment.get(variable):
            parts = urlsplit(value)
            if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
                raise ConfigError(
                    f"{variable} is no URL of a server", hint="Give it https://host or https://host:port"
                )
            return value.rstrip("/")
    return None


def _refuse_extras(parts: SplitResult) -> None:
    if "@" in parts.netloc:
        raise UsageError(
            "The URL of the S3 store holds credentials",
            meaning="It was not used, because URLs end up in logs",
            hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and take them out of the URL",
        )
    if parts.query or parts.fragment:
        raise UsageError(
            f"The URL of the S3 store goes on after its path: ?{parts.query}", hint=f"Write {_EXAMPLE}"
        )


def _without_user(url: str) -> str:
    before, at, after = url.rpartition("@")
    return f"{before.partition(':')[0]}:...@{after}" if at else url


def _require_http_is_meant(endpoint: str, environment: Mapping[str, str]) -> None:
    host = urlsplit(endpoint).hostname or ""
    if _is_loopback(host) or environment.get("HOTSPARE_S3_ALLOW_HTTP") == "1":
        return
    raise UsageError(
        f"{endpoint} would be reached without encryption",
        meaning="Nothing was sent",
        hint="Use https, or set HOTSPARE_S3_ALLOW_HTTP=1 if the network between is trusted",
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _secret(name: str, environment: Mapping[str, str]) -> str | None:
    """Give the content of the file that ``HOTSPARE_S3_<name>_FILE`` names, else ``AWS_<name>``."""
    variable = f"HOTSPARE_S3_{name}_FILE"
    if path := environment.get(variable):
        try:
            value = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{variable} names {path}, which cannot be read",
                hint="Name a file that this user may read and that holds nothing else",
            ) from error
        if not value:
            raise ConfigError(f"{variable} names {path}, which is empty")
        return value
    return environment.get(f"AWS_{name}") or None


def _require_credentials(
    access_key_id: str | None, secret: str | None, endpoint: str | None, environment: Mapping[str, str]
) -> None:
    if (access_key_id is None) != (secret is None):
        missing = "AWS_ACCESS_KEY_ID" if access_key_id is None else "AWS_SECRET_ACCESS_KEY"
        raise ConfigError(f"{missing} is not set, but the other half of the key is")
    if access_key_id is None and endpoint is not None and not any(map(environment.get, _ROLES)):
        raise ConfigError(
            f"There are no credentials for {endpoint}",
            meaning="Nothing was sent",
            hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or HOTSPARE_S3_ACCESS_KEY_ID_FILE and HOTSPARE_S3_SECRET_ACCESS_KEY_FILE",
        )


def _ca_bundle(environment: Mapping[str, str]) -> Path | None:
    for variable in ("HOTSPARE_CA_BUNDLE", "AWS_CA_BUNDLE"):
        if value := environment.get(variable):
            path = Path(value)
            if not path.is_file():
                raise ConfigError(f"{variable} names {path}, which is no file", hint="Name a PEM file")
            return path
    return None


def _timeout(environment: Mapping[str, str]) -> int:
    text = environment.get("HOTSPARE_S3_TIMEOUT") or str(_DEFAULT_TIMEOUT)
    if not text.isdecimal() or not 1 <= int(text) <= 86_400:
        raise ConfigError(f"HOTSPARE_S3_TIMEOUT is '{text}'", hint="Give it whole seconds, 1 to 86400")
    return int(text)


def _checksum(environment: Mapping[str, str]) -> Literal["SHA256"] | None:
    match environment.get("HOTSPARE_S3_CHECKSUM", "").lower():
        case "" | "sha256":
            return "SHA256"
        case "none":
            return None
        case other:
            raise ConfigError(f"HOTSPARE_S3_CHECKSUM is '{other}'", hint="Give it sha256 or none")
