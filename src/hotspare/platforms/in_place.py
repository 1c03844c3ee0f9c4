"""What a platform may offer beside its contract: restoring a machine over itself, with a way back."""

from typing import Protocol, runtime_checkable

from hotspare.cancellation import Cancellation
from hotspare.platforms.placement import TargetPlan
from hotspare.platforms.platform import Machine, Target


@runtime_checkable
class InPlacePlatform(Protocol):
    """What a platform can do beside, if restoring a machine over itself can be undone there."""

    def plan_replacement(self, machine: Machine) -> TargetPlan:
        """Say what ``replace_machine`` would make. Raises as that does."""
        ...

    def replace_machine(self, machine: Machine, *, power_off: bool) -> Target:
        """Start to put ``machine``, as it was in a restore point, into the place of what it is now.

        Until ``finalize``, which is one atomic step, it stays what it is.

        Args:
            machine: as it shall be; the one with its id is replaced.
            power_off: power it off when it runs.

        Raises:
            MachineNotFound: there is none with its id.
            UsageError: it runs, or an earlier restore of it is neither confirmed nor undone.
        """
        ...

    def undo_restore(self, name: str, *, force: bool) -> Machine:
        """Bring back the machine that ``replace_machine`` replaced, also when that was broken off.

        Args:
            name: of the machine.
            force: also when it was started since, which loses what it wrote.

        Raises:
            UsageError: there is nothing to undo, the machine runs, or it was started since.
        """
        ...

    def confirm_restore(self, name: str, cancellation: Cancellation) -> Machine:
        """Make a replacement final, running or not, and give up what could be brought back.

        Broken off, it is begun again.

        Raises:
            UsageError: there is nothing to confirm.
        """
        ...
