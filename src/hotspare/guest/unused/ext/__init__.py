"""The unused blocks of ext2, ext3 and ext4. Begin with map.py."""
