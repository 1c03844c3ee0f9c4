"""Writing down what people are to be told; it takes milliseconds, and never fails what it is told of."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hotspare.catalog.policy_files import PolicyFiles
from hotspare.errors import HotspareError
from hotspare.notices.outbox import FILE_NAME, Outbox
from hotspare.policy.occurrence import Occurrence


def tell(
    policies: PolicyFiles, state_folder: Path, occurrences: Sequence[Occurrence], warn: Callable[[str], None]
) -> None:
    """Have those told who want to know.

    Args:
        policies: has the receivers.
        state_folder: has the outbox; it is only made when there is a receiver.
        occurrences: what is to be told.
        warn: told what keeps anybody from being told.
    """
    try:
        receivers = policies.receivers()
        if occurrences and (receivers or (state_folder / FILE_NAME).exists()):
            with Outbox.open(state_folder, warn) as outbox:
                outbox.note(occurrences, receivers)
    except HotspareError as error:
        warn(f"Nobody is told of {occurrences[0].title if occurrences else 'anything'}. {error}")
