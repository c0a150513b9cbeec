"""From a model's vocabulary to tokenizer and detokenizer IR, in a process of its own.

Transformers takes a second to import and hundreds of megabytes to build a tokenizer: a child
process does it while the weights are converted, and takes all of that with it when it ends.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from ovfast.errors import Error, ModelError
from ovfast.export import config as configuration

__all__ = ["TokenizerJob", "write_folder_tokenizer", "write_tokenizer"]

# What goes wrong in tokenizers: scripts without spaces, combining marks, characters outside the
# BMP, joined emoji, digits, indentation, contractions, line ends, spaces at either end.
SAMPLE = (
    "Hello, world! It's 3.14159 o'clock; we'll say WE'LL, don't you think?",
    "  two spaces before,\ttabs\tinside,  and trailing spaces   ",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Ça va, garçon? Ñandú.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "敏捷的棕色狐狸跳过了懒狗。今天是2024年12月31日！",
    "いろはにほへと ちりぬるを。カタカナと漢字。",
    "다람쥐 헌 쳇바퀴에 타고파",
    "נקודה. الكتابة بالعربية ١٢٣ हिन्दी में लिखना ไทยไม่มีช่องว่าง",
    "e\u0301 vs é, Å vs Å, ﬁ ligature, ½, x²",
    "👍🏽 👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🤖",
    'def f(x: int) -> str:\n    """Doc."""\n    return f"{x:>10}" if x != 0 else None  # done\n\n\n',
    "for (int i = 0; i < n; ++i) {\r\n\tstd::cout << a[i] << '\\n';\r\n}\n",
    "SELECT * FROM t WHERE a >= 1000000 AND b IS NOT NULL; -- <b>html</b> &amp; https://x.org/?q=1",
    "\n\n\n",
    " ",
    "a",
)


_SPARE_TOKENS = 32


class TokenizerJob:
    """A child process that writes tokenizer and detokenizer, and the configuration of a GGUF file.

    It ends when this process does, however that happens.
    """

    def __init__(self, source: Path, out_dir: Path) -> None:
        """Start the child on a GGUF file or Hugging Face folder; it writes into `out_dir`."""
        # The child must find the packages that this process found.
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
        # A file, not a pipe, so that a chatty child never waits for us to read.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ovfast.export.tokenizer", str(source), str(out_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )

    def failed(self) -> bool:
        """Whether it ended without success."""
        return self._process.poll() not in (None, 0)

    def result(self) -> None:
        """Wait for the end. Raises ModelError or Error with what went wrong in the child."""
        assert self._process.stdout is not None
        answer = self._process.stdout.read()
        code = self._process.wait()
        if code == 0:
            return
        try:
            fault = json.loads(answer)
        except ValueError:
            self._errors.seek(0)
            lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit code {code}"
            raise Error(f"the process that converts the tokenizer failed: {reason}") from None
        raise (ModelError if fault["kind"] == "model" else Error)(fault["message"])

    def close(self) -> None:
        """End the process, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()


def write_tokenizer(metadata: dict[str, Any], name: str, out_dir: Path) -> None:
    """Write the tokenizer of a GGUF file: Hugging Face's files and OpenVINO's.

    Args:
        metadata: The file's metadata, arrays included.
        name: What to call the file in messages.
        out_dir: An existing directory.

    Raises ModelError when the vocabulary cannot be used, or when the tokenizer that was written
    gives other tokens than the one that it was made from.
    """
    _write(_reference_tokenizer(metadata, name), name, out_dir)


def write_folder_tokenizer(folder: Path, out_dir: Path) -> None:
    """Write the tokenizer of a Hugging Face folder: its own files and OpenVINO's.

    Code that lies in the folder is not run. Raises ModelError as `write_tokenizer` does.
    """
    from transformers import AutoTokenizer

    try:
        reference = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise ModelError(f"the tokenizer of '{folder}' cannot be read: {error}") from error
    if not reference.is_fast:
        raise ModelError(
            f"the tokenizer of '{folder}' has no tokenizer.json, and transformers cannot make one"
        )
    _write(reference, folder.resolve().name, out_dir)


def _write(reference: Any, name: str, out_dir: Path) -> None:
    import openvino
    from openvino_tokenizers import convert_tokenizer

    try:
        tokenizer, detokenizer = convert_tokenizer(reference, with_detokenizer=True)
    except Exception as error:
        raise ModelError(f"the tokenizer of '{name}' cannot be converted: {error}") from error
    reference.save_pretrained(out_dir)
    # Weights in a tokenizer are bytes and lookup tables; compressing them would break it.
    openvino.save_model(tokenizer, out_dir / "openvino_tokenizer.xml", compress_to_fp16=False)
    openvino.save_model(detokenizer, out_dir / "openvino_detokenizer.xml", compress_to_fp16=False)
    del tokenizer, detokenizer
    _compare(reference, out_dir, name)


