"""One declaration of a setting is enough: all that is known of settings follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest

from stream.configuration.load import COMMAND_LINE, load_config
from stream.configuration.render import PAGES, example, page
from stream.configuration.sections import Config, ConsoleSection
from stream.configuration.settings import changed, table, to_toml
from stream.errors import ConfigError
from stream.policy import DAY_MS, EffectSettings, LabelPolicy, Policy
from stream.units import Setting

ROOT = Path(__file__).parents[2]


class Console(ConsoleSection, frozen=True, kw_only=True):
    """``[console]`` with one setting more, of each type."""

    refresh_ms: Annotated[int, Setting("how often the page is renewed")] = 2_000
    stale_ms: Annotated[int | None, Setting("after it, the page is grey")] = None
    dark: Annotated[bool, Setting("white on black")] = False
    share: Annotated[float, Setting("of entities that are listed")] = 0.5
    rows: Annotated[int, Setting("entities that are listed")] = 20
    columns: Annotated[frozenset[str], Setting("what is listed")] = frozenset({"id", "count"})
    title: Annotated[str | None, Setting("on top", example="My market")] = None
    style: Annotated[Path, Setting("CSS")] = Path("style.css")
    units: Annotated[Literal["odds", "nats"], Setting("of coefficients")] = "odds"
    token: Annotated[str | None, Setting("who reads must know it", secret=True)] = None
    token_file: Annotated[Path | None, Setting("a file with the token", example="/token")] = None


MORE = Config(console=Console())

NEW = {
    "refresh": ('"2s"', '"5m"', "5m", 300_000, "5"),
    "stale": ('"off"', '"1d"', "1d", DAY_MS, "never"),
    "dark": ("false", "true", "on", True, "dim"),
    "share": ("0.5", "0.25", "0.25", 0.25, "half"),
    "rows": ("20", "7", "7", 7, "7.5"),
    "columns": ('["count", "id"]', '["a", "b c"]', "b c, a", frozenset({"a", "b c"}), None),
    "title": (None, '"Ours"', "Ours", "Ours", None),
    "style": ('"style.css"', '"/a b"', "/a b", Path("/a b"), None),
    "units": ('"odds"', '"nats"', "nats", "nats", "bits"),
}
"""Key → default in a file, another value in a file, in a variable, in force; a wrong text."""


@pytest.mark.parametrize("key", NEW)
def test_a_new_setting_is_seen_everywhere(key: str, tmp_path: Path) -> None:
    """Declared once, it is read, checked, shown, in the example file, and in the docs."""
    default, other, text, value, wrong = NEW[key]
    file = tmp_path / "hearback.toml"
    file.write_text(f"[console]\n{key} = {other}\n")
    variable = f"HEARBACK_CONSOLE_{key.upper()}"
    row = next(row for row in table(MORE) if row.name == f"console.{key}")
    from_file = load_config(file, {}, defaults=MORE)
    from_variable = load_config(None, {variable: text}, defaults=MORE)
    from_option = load_config(None, {}, options={f"console.{key}": value}, defaults=MORE)
    for found, source in (
        (from_file, str(file)),
        (from_variable, variable),
        (from_option, COMMAND_LINE),
    ):
        assert getattr(found.console, row.field) == value
        assert found.sources == {f"console.{key}": source}
        shown = to_toml(found, found.sources)
        assert f"\n{key} = {other}  # {source}\n" in shown
        file.write_text(shown)
        assert load_config(file, {}, defaults=MORE).console == found.console
    explained = example(MORE)
    docs = page("<!-- settings: console -->\n<!-- end -->\n", MORE)
    for made in (explained, docs):
        line = next(line for line in made.splitlines() if line.removeprefix("# ").startswith(key))
        assert line.startswith(f"{key} = {default}" if default else f"# {key} = ")
        assert line.endswith(f"  # {row.help}")
    if wrong is not None:
        with pytest.raises(ConfigError, match=rf"{variable}: \[console\] {key} must be "):
            load_config(None, {variable: wrong}, defaults=MORE)
        file.write_text(f'[console]\n{key} = "{wrong}"')
        with pytest.raises(ConfigError, match=rf"hearback.toml: \[console\] {key} must be "):
            load_config(file, {}, defaults=MORE)
    file.write_text(f"[console]\n{key}x = {other}")
    with pytest.raises(ConfigError, match=rf"unknown setting {key}x: did you mean {key}\?"):
        load_config(file, {}, defaults=MORE)


def test_a_new_secret_is_read_and_never_written(tmp_path: Path) -> None:
    """It comes from its variable or its file, is refused in the configuration, shown nowhere."""
    secret, file = tmp_path / "token", tmp_path / "hearback.toml"
    secret.write_text("s3cret\n")
    file.write_text(f"[console]\ntoken_file = '{secret}'")
    from_file = load_config(file, {}, defaults=MORE)
    from_variable = load_config(None, {"HEARBACK_CONSOLE_TOKEN": "s3cret"}, defaults=MORE)
    for found in (from_file, from_variable):
        assert isinstance(found.console, Console)
        assert found.console.token == secret.read_text().strip()
        assert "s3cret" not in to_toml(found, found.sources)
        assert "s3cret" not in repr(table(found))
    assert "# token: (secret), HEARBACK_CONSOLE_TOKEN" in to_toml(
        from_variable, from_variable.sources
    )
    file.write_text("[console]\ntoken = 's3cret'")
    with pytest.raises(ConfigError, match="give HEARBACK_CONSOLE_TOKEN or token_file") as refused:
        load_config(file, {}, defaults=MORE)
    assert "s3cret" not in str(refused.value)


def test_the_docs_show_the_settings_as_they_are() -> None:
    """``make docs`` has been run, and every section of the policy and the worker is on a page."""
    shown = ""
    for path in PAGES:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert text == page(text)
        shown += text
    for section in ("worker", "console", "log", "features", "labels", "effects.per_member", "gate"):
        assert f"```toml\n[{section}]\n" in shown or f"\n\n[{section}]\n" in shown


def test_changes_go_over_what_is_in_force() -> None:
    """Only what is named changes; sections are checked, and told apart where several are alike."""
    policy = Policy(effects={"per_job": EffectSettings(capacity=7)})
    other = changed(policy, {"effects.per_job.coupled": False, "labels.window": DAY_MS})
    assert other == Policy(
        labels=LabelPolicy(window_ms=DAY_MS),
        effects={"per_job": EffectSettings(capacity=7, coupled=False)},
    )
    assert changed(policy, {}) == policy
    with pytest.raises(ConfigError, match=r"^\[effects.per_job\] full_up_to must not be negative$"):
        changed(policy, {"effects.per_job.full_up_to": -1})


def test_no_field_of_a_section_is_left_out() -> None:
    """Each is a setting with a help text of one line."""
    config = Config()
    sections = [*config.policy.effects.values(), config.policy.labels, config.policy.gate]
    sections += [config.policy.features, config.policy.matches, config.policy.applicants]
    sections += [config.kafka, config.worker, config.console, config.serving, config.log]
    rows = table(config)
    assert len(rows) == sum(len(section.__struct_fields__) for section in sections)
    assert all(row.help and "\n" not in row.help for row in rows)
