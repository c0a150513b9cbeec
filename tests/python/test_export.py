"""Export: what comes out of GGUF files and of directories."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import openvino
import pytest
import tiny_models
from click.testing import CliRunner
from gguf import GGMLQuantizationType as Type

from ovfast import _core
from ovfast.cache import cache_dir, cached_export
from ovfast.cli.export import export_command
from ovfast.errors import Error, ModelError
from ovfast.export import export
from ovfast.export import gguf as gguf_export
from ovfast.export import tokenizer as tokenizer_export
from ovfast.export.config import adds_bos, generation_config, model_config
from ovfast.export.stderr import HeldStderr
from ovfast.llm import resolve
from ovfast.model_dir import ModelDir
from ovfast.progress import Bar
from ovfast.reference import ReferenceLLM

FILES = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "openvino_detokenizer.bin",
    "openvino_detokenizer.xml",
    "openvino_model.bin",
    "openvino_model.packed",
    "openvino_model.xml",
    "openvino_tokenizer.bin",
    "openvino_tokenizer.xml",
    "ovfast.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 of Q8_0 as a GGUF file, with its export beside it in "dir"."""
    directory = tmp_path_factory.mktemp("model")
    path = tiny_models.write_gguf(directory / "tiny.gguf")
    export(path, directory / "dir")
    return path


def logits(directory: Path, ids: list[int]) -> np.ndarray:
    """Of the last position, at full precision."""
    result = ReferenceLLM(directory).generate(ids, 1, keep_logits=True)
    assert result.logits is not None
    return result.logits[0]


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_every_architecture(architecture: str, tmp_path: Path) -> None:
    source = tiny_models.write_gguf(tmp_path / "m.gguf", architecture)
    result = export(source, tmp_path / "dir")
    assert not result.reused
    assert {file.name for file in result.model_dir.iterdir()} == FILES
    checked = ModelDir.check(result.model_dir)
    assert checked.context_length == tiny_models.CONTEXT
    scores = logits(result.model_dir, [5, 6, 7])
    assert scores.shape == (checked.config["vocab_size"],)
    # Weights are scaled so that a working graph gives logits near the unit normal distribution.
    assert 0.5 < scores.std() < 2
    assert not np.allclose(scores, logits(result.model_dir, [6, 5, 7]))


@pytest.mark.parametrize("tensor_type", [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0])
def test_weights_of_every_type_arrive(tensor_type: Type, tmp_path: Path) -> None:
    """As F32 weights of the same values do, but for the frontend's int8 embeddings and output."""
    (tmp_path / "exact").mkdir()
    _core.import_gguf(
        tiny_models.write_gguf(tmp_path / "exact.gguf", "qwen2", Type.F32, rounded_to=tensor_type),
        tmp_path / "exact",
    )
    _core.import_gguf(tiny_models.write_gguf(tmp_path / "m.gguf", "qwen2", tensor_type), tmp_path)
    expected = logits(tmp_path / "exact", [5, 6, 7])
    assert np.corrcoef(logits(tmp_path, [5, 6, 7]), expected)[0, 1] > 0.9995


def test_manifest(model: Path) -> None:
    manifest = json.loads((model.parent / "dir" / "ovfast.json").read_text())
    header = _core.read_gguf_header(model)
    assert manifest["format"] == 1
    assert manifest["source"] == {
        "kind": "gguf",
        "file": "tiny.gguf",
        "bytes": model.stat().st_size,
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "architecture": "qwen2",
        "tensor_types": header.bytes_by_type(),
    }
    assert set(header.bytes_by_type()) == {"F32", "Q8_0"}
    assert manifest["steps"][0]["tools"]["openvino"].startswith("2026.4.1")


