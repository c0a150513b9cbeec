"""Models that the tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_harness import ovfast_command, scripted  # noqa: F401 (fixtures)
from gguf import GGMLQuantizationType
from tiny_models import ARCHITECTURES, write_gguf

import ovfast
from ovfast.cache import cache_dir, cached_export

# Shells start background jobs with Ctrl+C ignored, which the processes under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

TinyModel = tuple[Path, Path]
"""A GGUF file and the model directory that was made of it."""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], TinyModel]:
    """Writes and exports a model with random weights, once: tiny_model("qwen2", "Q8_0")."""
    made: dict[tuple[str, str], TinyModel] = {}

    def make(architecture: str, tensor_type: str) -> TinyModel:
        if (architecture, tensor_type) not in made:
            folder = tmp_path_factory.mktemp(f"{architecture}-{tensor_type}")
            gguf = folder / "model.gguf"
            write_gguf(gguf, architecture, GGMLQuantizationType[tensor_type])
            ovfast.export(gguf, folder / "exported", progress=False)
            made[architecture, tensor_type] = gguf, folder / "exported"
        return made[architecture, tensor_type]

    return make


@pytest.fixture(scope="session")
def tiny_model_dirs(tiny_model: Callable[[str, str], TinyModel]) -> dict[str, Path]:
    """Architecture -> an exported model with random F16 weights. Shared: do not write into them."""
    return {name: tiny_model(name, "F16")[1] for name in ARCHITECTURES}


@pytest.fixture(scope="session")
def tiny_stock_dirs(
    tiny_model: Callable[[str, str], TinyModel], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The same models in OpenVINO's own operations, as exported with --no-pack."""
    folder = tmp_path_factory.mktemp("stock")
    for name in ARCHITECTURES:
        ovfast.export(tiny_model(name, "F16")[0], folder / name, progress=False, packed=False)
    return {name: folder / name for name in ARCHITECTURES}


@pytest.fixture(scope="session")
def real_model_dir() -> Path:
    """The demo model, exported into the cache. Tests that use it bear the mark `real_model`."""
    configured = os.environ.get("OVFAST_DEMO_MODEL")
    gguf = Path(configured) if configured else next(cache_dir().glob("demo/*.gguf"), None)
    if gguf is None:
        pytest.skip(
            "the demo model is not in the cache: `make demo-model` fetches it, or OVFAST_DEMO_MODEL "
            "names a GGUF file of your own"
        )
    return cached_export(gguf, progress=False)
