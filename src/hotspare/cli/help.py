"""How each command's ``--help`` ends: with examples and the exit statuses that it can give."""

from collections.abc import Sequence

from cyclopts import App

from hotspare.errors import (
    HotspareError,
    Interrupted,
    PermissionRefused,
    RepositoryDamaged,
    RepositoryNotFound,
    RepositoryTooNew,
    StorageError,
    UsageError,
    WrongKey,
)

_EVERYWHERE = (HotspareError, UsageError)
OPENING = (
    RepositoryNotFound,
    WrongKey,
    RepositoryTooNew,
    RepositoryDamaged,
    PermissionRefused,
    StorageError,
)
"""What every command that opens a repository can raise."""


def noun(name: str, summary: str) -> App:
    """Make the group of commands of one noun."""
    return App(name=name, help=summary, help_format="plaintext", help_epilogue="")


def closing(examples: Sequence[str], *errors: type[HotspareError], interruptible: bool = False) -> str:
    """Write the last part of a command's help.

    Args:
        examples: whole command lines.
        errors: what the command can raise beside failing and being used wrongly.
        interruptible: whether it stops at a safe moment when asked to.
    """
    lines = ["Examples:", *(f"  {example}" for example in examples), "", "Exit status:", "    0  Done."]
    kinds = (*_EVERYWHERE, *errors, *((Interrupted,) if interruptible else ()))
    for kind in sorted(set(kinds), key=lambda kind: (kind.exit_status, kind is not HotspareError, kind.code)):
        meaning = "It failed." if kind is HotspareError else (kind.__doc__ or "").partition("\n")[0]
        lines.append(f"  {kind.exit_status:3}  {meaning}")
    return "\n".join(lines)
