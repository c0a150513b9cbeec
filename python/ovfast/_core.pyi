"""
The C++ core of ovfast.

Wrong arguments raise ValueError or TypeError; files, models and machines that do not do raise ovfast.Error or one of its kinds. Calls that compute release the GIL.

Import it as `from ovfast import _core`: the package then checks that the installed OpenVINO is the one that this module was built against.
"""

from __future__ import annotations

import collections.abc
import os
import pathlib
import typing

import numpy
import numpy.typing
import typing_extensions

__all__: list[str] = [
    "Answer",
    "CapacityError",
    "DecryptionError",
    "Delta",
    "EncryptedContents",
    "EncryptedFile",
    "Engine",
    "EngineInfo",
    "EngineOptions",
    "Error",
    "FileBytes",
    "GgufHeader",
    "GgufTensor",
    "HostLimits",
    "IncrementalDetokenizer",
    "Key",
    "ModelError",
    "ModelFiles",
    "NodeTime",
    "OpenSslCipher",
    "PackReport",
    "PackedLayer",
    "PositionLogprobs",
    "ProcessMemory",
    "Request",
    "RequestMetrics",
    "Sampler",
    "SamplingParams",
    "StopStrings",
    "TokenLogprob",
    "Tokenizer",
    "check_kernel_files",
    "decrypt_directory",
    "encrypt_directory",
    "import_gguf",
    "inspect_packing",
    "is_encrypted",
    "is_packed",
    "kernel_calls",
    "key_file_warning",
    "list_directory",
    "looks_like_ir",
    "open_directory",
    "openvino_built_version",
    "openvino_loaded_version",
    "operation_names",
    "pack_for_loading",
    "pack_model",
    "pack_weights",
    "protect_memory",
    "read_bandwidth",
    "read_gguf_header",
    "read_host_limits",
    "read_process_memory",
    "rekey",
    "supported_isas",
    "unpack_weights",
    "verify_directory",
    "version",
    "wipe_freed_memory",
]

class Error(RuntimeError):
    """
    Base of ovfast's own errors.
    """

class ModelError(Error):
    """
    A file or directory that cannot be used as a model: missing, truncated, corrupted, unsupported.
    """

class CapacityError(Error):
    """
    A request that can never fit: longer than the model's context or than the KV cache.
    """

class DecryptionError(ModelError):
    """
    An encrypted model that cannot be opened: a wrong or missing key, damage, files of another model. Names the file, never what is in it.
    """

class HostLimits:
    """
    What this process may use of the machine: the tightest of hardware, affinity and cgroup limits.
    """
    def __repr__(self) -> str: ...
    @property
    def affinity(self) -> int:
        """
        Processors in this process's affinity mask (also what a cpuset leaves).
        """
    @property
    def cpu_name(self) -> str: ...
    @property
    def cpu_quota(self) -> float:
        """
        CPU time quota of the cgroup in processors; 0 when unlimited.
        """
    @property
    def isa(self) -> list[str]:
        """
        Instruction sets that the processor has and the operating system lets us use, named as in /proc/cpuinfo, sorted.
        """
    @property
    def memory_available(self) -> int:
        """
        Bytes that can still be used; page cache that can be reclaimed counts.
        """
    @property
    def memory_limit(self) -> int:
        """
        Memory limit of the cgroup, bytes; 0 when unlimited.
        """
    @property
    def memory_total(self) -> int:
        """
        Physical memory, bytes.
        """
    @property
    def processors(self) -> int:
        """
        Processors of the machine.
        """
    @property
    def threads(self) -> int:
        """
        Threads to compute with: min(affinity, ceil(cpu_quota)), at least 1.
        """

class ProcessMemory:
    """
    Memory of this process, bytes.
    """
    def __repr__(self) -> str: ...
    @property
    def peak_rss(self) -> int:
        """
        VmHWM.
        """
    @property
    def rss(self) -> int:
        """
        VmRSS.
        """
    @property
    def rss_anon(self) -> int:
        """
        RssAnon: private pages.
        """
    @property
    def rss_file(self) -> int:
        """
        RssFile + RssShmem: file-backed pages, shared with other processes.
        """

class FileBytes:
    """
    The bytes of a file, to be looked at through memoryview(). Those of an encrypted file are wiped when nothing refers to them.
    """
    def __len__(self) -> int: ...
    def __repr__(self) -> str: ...

