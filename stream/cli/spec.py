"""What the commands that fit a model do with a spec of attributes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stream.cli.terminal import ERR, reading, tell
from stream.logs.files import ReadProgress, merge

if TYPE_CHECKING:
    from stream.features.making import Maker

_TOLD = 0.01  # a share of attributes of another type that is worth a line


def fitted_spec(path: Path, logs: list[Path], until_ms: int | None) -> Maker:
    """Read a spec, and learn it of the logs up to a time; tell what came of it."""
    from stream.features.spec import read_spec
    from stream.model.spec_fitting import fit_spec

    spec = read_spec(path)
    read = ReadProgress()
    with reading("reading attributes", read) as progress:
        maker = fit_spec(spec, merge(logs, read), until_ms, progress)
    sizes = ", ".join(f"{len(names)} {block}" for block, names in maker.names.items())
    tell(f"spec: {len(spec)} features make columns: {sizes}")
    for one in maker.fitted.features:
        if one.rows and one.missing == one.rows:
            tell(f"feature {one.name}: no application has {' and '.join(one.feature.paths)}", ERR)
        elif one.odd > _TOLD * one.rows:
            tell(
                f"feature {one.name}: {one.odd:,} of {one.rows:,} applications have something else"
                f" than a {one.feature.__struct_config__.tag} and count as missing",
                ERR,
            )
    return maker
