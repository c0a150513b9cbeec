"""The language model as Python sees it: prompts in, text out, everything between in C++."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import TracebackType
from typing import Any, overload

from ovfast import _core
from ovfast._openvino import tokenizers_extension
from ovfast.chat_template import ChatTemplate
from ovfast.crypto import Key
from ovfast.engine_options import engine_options, integer
from ovfast.errors import DecryptionError, ModelError
from ovfast.generation_config import sampling_params
from ovfast.model_dir import ModelDir
from ovfast.progress import Bar
from ovfast.results import Generation
from ovfast.tuning import apply_tuning

__all__ = ["LLM", "TextStream", "resolve"]

Message = Mapping[str, Any]


class TextStream:
    """Pieces of an answer as they come; iterate over it.

    Leaving the loop early does not end the generation; dropping the stream, cancel() and the end
    of a ``with`` block do.
    """

    def __init__(self, request: _core.Request) -> None:
        self._request = request
        self._result: Generation | None = None

    def __iter__(self) -> Iterator[str]:
        """Yield text as soon as it is certain; never half a character or part of a stop string."""
        try:
            while not self._request.done:
                for delta in self._request.next():
                    if delta.text:
                        yield delta.text
        except KeyboardInterrupt:
            self.cancel()
            raise

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield text without blocking the event loop; cancelling the task cancels the request."""
        try:
            while not self._request.done:
                for delta in await asyncio.to_thread(self._request.next):
                    if delta.text:
                        yield delta.text
        except (asyncio.CancelledError, GeneratorExit):
            self.cancel()
            raise

    def __enter__(self) -> TextStream:
        """Cancel the generation when the block ends."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel what has not ended."""
        self.cancel()

    def cancel(self) -> None:
        """End the generation at the next step; what came so far stays in ``result``."""
        self._request.cancel()

    @property
    def result(self) -> Generation:
        """The whole generation; waits for its end."""
        if self._result is None:
            self._result = _wait(self._request)
        return self._result


