"""The gate of one effect in one partition: what makes the score worse is not published.

::

             the whole score is worse than without the effect, beyond the
             margin and beyond chance, over the newest applications
      open ───────────────────────────────────────────────────────────▶ paused
           ◀───────────────────────────────────────────────────────────
             by what paused it, not worse than half the margin;
             or ``hearback gate open``

Worse is the mean over applications of (log loss of the whole score − log loss without the effect),
in nats; beyond chance is three standard errors above zero. It is judged twice: ``early``, by the
labels known when an application has a certain age, with their weights and with the scores' level
taken out (those are not a fair sample), and ``final``, when windows have closed, as it stands.

While it is paused learning goes on, and so does judging: scores inside the worker always use the
effect. When it opens, judgements of earlier applications count no more as final ones: they are what
it was paused for; opened by hand, early ones neither.

With ``[gate] rankings`` the newest decisions are a third judgement (:mod:`stream.quality.ranking`):
worse is a whole score whose AUC lies below that of its best part, one that does without the effect,
with all of the 95 % interval. It opens once the mean lies below no more.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from stream.effects import JOB, MEMBER
from stream.policy import GateSettings
from stream.quality.ranking import RankingQuality
from stream.quality.tally import Tally

Judged = Literal["early", "final"]
RANKINGS: Final = "rankings"
Cause = Literal["early", "final", "rankings"]

_PARTS = {"global": (), "with_member": (MEMBER.name,), "with_job": (JOB.name,)}
_CHANCE = 3.0  # standard errors; it is looked at several times a day


class Gate(msgspec.Struct, frozen=True, array_like=True):
    """The state of one gate.

    ``cause``: by which judgement it is paused; None: it is open. Applications submitted before
    ``early_from_ms`` and ``final_from_ms`` are no evidence. ``command``: number of the newest
    command that was obeyed. ``pauses``: how often it has paused.
    """

    cause: Cause | None = None
    early_from_ms: int = 0
    final_from_ms: int = 0
    command: int = -1
    pauses: int = 0

    @property
    def open(self) -> bool:
        """Whether coefficients are published."""
        return self.cause is None


def decide(
    gate: Gate,
    effect: str,
    *,
    early: Tally,
    final: Tally,
    rankings: RankingQuality | None = None,
    settings: GateSettings,
    now_ms: int,
) -> Gate:
    """Draw the consequence of the newest judgements.

    Args:
        gate: as it was. effect: whose.
        early, final: of the newest applications that are evidence.
        rankings: of the newest decisions; None: they are not asked for, or there are none.
        settings: how many it takes, and the margin.
        now_ms: event time; applications from now on are new evidence.

    """
    judged: dict[Judged, Tally] = {"early": early, "final": final}
    if gate.cause is None:
        for name, tally in judged.items():
            if tally.applications < settings.applications:
                continue
            worse, error = worse_by(tally, effect, name)
            if worse > settings.margin and worse > _CHANCE * error:
                return msgspec.structs.replace(gate, cause=name, pauses=gate.pauses + 1)
        if rankings is not None and rankings.harms and effect not in _PARTS[rankings.best]:
            return msgspec.structs.replace(gate, cause=RANKINGS, pauses=gate.pauses + 1)
        return gate
    if gate.cause == RANKINGS:
        if rankings is None or rankings.gain.value >= 0.0 or effect in _PARTS[rankings.best]:
            return msgspec.structs.replace(gate, cause=None, final_from_ms=now_ms)
        return gate
    tally = judged[gate.cause]
    if tally.applications >= settings.applications:
        worse, _ = worse_by(tally, effect, gate.cause)
        if worse <= settings.margin / 2:
            return msgspec.structs.replace(gate, cause=None, final_from_ms=now_ms)
    return gate


def opened_by_hand(gate: Gate, command: int, now_ms: int) -> Gate:
    """Obey a command: open, and judge by what comes from now on."""
    return msgspec.structs.replace(
        gate, cause=None, early_from_ms=now_ms, final_from_ms=now_ms, command=command
    )


def worse_by(tally: Tally, effect: str, judged: Judged) -> tuple[float, float]:
    """By how much an effect makes the score worse, in nats, and the standard error."""
    return tally.worse_but_for_level(effect) if judged == "early" else tally.worse(effect)
