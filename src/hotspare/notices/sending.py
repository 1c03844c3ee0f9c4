"""Sending one message to one receiver, by apprise.

Whatever is told of a failure never holds the URL, nor the parts of it that may be secrets.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from hotspare.errors import ConfigError, NoticeNotSent
from hotspare.notices.message import Message
from hotspare.policy.receiver import Receiver

_SECRET_LENGTH_MIN = 4


def url_of(receiver: Receiver, environment: Mapping[str, str]) -> str:
    """Fetch a receiver's URL from where it lies.

    Raises:
        ConfigError: it is not there, or may not be read; or there is more than one line.
    """
    if receiver.url_variable:
        text = environment.get(receiver.url_variable, "")
    else:
        try:
            text = Path(receiver.url_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise _no_url(receiver, f"it cannot be read: {reason}") from error
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if len(found) != 1:
        raise _no_url(receiver, f"it has {len(found)} URLs; one is wanted")
    return found[0]


def send(url: str, message: Message) -> None:
    """Send a message, and wait until the receiver has it. It takes as long as the receiver lets it.

    Raises:
        ConfigError: the URL is none that apprise knows.
        NoticeNotSent: the receiver did not take it.
    """
    import apprise  # noqa: PLC0415 - it takes long to import, and only who sends needs it

    asset = apprise.AppriseAsset(
        app_id="Hotspare",
        app_desc="Hotspare",
        app_url="",
        image_url_mask="",
        image_url_logo="",
        async_mode=False,
        secure_logging=True,
        plugin_paths=[],
    )
    with _said_here() as said:
        target = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
        if not isinstance(target, apprise.NotifyBase):
            raise ConfigError(
                f"The URL is none that apprise knows: {_without_secrets(url, said) or 'it has no such form'}",
                meaning="Nothing was sent",
                hint="See docs/notices.md and apprise's own list of URLs",
            )
        try:
            done = target.notify(
                body=message.body, title=message.title, notify_type=apprise.NotifyType(message.type)
            )
        except (OSError, TypeError, ValueError) as error:
            said.append(f"{type(error).__name__}: {error}")
            done = False
    if not done:
        reason = _without_secrets(url, said) or "it gave no reason"
        raise NoticeNotSent(f"The receiver did not take the message: {reason}")


def _no_url(receiver: Receiver, problem: str) -> ConfigError:
    return ConfigError(
        f"The URL of receiver {receiver.name} should be in {receiver.place}: {problem}",
        meaning="Nothing was sent to it",
        hint="Put one URL of apprise there, on a line of its own",
    )


@contextmanager
def _said_here() -> Iterator[list[str]]:
    """Gather what apprise warns of in this thread; it has no other way to say why."""
    here = threading.get_ident()
    said: list[str] = []

    class Gather(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == here:
                said.append(record.getMessage())

    logger = logging.getLogger("apprise")
    gather = Gather(logging.WARNING)
    logger.addHandler(gather)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.removeHandler(gather)


def _without_secrets(url: str, said: list[str]) -> str:
    """Give the words with every part of the URL taken out that may be a secret: all but host and port."""
    text = " ".join(said)
    parts = urlsplit(url)
    words = [url, parts.username or "", parts.password or "", *parts.path.split("/")]
    words += [value for _, value in parse_qsl(parts.query)]
    for word in sorted({word for raw in words for word in (raw, unquote(raw))}, key=len, reverse=True):
        if len(word) >= _SECRET_LENGTH_MIN:
            text = text.replace(word, "***")
    return text[:500]
