"""What is compared: ``compare.toml``, read and checked.

A setting says how the effects learn (``policy``, over the base policy), which of them there are
(``use``), which labels they hear of (``learn``), when these take effect (``refresh``), how often
there is a new global model (``retrain``), and of which kind it is (``model``, ``inputs``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from stream.backtest.schedule import AT_EVERY_LABEL, NEVER, Learn
from stream.configuration.settings import (
    changed,
    parse_toml,
    read_document,
    read_toml,
    table,
)
from stream.effects import EFFECT_NAMES
from stream.errors import ConfigError
from stream.features.blocks import FeatureSpace
from stream.model.columns import further
from stream.model.kind import FURTHER, ModelKind
from stream.policy import DAY_MS, Policy
from stream.units import format_duration, parse_duration_ms

MAX_NAME = 40
MAX_SETTINGS = 50

EXAMPLE = """\
# What `hearback backtest LOG --config compare.toml` compares. Every setting reads the same log and
# is judged on the same applications: scored before learned, right or wrong by the final label.
#
# reference      the setting that the others' differences are taken to, and of which the report
#                shows calibration and who gains; the first one unless named here
# name           yours
# refresh        "label" (default): every label takes effect at once; or how often all that came
#                in between takes effect: "1h", "daily", "weekly"; "never": nothing after
#                --score-from does
# learn          "early" (default): labels as they come, inferred negatives too;
#                "explicit": what recruiters did and what stayed unanswered, nothing inferred;
#                "final": each application once, when its whole window has passed
# retrain        "never" (default): the global model stays; "weekly", "30d", ...: so often a new one
#                is trained on what was known then, and scores the applications from then on
# model          "as given" (default); "linear" or "boosted": in its place a global model of that
#                kind, trained on the same span, over the global features and these inputs:
# inputs         of what the given one takes, "history" (if boosted) and "preferences"; default []
# use            effects: ["per_member", "per_job"] (default), one of them, or []: global alone
# policy...      any key of a policy file, over the defaults or --policy

reference = "every label"

[[setting]]
name = "every label"

[[setting]]
name = "every day"
refresh = "daily"

[[setting]]
name = "every week"
refresh = "weekly"

[[setting]]
name = "never again"
refresh = "never"

[[setting]]
name = "nothing inferred"
learn = "explicit"

[[setting]]
name = "hard inference"
policy.labels.aging = "off"

[[setting]]
name = "wait for the window"
learn = "final"

[[setting]]
name = "member only"
use = ["per_member"]

[[setting]]
name = "job only"
use = ["per_job"]

# How the effects learn is what `hearback tune` chooses; to compare it, take away the signs before:

#[[setting]]
#name = "weaker prior"
#policy.effects.per_member.prior_precision = 1.0
#policy.effects.per_job.prior_precision = 1.0

#[[setting]]
#name = "half-life 7 days"
#policy.effects.per_member.half_life = "7d"
#policy.effects.per_job.half_life = "7d"

