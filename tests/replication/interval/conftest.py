"""A scratch folder that QEMU can enter."""

from tests.platforms.libvirt.conftest import scratch_folder

__all__ = ["scratch_folder"]
