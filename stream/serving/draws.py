"""Standard normal numbers that depend on a seed and a name alone.

To explore, each entity's coefficients are drawn from what is believed of them. Drawn from a common
stream of random numbers, a candidate's draw would depend on who else is in the list. So the numbers
of an entity are made of a hash of seed, effect, id and model version, counted on by SplitMix64
(Steele, Lea & Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014) and made
normal by Box and Muller (1958).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's increment; the next two are its mixers
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def normals(
    seed: int, effect: str, ids: Sequence[str], version: str, size: int
) -> NDArray[np.float64]:
    """Return independent standard normal numbers (n, size) for n ids."""
    stem = blake2b(f"{seed}\0{version}\0{effect}\0".encode(), digest_size=8)
    keys = []
    for each in ids:
        hashed = stem.copy()
        hashed.update(each.encode(errors="surrogatepass"))
        keys.append(hashed.digest())
    pairs = (size + 1) // 2
    counts = np.arange(1, 2 * pairs + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.frombuffer(b"".join(keys), "<u8")[:, None] + counts * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        z ^= z >> np.uint64(31)
    uniform = ((z >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # inside of 0 … 1
    radius = np.sqrt(-2.0 * np.log(uniform[:, :pairs]))
    angle = 2.0 * np.pi * uniform[:, pairs:]
    return np.hstack([radius * np.cos(angle), radius * np.sin(angle)])[:, :size]
