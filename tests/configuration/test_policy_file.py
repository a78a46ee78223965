"""The policy file: defaults, every key, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.configuration.load import load_config
from stream.configuration.settings import to_toml
from stream.errors import ConfigError
from stream.features.blocks import FeatureSpace
from stream.policy import (
    DAY_MS,
    MAX_ENTITY_BYTES,
    EffectSettings,
    FeaturePolicy,
    GateSettings,
    LabelPolicy,
    Policy,
)
from tests.kit import parse_policy


def test_empty_file_is_the_defaults() -> None:
    """Every key is optional."""
    assert parse_policy("") == Policy() == load_config(None, {}).policy


def test_every_key_is_read() -> None:
    """Each setting of the file ends up in the policy."""
    policy = parse_policy(
        """
        [labels]
        positive_actions = ["finished"]
        negative_actions = ["dropped"]
        neutral_actions = []
        window = "30d"
        aging = [0.25, 0.5]
        delay_curve = ["1d:0.25", "4d:0.5", "30d:1"]
        later_response = "off"
        min_age = "2h"
        job_closed = false
        allowed_lateness = "10m"
        orphan_ttl = "2d"
        [effects.per_member]
        prior_precision = 0.5
        half_life = "off"
        capacity = 16
        open_limit = 64
        full_up_to = 8
        coupled = false
        [effects.per_job]
        half_life = "7d"
        """
    )
    labels = policy.labels
    assert labels.positive_actions == {"finished"}
    assert labels.negative_actions == frozenset({"dropped"})
    assert not labels.neutral_actions
    assert (labels.window_ms, labels.min_age_ms) == (30 * DAY_MS, 7_200_000)
    assert (labels.later_response, labels.job_closed) == ("off", "off")
    assert labels.aging == (0.25, 0.5)
    assert labels.delays() == [(DAY_MS, 0.25), (4 * DAY_MS, 0.5), (30 * DAY_MS, 1.0)]
    assert (labels.allowed_lateness_ms, labels.orphan_ttl_ms) == (600_000, 2 * DAY_MS)
    member = policy.effects["per_member"]
    assert (member.prior_precision, member.half_life_ms, member.capacity) == (0.5, None, 16)
    assert (member.open_limit, member.full_up_to, member.coupled) == (64, 8, False)
    assert policy.effects["per_job"].half_life_ms == 7 * DAY_MS


def test_limits_are_lowered_for_many_features() -> None:
    """An entity's value stays under 512 KiB; a block of which hardly an example fits is refused."""
    plain = EffectSettings()
    names = [f"{number}" for number in range(10_000)]
    assert plain.fitted(names[:16]) == plain
    many = plain.fitted(names[:1000])
    assert (many.capacity + many.open_limit + 64) * (4 * 1000 + 96) <= MAX_ENTITY_BYTES
    assert many.capacity >= 1
    with pytest.raises(ConfigError, match="too many"):
        plain.fitted(names)


def test_a_prior_by_feature_name_is_read_and_fitted() -> None:
    """Inline or as a table; a feature that is not named has λ = 3, whatever the policy had."""
    base = Policy(effects={"per_job": EffectSettings(prior_precision=7.0)})
    inline = "[effects.per_job]\nprior_precision = { pay = 10, 'a b' = 0.5 }"
    as_table = "[effects.per_job.prior_precision]\npay = 10\n'a b' = 0.5"
    for text in (inline, as_table):
        found = parse_policy(text, base).effects["per_job"]
        assert found.prior_precision == {"pay": 10.0, "a b": 0.5}
        assert found.precisions(["pay", "bias", "a b"]) == [10.0, 3.0, 0.5]
        fitted = found.fitted(["bias", "pay", "a b"]).prior_precision
        assert isinstance(fitted, dict)
        assert list(fitted.items()) == [("bias", 3.0), ("pay", 10.0), ("a b", 0.5)]
    named = Policy(effects={"per_job": EffectSettings(prior_precision={"pay": 1.0})})
    again = parse_policy("[effects.per_job]\nprior_precision = { bias = 2.0 }", named)
    assert again.effects["per_job"].prior_precision == {"bias": 2.0}
    scalar = parse_policy("[effects.per_job]\nprior_precision = 2", named)
    assert scalar.effects["per_job"].prior_precision == 2.0
    same = parse_policy("[effects.per_job]\nprior_precision = { pay = 3, bias = 3.0 }")
    assert same.effects["per_job"].fitted(["pay", "bias", "age"]) == EffectSettings()


