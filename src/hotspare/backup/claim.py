"""Who may finish a run, when more than one process could take itself for the one that carries it out."""

from typing import Protocol


class Claim(Protocol):
    """What a process asks before it makes a restore point count."""

    def begun(self, session: str) -> None:
        """Note the run's session in the repository, before anything is stored under it."""
        ...

    def before_commit(self) -> None:
        """Return when this process may publish the restore point, and advance tokens.

        Raises:
            RunExpelled: another process has taken the run over.
            HotspareError: who may cannot be found out.
        """
        ...


class Undisputed:
    """The claim of a run that nobody else can take over."""

    def begun(self, session: str) -> None:
        """See ``Claim``."""

    def before_commit(self) -> None:
        """See ``Claim``."""


UNDISPUTED = Undisputed()
