"""Files of volumes that only a kernel reads right, read in a micro-VM with a kernel of its own.

XFS, Btrfs, whatever needs its journal replayed, logical volumes of any kind: Linux is the reference for them,
but a guest's file system must never be mounted by the kernel of the host, which trusts it. So QEMU boots the
distribution's kernel with a first root file system of what is installed anyway (``initramfs.py``): the Python
that runs us, our agent (``inside/``), drivers and LVM. It has no network and no disk of its own. The disks of
the machine come to it over NBD (``machine.py``), and what its kernel writes to them, such as a replayed
journal, goes to an overlay that is thrown away.
"""
