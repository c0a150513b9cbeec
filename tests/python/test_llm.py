"""LLM as Python sees it: types of arguments, defaults of the model, streams as contexts."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovfast
from ovfast.chat_template import ChatTemplate
from ovfast.generation_config import sampling_params


@pytest.fixture(scope="module")
def llm(tiny_model_dirs: dict[str, Path]) -> Iterator[ovfast.LLM]:
    with ovfast.LLM(tiny_model_dirs["llama"], kv_cache_gb=0.05) as llm:
        yield llm


# --- arguments


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        (b"abc", "prompt: expected str, token ids or a list of str, got bytes"),
        (5, "prompt: expected str, token ids or a list of str, got int"),
        (None, "prompt: expected str, token ids or a list of str, got NoneType"),
        (("a", "b"), "prompt: expected str, token ids or a list of str, got tuple of str"),
        ({1: 2}, "prompt: expected str, token ids or a list of str, got dict"),
        ({1, 2}, "prompt: expected str, token ids or a list of str, got set"),
        ([1.5], "prompt[0]: expected a token id (int), got float"),
        ([5, True], "prompt[1]: expected a token id (int), got bool"),
        ([5, "a"], "prompt[1]: expected a token id (int), got str"),
        (["a", 5], "prompt[1]: expected str, got int"),
        (np.array([1.0]), "prompt[0]: expected a token id (int), got float64"),
    ],
)
def test_prompts_of_other_types_are_refused(llm: ovfast.LLM, prompt: Any, problem: str) -> None:
    with pytest.raises(TypeError) as info:
        llm.generate(prompt, max_new_tokens=1)
    assert str(info.value) == problem


def test_a_stream_takes_one_prompt(llm: ovfast.LLM) -> None:
    with pytest.raises(TypeError, match="prompt: expected str or token ids, got list of str"):
        llm.stream(["a", "b"])  # type: ignore[arg-type]


@pytest.mark.parametrize("prompt", [[], "", ["a", ""], [2**70], [-1]])
def test_prompts_out_of_range_are_refused(llm: ovfast.LLM, prompt: Any) -> None:
    with pytest.raises(ValueError, match="prompt"):
        llm.generate(prompt, max_new_tokens=1)


def test_token_ids_may_come_from_numpy(llm: ovfast.LLM) -> None:
    options: dict[str, Any] = {"max_new_tokens": 4, "ignore_eos": True}
    expected = llm.generate([5, 6, 7], **options).token_ids
    for prompt in ((5, 6, 7), np.array([5, 6, 7]), [np.int32(5), 6, 7], range(5, 8)):
        assert llm.generate(prompt, **options).token_ids == expected  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_context": True}, "max_context: expected int or None, got bool"),
        ({"kv_cache_gb": "1"}, "kv_cache_gb: expected float or None, got str"),
        ({"kv_cache_gb": True}, "kv_cache_gb: expected float or None, got bool"),
        ({"num_threads": 1.5}, "num_threads: expected int or None, got float"),
        ({"properties": "x"}, "properties: expected a mapping of names to values, got str"),
        ({"properties": {1: 2}}, "properties: expected names of type str, got int"),
        ({"device": 1}, "device: expected str, got int"),
        ({"prefix_caching": "no"}, "prefix_caching: expected bool, got str"),
    ],
)
def test_options_of_other_types_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(TypeError) as info:
        ovfast.LLM("no-such-model", **options)
    assert str(info.value) == problem


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_sizes_out_of_range_have_one_message(value: float) -> None:
    with pytest.raises(ValueError, match=f"^kv_cache_gb is {float(value)}, expected a positive"):
        ovfast.LLM("no-such-model", kv_cache_gb=value)


def test_integers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="num_threads is 1180591620717411303424, which is too"):
        ovfast.LLM("no-such-model", num_threads=2**70)


def test_signatures_show_types() -> None:
    signature = inspect.signature(ovfast.LLM.generate)
    assert signature.parameters["prompt"].annotation == "str | Sequence[int] | list[str]"
    assert signature.return_annotation == "Generation | list[Generation]"


def test_repr(tiny_model_dirs: dict[str, Path]) -> None:
    directory = tiny_model_dirs["llama"]
    llm = ovfast.LLM(directory, kv_cache_gb=0.05, num_threads=1, max_context=64)
    shown = f"LLM({str(directory)!r}, "
    assert repr(llm) == f"{shown}device='CPU', num_threads=1, max_context=64)"
    llm.close()
    assert repr(llm) == f"{shown}closed)"


def test_the_end_of_a_with_block_cancels_a_stream(llm: ovfast.LLM) -> None:
    with llm.stream([5], ignore_eos=True) as stream:
        next(iter(stream))
    assert stream.result.finish_reason == "cancelled"
    with llm.stream([5], ignore_eos=True, max_new_tokens=3) as stream:
        for _ in stream:
            pass
    assert stream.result.finish_reason == "length"


# --- generation_config.json


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"repetition_penalty": -1}, "repetition_penalty is -1"),
        ({"max_new_tokens": "many"}, "max_new_tokens is 'many'"),
        ({"do_sample": True, "top_p": 2}, "top_p is 2"),
    ],
)
def test_bad_defaults_are_the_file_s_fault(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ovfast.ModelError, match=f"'dir/generation_config.json'.*{problem}"):
        sampling_params(config, {"seed": 1}, "dir/generation_config.json")


def test_explicit_options_win_over_defaults_that_contradict_them() -> None:
    config = {"max_length": 20, "min_new_tokens": 10, "do_sample": True, "top_k": 5}
    assert sampling_params(config, {}).max_length == 20
    params = sampling_params(config, {"max_new_tokens": 8, "temperature": 0})
    assert (params.max_new_tokens, params.max_length) == (8, None)
    assert (params.min_new_tokens, params.top_k) == (0, 0)
    assert sampling_params(config, {"max_new_tokens": 11}).min_new_tokens == 10
    both = sampling_params({"max_length": 20, "max_new_tokens": 7}, {})
    assert (both.max_new_tokens, both.max_length) == (7, None)
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        sampling_params(config, {"max_new_tokens": 0})


def test_a_max_length_of_the_file_names_the_file(
    tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    for file in tiny_model_dirs["llama"].iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = tmp_path / "generation_config.json"
    content = json.loads(config.read_text()) | {"max_length": 3}
    config.unlink()
    config.write_text(json.dumps(content))
    with ovfast.LLM(tmp_path, kv_cache_gb=0.05) as llm:
        with pytest.raises(
            ValueError, match=r"max_length is 3 \(from generation_config.json; give"
        ):
            llm.generate([5, 6, 7])
        with pytest.raises(ValueError, match="max_length is 2, but the prompt alone has 3"):
            llm.generate([5, 6, 7], max_length=2)
        assert llm.generate([5, 6, 7], max_new_tokens=2, ignore_eos=True).finish_reason == "length"


# --- content parts

PARTS = [{"type": "text", "text": "one, "}, {"type": "text", "text": "two"}]


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}{% endfor %}",
        "{% for m in messages %}{{ m.role }}: {{ m['content'] }}{% endfor %}",
    ],
)
def test_text_parts_are_joined_where_the_template_knows_none(source: str) -> None:
    template = ChatTemplate(source)
    assert template.render([{"role": "user", "content": PARTS}]) == "user: one, two"
    assert template.render([{"role": "user", "content": "one"}]) == "user: one"


def test_templates_that_know_parts_get_them() -> None:
    source = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for part in m.content %}[{{ part.text }}]{% endfor %}{% endif %}{% endfor %}"
    )
    assert ChatTemplate(source).render([{"role": "user", "content": PARTS}]) == "[one, ][two]"
