"""The free bytes of Btrfs. Begin with map.py."""
