"""A model directory as lm-evaluation-harness wants a model; import it where that is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from ovfast import _core
from ovfast._openvino import tokenizers_extension
from ovfast.errors import ModelError
from ovfast.evaluate.logits import PositionLogits
from ovfast.evaluate.metrics import log_softmax
from ovfast.llm import LLM
from ovfast.model_dir import ModelDir

__all__ = ["OvfastLM"]

_NEW_TOKENS = 256  # the harness's own default where a task does not say
_CONTEXT = 4096  # where the model does not say
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
_KNOWN = {"until", "max_gen_toks", "do_sample", *_SAMPLING}


class OvfastLM(TemplateLM):  # type: ignore[misc]
    """An `lm_eval.api.model.LM` over a model directory.

    Log-likelihoods come from the logits of all positions (`PositionLogits`), answers from
    `ovfast.LLM`; each is loaded when a task first asks for it. Leaving a `with` block closes them.
    """

    def __init__(self, model_dir: Path | ModelDir, *, progress: bool = True) -> None:
        """Load the tokenizer; `progress` shows bars."""
        super().__init__()
        self._model_dir = ModelDir.check(model_dir)
        self._progress = progress
        self._tokenizer = _core.Tokenizer(self._model_dir.files, tokenizers_extension())
        self._logits: PositionLogits | None = None
        self._llm: LLM | None = None
        self.max_length = self._model_dir.context_length or _CONTEXT

    def __enter__(self) -> OvfastLM:
        return self

    def __exit__(self, *_: object) -> None:
        if self._llm is not None:
            self._llm.close()
        self._llm = self._logits = None

    @property
    def eot_token_id(self) -> int:
        """The token that ends an answer."""
        token = next(iter(self._model_dir.eos_token_ids), self._tokenizer.eos_token_id)
        if token is None:
            raise ModelError(f"'{self._model_dir.path}' names no end-of-sequence token")
        return token

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context: BOS, or else the end of another text."""
        begin = self._model_dir.bos_token_id
        return self.eot_token_id if begin is None else begin

    @property
    def tokenizer_name(self) -> str:
        """For the keys of the harness's cache."""
        return str(self._model_dir.path)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The source of the model's template, if one is wanted."""
        return self._model_dir.load_chat_template().source if chat_template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render a chat."""
        template = self._model_dir.load_chat_template()
        return template.render(chat_history, add_generation_prompt=add_generation_prompt)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Token ids of a text."""
        # None: what the model wants, as in `LLM.generate`.
        return self._tokenizer.encode(string, add_special_tokens=add_special_tokens is not False)

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        if self._logits is None:
            self._logits = PositionLogits(self._model_dir)
        results = []
        for texts, context, continuation in tqdm(
            requests, desc="log-likelihoods", disable=disable_tqdm or not self._progress
        ):
            # The last token is predicted, not given; what does not fit is cut off in front.
            ids = [*context, *continuation][-self.max_length - 1 :]
            scored = min(len(continuation), len(ids) - 1)
            result = _score(self._logits, ids, scored)
            results.append(result)
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, result)
        return results

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, each token predicted once."""
        results = []
        for request in requests:
            (string,) = request.args
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(string, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            total = sum(one for one, _ in self._loglikelihood_tokens(pairs, disable_tqdm))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
            results.append(total)
        return results

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers, computed together."""
        if self._llm is None:
            self._llm = LLM(self._model_dir.path, progress=self._progress)
        llm = self._llm
        streams = [
            llm.stream(context, **_generation_options(given))
            for context, given in (request.args for request in requests)
        ]
        results = []
        hidden = disable_tqdm or not self._progress
        for request, stream in zip(requests, tqdm(streams, "answers", disable=hidden), strict=True):
            results.append(stream.result.text)
            self.cache_hook.add_partial("generate_until", request.args, results[-1])
        return results


def _score(model: PositionLogits, ids: Sequence[int], scored: int) -> tuple[float, bool]:
    """Log-probability of the last `scored` of `ids`, and whether each was the most probable."""
    following = np.array(ids[1:])
    begin = len(following) - scored
    total, greedy = 0.0, True
    for first, rows in model.chunks(ids[:-1]):
        part = slice(max(0, begin - first), None)
        tokens = following[first : first + len(rows)][part]
        if len(tokens):
            mine = rows[part]
            total += float(log_softmax(mine)[np.arange(len(tokens)), tokens].sum())
            greedy = greedy and bool((mine.argmax(1) == tokens).all())
    return total, greedy


def _generation_options(given: dict[str, Any]) -> dict[str, Any]:
    """Options of `LLM.stream` for the harness's generation_kwargs."""
    unknown = sorted(set(given) - _KNOWN)
    if unknown:
        raise ValueError(
            f"generation_kwargs that ovfast does not know: {', '.join(unknown)}; it knows "
            f"{', '.join(sorted(_KNOWN))}"
        )
    until = given.get("until") or []
    options = {name: given[name] for name in _SAMPLING if given.get(name) is not None}
    if not given.get("do_sample", options.get("temperature", 0) > 0):
        options["temperature"] = 0.0
    return {
        "temperature": 0.0,
        "repetition_penalty": 1.0,
        **options,
        "max_new_tokens": given.get("max_gen_toks") or _NEW_TOKENS,
        "stop_strings": [until] if isinstance(until, str) else list(until),
    }
