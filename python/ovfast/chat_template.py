"""Chat templates: from messages to the text that a model was trained on.

A template is a Jinja program that comes with the model, so it is foreign code: it runs in Jinja's
immutable sandbox and sees plain JSON values only. The text is the same, to the character, as that
of `apply_chat_template` in Hugging Face transformers; the tests compare the two.
"""

# ruff: noqa: TRY004  messages are data, often from a network: what is wrong in them is a ValueError

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils

from ovfast import _core
from ovfast.crypto import read_file

__all__ = ["ChatTemplate", "Message", "read_special_tokens"]

Message = Mapping[str, Any]

# One thing, several names: the first is the one that templates read today.
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}`: marks what the assistant wrote, for training. Here it is transparent."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it as an instance's attribute)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A block with a scope of its own: what is set inside must not leak, as in transformers.
        call = self.call_method("_pass_through")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _pass_through(self, caller: jinja2.runtime.Macro) -> str:
        return caller()


class _Namespace(jinja2.utils.Namespace):
    """Jinja's namespace() without underscored names, which lead to Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # As in Jinja: without a named `self`, namespace(self=...) still works.
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _Namespace._check(name)
        jinja2.utils.Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        # Not through self or super(): reading an attribute of a namespace looks into its names.
        _Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name: str) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(
                f"a namespace cannot hold names that begin with an underscore, got {name!r}"
            )


class _Dict:
    """dict() without the class's attributes, which a template could climb out by."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes <, > and & for HTML, which models have never seen.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationBlock, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _Namespace
    return environment


def _plain(value: Any, where: str) -> Any:
    """A copy of `value` out of JSON's types, whose methods the sandbox knows to be harmless."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {_plain(k, where): _plain(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise ValueError(f"{where}: expected JSON values, got {type(value).__name__}")


def _checked_message(message: Any, index: int) -> dict[str, Any]:
    where = f"messages[{index}]"
    if not isinstance(message, Mapping):
        raise ValueError(
            f"{where}: expected a mapping with 'role' and 'content', got {type(message).__name__}"
        )
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise ValueError(f"{where}['role']: expected a non-empty str, got {role!r}")
    content = message.get("content")
    if content is None:
        # An assistant's turn that only calls tools has no text.
        if not message.get("tool_calls"):
            raise ValueError(f"{where}['content']: expected a str or a list of parts, got none")
    elif isinstance(content, (list, tuple)):
        for i, part in enumerate(content):
            if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
                raise ValueError(
                    f"{where}['content'][{i}]: expected a part such as "
                    f"{{'type': 'text', 'text': ...}}, got {part!r}"
                )
    elif not isinstance(content, str):
        raise ValueError(
            f"{where}['content']: expected a str or a list of parts, got {type(content).__name__}"
        )
    # Templates take a missing key well, and print "None" for a None.
    plain = {str(k): _plain(v, f"{where}[{k!r}]") for k, v in message.items() if v is not None}
    reasoning = next((plain[key] for key in _REASONING_KEYS if key in plain), None)
    if reasoning is not None:
        plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
    return plain


def _with_joined_text(message: dict[str, Any]) -> dict[str, Any]:
    parts = message.get("content")
    if not isinstance(parts, list):
        return message
    texts = [part.get("text") for part in parts if part["type"] == "text"]
    if len(texts) < len(parts) or not all(isinstance(text, str) for text in texts):
        return message
    return {**message, "content": "".join(texts)}


class ChatTemplate:
    """A model's chat template, compiled once. Thread-safe.

    `source` is the Jinja text. `bos_token`, `eos_token` and further `special_tokens` (unk_token,
    pad_token, ...) are what the template knows by these names; an empty one stays undefined.
    Raises ValueError when `source` is not a valid template.
    """

    def __init__(
        self, source: str, *, bos_token: str = "", eos_token: str = "", **special_tokens: str
    ) -> None:
        """Compiles `source`."""
        if not isinstance(source, str) or not source.strip():
            raise ValueError(f"chat template: expected Jinja text, got {source!r}")
        tokens = {"bos_token": bos_token, "eos_token": eos_token, **special_tokens}
        for name, token in tokens.items():
            if not isinstance(token, str):
                raise ValueError(f"{name}: expected a str, got {type(token).__name__}")
        self._source = source
        self._special_tokens = {name: token for name, token in tokens.items() if token}
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"chat template, line {error.lineno}: {error.message}") from error

    @functools.cached_property
    def _takes_parts(self) -> bool:
        """Whether the template reads a list of parts, found by trying: many only know a str."""
        probe = "ovfast-probe"
        content = [{"type": "text", "text": probe}]
        try:
            text = self._template.render(
                {
                    "documents": None,
                    **self._special_tokens,
                    "messages": [{"role": "user", "content": content}],
                    "tools": None,
                    "add_generation_prompt": True,
                }
            )
        except Exception:  # noqa: BLE001 (foreign code: it may raise anything)
            return False
        # A template that knows only a str may print the list as Python or JSON writes it.
        return probe in text and f"'{probe}'" not in text and f'"{probe}"' not in text

    @property
    def source(self) -> str:
        """The Jinja text."""
        return self._source

    @property
    def special_tokens(self) -> dict[str, str]:
        """Names and texts of the special tokens that the template sees."""
        return dict(self._special_tokens)

    def __repr__(self) -> str:
        """Size and special tokens."""
        return f"ChatTemplate({len(self._source)} characters, {self._special_tokens})"

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **extra: Any,
    ) -> str:
        """The prompt for `messages`.

        Each message is a mapping with "role" (str) and "content" (str, or a list of parts that
        have a "type"; it may be missing beside "tool_calls"). Where the template knows no parts,
        those that are all text are joined. `add_generation_prompt` ends the text where the assistant's turn begins. `tools` are JSON schemas of functions. `extra` are
        further variables of the template (enable_thinking, documents, ...) and win over special
        tokens of the same name.

        Raises ValueError when a message is malformed, or when the template refuses or fails: the
        error then carries the template's own reason.
        """
        if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
            raise ValueError(
                f"messages: expected a sequence of mappings, got {type(messages).__name__}"
            )
        if not messages:
            raise ValueError("messages: expected at least one, got none")
        chat = [_checked_message(message, i) for i, message in enumerate(messages)]
        if any(isinstance(message.get("content"), list) for message in chat):
            chat = chat if self._takes_parts else [_with_joined_text(message) for message in chat]
        schemas = None
        if tools is not None:
            for i, tool in enumerate(tools):
                if not isinstance(tool, Mapping):
                    raise ValueError(
                        f"tools[{i}]: expected a JSON schema as a mapping, "
                        f"got {type(tool).__name__}"
                    )
            schemas = _plain(list(tools), "tools")
        variables: dict[str, Any] = {"documents": None, **self._special_tokens}
        variables.update({name: _plain(value, name) for name, value in extra.items()})
        try:
            return self._template.render(
                {
                    **variables,
                    "messages": chat,
                    "tools": schemas,
                    "add_generation_prompt": bool(add_generation_prompt),
                }
            )
        except jinja2.TemplateError as error:
            raise ValueError(f"the model's chat template refused: {error.message}") from error
        except Exception as error:  # foreign code: whatever it raises, it is the template's fault
            raise ValueError(
                f"the model's chat template failed: {type(error).__name__}: {error}"
            ) from error


def read_special_tokens(files: _core.ModelFiles) -> dict[str, str]:
    """The special tokens of a model directory, by name, for ChatTemplate's keyword arguments.

    From special_tokens_map.json and tokenizer_config.json, of which the latter wins; empty when
    neither is there. Raises ValueError when one is not what it should be.
    """
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        for key, value in _read_json(files, name).items():
            # Older files store {"content": "<s>", "lstrip": false, ...}.
            text = value.get("content") if isinstance(value, Mapping) else value
            if key.endswith("_token") and isinstance(text, str):
                tokens[key] = text
    return tokens


def _read_json(files: _core.ModelFiles, name: str) -> dict[str, Any]:
    file = files.path / name
    if name not in files:
        return {}
    try:
        data = json.loads(bytes(read_file(files, name)))
    except ValueError as error:
        raise ValueError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{file}: expected a JSON object, got {type(data).__name__}")
    return data
