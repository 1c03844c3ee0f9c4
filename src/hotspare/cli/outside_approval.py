"""Commands on the server's host that shorten what is kept: a second person's consent does not bind them.

Over HTTP the same waits for another admin. Here somebody has the passphrase and the files already, and can do
it without this program as well. So it is said and recorded; and where the setting ``approval_on_host`` asks
for it, refused, which keeps from mistakes and not from ill will.
"""

import os
import pwd
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from hotspare.access.approvals import Approvals
from hotspare.access.audit import ASKED_BY, AuditLog
from hotspare.access.database import FILE_NAME, AccessDatabase
from hotspare.cli import output
from hotspare.cli.session import Session
from hotspare.errors import HotspareError, NotPermitted

_NO_LOGIN = 2**32 - 1


@contextmanager
def outside_approval(session: Session, command: str, target: str, shortened: Sequence[str]) -> Iterator[None]:
    """Record what the block does, with its outcome, where this host has a server's audit record.

    Args:
        session: of the command.
        command: ``policy edit``.
        target: what it is done to.
        shortened: what is kept for less long by it, in words; nothing when it shortens nothing.

    Raises:
        NotPermitted: the setting ``approval_on_host`` keeps this host from it.
    """
    folder = session.settings.state_folder
    if not (folder / FILE_NAME).exists():
        yield  # nobody serves from here, so there is nobody who could agree, and no record
        return
    with closing(AccessDatabase(folder)) as access:
        log, needed = AuditLog(access), Approvals(access).needed
        detail = _detail(shortened, second_person=needed)
        if needed and shortened:
            if session.settings.approval_on_host == "required":
                log.add(_actor(), command, target, outcome=NotPermitted.code, detail=detail)
                raise _refused(shortened)
            output.warn(
                "Over HTTP a second person would have to agree to this. On its host the server cannot ask for"
                " that; it is noted in the audit record"
            )
        try:
            yield
        except HotspareError as error:
            log.add(_actor(), command, target, outcome=error.code, detail=detail)
            raise
        log.add(_actor(), command, target, detail=detail)


def _actor() -> str:
    """Name the user of the operating system: no user of the server is called so."""
    return f"local:{_name_of(os.geteuid())}"


def _detail(shortened: Sequence[str], *, second_person: bool) -> dict[str, Any]:
    detail: dict[str, Any] = {
        "command": shlex.join(["hotspare", *sys.argv[1:]]),
        "login": _login(),
        "shortened": list(shortened),
        "second_person": second_person,
    }
    if asked_by := os.environ.get(ASKED_BY):
        detail["asked_by"] = asked_by
    return detail


def _login() -> str | None:
    """Give who logged in, whatever they have become since by sudo or su: the kernel keeps it."""
    try:
        number = int(Path("/proc/self/loginuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if number == _NO_LOGIN else _name_of(number)


def _name_of(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _refused(shortened: Sequence[str]) -> NotPermitted:
    return NotPermitted(
        f"A second person has to agree to this: {'; '.join(shortened)}",
        meaning="Nothing was changed",
        hint="Ask for it over HTTP, or turn the setting approval_on_host to 'recorded', which root of this"
        " host always can",
    )
