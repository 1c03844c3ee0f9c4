"""What comes from a command on another host while it works there: what it says, and what it asks."""

from collections.abc import Callable

import msgspec

from hotspare.backup.claim import UNDISPUTED, Claim
from hotspare.documents.form import error_of
from hotspare.documents.progress import event_of
from hotspare.errors import HotspareError
from hotspare.events import Listener

_NOT_KNOWN = "What it did there is not known"


class Heard:
    """What a command has said over there: its document, its events, and its error."""

    def __init__(self, listener: Listener, aside: Callable[[str], None] = lambda _line: None) -> None:
        """Give events to ``listener``, and to ``aside`` what else is said on stderr but the error."""
        self.out = ""
        """What it has said on stdout."""
        self.something = False
        """Whether it was heard at all: it was begun then."""
        self._listener = listener
        self._aside = aside
        self._rest = ""
        self._lines: list[str] = []
        """What was said beside events; the last is the error, if there was one."""

    def __call__(self, stream: int, text: str) -> None:
        """Take in text of a stream: 1 is stdout, 2 stderr."""
        self.something = True
        if stream == 1:
            self.out += text
            return
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            event = event_of(line)
            if event is not None:
                self._listener(event)
            elif line:
                self._lines = [*self._lines[-20:], line]
                if not line.startswith("{"):
                    self._aside(line)

    def error(self, uri: str) -> HotspareError:
        """Give what went wrong there."""
        for line in reversed([*self._lines, self._rest]):
            try:
                fields = msgspec.json.decode(line)
            except msgspec.DecodeError:
                continue
            if isinstance(fields, dict) and fields.get("type") == "error":
                return error_of(fields)
        said = " ".join(self._lines) or "it said nothing"
        return HotspareError(f"The command on {uri} failed: {said}", meaning=_NOT_KNOWN)


class WatchedClaim:
    """Fulfils ``Claim``: asks another, and remembers what it said."""

    def __init__(self, claim: Claim = UNDISPUTED) -> None:
        self._claim = claim
        self.session = ""
        self.may_commit = False
        """Whether the other host was told that it may finish."""
        self.refusal: HotspareError | None = None

    def begun(self, session: str) -> None:
        """See ``Claim``."""
        self.session = session
        self._asked(lambda: self._claim.begun(session))

    def before_commit(self) -> None:
        """See ``Claim``."""
        self._asked(self._claim.before_commit)
        self.may_commit = True

    def _asked(self, ask: Callable[[], None]) -> None:
        try:
            ask()
        except HotspareError as error:
            self.refusal = error
            raise
