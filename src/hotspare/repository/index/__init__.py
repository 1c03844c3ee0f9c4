"""Where each chunk lies: immutable sorted segments in the store, looked up in memory or in mapped files.

``segment`` is the stored form, ``table`` the form that is searched, ``chunks`` the index of a whole
repository with what a run is about to add, ``merge`` keeps segments few, ``cache`` keeps tables on disk.
The index is a cache of the packs' tables: nothing is lost with it.
"""

from hotspare.repository.index.chunks import ChunkIndex, Location
from hotspare.repository.index.segment import SEGMENT_ROWS_MAX, PackRecord, Segment, SegmentHeader

__all__ = ["SEGMENT_ROWS_MAX", "ChunkIndex", "Location", "PackRecord", "Segment", "SegmentHeader"]