def _reference_tokenizer(metadata: dict[str, Any], name: str) -> Any:
    import transformers

    try:
        from transformers.integrations.gguf import convert_gguf_tokenizer
    except ImportError:
        # Transformers 4 has something like it, which forgets the BOS of Llama's vocabularies.
        raise Error(
            f"transformers {transformers.__version__} cannot read the vocabularies of GGUF files "
            "well enough. Install a newer one: pip install 'transformers>=5.23,<6'"
        ) from None

    def of(key: str) -> Any:
        return metadata.get(f"tokenizer.ggml.{key}")

    tokens = of("tokens")
    if not tokens:
        raise ModelError(f"'{name}' holds no tokenizer (metadata 'tokenizer.ggml.tokens')")
    vocabulary = {
        "tokenizer_type": of("model"),
        "pre_tokenizer_type": of("pre"),
        "tokens": tokens,
        "scores": of("scores"),
        "token_type": of("token_type"),
        "merges": of("merges"),
        "add_prefix_space": of("add_space_prefix"),
        "bos_token_id": of("bos_token_id"),
        "eos_token_id": of("eos_token_id"),
        "unk_token_id": of("unknown_token_id"),
    }
    present = {key: value for key, value in vocabulary.items() if value is not None}
    special = {
        "bos_token": configuration.token(metadata, "bos_token_id", name),
        "eos_token": configuration.token(metadata, "eos_token_id", name),
        "unk_token": configuration.token(metadata, "unknown_token_id", name),
        "pad_token": configuration.token(metadata, "padding_token_id", name),
    }
    try:
        backend, _ = convert_gguf_tokenizer(metadata["general.architecture"], present)
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=backend,
            **special,
            add_bos_token=configuration.adds_bos(metadata),
            add_eos_token=bool(of("add_eos_token")),
            chat_template=metadata.get("tokenizer.chat_template"),
            clean_up_tokenization_spaces=False,
        )
    except Exception as error:
        raise ModelError(f"the tokenizer of '{name}' cannot be built: {error}") from error


def _compare(reference: Any, out_dir: Path, name: str) -> None:
    """Check that the written tokenizer gives the reference's tokens, and its text back."""
    import openvino

    core = openvino.Core()
    encode = core.compile_model(out_dir / "openvino_tokenizer.xml", "CPU")
    decode = core.compile_model(out_dir / "openvino_detokenizer.xml", "CPU")
    # Chat templates put special tokens between pieces of text.
    special = [
        f"{token}user\n{token} {SAMPLE[0]}{token}\n{token}" for token in _special_tokens(reference)
    ]
    for text in (*SAMPLE, *special, "".join(_special_tokens(reference)) or "a"):
        expected = reference(text)["input_ids"]
        got = encode([text])["input_ids"][0].tolist()
        if got != expected:
            raise ModelError(
                f"the converted tokenizer of '{name}' is wrong: for {text!r} expected tokens "
                f"{expected}, got {got}"
            )
        wanted = reference.decode(expected, skip_special_tokens=True)
        read = str(decode([expected])["string_output"][0]) if expected else ""
        if read != wanted:
            raise ModelError(
                f"the converted detokenizer of '{name}' is wrong: for tokens {expected} expected "
                f"{wanted!r}, got {read!r}"
            )


def _special_tokens(reference: Any) -> list[str]:
    """Those that are used, and some of the rest: a few models reserve thousands."""
    added = reference.added_tokens_decoder.values()
    special = sorted(token.content for token in added if token.special)
    used = {*reference.all_special_tokens, *special[:_SPARE_TOKENS]}
    template = reference.chat_template or ""
    return [token for token in special if token in used or token in template]


def _exit_with_parent() -> None:
    """Leave when the parent is gone: its end of our standard input closes then."""

    def watch() -> None:
        os.read(0, 1)  # not through sys.stdin, whose lock would be held when we end
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_gguf_files(source: Path, out_dir: Path) -> None:
    from ovfast import _core

    header = _core.read_gguf_header(source, with_arrays=True)
    metadata = header.metadata
    configuration.write_config(header, metadata, source.name, out_dir)
    del header
    write_tokenizer(metadata, source.name, out_dir)


def main() -> int:
    """Run the child: source and directory are the arguments, a fault goes to stdout as JSON."""
    # Millions of short-lived objects and no cycles to speak of: collecting costs a fifth.
    gc.disable()
    _exit_with_parent()
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print must not spoil the answer
    source, out_dir = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        if source.is_dir():
            write_folder_tokenizer(source, out_dir)
        else:
            _write_gguf_files(source, out_dir)
    except Error as error:
        kind = "model" if isinstance(error, ModelError) else "other"
        json.dump({"kind": kind, "message": str(error)}, answer)
        answer.close()
        return 1
    except OSError as error:
        json.dump({"kind": "other", "message": f"writing the tokenizer failed: {error}"}, answer)
        answer.close()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