class LLM:
    """A language model, loaded and ready.

    Args:
        source: A model directory (of ``ovfast export`` or Optimum Intel) or a ``.gguf`` file, which
            is exported once into the cache (``OVFAST_CACHE``).
        device: OpenVINO device: "CPU", "GPU", "GPU.1", "AUTO", "HETERO:GPU,CPU", "MULTI:GPU,CPU". Packed
            weights, our attention, prefix caching and ``num_threads`` are the CPU's; elsewhere a
            stock directory (``ovfast export --no-pack``) runs on OpenVINO's own operations, and a
            ``.gguf`` file is exported as one. ``info.execution_devices`` says where it runs.
        kv_cache_gb: Hard bound of the KV cache in GiB; None derives it from free memory, the cgroup
            limit and the context, and ``info.kv_cache_reason`` says how.
        max_context: Tokens of prompt and answer together; None takes the model's own.
        num_threads: Compute threads; None takes what cgroup quota and affinity allow.
        max_batch_tokens: Tokens that one step computes at most, the size of prefill chunks; None
            takes the engine's default.
        max_sequences: Sequences that run at once, others wait; None takes the engine's default.
        prefix_caching: A prompt that begins like an earlier one reuses its keys and values.
        packed: "auto" runs linear layers on packed weights: a directory that has none is packed when
            it is first loaded, beside the model or in the cache (``info.packed_dir`` says where).
            "never" runs a stock directory on OpenVINO's own operations.
        activation_precision: "int8" lets linear layers round activations to 8 bits, as OpenVINO
            does by default; "int8_g128" takes one scale for 128 values instead of 32, which is less
            precise and faster for long prompts where weights have groups of 128 or more, too;
            "exact" keeps them f32. None is "int8", unless the model was tuned.
        attention: "ovfast" is our own, which keeps keys and values in bf16; "openvino" is the
            plugin's; "auto" takes ours where processor and model allow it and no property speaks
            of a KV cache (``info.attention`` says which it is, ``info.attention_reason`` why).
            None is "auto", unless the model was tuned.
        tile_kb: KiB of packed weights that a thread takes at a time while answering; None is 64,
            unless the model was tuned. No result depends on it.
        tile_columns: Output columns of a linear layer that a thread takes at a time of a prompt;
            None is 512, unless the model was tuned.
        gpu_operations: "ovfast" puts our OpenCL kernels into the graph on a GPU, where they fit
            (``info.gpu_operations`` counts them); "openvino" leaves it as it is.
        properties: Further OpenVINO properties, such as ``{"KV_CACHE_PRECISION": "u8"}``; unknown
            ones are refused.
        tuned: Options that are not given take what ``ovfast tune`` found to be the fastest for this
            model on this machine, if it was run (the attribute ``tuning``; not with
            ``packed="never"`` or another ``activation_precision`` than "int8": it did not measure
            those).
        progress: Show a progress bar while a model is exported or packed.
        key: Opens an encrypted directory (``ovfast.crypto``): a Key, 32 bytes, or the path of a key
            file. Nothing of the model is written then: one that is not packed is packed in memory.

    Raises:
        DecryptionError: The source is encrypted and the key does not open it, or it is damaged.
        ModelError: The source is no usable model; the message says why and what helps.
        CapacityError: The KV cache does not fit.
        TypeError: An option is of another type.
        ValueError: An option is out of range.

    Several threads may generate at once; their requests are computed together.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        device: str = "CPU",
        kv_cache_gb: float | None = None,
        max_context: int | None = None,
        num_threads: int | None = None,
        max_batch_tokens: int | None = None,
        max_sequences: int | None = None,
        prefix_caching: bool = True,
        packed: str = "auto",
        activation_precision: str | None = None,
        attention: str | None = None,
        tile_kb: int | None = None,
        tile_columns: int | None = None,
        gpu_operations: str = "openvino",
        properties: Mapping[str, Any] | None = None,
        tuned: bool = True,
        progress: bool = True,
        key: Key | bytes | str | Path | None = None,
    ) -> None:
        if device != "CPU":
            packed = "never" if packed == "auto" else packed  # only the CPU runs packed weights
        options = engine_options(
            device=device,
            kv_cache_gb=kv_cache_gb,
            max_context=max_context,
            num_threads=num_threads,
            max_batch_tokens=max_batch_tokens,
            max_sequences=max_sequences,
            prefix_caching=prefix_caching,
            packed=packed,
            activation_precision="int8" if activation_precision is None else activation_precision,
            attention="auto" if attention is None else attention,
            tile_kb=tile_kb,
            tile_columns=tile_columns,
            gpu_operations=gpu_operations,
            properties=properties,
        )
        if not isinstance(tuned, bool):
            raise TypeError(f"tuned: expected bool, got {type(tuned).__name__}")

        if key is not None and _is_file(Path(source).expanduser()):
            raise ValueError(f"'{source}' is no encrypted directory, but a key was given")
        model_dir = ModelDir.check(resolve(source, progress, packed), key)
        # While options are judged, the tokenizer loads and OpenVINO starts.
        model_dir.files.prefetch("openvino_model.bin")
        self.model_dir: Path = model_dir.path
        context = model_dir.context_length
        if context is not None and (max_context is None or max_context > context):
            if max_context is not None:
                raise ValueError(
                    f"max_context is {max_context}, but the model was made for {context} tokens"
                )
            options.max_context = context
        options.eos_token_ids = model_dir.eos_token_ids
        explicit = {
            "num_threads": num_threads,
            "max_batch_tokens": max_batch_tokens,
            "attention": attention,
            "tile_kb": tile_kb,
            "tile_columns": tile_columns,
            "activation_precision": activation_precision,
        }
        given = [name for name, value in explicit.items() if value is not None]
        self.tuning: dict[str, Any] | None = (
            apply_tuning(model_dir, options, given) if tuned else None
        )
        """What `ovfast tune` stored, with "applied", the options that come from it; or None."""
        self._generation_config = model_dir.generation_config
        self._model = model_dir
        self._chat_template: ChatTemplate | None = None
        self._no_chat_template: ModelError | None = None

        start = time.perf_counter()
        self.tokenizer = _core.Tokenizer(model_dir.files, tokenizers_extension())
        self._engine: _core.Engine | None = _start(
            source, model_dir.files, self.tokenizer, options, progress
        )
        self.load_seconds: float = time.perf_counter() - start
        if model_dir.files.encrypted:
            self._read_what_is_left()

    @property
    def info(self) -> _core.EngineInfo:
        """What came out of the options on this machine: threads, context, KV cache."""
        return self._running_engine().info

    @property
    def chat_template(self) -> ChatTemplate:
        """The model's chat template. Raises ModelError when it has none."""
        if self._no_chat_template is not None:
            raise self._no_chat_template
        if self._chat_template is None:
            self._chat_template = self._model.load_chat_template()
        return self._chat_template

    def _read_what_is_left(self) -> None:
        """Read what is read on first use otherwise, so that the key can be forgotten."""
        try:
            self._chat_template = self._model.load_chat_template()
        except DecryptionError:
            raise
        except ModelError as error:
            self._no_chat_template = error
        self._model.files.close()
        self._model = dataclasses.replace(self._model, key=None)

    def __repr__(self) -> str:
        """Directory, device and limits."""
        if self._engine is None:
            return f"LLM({str(self.model_dir)!r}, closed)"
        info = self._engine.info
        return (
            f"LLM({str(self.model_dir)!r}, device={info.device!r}, num_threads={info.threads}, "
            f"max_context={info.max_context})"
        )

    @overload
    def generate(self, prompt: str | Sequence[int], **options: Any) -> Generation: ...
    @overload
    def generate(self, prompt: list[str], **options: Any) -> list[Generation]: ...
    def generate(
        self, prompt: str | Sequence[int] | list[str], **options: Any
    ) -> Generation | list[Generation]:
        """Continue a text.

        Args:
            prompt: Text as it is (no chat template), token ids, or a list of texts, which are
                computed together.
            **options: Attributes of `SamplingParams` (``max_new_tokens``, ``temperature``, ...).
                What is not given comes from the model's generation_config.json.

        Returns:
            A Generation, or a list of them for a list of texts.

        Raises:
            TypeError: A prompt or an option of another type, an unknown option.
            ValueError: An option out of range, contradicting options, an empty prompt.
            ModelError: The model's generation_config.json cannot be used.
            CapacityError: The prompt is longer than the context or the KV cache.
        """
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
            for i, text in enumerate(prompt):
                if not isinstance(text, str):
                    raise TypeError(f"prompt[{i}]: expected str, got {type(text).__name__}")
            encoded = [self._encode(text) for text in prompt]
            requests = [self._submit(ids, options) for ids in encoded]
            return [_wait(request) for request in requests]
        return _wait(self._submit(self._encode(prompt, "str, token ids or a list of str"), options))

    def stream(self, prompt: str | Sequence[int], **options: Any) -> TextStream:
        """Continue a text piece by piece; arguments and errors as in `generate`, ``n`` is 1."""
        return self._stream(self._encode(prompt), options)

    async def astream(self, prompt: str | Sequence[int], **options: Any) -> AsyncIterator[str]:
        """Continue a text piece by piece without blocking the event loop."""
        async for piece in self.stream(prompt, **options):
            yield piece

    def chat(self, messages: Sequence[Message], **options: Any) -> Generation:
        """Answer a conversation.

        Args:
            messages: ``{"role": "system" | "user" | "assistant", "content": str}``, oldest first.
                The content may also be a list of ``{"type": "text", "text": str}``.
            **options: As in `generate`.

        Raises:
            ModelError: The model has no chat template.
            ValueError: The template refuses the messages; otherwise as in `generate`.
        """
        return _wait(self._submit(self._encode_chat(messages), options))

    def stream_chat(self, messages: Sequence[Message], **options: Any) -> TextStream:
        """Answer a conversation piece by piece; arguments and errors as in `chat`."""
        return self._stream(self._encode_chat(messages), options)

    def close(self) -> None:
        """Cancel what runs and free the model's memory."""
        self._engine = None

    def __enter__(self) -> LLM:
        """Close the model when the block ends."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the model."""
        self.close()

    def _running_engine(self) -> _core.Engine:
        if self._engine is None:
            raise _core.Error("this LLM was closed")
        return self._engine

    def _encode(self, prompt: Any, expected: str = "str or token ids") -> list[int]:
        if isinstance(prompt, str):
            if not prompt:
                raise ValueError("the prompt is empty: expected text or token ids")
            return self.tokenizer.encode(prompt)
        not_ids = (bytes, bytearray, memoryview, Mapping, AbstractSet)
        if isinstance(prompt, not_ids) or not isinstance(prompt, Iterable):
            raise TypeError(f"prompt: expected {expected}, got {type(prompt).__name__}")
        items = list(prompt)
        if items and all(isinstance(item, str) for item in items):
            raise TypeError(f"prompt: expected {expected}, got {type(prompt).__name__} of str")
        ids = [integer(f"prompt[{i}]", item, "a token id (int)") for i, item in enumerate(items)]
        for i, token_id in enumerate(ids):
            if not -(2**63) <= token_id < 2**63:  # what fits, the engine judges
                raise ValueError(
                    f"prompt token {i} is {token_id}, expected an id of the vocabulary"
                )
        return ids

    def _encode_chat(self, messages: Sequence[Message]) -> list[int]:
        text = self.chat_template.render(messages)
        # The template writes the special tokens that the model wants, BOS included.
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _submit(self, prompt_ids: list[int], options: Mapping[str, Any]) -> _core.Request:
        params = sampling_params(
            self._generation_config, options, self.model_dir / "generation_config.json"
        )
        limit = params.max_length
        if limit is not None and options.get("max_length") is None and len(prompt_ids) >= limit:
            raise ValueError(
                f"max_length is {limit} (from generation_config.json; give max_new_tokens), but "
                f"the prompt alone has {len(prompt_ids)} tokens"
            )
        return self._running_engine().submit(prompt_ids, params)

    def _stream(self, prompt_ids: list[int], options: Mapping[str, Any]) -> TextStream:
        if options.get("n", 1) != 1:
            raise ValueError(f"n is {options['n']}, but one stream carries one answer")
        return TextStream(self._submit(prompt_ids, options))


