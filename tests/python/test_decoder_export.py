"""Whole exports of Hugging Face folders: from Python and the command line, killed, and on full disks."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino
import pytest
from cli_harness import Ovfast
from tiny_folders import CHAT_TEMPLATE, config, tensors, to_bf16, write_folder, write_parts
from tiny_models import write_gguf

import ovfast
from ovfast.errors import Error, ModelError
from ovfast.export.decoder import is_decoder, writer
from ovfast.model_dir import ModelDir

SCRIPT = "import sys, ovfast; ovfast.export(sys.argv[1], sys.argv[2], packed=False)"
# Kills itself when the embedding and two layers are written.
KILL = """
import os, signal
from ovfast.export.decoder import writer
note = writer._note
def kill(state, fingerprint, finished):
    note(state, fingerprint, finished)
    if finished == 3:
        os.kill(os.getpid(), signal.SIGKILL)
writer._note = kill
"""


def run(script: str, source: Path, target: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", script, str(source), str(target)],
        stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_folder(tmp_path_factory.mktemp("source") / "tiny", "qwen2")
    (made / "generation_config.json").write_text('{"eos_token_id": [2, 4], "temperature": 0.6}')
    return made


@pytest.fixture(scope="module")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In int4, not packed."""
    out = tmp_path_factory.mktemp("exported") / "out"
    ovfast.export(folder, out, progress=False, packed=False)
    return out


