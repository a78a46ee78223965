"""SHELL: a global model from logs, with all that goes with it (``hearback train``).

Fitted, judged on the newest applications, with a prior precision for the effects over trees, and
with what is left to come of applications that still wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from stream.backtest.labels import decoded, recorded
from stream.backtest.landmarks import MOST, landmark_of, learn_landmark
from stream.backtest.prior import choose_prior, newest_from_ms, with_chosen_prior
from stream.backtest.tuning import before as lines_before
from stream.backtest.tuning import train_until, trainer
from stream.configuration.load import with_model
from stream.configuration.sections import Config
from stream.errors import ModelError
from stream.events.structs import Label
from stream.features.blocks import FeatureSpace
from stream.features.making import Maker
from stream.features.spec import read_spec
from stream.logs.files import ReadProgress, merge
from stream.model import words
from stream.model.folder import GlobalModel, with_landmark, with_prior
from stream.model.held_out import Judgement, Unjudged
from stream.model.kind import ModelKind
from stream.model.labels import LabelTrainer
from stream.model.landmark import Landmark
from stream.model.logistic import Chosen
from stream.model.spec_fitting import fit_spec
from stream.model.training_set import TrainingSet
from stream.policy import LabelPolicy, Policy
from stream.progress import doing, load_kernel, reading
from stream.replay.reader import first_look


class Trained(NamedTuple):
    """A new model, and what is to be said of it.

    ``refused`` lines and ``ignored`` events by reason; ``chosen``: how strong the regularisation of
    a linear model is; ``prior``: how that of the effects was chosen, empty where it was not.
    """

    model: GlobalModel
    judged: Judgement | Unjudged
    chosen: Chosen | None
    prior: str
    refused: Counter[str]
    ignored: Counter[str]

    def lines(self, labels: LabelPolicy) -> list[str]:
        """Say what it was fitted on, what was chosen, and how good it is; a sentence each."""
        manifest = self.model.manifest
        said = [
            words.rows(manifest),
            *(dropped.in_words() for dropped in manifest.dropped),
            "" if self.chosen is None else words.regularised(self.chosen),
            self.prior,
            words.held_out(self.judged),
            words.delays(manifest, labels),
            words.landmark(manifest, labels),
        ]
        return [line for line in said if line]


def train(
    logs: Sequence[Path],
    settings: Config,
    *,
    until_ms: int | None = None,
    names: dict[str, list[str]] | Maker | None = None,
    max_jump_ms: int | None = None,
    kind: ModelKind = "linear",
    before: GlobalModel | None = None,
    accept: Callable[[Judgement | Unjudged], None] = lambda _: None,
) -> Trained:
    """Fit a model on logs.

    Args:
        logs: the files.
        settings: the label policy, and where the effects' settings are from.
        until_ms: events after it are not used; None: all are.
        names: of the features by block, where events carry lists, or what makes the features of
            attributes; None: from the events.
        max_jump_ms: hold an event further ahead back until others confirm it; None: never.
        kind: of model.
        before: a model to compare with.
        accept: is told how the model was judged, before it is fitted on all; may refuse it.

    Raises:
        ModelError: there is too little to learn from, or ``before`` does not fit the log.
        ConfigError: the names are not those of the three blocks.

    """
    read = ReadProgress()
    fitting = trainer(settings.policy, until_ms, names, max_jump_ms, kind)
    with reading("training", read) as progress:
        fitting.read(merge(logs, read), progress)

    def prior_over(model: GlobalModel) -> tuple[GlobalModel, str]:
        return _with_prior(logs, model, settings.policy, max_jump_ms)

    def landmark_of_log(policy: Policy, model: GlobalModel) -> Landmark | None:
        newest_ms = fitting.newest(MOST)
        return learn_landmark(merge(logs), policy, model, newest_ms, max_jump_ms=max_jump_ms)

    return _trained(fitting, settings, kind, before, accept, prior_over, landmark_of_log)


def train_from_labels(
    values: Callable[[], Iterable[bytes]],
    settings: Config,
    *,
    until_ms: int | None = None,
    names: dict[str, list[str]] | Maker | None = None,
    kind: ModelKind = "linear",
    before: GlobalModel | None = None,
    accept: Callable[[Judgement | Unjudged], None] = lambda _: None,
    keep_prior: bool = False,
) -> Trained:
    """Fit a model on labels; :func:`train` says what the others are, and what is raised.

    Args:
        values: gives the labels from their beginning, the same each time.
        until_ms: what was known later is not used; None: all is.
        names: or what has made the features of attributes; None: those of ``before``, else
            numbered.
        keep_prior: take over the prior precision of ``before`` and choose none, for a model that is
            rolled in has no say in it.

    """
    if names is None and before is not None:
        blocks = ("global", "per_member", "per_job")
        names = before.space.maker or {name: before.manifest.features[name] for name in blocks}
    fitting = LabelTrainer(settings.policy, until_ms, names, kind)
    with reading("training", ReadProgress(), "labels") as progress:
        fitting.read(values(), progress)
    found: list[Label] = []

    def labels_of(model: GlobalModel) -> list[Label]:
        if not found:
            from_ms = newest_from_ms(model.manifest) or 0
            found.extend(decoded(values(), fitting.end_ms, min(from_ms, fitting.newest(MOST))))
        return found

    def prior_over(model: GlobalModel) -> tuple[GlobalModel, str]:
        if keep_prior and before is not None:
            kept = before.manifest.prior_precision
            return (model if kept is None else with_prior(model, kept)), ""
        with doing("choosing the prior"):
            labels = labels_of(model)
            rehearsal = recorded(labels, model)
            return choose_prior(rehearsal, model, settings.policy)

    def landmark_of_labels(policy: Policy, model: GlobalModel) -> Landmark | None:
        from_ms = fitting.newest(MOST)
        labels = [one for one in labels_of(model) if one.application_time_ms >= from_ms]
        rehearsal = recorded(labels, model)
        return landmark_of(rehearsal, policy, model)

    return _trained(fitting, settings, kind, before, accept, prior_over, landmark_of_labels)


def _trained(
    fitting: TrainingSet,
    settings: Config,
    kind: ModelKind,
    before: GlobalModel | None,
    accept: Callable[[Judgement | Unjudged], None],
    prior_over: Callable[[GlobalModel], tuple[GlobalModel, str]],
    landmark_over: Callable[[Policy, GlobalModel], Landmark | None],
) -> Trained:
    """Judge, fit, and learn what goes with the model."""
    with doing("judging") as say:
        judged = fitting.hold_out(before, lambda what: say(f"judging on the newest: {what}"))
    accept(judged)
    with doing("fitting") as say:
        model = fitting.model(None if isinstance(judged, Unjudged) else judged.held_out, say)
    load_kernel(model)
    prior = ""
    if kind == "boosted":
        model, prior = prior_over(model)
    with doing("learning what is left to come of who waits"):
        landmark = landmark_over(with_model(settings, model).policy, model)
    if landmark is not None:
        model = with_landmark(model, landmark)
    return Trained(model, judged, fitting.chosen, prior, fitting.refused, fitting.ignored)


def learned_spec(spec: Path, logs: Sequence[Path], until_ms: int | None) -> Maker:
    """Read a spec, and learn it of logs up to a time.

    Raises:
        ConfigError: it is no spec. ModelError: no application has attributes.

    """
    features = read_spec(spec)
    read = ReadProgress()
    with reading("reading attributes", read) as progress:
        return fit_spec(features, merge(logs, read), until_ms, progress)


def known_space(
    logs: Sequence[Path], model: GlobalModel | None, until_ms: int | None = None
) -> FeatureSpace | None:
    """Return the feature blocks that applications must have.

    None: there is no model, and applications do not bring their global score; one is to be fitted.

    Raises:
        ModelError: the log does not fit the model.

    """
    lines = merge(logs) if until_ms is None else lines_before(merge(logs), until_ms)
    try:
        return first_look(lines, model)[1]
    except ModelError:
        if model is not None:
            raise
        return None


def fitted_model(
    logs: Sequence[Path],
    policy: Policy,
    until_ms: int,
    max_jump_ms: int | None,
    kind: ModelKind,
    *,
    prior: bool = False,
    maker: Maker | None = None,
) -> GlobalModel:
    """Fit a global model on logs up to a time.

    ``prior``: as ``train`` does, with a prior. ``maker``: makes the features of attributes.
    """
    read = ReadProgress()
    with reading("fitting a global model", read) as progress:
        model = train_until(merge(logs, read), policy, until_ms, progress, max_jump_ms, kind, maker)
    if not prior or kind == "linear":
        return model
    load_kernel(model)
    return _with_prior(logs, model, policy, max_jump_ms)[0]


def _with_prior(
    logs: Sequence[Path], model: GlobalModel, policy: Policy, max_jump_ms: int | None
) -> tuple[GlobalModel, str]:
    read = ReadProgress()
    with reading("choosing the prior", read) as progress:
        return with_chosen_prior(merge(logs, read), model, policy, progress, max_jump_ms)