def _wait(request: _core.Request) -> Generation:
    try:
        request.wait()
    except KeyboardInterrupt:
        request.cancel()
        raise
    return Generation.from_request(request)


def _is_file(path: Path) -> bool:
    return path.is_file() or (path.suffix.lower() == ".gguf" and not path.is_dir())


def resolve(source: str | Path, progress: bool, packed: str) -> Path:
    """Return the model directory of a source of `LLM`: a GGUF file is exported into the cache."""
    path = Path(source).expanduser()
    if _is_file(path):
        from ovfast.cache import cached_export

        return cached_export(path, progress=progress, packed=packed != "never")
    return path


def _start(
    source: str | Path,
    files: _core.ModelFiles,
    tokenizer: _core.Tokenizer,
    options: _core.EngineOptions,
    progress: bool,
) -> _core.Engine:
    model_dir = files.path
    with Bar(model_dir.name, progress) as bar:
        options.progress = bar.show
        try:
            return _core.Engine(files, tokenizer, options)
        except ModelError:
            if not _is_file(Path(source).expanduser()) or not _is_damaged(model_dir):
                raise
    # It lies in the cache, which is ours to repair.
    from ovfast.cache import cached_export

    packed = options.packed != "never"
    repaired = cached_export(source, progress=progress, packed=packed, again=True)
    return _core.Engine(repaired, tokenizer, options)


def _is_damaged(model_dir: Path) -> bool:
    if not _core.is_packed(model_dir):
        return False
    try:
        _core.inspect_packing(model_dir)
    except ModelError:
        return True
    return False
