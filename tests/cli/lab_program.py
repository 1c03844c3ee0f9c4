"""The program for machines of the lab: on qemu:///system, with a scratch folder that QEMU can enter."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.program import Program


@contextmanager
def program_for_libvirt(folder: Path) -> Iterator[Program]:
    """Give the program with a new repository, all of it under ``folder`` but the scratch files."""
    program = Program(folder)
    with tempfile.TemporaryDirectory(prefix="hotspare-test-", dir="/var/tmp") as scratch:
        Path(scratch).chmod(0o711)
        program.environment |= {"HOTSPARE_PLATFORM": "qemu:///system", "HOTSPARE_SCRATCH_FOLDER": scratch}
        program.expect("repo", "create")
        yield program
