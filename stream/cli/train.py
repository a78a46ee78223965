"""The train command: fits a global model, and says how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.check import Force, look_first
from stream.cli.options import (
    ConfigFile,
    FeatureNames,
    Kind,
    Logs,
    MaxJump,
    PolicyFile,
    configured,
    names_in,
    new_folder,
    parsed,
)
from stream.cli.terminal import ERR, doing, load_kernel, reading, tell
from stream.configuration.load import with_model
from stream.logs.files import ReadProgress, merge
from stream.model.folder import Manifest, load_model, save_model, with_landmark
from stream.model.held_out import Judgement, Unjudged, in_words
from stream.model.rows import POSITIVES_PER_FEATURE
from stream.policy import DAY_MS, LabelPolicy
from stream.units import format_time, parse_duration_ms, parse_time_ms

if TYPE_CHECKING:
    from stream.model.logistic import Chosen


def train(
    logs: Logs,
    out: Annotated[Path, typer.Option("--out", help="The model folder; must not exist yet.")],
    until: Annotated[
        str | None,
        typer.Option(
            help="Use only events up to this time (a date, ISO 8601, or seconds or milliseconds"
            " since 1970)."
        ),
    ] = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
    kind: Kind = "linear",
    feature_names: FeatureNames = None,
    not_worse_than: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Write nothing and fail (exit code 1) when the new model is worse than this one,"
            " on the held-out applications that it has not seen.",
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Worse is: an AUC lower, or a log loss higher, by more than this.",
        ),
    ] = 0.005,
    max_jump: MaxJump = None,
    force: Force = False,
) -> None:
    """Fit the frozen global model on a log.

    A linear model (--kind linear) is a logistic regression; boosted trees (--kind boosted) find
    interactions and thresholds by themselves, and need some thousand applications to do better.
    `hearback model import` takes over trees that XGBoost or LightGBM have grown.

    Uses the applications whose whole label window has passed before --until (or the log's end),
    so that early answers are not favoured; where they have fewer than 10 positives for each
    feature, all applications before then, and silence weighs what it was worth then; so do trees
    always. MODEL is a folder: a manifest and arrays, no pickle.

    How strongly coefficients are held near zero is chosen by cross-validation over jobs. Reports
    AUC and log loss on the newest fifth of the applications whose window has passed, of a model
    fitted on what was known before, and the log loss of a constant; the model that is written is
    then fitted on all.

    Learns with it what is left to come of applications that still wait, from moments of the newest
    of them.

    For effects over trees, one prior precision is chosen on the same span, and kept in the model:
    it is in force wherever a policy, a configuration and the environment say nothing of it.
    """
    from stream.backtest.landmarks import MOST, learn_landmark
    from stream.backtest.prior import with_chosen_prior
    from stream.backtest.tuning import trainer as trainer_of
    from stream.model.held_out import check_not_worse

    before = None if not_worse_than is None else load_model(not_worse_than)
    new_folder(out)
    settings = configured(config, policy=policy)
    policies = settings.policy
    until_ms = parsed(parse_time_ms, until)
    max_jump_ms = parsed(parse_duration_ms, max_jump)
    names = None if feature_names is None else names_in(feature_names)
    look_first(logs, policies, force=force, max_jump_ms=max_jump_ms, until_ms=until_ms)
    read = ReadProgress()
    trainer = trainer_of(policies, until_ms, names, max_jump_ms, kind)
    with reading("training", read) as progress:
        trainer.read(merge(logs, read), progress)
    with doing("judging") as say:
        judged = trainer.hold_out(before, lambda what: say(f"judging on the newest: {what}"))
    if not_worse_than is not None:
        check_not_worse(judged, not_worse_than, margin)
    for reason, count in sorted(trainer.refused.items()):
        tell(f"lines left out, {reason}: {count:,}", ERR)
    for reason, count in sorted(trainer.ignored.items()):
        tell(f"ignored, {reason}: {count:,}", ERR)
    with doing("fitting") as say:
        found = None if isinstance(judged, Unjudged) else judged.held_out
        model = trainer.model(found, say)
    chosen = ""
    load_kernel(model)
    if kind == "boosted":
        read = ReadProgress()
        with reading("choosing the prior", read) as progress:
            lines = merge(logs, read)
            model, chosen = with_chosen_prior(lines, model, policies, progress, max_jump_ms)
    with doing("learning what is left to come of who waits"):
        landmark = learn_landmark(
            merge(logs),
            with_model(settings, model).policy,
            model,
            trainer.newest(MOST),
            max_jump_ms=max_jump_ms,
        )
    if landmark is not None:
        model = with_landmark(model, landmark)
    manifest = save_model(out, model)
    tell(
        f"model {manifest.model_version} in {out}: {manifest.applications:,} applications"
        f" ({manifest.positives / manifest.applications:.1%} positive) from"
        f" {format_time(manifest.trained_from_ms)} to {format_time(manifest.trained_until_ms)},"
        f" {len(manifest.features['global'])} global features"
        + (", and histories" if "history" in manifest.inputs else "")
    )
    tell(_rows(manifest))
    for dropped in manifest.dropped:
        tell(dropped.in_words())
    if trainer.chosen is not None:
        tell(_regularised(trainer.chosen))
    if chosen:
        tell(chosen)
    tell(_held_out(judged))
    tell(_delays(manifest, policies.labels))
    tell(_landmark(manifest, policies.labels))
    useless = _useless(manifest, trainer.chosen)
    if useless:
        tell(useless, ERR)


def _rows(manifest: Manifest) -> str:
    """Tell what the model was fitted on."""
    if manifest.rows == "closed":
        return "rows: the applications whose window had closed by then"
    aged = "rows: all applications before then as they were known, silence weighed by age"
    if manifest.kind == "boosted":
        return aged
    return (
        f"{aged}: closed windows had fewer than {POSITIVES_PER_FEATURE} positives for each global"
        " feature"
    )


def _delays(manifest: Manifest, labels: LabelPolicy) -> str:
    """Tell how long answers take."""
    of_policy = "; the policy's delay_curve is in force" if labels.delay_curve else ""
    if manifest.delays is None:
        in_force = of_policy or "; the default curve is in force"
        return f"answer delays: too little to learn them from{in_force}"
    days = [
        f"{share:.0%} within {share_days:.1f} days"
        for share, share_days in (
            (share, manifest.delays.age_ms(share) / DAY_MS) for share in (0.35, 0.7, 0.9)
        )
    ]
    return f"answer delays: {', '.join(days)}{of_policy}"


def _landmark(manifest: Manifest, labels: LabelPolicy) -> str:
    """Tell whether those who wait have models of their own."""
    found = manifest.landmark
    if found is None:
        why = "not learned with a delay_curve" if labels.delay_curve else "too little to learn from"
        return f"who waits: {why}; the delays alone tell what is left to come"
    return (
        f"who waits: learned from {found.moments:,} moments of open applications and"
        f" {found.decisions:,} decisions"
    )


def _regularised(chosen: Chosen) -> str:
    """Tell how the regularisation was chosen, or why it was not."""
    if chosen.choice is None:
        return f"regularisation: C = {chosen.C:g}, as usual, not chosen: {chosen.unchosen}"
    return (
        f"regularisation: C = {chosen.C:g}, by cross-validation over {chosen.choice.jobs:,} jobs:"
        f" log loss {chosen.log_loss:.4f} on those left out"
        f" ({chosen.choice.constant_log_loss:.4f} of a constant)"
    )


def _useless(manifest: Manifest, chosen: Chosen | None) -> str:
    """Say it where a constant would do as well."""
    if manifest.held_out is not None and manifest.held_out.constant_log_loss is not None:
        log_loss, constant = manifest.held_out.log_loss, manifest.held_out.constant_log_loss
        where = "on the held-out applications"
    elif chosen is not None and chosen.choice is not None:
        log_loss, constant = chosen.log_loss, chosen.choice.constant_log_loss
        where = "in the cross-validation"
    else:
        return ""
    if log_loss < constant:
        return ""
    return (
        f"the model is no better than a constant {where}: log loss {log_loss:.4f}, {constant:.4f}"
        " of a constant; take a longer log or other global features"
    )


def _held_out(judged: Judgement | Unjudged) -> str:
    """Tell what the held-out part said."""
    if isinstance(judged, Unjudged):
        return f"held out: not judged; {judged.reason}"
    found = judged.held_out
    told = (
        f"held out: {found.applications:,} applications from {format_time(found.from_ms)} on,"
        f" {in_words(found.auc, found.log_loss)} ({found.constant_log_loss:.4f} of a constant)"
    )
    if judged.before is not None:
        new, old = judged.after, judged.before
        told += (
            f"; of {judged.compared:,} that the model before has not seen"
            f" {in_words(new.auc, new.log_loss)}, before {in_words(old.auc, old.log_loss)}"
        )
    return told
