"""What a hook is: where its script lies, how long it may take, and what its failure means."""

import os
import re
from dataclasses import dataclass, replace
from enum import Enum
from importlib import resources
from pathlib import Path

from hotspare.errors import UsageError

READY = ("postgresql", "mariadb")
"""The hooks that come with us."""
GUEST_FOLDER = "/etc/hotspare/hooks.d"
_HOST_FOLDER = Path("/etc/hotspare/hooks.d")
_DEFAULT_SECONDS = 30
_LARGEST_SCRIPT = 32 * 1024
"""Bytes. A request of more than about 64 KiB, a third more than what it carries, makes the agent hang."""
_SEE = "See docs/consistency.md. Example: --hook postgresql,timeout=60s,on-failure=fail"


class OnFailure(Enum):
    """What a hook that fails means for the run."""

    FAIL = "fail"
    """There is no restore point."""
    WARN = "warn"
    """There is one of a lower level, with a warning."""
    IGNORE = "ignore"
    """The hook does not count."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook of a machine."""

    name: str
    """``postgresql``; ``guest:NAME`` for a script inside; ``host:NAME`` for one of this host, sent inside."""
    on_failure: OnFailure = OnFailure.WARN
    seconds: int = _DEFAULT_SECONDS
    """How long each of its two parts may take."""

    @property
    def path_in_guest(self) -> str | None:
        """Where the script lies in the guest already; None where it is sent."""
        kind, _, name = self.name.partition(":")
        return f"{GUEST_FOLDER}/{name}" if kind == "guest" else None

    def script(self) -> bytes:
        """Read the script that is to be sent.

        Raises:
            OSError: it cannot be read.
            ValueError: it is too large.
        """
        kind, _, name = self.name.partition(":")
        if kind != "host":
            return script_for_guest(kind)
        content = (Path(os.environ.get("HOTSPARE_HOOKS_FOLDER") or _HOST_FOLDER) / name).read_bytes()
        if len(content) > _LARGEST_SCRIPT:
            raise ValueError(f"it is larger than {_LARGEST_SCRIPT // 1024} KiB")
        return content


def script_for_guest(name: str) -> bytes:
    """Read one of our own scripts for guests: ``runner`` or a ready hook."""
    return (resources.files(__package__) / "guest" / name).read_bytes()


def parse_hook(text: str) -> Hook:
    """Read a hook as people write it: ``postgresql``, ``guest:erp,timeout=60s,on-failure=fail``.

    Raises:
        UsageError: there is no such hook, or an option is wrong.
    """
    name, *options = (part.strip() for part in text.split(","))
    if name not in READY and not re.fullmatch(r"(guest|host):[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        ready = " and ".join(READY)
        raise UsageError(
            f"There is no hook {name!r}: ready ones are {ready}, your own guest:NAME and host:NAME",
            meaning="Nothing was done",
            hint=_SEE,
        )
    hook = Hook(name)
    for option in options:
        hook = _with_option(hook, option)
    return hook


def _with_option(hook: Hook, option: str) -> Hook:
    key, _, value = option.partition("=")
    duration = re.fullmatch(r"(\d{1,5})(s|m|)", value)
    if key == "timeout" and duration and int(duration[1]) > 0:
        return replace(hook, seconds=int(duration[1]) * (60 if duration[2] == "m" else 1))
    if key == "on-failure" and value in {one.value for one in OnFailure}:
        return replace(hook, on_failure=OnFailure(value))
    raise UsageError(
        f"The hook {hook.name} has no option {option!r}",
        meaning="Nothing was done",
        hint=_SEE,
    )
