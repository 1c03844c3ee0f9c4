"""What is put around a store that a URL names."""

from pathlib import Path

import pytest

from hotspare.errors import ConfigError, StorageError
from hotspare.storage.local import LocalBackend
from hotspare.storage.registry import open_backend
from hotspare.storage.wrappers.faults import FaultyBackend
from hotspare.storage.wrappers.retry import RetryBackend

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}


def test_a_local_store_is_asked_once(tmp_path: Path) -> None:
    assert isinstance(open_backend(str(tmp_path), {}), LocalBackend)


@pytest.mark.parametrize(
    "url", ["s3:https://host/bucket/prefix", "s3://bucket/prefix", "sftp://me@host/srv/x"]
)
def test_a_remote_store_is_asked_again(url: str) -> None:
    backend = open_backend(url, KEYS)
    assert isinstance(backend, RetryBackend)
    assert backend.url == url
    backend.close()


def test_faults_are_asked_for_and_announced(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="HOTSPARE_FAULTS is set: .* fails on purpose"):
        backend = open_backend(str(tmp_path), {"HOTSPARE_FAULTS": "seed=1,error=1"})
    assert isinstance(backend, FaultyBackend)
    with pytest.raises(StorageError, match="on purpose"):
        backend.put("x", [b"x"])


def test_faults_lie_below_the_retries() -> None:
    with pytest.warns(RuntimeWarning):
        backend = open_backend("s3://bucket", {**KEYS, "HOTSPARE_FAULTS": "error=0.1"})
    assert isinstance(backend, RetryBackend)
    assert isinstance(backend.inner, FaultyBackend)


def test_faults_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning), pytest.raises(ConfigError, match="is no rule"):
        open_backend(str(tmp_path), {"HOTSPARE_FAULTS": "everything"})
