"""The probe tells what a store does; servers that only pretend are caught."""

import secrets
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hotspare.errors import ObjectNotFound, PermissionRefused, StorageError
from hotspare.storage.local import LocalBackend
from hotspare.storage.probe import StoreTraits, probe_store
from hotspare.storage.s3 import S3Backend
from hotspare.storage.s3_settings import read_s3_settings
from hotspare.storage.sftp import SftpBackend
from hotspare.storage.wrappers.faults import FaultRules, FaultyBackend
from tests.storage.servers import Rclone, S3Server, Seaweed, Sshd


def open_s3(server: S3Server, bucket: str) -> S3Backend:
    url = server.url(f"{bucket}/{secrets.token_hex(6)}")
    return S3Backend(read_s3_settings(url, server.environment))


def test_a_folder(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)

    assert probe_store(backend, try_lock=True) == StoreTraits(
        read_after_write=True,
        list_after_write=True,
        conditional_put=None,
        object_lock=None,
        durability="fsync",
    )
    assert list(backend.list("")) == []


def test_an_sftp_server(sshd: Sshd, tmp_path: Path) -> None:
    backend = SftpBackend(sshd.url(tmp_path / "store"))

    assert probe_store(backend) == StoreTraits(
        read_after_write=True,
        list_after_write=True,
        conditional_put=None,
        object_lock=None,
        durability="fsync",
    )
    assert list(backend.list("")) == []
    backend.close()


def test_a_server_that_keeps_its_word(seaweed: Seaweed) -> None:
    backend = open_s3(seaweed, "locked")

    assert probe_store(backend, try_lock=True, lock_seconds=7) == StoreTraits(
        read_after_write=True,
        list_after_write=True,
        conditional_put=True,
        object_lock=True,
        durability="store",
    )
    assert list(backend.list("")) == []


def test_a_bucket_without_locks(seaweed: Seaweed) -> None:
    traits = probe_store(open_s3(seaweed, "plain"), try_lock=True, lock_seconds=3)

    assert traits.conditional_put is True
    assert traits.object_lock is False


def test_locks_are_tried_only_when_asked_for(seaweed: Seaweed) -> None:
    assert probe_store(open_s3(seaweed, "locked")).object_lock is None


def test_a_server_that_pretends_is_caught(rclone: Rclone) -> None:
    backend = open_s3(rclone, "locked")
    puts = backend.capabilities.conditional_puts
    assert puts
    assert puts.put_new("x", [b"1"])
    assert puts.put_new("x", [b"2"]), "else this server proves nothing"
    backend.delete("x")

    traits = probe_store(backend, try_lock=True, lock_seconds=3)
    assert traits.read_after_write
    assert traits.conditional_put is False
    assert traits.object_lock is False
    assert list(backend.list("")) == []


def test_stale_listings_are_caught(tmp_path: Path) -> None:
    traits = probe_store(FaultyBackend(LocalBackend(tmp_path), FaultRules(seed=1, stale_list=0.5)))

    assert traits.read_after_write
    assert not traits.list_after_write


def test_lost_puts_are_caught(tmp_path: Path) -> None:
    assert not probe_store(
        FaultyBackend(LocalBackend(tmp_path), FaultRules(seed=1, lose_put=0.5))
    ).read_after_write


def test_a_probe_that_fails_says_why_and_cleans_up(tmp_path: Path) -> None:
    local = LocalBackend(tmp_path)
    with pytest.raises(StorageError, match="on purpose"):
        probe_store(FaultyBackend(local, FaultRules(seed=3, error=0.2)))
    names = [item.name for item in local.list("")]
    assert len(names) <= 1


def test_locks_on_a_real_server(seaweed: Seaweed) -> None:
    backend = open_s3(seaweed, "locked")
    locks = backend.capabilities.locks
    assert locks
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    version = locks.put_locked("data/x", [b"first ", b"second"], until)

    assert backend.get("data/x") == b"first second"
    assert locks.locked_until("data/x") == until
    with pytest.raises(PermissionRefused):
        locks.delete_version("data/x", version)
    with pytest.raises(PermissionRefused):
        locks.extend("data/x", until - timedelta(seconds=2))
    until += timedelta(seconds=1)
    locks.extend("data/x", until)
    assert locks.locked_until("data/x") == until
    backend.delete("data/x")
    with pytest.raises(ObjectNotFound):
        backend.get("data/x")
    assert locks.has_version("data/x", version), "deleting hides, and does not remove"

    backend.put("data/y", [b"y"])
    assert locks.locked_until("data/y") is None
    with pytest.raises(ObjectNotFound):
        locks.locked_until("data/none")


def test_a_lock_ends_on_a_real_server(seaweed: Seaweed) -> None:
    locks = open_s3(seaweed, "locked").capabilities.locks
    assert locks
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
    version = locks.put_locked("data/x", [b"x"], until)
    time.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds() + 1))
    locks.delete_version("data/x", version)
    assert not locks.has_version("data/x", version)
