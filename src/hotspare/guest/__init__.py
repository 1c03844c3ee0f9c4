"""What is inside a machine's disks.

``volumes/`` finds partitions and logical volumes, ``unused/`` says which bytes of them no file system needs,
``files/`` reads their files. Nothing here writes to a disk, and nothing believes what it reads: a disk comes
from a guest, and a guest may be hostile.
"""
