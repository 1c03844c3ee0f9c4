"""Whether an image that a killed run left can be written on."""

import time
from pathlib import Path

from hotspare.block.qemu import run_tool
from hotspare.errors import HotspareError, PermissionRefused

_WAIT_SECONDS = 30.0
"""How long the server of a run that was killed may take to write out what it holds."""


def is_sound(path: Path, image_format: str) -> bool:
    """Tell whether an image is whole in itself; what a crash leaked in a qcow2 is given back first."""
    mend = ["-r", "leaks"] if image_format == "qcow2" else []
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            run_tool(
                ["qemu-img", "check", "-q", "-f", image_format, *mend, str(path.absolute())],
                path,
                timeout=None,
            )
        except PermissionRefused:  # the server still has it
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        except HotspareError:
            return False
        else:
            return True
