"""Export of Hugging Face folders through Optimum Intel, in an environment of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovfast import _core
from ovfast.errors import Error, ModelError
from ovfast.export.child import run_child
from ovfast.export.isolation import OPTIMUM_REQUIREMENTS, isolated_python
from ovfast.export.manifest import read_manifest, sha256, step, write_manifest
from ovfast.export.rope_spelling import OldSpelling, respell
from ovfast.export.target import written_directory
from ovfast.export.tokenizer import TokenizerJob
from ovfast.model_dir import ModelDir, check_ir
from ovfast.progress import Bar

if TYPE_CHECKING:
    from ovfast.export import ExportResult

__all__ = ["WEIGHTS", "export_huggingface", "is_folder", "verify_export"]

WEIGHTS = ("f16", "int8", "int8-sym", "int4", "int4-asym")
"""How Optimum Intel stores weights."""

_WORKER = Path(__file__).with_name("optimum_worker.py")
_TOOLS = ("openvino", "openvino-tokenizers", "transformers")
_TEXTS = (".json", ".jinja", ".txt", ".model", ".py")
_WEIGHTS_FILES = ("*.safetensors", "pytorch_model*.bin")
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("vocab.txt", "vocab.json", "tokenizer_config.json"),
)
_GROUP_SIZE = 128
# Shares of the bar that end with the steps.
_EXPORTED, _PACKED, _TOKENIZED = 0.6, 0.8, 0.9


def is_folder(path: Path) -> bool:
    """Whether a directory holds a model in Hugging Face's form."""
    return (path / "config.json").is_file() and _weights_files(path) != []


def _weights_files(folder: Path) -> list[Path]:
    return sorted(file for pattern in _WEIGHTS_FILES for file in folder.glob(pattern))


def export_huggingface(
    source: str | Path,
    out_dir: str | Path,
    *,
    task: str | None = None,
    weights: str | None = None,
    group_size: int | None = None,
    packed: bool = True,
    verify: bool = False,
    isolated: bool = True,
    trust_remote_code: bool = False,
    progress: bool = True,
    verbose: bool = False,
    force: bool = False,
) -> ExportResult:
    """Export a Hugging Face folder with Optimum Intel.

    Args:
        source: The folder: config.json, weights, and tokenizer or other preprocessors.
        out_dir: As in `ovfast.export.export`, which see. A text generation model becomes a model
            directory; others become directories in Optimum's layout, which ovfast does not run.
        task: What the model is for, in Optimum's words: text-generation, feature-extraction,
            automatic-speech-recognition, ... By default what the class in config.json is for.
        weights: One of WEIGHTS; by default int4 for text generation, f16 for all else.
        group_size: Columns that share a scale of int4 weights, 128 by default.
        packed: Pack the weights of a text generation model.
        verify: Run the original in f32 and compare, where memory allows; see `export.verify`.
        isolated: Run Optimum in an environment of its own, which is made once. Otherwise in this
            one, which must have it.
        trust_remote_code: Run Python code that lies in the folder. It may do whatever you may.
        progress: Show a bar on stderr if that is a terminal.
        verbose: Show the output of pip and Optimum.
        force: Replace a model directory that holds something else.

    Raises:
        ModelError: The model cannot be used, or the result does not say what the original says.
        Error: Optimum failed (with its last lines), or the result could not be written.
        ValueError: Of options, or `out_dir` holds something else.
    """
    from ovfast.export import ExportResult

    start = time.perf_counter()
    source, out_dir = Path(source).expanduser(), Path(out_dir).expanduser()
    _check_options(weights, group_size)
    if not is_folder(source):
        raise ModelError(
            f"'{source}' is no Hugging Face folder: expected config.json and weights "
            f"({' or '.join(_WEIGHTS_FILES)})"
        )
    spelling = respell(source)
    with Bar(source.resolve().name, progress) as bar:
        bar.show(0.0, "hashing")
        origin = _describe(source)
    asked = {
        "task": task,
        "weights": weights,
        "group_size": group_size or _GROUP_SIZE,
        "trust_remote_code": trust_remote_code,
    }
    made_by = step("optimum", _TOOLS, **asked, packed=packed)
    made_by["tools"]["optimum-intel"] = _optimum_version()

    def waiting() -> None:
        bar.show(0.0, "waiting for another export of this directory")

    # Before there is a bar: it draws one of its own.
    python: Path | None = None
    if not _holds(out_dir, origin, made_by, verify):
        python = _interpreter(isolated, progress, verbose)
    with (
        Bar(source.resolve().name, progress) as bar,
        written_directory(
            out_dir,
            force=force,
            is_same=lambda: _holds(out_dir, origin, made_by, verify),
            waiting=waiting,
        ) as place,
    ):
        if place is not None:
            python = python or _interpreter(isolated, False, verbose)
            optimum = _Optimum(python, source.resolve(), asked, verbose, spelling)
            notes, answer = _write(optimum, place, packed, bar)
            write_manifest(place, source=origin, steps=[made_by], notes=notes)
            if verify:
                _verify(optimum, place, answer, bar)
            bar.show(1.0, "writing to disk")
    manifest = read_manifest(out_dir) or {}
    return ExportResult(
        model_dir=out_dir,
        source=source,
        reused=place is None,
        seconds=time.perf_counter() - start,
        weights_bytes=sum(xml.with_suffix(".bin").stat().st_size for xml in _graphs(out_dir)),
        packed=_is_language_model(out_dir) and ModelDir.check(out_dir).packed,
        notes=manifest.get("notes", []),
        quality=manifest.get("quality"),
    )


