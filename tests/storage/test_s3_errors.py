"""What answers of S3 servers become. The answers are scripted: no server here can be made full or busy."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hotspare.errors import HotspareError, NoSpace, ObjectNotFound, PermissionRefused, StorageError
from hotspare.storage.s3 import S3Backend
from hotspare.storage.s3_settings import read_s3_settings

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "HOTSPARE_S3_TIMEOUT": "2"}


class Moody(BaseHTTPRequestHandler):
    """Gives every request the same answer."""

    status = 500
    code = ""
    body = b""
    announced: int | None = None

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        text = f"<Error><Code>{self.code}</Code><Message>so there</Message></Error>".encode()
        body = text if self.code else self.body
        self.send_response(self.status)
        self.send_header("Content-Length", str(self.announced or len(body)))
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Mon, 23 Nov 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815 - the library's names

    def log_message(self, *_: object) -> None:
        pass


Answering = Callable[..., S3Backend]


@pytest.fixture
def answering() -> Iterator[Answering]:
    servers: list[ThreadingHTTPServer] = []

    def make(**answer: object) -> S3Backend:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Moody,), answer))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        return S3Backend(read_s3_settings(f"s3:http://127.0.0.1:{server.server_address[1]}/bucket", KEYS))

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (507, "", NoSpace),
        (403, "QuotaExceeded", NoSpace),
        (507, "XMinioStorageFull", NoSpace),
        (403, "AccessDenied", PermissionRefused),
        (401, "", PermissionRefused),
        (403, "RequestTimeTooSkewed", PermissionRefused),
        (404, "NoSuchBucket", StorageError),
        (404, "NoSuchKey", ObjectNotFound),
        (301, "PermanentRedirect", StorageError),
        (400, "InvalidRequest", StorageError),
    ],
)
def test_refusals_that_stay(
    answering: Answering, status: int, code: str, expected: type[HotspareError]
) -> None:
    backend = answering(status=status, code=code)

    for call in (lambda: backend.put("data/x", [b"x"]), lambda: list(backend.list("data/"))):
        with pytest.raises(HotspareError) as caught:
            call()
        assert type(caught.value) is expected
        assert not getattr(caught.value, "may_pass", False)
        assert caught.value.hint or expected is ObjectNotFound


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (500, ""), (429, ""), (400, "RequestTimeout")]
)
def test_refusals_that_may_pass(answering: Answering, status: int, code: str) -> None:
    with pytest.raises(StorageError) as caught:
        answering(status=status, code=code).get("data/x")
    assert caught.value.may_pass


def test_an_object_cut_short_on_its_way(answering: Answering) -> None:
    with pytest.raises(StorageError) as caught:
        answering(status=200, body=b"half", announced=8).get("data/x")
    assert caught.value.may_pass


def test_a_put_that_stored_something_else_is_noticed(answering: Answering) -> None:
    with pytest.raises(StorageError, match="has 3 bytes instead of 5"):
        answering(status=200, body=b"", announced=3).put("data/x", [b"12345"])


def test_a_server_that_says_nothing_is_given_up(answering: Answering) -> None:
    released = threading.Event()

    def hang(_: Moody) -> None:
        released.wait(20)

    try:
        with pytest.raises(StorageError) as caught:
            answering(do_PUT=hang).put("data/x", [b"x"])
    finally:
        released.set()
    assert caught.value.may_pass