#[[setting]]
#name = "nothing forgotten"
#policy.effects.per_member.half_life = "off"
#policy.effects.per_job.half_life = "off"
"""
"""What is compared without a file; ``hearback backtest --example`` prints it."""

_RETRAIN: dict[str, int | None] = {"daily": DAY_MS, "weekly": 7 * DAY_MS, "never": None}
_REFRESH: dict[str, int | None] = {"label": AT_EVERY_LABEL, **_RETRAIN, "never": NEVER}


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run the product.

    ``refresh_ms``: see :mod:`stream.backtest.schedule`; ``retrain_ms``: how often there is a new
    global model (:mod:`stream.backtest.retraining`), None: never. ``model``: the kind of one in
    place of the given one, None: that one; ``inputs``: what it takes beside the global features.
    """

    name: str
    refresh_ms: int | None = AT_EVERY_LABEL
    learn: Learn = "early"
    retrain_ms: int | None = None
    model: ModelKind | None = None
    inputs: tuple[str, ...] = ()
    use: tuple[str, ...] = EFFECT_NAMES
    policy: Policy = Policy()
    changes: tuple[str, ...] = ()

    @property
    def trains(self) -> bool:
        """Whether it takes global models beside the given one."""
        return self.retrain_ms is not None or self.model is not None

    def in_words(self) -> str:
        """Say in half a sentence what is different about it."""
        refresh = {AT_EVERY_LABEL: "at every label", NEVER: "never updated"}.get(
            self.refresh_ms, f"refreshed every {format_duration(self.refresh_ms or 0)}"
        )
        learn = {"early": "", "explicit": "nothing inferred", "final": "final labels only"}
        retrain = f"a new global model every {format_duration(self.retrain_ms or 0)}"
        use = f"{' and '.join(self.use)} alone" if self.use else "no effects"
        over = " and ".join(each for each in ("global features", further(self.inputs)) if each)
        said = (
            "" if self.model is None else f"a {self.model} model over {over}",
            refresh if self.use else "",
            learn[self.learn],
            "" if self.retrain_ms is None else retrain,
            "" if self.use == EFFECT_NAMES else use,
            *self.changes,
        )
        return ", ".join(part for part in said if part)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All settings; ``reference`` is the index of the one that others are compared with."""

    settings: tuple[Setting, ...]
    reference: int = 0

    def with_models(self, kind: ModelKind, inputs: Sequence[str]) -> Comparison:
        """Compare a model that is more than a linear one also with simpler ones, without effects.

        Args:
            kind: of the given model. inputs: that it takes.

        """
        simpler: list[tuple[str, ModelKind, tuple[str, ...]]] = []
        if kind == "boosted" or len(inputs) > 1:
            simpler.append(("linear model", "linear", ()))
        if kind == "boosted" and len(inputs) > 1:
            simpler.append(("boosted model", "boosted", ()))
        if "history" in inputs and "preferences" in inputs:
            simpler.append(("boosted, with histories", "boosted", ("history",)))
        settings = [
            Setting(
                name=name,
                model=of,
                inputs=takes,
                use=(),
                policy=self.settings[self.reference].policy,
            )
            for name, of, takes in simpler
        ]
        return msgspec.structs.replace(self, settings=(*self.settings, *settings))

    def with_retrained(self, every_ms: int | None) -> Comparison:
        """Compare the reference also with itself where models are trained anew so often.

        Raises:
            ConfigError: that is no length of time, or there is a setting of that name.

        """
        if every_ms is None:
            return self
        if every_ms <= 0:
            raise ConfigError("retrain: give a duration that is longer than 0")
        name = f"a new model every {format_duration(every_ms)}"
        if any(setting.name == name for setting in self.settings):
            raise ConfigError(f"a setting is named {name!r} already: give it another name")
        anew = msgspec.structs.replace(
            self.settings[self.reference], name=name, retrain_ms=every_ms
        )
        return msgspec.structs.replace(self, settings=(*self.settings, anew))

    def check(self, space: FeatureSpace) -> None:
        """Refuse settings that do not fit the features.

        Raises:
            ConfigError: the message names the setting.

        """
        for setting in self.settings:
            try:
                space.fitted(setting.policy)
            except ConfigError as error:
                raise ConfigError(f"setting {setting.name!r}: {error}") from None


class _SettingFile(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    refresh: str = "label"
    learn: Learn = "early"
    retrain: str = "never"
    model: Literal["as given", "linear", "boosted"] = "as given"
    inputs: list[str] = []
    use: list[str] | None = None
    policy: dict[str, Any] = {}


class _File(msgspec.Struct, forbid_unknown_fields=True):
    setting: list[_SettingFile] = []
    reference: str | None = None


def load_comparison(path: Path | None, base: Policy) -> Comparison:
    """Comparison from a file; the example without one."""
    if path is None:
        return parse_comparison(parse_toml(EXAMPLE), base)
    return read_toml(path, "comparison", partial(parse_comparison, base=base))


def parse_comparison(document: dict[str, Any], base: Policy) -> Comparison:
    """Parsed TOML → comparison; ConfigError names the setting and the key."""
    try:
        found = msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from None
    if not found.setting:
        raise ConfigError("no [[setting]]: name at least one (--example prints a file)")
    if len(found.setting) > MAX_SETTINGS:
        raise ConfigError(f"more than {MAX_SETTINGS} settings: compare fewer at a time")
    settings = tuple(_setting(one, base) for one in found.setting)
    names = [setting.name for setting in settings]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two settings are named {name!r}")
    if found.reference is not None and found.reference not in names:
        raise ConfigError(f"reference {found.reference!r} is none of the settings")
    reference = 0 if found.reference is None else names.index(found.reference)
    if settings[reference].policy.labels != base.labels:
        raise ConfigError(
            f"reference {names[reference]!r} changes [labels], but all are judged by the labels of"
            " --policy: choose another reference"
        )
    return Comparison(settings=settings, reference=reference)


def _setting(found: _SettingFile, base: Policy) -> Setting:
    name = found.name.strip()
    if not 1 <= len(name) <= MAX_NAME:
        raise ConfigError(f"a setting's name must have 1 to {MAX_NAME} characters: {name[:60]!r}")
    use = (
        EFFECT_NAMES
        if found.use is None
        else tuple(one for one in EFFECT_NAMES if one in found.use)
    )
    for one in found.use or ():
        if one not in EFFECT_NAMES:
            raise ConfigError(f"setting {name!r}: use {one!r}: give {' or '.join(EFFECT_NAMES)}")
    try:
        values = read_document(found.policy, base)
        policy = changed(base, values)
        return Setting(
            name=name,
            refresh_ms=_often("refresh", found.refresh, _REFRESH),
            learn=found.learn,
            retrain_ms=_often("retrain", found.retrain, _RETRAIN),
            model=None if found.model == "as given" else found.model,
            inputs=_inputs(found),
            use=use,
            policy=policy,
            changes=tuple(
                f"{row.short_name} = {row.text}" for row in table(policy) if row.name in values
            ),
        )
    except ConfigError as error:
        raise ConfigError(f"setting {name!r}: {error}") from None


def _inputs(found: _SettingFile) -> tuple[str, ...]:
    takes = () if found.model == "as given" else FURTHER[found.model]
    for one in found.inputs:
        if one not in takes:
            known = " or ".join(takes) or "none: it stays as it is"
            raise ConfigError(f"inputs {one[:40]!r} of a model {found.model}: give {known}")
    return tuple(one for one in takes if one in found.inputs)


def _often(key: str, text: str, words: dict[str, int | None]) -> int | None:
    if text in words:
        return words[text]
    try:
        every_ms = parse_duration_ms(text)
    except ConfigError:
        every_ms = 0
    if every_ms <= 0:
        usual = ", ".join(f'"{word}"' for word in words)
        raise ConfigError(f"{key} {text[:40]!r}: give {usual} or a duration")
    return every_ms
