"""The engines that are compared, behind one interface.

Every engine runs with its own defaults, on the same model, from the same token ids, greedily, and
generates exactly as many tokens as it is asked for. A peer's package is imported when the peer is
loaded, so that a missing one costs nothing but its column.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

# The longest prompt that is measured, and its answer.
_LONGEST_CONTEXT = 8192 + 128


class PeerUnavailableError(Exception):
    """A peer that cannot run here; the message says why."""


@dataclass(frozen=True)
class Target:
    """One model in the forms that engines take."""

    name: str
    model_dir: Path
    """A stock directory, which every engine on OpenVINO can run."""
    gguf: Path | None = None
    """The file that it was made from."""
    packed_dir: Path | None = None
    """The same, packed: what ovfast runs. Without one it packs the stock directory itself."""


@dataclass(frozen=True)
class Run:
    """One answer and its times in seconds, tokenizing not included."""

    token_ids: list[int]
    ttft_seconds: float
    inter_token_seconds: npt.NDArray[np.float64]
    overhead_seconds: float | None = None
    """Per step, outside of the model's infer(); None where the engine does not tell."""
    infer_seconds: float | None = None
    """Per step, inside of it."""
    cached_tokens: int | None = None
    """Of the prompt, found in a prefix cache."""


class Peer(ABC):
    """A loaded engine. Loading is the constructor's work."""

    name: str
    batches = False
    """Whether the engine computes several requests at once; the others queue them."""

    @abstractmethod
    def __init__(self, target: Target) -> None: ...

    @abstractmethod
    def _generate(self, prompt: Sequence[int], new_tokens: int) -> Run: ...

    def weights_bytes(self) -> int | None:
        """Bytes of the weights that the engine reads from its files; None if it does not tell."""
        return None

    def generate(self, prompt: Sequence[int], new_tokens: int) -> Run:
        """Answer `prompt` with `new_tokens` tokens, alone on the machine."""
        started = time.perf_counter()
        run = self._generate(prompt, new_tokens)
        wall = time.perf_counter() - started
        assert len(run.token_ids) == new_tokens, f"{self.name}: {len(run.token_ids)} tokens"
        assert len(run.inter_token_seconds) == new_tokens - 1, self.name
        # Engines report their own times in units of their own choice: hold them against the clock.
        told = run.ttft_seconds + float(run.inter_token_seconds.sum())
        assert abs(wall - told) < 0.1 + 0.25 * wall, f"{self.name}: told {told} s, took {wall} s"
        return run

    def generate_together(
        self, prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> tuple[list[list[int]], float]:
        """Answer all prompts at once: the answers, and seconds from the first to the last token."""
        raise NotImplementedError(f"{self.name} runs one request at a time")

    def close(self) -> None:
        """Give the memory back."""
        self.__dict__.clear()


class Ovfast(Peer):
    name = "ovfast"
    batches = True

    def __init__(self, target: Target) -> None:
        import ovfast

        self._llm = ovfast.LLM(str(target.packed_dir or target.model_dir), progress=False)

    def weights_bytes(self) -> int | None:
        return int(self._llm.info.weights_bytes)

    def _generate(self, prompt: Sequence[int], new_tokens: int) -> Run:
        answer = self._llm.generate(prompt, **self._options(new_tokens))
        metrics = answer.metrics
        computing = metrics.total_seconds - metrics.queue_seconds
        return Run(
            token_ids=list(answer.token_ids),
            ttft_seconds=metrics.ttft_seconds,
            inter_token_seconds=np.asarray(metrics.inter_token_seconds, dtype=np.float64),
            overhead_seconds=(computing - metrics.infer_seconds) / metrics.steps,
            infer_seconds=metrics.infer_seconds / metrics.steps,
            cached_tokens=metrics.cached_tokens,
        )

    def generate_together(
        self, prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> tuple[list[list[int]], float]:
        options = self._options(new_tokens)
        started = time.perf_counter()
        streams = [self._llm.stream(prompt, **options) for prompt in prompts]
        answers = [list(stream.result.token_ids) for stream in streams]
        return answers, time.perf_counter() - started

    @staticmethod
    def _options(new_tokens: int) -> dict[str, object]:
        # Said in full: the directory's own generation config may sample and add penalties.
        return {
            "max_new_tokens": new_tokens,
            "ignore_eos": True,
            "temperature": 0.0,
            "top_k": 0,
            "top_p": 1.0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }

    def close(self) -> None:
        self._llm.close()
        super().close()


class OvfastStock(Ovfast):
    """The same engine on OpenVINO's own operations."""

    name = "ovfast-stock"

    def __init__(self, target: Target) -> None:
        import ovfast

        self._llm = ovfast.LLM(str(target.model_dir), progress=False, packed="never")


class PythonPath(Peer):
    """ovfast's plain Python path with the plugin's default precisions."""

    name = "python"

    def __init__(self, target: Target) -> None:
        from ovfast.reference import ReferenceLLM

        self._llm = ReferenceLLM(target.model_dir, exact=False)

    def _generate(self, prompt: Sequence[int], new_tokens: int) -> Run:
        result = self._llm.generate(prompt, new_tokens)
        return Run(
            token_ids=result.token_ids,
            ttft_seconds=result.ttft_seconds,
            inter_token_seconds=result.inter_token_seconds.astype(np.float64),
        )


class GenAI(Peer):
    """OpenVINO GenAI's LLMPipeline."""

    name = "genai"

    def __init__(self, target: Target) -> None:
        self._config = _genai_config()
        import openvino_genai

        try:
            self._pipeline = openvino_genai.LLMPipeline(str(target.model_dir), "CPU")
        except RuntimeError as error:
            raise PeerUnavailableError(f"LLMPipeline refuses the directory: {error}") from error

    def _generate(self, prompt: Sequence[int], new_tokens: int) -> Run:
        import openvino as ov
        import openvino_genai

        self._config.max_new_tokens = new_tokens
        ids = np.array([prompt], dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))
        result = self._pipeline.generate(inputs, self._config)
        raw = result.perf_metrics.raw_metrics  # microseconds
        return Run(
            token_ids=list(result.tokens[0]),
            ttft_seconds=raw.m_times_to_first_token[0] * 1e-6,
            inter_token_seconds=np.array(raw.m_durations, dtype=np.float64) * 1e-6,
        )


class GenAIContinuousBatching(Peer):
    """OpenVINO GenAI's ContinuousBatchingPipeline with its default scheduler."""

    name = "genai-cb"
    batches = True

    def __init__(self, target: Target) -> None:
        self._config = _genai_config()
        import openvino_genai

        try:
            self._pipeline = openvino_genai.ContinuousBatchingPipeline(
                str(target.model_dir), openvino_genai.SchedulerConfig(), "CPU"
            )
        except RuntimeError as error:
            raise PeerUnavailableError(
                f"ContinuousBatchingPipeline refuses the directory: {error}"
            ) from error

    def _generate(self, prompt: Sequence[int], new_tokens: int) -> Run:
        result = self._submit([prompt], new_tokens)[0]
        raw = result.perf_metrics.raw_metrics
        return Run(
            token_ids=list(result.m_generation_ids[0]),
            ttft_seconds=raw.m_times_to_first_token[0] * 1e-6,
            inter_token_seconds=np.array(raw.m_durations, dtype=np.float64) * 1e-6,
        )

    def generate_together(
        self, prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> tuple[list[list[int]], float]:
        started = time.perf_counter()
        results = self._submit(prompts, new_tokens)
        seconds = time.perf_counter() - started
        return [list(result.m_generation_ids[0]) for result in results], seconds

    def _submit(self, prompts: Sequence[Sequence[int]], new_tokens: int):
        import openvino as ov

        self._config.max_new_tokens = new_tokens
        ids = [ov.Tensor(np.array([prompt], dtype=np.int64)) for prompt in prompts]
        return self._pipeline.generate(ids, [self._config] * len(ids))


class LlamaCpp(Peer):
    """llama.cpp through llama-cpp-python, on the GGUF file itself."""

    name = "llama.cpp"

    def __init__(self, target: Target) -> None:
        if target.gguf is None:
            raise PeerUnavailableError("no GGUF file is known for this model")
        try:
            import llama_cpp
        except ImportError as error:
            raise PeerUnavailableError("pip install 'ovfast[llamacpp]' (it compiles)") from error

        self._llm = llama_cpp.Llama(
            str(target.gguf),
            n_ctx=_LONGEST_CONTEXT,
            # Its default is half the processors, which would not be the same race.
            n_threads=len(os.sched_getaffinity(0)),
            verbose=False,
        )

    def _generate(self, prompt: Sequence[int], new_tokens: int) -> Run:
        self._llm.reset()  # forgets the prompt before, whose prefix it would use again
        times = [time.perf_counter()]
        token_ids: list[int] = []
        for token in self._llm.generate(prompt, temp=0.0, repeat_penalty=1.0):
            times.append(time.perf_counter())
            token_ids.append(int(token))
            if len(token_ids) == new_tokens:
                break
        durations = np.diff(times)
        return Run(token_ids, float(durations[0]), durations[1:])

    def close(self) -> None:
        self._llm.close()
        super().close()


PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (Ovfast, OvfastStock, PythonPath, GenAI, GenAIContinuousBatching, LlamaCpp)
}

OUR_OWN = (Ovfast.name, OvfastStock.name, PythonPath.name)


def load_peer(name: str, target: Target) -> Peer:
    """Load the peer called `name`; PeerUnavailableError when it cannot run here."""
    return PEERS[name](target)


def _genai_config():
    """A greedy config that says everything itself: the directory's own may add penalties."""
    try:
        import openvino_genai
    except ImportError as error:
        raise PeerUnavailableError("pip install 'ovfast[peers]'") from error

    config = openvino_genai.GenerationConfig()
    config.do_sample = False
    config.ignore_eos = True
    return config
