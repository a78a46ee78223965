"""Specs as people write them: what is wrong is said in a line that names the feature."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.errors import ConfigError
from stream.features.fitting import SpecFitter
from stream.features.making import Maker
from stream.features.spec import Category, Number, parse_spec, read_spec

WRONG: list[tuple[str, str]] = [
    ("", "no features"),
    ("x = [", "not TOML"),
    ("[feature.x]\n", "unknown: feature"),
    ("[features]\n", "no features"),
    ('[features."a b"]\nkind = "number"\nof = "job.x"\n', "must be a name of letters"),
    ("[features.x]\n", r"\[features.x\].*kind"),
    ('[features.x]\nkind = "numbers"\nof = "job.x"\n', r"\[features.x\] Invalid value 'numbers'"),
    ('[features.x]\nkind = "number"\n', r"\[features.x\].*`of`"),
    ('[features.x]\nkind = "number"\nof = "pay"\n', "'pay' is no attribute: write member.NAME"),
    ('[features.x]\nkind = "number"\nof = "job."\n', "is no attribute"),
    ('[features.x]\nkind = "number"\nof = "job.x"\nlog = true\n', "unknown field `log`"),
    ('[features.x]\nkind = "number"\nof = "job.x"\nblocks = ["local"]\n', "Invalid enum value"),
    ('[features.x]\nkind = "number"\nof = "job.x"\nclip = [2, 1]\n', "the smaller first"),
    ('[features.x]\nkind = "category"\nof = "job.x"\nmost = -1\n', ">= 0"),
    ('[features.x]\nkind = "category"\nof = "job.x"\nmost = 5000\n', "<= 4096"),
    ('[features.x]\nkind = "match"\nof = "job.x"\nby = ["equal"]\n', "Expected `array`"),
    ('[features.x]\nkind = "match"\nof = ["job.x", "member.x"]\nby = []\n', "length >= 1"),
    ('[features.x]\nkind = "cross"\nof = ["y", "x"]\n', "crosses 'y', which is no other feature"),
    ('[features.x]\nkind = "cross"\nof = ["x", "x"]\n', "crosses 'x', which is no other feature"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_what_is_wrong_is_said(text: str, message: str, tmp_path: Path) -> None:
    """Each mistake is an error of one line, which names the file."""
    path = tmp_path / "features.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as raised:
        read_spec(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """A missing file, and one that is no UTF-8."""
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        read_spec(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"[features.x] # \xff\xff\xff")
    with pytest.raises(ConfigError, match=r"latin\.toml: not UTF-8"):
        read_spec(tmp_path / "latin.toml")


def test_a_spec_is_in_the_order_of_its_file() -> None:
    """So are its columns; a feature goes to the global block unless told otherwise."""
    spec = parse_spec(
        '[features.b]\nkind = "number"\nof = "job.x"\n[features.a]\nkind = "category"\n'
        'of = "member.y"\nblocks = ["per_job"]\n'
    )
    assert list(spec) == ["b", "a"]
    assert isinstance(spec["b"], Number)
    assert isinstance(spec["a"], Category)
    assert (spec["b"].blocks, spec["a"].blocks) == (("global",), ("per_job",))


def test_a_cross_of_too_many_columns_is_refused() -> None:
    """Before anything is made of it."""
    hashed = 'kind = "text"\nof = "job.x"\nhashed = 100\n'
    spec = f'[features.a]\n{hashed}[features.b]\n{hashed}[features.c]\nkind = "cross"\n'
    with pytest.raises(ConfigError, match=r"\[features.c\] would have 100 x 100 columns"):
        Maker(SpecFitter(parse_spec(spec + 'of = ["a", "b"]\n')).fitted())


def test_a_cross_may_come_before_what_it_crosses() -> None:
    """Its columns come after those of all other features, wherever the file has it."""
    of = 'kind = "number"\nof = "job.x"\n'
    spec = f'[features.c]\nkind = "cross"\nof = ["a", "b"]\n[features.a]\n{of}[features.b]\n{of}'
    maker = Maker(SpecFitter(parse_spec(spec)).fitted())
    assert maker.names["global"] == ["intercept", "a", "b", "c:a*b"]