class ModelFiles:
    """
    The files of a model directory: a plain folder, or an encrypted one, whose files are decrypted to memory. Thread-safe.
    """
    @staticmethod
    def folder(model_dir: os.PathLike | str | bytes) -> ModelFiles:
        """
        A plain folder. Raises DecryptionError when it is encrypted.
        """
    def __contains__(self, name: str) -> bool: ...
    def __repr__(self) -> str: ...
    def close(self) -> None:
        """
        Forgets the keys of an encrypted directory. What was read stays.
        """
    def names(self) -> list[str]:
        """
        Names of the files, sorted.
        """
    def prefetch(self, name: str) -> None:
        """
        Begins to decrypt a file in the background, for the next read() of it.
        """
    def read(self, name: str) -> FileBytes:
        """
        The whole file. Raises ModelError or DecryptionError.
        """
    def read_into(
        self, name: str, offset: typing.SupportsInt | typing.SupportsIndex, out: typing.Any
    ) -> None:
        """
        Fills a writable buffer with what lies at `offset`, bytes of plaintext. Raises ModelError, DecryptionError, or ValueError when it goes beyond the end.
        """
    def size(self, name: str) -> int:
        """
        Bytes of plaintext. Raises ModelError when there is no such file.
        """
    @property
    def encrypted(self) -> bool: ...
    @property
    def path(self) -> pathlib.Path:
        """
        The directory on disk.
        """

