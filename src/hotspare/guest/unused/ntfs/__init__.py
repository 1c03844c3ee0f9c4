"""The unused clusters of NTFS. Begin with map.py."""
