"""Texts, windows, and the logits of all their positions."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import openvino as ov
import pytest

from ovfast.chat_template import ChatTemplate
from ovfast.errors import ModelError
from ovfast.evaluate.corpus import read_texts
from ovfast.evaluate.logits import PositionLogits
from ovfast.evaluate.text import measure_text
from ovfast.evaluate.windows import Window, make_windows
from ovfast.reference import ReferenceLLM


@dataclass
class Letters:
    """A tokenizer of one token a character, with a BOS if wanted."""

    bos: list[int]

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [*(self.bos if add_special_tokens else []), *map(ord, text)]


def text_of(size: int, begin: int = 1000) -> str:
    return "".join(map(chr, range(begin, begin + size)))


def counted(windows: list[Window]) -> list[int]:
    return [token for window in windows for token in window.ids[window.counted :]]


@pytest.mark.parametrize("bos", [[], [1]])
def test_windows_count_each_token_once(bos):
    text = text_of(50)
    windows = make_windows(Letters(bos), [text], positions=1000, context=16, stride=5)
    # All but the first, which nothing predicts.
    assert counted(windows) == list(map(ord, text))[1:]
    for window in windows:
        assert len(window.ids) <= 16
        assert window.ids[: len(bos)] == bos
    # After the first window every token that counts has context - stride tokens before it.
    assert all(window.counted >= 16 - 5 for window in windows[1:])
    assert windows[0].counted == len(bos) + 1


def test_windows_stop_at_the_positions_that_are_wanted():
    texts = [text_of(50), text_of(7, 2000), text_of(40, 3000)]
    windows = make_windows(Letters([]), texts, positions=40, context=16, stride=8)
    assert len(counted(windows)) == 40
    # First windows of all texts, then second ones.
    assert [window.text for window in windows] == [0, 1, 2, 0]
    assert counted(windows)[-4:] == [1016, 1017, 1018, 1019]
    whole = make_windows(Letters([]), texts, positions=1000, context=16, stride=8)
    assert len(counted(whole)) == 49 + 6 + 39


def test_windows_of_nothing():
    with pytest.raises(ValueError, match="too short"):
        make_windows(Letters([1]), ["a"], positions=5, context=16, stride=8)


@pytest.mark.parametrize("form", ["tiny_model_dirs", "tiny_stock_dirs"])
@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gemma3", "phi3"])
def test_logits_of_all_positions(request, form, architecture):
    directory = request.getfixturevalue(form)[architecture]
    ids = list(range(40, 90))
    expected = ReferenceLLM(directory).logits(ids)
    model = PositionLogits(directory, exact=True)
    assert model.vocab_size == expected.shape[1]
    # f32 in another order of summation: logits of these models are up to 5.
    np.testing.assert_allclose(model(ids), expected, atol=2e-4)
    # In chunks, and again: the state of the last text is gone.
    chunks = list(model.chunks(ids, 16))
    assert [first for first, _ in chunks] == [0, 16, 32, 48]
    np.testing.assert_allclose(np.concatenate([rows for _, rows in chunks]), expected, atol=2e-4)


def test_a_graph_in_memory_stays_as_it_is(tiny_stock_dirs):
    graph = ov.Core().read_model(tiny_stock_dirs["qwen2"] / "openvino_model.xml")
    before = graph.to_string() if hasattr(graph, "to_string") else str(graph)
    count = len(graph.get_ops())
    ids = list(range(20))
    mine = PositionLogits(graph, exact=True)(ids)
    np.testing.assert_array_equal(mine, PositionLogits(tiny_stock_dirs["qwen2"], exact=True)(ids))
    assert len(graph.get_ops()) == count
    assert (graph.to_string() if hasattr(graph, "to_string") else str(graph)) == before


def test_logits_refuse(tiny_model_dirs, tmp_path):
    directory = tiny_model_dirs["qwen2"]
    model = PositionLogits(directory)
    with pytest.raises(ValueError, match="text is empty"):
        model([])
    with pytest.raises(ValueError, match=f"token id {model.vocab_size} is outside"):
        model([1, model.vocab_size])
    with pytest.raises(ValueError, match="does not know: \\['NO_SUCH'\\]"):
        PositionLogits(directory, properties={"NO_SUCH": 1})
    with pytest.raises(ModelError, match="does not exist"):
        PositionLogits(tmp_path / "none")


def test_measure_text(tiny_model):
    """Strided perplexity, KL and agreement as the plain formulas have them."""
    torch = pytest.importorskip("torch")
    model = PositionLogits(tiny_model("qwen2", "Q4_0")[1], exact=True)
    reference = PositionLogits(tiny_model("qwen2", "F16")[1], exact=True)
    ids = np.random.default_rng(0).integers(0, 400, 150).tolist()
    windows = [Window(ids[:64], 1, 0), Window(ids[32:96], 32, 0), Window(ids[64:128], 32, 1)]
    result = measure_text(model, reference, windows, context=64, stride=32, name="it", decode=str)
    losses, kl, agrees = [], [], []
    for window in windows:
        ours, theirs = (torch.from_numpy(one(window.ids)).double() for one in (model, reference))
        part = slice(window.counted - 1, -1)
        following = torch.tensor(window.ids[window.counted :])
        losses += torch.nn.functional.cross_entropy(
            ours[part], following, reduction="none"
        ).tolist()
        p, q = theirs[part].log_softmax(1), ours[part].log_softmax(1)
        kl += (p.exp() * (p - q)).sum(1).tolist()
        agrees += (ours[part].argmax(1) == theirs[part].argmax(1)).tolist()
    assert (result.positions, result.texts, result.windows) == (63 + 32 + 32, 2, 3)
    assert result.perplexity == pytest.approx(math.exp(np.mean(losses)), rel=1e-9)
    np.testing.assert_allclose(result.kl, kl, rtol=1e-6, atol=1e-12)
    assert result.kl_mean == pytest.approx(np.mean(kl))
    assert result.kl_p99 == pytest.approx(np.percentile(kl, 99))
    assert result.kl_mean > 1e-4  # 4 bits are not 16
    assert result.top1_agreement == np.mean(agrees) < 1
    assert result.perplexity_ratio == pytest.approx(result.perplexity / result.perplexity_reference)
    # The bins are a partition.
    assert sum(one.positions for one in result.by_context) == result.positions
    assert result.by_context[0].context_from == 1
    mean = sum(one.kl * one.positions for one in result.by_context) / result.positions
    assert mean == pytest.approx(result.kl_mean)
    alone = measure_text(model, None, windows, context=64, stride=32, name="it", decode=str)
    assert alone.perplexity == result.perplexity
    assert alone.kl_mean is alone.perplexity_ratio is alone.top1_agreement is None
    json.dumps(alone.as_dict(), allow_nan=False)


def test_texts_of_python():
    texts = read_texts()
    assert len(texts) > 80 and all(text.strip() for text in texts)
    assert texts == read_texts()
    # Documentation and sources in turn.
    assert "import " in texts[1] and "import argparse" not in texts[0]


def test_texts_of_files(tmp_path):
    (tmp_path / "b.txt").write_text("two\r\nlines é", encoding="utf-8")
    (tmp_path / "a.md").write_text("first")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "binary.dat").write_bytes(b"\x80\x00")
    (tmp_path / "zeros.dat").write_bytes(b"a\0b")
    (tmp_path / ".hidden").write_text("hidden")
    deep = tmp_path / "deep"
    deep.mkdir()
    lines = [
        {"text": "t"},
        {"prompt": "p"},
        {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]},
    ]
    (deep / "c.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    assert read_texts(tmp_path) == ["first", "two\r\nlines é", "t", "p", "u\n\na"]
    assert read_texts(tmp_path / "b.txt") == ["two\r\nlines é"]
    template = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    rendered = read_texts(deep / "c.jsonl", chat_template=template)
    assert rendered[2] == "<user>u<assistant>a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1 is not JSON"),
        ('{"text": "a"}\n[1]', "line 2: expected an object, got list"),
        ('{"question": "a"}', "expected one of 'text', 'prompt', 'messages', got .'question'"),
        ('{"text": 1}', "line 1: 'text' must be text, got int"),
        ('{"messages": ["a"]}', "line 1: 'messages' must be a list of objects"),
        ("\n", "holds no text"),
        ('{"text": " "}', "holds no text"),
    ],
)
def test_texts_refuse(tmp_path, content, message):
    file = tmp_path / "x.jsonl"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_texts(file)


def test_texts_refuse_files(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_texts(tmp_path / "none.txt")
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_texts(tmp_path / "x.txt")
    with pytest.raises(ValueError, match="holds no text"):
        read_texts(tmp_path)