def content(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


def test_command_line(folder: Path, tmp_path: Path, ovfast_command: Ovfast) -> None:
    out = tmp_path / "out"
    arguments = ["export", str(folder), "-o", str(out), "--weights", "int8", "--json"]
    result = ovfast_command(*arguments)
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert (said["packed"], said["reused"]) == (True, False)
    assert said["notes"] == [
        "linear layers, embedding and lm_head are int8 asymmetric with a scale per row"
    ]
    manifest = json.loads((out / "ovfast.json").read_text())
    assert manifest["source"]["kind"] == "huggingface"
    assert manifest["source"]["architecture"] == "qwen2"
    assert manifest["steps"][0]["options"] == {"weights": "int8", "group_size": 0, "packed": True}
    model = ModelDir.check(out)
    assert model.eos_token_ids == [2, 4]
    assert model.context_length == 512
    assert (out / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    assert set(content(tmp_path)) <= {"cache", "out"}

    assert json.loads(ovfast_command(*arguments).out)["reused"]
    other = ovfast_command("export", str(folder), "-o", str(out), "--weights", "f16")
    assert other.code != 0
    assert "holds another model" in other.err
    answer = ovfast_command("run", str(out), "Hello", "--max-new-tokens", "4", "--json")
    assert answer.code == 0, answer.err


def test_defaults(exported: Path, folder: Path) -> None:
    manifest = json.loads((exported / "ovfast.json").read_text())
    formats, refitted = manifest["notes"]
    assert formats == (
        "linear layers are int4 symmetric with a scale per 128 columns, embedding and lm_head int8 "
        "asymmetric with a scale per row"
    )
    assert refitted == (
        "3 matrices are int4 symmetric with a scale per 64 columns, because their columns are no "
        "multiple of 128: layers.0.mlp.down_proj, layers.1.mlp.down_proj, layers.2.mlp.down_proj"
    )
    assert (exported / "generation_config.json").read_text() == (
        folder / "generation_config.json"
    ).read_text()
    assert not ModelDir.check(exported).packed


def test_options_are_for_folders(tmp_path: Path, exported: Path) -> None:
    gguf = write_gguf(tmp_path / "tiny.gguf")
    for source in (gguf, exported):
        with pytest.raises(ValueError, match="weights is for Hugging Face folders"):
            ovfast.export(source, tmp_path / "out", weights="int8", progress=False)
    assert content(tmp_path) == ["tiny.gguf"]


def test_a_folder_that_is_run_as_it_is(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"convert it with: ovfast export \S+ -o tiny-openvino"):
        ModelDir.check(folder)


def test_a_folder_of_another_family_is_no_decoder(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    assert is_decoder(other)
    (other / "config.json").write_text('{"model_type": "bert"}')
    assert not is_decoder(other)
    (other / "config.json").write_text("[]")
    assert not is_decoder(other)


def test_image_model_gives_its_text_model(tmp_path: Path) -> None:
    text = config("gemma3")
    made = {f"language_model.{name}": values for name, values in tensors(text).items()}
    made["vision_tower.patch.weight"] = np.ones((2, 2), np.float16)
    made["multi_modal_projector.weight"] = np.ones((2, 2), np.float16)
    outer = {
        "model_type": "gemma3",
        "architectures": ["Gemma3ForConditionalGeneration"],
        "eos_token_id": [2, 4],
        "text_config": {**text, "architectures": None},
    }
    write_parts(tmp_path / "both", outer, made)
    result = ovfast.export(tmp_path / "both", tmp_path / "out", progress=False)
    assert "only the text model was taken: images are not understood" in result.notes
    assert ModelDir.check(tmp_path / "out").config["model_type"] == "gemma3_text"


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    made = tensors(config("llama"))
    made["model.layers.2.mlp.down_proj.weight"][5, 7] = np.nan
    write_parts(tmp_path / "source", config("llama"), made)
    with pytest.raises(ModelError, match=r"'model\.layers\.2\.mlp\.down_proj\.weight' holds NaN"):
        ovfast.export(tmp_path / "source", tmp_path / "out", progress=False)
    assert content(tmp_path) == ["source"]


def test_tokenizer_that_is_missing(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="the tokenizer of '.*broken' cannot be read"):
        ovfast.export(broken, tmp_path / "out", progress=False)
    assert content(tmp_path) == ["broken"]


def test_target_that_holds_other_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files that are not a model directory"):
        ovfast.export(folder, tmp_path, progress=False)
    with pytest.raises(ValueError, match="holds files that are not a model directory"):
        ovfast.export(folder, folder, progress=False)
    assert content(tmp_path) == ["precious.txt"]


@pytest.mark.parametrize("inside", [False, True])
def test_killed_export_goes_on(
    inside: bool, folder: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    if inside:
        target.mkdir()
    assert run(KILL + SCRIPT, folder, target).returncode == -9
    kept = target / ".ovfast-resume" if inside else tmp_path / ".out.ovfast-resume"
    assert json.loads((kept / "state.json").read_text())["finished"] == 3

    written = []
    write = writer._write

    def spy(checkpoint: object, weight: writer.Weight, *rest: object) -> None:
        written.append(weight.name)
        write(checkpoint, weight, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(writer, "_write", spy)
    ovfast.export(folder, target, progress=False, packed=False)
    assert {name.split(".")[1] for name in written if name.startswith("layers")} == {"2"}
    for name in ("openvino_model.bin", "openvino_model.xml"):
        assert (target / name).read_bytes() == (exported / name).read_bytes()
    assert content(tmp_path) == ["out"]
    assert not kept.exists()


def test_killed_export_of_something_else_starts_over(
    folder: Path, exported: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    other = write_folder(tmp_path / "other", "qwen2", seed=1)  # same shapes, other numbers
    assert run(KILL + SCRIPT, other, target).returncode == -9
    ovfast.export(folder, target, progress=False, packed=False)
    found = (target / "openvino_model.bin").read_bytes()
    assert found == (exported / "openvino_model.bin").read_bytes()


def test_other_exports_clear_up(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert run(KILL + SCRIPT, folder, target).returncode == -9
    gguf = write_gguf(tmp_path / "tiny.gguf")
    ovfast.export(gguf, target, progress=False)
    assert content(tmp_path) == ["out", "tiny.gguf"]


def test_interrupt_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_note", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ovfast.export(folder, tmp_path / "out", progress=False)
    assert content(tmp_path) == []


def test_write_that_fails(folder: Path, tmp_path: Path) -> None:
    limit = 100_000  # bytes, less than the weights and more than the tokenizer
    script = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
    result = run(script + SCRIPT, folder, tmp_path / "out")
    assert result.returncode == 1
    assert f"ovfast._core.Error: cannot write '{tmp_path / 'out'}': File too large" in (
        result.stderr.decode()
    )
    assert content(tmp_path) == []


def test_graph_that_was_cut_off(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO goes on silently when a disk is full."""
    serialize = openvino.serialize

    def cut(model: object, xml: Path, binary: Path) -> None:
        serialize(model, xml, binary)
        os.truncate(binary, binary.stat().st_size - 1)

    monkeypatch.setattr(openvino, "serialize", cut)
    with pytest.raises(Error, match=r"cannot write '.*out': No space left on device"):
        ovfast.export(folder, tmp_path / "out", progress=False)
    assert content(tmp_path) == []


def test_disk_that_is_too_small(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    with pytest.raises(Error, match=r"has 1 MB free, needed are about 10\d MB"):
        ovfast.export(folder, tmp_path / "out", progress=False)
    assert content(tmp_path) == []


@pytest.fixture
def large_tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Which does not stay until later runs of the tests."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.slow
def test_memory_of_a_large_model(large_tmp_path: Path) -> None:
    """3.2 billion weights become int4, packed, with at most 2 GB."""
    free = shutil.disk_usage(large_tmp_path).free
    if free < 12e9:
        pytest.skip(f"needs 12 GB of disk, {free / 1e9:.0f} GB are free in {large_tmp_path}")
    source = large_tmp_path / "source"
    write_large(source)
    script = SCRIPT.replace(", packed=False", "")
    # Of the process and its children. Not RUSAGE_SELF, which begins with the peak of the process
    # that started it: other tests of this one had larger ones.
    script += "; from resource import *; from ovfast import _core"
    script += "; own = _core.read_process_memory().peak_rss"
    script += "; print(max(own, 1024 * getrusage(RUSAGE_CHILDREN).ru_maxrss))"
    done = subprocess.run(
        [sys.executable, "-c", script, source, large_tmp_path / "out"],
        stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
        check=True,
    )
    assert int(done.stdout) < 2e9
    assert ModelDir.check(large_tmp_path / "out").weights_bytes > 1.7e9


def write_large(folder: Path) -> None:
    """Llama 3.2 3B's shapes in bf16, a file for each layer, of one block of random numbers."""
    content = config(
        "llama",
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=128256,
        tie_word_embeddings=True,
    )
    layer = {
        "input_layernorm": (3072,),
        "self_attn.q_proj": (3072, 3072),
        "self_attn.k_proj": (1024, 3072),
        "self_attn.v_proj": (1024, 3072),
        "self_attn.o_proj": (3072, 3072),
        "post_attention_layernorm": (3072,),
        "mlp.gate_proj": (8192, 3072),
        "mlp.up_proj": (8192, 3072),
        "mlp.down_proj": (3072, 8192),
    }
    write_parts(folder, content, {"x": np.zeros(1, np.float16)})
    (folder / "model.safetensors").unlink()
    files: dict[str, dict[str, tuple[int, ...]]] = {
        "tables": {"model.embed_tokens.weight": (128256, 3072), "model.norm.weight": (3072,)}
    }
    for number in range(28):
        files[f"layer-{number}"] = {
            f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()
        }
    block = to_bf16(np.random.default_rng(0).normal(0, 0.02, 1 << 24)).tobytes()
    for number, (file, shapes) in enumerate(files.items()):
        header, at = {}, 0
        for name, shape in shapes.items():
            end = at + 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
            at = end
        text = json.dumps(header).encode()
        with (folder / f"{file}.safetensors").open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.write(block[1234 * number :])  # no two layers alike
            for _ in range(at // len(block)):
                stream.write(block)
            stream.truncate(8 + len(text) + at)
    index = {name: f"{file}.safetensors" for file, shapes in files.items() for name in shapes}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
