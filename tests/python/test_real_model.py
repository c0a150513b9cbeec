"""The demo model from its GGUF file to answers: what the tiny random models cannot show."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ovfast
from ovfast import _core
from ovfast._openvino import tokenizers_extension

pytestmark = pytest.mark.real_model


@pytest.fixture(scope="module")
def llm(real_model_dir: Path):
    with ovfast.LLM(real_model_dir, kv_cache_gb=0.5) as llm:
        yield llm


def test_it_continues_code(llm):
    out = llm.generate("def factorial(n):\n", max_new_tokens=48, stop_strings=["\n\n"])
    function = ast.parse("def factorial(n):\n" + out.text).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert any(isinstance(node, ast.Return) for node in ast.walk(function))
    assert "factorial(n - 1)" in ast.unparse(function) or "*" in ast.unparse(function)


def test_a_conversation_remembers_and_ends_by_itself(llm):
    messages = [{"role": "user", "content": "My name is Ada. Say hello to me."}]
    first = llm.chat(messages, max_new_tokens=60)
    assert first.finish_reason == "stop"
    assert "Ada" in first.text
    messages += [
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "What is my name? Answer with one word."},
    ]
    second = llm.chat(messages, max_new_tokens=20)
    assert "Ada" in second.text
    assert second.metrics.cached_tokens > 0


def test_chinese_streams_in_whole_characters(llm):
    question = [{"role": "user", "content": "用一句话介绍北京。"}]
    stream = llm.stream_chat(question, max_new_tokens=40)
    pieces = list(stream)
    assert "�" not in "".join(pieces)
    assert "北京" in "".join(pieces)
    assert "".join(pieces) == stream.result.text


def test_an_engine_without_options_ends_where_the_tokenizer_says(llm, real_model_dir):
    tokenizer = _core.Tokenizer(real_model_dir, tokenizers_extension())
    assert tokenizer.eos_token_id == tokenizer.encode("<|im_end|>", add_special_tokens=False)[0]
    options = _core.EngineOptions(kv_cache_gb=0.5)
    engine = _core.Engine(real_model_dir, tokenizer, options)
    prompt = llm.chat_template.render([{"role": "user", "content": "Say yes."}])
    params = _core.SamplingParams(max_new_tokens=100)
    request = engine.submit(tokenizer.encode(prompt, add_special_tokens=False), params)
    assert request.wait(timeout=60)
    assert request.answers[0].finish_reason == "stop"
