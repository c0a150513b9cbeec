"""The chat templates of real models, against transformers to the character."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ovfast import _core
from ovfast.chat_template import ChatTemplate, read_special_tokens

TEMPLATES = Path(__file__).parent / "chat_templates"
BOS, EOS = "<bos>", "<eos>"

USER = [{"role": "user", "content": '  What is 2 < 3 & "4"?\n\n'}]
TURNS = [
    {"role": "user", "content": "你好 👋🏽"},
    {"role": "assistant", "content": "Bonjour, ça va ?"},
    {"role": "user", "content": "{{ 7 * 7 }} {% raw %} <|im_end|>"},
]
SYSTEM = [{"role": "system", "content": "Be brief."}, *TURNS]
REASONING = [
    {"role": "user", "content": "1+1"},
    {"role": "assistant", "content": "2", "thinking": "easy", "tool_calls": None},
    {"role": "user", "content": "2+2"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Temperature in <city> & around it, in °C",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
            "required": ["city"],
        },
    },
}
TOOL_TURNS = [
    {"role": "user", "content": "Weather in 東京?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "type": "function",
                "function": {"name": "weather", "arguments": {"city": "東京", "days": 2}},
            }
        ],
    },
    {"role": "tool", "content": '{"celsius": [21.5, 22]}'},
    {"role": "user", "content": "And tomorrow?"},
]


def source(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def reference(template: str, messages: list[dict[str, Any]], **options: Any) -> str:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    model = tokenizers.models.WordLevel({"<unk>": 0, BOS: 1, EOS: 2}, unk_token="<unk>")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(model),
        bos_token=BOS,
        eos_token=EOS,
        unk_token="<unk>",
        chat_template=template,
    )
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    assert isinstance(rendered, str)
    return rendered


def template(name: str) -> ChatTemplate:
    return ChatTemplate(source(name), bos_token=BOS, eos_token=EOS, unk_token="<unk>")


@pytest.mark.parametrize("generation", [True, False], ids=["prompt", "whole"])
@pytest.mark.parametrize(
    ("name", "messages", "options"),
    [
        ("qwen2.5", USER, {}),
        ("qwen2.5", TURNS, {}),
        ("qwen2.5", SYSTEM, {}),
        ("qwen2.5", REASONING, {}),
        ("qwen2.5", USER, {"tools": [TOOL]}),
        ("qwen2.5", TOOL_TURNS, {"tools": [TOOL, TOOL]}),
        ("qwen2.5", [SYSTEM[0], *TOOL_TURNS], {"tools": [TOOL]}),
        ("llama-3", USER, {}),
        ("llama-3", SYSTEM, {}),
        ("llama-3.1", SYSTEM, {}),
        ("llama-3.1", SYSTEM, {"date_string": "01 Jan 2026"}),
        ("llama-3.1", TOOL_TURNS, {"tools": [TOOL]}),
        ("llama-3.1", TOOL_TURNS, {"tools": [TOOL], "tools_in_user_message": False}),
        ("gemma", USER, {}),
        ("gemma", TURNS, {}),
        ("mistral", TURNS, {}),
        ("mistral", SYSTEM, {}),
        ("phi-3", SYSTEM, {}),
        ("chatml", USER, {}),
        ("chatml", SYSTEM, {}),
        ("generation-block", TURNS, {}),
        ("generation-block", SYSTEM, {}),
        ("generation-block", [*SYSTEM, *TURNS], {}),
    ],
)
def test_same_text_as_transformers(
    name: str, messages: list[dict[str, Any]], options: dict[str, Any], generation: bool
) -> None:
    options = {**options, "add_generation_prompt": generation}
    expected = reference(source(name), messages, **options)
    assert template(name).render(messages, **options) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "{{ messages | tojson }}",
        "{{ messages | tojson(indent=2) }}",
        "{{ messages | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}",
        "{{ strftime_now('%Y') }}",
        "{{ dict(a=1, b=2).items() | list }}{{ dict.fromkeys(['x'], 3) }}",
        "{{ documents is none }}{{ tools is none }}{{ pad_token is defined }}",
        "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ missing }}",
        "{% set ns = namespace(self=1, n=[]) %}{{ ns.self }}{% set ns.n = 4 %}{{ ns.n }}",
        "{% for m in messages %}{{ m.reasoning_content }}|{{ m.thinking }}|{% endfor %}",
        "{% for m in messages %}{{ 'tool_calls' in m }}{% endfor %}",
        "  {% if true %}\n  kept\n  {% endif %}\n tail\n",
    ],
)
def test_environment_is_that_of_transformers(expression: str) -> None:
    ours = ChatTemplate(expression, bos_token=BOS, eos_token=EOS, unk_token="<unk>")
    expected = reference(expression, REASONING, add_generation_prompt=True)
    assert ours.render(REASONING) == expected


def test_generation_prompt_is_on_by_default() -> None:
    whole = "<|im_start|>user\nhi<|im_end|>\n\n"
    hi = [{"role": "user", "content": "hi"}]
    assert template("chatml").render(hi) == whole + "<|im_start|>assistant\n\n"
    assert template("chatml").render(hi, add_generation_prompt=False) == whole


def test_an_empty_special_token_is_undefined() -> None:
    found = ChatTemplate("{{ bos_token is defined }} {{ eos_token is defined }}", eos_token=EOS)
    assert found.render(USER) == "False True"
    assert found.render(USER, bos_token="<s>") == "True True"


def test_a_template_that_refuses_gives_its_reason() -> None:
    with pytest.raises(ValueError, match="System role not supported"):
        template("gemma").render(SYSTEM)
    with pytest.raises(ValueError, match="must alternate"):
        template("mistral").render([USER[0], USER[0]])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ missing.attribute }}", "'missing' is undefined"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{% set ns = namespace(_a=1) %}", "underscore"),
        ("{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "underscore"),
    ],
)
def test_a_template_that_fails_is_a_value_error(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ChatTemplate(text).render(USER)


def test_a_syntax_error_names_the_line() -> None:
    with pytest.raises(ValueError, match=r"line 3: .*endfor"):
        ChatTemplate("a\nb\n{% for m in messages %}")


@pytest.mark.parametrize("text", ["", " \n", None, 3])
def test_a_template_must_be_text(text: Any) -> None:
    with pytest.raises(ValueError, match="expected Jinja text"):
        ChatTemplate(text)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "at least one"),
        ("hello", "expected a sequence of mappings, got str"),
        ({"role": "user", "content": "x"}, "expected a sequence of mappings, got dict"),
        (None, "expected a sequence of mappings, got NoneType"),
        (["hello"], r"messages\[0\]: expected a mapping .* got str"),
        ([{"content": "x"}], r"messages\[0\]\['role'\]: .* got None"),
        ([*USER, {"role": 3, "content": "x"}], r"messages\[1\]\['role'\]: .* got 3"),
        ([{"role": "", "content": "x"}], "non-empty str"),
        ([{"role": "user"}], r"messages\[0\]\['content'\]: .* got none"),
        ([{"role": "user", "content": None}], "got none"),
        ([{"role": "user", "content": 7}], "list of parts, got int"),
        ([{"role": "user", "content": ["x"]}], r"\['content'\]\[0\]: expected a part"),
        ([{"role": "user", "content": [{"text": "x"}]}], "expected a part"),
        ([{"role": "user", "content": "x", "file": b"y"}], r"\['file'\]: .* got bytes"),
    ],
)
def test_malformed_messages_are_named(messages: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        template("chatml").render(messages)


def test_malformed_tools_are_named() -> None:
    with pytest.raises(ValueError, match=r"tools\[1\]: .* got str"):
        template("qwen2.5").render(USER, tools=[TOOL, "weather"])  # type: ignore[list-item]


def test_rendering_leaves_the_messages_alone() -> None:
    before = json.dumps(REASONING)
    template("qwen2.5").render(REASONING)
    assert json.dumps(REASONING) == before


def test_special_tokens_of_a_directory(tmp_path: Path) -> None:
    assert read_special_tokens(_core.ModelFiles.folder(tmp_path)) == {}
    config = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>"}
    config |= {"pad_token": None, "add_bos_token": True, "model_max_length": 8}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    older = {"unk_token": "<unk>", "eos_token": "<old>", "additional_special_tokens": ["<a>"]}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(older))
    expected = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokens = read_special_tokens(_core.ModelFiles.folder(tmp_path))
    assert tokens == expected
    assert ChatTemplate("{{ bos_token }}", **tokens).special_tokens == expected


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"{", "not valid JSON"), (b"[1]", "a JSON object, got list"), (b"\xff", "not valid JSON")],
)
def test_broken_special_tokens(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"tokenizer_config\.json: .*{problem}"):
        read_special_tokens(_core.ModelFiles.folder(tmp_path))