class Key:
    """
    What opens an encrypted model: 32 random bytes, or a passphrase. It lies in locked memory that is overwritten when the last reference goes, and shows where it came from, never what it is.
    """
    @staticmethod
    def ask_passphrase(prompt: str, twice: bool) -> Key:
        """
        Asks on the terminal, without echo; without a terminal it reads a line of standard input. Raises ovfast.Error when there is no answer.
        """
    @staticmethod
    def from_bytes(data: bytes) -> Key:
        """
        Of exactly 32 bytes. Raises ValueError.
        """
    @staticmethod
    def from_env(name: str) -> Key:
        """
        Of 64 hexadecimal digits in an environment variable. Raises ValueError.
        """
    @staticmethod
    def from_file(file: os.PathLike | str | bytes) -> Key:
        """
        Of 64 hexadecimal digits, or 32 raw bytes, in a file. Raises ovfast.Error when it cannot be read, ValueError when it holds something else.
        """
    @staticmethod
    def from_passphrase(passphrase: str) -> Key:
        """
        Of any text that is not empty. Raises ValueError.
        """
    @staticmethod
    def from_stdin() -> Key:
        """
        As from_file(), from standard input to its end.
        """
    @staticmethod
    def generate() -> Key:
        """
        A new random key.
        """
    @staticmethod
    def receive(descriptor: typing.SupportsInt | typing.SupportsIndex) -> Key:
        """
        Takes what send() wrote, to the end of the pipe. Raises ovfast.Error.
        """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def send(self, descriptor: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Hands the key to another process through a pipe. Raises ovfast.Error.
        """
    def write(self, file: os.PathLike | str | bytes) -> None:
        """
        Writes 64 hexadecimal digits to a new file that only its owner can read. Raises ovfast.Error when it exists, ValueError for a passphrase.
        """
    @property
    def is_passphrase(self) -> bool: ...
    @property
    def origin(self) -> str:
        """
        Where it came from.
        """

class EncryptedFile:
    """
    A file of an encrypted directory.
    """
    @property
    def bytes(self) -> int:
        """
        Of plaintext.
        """
    @property
    def chunks(self) -> int: ...
    @property
    def name(self) -> str:
        """
        Within the directory.
        """
    @property
    def role(self) -> str:
        """
        "topology", "weights", "tokenizer", "config", "template", "adapter", "kernel" or "other".
        """

class EncryptedContents:
    """
    What an encrypted directory holds.
    """
    @property
    def bytes(self) -> int:
        """
        Of plaintext, all files.
        """
    @property
    def chunk_bytes(self) -> int: ...
    @property
    def files(self) -> list[EncryptedFile]: ...
    @property
    def notes(self) -> list[str]:
        """
        What a person should know.
        """
    @property
    def passphrase(self) -> bool:
        """
        Opened by a passphrase, not by a key.
        """

class OpenSslCipher:
    """
    Key and initialization vector of files that `openssl enc -aes-N-cbc -K -iv` writes and reads. Nothing is authenticated.
    """
    def __init__(self, name: str, key_hex: str, iv_hex: str) -> None:
        """
        Raises ValueError, which tells lengths only.
        """
    def __repr__(self) -> str: ...
    def decrypt(self, source: os.PathLike | str | bytes, target: os.PathLike | str | bytes) -> None:
        """
        Raises DecryptionError for a padding that cannot be, ovfast.Error.
        """
    def encrypt(self, source: os.PathLike | str | bytes, target: os.PathLike | str | bytes) -> None:
        """
        Raises ovfast.Error.
        """
    def read(self, source: os.PathLike | str | bytes) -> FileBytes:
        """
        A file decrypted to memory. Raises as decrypt().
        """

class PackedLayer:
    """
    A layer with constant weights and what became of it.
    """
    def __repr__(self) -> str: ...
    @property
    def format(self) -> str:
        """
        Of each of its weights.
        """
    @property
    def name(self) -> str: ...
    @property
    def operation(self) -> str:
        """
        'FullyConnected', 'QKV', 'GatedMLP', 'Embedding'; '' for one left alone.
        """
    @property
    def packed_bytes(self) -> int:
        """
        And after.
        """
    @property
    def reason(self) -> str:
        """
        Why it was left alone.
        """
    @property
    def source_bytes(self) -> int:
        """
        Of its weights before.
        """

class PackReport:
    """
    What packing a model did.
    """
    @property
    def directory(self) -> pathlib.Path:
        """
        Where the packed model lies; empty when it was not written.
        """
    @property
    def layers(self) -> list[PackedLayer]: ...
    @property
    def notes(self) -> list[str]:
        """
        What a person should know.
        """
    @property
    def packed(self) -> bool:
        """
        Whether anything was packed.
        """
    @property
    def packed_bytes(self) -> int:
        """
        Constants after.
        """
    @property
    def reused(self) -> bool:
        """
        It lay there already.
        """
    @property
    def source_bytes(self) -> int:
        """
        Constants before.
        """

class GgufTensor:
    """
    A tensor as a GGUF file's header describes it.
    """
    def __repr__(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def offset(self) -> int:
        """
        From the beginning of the file, bytes.
        """
    @property
    def shape(self) -> list[int]:
        """
        GGML order: fastest dimension first.
        """
    @property
    def size(self) -> int:
        """
        Bytes.
        """
    @property
    def type(self) -> str:
        """
        GGML's name of the type: 'Q4_K', 'F16', ...
        """

class GgufHeader:
    """
    The header of a GGUF file.
    """
    def bytes_by_type(self) -> dict[str, int]:
        """
        Tensor type -> bytes stored in it.
        """
    @property
    def architecture(self) -> str: ...
    @property
    def context_length(self) -> int:
        """
        Tokens; 0 when the file does not say.
        """
    @property
    def file_size(self) -> int:
        """
        Bytes.
        """
    @property
    def metadata(self) -> dict:
        """
        A new dict of the file's metadata. Raises ModelError when a text in it is not UTF-8.
        """
    @property
    def tensors(self) -> list[GgufTensor]: ...
    @property
    def version(self) -> int: ...

class SamplingParams:
    """
    How the next token is chosen and when generation ends.

    Every option is a keyword and an attribute. Raises TypeError for an unknown option or a value of another type; validate() looks at the values. Order of operations: repetition, frequency and presence penalty, temperature, top-k, top-p, min-p, draw.
    """
    def __init__(self, **kwargs) -> None: ...
    def __repr__(self) -> str: ...
    def validate(self) -> None:
        """
        Raises ValueError that names the option, its value and what is allowed, also for options that contradict each other.
        """
    @property
    def frequency_penalty(self) -> float:
        """
        Subtracted from logits for each time the token was generated, in [-2, 2].
        """
    @frequency_penalty.setter
    def frequency_penalty(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def greedy(self) -> bool:
        """
        Whether temperature is 0.
        """
    @property
    def ignore_eos(self) -> bool:
        """
        Go on after the model's end-of-sequence tokens.
        """
    @ignore_eos.setter
    def ignore_eos(self, arg0: bool) -> None: ...
    @property
    def include_stop_string(self) -> bool:
        """
        The matched stop string is part of the text.
        """
    @include_stop_string.setter
    def include_stop_string(self, arg0: bool) -> None: ...
    @property
    def logprobs(self) -> int | None:
        """
        Report the log-probability of each generated token and of the k most probable ones, 0 to 20; None: no report.
        """
    @logprobs.setter
    def logprobs(self, arg0: typing.SupportsInt | typing.SupportsIndex | None) -> None: ...
    @property
    def max_length(self) -> int | None:
        """
        Prompt and generated tokens together, at most. Excludes max_new_tokens.
        """
    @max_length.setter
    def max_length(self, arg0: typing.SupportsInt | typing.SupportsIndex | None) -> None: ...
    @property
    def max_new_tokens(self) -> int | None:
        """
        Tokens to generate at most; None: until the context is full. Excludes max_length.
        """
    @max_new_tokens.setter
    def max_new_tokens(self, arg0: typing.SupportsInt | typing.SupportsIndex | None) -> None: ...
    @property
    def min_new_tokens(self) -> int:
        """
        End-of-sequence and stop tokens are not sampled before this many tokens.
        """
    @min_new_tokens.setter
    def min_new_tokens(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def min_p(self) -> float:
        """
        Keep tokens at least min_p times as probable as the most probable one, in [0, 1].
        """
    @min_p.setter
    def min_p(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def n(self) -> int:
        """
        Answers to sample for one prompt, 1 to 128.
        """
    @n.setter
    def n(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def presence_penalty(self) -> float:
        """
        Subtracted once from logits of generated tokens, in [-2, 2].
        """
    @presence_penalty.setter
    def presence_penalty(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def repetition_penalty(self) -> float:
        """
        Logits of tokens in prompt and output are divided by it when positive and multiplied when negative; > 0, 1 is off.
        """
    @repetition_penalty.setter
    def repetition_penalty(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def seed(self) -> int | None:
        """
        Same seed, same random numbers. None: drawn from the system.
        """
    @seed.setter
    def seed(self, arg0: typing.SupportsInt | typing.SupportsIndex | None) -> None: ...
    @property
    def stop_strings(self) -> list[str]:
        """
        Generation ends where one of these appears. Reading gives a copy: assign to change it.
        """
    @stop_strings.setter
    def stop_strings(self, arg0: collections.abc.Sequence[str]) -> None: ...
    @property
    def stop_token_ids(self) -> list[int]:
        """
        Tokens that end generation, besides the model's own. Reading gives a copy: assign to change it.
        """
    @stop_token_ids.setter
    def stop_token_ids(
        self, arg0: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
    ) -> None: ...
    @property
    def temperature(self) -> float:
        """
        0 is greedy: the most probable token, the lowest id among equals. Otherwise logits are divided by it.
        """
    @temperature.setter
    def temperature(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def top_k(self) -> int:
        """
        Keep the k most probable tokens; 0 keeps all.
        """
    @top_k.setter
    def top_k(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def top_p(self) -> float:
        """
        Keep the smallest set of most probable tokens whose probabilities sum to at least this, in (0, 1].
        """
    @top_p.setter
    def top_p(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None: ...

class TokenLogprob:
    """
    A token and its log-probability, natural logarithm.
    """
    def __repr__(self) -> str: ...
    @property
    def logprob(self) -> float:
        """
        log-softmax of the model's logits before penalties and temperature; -inf for a token that the model excludes.
        """
    @property
    def token_id(self) -> int: ...

class PositionLogprobs:
    """
    Log-probabilities at one generated position.
    """
    def __repr__(self) -> str: ...
    @property
    def chosen(self) -> TokenLogprob: ...
    @property
    def top(self) -> list[TokenLogprob]:
        """
        The most probable tokens, most probable first.
        """

class Sampler:
    """
    Draws the tokens of one sequence and remembers what the penalties and the random generator need. One sequence, one sampler, one thread.
    """
    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        banned_before_minimum: collections.abc.Sequence[
            typing.SupportsInt | typing.SupportsIndex
        ] = [],
        answer: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None:
        """
        answer is the index among params.n answers: each draws its own random stream. banned_before_minimum are the ids that may not come while fewer than params.min_new_tokens tokens were generated. Raises ValueError for invalid params or negative ids.
        """
    def sample(self, logits: numpy.typing.NDArray[numpy.float32]) -> tuple:
        """
        Chooses the next token from float32 logits[vocab_size] and records it.

        Returns (token_id, PositionLogprobs or None). Raises ModelError when the logits hold NaN, +infinity or nothing finite that is allowed.
        """

class Tokenizer:
    """
    Text to token ids and back, through the openvino_tokenizer.xml and openvino_detokenizer.xml of a model directory. Thread-safe.
    """
    @typing.overload
    def __init__(
        self, model_dir: os.PathLike | str | bytes, extension: os.PathLike | str | bytes
    ) -> None:
        """
        Args:
            model_dir: directory with openvino_tokenizer.{xml,bin} and openvino_detokenizer.{xml,bin}.
            extension: path of the openvino_tokenizers library.

        The tokenizer is compiled in the background; encode() waits for it.

        Raises:
            ModelError: a file is missing or the detokenizer cannot be used.
            ValueError: there is no file `extension`.
        """
    @typing.overload
    def __init__(self, files: ModelFiles, extension: os.PathLike | str | bytes) -> None:
        """
        The same of a directory that was opened, perhaps an encrypted one.
        """
    def decode(
        self,
        token_ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        skip_special_tokens: bool = True,
    ) -> str:
        """
        Text of `token_ids`. Bytes that form no character become U+FFFD.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
    @typing.overload
    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """
        Token ids of `text`, neither truncated nor padded.

        Args:
            text: a str without lone surrogates.
            add_special_tokens: add what the model wants around a plain prompt (BOS).

        Raises:
            ModelError: the tokenizer cannot be loaded.
            ValueError: `text` has no UTF-8 form.
        """
    @typing.overload
    def encode(self, text: bytes, add_special_tokens: bool = True) -> list[int]:
        """
        The same of UTF-8 bytes; ValueError names the first byte that is none.
        """
    @property
    def eos_token_id(self) -> int | None:
        """
        The end-of-sequence token that the tokenizer names, or None.
        """
    @property
    def vocab_size(self) -> int:
        """
        How many ids decode() knows; logits may be padded to more.
        """

class IncrementalDetokenizer:
    """
    Token ids in, pieces of text out, special tokens skipped. A piece never ends inside a character; the pieces and finish() concatenate to Tokenizer.decode() of all ids. For one thread.
    """
    def __init__(self, tokenizer: Tokenizer) -> None: ...
    def finish(self) -> str:
        """
        What is still held back; U+FFFD for bytes that never became a character. After it, another text may begin.
        """
    def push(self, token_id: typing.SupportsInt | typing.SupportsIndex) -> str:
        """
        Text that became certain with this token; may be empty.

        Raises:
            ValueError: the id is outside the vocabulary.
        """

class StopStrings:
    """
    Finds stop strings in text that arrives in pieces, and holds back whatever could still become one. For one thread.
    """
    def __init__(self, stop_strings: collections.abc.Sequence[str], include: bool = False) -> None:
        """
        Args:
            stop_strings: the strings; none of them empty.
            include: whether the text that is returned includes the one that was found.
        """
    def finish(self) -> str:
        """
        The end of the text: what was held back and is no stop string after all.
        """
    def push(self, piece: str) -> str:
        """
        Takes the next piece and returns the text that may be shown. After a match, nothing.
        """
    @property
    def match(self) -> str:
        """
        The stop string that was found; empty if none.
        """
    @property
    def matched(self) -> bool:
        """
        Whether a stop string was found.
        """

class EngineOptions:
    """
    How a model is loaded and how its engine shares the machine.
    """
    def __init__(self, **kwargs) -> None:
        """
        Takes the attributes as keywords; an unknown one raises TypeError.
        """
    def validate(self) -> None:
        """
        Raises ValueError naming the option, its value and what is allowed.
        """
    @property
    def activation_precision(self) -> str:
        """
        "int8", "int8_g128" (one scale for 128 values instead of 32) or "exact" (f32): of activations in linear layers.
        """
    @activation_precision.setter
    def activation_precision(self, arg0: str) -> None: ...
    @property
    def attention(self) -> str:
        """
        "auto", "ovfast" (keys and values in bf16) or "openvino".
        """
    @attention.setter
    def attention(self, arg0: str) -> None: ...
    @property
    def device(self) -> str:
        """
        OpenVINO device: "CPU", "GPU", "GPU.1", "AUTO", "HETERO:GPU,CPU", ...
        """
    @device.setter
    def device(self, arg0: str) -> None: ...
    @property
    def eos_token_ids(self) -> list[int]:
        """
        Tokens that end an answer.
        """
    @eos_token_ids.setter
    def eos_token_ids(
        self, arg0: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
    ) -> None: ...
    @property
    def gpu_operations(self) -> str:
        """
        On a GPU: "openvino" or "ovfast", whose OpenCL kernels it then uses.
        """
    @gpu_operations.setter
    def gpu_operations(self, arg0: str) -> None: ...
    @property
    def kv_cache_gb(self) -> float:
        """
        Hard bound of the KV cache, GiB; 0 derives it from free memory.
        """
    @kv_cache_gb.setter
    def kv_cache_gb(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def max_batch_tokens(self) -> int:
        """
        Tokens that one step computes at most; also the prefill chunk.
        """
    @max_batch_tokens.setter
    def max_batch_tokens(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def max_context(self) -> int:
        """
        Tokens of context; 0 is bounded by the KV cache alone.
        """
    @max_context.setter
    def max_context(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def max_sequences(self) -> int:
        """
        Sequences that run at once; others wait.
        """
    @max_sequences.setter
    def max_sequences(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def num_threads(self) -> int:
        """
        Compute threads; 0 takes what cgroup quota and affinity allow.
        """
    @num_threads.setter
    def num_threads(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def packed(self) -> str:
        """
        "auto": on packed weights, packed at the first load of a stock directory; "never": on OpenVINO's own operations.
        """
    @packed.setter
    def packed(self, arg0: str) -> None: ...
    @property
    def prefix_caching(self) -> bool:
        """
        Reuse keys and values of earlier prompts that begin alike.
        """
    @prefix_caching.setter
    def prefix_caching(self, arg0: bool) -> None: ...
    @property
    def progress(self) -> None:
        """
        progress(fraction, what), called while a model is packed; it cancels by returning False or raising. Write only.
        """
    @progress.setter
    def progress(self, arg1: typing.Any) -> None: ...
    @property
    def properties(self) -> dict[str, str]:
        """
        Further OpenVINO properties, name to value; unknown ones are refused. Reading gives a copy: assign to change it.
        """
    @properties.setter
    def properties(self, arg0: collections.abc.Mapping[str, str]) -> None: ...
    @property
    def tile_columns(self) -> int:
        """
        Output columns of a linear layer that it takes at a time of a prompt; 0: 512.
        """
    @tile_columns.setter
    def tile_columns(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def tile_kb(self) -> int:
        """
        KiB of packed weights that a thread takes at a time while answering; 0: 64.
        """
    @tile_kb.setter
    def tile_kb(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...

class EngineInfo:
    """
    What came out of the options on this machine.
    """
    @property
    def attention(self) -> str:
        """
        "ovfast" or "openvino".
        """
    @property
    def attention_reason(self) -> str:
        """
        Why attention is not ovfast's; empty otherwise.
        """
    @property
    def compile_seconds(self) -> float: ...
    @property
    def device(self) -> str: ...
    @property
    def execution_devices(self) -> list[str]:
        """
        Where OpenVINO put the model, ['GPU.0']; empty on the CPU.
        """
    @property
    def fused_layers(self) -> int:
        """
        Decoder layers that run as one operation.
        """
    @property
    def gpu_operations(self) -> int:
        """
        Operations of ovfast in the graph on the GPU.
        """
    @property
    def kv_block_tokens(self) -> int:
        """
        Tokens in a KV block.
        """
    @property
    def kv_blocks(self) -> int:
        """
        Blocks in the KV cache.
        """
    @property
    def kv_bytes_per_token(self) -> int: ...
    @property
    def kv_cache_bytes(self) -> int:
        """
        Bound of the KV cache.
        """
    @property
    def kv_cache_reason(self) -> str:
        """
        How the bound was found.
        """
    @property
    def lm_head_rows(self) -> bool:
        """
        Whether logits are computed only for the tokens that are sampled.
        """
    @property
    def max_context(self) -> int:
        """
        Tokens, prompt and answer.
        """
    @property
    def notes(self) -> list[str]:
        """
        What a person should know.
        """
    @property
    def packed(self) -> bool:
        """
        Linear layers run on packed weights.
        """
    @property
    def packed_dir(self) -> pathlib.Path:
        """
        Where those are; empty when they are in memory only, or not packed.
        """
    @property
    def prefix_caching(self) -> bool:
        """
        Whether the model can reuse keys and values of another sequence.
        """
    @property
    def read_seconds(self) -> float:
        """
        Reading and rewriting the model.
        """
    @property
    def threads(self) -> int:
        """
        Compute threads.
        """
    @property
    def unpacked_layers(self) -> int:
        """
        Layers with constant weights that were left as they are.
        """
    @property
    def vocab_size(self) -> int:
        """
        Width of the model's logits.
        """
    @property
    def weights_bytes(self) -> int:
        """
        Of all constants.
        """

class Delta:
    """
    One piece of one answer, as it is generated.
    """
    @property
    def answer(self) -> int:
        """
        Index among the n answers.
        """
    @property
    def finish_reason(self) -> str:
        """
        "running", "stop", "length", "cancelled" or "error".
        """
    @property
    def logprobs(self) -> list[PositionLogprobs]: ...
    @property
    def text(self) -> str: ...
    @property
    def token_ids(self) -> list[int]: ...

class Answer:
    """
    One whole answer.
    """
    @property
    def finish_reason(self) -> str: ...
    @property
    def logprobs(self) -> list[PositionLogprobs]: ...
    @property
    def stop_string(self) -> str:
        """
        Which one ended it; "" if none.
        """
    @property
    def text(self) -> str: ...
    @property
    def token_ids(self) -> list[int]:
        """
        The stop token included.
        """

class RequestMetrics:
    """
    Times of a request, seconds.
    """
    @property
    def cached_tokens(self) -> int:
        """
        Of the prompt, found in the prefix cache.
        """
    @property
    def generated_tokens(self) -> int:
        """
        All answers together.
        """
    @property
    def infer_seconds(self) -> float:
        """
        Inside the model while this request took part.
        """
    @property
    def inter_token_seconds(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        float32 [tokens - answers]: time from each token to the next, answer by answer.
        """
    @property
    def preemptions(self) -> int:
        """
        Times that an answer gave its KV memory back and was computed again.
        """
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def queue_seconds(self) -> float:
        """
        Submitted to first scheduled.
        """
    @property
    def steps(self) -> int:
        """
        Steps that it took part in.
        """
    @property
    def total_seconds(self) -> float:
        """
        Submitted to last token.
        """
    @property
    def ttft_seconds(self) -> float:
        """
        Submitted to first token.
        """

class Request:
    """
    A submitted request. Dropping it cancels it. Thread-safe.
    """
    def cancel(self) -> None:
        """
        Ends the request at the next step; what was generated stays readable.
        """
    def next(
        self, timeout: typing.SupportsFloat | typing.SupportsIndex | None = None
    ) -> list[Delta]:
        """
        The next pieces, in order. Empty when `timeout` seconds pass first, and when all were handed out. Raises what ended the request, if it failed.
        """
    def wait(self, timeout: typing.SupportsFloat | typing.SupportsIndex | None = None) -> bool:
        """
        Waits for the end. False when `timeout` seconds pass first. Raises as next().
        """
    @property
    def answers(self) -> list[Answer]:
        """
        Valid once the request ended.
        """
    @property
    def done(self) -> bool:
        """
        All pieces were handed out.
        """
    @property
    def metrics(self) -> RequestMetrics:
        """
        Valid once the request ended.
        """

class NodeTime:
    """
    Time of one operation of the compiled model.
    """
    @property
    def name(self) -> str: ...
    @property
    def seconds(self) -> float:
        """
        Over all steps in which it ran.
        """
    @property
    def steps(self) -> int:
        """
        In which it ran.
        """
    @property
    def type(self) -> str:
        """
        What the plugin runs.
        """

class Engine:
    """
    Runs requests on one model with continuous batching. Thread-safe.
    """
    @typing.overload
    def __init__(
        self,
        model_dir: os.PathLike | str | bytes,
        tokenizer: Tokenizer,
        options: EngineOptions = ...,
    ) -> None:
        """
        Loads and compiles the model. Raises ModelError, CapacityError, ValueError.
        """
    @typing.overload
    def __init__(
        self, files: ModelFiles, tokenizer: Tokenizer, options: EngineOptions = ...
    ) -> None:
        """
        The same of a directory that was opened, perhaps an encrypted one.
        """
    def submit(
        self,
        prompt_ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        params: SamplingParams,
    ) -> Request:
        """
        Queues a request of int64 token ids. Raises ValueError or CapacityError.
        """
    def take_node_times(self) -> list[NodeTime]:
        """
        Where the time of the steps since the last call went; empty unless the property PERF_COUNT is YES.
        """
    @property
    def info(self) -> EngineInfo: ...

def check_kernel_files(folder: os.PathLike | str | bytes) -> None:
    """
    Compares the OpenCL kernels in a folder, and their XML, with those that ovfast was built with. Raises ModelError that names a file that is missing or another one.
    """

def decrypt_directory(
    model_dir: os.PathLike | str | bytes,
    out_dir: os.PathLike | str | bytes,
    key: Key,
    *,
    replace: bool = False,
    progress: typing.Any = None,
) -> EncryptedContents:
    """
    The opposite. Raises DecryptionError, ModelError, ValueError or Error.
    """

def encrypt_directory(
    model_dir: os.PathLike | str | bytes,
    out_dir: os.PathLike | str | bytes,
    key: Key,
    *,
    chunk_bytes: typing.SupportsInt | typing.SupportsIndex = 1048576,
    replace: bool = False,
    progress: typing.Any = None,
) -> EncryptedContents:
    """
    Encrypts every file of a directory into a new one, which appears whole or not at all. Raises ModelError, ValueError or Error.
    """

def import_gguf(
    path: os.PathLike | str | bytes,
    out_dir: os.PathLike | str | bytes,
    progress: typing.Any = None,
    *,
    packed: bool = True,
) -> PackReport:
    """
    Converts a GGUF file to openvino_model.xml and .bin in the existing directory out_dir.

    packed: on packed weights, where they can be packed; without, other programs can run it. progress(fraction, what) is called now and then with a fraction in [0, 1]; it cancels by returning False or raising. Raises ModelError (bad file, unsupported architecture or type) or Error (cancelled, disk full). Partial files are left to the caller.
    """

@typing.overload
def inspect_packing(
    model_dir: os.PathLike | str | bytes, progress: typing.Any = None
) -> PackReport:
    """
    What a directory's packing did, or, for a stock one, would do, with nothing written.

    Reads and checks all of a packed directory. Raises ModelError when it is damaged.
    """

@typing.overload
def inspect_packing(files: ModelFiles, progress: typing.Any = None) -> PackReport:
    """
    The same of a directory that was opened, perhaps an encrypted one.
    """

def is_encrypted(model_dir: os.PathLike | str | bytes) -> bool:
    """
    Whether a directory holds an encrypted model, damaged or not.
    """

def is_packed(model_dir: os.PathLike | str | bytes) -> bool:
    """
    Whether a directory holds a packed model, damaged or not.
    """

def kernel_calls() -> list[tuple[str, int]]:
    """
    (name, calls) of each kernel in this process: which path was taken.
    """

def key_file_warning(file: os.PathLike | str | bytes) -> str:
    """
    Who may read a key file besides its owner; empty when nobody may.
    """

def list_directory(model_dir: os.PathLike | str | bytes, key: Key) -> EncryptedContents:
    """
    What there is, from the authenticated manifest alone. Raises DecryptionError.
    """

def looks_like_ir(text: FileBytes) -> bool:
    """
    Whether bytes are the text of an IR, as far as a look at it tells.
    """

def open_directory(model_dir: os.PathLike | str | bytes, key: Key) -> ModelFiles:
    """
    The files of an encrypted directory, decrypted when they are asked for. Raises DecryptionError or ModelError.
    """

def openvino_built_version() -> str:
    """
    OpenVINO version that ovfast was compiled against, e.g. '2026.4.1'.
    """

def openvino_loaded_version() -> str:
    """
    Version of the OpenVINO library that is loaded, with its build number.
    """

def operation_names() -> list[str]:
    """
    Types of all operations in libovfast_ops.so: 'FullyConnected', 'SwiGLU', ...
    """

def pack_for_loading(
    model_dir: os.PathLike | str | bytes, progress: typing.Any = None, *, again: bool = False
) -> PackReport:
    """
    Packs a stock directory where Engine looks for it: beside the model, else in the cache.

    Does nothing when a packing of this very model is there, unless again. Raises as pack_model(), and Error when there is no place that can be written to.
    """

def pack_model(
    model_dir: os.PathLike | str | bytes,
    out_dir: os.PathLike | str | bytes,
    progress: typing.Any = None,
) -> PackReport:
    """
    Packs the model of a stock directory into the existing directory out_dir.

    Writes openvino_model.xml, .bin and .packed, and nothing when nothing packs. progress(fraction, what) cancels by returning False or raising. Raises ModelError, ValueError (packed already) or Error (cancelled, disk full). Partial files are left to the caller.
    """

def pack_weights(
    codes: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8],
    scales: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    zero_points: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8] | None = None,
    bits: typing.SupportsInt | typing.SupportsIndex = 4,
) -> numpy.typing.NDArray[numpy.uint8]:
    """
    Packs a quantized matrix for ovfast's operations; u8 [bytes].

    codes u8 [rows, columns] below 2^bits; scales f32 [rows, groups]; zero_points u8 [rows, groups], 2^(bits-1) without them. A weight is scale * (code - zero_point). bits: 4, 5, 6 or 8. Raises ValueError for shapes, groups and codes that do not fit.
    """

def protect_memory(buffer: typing_extensions.Buffer) -> None:
    """
    Leaves a buffer out of core dumps and locks it against swap where the limits allow it.
    """

def read_bandwidth(
    threads: typing.SupportsInt | typing.SupportsIndex = 0,
    megabytes: typing.SupportsInt | typing.SupportsIndex = 1024,
) -> float:
    """
    Bytes a second that the threads read together, front to back; 0 threads: as many as
    we compute with. Takes some 0.3 s.
    """

def read_gguf_header(path: os.PathLike | str | bytes, *, with_arrays: bool = False) -> GgufHeader:
    """
    Reads and checks a GGUF file's header without touching the weights.

    with_arrays keeps array metadata (the vocabulary) too. Raises ModelError that says what is wrong with the file and where.
    """

def read_host_limits(root: str = "") -> HostLimits:
    """
    Reads the limits anew: affinity, cgroup v1, v2 and hybrid, nested groups included.

    root stands in for '/' in tests. Raises Error when a file of the kernel cannot be understood.
    """

def read_process_memory() -> ProcessMemory:
    """
    Memory of this process now. Raises Error when /proc/self/status lacks a field.
    """

def rekey(model_dir: os.PathLike | str | bytes, old_key: Key, new_key: Key) -> None:
    """
    Wraps the model's data key anew; files with data stay as they are.
    """

def supported_isas() -> list[str]:
    """
    Instruction sets that kernels exist for and this machine can run: 'scalar', 'avx2', 'avx_vnni', 'avx512_vnni', 'amx'. OVFAST_FORCE_ISA names one of them.
    """

def unpack_weights(
    packed: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8],
) -> numpy.typing.NDArray[numpy.float32]:
    """
    The matrix that packed bytes hold, f32 [rows, columns]. Raises ValueError when they are damaged or no packed weights.
    """

def verify_directory(
    model_dir: os.PathLike | str | bytes, key: Key, progress: typing.Any = None
) -> EncryptedContents:
    """
    Decrypts everything and keeps nothing. Raises DecryptionError.
    """

def version() -> str:
    """
    Version of ovfast.
    """

def wipe_freed_memory() -> None:
    """
    From now on the C library overwrites heap memory that is freed, in this process.
    """
