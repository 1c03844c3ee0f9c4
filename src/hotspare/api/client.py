"""Asking a server, as ``hotspare --server`` does: documents come back as they do from commands."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from hotspare.errors import ConfigError, HotspareError, ServerUnavailable

Document = dict[str, Any]
_TIMEOUT = 90.0
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Client:
    """One server."""

    url: str
    token: str = field(repr=False)
    certificate: Path | None = None
    """The server's own certificate, or that of who signed it; None for those that this host trusts."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
        if parts.scheme != "https" and not (parts.scheme == "http" and local):
            raise ConfigError(
                f"{self.url!r} is no address of a server",
                meaning="Nothing was done; the token was not sent",
                hint="Write it like https://backup.example:8460; http is for this host only",
            )

    def get(self, *path: str, **query: str | int | None) -> Document:
        """Get a document. Raises the server's errors as ours, and ``ServerUnavailable``."""
        return self._ask("GET", path, query, None)

    def post(self, *path: str, body: Mapping[str, Any] | None = None, key: str | None = None) -> Document:
        """Have something done; the same ``key`` twice does it once. Raises as ``get``."""
        return self._ask("POST", path, {}, body if body is not None else {}, key)

    def put(self, *path: str, body: Mapping[str, Any]) -> Document:
        """Put something in its place; twice is the same as once. Raises as ``get``."""
        return self._ask("PUT", path, {}, body)

    def all(self, noun: str, **query: str | int | None) -> Document:
        """Get a whole list, page by page. Raises as ``get``."""
        document = self.get(noun, limit=_PAGE, **query)
        while document.get("next"):
            more = self.get(noun, limit=_PAGE, after=document["next"], **query)
            more[noun] = document[noun] + more[noun]
            document = more
        document.pop("next", None)
        return document

    def _ask(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, str | int | None],
        body: Mapping[str, Any] | None,
        key: str | None = None,
    ) -> Document:
        said = urlencode({name: value for name, value in query.items() if value is not None})
        url = f"{self.url.rstrip('/')}/api/v1/{'/'.join(quote(part, safe='') for part in path)}"
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key:
            headers["Idempotency-Key"] = key
        request = urllib.request.Request(  # noqa: S310 - its scheme was looked at
            f"{url}?{said}" if said else url,
            None if body is None else json.dumps(body).encode(),
            headers,
            method=method,
        )
        try:
            opener = urllib.request.build_opener(
                urllib.request.HTTPSHandler(context=self._trust()), _NoRedirects()
            )
            with opener.open(request, timeout=_TIMEOUT) as answer:
                return self._document(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise self._error(error.read()) from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise ServerUnavailable(
                f"{self.url} does not answer: {reason}",
                meaning="What the server was doing goes on",
                hint="Check --server and the certificate (HOTSPARE_SERVER_CERTIFICATE), and whether it runs",
            ) from error

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=str(self.certificate) if self.certificate else None)
        except OSError as error:
            raise ConfigError(
                f"The certificate {self.certificate} cannot be read: {error.strerror or error}",
                meaning="Nothing was done",
                hint="Copy certificate.pem of the server's state folder here",
            ) from error

    def _document(self, content: bytes) -> Document:
        try:
            document: Document = json.loads(content)
        except ValueError as error:
            raise self._no_answer() from error
        if not isinstance(document, dict) or "type" not in document:
            raise self._no_answer()
        return document

    def _error(self, content: bytes) -> HotspareError:
        problem = self._document(content)
        if "detail" not in problem:
            return self._no_answer()
        kind = _KINDS.get(str(problem.get("code")), HotspareError)
        texts = {name: str(problem.get(name, "")) for name in ("meaning", "hint")}
        return kind(str(problem["detail"]), **texts)

    def _no_answer(self) -> ServerUnavailable:
        return ServerUnavailable(
            f"What {self.url} answers is not what a Hotspare server does",
            meaning="Nothing is known of what was done",
            hint="Check --server",
        )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token is for one server only, and ours sends nobody elsewhere."""

    def redirect_request(self, *_arguments: object) -> None:
        return None


def _kinds(kind: type[HotspareError]) -> dict[str, type[HotspareError]]:
    found = {kind.code: kind} if "code" in vars(kind) else {}
    for below in kind.__subclasses__():
        found |= _kinds(below)
    return found


_KINDS = _kinds(HotspareError)
