"""What kinds of global model there are; takes no heavy library, so that options can name them."""

from __future__ import annotations

from typing import Literal

ModelKind = Literal["linear", "boosted"]
"""A logistic regression, or boosted trees."""

FILES: dict[ModelKind, str] = {"linear": "coefficients.npy", "boosted": "trees.npy"}
"""The file with a model's arrays in its folder."""

FURTHER: dict[ModelKind, tuple[str, ...]] = {
    "linear": ("preferences",),
    "boosted": ("history", "preferences"),
}
"""Inputs beside the global features that a model is fitted on where they help; a linear one finds
nothing in histories: what they say lies in thresholds and in what goes with what."""
