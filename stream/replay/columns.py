"""The columns of a run's Parquet files: what ``hearback replay --format parquet`` writes.

A column has the name of its field in the JSON lines, but for times, which are timestamps and lose
their ``_ms``, and for the feature blocks of a label, which are columns of their own.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from stream.histories.history import NAMES

Format = Literal["json", "parquet"]
"""Of labels, scores and coefficients."""

Kind = Literal[
    "text", "count", "number", "flag", "time", "float32s", "numbers", "history", "scores", "terms",
    "preferences", "past",
]  # fmt: skip

ARROW: Final[dict[Kind, str]] = {
    "text": "string",
    "count": "int64",
    "number": "double",
    "flag": "bool",
    "time": "timestamp[ms, UTC]",
    "float32s": "list<float>",
    "numbers": "list<double>",
    "history": f"fixed_size_list<float>[{len(NAMES)}]",
    "scores": "map<string, double>",
    "terms": "map<string, list<string>>",
    "preferences": "struct<counts: list<double>, weights: map<string, list<double>>>",
    "past": "struct<applications, answers, positives: int64; recent_*: double; *: timestamp>",
}
"""Arrow types, as the page of docs has them."""


class Column(NamedTuple):
    """A column; ``path`` is its field in the JSON line, ``null`` says when it is null."""

    path: str
    kind: Kind
    meaning: str
    null: str = ""

    @property
    def name(self) -> str:
        """Its name."""
        name = self.path.rpartition(".")[2]
        return name.removesuffix("_ms") if self.kind == "time" else name


_APPLICATION = Column("application_id", "text", "the application")
_VERSION = Column("model_version", "text", "the global model")
_GLOBAL = Column("global_score", "number", "log-odds of the global model, at first sight")
_SCORES = (
    _GLOBAL,
    Column("member_score", "number", "what the member's coefficients add"),
    Column("job_score", "number", "what the job's coefficients add"),
)
_FURTHER = Column("further_scores", "scores", "what further effects add", "there are none")

LABELS: Final = (
    _APPLICATION,
    Column("member_id", "text", "its member"),
    Column("job_id", "text", "its job"),
    Column("label", "count", "1: answered; 0: not"),
    Column("kind", "text", "what the label rests on: a name of the ladder"),
    Column("previous", "text", "kind of the label before", "it is the first"),
    Column("rule", "text", "the rule that inferred it", "it was not inferred"),
    Column("final", "flag", "nothing can change it any more"),
    Column("weight", "number", "what it counts, above 0 and up to 1"),
    Column("previous_weight", "number", "the same of the label before", "it is the first"),
    Column("application_time_ms", "time", "when the member applied"),
    Column("evidence_time_ms", "time", "when what it rests on happened", "nothing happened"),
    Column("label_time_ms", "time", "event time at which it was known"),
    Column("declined_time_ms", "time", "of a decline that has no label", "there was none"),
    _VERSION,
    Column("first_model", "text", "the global model that the state began with", "it is the same"),
    Column("features.global", "float32s", "block global: what is scored", "a score was brought"),
    Column("features.per_member", "float32s", "block per_member, in the order of its names"),
    Column("features.per_job", "float32s", "block per_job"),
    Column("features.history", "history", "history at first sight", "none was kept"),
    Column(
        "features.preferences",
        "preferences",
        "the job's preferences at first sight",
        "there are none",
    ),
    *_SCORES,
    _FURTHER,
    Column("channel", "text", "where the application came from", "it was not said"),
    Column("terms", "terms", "the candidate's terms by type", "there are none"),
)

SCORES: Final = (
    _APPLICATION,
    Column("event_time_ms", "time", "when the member applied"),
    *_SCORES,
    Column("score", "number", "all of it: log-odds of an answer"),
    _FURTHER,
    Column("history", "history", "history at first sight", "none was kept"),
    Column("preferences", "preferences", "the job's at first sight", "there are none"),
)

COEFFICIENTS: Final = (
    Column("effect", "text", "`per_member` or `per_job`"),
    Column("entity_id", "text", "the member or job"),
    _VERSION,
    Column("mean", "numbers", "posterior mode by feature, log-odds per unit"),
    Column("variance", "numbers", "marginal variances by feature"),
    Column("examples", "count", "applications learned"),
    Column("event_time_ms", "time", "of the newest of them"),
    Column("history", "past", "what its history was then", "none was kept"),
)

TABLES: Final = {"labels": LABELS, "scores": SCORES, "coefficients": COEFFICIENTS}
"""Columns by file, in their order."""
