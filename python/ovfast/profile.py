"""Where the time of a step goes: operation by operation, against what memory allows."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovfast import _core
from ovfast.crypto import Key, open_files
from ovfast.errors import CapacityError
from ovfast.llm import LLM

if TYPE_CHECKING:
    from ovfast._core import NodeTime, PackedLayer

__all__ = [
    "ATTENTION",
    "OTHER",
    "Line",
    "Phase",
    "Profile",
    "format_profile",
    "profile_dict",
    "profile_model",
    "summarize",
]

ATTENTION, OTHER = "attention", "other"
_PREFILL_TOKENS, _PROMPT_TOKENS, _DECODE_STEPS = 256, 64, 32
_PREFILL_STEPS = 3
_BANDWIDTH_MB = 512
_IN_BLOCK = re.compile(r"(?:^|[._])(?:blk|layers)\.\d+\.([^/]+)")
_NUMBERED = re.compile(r"^[A-Za-z]+_\d+_")


@dataclass(frozen=True)
class Line:
    """Operations of one kind, one a block of the model."""

    operation: str
    """"QKV", "GatedMLP", ... of a packed layer; "attention"; "other" for everything else."""
    name: str
    """Its name within a block of the model, "ffn_out", or outside of blocks; may be empty."""
    layers: list[str]
    """Names of the operations in the model."""
    seconds: float
    """In one step, all of them together."""
    bytes: int | None
    """Weights that a step reads; None for what reads no matrix as a whole. An LMHead that need not
    give all logits reads half of that and a little."""

    def bandwidth(self) -> float | None:
        """Return bytes a second, at most; None without bytes or time."""
        return self.bytes / self.seconds if self.bytes and self.seconds else None


@dataclass(frozen=True)
class Phase:
    """Steps of one kind: decoding, or prefill."""

    tokens: int
    """Of one step."""
    steps: int
    """That were measured."""
    step_seconds: float
    """From step to step as the caller sees it: TPOT when decoding."""
    infer_seconds: float
    """Of it, inside the compiled model."""
    lines: list[Line]
    """The slowest first, then attention, then everything else."""

    @property
    def operations_seconds(self) -> float:
        """Of a step, in the operations themselves."""
        return sum(line.seconds for line in self.lines)


@dataclass(frozen=True)
class Profile:
    """Where the time of a model goes on this machine."""

    threads: int
    attention: str
    """"ovfast" or "openvino"."""
    read_bandwidth: float
    """Bytes a second that the threads read, measured just before."""
    decode: Phase
    prefill: Phase


def profile_model(
    model_dir: str | Path, *, progress: bool = True, key: Key | None = None
) -> Profile:
    """Run a model and measure its operations: decoding after 64 tokens, and a prompt of 256.

    The plugin takes the times, of operations that are not fused into one for all layers; that makes
    a step slower than it is otherwise. A stock directory is packed as when it is loaded.

    `key` opens an encrypted directory.

    Raises:
        ModelError: The directory holds no usable model.
        CapacityError: The model's context is too short.
    """
    layers = _core.inspect_packing(open_files(model_dir, key)).layers
    properties = {"PERF_COUNT": True}
    with LLM(model_dir, properties=properties, progress=progress, key=key) as llm:
        threads = llm.info.threads
        bandwidth = _core.read_bandwidth(threads, _BANDWIDTH_MB)
        return Profile(
            threads=threads,
            attention=llm.info.attention,
            read_bandwidth=bandwidth,
            decode=_decode(llm, layers),
            prefill=_prefill(llm, layers),
        )


def _decode(llm: LLM, layers: Sequence[PackedLayer]) -> Phase:
    # One token more than whole blocks, so that all but one come from the prefix cache and the first
    # step is one like the others.
    block = llm.info.kv_block_tokens
    cached = -(-_PROMPT_TOKENS // block) * block
    prompt = _prompt(llm, cached + 1, _DECODE_STEPS)
    _run(llm, prompt, 4)
    _take_times(llm)
    generation = _run(llm, prompt, _DECODE_STEPS)
    metrics = generation.metrics
    if metrics.cached_tokens != cached:
        raise CapacityError(f"the KV cache does not keep a prompt of {cached} tokens")
    times = _take_times(llm)
    return Phase(
        tokens=1,
        steps=metrics.steps,
        step_seconds=float(metrics.inter_token_seconds.mean()),
        infer_seconds=metrics.infer_seconds / metrics.steps,
        lines=summarize(times, layers, metrics.steps),
    )


def _prefill(llm: LLM, layers: Sequence[PackedLayer]) -> Phase:
    prompts = [_prompt(llm, _PREFILL_TOKENS, 1) for _ in range(_PREFILL_STEPS + 1)]
    for step, prompt in enumerate(prompts):
        prompt[0] = step  # so that nothing of it lies in the prefix cache
    _run(llm, prompts.pop(), 1)
    _take_times(llm)
    metrics = [_run(llm, prompt, 1).metrics for prompt in prompts]
    times = _take_times(llm)
    return Phase(
        tokens=_PREFILL_TOKENS,
        steps=len(metrics),
        step_seconds=sum(one.total_seconds for one in metrics) / len(metrics),
        infer_seconds=sum(one.infer_seconds for one in metrics) / len(metrics),
        lines=summarize(times, layers, len(metrics)),
    )


def _prompt(llm: LLM, tokens: int, answer: int) -> list[int]:
    if tokens + answer > llm.info.max_context:
        raise CapacityError(
            f"a profile takes {tokens + answer} tokens of context, but the model has "
            f"{llm.info.max_context}"
        )
    numbers = random.Random(tokens)
    return [numbers.randrange(llm.tokenizer.vocab_size) for _ in range(tokens)]


def _take_times(llm: LLM) -> list[NodeTime]:
    return llm._running_engine().take_node_times()


def _run(llm: LLM, prompt: list[int], tokens: int) -> Any:
    return llm.generate(prompt, max_new_tokens=tokens, temperature=0.0, ignore_eos=True)


def summarize(times: Iterable[NodeTime], layers: Iterable[PackedLayer], steps: int) -> list[Line]:
    """Join what operations took in `steps` steps with the packed layers that they are."""
    kinds: dict[str, tuple[str, str]] = {}
    sizes: dict[str, int] = {}
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for layer in layers:
        if not layer.operation:
            continue
        kind = layer.operation, _within_block(layer.name)
        kinds[layer.name] = kind
        members[kind].append(layer.name)
        if layer.operation != "Embedding":  # which reads a row for each token
            sizes[layer.name] = layer.packed_bytes
    for time in times:
        kind = kinds.get(time.name) or _kind_of_other(time.name)
        seconds[kind] += time.seconds / steps
        if time.name not in kinds:
            members[kind].append(time.name)
    lines = [
        Line(
            operation,
            name,
            names,
            seconds[operation, name],
            sum(sizes.get(layer, 0) for layer in names) or None,
        )
        for (operation, name), names in members.items()
    ]
    last = (ATTENTION, OTHER)
    return sorted(
        lines,
        key=lambda line: (
            last.index(line.operation) if line.operation in last else -1,
            -line.seconds,
        ),
    )


def _within_block(name: str) -> str:
    found = _IN_BLOCK.search(name)
    return found[1] if found else _NUMBERED.sub("", name)


def _kind_of_other(name: str) -> tuple[str, str]:
    # What the plugin puts before and behind attention, such as conversions, bears its name too.
    return (ATTENTION if name.startswith("PagedAttention") else OTHER), ""


def profile_dict(profile: Profile) -> dict[str, Any]:
    """Make a dictionary for JSON: the fields of `Profile`, and for each phase the sum."""
    result = asdict(profile)
    for name, phase in (("decode", profile.decode), ("prefill", profile.prefill)):
        result[name]["operations_seconds"] = phase.operations_seconds
    return result


def format_profile(profile: Profile) -> str:
    """Make tables for people."""
    decode, prefill = profile.decode, profile.prefill
    title = (
        f"Decoding, 1 token a step, {profile.threads} threads, attention of {profile.attention}; "
        f"memory reads at {profile.read_bandwidth / 1e9:.1f} GB/s:"
    )
    return "\n".join(
        [
            title,
            *_table(decode, profile.read_bandwidth),
            "",
            f"Prefill, {prefill.tokens} tokens a step:",
            *_table(prefill, None),
        ]
    )


def _table(phase: Phase, read_bandwidth: float | None) -> list[str]:
    head = ["operation", "layer", "count", "ms", "share"]
    rows = [head + (["MB read", "GB/s", "of memory"] if read_bandwidth else [])]
    total = phase.step_seconds
    screened = any(line.operation == "LMHead" for line in phase.lines)

    def row(line: Line, count: str, up_to: bool = False) -> list[str]:
        cells = [line.operation, line.name, count, f"{line.seconds * 1e3:.2f}"]
        cells.append(f"{line.seconds / total:.1%}")
        rate = line.bandwidth()
        if not read_bandwidth:
            return cells
        if not line.bytes or not rate:
            return [*cells, "", "", ""]
        # An LMHead reads the second half of its bits only for what may be the largest.
        most = "up to " if up_to else ""
        figures = f"{line.bytes / 1e6:.1f}", f"{rate / 1e9:.1f}", f"{rate / read_bandwidth:.0%}"
        return [*cells, *(most + figure for figure in figures)]

    rows += [row(line, str(len(line.layers)), line.operation == "LMHead") for line in phase.lines]
    sizes = sum(line.bytes or 0 for line in phase.lines) or None
    rows.append(row(Line("all operations", "", [], phase.operations_seconds, sizes), "", screened))
    rows.append(row(Line("between them", "", [], _between(phase), None), ""))
    rows.append(row(Line("the engine", "", [], total - phase.infer_seconds, None), ""))
    rows.append(row(Line("a step", "", [], total, sizes), "", screened))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    texts = 2  # columns, which begin on the left
    return [
        "  ".join(
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _between(phase: Phase) -> float:
    return phase.infer_seconds - phase.operations_seconds
