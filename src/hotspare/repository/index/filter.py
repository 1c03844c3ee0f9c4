"""A filter that tells most ids that are not in a table, without a look at the table.

A Bloom filter in blocks of one word (Lang et al., Performance-Optimal Filtering, VLDB 2019): a key has one
word, and sets four of its bits. So a question costs one memory access, and many keys are asked at once
with a few array operations. Chunk ids are keyed hashes: their bits serve as they are.
"""

import numpy as np
import numpy.typing as npt

_WORDS_MAX = (1 << 24) - 1
Words = npt.NDArray[np.uint64]

_KEYS_PER_WORD = 4
"""16 bits a key: about one id in 170 that is not there is taken for one that may be."""
_WORD_BITS = 24
"""The low bits of a key that choose bits within its word: four times six."""


def build(low: Words) -> Words:
    """Make the filter of keys: the second 8 bytes of chunk ids."""
    words = np.zeros(min(max(1, -(-len(low) // _KEYS_PER_WORD)), _WORDS_MAX), dtype=np.uint64)
    step = 1 << 20
    for start in range(0, len(low), step):
        part = low[start : start + step]
        np.bitwise_or.at(words, _places(part, len(words)), _masks(part))
    return words


def may_have(words: Words, low: Words) -> npt.NDArray[np.bool_]:
    """Tell for each key whether the table may have it; False is certain."""
    masks = _masks(low)
    found: npt.NDArray[np.bool_] = words[_places(low, len(words))] & masks == masks
    return found


def may_have_one(words: Words, low: int) -> bool:
    """Tell the same of one key."""
    mask = 1 << (low & 63) | 1 << (low >> 6 & 63) | 1 << (low >> 12 & 63) | 1 << (low >> 18 & 63)
    return int(words[(low >> _WORD_BITS) * len(words) >> 64 - _WORD_BITS]) & mask == mask


def _places(low: Words, words: int) -> Words:
    """Spread keys evenly over the words; there are fewer than 2^24, so nothing overflows."""
    return (low >> np.uint64(_WORD_BITS)) * np.uint64(words) >> np.uint64(64 - _WORD_BITS)


def _masks(low: Words) -> Words:
    one, six_bits = np.uint64(1), np.uint64(63)
    mask = one << (low & six_bits)
    for shift in (6, 12, 18):
        mask |= one << (low >> np.uint64(shift) & six_bits)
    return mask
