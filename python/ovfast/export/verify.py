"""Does an exported model say what its original says? One input, both in f32, outputs compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovfast.errors import Error, ModelError
from ovfast.export.manifest import NAME

__all__ = ["LIMITS", "add_quality", "compare", "reason_to_skip", "sample_ids"]

LIMITS = {"f16": 0.01, "int8": 0.1, "int8-sym": 0.1, "int4": 0.8, "int4-asym": 0.8}
"""How weights are stored -> the largest root mean square error of an output, in standard deviations
of the original's output, that passes.

Rounding a weight moves it by up to 2^-12 of its value in f16, by 1/500 of a row's largest in int8
and by 1/15 of a group's largest in int4; the outputs of random models, which is the worst case,
move by about 0.001, 0.03 and 0.5. A wrong graph (a mask, positions, a swapped tensor) gives outputs that have
little to do with the original's: about 1. So f16 and int8 prove the graph, int4 that it is no nonsense.
"""

_SAMPLE = (
    "The quick brown fox jumps over the lazy dog. 3.14159 is not 22 / 7.\n"
    "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n"
)
_TOKENS = 48
_LIBRARIES_BYTES = 1_500_000_000  # PyTorch and OpenVINO themselves

Array = npt.NDArray[Any]


def sample_ids(directory: Path) -> list[int]:
    """Token ids of a short text, from the tokenizer in a model directory."""
    import openvino

    # Loads the extension that the tokenizer's operations are in.
    import openvino_tokenizers  # noqa: F401

    encode = openvino.Core().compile_model(directory / "openvino_tokenizer.xml", "CPU")
    return [int(token) for token in encode([_SAMPLE])["input_ids"][0][:_TOKENS]]


def reason_to_skip(source: Path, graphs: Sequence[Path], task: str) -> str | None:
    """Why a model cannot be compared here, if it cannot.

    Args:
        source: The original's folder.
        graphs: The IRs that were made of it.
        task: What they are for, in Optimum's words.
    """
    if len(graphs) > 1 and not task.startswith("automatic-speech-recognition"):
        names = ", ".join(graph.name for graph in graphs)
        return f"there is no comparison for the task {task} with several models: {names}"
    stored = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    stored = stored or sum(file.stat().st_size for file in source.glob("pytorch_model*.bin"))
    needed = 2 * stored + _LIBRARIES_BYTES  # most are stored in 16 bits
    available = _available_memory()
    if available is not None and available < needed:
        return (
            f"running the original in f32 needs about {needed / 1e9:.1f} GB of memory, "
            f"{available / 1e9:.1f} GB are free"
        )
    return None


def compare(directory: Path, reference: Path, weights: str) -> dict[str, Any]:
    """Compare the outputs of an exported directory with those of the original.

    Args:
        directory: A model directory, stock or packed, or one of another kind in Optimum's layout.
        reference: An .npz with the inputs (in.NAME) and the original's outputs (out.NAME).
        weights: How the weights are stored; a key of LIMITS.

    Returns, of each output, nrmse (root mean square error over the standard deviation of the
    original's), max_abs, and of logits kl_mean: KL(original || export) in nats, mean of positions.

    Raises ModelError when an output differs by more than LIMITS says.
    """
    from ovfast.evaluate.metrics import kl_divergence

    with np.load(reference) as arrays:
        inputs = {name[3:]: arrays[name] for name in arrays if name.startswith("in.")}
        expected = {name[4:]: arrays[name] for name in arrays if name.startswith("out.")}
    got = _outputs(directory, inputs)
    common = sorted(set(expected) & set(got))
    if not common:
        raise Error(
            f"nothing to compare: the original has the outputs {sorted(expected)}, the export "
            f"{sorted(got)}"
        )
    limit = LIMITS[weights]
    found: dict[str, Any] = {"limit_nrmse": limit, "outputs": {}}
    for name in common:
        wanted, value = expected[name].astype(np.float64), got[name].astype(np.float64)
        if wanted.shape != value.shape:
            raise ModelError(
                f"the exported model's output '{name}' has the shape {list(value.shape)}, the "
                f"original's {list(wanted.shape)}"
            )
        error = value - wanted
        nrmse = float(np.sqrt(np.mean(error**2)) / (wanted.std() or 1.0))
        measured = {"nrmse": nrmse, "max_abs": float(np.abs(error).max())}
        if name == "logits" and wanted.ndim == 3:
            rows = (
                array.reshape(-1, array.shape[-1]).astype(np.float32) for array in (wanted, value)
            )
            measured["kl_mean"] = float(kl_divergence(*rows).mean())
        found["outputs"][name] = measured
        if not nrmse <= limit:  # also if it is no number
            raise ModelError(
                f"the exported model does not say what the original says: '{name}' differs by "
                f"{nrmse:.3g} of its standard deviation (at most {limit} with {weights} weights), "
                f"by {measured['max_abs']:.3g} at most"
            )
    return found


def add_quality(directory: Path, quality: dict[str, Any], note: str | None = None) -> None:
    """Add to the "quality" of a directory's manifest, and a note if given."""
    path = directory / NAME
    content = json.loads(path.read_text(encoding="utf-8"))
    content["quality"] = {**content.get("quality", {}), **quality}
    if note is not None:
        content["notes"].append(note)
    partial = path.with_name(f"{NAME}.partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def _outputs(directory: Path, inputs: dict[str, Array]) -> dict[str, Array]:
    from ovfast.evaluate.logits import PositionLogits

    if (directory / "openvino_encoder_model.xml").exists():
        encoded = _run(directory / "openvino_encoder_model.xml", inputs)
        inputs = {
            "input_ids": inputs["decoder_input_ids"],
            "encoder_hidden_states": encoded["last_hidden_state"],
            "beam_idx": np.zeros(len(inputs["decoder_input_ids"]), np.int32),
        }
        return _run(directory / "openvino_decoder_model.xml", inputs)
    if set(inputs) == {"input_ids"}:
        logits = PositionLogits(directory, exact=True)([int(i) for i in inputs["input_ids"][0]])
        return {"logits": logits[None]}
    return _run(directory / "openvino_model.xml", inputs)


def _run(xml: Path, inputs: dict[str, Array]) -> dict[str, Array]:
    import openvino

    from ovfast.evaluate.logits import EXACT

    model = openvino.Core().compile_model(xml, "CPU", EXACT)
    values = {}
    for port in model.inputs:
        name = next((name for name in inputs if name in port.get_names()), None)
        if name is None:
            raise Error(
                f"'{xml.name}' has the input {sorted(port.get_names())}, which the original "
                f"does not: it has {sorted(inputs)}"
            )
        values[port] = inputs[name].astype(port.get_element_type().to_dtype())
    results = model.create_infer_request().infer(values)
    return {name: results[port] for port in model.outputs for name in port.get_names()}


def _available_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None
    )
