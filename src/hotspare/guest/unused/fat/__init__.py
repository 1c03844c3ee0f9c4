"""The unused clusters of FAT12, FAT16 and FAT32 (map.py), and of exFAT (exfat.py)."""
