"""Which store a URL means. A new kind of store is one line here and one module beside it."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hotspare.errors import UsageError
from hotspare.storage.backend import Backend
from hotspare.storage.local import LocalBackend
from hotspare.storage.served.client import ServedBackend
from hotspare.storage.wrappers.faults import FaultRules, FaultyBackend
from hotspare.storage.wrappers.retry import RetryBackend, RetryPolicy

_FAULTS = "HOTSPARE_FAULTS"


def open_backend(
    url: str, environment: Mapping[str, str] | None = None, *, retry: RetryPolicy | None = None
) -> Backend:
    """Open the store of a URL; remote ones are asked again when a call fails in a way that may pass.

    Nothing is sent yet. With ``HOTSPARE_FAULTS`` in the environment the store fails on purpose, see
    ``wrappers/faults.py``, and a ``RuntimeWarning`` says so.

    Args:
        url: ``file:///path`` or a plain path, ``s3:https://host/bucket/prefix``, ``s3://bucket/prefix``,
            ``sftp://user@host/path``, or ``ssh://user@host/path`` where our own program serves it.
        environment: credentials and settings of the stores; None for the process's.
        retry: how long calls of remote ones are repeated; None for the usual time.

    Raises:
        UsageError: the URL is of no kind that this version knows, or is malformed.
        ConfigError: the environment cannot be used.
    """
    environment = os.environ if environment is None else environment
    backend = _open(url, environment)
    if faults := environment.get(_FAULTS):
        warnings.warn(f"{_FAULTS} is set: {backend.url} fails on purpose", RuntimeWarning, stacklevel=2)
        backend = FaultyBackend(backend, FaultRules.parse(faults))
    return RetryBackend(backend, retry) if is_remote(url) else backend


def is_remote(url: str) -> bool:
    """Tell whether a store's URL leads over a network."""
    return url.startswith(("s3:", "sftp:", "ssh:", "control:"))


def local_folder(url: str) -> Path | None:
    """Give the folder of a store that is one of this host, else None. Raises ``UsageError``."""
    store = _open(url, os.environ) if not is_remote(url) else None
    return store.folder if isinstance(store, LocalBackend) else None


def plain_url(url: str) -> str:
    """Give a store's URL as an opened one has it: of a folder always ``file://``, and absolute."""
    folder = local_folder(url) if url else None
    return f"file://{folder}" if folder else url


def _open(url: str, environment: Mapping[str, str]) -> Backend:
    if url.startswith("s3:"):
        # The clients of S3 and SFTP take long to import; a local store need not wait for them.
        from hotspare.storage.s3 import S3Backend  # noqa: PLC0415 - see above
        from hotspare.storage.s3_settings import read_s3_settings  # noqa: PLC0415 - see above

        return S3Backend(read_s3_settings(url, environment))
    if url.startswith("sftp:"):
        from hotspare.storage.sftp import SftpBackend  # noqa: PLC0415 - see above

        return SftpBackend(url)
    if url.startswith("ssh:"):
        return ServedBackend.at(url, environment)
    if "://" not in url:
        return LocalBackend(Path(url).absolute())
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc:
        return LocalBackend(Path(unquote(parts.path)))
    raise UsageError(
        f"'{url}' is no place for a repository that this version knows",
        hint="Use a folder (/srv/backup), s3:https://host/bucket/prefix, ssh://user@host/path, or"
        " sftp://user@host/path",
    )
