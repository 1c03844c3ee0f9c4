"""Names of the lab's machines.

A name ends in the pid of the process that owns the machine, so that parallel runs never meet and the
leftovers of a dead run can be told from the machines of a living one.
"""

import os
import re
from pathlib import Path

PREFIX = "hotspare-lab-"

_NAME = re.compile(re.escape(PREFIX) + r".+-(\d+)")


def domain_name(label: str) -> str:
    """Give the libvirt name for a machine of this process: ``hotspare-lab-web-4711``.

    Use it as well for machines that the product under test is to create, so that ``sweep`` knows them.
    """
    return f"{PREFIX}{label}-{os.getpid()}"


def is_leftover(name: str) -> bool:
    """Tell whether the name belongs to the lab and its owner is gone."""
    match = _NAME.fullmatch(name)
    return match is not None and not Path("/proc", match[1]).exists()
