"""Choosing machines of a platform by name and tag."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hotspare.platforms.platform import Machine


@dataclass(frozen=True, slots=True)
class MachineChoice:
    """Which machines of a whole platform; each empty field leaves all in."""

    include: tuple[str, ...] = ()
    """Patterns, as of a shell: one of them fits the machine's name."""
    exclude: tuple[str, ...] = ()
    """Patterns: none of them does."""
    tags: tuple[str, ...] = ()
    """The machine has one of these, exactly."""

    def takes(self, machine: Machine) -> bool:
        """Tell whether a machine is chosen."""
        return (
            (not self.include or _fits(machine.name, self.include))
            and not _fits(machine.name, self.exclude)
            and (not self.tags or not set(self.tags).isdisjoint(machine.marks.tags))
        )


def select_machines(machines: Iterable[Machine], choice: MachineChoice) -> list[Machine]:
    """Give the chosen machines, by name."""
    return sorted((one for one in machines if choice.takes(one)), key=lambda machine: machine.name)


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
