"""The agent and those who ask it, without a machine between them."""

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.errors import FileSystemUnreadable, HotspareError, PathNotFound, RepositoryDamaged
from hotspare.guest.files.appliance.channel import Channel, QuestionFailed
from hotspare.guest.files.appliance.inside import agent
from hotspare.guest.files.appliance.inside.wire import (
    ANSWER,
    MORE,
    RECORD,
    WINDOW_SIZE,
    pack,
    pack_request,
    unpack_request,
)
from hotspare.guest.files.appliance.mounted import MountedFiles
from hotspare.units import KIB, MIB
from tests.guest.files.appliance_without_machine import agent_on, scripted_agent

FILE, FOLDER = 0o100644, 0o040755


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    (folder / "in" / "side").mkdir(parents=True)
    (folder / "file").write_bytes(b"content")
    (folder / "link").symlink_to("in")
    (folder / "out").symlink_to("/")
    (folder / "loop").symlink_to("loop")
    return folder


@pytest.fixture
def files(folder: Path, tmp_path: Path) -> Iterator[MountedFiles]:
    with agent_on(folder, tmp_path) as files:
        yield files


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "_BATCH_BYTES", 4 * KIB)


def test_a_tree_is_walked_with_folders_first(files: MountedFiles) -> None:
    paths = [entry.path for entry in files.walk()]
    assert sorted(paths) == ["/file", "/in", "/in/side", "/link", "/loop", "/out"]
    assert paths.index("/in") < paths.index("/in/side")
    assert [entry.path for entry in files.walk("/in")] == ["/in/side"]
    assert [entry.path for entry in files.entries("/in/")] == ["/in/side"]


def test_links_are_described_and_never_followed(files: MountedFiles) -> None:
    assert files.entry("/out").target == "/"
    outside = "/in" + "/.." * 30 + "/etc/passwd"
    for path in ("/link/side", "/out/etc/passwd", "/loop/x", outside):
        with pytest.raises(PathNotFound):
            files.entry(path)
        with pytest.raises(PathNotFound):
            files.read(path, 0, 10)
    for path in ("/link", "/out", "/loop", "/file"):
        with pytest.raises(PathNotFound):
            list(files.entries(path))


def test_content_is_read_in_any_pieces(files: MountedFiles, folder: Path) -> None:
    content = os.urandom(9 * MIB + 5)
    (folder / "large").write_bytes(content)
    opened = files.open("/large")
    assert opened.read(0, len(content) + 10) == content
    for offset, length in (
        (0, 10),
        (4 * MIB - 3, 7),
        (5, 32 * KIB),
        (len(content) - 4, 100),
        (len(content), 9),
    ):
        assert opened.read(offset, length) == content[offset : offset + length]
    assert opened.read(len(content) + 5, 3) == b""
    assert files.open("/file").read(0, 100) == b"content", "another file takes its place"
    assert opened.read(1, 2) == content[1:3]


