"""The local store against the contract, and what only a file system can do."""

import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hotspare.errors import NoSpace, PermissionRefused, UsageError
from hotspare.storage.local import LocalBackend
from hotspare.storage.registry import open_backend
from tests.contracts.storage_suite import StorageSuite


class TestLocal(StorageSuite):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> LocalBackend:
        return LocalBackend(tmp_path / "store")


class TestLocalWithoutUnnamedFiles(StorageSuite):
    @pytest.fixture
    def backend(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalBackend:
        # No file system without O_TMPFILE can be mounted here; the flag's own error stands in for one.
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)
        backend = LocalBackend(tmp_path / "store")
        backend.put("probe", [b""])
        assert not backend._unnamed_files
        backend.delete("probe")
        return backend

    def test_removes_only_what_crashed_writers_left_long_ago(
        self, backend: LocalBackend, tmp_path: Path
    ) -> None:
        backend.put("data/a", [b"a"])
        stale, recent = tmp_path / "store/data/.tmp-stale", tmp_path / "store/data/.tmp-recent"
        for path in (stale, recent):
            path.write_bytes(b"half")
        os.utime(stale, (time.time() - 100_000,) * 2)
        backend.put("data/b", [b"b"])

        assert not stale.exists()
        assert recent.exists()
        assert [item.name for item in backend.list("")] == ["data/a", "data/b"]


def test_a_full_file_system_leaves_no_part_of_the_object(small_file_system: Path) -> None:
    backend = LocalBackend(small_file_system)
    backend.put("data/fits", [bytes(300_000)])

    with pytest.raises(NoSpace, match="full"):
        backend.put("data/does-not", [bytes(2_000_000)])

    assert [item.name for item in backend.list("")] == ["data/fits"]
    backend.put("data/fits-too", [bytes(300_000)])


def test_a_read_only_file_system_is_told_from_a_full_one(small_file_system: Path) -> None:
    backend = LocalBackend(small_file_system)
    backend.put("data/x", [b"x"])
    subprocess.run(["mount", "-o", "remount,ro", small_file_system], check=True)

    with pytest.raises(PermissionRefused):
        backend.put("data/y", [b"y"])
    assert backend.get("data/x") == b"x"


def _put_for_ever(folder: Path) -> None:
    backend = LocalBackend(folder)
    for number in range(1_000_000):
        backend.put(f"data/{number % 4:02x}/{number}", [bytes([number % 251]) * 300_000])


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_writer_leaves_only_whole_objects(tmp_path: Path, seed: int) -> None:
    writer = multiprocessing.get_context("spawn").Process(target=_put_for_ever, args=(tmp_path,))
    writer.start()
    deadline = time.monotonic() + 30
    while not any(LocalBackend(tmp_path).list("")) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.013 * seed)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()

    backend = LocalBackend(tmp_path)
    found = list(backend.list(""))
    assert found
    for item in found:
        number = int(item.name.rpartition("/")[2])
        assert backend.get(item.name) == bytes([number % 251]) * 300_000
    files = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len(found), "a crash leaves nothing else behind"


@pytest.mark.parametrize(("url", "folder"), [("file:///srv/a%20b", "/srv/a b"), ("/srv/plain", "/srv/plain")])
def test_a_folder_is_named_by_path_or_url(url: str, folder: str) -> None:
    assert open_backend(url).url == f"file://{folder}"


@pytest.mark.parametrize("url", ["ftp://host/x", "file://host/x"])
def test_an_unknown_kind_of_store_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="no place for a repository"):
        open_backend(url)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Give the folders that are synced from now on."""
    folders: list[Path] = []
    sync = os.fsync

    def note(file: int) -> None:
        folders.append(Path(f"/proc/self/fd/{file}").readlink())
        sync(file)

    monkeypatch.setattr(os, "fsync", note)
    return folders


def test_makes_durable_what_another_process_may_have_left_undone(tmp_path: Path, synced: list[Path]) -> None:
    store = tmp_path / "store"
    (store / "data" / "aa").mkdir(parents=True)  # as a writer that was killed at once would have
    backend = LocalBackend(store)
    backend.put("data/aa/first", [b"1"])
    assert synced == [tmp_path, store, store / "data", store / "data/aa"]
    synced.clear()
    backend.put("data/aa/second", [b"2"])
    assert synced == [store / "data/aa"]


def test_what_is_listed_is_durable(tmp_path: Path, synced: list[Path]) -> None:
    store = tmp_path / "store"
    (store / "index").mkdir(parents=True)
    (store / "index" / "segment").write_bytes(b"of a writer that has not synced the folder yet")
    assert [item.name for item in LocalBackend(store).list("index/")] == ["index/segment"]
    assert synced == [store / "index"]
    synced.clear()
    os.utime(store / "index", (time.time() - 100_000,) * 2)
    assert list(LocalBackend(store).list("index/"))
    assert synced == []
