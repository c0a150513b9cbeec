"""Rotary positions as transformers 4 spells them, out of how transformers 5 does.

transformers 5 writes all of them into "rope_parameters", which version 4, in which Optimum Intel
runs, passes over: it then computes with the default base, in the export and in the comparison with
the original alike. So Optimum is given a folder of links, in which config.json has the old keys, and
what the model really computed with is compared with rope_parameters afterwards.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ovfast.errors import ModelError
from ovfast.export.decoder.config import read_raw_config
from ovfast.export.decoder.rope import read_rope

__all__ = ["OldSpelling", "respell"]

_KINDS = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
# model_type -> keys of the base and of the rotated part, where they are not the usual ones.
_BASES = {
    "gpt_neox": ("rotary_emb_base", "rotary_pct"),
    "gpt_neox_japanese": ("rotary_emb_base", "rotary_pct"),
}
# Families whose kinds of layers turn differently: keys of the bases of full and sliding attention.
_TWO_BASES = {
    "gemma3_text": ("rope_theta", "rope_local_base_freq"),
    "gemma3n_text": ("rope_theta", "rope_local_base_freq"),
    "modernbert": ("global_rope_theta", "local_rope_theta"),
    "modernbert-decoder": ("global_rope_theta", "local_rope_theta"),
}
# These scale the frequencies of full attention only, by their own code.
_SCALED_FULL = ("gemma3_text", "gemma3n_text", "olmo3")
# What version 4 has no key for, and computes in towers for images.
_AXIAL = {"rope_type": "axial", "rope_theta": 10000.0}
_FULL, _SLIDING = "full_attention", "sliding_attention"
_TOLERANCE = 1e-5  # both compute in f32

Level = dict[str, Any]


@dataclass(frozen=True)
class OldSpelling:
    """A config.json in the words of transformers 4."""

    content: dict[str, Any]
    notes: list[str]
    wanted: list[tuple[str, Level, dict[str, Any]]] = field(default_factory=list)
    """Where, the level of config.json and the parameters of each rotation that must be found."""

    def link(self, folder: Path, place: Path) -> Path:
        """Make a folder in `place` that holds links to all of `folder` but config.json."""
        made = place / folder.name
        made.mkdir(parents=True)
        for file in folder.iterdir():
            if file.name != "config.json":
                (made / file.name).symlink_to(file.resolve())
        (made / "config.json").write_text(json.dumps(self.content, indent=2), encoding="utf-8")
        return made

    def check(self, found: Sequence[dict[str, Any]]) -> None:
        """Compare with what a model computes with.

        Args:
            found: "inv_freq" and "factor" of each of its rotary embeddings.

        Raises ModelError when one that config.json asks for is not among them.
        """
        for where, level, parameters in self.wanted:
            if not any(_is_same(level, parameters, rotary, where) for rotary in found):
                raise ModelError(
                    f"{where}: Optimum Intel's transformers 4 does not compute the rotary "
                    f"positions of {json.dumps(parameters)} for models of the type "
                    f"{level.get('model_type')}, whatever config.json says"
                )


def respell(folder: Path) -> OldSpelling | None:
    """Translate a folder's config.json; None when it has no rope_parameters.

    Raises ModelError for what the old keys cannot say, and for a file that says two things.
    """
    where = str(folder / "config.json")
    content = copy.deepcopy(read_raw_config(folder))
    notes: list[str] = []
    wanted = []
    levels = list(_levels(content))
    for path, level in levels:
        parameters = level.pop("rope_parameters")
        if not parameters:  # the defaults of the class, which are the same ones
            continue
        at = f"'{where}', {path}rope_parameters"
        if not isinstance(parameters, dict):
            raise ModelError(f"{at} must be an object, got {json.dumps(parameters)}")
        written, rotations = _spell(level, parameters, at)
        _add(level, written, at)
        if "vision" not in path:  # towers for images lay theirs out in two dimensions
            wanted += [(at, level, rotation) for rotation in rotations]
        shown = ", ".join(f"{key} {_kind(value) or value}" for key, value in written.items())
        if shown:
            notes.append(f"{path}rope_parameters given to Optimum's transformers 4 as {shown}")
    return OldSpelling(content, notes, wanted) if levels else None


def _levels(level: Level, path: str = "") -> Iterator[tuple[str, Level]]:
    """Every object that has rope_parameters: models of images and text nest their configs."""
    if "rope_parameters" in level:
        yield path, level
    for key, value in level.items():
        if isinstance(value, dict) and key not in ("rope_parameters", "rope_scaling"):
            yield from _levels(value, f"{path}{key}.")


def _spell(
    level: Level, parameters: dict[str, Any], where: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The old keys, and the rotations that they describe."""
    family = str(level.get("model_type"))
    if not all(isinstance(value, dict) for value in parameters.values()):
        if family in _TWO_BASES:
            raise ModelError(
                f"{where}: expected {_FULL} and {_SLIDING} for the type {family}, got "
                f"{', '.join(parameters)}"
            )
        if parameters == _AXIAL:
            return {}, []
        base, partial = _BASES.get(family, ("rope_theta", "partial_rotary_factor"))
        return _flat(parameters, base, partial, where), [parameters]
    # Of each kind of layer.
    rotations = list(parameters.values())
    if family not in (*_TWO_BASES, *_SCALED_FULL):
        if any(rotation != rotations[0] for rotation in rotations):
            raise ModelError(
                f"{where} differs by kind of layer ({', '.join(parameters)}), which transformers "
                f"4 has no keys for in models of the type {family}"
            )
        return _flat(rotations[0], "rope_theta", "partial_rotary_factor", where), rotations[:1]
    if set(parameters) != {_FULL, _SLIDING}:
        raise ModelError(f"{where}: expected {_FULL} and {_SLIDING}, got {', '.join(parameters)}")
    full, sliding = parameters[_FULL], parameters[_SLIDING]
    base, local = _TWO_BASES.get(family, ("rope_theta", "rope_theta"))
    written = _flat(full, base, "partial_rotary_factor", where)
    others = _flat(sliding, local, "partial_rotary_factor", where)
    if set(others) != {local} or ("rope_scaling" in written and family not in _SCALED_FULL):
        raise ModelError(
            f"{where}: transformers 4 has no keys for such a scaling in models of the type "
            f"{family}: {_short(parameters)}"
        )
    if base == local and others != {base: written[base]}:
        raise ModelError(
            f"{where}: in models of the type {family} transformers 4 has one base for all "
            f"layers, got {written[base]} and {others[base]}"
        )
    return {**written, **others}, rotations


