"""Files that Windows compacted ("CompactOS"), unpacked by our own code.

Such a file has its content in a stream of its own: a table of where chunks end, then the chunks, each
compressed by XPRESS with Huffman codes (Microsoft's [MS-XCA], 2.1 and 2.2), or as it is where that is not
longer. libfsntfs can do that too, but was seen to fail with some chunks of XPRESS, and to give wrong
bytes of LZX, which is refused here.
"""

import struct
from collections.abc import Iterator

from hotspare.errors import FileSystemUnreadable
from hotspare.guest.files.file_system import FileContent
from hotspare.guest.files.nodes import damaged
from hotspare.guest.files.ntfs.record import Tag

STREAM = "WofCompressedData"
_FILE_PROVIDER = (1, 2, 1)
"""Version of the reparse point, the provider "file", its version."""
_CHUNKS = {0: 4096, 2: 8192, 3: 16384}
"""Bytes, by the way of compression; 1 is LZX."""
_WIDE = 1 << 32
"""Bytes of content from which on the table has entries of eight bytes."""
_TABLE = 256
"""Bytes of a chunk's code lengths: 512 symbols of four bits."""
_CODE_BITS = 15
_LITERALS = 256


def chunk_of(value: bytes) -> int | None:
    """Give the bytes of a chunk that a reparse point tells; None where it is not compacted as we know it."""
    if len(value) < 24 or struct.unpack_from("<I", value)[0] != Tag.COMPRESSED_BY_WOF:
        return None
    *provider, way = struct.unpack_from("<IIII", value, 8)
    return _CHUNKS.get(way) if tuple(provider) == _FILE_PROVIDER else None


class CompactContent:
    """The content of a compacted file.

    Args:
        stream: where it is kept.
        size: of the content.
        chunk: bytes of each piece of it, but the last.
    """

    def __init__(self, stream: FileContent, size: int, chunk: int) -> None:
        self.size = size
        self._stream = stream
        self._chunk = chunk
        self._width = 8 if size >= _WIDE else 4
        self._chunks = -(-size // chunk)
        self._heap = (self._chunks - 1) * self._width
        self._last: tuple[int, bytes] = (-1, b"")

    def read(self, offset: int, length: int) -> bytes:
        """Give the bytes from ``offset``; see the contract."""
        end = min(offset + length, self.size)
        pieces: list[bytes] = []
        while 0 <= offset < end:
            number, start = divmod(offset, self._chunk)
            piece = self._unpacked(number)[start : start + end - offset]
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def holes(self) -> Iterator[tuple[int, int]]:
        """Yield nothing: what is not stored is not known."""
        return iter(())

    def close(self) -> None:
        """Let go of it."""
        self._stream.close()

    def _unpacked(self, number: int) -> bytes:
        if self._last[0] != number:
            size = min(self._chunk, self.size - number * self._chunk)
            start = self._end(number - 1)
            end = self._end(number) if number + 1 < self._chunks else self._stream.size - self._heap
            if not 0 < end - start <= size:
                raise _wrong("a chunk of impossible length")
            raw = self._stream.read(self._heap + start, end - start)
            self._last = (number, raw if len(raw) == size else unpack(raw, size))
        return self._last[1]

    def _end(self, number: int) -> int:
        """Give where a chunk ends, from the end of the table on."""
        if number < 0:
            return 0
        raw = self._stream.read(number * self._width, self._width)
        if len(raw) < self._width:
            raise _wrong("a table that is cut off")
        return int.from_bytes(raw, "little")


def unpack(raw: bytes, size: int) -> bytes:
    """Decompress one chunk into exactly ``size`` bytes.

    Raises:
        FileSystemUnreadable: it is no such chunk.
    """
    symbols, lengths = _codes(raw[:_TABLE])
    source = raw[_TABLE:] + bytes(8)  # the code may look a little beyond its end
    limit = len(source)
    out = bytearray()
    bits, spare, at = (
        int.from_bytes(source[2:4], "little") | int.from_bytes(source[:2], "little") << 16,
        16,
        4,
    )
    while len(out) < size:
        index = bits >> (32 - _CODE_BITS)
        symbol, used = symbols[index], lengths[index]
        match_bits = (symbol - _LITERALS) >> 4 if symbol >= _LITERALS else 0
        bits = bits << used & 0xFFFFFFFF
        spare -= used
        if spare < 0:
            bits |= (source[at] | source[at + 1] << 8) << -spare
            spare, at = spare + 16, at + 2
        if symbol < _LITERALS:
            out.append(symbol)
        else:
            length = symbol & 15
            if length == 15:
                length, at = _long_length(source, at)
            distance = (1 << match_bits) + (bits >> 32 - match_bits)
            bits = bits << match_bits & 0xFFFFFFFF
            spare -= match_bits
            _copy(out, distance, min(length + 3, size - len(out)))
            if spare < 0:
                bits |= (source[at] | source[at + 1] << 8) << -spare
                spare, at = spare + 16, at + 2
        if at > limit - 3:
            raise _wrong("a chunk that ends early")
    return bytes(out)


def _codes(table: bytes) -> tuple[list[int], list[int]]:
    """Make of the code lengths what the next 15 bits mean: a symbol, and how many bits it takes."""
    if len(table) < _TABLE:
        raise _wrong("a chunk that ends early")
    by_length: list[list[int]] = [[] for _ in range(16)]
    for place, byte in enumerate(table):
        by_length[byte & 15].append(2 * place)
        by_length[byte >> 4].append(2 * place + 1)
    symbols: list[int] = []
    lengths: list[int] = []
    for length in range(1, 16):
        span = 1 << _CODE_BITS - length
        for symbol in by_length[length]:
            symbols += [symbol] * span
        lengths += [length] * span * len(by_length[length])
    if len(symbols) != 1 << _CODE_BITS:
        raise _wrong("codes that contradict each other")
    return symbols, lengths


def _long_length(source: bytes, at: int) -> tuple[int, int]:
    length, at = source[at] + 15, at + 1
    if length == 255 + 15:
        length, at = source[at] | source[at + 1] << 8, at + 2
        if length < 15:
            raise _wrong("a length that makes no sense")
    return length, at


def _copy(out: bytearray, distance: int, length: int) -> None:
    start = len(out) - distance
    if start < 0:
        raise _wrong("a reference before its begin")
    if distance >= length:
        out += out[start : start + length]
        return
    piece = bytes(out[start:])
    out += (piece * (length // distance + 1))[:length]


def _wrong(what: str) -> FileSystemUnreadable:
    return damaged("ntfs", f"a compacted file has {what}")