def test_paths_longer_than_the_kernel_takes(files: MountedFiles, folder: Path) -> None:
    here = os.open(folder, os.O_PATH)
    for number in range(30):
        name = f"{number:02}{'x' * 230}"
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_PATH, dir_fd=here)
        os.close(here)
        here = below
    last = os.open("last", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(last, b"deep down")
    os.close(last)
    os.close(here)
    deepest = max((entry for entry in files.walk()), key=lambda entry: len(entry.path))
    assert len(deepest.path) > 6000
    assert files.open(deepest.path).read(0, 100) == b"deep down"
    with pytest.raises(PathNotFound):
        files.entry(deepest.path + "x")


@pytest.mark.usefixtures("small_batches")
def test_large_folders_come_in_pieces_and_may_be_left(files: MountedFiles, folder: Path) -> None:
    for number in range(200):
        (folder / "in" / f"{number:04}{'n' * 200}").touch()
    listing = files.entries("/in")
    next(listing)
    assert files.entry("/file").size == 7
    for _ in range(200):
        left = files.entries("/in")
        next(left)
        del left  # a generator is closed with its last reference
    assert len(list(listing)) == 200, "those that were left are not in its way"


@pytest.mark.usefixtures("small_batches")
def test_too_many_listings_at_once_are_refused_not_mixed_up(files: MountedFiles, folder: Path) -> None:
    for number in range(200):
        (folder / "in" / f"{number:04}{'n' * 200}").touch()
    listings = [files.entries("/in") for _ in range(70)]
    for listing in listings:
        next(listing)
    with pytest.raises(FileSystemUnreadable, match="too many folders"):
        list(listings[0])
    assert len(list(listings[-1])) == 200


def test_many_holes(files: MountedFiles, folder: Path) -> None:
    count = 6000
    with (folder / "sparse").open("wb") as file:
        for number in range(count):
            file.seek(number * 8192)
            file.write(b"x" * 4096)
        file.truncate(count * 8192)
    holes = list(files.open("/sparse").holes())
    assert holes == [(number * 8192 + 4096, (number + 1) * 8192) for number in range(count)]
    assert list(files.open("/file").holes()) == []


def test_attributes(files: MountedFiles, folder: Path) -> None:
    os.setxattr(folder / "file", "user.one", b"\0\xff")
    os.setxattr(folder / "file", "user.two", os.urandom(3000))
    assert files.attributes("/file") == {
        name: os.getxattr(folder / "file", name) for name in ("user.one", "user.two")
    }
    assert files.attributes("/link") == {}


def test_what_waits_for_somebody_is_not_opened(files: MountedFiles, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    assert files.entry("/fifo").kind == "fifo"
    with pytest.raises(FileSystemUnreadable):
        files.read("/fifo", 0, 10)


def test_a_volume_that_was_closed(files: MountedFiles) -> None:
    files.close()
    files.close()
    with pytest.raises(FileSystemUnreadable):
        files.entry("/file")


def record(path: bytes, mode: int = FILE, size: int = 0, target: bytes = b"") -> bytes:
    return RECORD.pack(mode, 0, 0, 1, 1, size, 0, 0, len(path), len(target)) + path + target


def answer(content: bytes, number: int = 0) -> bytes:
    return ANSWER.pack(number, len(content), 0) + content


def mounted(channel: Channel, cause: HotspareError | None = None) -> MountedFiles:
    return MountedFiles(channel, 1, "xfs", "vda1", lambda: cause)


@pytest.mark.parametrize(
    "names", [b"/a/../b", b"/..", b"/.", b"/a//b", b"/", b"relative", b"", b"/a/b"], ids=repr
)
def test_names_that_no_kernel_gives(tmp_path: Path, names: bytes) -> None:
    """Whoever has taken over the kernel in there would like to have files written elsewhere."""
    with (
        scripted_agent(tmp_path, [answer(MORE.pack(0) + record(names))]) as channel,
        pytest.raises(FileSystemUnreadable, match="makes no sense"),
    ):
        list(mounted(channel).entries("/"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        MORE.pack(0) + b"short",
        MORE.pack(0) + record(b"/a")[:-1],
        MORE.pack(0) + RECORD.pack(FILE, *[0] * 7, 0xFFFFFFFF, 0xFFFFFFFF),
        MORE.pack(0) + record(b"/a", size=1 << 63),
        MORE.pack(0) + record(b"/a", mode=0o170000),
    ],
)
def test_answers_that_make_no_sense(tmp_path: Path, content: bytes) -> None:
    with scripted_agent(tmp_path, [answer(content)]) as channel, pytest.raises(FileSystemUnreadable):
        list(mounted(channel).entries("/"))


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_answer_ends_in_an_entry_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, framed: bool
) -> None:
    with scripted_agent(tmp_path_factory.mktemp("w"), [answer(content) if framed else content]) as channel:
        for ask in (
            lambda files: list(files.entries("/")),
            lambda files: files.entry("/a"),
            lambda files: files.attributes("/a"),
            lambda files: list(files.holes("/a")),
        ):
            try:
                ask(mounted(channel))
            except HotspareError:
                continue


@pytest.mark.parametrize(
    "bounds",
    [
        [5, 3, None],
        [0, 5, 2, 6, None],
        [0, 0, None],
        [-5, 5, None],
        ["x", None],
        None,
        [5],
        [1, 1 << 70, None],
    ],
)
def test_holes_that_make_no_sense(tmp_path: Path, bounds: list[int | None]) -> None:
    content = struct.pack(">B", 0xC1) if bounds == [1, 1 << 70, None] else pack(bounds)
    with scripted_agent(tmp_path, [answer(content)] * 3) as channel, pytest.raises(FileSystemUnreadable):
        list(mounted(channel).holes("/a"))


def test_a_file_may_not_shrink_or_grow_while_it_is_read(tmp_path: Path) -> None:
    too_much = answer(bytes(100))
    with scripted_agent(tmp_path, [too_much]) as channel:
        assert mounted(channel).read("/a", 0, 10) == bytes(10)


def test_no_answer_in_time_ends_the_machine(tmp_path: Path) -> None:
    start = time.monotonic()
    with scripted_agent(tmp_path, [], seconds=0.2) as channel:
        files = mounted(channel)
        with pytest.raises(FileSystemUnreadable, match=r"did not answer within 0 s.*Kernel panic"):
            files.entry("/a")
        with pytest.raises(FileSystemUnreadable, match="did not answer"):
            files.entry("/b")
    assert time.monotonic() - start < 30


def test_a_machine_that_breaks_off(tmp_path: Path) -> None:
    half = [b"\0\0"]
    with scripted_agent(tmp_path, half) as channel, pytest.raises(FileSystemUnreadable, match="broke off"):
        channel.ask("entry")
    with pytest.raises(FileSystemUnreadable):
        channel.ask("entry")


def test_an_answer_longer_than_the_window(tmp_path: Path) -> None:
    head = ANSWER.pack(0, WINDOW_SIZE + 1, 1)
    with scripted_agent(tmp_path, [head]) as channel, pytest.raises(FileSystemUnreadable, match="broke off"):
        channel.ask("read")


def test_errors_of_the_agent_are_told(tmp_path: Path) -> None:
    failed = [answer(b"Input/output error", 5), answer(b"No such file", 2)]
    with scripted_agent(tmp_path, failed) as channel:
        with pytest.raises(FileSystemUnreadable, match="/a on vda1 cannot be read: Input/output error"):
            mounted(channel).entry("/a")
        with pytest.raises(PathNotFound):
            mounted(channel).entry("/a")


def test_the_reason_is_that_of_the_repository_where_there_is_one(tmp_path: Path) -> None:
    failed = [answer(b"Input/output error", 5)]
    with scripted_agent(tmp_path, failed) as channel, pytest.raises(RepositoryDamaged):
        mounted(channel, RepositoryDamaged("pack 7")).entry("/a")


def test_what_cannot_be_read_comes_last(tmp_path: Path) -> None:
    failure = RECORD.pack(0, 5, 0, 0, 0, 0, 0, 0, 2, 5) + b"/bwrong"
    content = MORE.pack(0) + record(b"/a") + failure + record(b"/c")
    with scripted_agent(tmp_path, [answer(content)]) as channel:
        listing = mounted(channel).entries("/")
        assert [next(listing).path, next(listing).path] == ["/a", "/c"]
        with pytest.raises(FileSystemUnreadable, match="/b on vda1 cannot be read: wrong"):
            next(listing)


def test_unknown_questions_are_answered(files: MountedFiles) -> None:
    with pytest.raises(QuestionFailed):
        files._channel.ask("nonsense", "x")
    assert files.entry("/file").size == 7


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_requests_are_understood(fields: list[bytes]) -> None:
    assert unpack_request(pack_request(fields)[4:]) == fields
