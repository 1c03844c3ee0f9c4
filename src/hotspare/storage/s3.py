"""Objects in a bucket of any server that speaks Amazon's S3 protocol.

Each object is one PUT, whose length and SHA-256 the server checks (the signature covers the hash of the
body), and whose presence and length are asked for afterwards: a server that answers 200 and keeps nothing is
noticed. Nothing is built on conditional PUTs, on times or on the order of listings.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store
from typing_extensions import Buffer

from hotspare.errors import HotspareError, ObjectNotFound, StorageError
from hotspare.storage.backend import Capabilities, Durability, ObjectInfo
from hotspare.storage.s3_errors import s3_error, untrusted_certificate
from hotspare.storage.s3_settings import S3Settings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

_CALLS_MAX = 32
"""Requests at a time, over all threads."""
_SINGLE_PUT_MAX = 5 * 1000**3
"""Bytes; the protocol's limit is 5 GiB."""
_PART_SIZE = 64 * 1024 * 1024
_LIST_PAGE = 1000
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")


class S3Backend:
    """A store under a prefix of a bucket."""

    durability: Durability = "store"

    def __init__(self, settings: S3Settings) -> None:
        self.url = settings.url
        self._settings = settings
        self._store = _open(settings)
        self._calls = threading.BoundedSemaphore(_CALLS_MAX)

    @cached_property
    def capabilities(self) -> Capabilities:
        """See ``Backend.capabilities``: both are offered; whether the server does them is for the probe."""
        # boto3 takes half a second to import, and few repositories use locks.
        from hotspare.storage.s3_lock import S3Locks  # noqa: PLC0415 - see above

        return Capabilities(conditional_puts=self, locks=S3Locks(self._settings))

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """See ``Backend.put``."""
        views = [memoryview(part).cast("B") for part in parts]
        size = sum(map(len, views))
        with self._call(name):
            obstore.put(
                self._store,
                name,
                _body(views),
                use_multipart=size > _SINGLE_PUT_MAX,
                chunk_size=_PART_SIZE,
                max_concurrency=4,
            )
        self._require_stored(name, size)

    def put_new(self, name: str, parts: Sequence[Buffer]) -> bool:
        """See ``ConditionalPuts.put_new``; sends ``If-None-Match: *``."""
        views = [memoryview(part).cast("B") for part in parts]
        try:
            with self._call(name):
                obstore.put(self._store, name, _body(views), use_multipart=False, mode="create")
        except _ExistsError:
            return False
        self._require_stored(name, sum(map(len, views)))
        return True

    def get(self, name: str) -> bytes:
        """See ``Backend.get``."""
        with self._call(name):
            answer = obstore.get(self._store, name)
            size = answer.meta["size"]
            data = answer.bytes().to_bytes()
        if len(data) != size:
            self._refuse_short(name, size, len(data))
        return data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """See ``Backend.get_range``."""
        if length == 0:
            self._require_within(name, offset)
            return b""
        with self._call(name):
            data = obstore.get_range(self._store, name, start=offset, length=length).to_bytes()
        if len(data) != length:
            raise StorageError(f"{name} in {self.url} ends before byte {offset + length}")
        return data

    def size(self, name: str) -> int:
        """See ``Backend.size``."""
        with self._call(name):
            return obstore.head(self._store, name)["size"]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``Backend.list``; the whole listing is held in memory.

        It is sorted here, because some servers list a folder before its sibling ``folder-x``.
        """
        folder = prefix.rpartition("/")[0] or None
        with self._call(prefix):
            found = [
                ObjectInfo(item["path"], item["size"])
                for page in obstore.list(self._store, folder, chunk_size=_LIST_PAGE)
                for item in page
                if item["path"].startswith(prefix)
            ]
        # A server that lists a name twice, over two pages, is forgiven.
        return iter(sorted(set(found)))

    def delete(self, name: str) -> None:
        """See ``Backend.delete``."""
        try:
            with self._call(name):
                obstore.delete(self._store, name)
        except ObjectNotFound:
            return

    def close(self) -> None:
        """See ``Backend.close``; idle connections end by themselves."""

    def _require_stored(self, name: str, size: int) -> None:
        try:
            stored = self.size(name)
        except ObjectNotFound as error:
            raise StorageError(
                f"{self.url} took {name}, and does not have it",
                meaning="What was being stored is not",
                hint="See the server's log; a server that loses objects is no place for backups",
                may_pass=True,
            ) from error
        if stored != size:
            self._refuse_short(name, size, stored)

    def _require_within(self, name: str, offset: int) -> None:
        if offset > self.size(name):
            raise StorageError(f"{name} in {self.url} ends before byte {offset}")

    def _refuse_short(self, name: str, expected: int, found: int) -> NoReturn:
        raise StorageError(f"{name} in {self.url} has {found} bytes instead of {expected}", may_pass=True)

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        """Bound the calls in flight, and turn the library's errors into ours."""
        with self._calls:
            try:
                yield
            except AlreadyExistsError as error:
                raise _ExistsError(f"{name} in {self.url} is there already") from error
            except (BaseError, OSError, ValueError) as error:
                raise _translate(error, name, self.url) from error


class _ExistsError(StorageError):
    """A conditional PUT found an object."""


def _body(views: list[memoryview]) -> list[memoryview] | bytes:
    return views or b""


def _open(settings: S3Settings) -> S3Store:
    client: ClientConfig = {
        "allow_http": settings.allow_http,
        # Said because the library would also listen to AWS_ALLOW_INVALID_CERTIFICATES.
        "allow_invalid_certificates": False,
        "connect_timeout": timedelta(seconds=min(10, settings.timeout)),
        "timeout": timedelta(seconds=settings.timeout),
        "pool_idle_timeout": timedelta(seconds=30),
        "pool_max_idle_per_host": str(_CALLS_MAX),
    }
    if settings.ca_bundle:
        client["root_certificate"] = settings.ca_bundle.read_bytes()
    config: S3Config = {"region": settings.region, "disable_bulk_delete": True}
    if settings.endpoint:
        config["aws_endpoint_url_s3"] = settings.endpoint
    if settings.access_key_id and settings.secret_access_key:
        config["access_key_id"] = settings.access_key_id
        config["secret_access_key"] = settings.secret_access_key
    if settings.session_token:
        config["session_token"] = settings.session_token
    if settings.checksum:
        config["checksum_algorithm"] = settings.checksum
    return S3Store(
        settings.bucket,
        prefix=settings.prefix or None,
        config=config,
        client_options=client,
        # Asking again is the retry wrapper's, which knows what may be asked twice.
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=settings.timeout)},
    )


def _translate(error: Exception, name: str, url: str) -> HotspareError:
    text = str(error)
    status, code, message = _STATUS.search(text), _CODE.search(text), _MESSAGE.search(text)
    if certificate := _CERTIFICATE.search(text):
        return untrusted_certificate(certificate[1], url)
    if isinstance(error, FileNotFoundError) and not code:
        return ObjectNotFound(f"{name} in {url} is not there")
    if "Name or service not known" in text:
        return StorageError(f"{url}: no such host is known", hint="Look for a typing error in the URL")
    if "redirect without LOCATION" in text:
        return s3_error(301, "PermanentRedirect", "the server says that it is moved", name, url)
    said = f"{code[1]}: {message[1]}" if code and message else _first_line(text)
    return s3_error(int(status[1]) if status else None, code[1] if code else "", said, name, url)


def _first_line(text: str) -> str:
    return text.splitlines()[0].rstrip(": ") if text else "no answer"
