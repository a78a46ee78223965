"""Keys of the store and their order.

A key is one family byte, then fields. Ids inside a key are length-prefixed (2 bytes, big-endian)
unless they end it; times are 8 bytes, big-endian, so that byte order is time order.

======  =====================================  ==========================================
family  fields                                 value
======  =====================================  ==========================================
``a``   job, application                       application record (facts, marker, waiting)
``b``   job                                    what the job's evidence has settled
``c``   ``member`` or ``job``, entity          history
``d``   t of the first, hash                   a run of deadlines, in order
``d``                                          the last deadline taken out of a run still there
``e``   job, engagement                        engagement record (applied, orphan)
``g``   effect, entity                         up to when applications of a forgotten entity count
                                               for nothing
``h``   entity                                 empty: coefficients that the gate holds back
``i``   job                                    its applicants' best scores, and its matches
``j``   job, job event                         job event fact
``k``   job                                    preferences of the job
``m``   member, job                            history of the pair
``n``   effect, entity                         posterior
``o``   member, job, application               empty: open applications that are published
``p``   job, A, application                    empty: pending applications by time
``q``   ``e`` or ``f``, begin of the bucket    tally of scores, as known early or final
``r``   number                                 newest decisions, some at a time
``s``   name                                   the partition's own state (format, channels, …)
``t``   effect, T or earlier, entity           empty: entities by age (``entity_ttl``)
``x``   job, application, engagement           empty: engagements by application (those that
                                               its record, which lists some, does not list)
======  =====================================  ==========================================
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

_SHORT = Struct(">H")
_TIME = Struct(">Q")
TIME_BYTES = _TIME.size
MAX_TIME = (1 << 63) - 1
_PREFIXES = 1 << 14  # prefixes of jobs that are not built anew

APPLICATION, SETTLED, DEADLINES, ENGAGEMENT = b"a", b"b", b"d", b"e"
FORGOTTEN, HELD, JOB_EVENT, POSTERIOR = b"g", b"h", b"j", b"n"
HISTORY, PAIR, PREFERENCES, MATCHES, PUBLISHED = b"c", b"m", b"k", b"i", b"o"
PENDING, _TALLY, DECISIONS, _OWN, AGE, _ENGAGEMENTS = b"p", b"q", b"r", b"s", b"t", b"x"

_FAMILIES = {
    APPLICATION: "application",
    SETTLED: "settled evidence of job",
    HISTORY: "history",
    PAIR: "history of pair",
    PREFERENCES: "preferences of job",
    MATCHES: "matches of job",
    PUBLISHED: "published application",
    DEADLINES: "deadlines",
    ENGAGEMENT: "engagement",
    FORGOTTEN: "forgotten entity",
    HELD: "held back entity",
    JOB_EVENT: "job event",
    PENDING: "pending application",
    _TALLY: "tally of scores",
    DECISIONS: "newest decisions",
    _OWN: "own state",
    AGE: "entity by age",
    _ENGAGEMENTS: "engagement of application",
}


def sized(text: str) -> bytes:
    """Length-prefixed UTF-8 of an id inside a key."""
    raw = text.encode()
    return _SHORT.pack(len(raw)) + raw


@lru_cache(_PREFIXES)
def prefix(family: bytes, owner: str) -> bytes:
    """Prefix of all that a family has of one job or effect."""
    return family + sized(owner)


def key(family: bytes, owner: str, name: str) -> bytes:
    """Key of what a job or effect has under an id."""
    return prefix(family, owner) + name.encode()


def parts(key: bytes) -> tuple[bytes, bytes]:
    """Job or effect (UTF-8) that a key begins with, and what comes after it."""
    (size,) = _SHORT.unpack_from(key, 1)
    return key[3 : 3 + size], key[3 + size :]


def pairs_of(member_id: str) -> bytes:
    """Prefix of the pairs of a member."""
    return PAIR + sized(member_id)


def published(member_id: str, job_id: str, application_id: str) -> bytes:
    """Key of an open application that is published."""
    return prefix(PUBLISHED, member_id) + sized(job_id) + application_id.encode()


def engagements_of(job_id: str, application_id: str) -> bytes:
    """Prefix of the engagements of an application."""
    return prefix(_ENGAGEMENTS, job_id) + sized(application_id)


def tallies(judged: str) -> bytes:
    """Prefix of the tallies of one judgement, ``early`` or ``final``."""
    return _TALLY + judged[:1].encode()


def own(name: str) -> bytes:
    """Key of a piece of the partition's own state."""
    return _OWN + name.encode()


def time_bytes(time_ms: int) -> bytes:
    """A time inside a key; below zero counts as zero, where no event is."""
    return _TIME.pack(min(max(time_ms, 0), MAX_TIME))


def time_at(key: bytes, offset: int) -> int:
    """Read a time back out of a key."""
    (time_ms,) = _TIME.unpack_from(key, offset)
    return int(time_ms)


def timed(prefix: bytes, time_ms: int, name: str) -> bytes:
    """Key of an id by time."""
    return prefix + time_bytes(time_ms) + name.encode()


def time_and_id(key: bytes, offset: int) -> tuple[int, str]:
    """Read both back out of a key whose prefix ends at ``offset``."""
    return time_at(key, offset), key[offset + TIME_BYTES :].decode()


def after(prefix: bytes) -> bytes:
    """Smallest key above every key that starts with the prefix (prefixes never end in 0xff…)."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1])


def in_words(key: bytes) -> str:
    """Tell a person what a key is of."""
    if key[:1] == POSTERIOR:
        effect, entity_id = parts(key)
        return f"{effect.decode()} {entity_id.decode()}"
    return f"{_FAMILIES.get(key[:1], 'unknown key')} {key[1:]!r}"
