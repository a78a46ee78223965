"""Whether a store can be brought up from a changelog."""

from __future__ import annotations

import pytest

from stream.errors import StateError
from stream.worker.changelog import Changelog


def test_a_store_of_an_earlier_embedded_broker_is_refused_with_the_way_out() -> None:
    """A new broker's changelog is shorter than what the folder has seen."""
    embedded = Changelog("127.0.0.1:1", "test", ("job", 0), whole_units=True)
    old = embedded.fresh(0).at(100, 0)
    with pytest.raises(StateError, match="remove the folder, or name another --data"):
        embedded.check(old, 0, 0)
    embedded.check(old, 0, 100)
    kafka = Changelog("127.0.0.1:1", "test", ("job", 0))
    with pytest.raises(StateError, match="must be compacted, never deleted from"):
        kafka.check(old, 0, 0)
