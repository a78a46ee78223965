"""Fingerprints of content: how a repeat is told from a conflict."""

from __future__ import annotations

from stream.events.structs import Application, Engagement, Features, JobEvent
from stream.labels.changes import application_digest, event_digest
from tests import kit


def test_digests_are_those_of_every_release() -> None:
    """Digests are stored: an event sent again after an upgrade is still a repeat, no conflict."""
    application = Application(
        *("a", "m", "j", 5, Features(kit.ONE, kit.TWO, kit.ONE)),
        *(None, "search", {"skill": ["sql"]}),
    )
    assert application_digest(application).hex() == "8ccaf17f9600e0c0bae5bb8b2f85eee1"
    with_channel = Engagement("e", "a", "m", "j", 5, "message", "mail")
    assert event_digest(with_channel).hex() == "e0aa2aada7156d375b8152a2aec654f5"
    without = Engagement("e", "a", "m", "j", 5, "message")
    assert event_digest(without).hex() == "8543176d2b09fe100830ecf2325c08b4"
    assert event_digest(JobEvent("x", "j", 5, "closed")).hex() == (
        "6e4ee1d5b234f29fbadc3c92d3a08975"
    )
