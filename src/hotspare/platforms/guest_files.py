"""What a platform may offer beside its contract: writing files into a machine that runs."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, runtime_checkable


class ShellEnded(NamedTuple):
    """A shell script that ran to its end in the guest."""

    status: int
    output: str


class GuestFiles(Protocol):
    """The way to write files in one running guest. Belongs to one thread."""

    has_shell: bool
    """Whether ``shell`` can be used; else files can be written, and nothing of them be set."""

    def exists(self, path: str) -> bool:
        """Tell whether there is a file at a path, as far as the guest lets one know."""
        ...

    def write(self, path: str, pieces: Iterable[tuple[int, bytes]], size: int) -> None:
        """Make a file, or empty the one that is there, and write pieces at their offsets; the rest is zeroes.

        Raises:
            OSError: the guest refuses this file.
            PlatformUnavailable: the guest does not answer any more.
        """
        ...

    def shell(self, script: str, arguments: Sequence[str]) -> ShellEnded:
        """Run a script of ``sh`` as root in the guest.

        Raises:
            OSError: the guest refuses to run it.
            PlatformUnavailable: the guest does not answer any more.
        """
        ...


@runtime_checkable
class GuestFilesPlatform(Protocol):
    """What a platform can do beside, if it reaches files of running guests."""

    def guest_files(self, name: str) -> AbstractContextManager[GuestFiles]:
        """Open the way into a machine.

        Raises:
            MachineNotFound: there is none of that name or id.
            PlatformUnavailable: it does not run, or nothing in it answers.
            PermissionRefused: what answers does not allow files to be written.
        """
        ...
