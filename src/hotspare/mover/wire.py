"""What goes over the connection between the control host and the mover on the host of the machines.

Messages travel in the frames of ``storage/served/frames.py``. The control host begins with ``Hello``, the
mover answers ``Hello``; only then the command is sent, and what it is told. ``Stream`` frames carry
conversations of the served store's protocol, when the repository is a folder of the control host: the mover
numbers them from 1, and a body of no bytes ends one direction.

    control host: Hello, Start, then Secret (when asked), Verdict (when asked), Alive ..., Stream ..., Cancel
    mover:        Hello, then Ask, Begun, Committing, Said ..., Stream ..., Ended

Who may finish a backup is for the control host to say, which may be one of several that carry out the same
run: the mover stores nothing before ``Begun`` is answered, and publishes nothing before ``Committing`` is.

A control host that is cut off or stands still cannot say so, and a guest must not be held for it: a mover
that has heard nothing for ``SILENT_SECONDS`` takes the connection for lost.
"""

import msgspec

from hotspare.storage.served.frames import FrameDecoder

MAGIC = b"HSMOVE\x00\x01"
VERSION = 3
ALIVE_SECONDS = 15.0
"""Between two ``Alive``."""
SILENT_SECONDS = 90.0


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """Each side's first words."""

    version: int
    program: str
    """Version of the program, for messages."""


class Start(msgspec.Struct, frozen=True, array_like=True, tag="start"):
    """Run a command."""

    words: tuple[str, ...]
    """What follows the program's name, as the user wrote it."""
    settings: dict[str, str]
    """Settings that go before those of the command line and of the host, by name."""
    progress: str
    """Form of the progress: ``auto``, ``jsonl`` or ``none``."""
    environment: dict[str, str]
    """Variables that the repository's store needs."""
    served: str | None
    """The folder of the control host that is the repository; None when the mover opens it itself."""
    has_secret: bool = False
    """Whether what opens the repository is set there, so that nobody has to be asked for it."""
    known_as: str = ""
    """URI by which the control host knows the platform, which restore points say they are from."""


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """The repository is to be opened: what with?"""


class Secret(msgspec.Struct, frozen=True, array_like=True, tag="secret"):
    """What opens the repository."""

    kind: str
    """Kind of the key slot that it fits; empty when it cannot be had, and the content says why."""
    content: bytes

    def __repr__(self) -> str:
        return f"Secret({self.kind!r}, ...)"


class Begun(msgspec.Struct, frozen=True, array_like=True, tag="begun"):
    """A backup begins: may it?"""

    session: str
    """Id of the session of the repository that it stores under."""


class Committing(msgspec.Struct, frozen=True, array_like=True, tag="committing"):
    """All data is there: may the restore point be published, or the machine that was restored be defined?"""


class Verdict(msgspec.Struct, frozen=True, array_like=True, tag="verdict"):
    """Whether it may go on."""

    refusal: str = ""
    """Why it may not; empty when it may."""


class Said(msgspec.Struct, frozen=True, array_like=True, tag="said"):
    """The body is text, in UTF-8, for standard output (1) or standard error (2)."""

    stream: int


class Stream(msgspec.Struct, frozen=True, array_like=True, tag="stream"):
    """The body is part of a conversation with the served store."""

    id: int


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """The user wants it to stop at its next safe moment."""


class Alive(msgspec.Struct, frozen=True, array_like=True, tag="alive"):
    """The control host is there."""


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """The command has ended."""

    status: int


Message = Hello | Start | Ask | Secret | Begun | Committing | Verdict | Alive | Said | Stream | Cancel | Ended

_decoder = msgspec.msgpack.Decoder(Message)


def frame_decoder() -> FrameDecoder[Message]:
    """Give a decoder for one direction."""
    return FrameDecoder(MAGIC, _decoder)
