"""Runs in the environment that has Optimum Intel: exports a model, or computes what it should say.

The one argument is a request in JSON; see `main`. The interpreter need not have ovfast, so nothing
of it is imported.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

# OpenVINO's tools report their use over the network, except where this is set.
os.environ["CI"] = "true"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

_PAST = "-with-past"
# Without their cache these cannot generate token by token.
_WITH_PAST = ("text-generation", "text2text-generation", "automatic-speech-recognition")
_DECODER_TOKENS = 8
_LIBRARY = "transformers"


def export(request: dict[str, Any]) -> dict[str, Any]:
    """Export with f16 weights, quantize if asked to.

    Return the task that it was done for, the weights, and the rotary embeddings of the model.
    """
    from optimum.exporters.openvino.__main__ import _main_quantize, main_export
    from optimum.intel import OVConfig, OVWeightQuantizationConfig

    rotary = _record_rotary()
    model, output, trust = request["model"], Path(request["output"]), request["trust_remote_code"]
    task = request["task"] or _task(model, trust)
    if task in _WITH_PAST:
        task += _PAST
    weights = request["weights"]
    if weights is None:
        weights = "int4" if task.startswith("text-generation") else "f16"
    main_export(
        model,
        output,
        task=task,
        trust_remote_code=trust,
        ov_config=OVConfig(dtype="fp16"),
        convert_tokenizer=False,  # ovfast does that, and checks it
        library_name=_LIBRARY,
    )
    if weights != "f16":
        bits = 4 if weights.startswith("int4") else 8
        config = OVWeightQuantizationConfig(
            bits=bits,
            sym=weights in ("int4", "int8-sym"),
            group_size=request["group_size"] if bits == 4 else None,
            group_size_fallback="adjust" if bits == 4 else None,
        )
        _main_quantize(model, task, _LIBRARY, config, output, None, trust_remote_code=trust)
    return {"task": task, "weights": weights, "rotary": rotary}


def _record_rotary() -> list[dict[str, Any]]:
    """Return a list that gets the frequencies of every rotary embedding that is made from now on."""
    import torch

    found: list[dict[str, Any]] = []
    register = torch.nn.Module.register_buffer

    def recorded(module: Any, name: str, tensor: Any, *args: Any, **options: Any) -> None:
        if name == "inv_freq" and tensor is not None and tensor.device.type != "meta":
            factor = float(getattr(module, "attention_scaling", 1.0))
            one = {"inv_freq": tensor.tolist(), "factor": factor}
            if one not in found:
                found.append(one)
        register(module, name, tensor, *args, **options)

    torch.nn.Module.register_buffer = recorded
    return found


def _task(model: str, trust_remote_code: bool) -> str:
    """What the class in config.json is for, which Optimum finds out for models of a hub only."""
    import transformers
    from optimum.exporters.tasks import TasksManager

    config = transformers.AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
    name = next(iter(config.architectures or ()), None)
    known = getattr(transformers, name, None) if name else None
    if known is None:
        raise ValueError(f"config.json names the class {name!r}: say with --task what it is for")
    return str(TasksManager.infer_task_from_model(known, library_name=_LIBRARY))


def reference(request: dict[str, Any]) -> dict[str, Any]:
    """Run the original in f32 on one input; write input and output as in.NAME and out.NAME."""
    import numpy as np
    import optimum.exporters.openvino.model_configs  # noqa: F401 (registers what it can export)
    import torch
    from optimum.exporters.tasks import TasksManager

    task = request["task"].removesuffix(_PAST)
    rotary = _record_rotary()
    model = TasksManager.get_model_from_task(
        task,
        request["model"],
        framework="pt",
        library_name=_LIBRARY,
        torch_dtype=torch.float32,
        trust_remote_code=request["trust_remote_code"],
    ).eval()
    torch.manual_seed(0)
    if task == "text-generation":
        inputs = {"input_ids": torch.tensor([request["ids"]])}
        names = ["logits"]
    elif task == "automatic-speech-recognition":
        inputs = _speech_inputs(model)
        names = ["logits"]
    else:
        make = TasksManager.get_exporter_config_constructor(
            "openvino", model, task=task, library_name=_LIBRARY
        )
        config = make(model.config)
        inputs = config.generate_dummy_inputs("pt")
        names = list(config.outputs)
    with torch.no_grad():
        outputs = model(**inputs)
    said = {f"out.{name}": outputs[name] for name in names if name in outputs}
    arrays = {**{f"in.{name}": value for name, value in inputs.items()}, **said}
    np.savez(request["output"], **{name: value.numpy() for name, value in arrays.items()})
    return {"outputs": sorted(said), "rotary": rotary}


def _speech_inputs(model: Any) -> dict[str, Any]:
    import torch

    config = model.config
    if not hasattr(config, "num_mel_bins") or not hasattr(config, "max_source_positions"):
        raise ValueError(f"models of the type {config.model_type} cannot be verified")
    start = torch.tensor([[config.decoder_start_token_id]])
    more = torch.randint(0, config.vocab_size, (1, _DECODER_TOKENS - 1))
    return {
        # The first convolution but one halves the frames.
        "input_features": torch.randn(1, config.num_mel_bins, 2 * config.max_source_positions),
        "decoder_input_ids": torch.cat([start, more], dim=1),
    }


def main() -> None:
    """Do what the request's "command" names, and write what it returns to its "answer" as JSON."""
    request = json.loads(sys.argv[1])
    # Optimum moves files from its temporary ones, which works on one file system only.
    tempfile.tempdir = request["scratch"]
    if not request["trust_remote_code"]:
        os.environ["HF_HUB_OFFLINE"] = "1"  # the model is a local folder
    try:
        answer = {"export": export, "reference": reference}[request["command"]](request)
    except Exception as error:  # noqa: BLE001 (whatever it is, the starter shows it)
        if request["verbose"]:
            traceback.print_exc()
        sys.exit(f"{type(error).__name__}: {error}")
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
