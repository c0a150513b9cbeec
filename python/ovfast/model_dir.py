"""What a model directory is, and whether this is a whole one."""

from __future__ import annotations

import html
import json
import re
import shlex
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ovfast import _core
from ovfast.chat_template import ChatTemplate, read_special_tokens
from ovfast.crypto import Key, as_key, open_files, read_file
from ovfast.errors import ModelError

__all__ = ["PACKED_OPERATION", "PACK_MANIFEST", "ModelDir", "check_ir"]

PACK_MANIFEST = "openvino_model.packed"
PACKED_OPERATION = b' version="ovfast"'
"""How an operation of ours stands in an IR."""

_MODEL = "openvino_model"
_TOKENIZERS = ("openvino_tokenizer", "openvino_detokenizer")
# What an export in progress leaves in its directory.
_UNFINISHED = (".ovfast-partial", ".ovfast-complete", ".ovfast-moving", ".ovfast-resume")
_SHOWN_FILES = 5

# The IR's XML is megabytes of one known writer: searching its bytes takes milliseconds where a
# parser takes a good part of a second.
_CONSTANT = re.compile(rb'\boffset="(\d+)" size="(\d+)"')
_PARAMETER = re.compile(rb'<layer id="\d+" name="[^"]*" type="Parameter".*?</layer>', re.DOTALL)
_ANY_PARAMETER = re.compile(rb'type="Parameter"')
_PORT_NAMES = re.compile(rb'<port id="\d+"[^>]* names="([^"]*)"')
_STATE = re.compile(rb'<layer id="\d+" name="[^"]*" type="ReadValue"')
_PACKED = re.compile(re.escape(PACKED_OPERATION))
_CHAT_TEMPLATE = re.compile(rb'<chat_template value="([^"]*)"')


@dataclass(frozen=True)
class ModelDir:
    """A checked directory with a text generation model, and what runs need to know about it.

    To be had from `ModelDir.check()`.
    """

    path: Path
    files: _core.ModelFiles
    """Its files, decrypted when they are read if the directory is encrypted."""
    key: Key | None
    """What opens an encrypted directory."""
    config: dict[str, Any]
    """config.json; empty when there is none."""
    generation_config: dict[str, Any]
    """generation_config.json; empty when there is none."""
    eos_token_ids: list[int]
    """Tokens that end an answer; may be empty."""
    bos_token_id: int | None
    pad_token_id: int | None
    context_length: int | None
    """Tokens that the model was made for; None when the directory does not say."""
    packed: bool
    """The model is made of ovfast's operations on packed weights."""

    @classmethod
    def check(
        cls, path: str | Path | ModelDir, key: Key | bytes | str | Path | None = None
    ) -> ModelDir:
        """Check a directory without reading its weights; one that was checked is returned.

        Raises ModelError, with what to do about it, when something is missing, truncated or a
        model of another kind; DecryptionError when it is encrypted and `key` does not open it.
        """
        if isinstance(path, ModelDir):
            return path
        path = Path(path)
        if not path.exists():
            raise ModelError(f"'{path}' does not exist")
        if not path.is_dir():
            advice = (
                f"; export it first: ovfast export {path} -o {path.with_suffix('')}"
                if path.suffix.lower() == ".gguf"
                else ""
            )
            raise ModelError(f"'{path}' is a file, expected a model directory{advice}")
        key = None if key is None else as_key(key)
        files = open_files(path, key)
        text = _check_model(files)
        for name in _TOKENIZERS:
            _check_tokenizer(files, name)
        config = _read_json(files, "config.json")
        generation_config = _read_json(files, "generation_config.json")

        def ids(key: str) -> list[int]:
            return _token_ids(path, key, generation_config, config, config.get("text_config", {}))

        return cls(
            path=path,
            files=files,
            key=key,
            config=config,
            generation_config=generation_config,
            eos_token_ids=ids("eos_token_id"),
            bos_token_id=next(iter(ids("bos_token_id")), None),
            pad_token_id=next(iter(ids("pad_token_id")), None),
            context_length=_context_length(config),
            packed=_PACKED.search(text) is not None,
        )

    @property
    def model_xml(self) -> Path:
        """The model's graph, of a directory that is not encrypted."""
        return self.path / f"{_MODEL}.xml"

    @property
    def model_text(self) -> memoryview:
        """The text of the model's graph."""
        return read_file(self.files, f"{_MODEL}.xml")

    @property
    def weights_bytes(self) -> int:
        """Size of the weights file, bytes."""
        return self.files.size(f"{_MODEL}.bin")

    def load_chat_template(self) -> ChatTemplate:
        """Load the chat template. Raises ModelError when the model has none or a broken one."""
        try:
            source = _chat_template(self.files)
            if source is not None:
                return ChatTemplate(source, **read_special_tokens(self.files))
        except ValueError as error:
            raise ModelError(
                f"the chat template of '{self.path}' cannot be used: {error}"
            ) from error
        raise ModelError(
            f"'{self.path}' has no chat template (chat_template.jinja): the model is not made for "
            "chat. Give it raw text, or put the template of its authors there."
        )


def check_ir(files: _core.ModelFiles, xml: str, fix: str) -> memoryview:
    """Check that an IR is whole: both files there, and the .bin as long as the .xml wants.

    Args:
        files: The directory.
        xml: The name of the .xml; the .bin lies beside it.
        fix: What a person should do about a fault; ends the message.

    Returns the text of the .xml. Raises ModelError.
    """
    path = files.path / xml
    binary = path.with_suffix(".bin")
    for file in (path, binary):
        if str(file.relative_to(files.path)) not in files:
            raise ModelError(f"'{path.parent}' lacks {file.name}. {fix}")
    text = read_file(files, xml)
    if not bytes(text[-64:]).rstrip().endswith(b"</net>"):
        raise ModelError(f"'{path}' is truncated or not an OpenVINO model. {fix}")
    needed = max((int(at) + int(size) for at, size in _CONSTANT.findall(text)), default=0)
    present = files.size(str(binary.relative_to(files.path)))
    if present < needed:
        raise ModelError(
            f"'{binary}' is truncated: the model needs {needed} bytes, present are {present}. {fix}"
        )
    return text


