"""The store of restore points: deduplicated, compressed, encrypted where it is written, always whole.

Data comes down through ``writer`` (chunk -> id -> known? -> compress -> seal -> pack -> storage) and is
noted in ``index``; ``disk_map`` lists a disk's chunks; ``point`` names the maps of one machine at one
instant. The way back is ``reader`` and, as a disk that can be read like any other, ``disk``.
``docs/repository-format.md`` is the specification of every byte.
"""
