"""Decoders written layer by layer, against transformers on torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest
from tiny_folders import FAMILIES, FOLDERS, TOKENIZER, VOCABULARY, write_folder

import ovfast
from ovfast.export.decoder import convert, export_decoder
from ovfast.export.decoder.checkpoint import Checkpoint
from ovfast.export.decoder.config import read_config
from ovfast.export.decoder.graph import build_graph
from ovfast.export.decoder.ir import write_ir
from ovfast.export.decoder.plan import make_plan
from ovfast.export.decoder.weight_format import formats
from ovfast.export.decoder.writer import write_weights
from ovfast.export.tokenizer import write_folder_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# The weights are the same f16 numbers on both sides, and all arithmetic is f32: what differs is the
# order of sums of up to 192 terms in three layers, 1e-6 of logits of about 1. A wrong window,
# frequency or scale makes 1e-2 at least.
TOLERANCE = 1e-4
TOKENS = 40  # several windows
EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
}


def reference_model(folder: Path) -> object:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def ids(seed: int, tokens: int = TOKENS) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, TOKENIZER, (1, tokens))


def write_stock(folder: Path, out: Path) -> Path:
    """The IR alone, in f16."""
    out.mkdir()
    checkpoint, config = Checkpoint(folder), read_config(folder)
    plan = make_plan(checkpoint, config, *formats("f16", None))
    binary = out / "openvino_model.bin"
    write_weights(checkpoint, plan, binary, "key", lambda fraction, what: None)
    return write_ir(build_graph(config, plan), plan, binary)


class Stateful:
    """Runs an IR as its state goes on."""

    def __init__(self, xml: Path) -> None:
        self.request = openvino.Core().compile_model(xml, "CPU", EXACT).create_infer_request()

    def __call__(self, tokens: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Logits of tokens behind those that `mask` is longer for."""
        if mask is None:
            mask = np.ones(tokens.shape, np.int64)
        positions = np.maximum(mask.cumsum(1) - 1, 0)[:, -tokens.shape[1] :]
        outputs = self.request.infer(
            {
                "input_ids": tokens,
                "attention_mask": mask,
                "position_ids": positions,
                "beam_idx": np.arange(len(tokens), dtype=np.int32),
            }
        )
        return outputs["logits"].copy()


@pytest.mark.parametrize("name", FOLDERS)
def test_logits(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", name)
    tokens = ids(1)
    with torch.no_grad():
        expected = reference_model(folder)(torch.from_numpy(tokens)).logits.numpy()
    assert expected.std() > 0.3
    model = Stateful(write_stock(folder, tmp_path / "out"))
    np.testing.assert_allclose(model(tokens), expected, atol=TOLERANCE, rtol=0)

    model.request.reset_state()
    pieces = [model(tokens[:, :30])]
    for last in range(30, TOKENS):
        mask = np.ones((1, last + 1), np.int64)
        pieces.append(model(tokens[:, last : last + 1], mask))
    np.testing.assert_allclose(np.concatenate(pieces, 1), expected, atol=TOLERANCE, rtol=0)

    model.request.reset_state()  # beside a longer one, with padding before it
    padding = 7
    padded = np.concatenate([np.repeat(ids(2, padding), 2, 0), np.repeat(tokens, 2, 0)], 1)
    mask = np.ones(padded.shape, np.int64)
    mask[0, :padding] = 0
    found = model(padded, mask)[0, padding:]
    np.testing.assert_allclose(found, expected[0], atol=TOLERANCE, rtol=0)


def test_beams_take_their_own_past(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", "qwen2")
    model = Stateful(write_stock(folder, tmp_path / "out"))
    both = np.concatenate([ids(1, 8), ids(2, 8)])
    model(both)
    swapped = model.request.infer(
        {
            "input_ids": both[:, -1:],
            "attention_mask": np.ones((2, 9), np.int64),
            "position_ids": np.full((2, 1), 8),
            "beam_idx": np.array([1, 0], np.int32),
        }
    )["logits"].copy()
    model.request.reset_state()
    model(both[::-1].copy())
    same = model(both[:, -1:].copy(), np.ones((2, 9), np.int64))
    np.testing.assert_allclose(swapped, same, atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def export(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[Path, Path]]:
    """Exports one of FOLDERS; all have one tokenizer, which is converted once."""
    ready = tmp_path_factory.mktemp("tokenizer")
    write_folder_tokenizer(write_folder(tmp_path_factory.mktemp("any"), "llama"), ready)

    class Copied:
        def __init__(self, source: Path, out_dir: Path) -> None:
            shutil.copytree(ready, out_dir, dirs_exist_ok=True)

        def failed(self) -> bool:
            return False

        def result(self) -> None:
            pass

        def close(self) -> None:
            pass

    def run(name: str, **options: object) -> tuple[Path, Path]:
        place = tmp_path_factory.mktemp(name)
        folder = write_folder(place / "folder", name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(convert, "TokenizerJob", Copied)
            export_decoder(folder, place / "out", progress=False, **options)  # type: ignore[arg-type]
        return folder, place / "out"

    return run


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_tokens(name: str, export: Callable[..., tuple[Path, Path]]) -> None:
    """The packed f16 model, in the engine, says what the original says."""
    folder, out = export(name, weights="f16")
    prompt = ids(3, 20)
    # The engine never says what its tokenizer does not know: rows that fill the matrix up.
    options = {
        "min_new_tokens": 12,
        "max_new_tokens": 12,
        "do_sample": False,
        "pad_token_id": 2,
        "suppress_tokens": [2, *range(TOKENIZER, VOCABULARY)],
    }
    with torch.no_grad():
        expected = reference_model(folder).generate(torch.from_numpy(prompt), **options)
    wanted = expected[0, prompt.shape[1] :].tolist()
    exact = {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32"}
    with ovfast.LLM(
        out, activation_precision="exact", attention="openvino", properties=exact, kv_cache_gb=0.05
    ) as llm:
        assert llm.info.packed
        assert llm.info.unpacked_layers == 0
        result = llm.generate(prompt[0].tolist(), max_new_tokens=12, min_new_tokens=12)
        assert result.token_ids == wanted


# Those whose layers become one operation; the others have norms behind their layers.
@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral", "gemma", "phi3"])
def test_layers_fuse(name: str, export: Callable[..., tuple[Path, Path]]) -> None:
    _, out = export(name, weights="int4", group_size=64)
    with ovfast.LLM(out, kv_cache_gb=0.05) as llm:
        if llm.info.attention != "ovfast":
            pytest.skip(llm.info.attention_reason)
        assert llm.info.fused_layers == 3


def test_stock_and_packed_are_one_model(export: Callable[..., tuple[Path, Path]]) -> None:
    _, packed = export("qwen3", weights="int8")
    _, stock = export("qwen3", weights="int8", packed=False)
    prompt = ids(4, 20)[0].tolist()
    exact = {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32"}
    answers = []
    for directory, how in ((packed, "auto"), (stock, "never")):
        with ovfast.LLM(
            directory,
            packed=how,
            activation_precision="exact",
            attention="openvino",
            properties=exact,
            kv_cache_gb=0.05,
        ) as llm:
            answers.append(llm.generate(prompt, max_new_tokens=12, ignore_eos=True).token_ids)
    assert answers[0] == answers[1]
