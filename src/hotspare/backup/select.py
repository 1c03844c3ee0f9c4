"""Choosing machines of a platform by name and tag."""

from collections.abc import Iterable
from dataclasses import dataclass

from hotspare.platforms.platform import Machine
from hotspare.policy.selection import Selection


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
        selection = Selection(names=self.include, exclude=self.exclude, tags=self.tags)
        return selection.obstacle(machine.name, machine.marks.tags) is None


def select_machines(machines: Iterable[Machine], choice: MachineChoice) -> list[Machine]:
    """Give the chosen machines, by name."""
    return sorted((one for one in machines if choice.takes(one)), key=lambda machine: machine.name)
