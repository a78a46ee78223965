"""``compare.toml``: what it means, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stream.backtest.comparison import EXAMPLE, load_comparison, parse_comparison
from stream.configuration.settings import parse_toml
from stream.errors import ConfigError
from stream.features.blocks import FeatureSpace
from stream.policy import DAY_MS, HOUR_MS, EffectSettings, Policy


def test_the_example_compares_what_it_says() -> None:
    """The example is what is compared without a file, and has every kind of setting."""
    found = load_comparison(None, Policy())
    assert found == parse_comparison(parse_toml(EXAMPLE), Policy())
    by_name = {setting.name: setting for setting in found.settings}
    assert found.settings[found.reference].name == "every label"
    assert {setting.refresh_ms for setting in found.settings} == {0, DAY_MS, 7 * DAY_MS, None}
    assert {setting.learn for setting in found.settings} == {"early", "explicit", "final"}
    assert by_name["member only"].use == ("per_member",)
    assert by_name["hard inference"].policy.labels.aging == ()


def test_what_the_example_leaves_out_is_there_without_its_signs() -> None:
    """Settings that stand as comments are compared once the signs before them are taken away."""
    text = re.sub(r"^#(?=\S)", "", EXAMPLE, flags=re.MULTILINE)
    by_name = {one.name: one for one in parse_comparison(parse_toml(text), Policy()).settings}
    assert len(by_name) == len(load_comparison(None, Policy()).settings) + 3
    assert by_name["nothing forgotten"].policy.effects["per_job"].half_life_ms is None
    assert by_name["weaker prior"].policy.effects["per_member"].prior_precision == 1.0
    assert by_name["weaker prior"].policy.labels == Policy().labels


def test_changes_go_over_the_base_policy() -> None:
    """A setting changes single keys; the others are the base policy's."""
    base = Policy(effects={"per_job": EffectSettings(prior_precision=7.0, half_life_ms=None)})
    text = """
    [[setting]]
    name = "as it is"
    [[setting]]
    name = "shorter window"
    refresh = "6h"
    policy.labels.window = "7d"
    policy.effects.per_job.capacity = 16
    """
    as_is, shorter = parse_comparison(parse_toml(text), base).settings
    assert as_is.policy == base
    assert shorter.policy.labels.window_ms == 7 * DAY_MS
    assert shorter.policy.effects["per_job"] == EffectSettings(
        prior_precision=7.0, half_life_ms=None, capacity=16
    )
    assert shorter.refresh_ms == 6 * HOUR_MS
    assert shorter.in_words() == "refreshed every 6h, window = 7d, per_job.capacity = 16"


def test_a_prior_by_feature_is_a_setting_like_any_other() -> None:
    """Said in words as it is written; a name that is no feature is refused with the setting's."""
    text = """
    [[setting]]
    name = "by feature"
    policy.effects.per_job.prior_precision = { pay = 1.5 }
    """
    comparison = parse_comparison(parse_toml(text), Policy())
    assert comparison.settings[0].in_words() == (
        'at every label, per_job.prior_precision = { "pay" = 1.5 }'
    )
    comparison.check(FeatureSpace(None, ["bias"], ["bias", "pay"]))
    with pytest.raises(ConfigError, match=r"setting 'by feature': \[effects.per_job\] .*'pay'"):
        comparison.check(FeatureSpace(None, ["bias"], ["bias"]))


def test_the_reference_is_compared_with_itself_where_models_are_trained_anew() -> None:
    """It differs in that alone, and stands last; no setting may have its name."""
    before = parse_comparison(parse_toml(EXAMPLE), Policy())
    after = before.with_retrained(7 * DAY_MS)
    *others, added = after.settings
    assert tuple(others) == before.settings
    assert after.reference == before.reference
    assert added.name == "a new model every 7d"
    assert added.in_words() == "at every label, a new global model every 7d"
    assert before.with_retrained(None) == before
    with pytest.raises(ConfigError, match="named 'a new model every 7d' already"):
        after.with_retrained(7 * DAY_MS)
    with pytest.raises(ConfigError, match="longer than 0"):
        before.with_retrained(0)


def test_settings_are_said_in_words() -> None:
    """What is different about a setting is said in half a sentence."""
    words = [setting.in_words() for setting in load_comparison(None, Policy()).settings]
    assert words[0] == "at every label"
    assert words[3] == "never updated"
    assert words[5] == "at every label, aging = off"
    assert words[6] == "at every label, final labels only"
    assert words[7] == "at every label, per_member alone"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"no \[\[setting\]\]"),
        ("setting = 3", "array"),
        ("[[setting]]\nname = ''", "1 to 40 characters"),
        ("[[setting]]\nname = 'a'\n[[setting]]\nname = 'a'", "two settings are named 'a'"),
        ("reference = 'b'\n[[setting]]\nname = 'a'", "reference 'b' is none"),
        ("[[setting]]\nname = 'a'\nrefresh = 'often'", "setting 'a': refresh 'often'"),
        ("[[setting]]\nname = 'a'\nrefresh = '0s'", "refresh '0s'"),
        ("[[setting]]\nname = 'a'\nretrain = 'label'", "retrain 'label': give \"daily\""),
        ("[[setting]]\nname = 'a'\nlearn = 'all'", "learn"),
        ("[[setting]]\nname = 'a'\nuse = ['per_cat']", "per_cat"),
        ("[[setting]]\nname = 'a'\nlambda = 3", "lambda"),
        ("[[setting]]\nname = 'a'\npolicy.effects.per_job.prior = 3", "setting 'a'.*prior"),
        ("[[setting]]\nname = 'a'\npolicy.labels.window = '7'", "window"),
        ("[[setting]]\nname = 'a'\npolicy.labels.window = '7d'", "changes .labels."),
        ("name = ", "not TOML"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, says: str) -> None:
    """Each refusal is one line that names the setting and the key."""
    with pytest.raises(ConfigError, match=says) as caught:
        parse_comparison(parse_toml(text), Policy())
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that cannot be read is named in one line."""
    with pytest.raises(ConfigError, match=r"comparison .*none.toml"):
        load_comparison(tmp_path / "none.toml", Policy())
    (tmp_path / "bad.toml").write_text("x")
    with pytest.raises(ConfigError, match=r"comparison .*bad.toml: not TOML"):
        load_comparison(tmp_path / "bad.toml", Policy())
