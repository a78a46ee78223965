"""What a new model was fitted on and how good it is, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream.features.making import Maker
from stream.model.columns import further
from stream.model.folder import Manifest
from stream.model.held_out import Judgement, Unjudged, in_words
from stream.model.rows import POSITIVES_PER_FEATURE
from stream.policy import DAY_MS, LabelPolicy
from stream.units import format_time

if TYPE_CHECKING:
    from stream.model.logistic import Chosen

_MANY = 0.01  # a share of attributes of another type that is worth a line


def subject(manifest: Manifest) -> str:
    """Tell what there was to learn from."""
    return (
        f"{manifest.applications:,} applications"
        f" ({manifest.positives / manifest.applications:.1%} positive) from"
        f" {format_time(manifest.trained_from_ms)} to {format_time(manifest.trained_until_ms)},"
        f" {len(manifest.features['global'])} global features"
        + (f", and {said}" if (said := further(manifest.inputs)) else "")
    )


def spec(maker: Maker) -> list[str]:
    """Tell what a spec makes of attributes, and what is odd about these; a sentence each."""
    sizes = ", ".join(f"{len(names)} {block}" for block, names in maker.names.items())
    told = [f"spec: {len(maker.fitted.features)} features make columns: {sizes}"]
    for one in maker.fitted.features:
        if one.rows and one.missing == one.rows:
            told.append(f"feature {one.name}: no application has {' and '.join(one.feature.paths)}")
        elif one.odd > _MANY * one.rows:
            told.append(
                f"feature {one.name}: {one.odd:,} of {one.rows:,} applications have something else"
                f" than a {one.feature.__struct_config__.tag} and count as missing"
            )
    return told


def rows(manifest: Manifest) -> str:
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


def delays(manifest: Manifest, labels: LabelPolicy) -> str:
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


def landmark(manifest: Manifest, labels: LabelPolicy) -> str:
    """Tell whether those who wait have models of their own."""
    found = manifest.landmark
    if found is None:
        why = "not learned with a delay_curve" if labels.delay_curve else "too little to learn from"
        return f"who waits: {why}; the delays alone tell what is left to come"
    return (
        f"who waits: learned from {found.moments:,} moments of open applications and"
        f" {found.decisions:,} decisions"
    )


def regularised(chosen: Chosen) -> str:
    """Tell how the regularisation was chosen, or why it was not."""
    if chosen.choice is None:
        return f"regularisation: C = {chosen.C:g}, as usual, not chosen: {chosen.unchosen}"
    return (
        f"regularisation: C = {chosen.C:g}, by cross-validation over {chosen.choice.jobs:,} jobs:"
        f" log loss {chosen.log_loss:.4f} on those left out"
        f" ({chosen.choice.constant_log_loss:.4f} of a constant)"
    )


def useless(manifest: Manifest, chosen: Chosen | None) -> str:
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


def held_out(judged: Judgement | Unjudged) -> str:
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
            f"; on {judged.compared:,} whose windows ended after the model before was trained"
            f" {in_words(new.auc, new.log_loss)}, before {in_words(old.auc, old.log_loss)}"
        )
    return told
