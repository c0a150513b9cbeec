"""Checkpoints of models in training, with the places of their quantizers, adapters and masks."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovfast.errors import Error
from ovfast.training.checks import check_model, require

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load_checkpoint", "save_checkpoint"]

_FORMAT = 1
_HOOKS = "__nncf_hooks."  # how NNCF's part of a state dict begins


def save_checkpoint(
    model: nn.Module,
    path: str | Path,
    *,
    weights: bool = True,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a prepared model to a file, which is there whole or not at all.

    Args:
        model: What `prepare_qat`, `prepare_lora_qat` or `prepare_pruning` returned.
        path: The file. One that is there is replaced.
        weights: Write the model's own weights too. Without them the file is small: for LoRA, where
            they do not change.
        extra: What else you need to go on, such as an optimizer's state_dict: tensors, numbers,
            strings, and dicts and lists of them.

    Raises:
        Error: The file cannot be written.
        ValueError: The model has nothing of NNCF; save its state_dict instead.
    """
    require("torch", "nncf")
    import importlib.metadata

    import nncf.torch
    import torch

    check_model(model)
    _hooks_of(model, wanted=True)
    content = {
        "ovfast_checkpoint": _FORMAT,
        "nncf": importlib.metadata.version("nncf"),
        # As text: reading the file then needs no classes, so that it can run no code.
        "config": json.dumps(nncf.torch.get_config(model)),
        "weights": weights,
        "state": {
            name: value
            for name, value in model.state_dict().items()
            if weights or name.startswith(_HOOKS)
        },
        "extra": extra or {},
    }
    path = Path(path)
    try:
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise Error(f"cannot write '{path}': {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    except OSError as error:
        raise Error(f"cannot write '{path}': {error.strerror}") from error
    finally:
        Path(partial).unlink(missing_ok=True)


def load_checkpoint(model: nn.Module, path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Put the quantizers, adapters or masks of a checkpoint, and its weights, into a model.

    Args:
        model: The original module, not prepared: the architecture that was prepared when the
            checkpoint was made. It is changed. Where the checkpoint has no weights, it must have
            its own.
        path: A file of `save_checkpoint`. Reading it runs no code that it contains.

    Returns the model, as it was when it was saved, and `extra`.

    Raises:
        Error: The file cannot be read, is no checkpoint, or belongs to another model; then the
            model is as it was.
        ValueError: The model is prepared already.
    """
    require("torch", "nncf")
    check_model(model)
    _hooks_of(model, wanted=False)
    content = _read(Path(path))
    saved: dict[str, Any] = content["state"]
    _compare(model, {n: v for n, v in saved.items() if not n.startswith(_HOOKS)}, content, path)

    import nncf
    import nncf.torch

    from ovfast.training.fake_quantize import use_torch_operations

    use_torch_operations()
    try:
        restored: nn.Module = nncf.torch.load_from_config(model, json.loads(content["config"]))
        keys = restored.load_state_dict(saved, strict=content["weights"])
    except (nncf.InternalError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise Error(
            f"'{path}', written with nncf {content['nncf']}, cannot be restored: {error}"
        ) from error
    if keys.unexpected_keys:
        raise Error(f"'{path}' has values without a place: {_some(keys.unexpected_keys)}")
    return restored, content["extra"]


def _hooks_of(model: nn.Module, *, wanted: bool) -> None:
    found = any(name.startswith(_HOOKS) for name in model.state_dict())
    if wanted and not found:
        raise ValueError(
            "the model has no quantizers, adapters or masks; a plain module is saved with "
            "torch.save(model.state_dict(), path)"
        )
    if found and not wanted:
        raise ValueError("the model is prepared already; a checkpoint needs the original one")


def _read(path: Path) -> dict[str, Any]:
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise Error(f"'{path}' cannot be read: {error.strerror or error}") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise Error(
            f"'{path}' is damaged or no checkpoint: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(content, dict) or "ovfast_checkpoint" not in content:
        raise Error(f"'{path}' is not a checkpoint of ovfast.training")
    if content["ovfast_checkpoint"] != _FORMAT:
        raise Error(
            f"'{path}' has format {content['ovfast_checkpoint']}, this ovfast reads {_FORMAT}"
        )
    return content


def _compare(
    model: nn.Module, saved: dict[str, Any], content: dict[str, Any], path: str | Path
) -> None:
    """Refuse a checkpoint of another model before the model is touched."""
    if not content["weights"]:
        return
    there = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    wanted = {name: tuple(value.shape) for name, value in saved.items()}
    if there == wanted:
        return
    told = []
    if missing := sorted(wanted.keys() - there.keys()):
        told.append(f"the model lacks {_some(missing)}")
    if more := sorted(there.keys() - wanted.keys()):
        told.append(f"the checkpoint lacks {_some(more)}")
    told += [
        f"{name} has shape {list(there[name])} in the model, {list(wanted[name])} in the checkpoint"
        for name in sorted(there.keys() & wanted.keys())
        if there[name] != wanted[name]
    ][:3]
    raise Error(f"'{path}' belongs to another model: {'; '.join(told)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