def _check_model(files: _core.ModelFiles) -> memoryview:
    path = files.path
    xml = path / f"{_MODEL}.xml"
    if xml.name not in files:
        others = [
            name
            for name in files.names()
            if fnmatchcase(name, "openvino_*.xml") and Path(name).stem not in _TOKENIZERS
        ]
        if others:
            raise ModelError(
                f"'{path}' holds {', '.join(others)}, but no {xml.name}: it is a model of another "
                "kind. ovfast runs text generation models, as written by `ovfast export` or "
                "`optimum-cli export openvino --task text-generation-with-past`."
            )
        raise ModelError(f"'{path}' is no model directory: no {xml.name}. {_advice(path)}".rstrip())
    text = check_ir(files, xml.name, "Export the model again: ovfast export SOURCE -o DIR")
    # By position: what a match returns is a copy, which an encrypted model should not leave.
    inputs = [
        name for layer in _PARAMETER.finditer(text) for name in _port_names(text, *layer.span())
    ]
    outputs = _port_names(text, 0, len(text))
    if "input_ids" not in inputs or "logits" not in outputs:
        raise ModelError(
            f"'{xml}' is not a text generation model: expected an input 'input_ids' and an output "
            f"'logits', got inputs {', '.join(sorted(inputs)) or 'none'}"
            + ("" if "logits" in outputs else " and no output 'logits'")
            + ". Give a directory of a causal language model."
        )
    if not _STATE.search(text):
        raise ModelError(
            f"'{xml}' keeps no KV cache as state. Export it again with "
            "`optimum-cli export openvino --task text-generation-with-past`, without "
            "--disable-stateful."
        )
    if _PACKED.search(text) and PACK_MANIFEST not in files:
        raise ModelError(
            f"'{path}' holds a packed model, but no {PACK_MANIFEST}, without which damage would go "
            "unnoticed. Pack or export the model again."
        )
    return text


def _advice(path: Path) -> str:
    """What to do about a directory without a model: it may hold one in another form."""
    if any((path / name).exists() for name in _UNFINISHED):
        return "An export to it is running or was cut off; if none is running, export it again."
    ggufs = sorted(path.glob("*.gguf"))
    if ggufs:
        shown = ", ".join(f"'{file}'" for file in ggufs[:_SHOWN_FILES])
        rest = len(ggufs) - _SHOWN_FILES
        more = f" and {rest} more" if rest > 0 else ""
        one = "the file itself" if len(ggufs) == 1 else "one of the files themselves"
        return f"Give {one}: {shown}{more}"
    if any(any(path.glob(pattern)) for pattern in ("*.safetensors", "pytorch_model*.bin")):
        name, output = shlex.quote(str(path)), shlex.quote(f"{path.resolve().name}-openvino")
        return f"It holds a Hugging Face model; convert it with: ovfast export {name} -o {output}"
    return ""


def _check_tokenizer(files: _core.ModelFiles, name: str) -> None:
    path = files.path
    fix = (
        "Write tokenizer and detokenizer with: convert_tokenizer MODEL --with-detokenizer -o "
        f"{shlex.quote(str(path))} (package openvino-tokenizers), where MODEL holds tokenizer.json"
    )
    text = check_ir(files, f"{name}.xml", fix)
    if not _ANY_PARAMETER.search(text):
        raise ModelError(f"'{path / name}.xml' has no input. {fix}")


def _port_names(text: memoryview, begin: int, end: int) -> set[str]:
    return {
        name
        for names in _PORT_NAMES.finditer(text, begin, end)
        for name in html.unescape(names[1].decode("utf-8", "replace")).split(",")
    }


def _read_json(files: _core.ModelFiles, name: str) -> dict[str, Any]:
    path = files.path / name
    if name not in files:
        return {}
    try:
        content = json.loads(bytes(read_file(files, name)))
    except ValueError as error:
        raise ModelError(f"'{path}' cannot be read: {error}. Export the model again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"'{path}' must hold an object, got {type(content).__name__}")
    return content


def _token_ids(path: Path, key: str, *sections: dict[str, Any]) -> list[int]:
    found = (section[key] for section in sections if section.get(key) is not None)
    value: Any = next(found, [])
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(item, int) and not isinstance(item, bool) for item in ids):
        raise ModelError(f"'{key}' of '{path}' must be a token id or a list of them, got {value!r}")
    return ids


def _context_length(config: dict[str, Any]) -> int | None:
    for section in (config, config.get("text_config", {})):
        for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            value = section.get(key)
            if isinstance(value, int) and value > 0:
                return value
    return None


def _chat_template(files: _core.ModelFiles) -> str | None:
    """Look where writers put the template, the newest place first."""
    file = "chat_template.jinja"
    if file in files:
        return bytes(read_file(files, file)).decode("utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = _read_json(files, name).get("chat_template")
        if isinstance(template, list):  # several, each with a name
            named = {item["name"]: item["template"] for item in template}
            template = named.get("default")
        if isinstance(template, str):
            return template
    found = _CHAT_TEMPLATE.search(read_file(files, f"{_TOKENIZERS[0]}.xml"))
    return html.unescape(found[1].decode("utf-8")) if found else None
