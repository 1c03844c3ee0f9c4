"""How full stores are: asked once for all who want to know, and held up by none."""

import threading
import time
from pathlib import Path

from hotspare.api.space import Spaces
from hotspare.errors import StorageError
from hotspare.storage.backend import Backend, Capabilities, Space
from hotspare.storage.local import LocalBackend

URL = "sftp://host/folder"


class Store(LocalBackend):
    """A folder that stands for a remote store, and answers when a test lets it."""

    def __init__(self, folder: Path, answers: list[Space | StorageError | None]) -> None:
        super().__init__(folder)
        self.capabilities = Capabilities(space=self._tell)
        self.answers = answers
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def _tell(self) -> Space | None:
        self.asked += 1
        self.may_answer.wait(60)
        answer = self.answers.pop(0)
        if isinstance(answer, StorageError):
            raise answer
        return answer


def opened(store: Backend) -> Spaces:
    return Spaces(lambda _url: store)


def test_a_folder_is_asked_each_time(tmp_path: Path) -> None:
    spaces = Spaces()
    found = spaces.of(str(tmp_path))
    assert found is not None
    assert 0 < found.free <= found.total
    assert spaces.of(f"file://{tmp_path}/not-there") is None
    assert spaces.of("nonsense://there") is None


def test_a_remote_store_is_asked_once_a_minute(tmp_path: Path) -> None:
    store = Store(tmp_path, [Space(5, 10)])
    spaces = opened(store)
    assert [spaces.of(URL) for _ in range(3)] == [Space(5, 10)] * 3
    assert store.asked == 1
    spaces.close()


def test_what_does_not_answer_holds_nobody_up(tmp_path: Path) -> None:
    store = Store(tmp_path, [Space(5, 10)])
    store.may_answer.clear()
    spaces = opened(store)
    assert spaces.of(URL) is None  # after two seconds, and not after a minute
    assert store.asked == 1
    store.may_answer.set()
    deadline = time.monotonic() + 30
    while spaces.of(URL) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert spaces.of(URL) == Space(5, 10)
    assert store.asked == 1


def test_what_fails_or_tells_nothing_is_not_known(tmp_path: Path) -> None:
    assert opened(Store(tmp_path, [StorageError("gone")])).of(URL) is None
    assert opened(Store(tmp_path, [None])).of(URL) is None
