"""Keys of the store and their order.

A key is one family byte, then fields. Ids inside a key are length-prefixed (2 bytes, big-endian)
unless they end it; times are 8 bytes, big-endian, so that byte order is time order.

======  =====================================  ==========================================
family  fields                                 value
======  =====================================  ==========================================
``a``   job, application                       application record (facts, marker, waiting)
``b``   job                                    what the job's evidence has settled
``d``   t of the first, hash                   a run of deadlines, in order
``d``                                          the last deadline taken out of a run still there
``e``   job, engagement                        engagement record (applied, orphan)
``g``   effect, entity                         up to when applications of a forgotten entity count
                                               for nothing
``h``   entity                                 empty: coefficients that the gate holds back
``j``   job, job event                         job event fact
``n``   effect, entity                         posterior
``p``   job, A, application                    empty: pending applications by time
``q``   ``e`` or ``f``, begin of the bucket    tally of scores, as known early or final
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
MAX_TIME = (1 << 63) - 1
_PREFIXES = 1 << 14  # prefixes of jobs that are not built anew


def sized(text: str) -> bytes:
    """Length-prefixed UTF-8 of an id inside a key."""
    raw = text.encode()
    return _SHORT.pack(len(raw)) + raw


_FAMILIES = {
    b"a": "application",
    b"b": "settled evidence of job",
    b"d": "deadlines",
    b"e": "engagement",
    b"g": "forgotten entity",
    b"h": "held back entity",
    b"j": "job event",
    b"p": "pending application",
    b"q": "tally of scores",
    b"s": "own state",
    b"t": "entity by age",
    b"x": "engagement of application",
}


@lru_cache(_PREFIXES)
def _of_job(family: bytes, job_id: str) -> bytes:
    return family + sized(job_id)


def time_bytes(time_ms: int) -> bytes:
    """A time inside a key; below zero counts as zero, where no event is."""
    return _TIME.pack(min(max(time_ms, 0), MAX_TIME))


def time_at(key: bytes, offset: int) -> int:
    """Read a time back out of a key."""
    (time_ms,) = _TIME.unpack_from(key, offset)
    return int(time_ms)


def application(job_id: str, application_id: str) -> bytes:
    """Key of an application record."""
    return _of_job(b"a", job_id) + application_id.encode()


def engagement(job_id: str, engagement_id: str) -> bytes:
    """Key of an engagement record."""
    return _of_job(b"e", job_id) + engagement_id.encode()


def engagements_of(job_id: str, application_id: str) -> bytes:
    """Prefix of the engagements of an application."""
    return b"x" + sized(job_id) + sized(application_id)


def job_event(job_id: str, job_event_id: str) -> bytes:
    """Key of a job event fact."""
    return b"j" + sized(job_id) + job_event_id.encode()


def pending(job_id: str) -> bytes:
    """Prefix of a job's pending applications."""
    return _of_job(b"p", job_id)


def settled(job_id: str) -> bytes:
    """Key of what a job's evidence has settled."""
    return b"b" + job_id.encode()


DEADLINES_DONE = b"d"
"""Key of the last deadline taken out, while a run that held it is still there."""


def deadlines(first_ms: int, digest: bytes) -> bytes:
    """Key of a run of deadlines: the time of its first, and what tells it from others."""
    return DEADLINES_DONE + time_bytes(first_ms) + digest


def posterior(effect: str, entity_id: str) -> bytes:
    """Key of an entity's posterior."""
    return b"n" + sized(effect) + entity_id.encode()


def posteriors(effect: str) -> bytes:
    """Prefix of an effect's posteriors."""
    return b"n" + sized(effect)


def entity_of(key: bytes) -> str:
    """Entity id of a key of the families ``n`` and ``g``."""
    (size,) = _SHORT.unpack_from(key, 1)
    return key[3 + size :].decode()


def job_of(key: bytes) -> bytes:
    """Job id (UTF-8) of a key that begins with it, length-prefixed."""
    (size,) = _SHORT.unpack_from(key, 1)
    return key[3 : 3 + size]


def effect_and_entity(key: bytes) -> tuple[str, str]:
    """Effect and entity id of a key of the families ``n`` and ``g``."""
    return job_of(key).decode(), entity_of(key)


def age(effect: str, time_ms: int, entity_id: str) -> bytes:
    """Key of an entity's entry by age."""
    return ages(effect) + time_bytes(time_ms) + entity_id.encode()


def ages(effect: str) -> bytes:
    """Prefix of an effect's entities by age."""
    return b"t" + sized(effect)


def aged(key: bytes) -> tuple[int, str]:
    """Time and entity id of an entry by age."""
    (size,) = _SHORT.unpack_from(key, 1)
    return time_at(key, 3 + size), key[3 + size + _TIME.size :].decode()


def age_entry(key: bytes) -> tuple[str, int, str]:
    """Effect, time and entity id of an entry by age."""
    return job_of(key).decode(), *aged(key)


def forgotten(effect: str, entity_id: str) -> bytes:
    """Key of a forgotten entity's marker."""
    return forgotten_of(effect) + entity_id.encode()


def forgotten_of(effect: str) -> bytes:
    """Prefix of an effect's forgotten entities."""
    return b"g" + sized(effect)


def in_words(key: bytes) -> str:
    """Tell a person what a key is of."""
    if key[:1] == b"n":
        (size,) = _SHORT.unpack_from(key, 1)
        return f"{key[3 : 3 + size].decode()} {entity_of(key)}"
    return f"{_FAMILIES.get(key[:1], 'unknown key')} {key[1:]!r}"


HELD = b"h"
"""Prefix of the entities whose coefficients are held back."""


def tallies(judged: str) -> bytes:
    """Prefix of the tallies of one judgement, ``early`` or ``final``."""
    return b"q" + judged[:1].encode()


def tally(judged: str, begin_ms: int) -> bytes:
    """Key of a tally: of the applications submitted from a time on."""
    return tallies(judged) + time_bytes(begin_ms)


def own(name: str) -> bytes:
    """Key of a piece of the partition's own state."""
    return b"s" + name.encode()


def after(prefix: bytes) -> bytes:
    """Smallest key above every key that starts with the prefix (prefixes never end in 0xff…)."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1])
