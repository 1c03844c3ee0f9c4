"""The free blocks of XFS. Begin with map.py."""
