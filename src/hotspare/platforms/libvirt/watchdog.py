"""A process of its own that sets a guest free when ours cannot: killed, stopped, stuck, cut off from libvirt.

It speaks to libvirt over a connection of its own (``virsh``), and takes part in nothing that ours waits for.
"""

import shutil
import subprocess
from contextlib import suppress
from typing import Self

_PROGRAMS = ("sh", "virsh", "timeout", "head")
_END_SECONDS = 5
_HANDED_OVER: list[subprocess.Popen[bytes]] = []
"""Those left at work: Python would complain about processes that it forgets while they run."""

# $1 is the URI, $2 the domain's UUID, $3 the agent's request that ends the hooks, or empty, $4 how many
# seconds the guest may be frozen. Lines on standard input: "freezing", then "thawed" when all is well. Its
# end without that word means that we are gone, silence after "freezing" that we are stuck.
_SCRIPT = """
read -r word || word=gone
[ "$word" = freezing ] && word=$(timeout "$4" head -n 1)
[ "$word" = thawed ] && exit 0
attempt=0
thawed=
while [ $attempt -lt 120 ]; do
    [ "$thawed" ] || { timeout 30 virsh --quiet --connect "$1" domfsthaw "$2" && thawed=yes; }
    if [ "$thawed" ]; then
        [ "$3" ] || exit 0
        timeout 30 virsh --quiet --connect "$1" qemu-agent-command "$2" "$3" && exit 0
    fi
    attempt=$((attempt + 1))
    sleep 2
done
"""


class Watchdog:
    """One process, for one freeze."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    @classmethod
    def start(cls, uri: str, uuid: str, release: str, seconds: float) -> Self | None:
        """Start it; None where a program is missing that it needs.

        Args:
            uri: of libvirt.
            uuid: of the domain.
            release: the agent's request that ends the hooks, or empty.
            seconds: how long the guest may be frozen, from ``freezing`` on.

        Raises:
            OSError: the host has no room for another process.
        """
        if any(shutil.which(program) is None for program in _PROGRAMS):
            return None
        return cls(
            subprocess.Popen(
                ["sh", "-c", _SCRIPT, "hotspare-thaw", uri, uuid, release, str(seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C and Ctrl-Z on the terminal are for us, not for it
            )
        )

    def freezing(self) -> bool:
        """Tell it that the guest is about to be frozen; False when it is gone and could not help."""
        return self._say(b"freezing\n")

    def dismiss(self) -> None:
        """Tell it that all is well, and wait for its end."""
        self._say(b"thawed\n")
        self._close()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            # Its time was over before ours. What it still wants to do is done, and would only disturb others.
            self.process.kill()
            self.process.wait()

    def hand_over(self) -> None:
        """Leave the guest to it; it goes on after our end."""
        self._close()
        _HANDED_OVER.append(self.process)

    def _say(self, line: bytes) -> bool:
        stdin = self.process.stdin
        if stdin is None or stdin.closed:
            return False
        try:
            stdin.write(line)
            stdin.flush()
        except OSError:
            return False
        return True

    def _close(self) -> None:
        if self.process.stdin is not None:
            with suppress(OSError):  # what could not be written before is tried again
                self.process.stdin.close()
