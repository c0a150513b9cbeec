"""Recipes: sets of options by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ovfast.quantize.options import WeightOptions

__all__ = ["DEFAULT", "RECIPES", "Recipe", "find_recipe"]

DEFAULT = "int4-g128"


@dataclass(frozen=True)
class Recipe:
    """What a name stands for."""

    name: str
    summary: str
    """What it is good for, one line."""
    kind: str
    """"weights": weights are compressed; "ptq": activations are quantized, too."""
    options: WeightOptions | None = None
    """Of kind "weights"."""

    def with_options(self, changes: Mapping[str, Any]) -> WeightOptions:
        """Return its options with others in their place.

        Raises ValueError for what does not go together, TypeError for unknown names.
        """
        assert self.options is not None, f"{self.name} is of kind {self.kind}"
        try:
            return self.options.replaced(**changes)
        except ValueError as error:
            option = str(error).partition(":")[0]
            if option in changes or option not in self.options.given():
                raise
            raise ValueError(f"{error}, which the recipe {self.name} sets") from error


def _weights(name: str, summary: str, **options: Any) -> Recipe:
    return Recipe(name, summary, "weights", WeightOptions(**options))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        _weights("int8", "8 bits, zero points: hardly any loss", mode="int8-asym"),
        _weights("int8-sym", "8 bits without zero points", mode="int8-sym"),
        _weights("int4-g128", "4 bits, groups of 128: small and fast"),
        _weights("int4-g64", "4 bits, groups of 64: a little better and larger", group_size=64),
        _weights("int4-g32", "4 bits, groups of 32: better and larger", group_size=32),
        _weights("int4-asym-g128", "4 bits with zero points, groups of 128", mode="int4-asym"),
        _weights(
            "int4-asym-g64",
            "4 bits with zero points, groups of 64",
            mode="int4-asym",
            group_size=64,
        ),
        _weights(
            "int4-asym-g32",
            "4 bits with zero points, groups of 32",
            mode="int4-asym",
            group_size=32,
        ),
        _weights("int4-awq", "int4-g128 with AWQ from the weights alone", awq="data-free"),
        _weights("int4-awq-data", "int4-g128 with AWQ from calibration texts", awq="data"),
        _weights(
            "int4-scale-estimation",
            "int4-g128, scales for the least error on calibration texts",
            scale_estimation=True,
        ),
        _weights(
            "int4-asym-data",
            "int4-asym-g128 with AWQ and scale estimation from calibration texts",
            mode="int4-asym",
            awq="data",
            scale_estimation=True,
        ),
        _weights(
            "int4-gptq",
            "int4-g128, rounded by GPTQ on calibration texts: the closest of its size",
            gptq=True,
        ),
        _weights(
            "int4-asym-gptq",
            "the same with zero points",
            mode="int4-asym",
            gptq=True,
        ),
        _weights(
            "int4-lora",
            "int4-g128 with low-rank matrices that make up for errors",
            lora_correction=True,
        ),
        _weights("int4-mixed", "80 % of the weights in int4-g128, the rest in 8 bits", ratio=0.8),
        _weights(
            "int4-mixed-data",
            "the same, chosen and scaled by calibration texts",
            ratio=0.8,
            sensitivity="max-variance",
            scale_estimation=True,
        ),
        _weights(
            "int4-all", "int4-g128 for embeddings and lm_head, too: the smallest", all_layers=True
        ),
        _weights("nf4", "4 bits at quantiles of the normal distribution", mode="nf4"),
        _weights("mxfp4", "4-bit floats, groups of 32 (OCP MX)", mode="mxfp4"),
        _weights("fp8", "8-bit floats (E4M3), groups of 128", mode="fp8"),
        Recipe("ptq-int8", "weights and activations in 8 bits, calibrated", "ptq"),
    )
}
"""Name -> recipe, in the order in which they are listed."""


def find_recipe(name: str) -> Recipe:
    """Return a recipe. Raises ValueError with the known names."""
    if name not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]
