"""Texts through a model: what data-aware compression learns from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from ovfast.errors import ModelError
from ovfast.evaluate.corpus import read_texts
from ovfast.model_dir import ModelDir
from ovfast.quantize.options import WeightOptions

__all__ = ["LEAST_TOKENS", "SAMPLES", "SAMPLE_TOKENS", "Calibration", "read_calibration"]

# Scale estimation looks at the mean of each text: many short ones tell it more than few long ones.
SAMPLES = 64
SAMPLE_TOKENS = 64
LEAST_TOKENS = 16
"""Texts with less tokens are left out."""
_FEW_TOKENS = 2048
"""Together; below, statistics depend on which texts there happen to be."""


@dataclass(frozen=True)
class Calibration:
    """Token ids to calibrate with."""

    texts: list[list[int]]
    notes: list[str] = field(default_factory=list)
    """What a person should know about them."""

    @property
    def description(self) -> dict[str, Any]:
        """For the manifest: how much it was, and a hash of it."""
        digest = hashlib.sha256()
        for ids in self.texts:
            digest.update(np.array([len(ids), *ids], np.int64).tobytes())
        return {
            "texts": len(self.texts),
            "tokens": sum(len(ids) for ids in self.texts),
            "sha256": digest.hexdigest(),
        }

    def inputs(self, names: set[str]) -> list[dict[str, Any]]:
        """Return the inputs of a stateful model, text after text; `names` are those it has.

        int64 [1, n] input_ids, attention_mask, position_ids; int32 [1] beam_idx.
        """
        samples = []
        for ids in self.texts:
            sample = {
                "input_ids": np.array([ids], np.int64),
                "attention_mask": np.ones((1, len(ids)), np.int64),
                "position_ids": np.arange(len(ids), dtype=np.int64)[None],
                "beam_idx": np.zeros(1, np.int32),
            }
            if not names <= set(sample):
                raise ModelError(
                    f"the model has inputs that calibration knows nothing of: expected at most "
                    f"{sorted(sample)}, got {sorted(names)}"
                )
            samples.append({name: sample[name] for name in names})
        return samples


def read_calibration(model: ModelDir, options: WeightOptions) -> Calibration:
    """Read and tokenize as many texts as the options want.

    Long texts are cut into pieces: first come the first pieces of all texts, then the second ones,
    and so on.

    Raises ValueError when the file or folder holds too little: no text of LEAST_TOKENS tokens.
    """
    import openvino as ov

    from ovfast._openvino import tokenizers_extension

    wanted = options.samples or SAMPLES
    length = options.sample_tokens or SAMPLE_TOKENS
    least = min(LEAST_TOKENS, length)
    try:
        template = model.load_chat_template()
    except ModelError:
        template = None
    texts = read_texts(options.data, chat_template=template)
    if options.data is None:
        texts = texts[len(texts) // 2 :]  # evaluations begin with the first ones
    core = ov.Core()
    core.add_extension(str(tokenizers_extension()))
    tokenizer = core.compile_model(model.path / "openvino_tokenizer.xml", "CPU")
    cut: list[list[list[int]]] = []
    for text in texts:
        ids = tokenizer([text])["input_ids"][0].tolist()
        pieces = [ids[at : at + length] for at in range(0, len(ids), length)]
        whole = [piece for piece in pieces if len(piece) >= least]
        if whole:
            cut.append(whole)
        if len(cut) >= wanted:
            break
    in_turn = (piece for pieces in zip_longest(*cut) for piece in pieces)
    chosen = [piece for piece in in_turn if piece is not None][:wanted]
    name = "Python's own texts" if options.data is None else f"'{options.data}'"
    if not chosen:
        raise ValueError(
            f"data: expected a text of at least {least} tokens, got {len(texts)} shorter ones in "
            f"{name}"
        )
    return Calibration(chosen, _notes(chosen, wanted, name))


def _notes(chosen: list[list[int]], wanted: int, name: str) -> list[str]:
    tokens = sum(len(ids) for ids in chosen)
    notes = []
    if len(chosen) < wanted:
        notes.append(f"{name} gave {len(chosen)} calibration texts where {wanted} were asked for")
    if tokens < _FEW_TOKENS:
        notes.append(
            f"only {tokens} tokens of calibration text: from {_FEW_TOKENS} on results depend less "
            "on the choice of texts"
        )
    return notes