def test_configuration(model: Path) -> None:
    directory = model.parent / "dir"
    config = json.loads((directory / "config.json").read_text())
    metadata = _core.read_gguf_header(model, with_arrays=True).metadata
    tokens = metadata["tokenizer.ggml.tokens"]
    assert config["model_type"] == "qwen2"
    assert config["hidden_size"] == 128
    assert config["num_key_value_heads"] == 2
    assert config["rms_norm_eps"] == 1e-6
    assert config["vocab_size"] == len(tokens)
    assert config["tie_word_embeddings"] is False
    generation = json.loads((directory / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [tokens.index("<|im_end|>"), tokens.index("<|endoftext|>")]
    assert generation["pad_token_id"] == tokens.index("<|endoftext|>")
    assert (directory / "chat_template.jinja").read_text() == tiny_models.CHAT_TEMPLATE


def test_end_tokens_must_be_special(model: Path) -> None:
    metadata = _core.read_gguf_header(model, with_arrays=True).metadata
    last = len(metadata["tokenizer.ggml.tokens"])
    ordinary = {
        **metadata,
        "tokenizer.ggml.tokens": [*metadata["tokenizer.ggml.tokens"], "<|eot_id|>"],
        "tokenizer.ggml.token_type": [*metadata["tokenizer.ggml.token_type"], 1],
    }
    assert last not in generation_config(ordinary, "m")["eos_token_id"]
    control = {
        **ordinary,
        "tokenizer.ggml.token_type": [*ordinary["tokenizer.ggml.token_type"][:-1], 3],
    }
    assert last in generation_config(control, "m")["eos_token_id"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"model": "llama"}, True),
        ({"model": "llama", "add_bos_token": False}, False),
        ({"model": "gpt2"}, False),
        ({"model": "gpt2", "pre": "llama-bpe"}, True),
        ({"model": "gpt2", "add_bos_token": True}, True),
        ({"model": "gemma4", "add_bos_token": True}, False),
    ],
)
def test_bos(values: dict[str, object], expected: bool) -> None:
    metadata = {f"tokenizer.ggml.{key}": value for key, value in values.items()}
    assert not adds_bos({**metadata, "tokenizer.ggml.tokens": ["a"]})  # there is none to add
    metadata |= {"tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.bos_token_id": 0}
    assert adds_bos(metadata) is expected


def test_bos_of_sentencepiece(tmp_path: Path) -> None:
    metadata = _core.read_gguf_header(
        tiny_models.write_gguf(tmp_path / "m.gguf", "llama"), with_arrays=True
    ).metadata
    tokenizer_export.write_tokenizer(metadata, "m.gguf", tmp_path)
    tokenizer = openvino.Core().compile_model(tmp_path / "openvino_tokenizer.xml", "CPU")
    assert tokenizer(["fox"])["input_ids"][0][0] == metadata["tokenizer.ggml.bos_token_id"]