def test_a_name_that_is_no_feature_is_refused() -> None:
    """In one line that says which effect it is, and what could have been meant."""
    policy = Policy(effects={"per_job": EffectSettings(prior_precision={"salry": 1.0})})
    with pytest.raises(ConfigError, match=r"per_job\] .*'salry'.*: did you mean salary\?$"):
        FeatureSpace(None, ["bias"], ["bias", "salary"]).fitted(policy)


def test_the_environment_takes_one_number_for_all_features() -> None:
    """It stands above names in a file; names in a variable are refused."""
    variable = "HEARBACK_EFFECTS_PER_JOB_PRIOR_PRECISION"
    found = load_config(None, {variable: " 2 "}).policy.effects["per_job"]
    assert found.prior_precision == 2.0
    with pytest.raises(ConfigError, match=f"{variable}: .*prior_precision must be a number, or in"):
        load_config(None, {variable: "{ bias = 2.0 }"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[labels]\nwindows = '1d'", "windows"),
        ("[labels]\nwindow = '14 fortnights'", "window"),
        ("[labels]\nwindow = 14", "window"),
        ("[labels]\nwindow = '0'", "window"),
        ("[labels]\nnegative_actions = ['message']", "message"),
        ("[labels]\npositive_actions = []", "positive_actions"),
        ("[labels]\norphan_ttl = '1m'", "orphan_ttl"),
        ("[labels]\nallowed_lateness = '1s'\norphan_ttl = '4s'", "shorter than clock_skew"),
        ("[labels]\nmin_age = '15d'", "min_age"),
        ("[effects.per_member]\nprior_precision = 0", "prior_precision"),
        ("[effects.per_member]\nprior_precision = {}", "prior_precision names no feature"),
        ("[effects.per_member]\nprior_precision = { a = 0 }", "per_member. prior_precision"),
        ("[effects.per_member]\nprior_precision = { a = 'b' }", "per_member. prior_precision"),
        ("[effects.per_member]\nprior_precision = [3.0]", "one for each feature"),
        ("[effects.per_member]\ncapacity = 0", "capacity"),
        ("[effects.per_job]\nhalf_life = '0'", "half_life"),
        ("[effects.per_cat]\n", "per_cat"),
        ("labels = [", "TOML"),
    ],
)
def test_refusals_name_the_key(text: str, says: str, tmp_path: Path) -> None:
    """A bad policy is one line that names the file and the key."""
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        load_config(None, {}, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A policy that is not there is a clear error, not the defaults."""
    with pytest.raises(ConfigError, match="No such file"):
        load_config(None, {}, tmp_path / "none.toml")


def test_a_written_policy_comes_back_equal() -> None:
    """What ``to_toml`` writes is read back as the same policy, strange actions too."""
    policy = Policy(
        features=FeaturePolicy(max_feature=1e-3),
        labels=LabelPolicy(
            positive_actions=frozenset({'say "yes"', "naïve\\", "tab\t", "del\x7f"}),
            window_ms=36 * 3_600_000,
            aging=(0.1, 0.2),
            later_response="full",
        ),
        effects={
            "per_member": EffectSettings(
                prior_precision={'say "a"': 1e-6, "é.[b]": 1e6, "x": 0.1 + 0.2},
                half_life_ms=None,
                coupled=False,
            ),
            "per_job": EffectSettings(
                prior_precision=0.1 + 0.2,
                half_life_ms=5_400_000,
                capacity=7,
                entity_ttl_ms=99 * DAY_MS,
            ),
        },
        gate=GateSettings(enabled=False, age_ms=2 * DAY_MS, applications=5, margin=0.5),
    )
    assert parse_policy(to_toml(policy)) == policy
    assert parse_policy(to_toml(Policy())) == Policy()


def test_entities_stay_for_four_windows_at_least() -> None:
    """A shorter ``entity_ttl`` is refused: labels of their applications may still come."""
    assert (
        parse_policy('[effects.per_job]\nentity_ttl = "56d"').effects["per_job"].entity_ttl_ms
        == 56 * DAY_MS
    )
    assert (
        parse_policy('[effects.per_job]\nentity_ttl = "off"').effects["per_job"].entity_ttl_ms
        is None
    )
    with pytest.raises(ConfigError, match=r"per_job\] entity_ttl must be at least 4 .* 56d"):
        parse_policy('[effects.per_job]\nentity_ttl = "55d"')
