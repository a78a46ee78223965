"""The entities of one effect: entered when first learned, expired or forgotten.

With ``entity_ttl`` an entity expires when the watermark of its stage is past T + ``entity_ttl``, T
being its newest application. One that is to be forgotten is removed at once, and leaves a marker
for two label windows: labels of its applications up to then, which are still on their way, don't
bring it back. Two windows of event time *and* of wall time: where a log is played, or a clock
closes its windows, this stage's event time runs ahead of the labels that come back to it. One that
is learned of again begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from stream.events.structs import Label
from stream.policy import Policy
from stream.stages.histories import EntityHistories
from stream.state.census import Census
from stream.state.entities import EntityAges, Forgotten
from stream.state.overlay import Overlay

_NO_CLOCK = 1 << 62  # later than everything
_MARKED_WINDOWS = 2  # by then the labels of what was known are final and learned


class Learner(Protocol):
    """Who learns: an effect (:class:`stream.updaters.effect.Effect`), as far as it is used here."""

    @property
    def name(self) -> str:
        """Of the effect."""

    @property
    def entity_of(self) -> Callable[[Label], str | None]:
        """Whose label it is; None: nobody's."""

    def learn(self, label: Label) -> bool:
        """Take a label in; return whether the entity is new."""

    def forget(self, entity_id: str) -> bool:
        """Let an entity go; return whether it was there."""

    def newest_ms(self, entity_id: str) -> int | None:
        """Time of an entity's newest application; None: it is not there."""


class Goes(Protocol):
    """What goes with an entity (:class:`stream.stages.matches.Matches`)."""

    def forget(self, entity_id: str, before_ms: int | None = None) -> None:
        """Let it go; or only if the entity's newest application is before a time."""


class Published(Protocol):
    """What is published of jobs (:class:`stream.stages.applicants.OpenApplications`)."""

    def forget(self, job_id: str, until_ms: int) -> None:
        """Let a job's go, up to a time."""

    def strike_before(self, time_ms: int, asked_ms: int) -> None:
        """Strike markers, as :meth:`stream.state.entities.Forgotten.strike_before` does."""


class Entities:
    """Lets an effect learn, and removes entities.

    Args:
        effect: of the entities.
        overlay: where they are kept. Making this may put writes into it.
        policy: how long entities and markers stay.
        census: where they are counted.

    Attributes:
        histories: what goes with them; None: nothing does. matches, applicants: what goes with
            jobs, too.

    """

    histories: EntityHistories | None = None
    matches: Goes | None = None
    applicants: Published | None = None

    def __init__(self, effect: Learner, overlay: Overlay, policy: Policy, census: Census) -> None:
        settings = policy.effects[effect.name]
        self._effect = effect
        self._census = census
        self._ttl_ms = settings.entity_ttl_ms
        self._marked_ms = _MARKED_WINDOWS * policy.labels.window_ms
        self._forgotten = Forgotten(effect.name, overlay)
        self._ages = EntityAges(effect.name, overlay, kept=self._ttl_ms is not None)
        self._some_entered = False  # since :meth:`expire` last looked

    def learn(self, label: Label) -> None:
        """Take a label in, unless its application was forgotten."""
        entity_id, time_ms = self._effect.entity_of(label), label.application_time_ms
        if entity_id is None:
            return
        if self.counts(entity_id, time_ms) and self._effect.learn(label):
            self._census.entities(1)
            self._ages.enter(entity_id, time_ms)
            self._some_entered = True

    def counts(self, entity_id: str, application_time_ms: int) -> bool:
        """Whether an application counts: its entity was not forgotten since."""
        return self._forgotten.counts(entity_id, application_time_ms)

    @property
    def some_may_expire(self) -> bool:
        """Whether somebody's time may be over though the watermark stands where it did.

        A late label may bring back who has gone.
        """
        return self._some_entered and self._ttl_ms is not None

    def forget(self, entity_id: str, until_ms: int, now_ms: int = 0) -> bool:
        """Let an entity go, and learn nothing more of its applications up to a time.

        Returns whether it was there. A repeat, of which the marker is still there, changes nothing:
        what was learned since stays. Where labels are learned at once (a replay) the wall clock
        ``now_ms`` may be left out, here and in :meth:`expire`.
        """
        if not self.counts(entity_id, until_ms):
            return False
        was_there = self._remove(entity_id)
        if self.histories is not None:
            self.histories.forget(entity_id)
        if self.matches is not None:
            self.matches.forget(entity_id)
        if self.applicants is not None:
            self.applicants.forget(entity_id, until_ms)
        self._forgotten.enter(entity_id, until_ms, now_ms)
        return was_there

    def expire(self, watermark_ms: int | None, now_ms: int = _NO_CLOCK) -> Iterator[str | None]:
        """Let everybody go whose time is over, one step after the other.

        Each step gives who went, or None where one who was looked at stays. The caller may flush
        after any step.
        """
        if watermark_ms is None:
            return
        struck_ms = watermark_ms - self._marked_ms, now_ms - self._marked_ms
        self._forgotten.strike_before(*struck_ms)
        if self.histories is not None:
            self.histories.strike_before(*struck_ms)
        if self.applicants is not None:
            self.applicants.strike_before(*struck_ms)
        if self._ttl_ms is None:
            return
        self._some_entered = False
        limit_ms = watermark_ms - self._ttl_ms
        while found := self._ages.before(limit_ms):
            for entered_ms, entity_id in found:
                self._ages.remove(entity_id, entered_ms)
                newest_ms = self._effect.newest_ms(entity_id)
                if newest_ms is not None and newest_ms < limit_ms:
                    self._remove(entity_id)
                    if self.histories is not None:
                        self.histories.forget(entity_id, limit_ms)
                    if self.matches is not None:
                        self.matches.forget(entity_id, limit_ms)
                    yield entity_id
                    continue
                if newest_ms is not None:
                    self._ages.enter(entity_id, newest_ms)
                yield None

    def _remove(self, entity_id: str) -> bool:
        was_there = self._effect.forget(entity_id)
        if was_there:
            self._census.entities(-1)
        return was_there
