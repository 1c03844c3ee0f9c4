"""Notices reach real receivers: HTTP and SMTP; and whoever does not answer holds up nobody else."""

import email
import email.policy
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler
from apprise.decorators import notify

from hotspare.errors import ConfigError, NoticeNotSent
from hotspare.notices.delivery import deliver, send_within
from hotspare.notices.message import compose
from hotspare.notices.outbox import Outbox
from hotspare.notices.sending import send, url_of
from hotspare.policy.receiver import Receiver
from tests.notices.receivers import HttpReceiver, http_receiver, seen, silent_receiver

ONCALL = Receiver(name="oncall", url_variable="ONCALL")


@pytest.fixture
def http() -> Iterator[HttpReceiver]:
    with http_receiver() as receiver:
        yield receiver


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox.open(tmp_path, pytest.fail) as opened:
        yield opened


class Mailbox(MessageHandler):
    """Keeps the mails that a real SMTP server takes."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[email.message.Message] = []

    def handle_message(self, message: email.message.Message) -> None:
        self.mails.append(message)


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    yield box, port
    controller.stop()


def test_a_message_reaches_an_http_server(http: HttpReceiver, outbox: Outbox) -> None:
    outbox.note([seen(text="No space left")], {"oncall": ONCALL})
    done = deliver(outbox, {"oncall": ONCALL}, {"ONCALL": http.url})
    assert [(one.receiver, one.notices, one.error) for one in done] == [("oncall", 1, None)]
    (message,) = http.got
    assert message["type"] == "failure"
    assert message["title"].endswith("ERROR: The backup of web failed")
    assert "No space left" in message["message"]
    assert outbox.log(1)[0].state == "sent"
    assert deliver(outbox, {"oncall": ONCALL}, {"ONCALL": http.url}) == []


def test_a_message_reaches_a_mail_server(
    mailbox: tuple[Mailbox, int], outbox: Outbox, tmp_path: Path
) -> None:
    box, port = mailbox
    file = tmp_path / "url"
    file.write_text(
        "# to the team\n"
        f"mailto://127.0.0.1:{port}/?mode=insecure&from=hotspare@example.org&to=team@example.org\n"
    )
    team = Receiver(name="team", url_file=str(file), delivery="digest")
    outbox.note([seen(), seen("db"), seen("db", "mended")], {"team": team})
    assert [one.error for one in deliver(outbox, {"team": team}, {}, only="team")] == [None]
    (mail,) = box.mails
    assert mail["To"] is not None
    assert "team@example.org" in mail["To"]
    parsed = email.message_from_bytes(mail.as_bytes(), policy=email.policy.default)
    subject = str(parsed["Subject"])
    assert "Digest: 2 run-failed, 1 run-failed mended" in subject.replace("\n", "")
    body = parsed.get_body()
    assert body is not None
    assert "Mended: The backup of db failed" in body.get_content()


def test_many_at_once_are_one_message(http: HttpReceiver, outbox: Outbox) -> None:
    outbox.note([seen(f"vm{number}") for number in range(60)], {"oncall": ONCALL})
    deliver(outbox, {"oncall": ONCALL}, {"ONCALL": http.url})
    (message,) = http.got
    assert "60 notices: 60 run-failed" in message["title"]
    assert "... and 10 more" in message["message"]


def test_names_from_outside_make_no_lines_and_headers(http: HttpReceiver, outbox: Outbox) -> None:
    outbox.note([seen("web\r\nBcc: eve@example.org\x1b[31m")], {"oncall": ONCALL})
    deliver(outbox, {"oncall": ONCALL}, {"ONCALL": http.url})
    assert "\n" not in http.titles[0]
    assert "\x1b" not in http.got[0]["message"]


def test_what_is_refused_waits_and_the_reason_has_no_secret(http: HttpReceiver, outbox: Outbox) -> None:
    http.status = 403
    outbox.note([seen()], {"oncall": ONCALL})
    (done,) = deliver(outbox, {"oncall": ONCALL}, {"ONCALL": http.url})
    assert done.error
    assert "403" in done.error
    (kept,) = outbox.log(1)
    assert (kept.state, kept.attempts) == ("waiting", 1)
    assert "hush" not in str(kept.error)
    assert "s3cr3t" not in str(kept.error)
    http.status = 200
    assert deliver(outbox, {"oncall": ONCALL}, {"ONCALL": http.url}, only="oncall")[0].error is None
    assert outbox.log(1)[0].state == "sent"


def test_one_that_never_answers_holds_up_no_other(http: HttpReceiver, outbox: Outbox) -> None:
    receivers = {"oncall": ONCALL, "slow": Receiver(name="slow", url_variable="SLOW")}
    outbox.note([seen()], receivers)
    with silent_receiver() as url:
        began = time.monotonic()
        done = deliver(outbox, receivers, {"ONCALL": http.url, "SLOW": url}, patience=5.0)
        assert time.monotonic() - began < 10.0
    assert {one.receiver: one.error for one in done} == {
        "oncall": None,
        "slow": "no answer within 5 seconds",
    }
    assert len(http.got) == 1
    assert {one.receiver: one.state for one in outbox.log(2)} == {"oncall": "sent", "slow": "waiting"}


def test_what_waits_for_nobody_any_more_is_given_up(outbox: Outbox) -> None:
    outbox.note([seen()], {"oncall": ONCALL})
    assert deliver(outbox, {}, {}) == []
    assert outbox.log(1)[0].error == "there is no such receiver any more"


@pytest.mark.parametrize(
    ("url", "said"), [("", "0 URLs"), ("json://a\njson://b", "2 URLs"), (None, "0 URLs")]
)
def test_a_url_that_is_not_there_is_told_by_its_place(url: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        url_of(ONCALL, {} if url is None else {"ONCALL": url})
    assert "variable ONCALL" in refused.value.what


def test_a_url_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    receiver = Receiver(name="a", url_file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        url_of(receiver, {})
    assert "cannot be read" in str(send_within(receiver, [seen()], {}))


def test_a_url_that_apprise_does_not_know_is_told_without_itself() -> None:
    with pytest.raises(ConfigError) as refused:
        send("nosuch://user:hush-hush@host/s3cr3t-token", compose([seen()], host="h", digest=False))
    assert "hush" not in str(refused.value)
    assert "s3cr3t" not in str(refused.value)


def test_a_plugin_that_tells_the_whole_url_gives_no_secret_away() -> None:
    def leak(body: str, title: str, notify_type: str, *_: Any, meta: dict[str, Any], **__: Any) -> bool:
        logging.getLogger("apprise").warning("cannot reach %s; %s %s", URL, meta["url"], "tok en/1")
        return False

    notify(on="leaky")(leak)  # type: ignore[no-untyped-call]
    with pytest.raises(NoticeNotSent, match="cannot reach") as refused:
        send(URL, compose([seen()], host="h", digest=False))
    for secret in ("hush", "s3cr3t", "tok", "opensesame"):
        assert secret not in str(refused.value)


URL = "leaky://user:hush-hush@example.org/s3cr3t-path/tok%20en%2F1?key=opensesame"
