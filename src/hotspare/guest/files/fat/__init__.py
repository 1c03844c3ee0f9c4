"""FAT12, FAT16, FAT32 and exFAT, read by our own code.

Sources: Microsoft's "FAT: General Overview of On-Disk Format" (1.03) and "exFAT file system specification".
"""