class _Optimum:
    """Runs the worker on one model."""

    def __init__(
        self,
        python: Path,
        source: Path,
        asked: Mapping[str, Any],
        verbose: bool,
        spelling: OldSpelling | None,
    ) -> None:
        self.source = source
        self.spelling = spelling
        self._python = python
        self._asked = {**asked, "verbose": verbose}
        self._verbose = verbose

    def run(self, command: str, what: str, scratch: Path, **more: Any) -> dict[str, Any]:
        """Let it do `command`; files that it needs for a while lie in `scratch`."""
        answer = scratch / "answer.json"
        model = self.source
        if self.spelling is not None:
            model = self.spelling.link(self.source, scratch / "source")
        request = {**self._asked, "model": str(model), "scratch": str(scratch), **more}
        request["command"] = command
        run_child(
            self._python,
            [str(_WORKER), json.dumps({**request, "answer": str(answer)})],
            what,
            verbose=self._verbose,
        )
        content = json.loads(answer.read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        if self.spelling is not None:
            self.spelling.check(content["rotary"])
        return content


def _write(
    optimum: _Optimum, directory: Path, packed: bool, bar: Bar
) -> tuple[list[str], dict[str, Any]]:
    """Write all files but the manifest; return notes and what the worker answered."""
    scratch = directory / ".optimum"
    scratch.mkdir()
    made = scratch / "made"
    bar.show(0.02, "running Optimum Intel")
    answer = optimum.run("export", "Optimum Intel", scratch, output=str(made))
    notes = [f"exported for {answer['task']} with {answer['weights']} weights"]
    if optimum.spelling is not None:
        notes += optimum.spelling.notes
    language_model = answer["task"].startswith("text-generation")
    if packed and language_model:
        report = _core.pack_model(
            made,
            directory,
            lambda fraction, what: bar.show(_EXPORTED + fraction * (_PACKED - _EXPORTED), what),
        )
        notes += report.notes
        if not report.packed:
            notes.append("no weights of this model pack: it stays as it is")
    bar.show(_PACKED, "converting the tokenizer")
    notes += _write_tokenizer(optimum.source, directory, required=language_model)
    for file in made.iterdir():
        if not (directory / file.name).exists():
            file.rename(directory / file.name)
    shutil.rmtree(scratch)
    _check(directory, answer["task"])
    return notes, answer


def _write_tokenizer(source: Path, directory: Path, *, required: bool) -> list[str]:
    """Write the tokenizer and compare it with the folder's; return notes."""
    if not required and not any((source / name).exists() for name in _TOKENIZER_FILES):
        return []
    job = TokenizerJob(source, directory)
    try:
        job.result()
    except ModelError as error:
        if required:
            raise
        for file in directory.glob("openvino_*tokenizer.*"):
            file.unlink()
        return [f"without a tokenizer in OpenVINO's form: {error}"]
    finally:
        job.close()
    return []


def _check(directory: Path, task: str) -> None:
    if task.startswith("text-generation"):
        ModelDir.check(directory)
        return
    graphs = _graphs(directory)
    if not graphs:
        raise ModelError(f"Optimum Intel wrote no model for the task {task}")
    files = _core.ModelFiles.folder(directory)
    for xml in graphs:
        check_ir(files, xml.name, "Export the model again.")


def verify_export(
    result: ExportResult, weights: str, *, isolated: bool, progress: bool, verbose: bool
) -> ExportResult:
    """Compare what another exporter made of a text generation folder with the original.

    The outcome goes into the manifest. Raises as `export_huggingface` does; the directory stays.
    """
    directory = result.model_dir
    quality = (read_manifest(directory) or {}).get("quality", {})
    if "verify" not in quality:
        python = _interpreter(isolated, progress, verbose)
        asked = {"trust_remote_code": False}
        source = result.source.resolve()
        optimum = _Optimum(python, source, asked, verbose, respell(source))
        answer = {"task": "text-generation", "weights": weights}
        with Bar(result.source.resolve().name, progress) as bar:
            _verify(optimum, directory, answer, bar)
    manifest = read_manifest(directory) or {}
    notes = manifest.get("notes", [])
    return dataclasses.replace(result, notes=notes, quality=manifest.get("quality"))


def _verify(optimum: _Optimum, directory: Path, answer: dict[str, Any], bar: Bar) -> None:
    from ovfast.export.verify import add_quality, compare, reason_to_skip, sample_ids

    bar.show(_TOKENIZED, "comparing with the original")
    task = answer["task"]
    skipped = reason_to_skip(optimum.source, _graphs(directory), task)
    if skipped is not None:
        add_quality(directory, {"verify": {"skipped": skipped}}, f"not verified: {skipped}")
        return
    ids = sample_ids(directory) if task.startswith("text-generation") else None
    with tempfile.TemporaryDirectory() as scratch:
        reference = Path(scratch) / "reference.npz"
        output = str(reference)
        optimum.run(
            "reference", "running the original", Path(scratch), task=task, ids=ids, output=output
        )
        found = compare(directory, reference, answer["weights"])
    add_quality(directory, {"verify": found})


def _graphs(directory: Path) -> list[Path]:
    xmls = sorted(directory.glob("openvino_*.xml"))
    return [xml for xml in xmls if not xml.stem.endswith(("_tokenizer", "_detokenizer"))]


def _is_language_model(directory: Path) -> bool:
    try:
        ModelDir.check(directory)
    except ModelError:
        return False
    return True


def _holds(out_dir: Path, origin: dict[str, Any], made_by: dict[str, Any], verify: bool) -> bool:
    """Whether a directory is a whole export of this very model, made in this very way."""
    try:
        manifest = read_manifest(out_dir)
        if manifest is None or manifest["steps"] != [made_by] or manifest["source"] != origin:
            return False
        if verify and "verify" not in manifest.get("quality", {}):
            return False
        files = _core.ModelFiles.folder(out_dir)
        for xml in _graphs(out_dir):
            check_ir(files, xml.name, "")
        if _is_language_model(out_dir) and ModelDir.check(out_dir).packed:
            _core.inspect_packing(out_dir)
    except ModelError:
        return False
    return bool(_graphs(out_dir))


def _check_options(weights: str | None, group_size: int | None) -> None:
    if weights is not None and weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, got '{weights}'")
    if group_size is not None:
        if weights in ("f16", "int8", "int8-sym"):
            raise ValueError(f"group_size is for int4 weights, got weights '{weights}'")
        if group_size < 1:
            raise ValueError(f"group_size must be at least 1, got {group_size}")


def _interpreter(isolated: bool, progress: bool, verbose: bool) -> Path:
    if isolated:
        return isolated_python(progress=progress, verbose=verbose)
    python = Path(sys.executable)
    # In a process: importing what it wants to know about takes seconds and stays in memory.
    probe = "import importlib.metadata as m; print(m.version('optimum-intel'))"
    found = subprocess.run(
        [str(python), "-I", "-c", probe], capture_output=True, text=True, check=False
    )
    version, wanted = found.stdout.strip(), _optimum_version()
    if version != wanted:
        raise Error(
            f"--no-isolation needs optimum-intel {wanted} in this environment, which has "
            f"{version or 'none'}. Leave the option out, or install what it runs with: "
            f"pip install -r '{OPTIMUM_REQUIREMENTS}'"
        )
    return python


def _optimum_version() -> str:
    lines = OPTIMUM_REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return next(line.split("==")[1] for line in lines if line.startswith("optimum-intel=="))


def _describe(source: Path) -> dict[str, Any]:
    """What identifies a folder: the content of its files, those of other formats left out."""
    digest = hashlib.sha256()
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        weights = _weights_files(source)
        texts = (file for file in sorted(source.iterdir()) if file.suffix in _TEXTS)
        for file in (*texts, *weights):
            digest.update(f"{file.name} {sha256(file)}\n".encode())
        size = sum(file.stat().st_size for file in weights)
    except (OSError, ValueError) as error:
        raise ModelError(f"'{source}' cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"'{source}/config.json' must hold an object")
    return {
        "kind": "huggingface",
        "directory": source.resolve().name,
        "bytes": size,
        "sha256": digest.hexdigest(),
        "architecture": config.get("model_type"),
    }
