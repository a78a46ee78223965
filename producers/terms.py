"""What members' profiles say, and which of it recruiters prefer.

Each member has a title and two to four skills. Where ``preference_sd`` s is above 0, a term t of a
candidate adds to the log-odds of an answer by job j, for a candidate found through channel c,

    w_jt + w_jct,    both drawn from N(0, s²/2), less their mean over all members' terms,

so that half of a preference is the job's own whatever the channel, and half the channel's. Unknown
channels have no part of their own. The terms' effects are in nobody's features: only who counts
the terms of those who were answered can learn them. s = 0.5 is a nuance (the odds change by a
factor of 1.6 for one standard deviation), 1 a clear preference (2.7), 2 close to a requirement (7).

Shapes: M members, J jobs, C channels and the unknown one first, T terms; n applications.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from producers.truth import SimulationSettings, generator, job_id

CHANNELS: Final = ("job_applicants", "search", "recommended")
TITLES: Final = ("analyst", "engineer", "designer", "nurse", "driver", "accountant", "teacher")
SKILLS: Final = ("python", "sql", "excel", "writing", "sales", "welding", "java", "care", "cad")

_FEWEST_SKILLS, _MOST_SKILLS = 2, 4

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


class Terms:
    """Profiles and preferences; without preferences the profiles follow from members' numbers.

    Attributes:
        has: which titles, then skills, a member has (M, T); None: there are no preferences.

    """

    def __init__(self, settings: SimulationSettings) -> None:
        self.has: NDArray[np.bool_] | None = None
        if settings.preference_sd <= 0.0:
            return
        rng = generator(settings, 6)
        members = settings.members
        titles = rng.integers(0, len(TITLES), members)
        # The skills of a member are the first so many in an order of their own.
        order = rng.random((members, len(SKILLS))).argsort(axis=1).argsort(axis=1)
        count = rng.integers(_FEWEST_SKILLS, _MOST_SKILLS + 1, members)
        has_title = titles[:, None] == np.arange(len(TITLES))
        self.has = np.hstack([has_title, order < count[:, None]])
        size = (settings.jobs, 1 + len(CHANNELS), self.has.shape[1])
        weights = rng.standard_normal(size) * (settings.preference_sd / math.sqrt(2.0))
        weights[:, 1:] += weights[:, :1]
        self.weights: _Floats = weights.round(4)

    def log_odds(self, member: _Ints, job: _Ints, channel: _Ints) -> _Floats | float:
        """What the candidates' terms add, (n,); ``channel`` 0 is unknown."""
        if self.has is None:
            return 0.0
        centred = self.has[member] - self.has.mean(axis=0)
        added: _Floats = np.einsum("nt,nt->n", centred, self.weights[job, channel])
        return added

    def of(self, member: int) -> dict[str, list[str]]:
        """Name what a member's profile says."""
        if self.has is None:
            skills = {SKILLS[member % len(SKILLS)], SKILLS[member // 7 % len(SKILLS)]}
            return {"skill": sorted(skills), "title": [TITLES[member % len(TITLES)]]}
        has = self.has[member]
        return {
            "skill": sorted(SKILLS[at] for at in np.flatnonzero(has[len(TITLES) :])),
            "title": [TITLES[at] for at in np.flatnonzero(has[: len(TITLES)])],
        }

    def preferences(self) -> dict[str, dict[str, dict[str, dict[str, float]]]] | None:
        """Weights by job, channel (``""`` the unknown one), type and term; None: there are none."""
        if self.has is None:
            return None
        return {
            job_id(job): {
                channel: {
                    "title": dict(zip(TITLES, row[: len(TITLES)], strict=True)),
                    "skill": dict(zip(SKILLS, row[len(TITLES) :], strict=True)),
                }
                for channel, row in zip(("", *CHANNELS), rows, strict=True)
            }
            for job, rows in enumerate(self.weights.tolist())
        }
