"""Structs that the garbage collector does not look at."""

from __future__ import annotations

import importlib
import pkgutil
import re

import msgspec

import stream


def untracked() -> dict[str, type[msgspec.Struct]]:
    """Return all structs with ``gc=False``, by name."""
    for module in pkgutil.walk_packages(stream.__path__, "stream."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: dict[str, type[msgspec.Struct]] = {}
    classes: list[type[msgspec.Struct]] = [msgspec.Struct]
    while classes:
        for each in classes.pop().__subclasses__():
            classes.append(each)
            if not each.__struct_config__.gc and each.__module__.startswith("stream."):
                found[each.__name__] = each
    return found


def test_what_is_not_collected_is_in_no_cycle() -> None:
    """No struct with ``gc=False`` can hold itself through others: it would never be freed."""
    structs = untracked()
    holds = {
        name: {
            word
            for base in each.__mro__
            for said in vars(base).get("__annotations__", {}).values()
            for word in re.findall(r"\w+", str(said))
            if word in structs
        }
        for name, each in structs.items()
    }
    assert len(holds) > 40
    for name, held in holds.items():
        reached, last = held, set[str]()
        while reached != last:
            last = reached
            reached = last.union(*(holds[one] for one in last))
        assert name not in reached