def test_self_test_notices_another_tokenizer(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino_tokenizers
    from tokenizers import normalizers

    convert = openvino_tokenizers.convert_tokenizer

    def convert_lowercased(tokenizer: object, **options: object) -> object:
        import copy

        wrong = copy.deepcopy(tokenizer)
        wrong.backend_tokenizer.normalizer = normalizers.Lowercase()  # type: ignore[attr-defined]
        return convert(wrong, **options)

    monkeypatch.setattr(openvino_tokenizers, "convert_tokenizer", convert_lowercased)
    metadata = _core.read_gguf_header(model, with_arrays=True).metadata
    with pytest.raises(ModelError, match=r"wrong: for \"Hello, world.*expected tokens.*got"):
        tokenizer_export.write_tokenizer(metadata, "tiny.gguf", tmp_path)


def test_same_model_is_reused(model: Path) -> None:
    directory = model.parent / "dir"
    before = (directory / "openvino_model.bin").stat()
    assert export(model, directory).reused
    assert (directory / "openvino_model.bin").stat() == before


def test_damaged_export_is_not_reused(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model.parent / "dir", tmp_path / "dir")
    os.truncate(tmp_path / "dir" / "openvino_model.bin", 100)
    with pytest.raises(ValueError, match="--force"):
        export(model, tmp_path / "dir")
    assert not export(model, tmp_path / "dir", force=True).reused
    ModelDir.check(tmp_path / "dir")


def test_another_model_needs_force(model: Path, tmp_path: Path) -> None:
    other = tiny_models.write_gguf(tmp_path / "other.gguf", seed=1)
    shutil.copytree(model.parent / "dir", tmp_path / "dir")
    with pytest.raises(ValueError, match="another model"):
        export(other, tmp_path / "dir")
    export(other, tmp_path / "dir", force=True)
    manifest = json.loads((tmp_path / "dir" / "ovfast.json").read_text())
    assert manifest["source"]["file"] == "other.gguf"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir", "other.gguf"]


def test_force_never_deletes_what_is_not_a_model(model: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("thesis")
    with pytest.raises(ValueError, match="not a model directory"):
        export(model, tmp_path, force=True)
    assert (tmp_path / "precious.txt").read_text() == "thesis"


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_into_the_current_directory(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The directory stays the one that the shell stands in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = Path("/proc/self/cwd").stat().st_ino
    result = export(model if kind == "file" else model.parent / "dir", ".")
    ModelDir.check(result.model_dir)
    assert (tmp_path / "here").stat().st_ino == before
    assert {file.name for file in Path().iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_force_keeps_what_is_no_part_of_a_model(model: Path, tmp_path: Path) -> None:
    """Such as the very file that is exported."""
    directory = tmp_path / "dir"
    shutil.copytree(model.parent / "dir", directory)
    source = tiny_models.write_gguf(directory / "m.gguf", chat_template=None, seed=3)
    export(source, directory, force=True)
    # A template of the old model would be taken for the new one's.
    assert {file.name for file in directory.iterdir()} == {*FILES, "m.gguf"} - {
        "chat_template.jinja"
    }


def test_gguf_by_another_name(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads keep files under their hash, and links to them."""
    (tmp_path / "blobs").mkdir()
    shutil.copy(model, tmp_path / "blobs" / "sha256-1")
    blob = tmp_path / "blob"
    blob.symlink_to("blobs/sha256-1")
    export(blob, tmp_path / "dir")
    assert {file.name for file in (tmp_path / "dir").iterdir()} == FILES
    monkeypatch.setenv("OVFAST_CACHE", str(tmp_path / "cache"))
    directory = resolve(blob, False, "auto")
    assert directory.name.startswith("blob-")
    ModelDir.check(directory)


def test_faults_name_the_file_that_was_given(tmp_path: Path) -> None:
    data = tiny_models.write_gguf(
        tmp_path / "m.gguf", shape=tiny_models.Shape(layers=3)
    ).read_bytes()
    blob = tmp_path / "blob"
    blob.write_bytes(data.replace(b"blk.1.attn_k.weight", b"blk.1.attn_k.weighs"))
    with pytest.raises(ModelError, match=f"'{blob}' cannot be converted"):
        export(blob, tmp_path / "dir")
    blob.write_bytes(b"text" * 10)
    with pytest.raises(ModelError, match=r"blob.*not a GGUF file"):
        resolve(blob, False, "auto")


def write_q4_k(path: Path) -> Path:
    """A model with weights of Q4_K, all zero: the `gguf` package cannot quantize to it."""
    quantize = gguf.quants.quantize

    def to_zeros(weights: np.ndarray, tensor_type: Type) -> np.ndarray:
        if tensor_type != Type.Q4_K or weights.shape[1] % 256:
            return quantize(weights, tensor_type)
        return np.zeros((weights.shape[0], weights.shape[1] // 256 * 144), np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf.quants, "quantize", to_zeros)
        shape = tiny_models.Shape(hidden=256, heads=8)
        return tiny_models.write_gguf(path, "qwen2", Type.Q4_K, shape=shape)


def test_notices_become_notes(tmp_path: Path) -> None:
    """The frontend prints them once in a process, so it must be a fresh one."""
    source = write_q4_k(tmp_path / "m.gguf")
    script = "import sys, ovfast; print(ovfast.export(*sys.argv[1:], packed=False).notes)"
    outcome = subprocess.run(
        [sys.executable, "-c", script, str(source), str(tmp_path / "dir")],
        check=True,
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
    )
    assert outcome.stderr == ""
    assert "Q4_K: each block's minimum was rounded" in outcome.stdout
    notes = json.loads((tmp_path / "dir" / "ovfast.json").read_text())["notes"]
    assert outcome.stdout.strip() == repr(notes)
    result = export(tmp_path / "dir", tmp_path / "taken", packed=False)
    assert json.loads((result.model_dir / "ovfast.json").read_text())["notes"] == notes
    arguments = [str(source), "-o", str(tmp_path / "dir"), "--no-pack"]
    outcome = CliRunner().invoke(export_command, arguments)
    assert f"Note: {notes[0]}." in outcome.stdout
    # Packed weights are those of the file.
    assert export(source, tmp_path / "packed").notes == []


def test_other_messages_come_through(capfd: pytest.CaptureFixture[str]) -> None:
    with HeldStderr(b"known: ") as held:
        os.write(2, b"known: a\nother: b\n")
        with HeldStderr(b"other: "):  # of another thread: only one holds
            os.write(2, b"other: c\n")
        with held.released():
            assert capfd.readouterr().err == "other: b\nother: c\n"
        os.write(2, b"no end of line")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "no end of line"
    os.write(2, b"known: d\n")
    assert capfd.readouterr().err == "known: d\n"


def test_bar_says_what_is_done_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Bar("m.gguf", True) as bar:
        assert terminal.getvalue() == ""  # a model that is there already shows none
        bar.show(0.0, "reading the header")
        assert "reading the header" in terminal.getvalue()
        bar.show(0.0, "reading the weights")
        assert "reading the weights" in terminal.getvalue()


def test_hint_can_be_pasted(model: Path, tmp_path: Path) -> None:
    directory = tmp_path / "out dir"
    arguments = [str(model.parent / "dir"), "-o", str(directory)]
    outcome = CliRunner().invoke(export_command, arguments, catch_exceptions=False)
    assert f"Try: ovfast run '{directory}' \"...\"" in outcome.stdout


def test_link_to_a_directory_stays_a_link(model: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    export(model.parent / "dir", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    ModelDir.check(tmp_path / "real")


def test_package_is_the_function_too(model: Path, tmp_path: Path) -> None:
    """`import ovfast.export.gguf` must not take `ovfast.export(...)` away."""
    assert sys.modules["ovfast.export"](model.parent / "dir", tmp_path / "dir").weights_bytes > 0


def test_missing_parents_are_made(model: Path, tmp_path: Path) -> None:
    assert export(model.parent / "dir", tmp_path / "a" / "b" / "c").model_dir.is_dir()


def test_directory_is_taken_as_it_is(model: Path, tmp_path: Path) -> None:
    source = model.parent / "dir"
    result = export(source, tmp_path / "dir")
    assert not result.reused
    assert (tmp_path / "dir" / "openvino_model.bin").samefile(source / "openvino_model.bin")
    manifest = json.loads((tmp_path / "dir" / "ovfast.json").read_text())
    assert manifest["source"]["kind"] == "gguf"
    assert [step["name"] for step in manifest["steps"]] == ["export", "take"]
    assert export(source, tmp_path / "dir").reused
    assert export(source, source).reused


def test_directory_on_another_file_system_is_copied(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    source = model.parent / "dir"
    export(source, tmp_path / "dir")
    copy = tmp_path / "dir" / "openvino_model.bin"
    assert not copy.samefile(source / "openvino_model.bin")
    assert copy.read_bytes() == (source / "openvino_model.bin").read_bytes()


def test_directory_inside_of_its_source_is_refused(model: Path) -> None:
    source = model.parent / "dir"
    with pytest.raises(ValueError, match="inside"):
        export(source, source / "copy")


def test_progress_and_cancellation(model: Path, tmp_path: Path) -> None:
    told: list[float] = []
    _core.import_gguf(model, tmp_path, lambda fraction, what: told.append(fraction))
    assert told[0] == 0
    assert told[-1] == 1
    assert told == sorted(told)
    with pytest.raises(Error, match="cancelled"):
        _core.import_gguf(model, tmp_path, lambda fraction, what: fraction < 0.3)

    def interrupt(fraction: float, what: str) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _core.import_gguf(model, tmp_path, interrupt)


def test_no_bar_in_pipes(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(model, tmp_path / "dir")
    assert "%" not in capfd.readouterr().err


def test_cache_is_keyed_by_content(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVFAST_CACHE", str(tmp_path / "cache"))
    assert cache_dir() == tmp_path / "cache"
    directory = cached_export(model)
    assert ModelDir.check(directory)
    elsewhere = tmp_path / "tiny.gguf"
    shutil.copy(model, elsewhere)
    written = (directory / "openvino_model.bin").stat()
    assert cached_export(elsewhere) == directory
    assert (directory / "openvino_model.bin").stat() == written

    def fail(*arguments: object) -> str:
        raise AssertionError("hashed again")

    monkeypatch.setattr("ovfast.export.manifest.sha256", fail)
    assert cached_export(elsewhere) == directory


def test_cache_notices_a_changed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVFAST_CACHE", str(tmp_path / "cache"))
    path = tiny_models.write_gguf(tmp_path / "m.gguf", seed=1)
    first = cached_export(path)
    tiny_models.write_gguf(path, seed=2)
    assert cached_export(path) != first


def test_cache_repairs_a_damaged_entry(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVFAST_CACHE", str(tmp_path))
    directory = cached_export(model)
    os.truncate(directory / "openvino_model.bin", 100)
    assert cached_export(model) == directory
    ModelDir.check(directory)


def test_command_line(model: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    arguments = [str(model.parent / "dir"), "-o", str(tmp_path / "dir")]
    outcome = runner.invoke(export_command, [*arguments, "--json"], catch_exceptions=False)
    result = json.loads(outcome.stdout)
    assert result["model_dir"] == str(tmp_path / "dir")
    assert result["reused"] is False
    outcome = runner.invoke(export_command, arguments, catch_exceptions=False)
    assert "holds this model already" in outcome.stdout
    assert "Examples:" in runner.invoke(export_command, ["--help"]).stdout


def test_config_of_a_padded_vocabulary(model: Path) -> None:
    """Logits are as long as the embedding, which may be longer than the list of tokens."""
    header = _core.read_gguf_header(model, with_arrays=True)
    tokens = header.metadata["tokenizer.ggml.tokens"]
    fewer = {**header.metadata, "tokenizer.ggml.tokens": tokens[:-1]}
    fewer["tokenizer.ggml.eos_token_id"] = 0
    fewer["tokenizer.ggml.bos_token_id"] = fewer["tokenizer.ggml.padding_token_id"] = 0
    assert model_config(header, fewer, "m")["vocab_size"] == len(tokens)


def test_source_that_changes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny_models.write_gguf(tmp_path / "m.gguf")
    convert = gguf_export._convert

    def convert_and_touch(*arguments: object) -> str:
        digest = convert(*arguments)  # type: ignore[arg-type]
        os.utime(source, (1, 1))
        return digest

    monkeypatch.setattr(gguf_export, "_convert", convert_and_touch)
    with pytest.raises(ModelError, match="changed while"):
        export(source, tmp_path / "dir")
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.real_model
@pytest.mark.parametrize(("packed", "bound"), [(False, 1.6), (True, 1.7)])
def test_peak_memory(tmp_path: Path, packed: bool, bound: float) -> None:
    """Times the file, Python included; packing needs one more matrix beside the converted graph."""
    source = os.environ.get("OVFAST_DEMO_MODEL") or next(cache_dir().glob("demo/*.gguf"), None)
    if source is None:
        pytest.skip("the demo model is not there: run `make demo-model`")
    # Of its own: what the system counts for a child includes the process that started it.
    script = (
        f"import sys, ovfast; ovfast.export(sys.argv[1], sys.argv[2], packed={packed});"
        "print(next(line for line in open('/proc/self/status') if 'VmHWM' in line).split()[1])"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", script, str(source), str(tmp_path / "dir")],
        check=True,
        capture_output=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
    )
    peak = int(outcome.stdout) * 1024
    assert peak <= bound * Path(source).stat().st_size
