"""Which partition a key belongs to: murmur2, as Kafka's Java client and ``murmur2_random`` do it.

There is one partitioner in the product, so that an application, its labels and its coefficients
meet on one worker, and so that a record which a foreign producer put elsewhere can be told.
Reference: ``org.apache.kafka.common.utils.Utils.murmur2`` and ``toPositive``; librdkafka's
``rdmurmur2.c`` gives the same numbers.
"""

from __future__ import annotations

from functools import lru_cache
from struct import unpack_from
from typing import Final

_SEED: Final = 0x9747B28C  # the seed that Kafka chose
_M: Final = 0x5BD1E995  # MurmurHash2's multiplier
_MASK: Final = 0xFFFFFFFF
_CACHED_KEYS: Final = 65_536  # about 10 MB of short keys; a stream's active keys mostly repeat


def murmur2(key: bytes) -> int:
    """Hash a key as Kafka's Java client does.

    Returns:
        A signed 32-bit number, as Java's ``int``.

    """
    length = len(key)
    words = length >> 2
    h = _SEED ^ length
    for word in unpack_from(f"<{words}I", key):
        k = word * _M & _MASK
        h = h * _M & _MASK ^ (k ^ k >> 24) * _M & _MASK
    if length & 3:
        h = (h ^ int.from_bytes(key[words << 2 :], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    h ^= h >> 15
    return h - 0x1_0000_0000 if h & 0x8000_0000 else h


@lru_cache(maxsize=_CACHED_KEYS)
def partition_of(key: bytes, partitions: int) -> int:
    """Tell the partition of a key among ``partitions`` (≥ 1), from 0 on."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
