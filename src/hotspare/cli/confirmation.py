"""Asking before something is done that cannot simply be done again."""

import sys
from typing import Annotated

from cyclopts import Parameter

from hotspare.cli import output
from hotspare.errors import HotspareError, UsageError

Yes = Annotated[bool, Parameter(name=("--yes", "-y"), negative="", show_default=False)]
"""The option of a command that asks, for those who agree already."""


def confirm(question: str, otherwise: str, *, yes: bool) -> None:
    """Return when the user agrees.

    Args:
        question: what is asked, on a terminal only.
        otherwise: what it means that nobody agreed: "Nothing was removed".
        yes: the user has agreed already, by ``--yes``.

    Raises:
        UsageError: there is no terminal to ask on.
        HotspareError: the answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "This has to be confirmed, and there is no terminal to ask on",
            meaning=otherwise,
            hint="Add --yes",
        )
    output.note(f"{question} [y/N]")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise HotspareError("Not confirmed", meaning=otherwise)