def _flat(parameters: dict[str, Any], base: str, partial: str, where: str) -> dict[str, Any]:
    """The old keys of one rotation."""
    rest = dict(parameters)
    kind = rest.pop("rope_type", rest.pop("type", "default"))
    rest.pop("type", None)
    if kind not in _KINDS:
        raise ModelError(
            f"{where}: expected rope_type {', '.join(_KINDS)}, which transformers 4 knows, got "
            f"{kind!r}"
        )
    theta = rest.pop("rope_theta", None)
    if isinstance(theta, bool) or not isinstance(theta, (int, float)) or not theta > 0:
        raise ModelError(f"{where}: expected a number above 0 as rope_theta, got {theta!r}")
    written: dict[str, Any] = {base: theta}
    share = rest.pop("partial_rotary_factor", None)
    if share is not None:
        written[partial] = share
    if kind == "longrope":
        # Named by "type", and with the original context beside it, as Phi-3 wants it.
        original = rest.pop("original_max_position_embeddings", None)
        if original is not None:
            written["original_max_position_embeddings"] = original
        written["rope_scaling"] = {"type": kind, **rest}
    elif kind != "default" or rest:  # such as the sections of multimodal positions
        written["rope_scaling"] = {"rope_type": kind, **rest}
    return written


def _add(level: Level, written: dict[str, Any], where: str) -> None:
    """Put the old keys in, unless they are there and say something else."""
    for key in sorted({*written, "rope_scaling"}):
        there = level.get(key)
        if there is None or _plain(there) == _plain(written.get(key)):
            continue
        raise ModelError(
            f"{where} and '{key}' beside it disagree: {_short(written.get(key))} and "
            f"{_short(there)}. Remove one of them from a copy of the folder"
        )
    level.update(written)


def _plain(scaling: Any) -> Any:
    if not isinstance(scaling, dict):
        return scaling
    dropped = ("type", "rope_type", "rope_theta", "partial_rotary_factor")
    rest = {key: value for key, value in scaling.items() if key not in dropped}
    return {"rope_type": _kind(scaling), **rest}


def _kind(scaling: Any) -> Any:
    return scaling.get("rope_type", scaling.get("type")) if isinstance(scaling, dict) else None


def _is_same(level: Level, parameters: dict[str, Any], rotary: dict[str, Any], where: str) -> bool:
    """Whether a rotary embedding turns as parameters say."""
    got = np.asarray(rotary["inv_freq"], np.float64)
    if got.ndim != 1 or not len(got):
        return False
    if "partial_rotary_factor" in parameters:
        head = level.get("head_dim") or level["hidden_size"] // level["num_attention_heads"]
        if 2 * len(got) != int(head * parameters["partial_rotary_factor"]):
            return False
    asked = {key: value for key, value in parameters.items() if key != "partial_rotary_factor"}
    if asked.get("rope_type") == "dynamic":  # these change when the text grows
        asked = {"rope_type": "default", "rope_theta": asked["rope_theta"]}
    context = int(level.get("max_position_embeddings") or 0)
    try:
        rope = read_rope(asked, 2 * len(got), context, where)
    except ModelError:
        return False  # such as factors for another number of channels
    same = np.allclose(got, rope.inv_freq, rtol=_TOLERANCE, atol=0)
    return bool(same and abs(rotary["factor"] - rope.factor) <= _TOLERANCE * rope.factor)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
