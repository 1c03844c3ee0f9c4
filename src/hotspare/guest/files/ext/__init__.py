"""ext2, ext3 and ext4, read by our own code.

The layout is that of the kernel's documentation (Documentation/filesystems/ext4). libfsext was tried and is
not used: it loses names of 255 bytes and names that are no UTF-8, and gives wrong numbers of devices.
"""
