"""What counts as a model directory, and what is said of one that does not."""

from __future__ import annotations

import html
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models

from ovfast.errors import ModelError
from ovfast.export import export
from ovfast.model_dir import ModelDir


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    path = tiny_models.write_gguf(directory / "tiny.gguf")
    return export(path, directory / "dir").model_dir


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "dir"))


def edit(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text()
    after = change(before)
    assert after != before
    path.write_text(after)


def test_whole_directory(exported: Path) -> None:
    model = ModelDir.check(str(exported))
    assert model.path == exported
    assert model.context_length == tiny_models.CONTEXT
    assert len(model.eos_token_ids) == 2
    assert model.bos_token_id == model.pad_token_id == model.eos_token_ids[1]
    assert model.weights_bytes == model.model_xml.with_suffix(".bin").stat().st_size
    rendered = model.load_chat_template().render([{"role": "user", "content": "hi"}])
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    "name",
    ["openvino_model", "openvino_tokenizer", "openvino_detokenizer"],
)
def test_truncated_weights(copy: Path, name: str) -> None:
    path = copy / f"{name}.bin"
    size = path.stat().st_size
    os.truncate(path, size - 1)
    with pytest.raises(ModelError, match=f"{name}.bin' is truncated: .*{size} bytes.*{size - 1}"):
        ModelDir.check(copy)


@pytest.mark.parametrize(
    "name",
    [
        "openvino_model.xml",
        "openvino_model.bin",
        "openvino_tokenizer.xml",
        "openvino_tokenizer.bin",
        "openvino_detokenizer.xml",
        "openvino_detokenizer.bin",
    ],
)
def test_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    if name == "openvino_model.xml":
        expected = "is no model directory: no openvino_model.xml"
    elif name == "openvino_model.bin":
        expected = f"lacks {name}.*ovfast export"
    else:
        expected = f"lacks {name}.*tokenizer and detokenizer with: convert_tokenizer"
    with pytest.raises(ModelError, match=expected):
        ModelDir.check(copy)


def test_truncated_xml(copy: Path) -> None:
    edit(copy / "openvino_model.xml", lambda text: text[: len(text) // 2])
    with pytest.raises(ModelError, match="truncated or not an OpenVINO model"):
        ModelDir.check(copy)


def test_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        ModelDir.check(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="is a file, expected a model directory$"):
        ModelDir.check(tmp_path / "file")
    with pytest.raises(ModelError, match=r"is no model directory: no openvino_model\.xml\.$"):
        ModelDir.check(tmp_path)
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ModelError, match="export it first: ovfast export .*model.gguf -o .*model$"):
        ModelDir.check(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("model-00001-of-00002.safetensors", "ovfast export '{}' -o '"),
        ("pytorch_model.bin", "ovfast export '{}'"),
        ("x.gguf", "Give the file itself: '{}/x.gguf'"),
    ],
)
def test_model_in_another_form(tmp_path: Path, name: str, advice: str) -> None:
    directory = tmp_path / "a model"
    directory.mkdir()
    (directory / name).touch()
    with pytest.raises(ModelError) as caught:
        ModelDir.check(directory)
    assert advice.format(directory) in str(caught.value)


def test_model_of_another_kind(copy: Path) -> None:
    edit(copy / "openvino_model.xml", lambda text: text.replace("logits", "last_hidden_state"))
    with pytest.raises(ModelError, match=r"not a text generation model.*no output 'logits'"):
        ModelDir.check(copy)


def test_model_with_other_inputs(copy: Path) -> None:
    edit(copy / "openvino_model.xml", lambda text: text.replace("input_ids", "pixel_values"))
    with pytest.raises(ModelError, match=r"got inputs attention_mask, beam_idx, pixel_values"):
        ModelDir.check(copy)


def test_several_models(copy: Path) -> None:
    for suffix in ("xml", "bin"):
        (copy / f"openvino_model.{suffix}").rename(copy / f"openvino_language_model.{suffix}")
    with pytest.raises(ModelError, match=r"holds openvino_language_model.xml.*another kind"):
        ModelDir.check(copy)


def test_model_without_state(copy: Path) -> None:
    edit(copy / "openvino_model.xml", lambda text: text.replace('"ReadValue"', '"Convert"'))
    with pytest.raises(ModelError, match="--disable-stateful"):
        ModelDir.check(copy)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_broken_configuration(copy: Path, name: str) -> None:
    (copy / name).write_text("{")
    with pytest.raises(ModelError, match=name):
        ModelDir.check(copy)
    (copy / name).write_text("[]")
    with pytest.raises(ModelError, match="must hold an object, got list"):
        ModelDir.check(copy)


def test_tokens_from_config_when_generation_config_has_none(copy: Path) -> None:
    (copy / "generation_config.json").unlink()
    edit(copy / "config.json", lambda text: json.dumps({**json.loads(text), "eos_token_id": 7}))
    assert ModelDir.check(copy).eos_token_ids == [7]
    (copy / "config.json").write_text(json.dumps({"text_config": {"eos_token_id": [8, 9]}}))
    assert ModelDir.check(copy).eos_token_ids == [8, 9]


@pytest.mark.parametrize("ids", ["<eos>", [1, "2"], True, 1.5])
def test_wrong_token_ids(copy: Path, ids: object) -> None:
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    with pytest.raises(ModelError, match=r"'eos_token_id'.*must be a token id"):
        ModelDir.check(copy)


def test_directory_without_configuration(copy: Path) -> None:
    for name in ("config.json", "generation_config.json", "chat_template.jinja"):
        (copy / name).unlink()
    model = ModelDir.check(copy)
    assert model.eos_token_ids == []
    assert model.bos_token_id is None
    assert model.context_length is None


def test_context_length_of_a_nested_configuration(copy: Path) -> None:
    nested = {"text_config": {"max_position_embeddings": 77}}
    (copy / "config.json").write_text(json.dumps(nested))
    assert ModelDir.check(copy).context_length == 77


def test_chat_template_out_of_the_tokenizer(copy: Path) -> None:
    """The last resort: what the tokenizer's conversion noted."""
    (copy / "chat_template.jinja").unlink()
    source = '{% if 1 < 2 %}"yes"{% endif %}'

    def put(text: str) -> str:
        head, found, tail = text.partition('<chat_template value="')
        assert found
        return head + found + html.escape(source) + tail[tail.index('"') :]

    edit(copy / "openvino_tokenizer.xml", put)
    template = ModelDir.check(copy).load_chat_template()
    assert template.render([{"role": "user", "content": ""}]) == '"yes"'


@pytest.mark.parametrize(
    "template",
    ["{{ eos_token }}", [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]],
)
def test_chat_template_of_older_writers(copy: Path, template: object) -> None:
    (copy / "chat_template.jinja").unlink()
    edit(
        copy / "tokenizer_config.json",
        lambda text: json.dumps({**json.loads(text), "chat_template": template}),
    )
    rendered = ModelDir.check(copy).load_chat_template().render([{"role": "user", "content": "x"}])
    assert rendered == ("<|im_end|>" if isinstance(template, str) else "D")


def test_no_chat_template(tmp_path: Path) -> None:
    source = tiny_models.write_gguf(tmp_path / "m.gguf", chat_template=None)
    model = ModelDir.check(export(source, tmp_path / "dir").model_dir)
    with pytest.raises(ModelError, match="no chat template"):
        model.load_chat_template()


def test_broken_chat_template(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(ModelError, match=r"cannot be used: .*line 1"):
        ModelDir.check(copy).load_chat_template()
