"""What was judged of a partition's scores, and what its gate holds back, in its state.

Applications are taken together by the time at which they were submitted, in buckets. A bucket is
judged twice (:data:`stream.quality.gate.Judged`), and forgotten a window after its final judgement.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from stream.events.structs import Label
from stream.policy import Policy
from stream.quality.gate import RANKINGS, Gate, Judged, decide, opened_by_hand
from stream.quality.newest import NewestDecisions
from stream.quality.ranking import RankingQuality
from stream.quality.tally import JudgedScore, Tally, add_all, merged
from stream.state import keys
from stream.state.codec import Codec
from stream.state.facts import Count
from stream.state.overlay import Overlay

_STATE = keys.own("judged")
_NOTHING = b""
_JUDGED: tuple[Judged, ...] = ("early", "final")


class Judgements(msgspec.Struct, array_like=True):
    """Marks up to which buckets are judged, the gate, and how many entities it holds back."""

    marks: dict[str, int]
    gate: Gate = Gate()
    held: Count = 0


JUDGEMENTS = Codec[Judgements](Judgements, unversioned=msgspec.msgpack.Decoder(Judgements))
TALLY = Codec[Tally](Tally, sound=Tally.is_sound, unversioned=msgspec.msgpack.Decoder(Tally))


class JudgedScores:
    """Judgements and gate of one effect in one partition.

    Args:
        overlay: of the partition's state.
        policy: window, ages, margins.
        effect: whose coefficients are published here.

    Attributes:
        rankings: the newest decisions.

    """

    def __init__(self, overlay: Overlay, policy: Policy, effect: str) -> None:
        self.rankings = NewestDecisions(overlay)
        self._overlay = overlay
        self._effect = effect
        self._settings = policy.gate
        self._window_ms = policy.labels.window_ms
        self._tallies: dict[tuple[Judged, int], Tally] = {}
        self._taken: dict[tuple[Judged, int], list[JudgedScore]] = {}  # not in a tally yet
        self._state_changed = False
        self._newest: dict[Judged, Tally] | None = None
        self._state = self._load_state()
        overlay.attach(self.throw_away, self.write_out)

    # -- scores ------------------------------------------------------------------------------

    def observe(self, label: Label) -> None:
        """Take a label in; each application counts once in either judgement, with its weight."""
        known_ms = max(label.label_time_ms, label.evidence_time_ms or 0)
        further = label.further_scores  # not judged: part of what the two effects add to
        fixed = label.global_score + sum(further.values()) if further else label.global_score
        scores = fixed, label.member_score, label.job_score
        taken = JudgedScore(1, label.label, *scores, label.weight)
        if known_ms - label.application_time_ms <= self._settings.age_ms:
            before = 1.0 if label.previous_weight is None else label.previous_weight
            if label.previous is None:
                self._take("early", label, taken)
            elif label.label or label.weight != before:  # it was taken in as a negative
                self._take("early", label, JudgedScore(-1, 0, *scores, before))
                self._take("early", label, taken)
        if label.final:
            self._take("final", label, taken)

    def judge(self, mark_ms: int | None) -> None:
        """Judge the buckets that event time is past, and let the gate draw the consequence."""
        if mark_ms is None:
            return
        bucket_ms = self._settings.bucket_ms
        changed = False
        for judged in _JUDGED:
            age_ms = self._settings.age_ms if judged == "early" else self._window_ms
            # Before this begin, buckets are complete: strictly past their end plus the age.
            begin_ms = max(mark_ms - 1 - age_ms, 0) // bucket_ms * bucket_ms
            if begin_ms > self._state.marks.get(judged, 0):
                self._state.marks[judged] = begin_ms
                changed = True
        if not changed:
            return
        self._state_changed = True
        self._newest = None
        self._forget(mark_ms)
        if self._settings.enabled:
            evidence = {judged: self._evidence(judged) for judged in _JUDGED}
            self._state.gate = decide(
                self._state.gate,
                self._effect,
                early=evidence["early"],
                final=evidence["final"],
                rankings=self._ranked(),
                settings=self._settings,
                now_ms=mark_ms,
            )

    def newest(self, judged: Judged) -> Tally:
        """Return what the newest applications that were judged come to."""
        if self._newest is None:
            self._newest = {each: self._evidence(each, everything=True) for each in _JUDGED}
        return self._newest[judged]

    # -- the gate ----------------------------------------------------------------------------

    @property
    def gate(self) -> Gate:
        """The gate as it stands."""
        return self._state.gate

    @property
    def held(self) -> int:
        """How many entities wait to be published."""
        return self._state.held

    def hold(self, entity_id: str) -> None:
        """Remember that an entity has changed and was not published."""
        key = keys.HELD + entity_id.encode()
        if self._overlay.get(key) is None:
            self._overlay.change(keys.HELD, key, _NOTHING)
            self._state.held += 1
            self._state_changed = True

    def remove(self, entity_id: str) -> None:
        """Forget that an entity waited, if it did: there is nothing of it to be published."""
        key = keys.HELD + entity_id.encode()
        if self._state.held and self._overlay.get(key) is not None:
            self._overlay.change(keys.HELD, key, None)
            self._state.held -= 1
            self._state_changed = True

    def release(self, most: int) -> list[str]:
        """Give entities that are to be published now, and forget that they waited."""
        if not self._state.held:
            return []
        found = self._overlay.scan(keys.HELD, keys.HELD, keys.after(keys.HELD))
        waiting = [key for key, _ in islice(found, most)]
        for key in waiting:
            self._overlay.change(keys.HELD, key, None)
        self._state.held = self._state.held - len(waiting) if len(waiting) == most else 0
        self._state_changed = True
        return [key[len(keys.HELD) :].decode() for key in waiting]

    def open_by_hand(self, command: int, mark_ms: int | None) -> bool:
        """Obey a command, once; False: it was obeyed before."""
        if command <= self._state.gate.command:
            return False
        if self._state.gate.cause == RANKINGS:
            self.rankings.clear()
        self._state.gate = opened_by_hand(self._state.gate, command, mark_ms or 0)
        self._state_changed = True
        return True

    # -- state -------------------------------------------------------------------------------

    def write_out(self) -> None:
        """Put what changed into the overlay."""
        if self._taken:
            add_all([(self._tally(*bucket), taken) for bucket, taken in self._taken.items()])
        for judged, begin_ms in self._taken:
            value = TALLY.encode(self._tallies[judged, begin_ms])
            prefix = keys.tallies(judged)
            self._overlay.change(prefix, prefix + keys.time_bytes(begin_ms), value)
        self._taken.clear()
        if self._state_changed:
            self._overlay.put(_STATE, JUDGEMENTS.encode(self._state))
            self._state_changed = False

    def throw_away(self) -> None:
        """Go back to what the store says."""
        self._tallies.clear()
        self._taken.clear()
        self._newest = None
        self._state_changed = False
        self._state = self._load_state()

    def _take(self, judged: Judged, label: Label, taken: JudgedScore) -> None:
        bucket_ms = self._settings.bucket_ms
        begin_ms = max(label.application_time_ms, 0) // bucket_ms * bucket_ms
        self._taken.setdefault((judged, begin_ms), []).append(taken)

    def _tally(self, judged: Judged, begin_ms: int) -> Tally:
        found = self._tallies.get((judged, begin_ms))
        if found is None:
            value = self._overlay.get(keys.tallies(judged) + keys.time_bytes(begin_ms))
            found = Tally() if value is None else TALLY.decode(value)
            self._tallies[judged, begin_ms] = found
        return found

    def _ranked(self) -> RankingQuality | None:
        """Judge the newest decisions, where the gate asks for it."""
        if not self._settings.rankings:
            return None
        return self.rankings.decisions.quality(())

    def _evidence(self, judged: Judged, *, everything: bool = False) -> Tally:
        """Sum up the newest buckets that were judged and count as evidence."""
        gate = self._state.gate
        from_ms = gate.early_from_ms if judged == "early" else gate.final_from_ms
        until_ms = self._state.marks.get(judged, 0)
        tallies = [
            tally
            for begin_ms, tally in self._buckets(judged)
            if begin_ms < until_ms and (everything or begin_ms >= from_ms)
        ]
        return merged(reversed(tallies), self._settings.applications)

    def _buckets(self, judged: Judged) -> Iterator[tuple[int, Tally]]:
        """Give all buckets that are kept, in order of time, changed ones as they are now."""
        self.write_out()
        prefix = keys.tallies(judged)
        for key, value in self._overlay.scan(prefix, prefix, keys.after(prefix)):
            yield keys.time_at(key, len(prefix)), TALLY.decode(value)

    def _forget(self, mark_ms: int) -> None:
        """Forget the buckets that are too old to count."""
        self.write_out()
        for judged in _JUDGED:
            prefix = keys.tallies(judged)
            end = prefix + keys.time_bytes(mark_ms - 2 * self._window_ms)
            for key, _ in list(self._overlay.scan(prefix, prefix, end)):
                self._overlay.change(prefix, key, None)
        self._tallies.clear()

    def _load_state(self) -> Judgements:
        value = self._overlay.get(_STATE)
        return Judgements({}) if value is None else JUDGEMENTS.decode(value)
