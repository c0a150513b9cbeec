"""Tasks of lm-evaluation-harness from a local folder, through its own API."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import ovfast
from ovfast.evaluate.logits import PositionLogits

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance

from ovfast.evaluate.harness import run_harness
from ovfast.evaluate.harness_lm import OvfastLM

CHOICES = """
task: tiny_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/choices.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list:
  - metric: acc
"""
ROLLING = """
task: tiny_rolling
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/texts.jsonl
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: byte_perplexity
"""
ANSWERS = """
task: tiny_answers
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/answers.jsonl
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: ["\\n\\n"]
  max_gen_toks: 8
metric_list:
  - metric: exact_match
"""
QUESTIONS = [
    {"question": "The quick brown", "choices": [" fox", " dog", " isn't"], "label": 0},
    {"question": "def fibonacci", "choices": ["(n)", " over"], "label": 0},
    {"question": "lazy", "choices": [" dog.", " 你好", " brown fox jumps"], "label": 1},
]
TEXTS = [{"text": "The quick brown fox jumps over the lazy dog. " * 40}, {"text": "It isn't."}]


@pytest.fixture(scope="module")
def model_dir(tiny_model) -> Path:
    return tiny_model("qwen2", "Q8_0")[1]


@pytest.fixture
def tasks(tmp_path, monkeypatch, model_dir) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    with ovfast.LLM(model_dir, progress=False) as llm:
        # No two tokens of this answer are nearly as good, so that rounding does not matter.
        said = llm.generate("jumps", max_new_tokens=8, temperature=0.0).text
    # The harness drops white space around neither of them.
    lines = [{"question": "jumps", "answer": said}, {"question": "jumps", "answer": "no such"}]
    for name, rows in (("choices", QUESTIONS), ("texts", TEXTS), ("answers", lines)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, text in (("choice", CHOICES), ("rolling", ROLLING), ("answers", ANSWERS)):
        (folder / f"{name}.yaml").write_text(text.format(folder=tmp_path))
    return folder


def log_probability(model: PositionLogits, ids: list[int], scored: int) -> float:
    logits = model(ids[:-1]).astype(np.float64)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    following = np.array(ids[1:])
    rows = np.arange(len(following) - scored, len(following))
    return float(logits[rows, following[rows]].sum())


def test_tasks(tasks, model_dir):
    names = ["tiny_choice", "tiny_rolling", "tiny_answers"]
    found = run_harness(model_dir, names, include_path=tasks, progress=False)
    model = PositionLogits(model_dir)
    tokenizer = OvfastLM(model_dir).tok_encode

    right = 0
    for one in QUESTIONS:
        context = tokenizer(one["question"])
        scores = []
        for choice in one["choices"]:
            ids = tokenizer(one["question"] + " " + choice)
            scores.append(log_probability(model, ids, len(ids) - len(context)))
        right += int(np.argmax(scores) == one["label"])
    assert found["tiny_choice"]["acc,none"] == pytest.approx(right / len(QUESTIONS))

    total, size = 0.0, 0
    context = 512
    begin = ovfast.model_dir.ModelDir.check(model_dir).bos_token_id
    for text in (one["text"] for one in TEXTS):
        ids = tokenizer(text, add_special_tokens=False)
        size += len(text.encode())
        if len(ids) <= context:
            total += log_probability(model, [begin, *ids], len(ids))
            continue
        # Two windows: the second one is full and scores what is left.
        total += log_probability(model, [begin, *ids[:context]], context)
        total += log_probability(model, ids[-context - 1 :], len(ids) - context)
    assert found["tiny_rolling"]["byte_perplexity,none"] == pytest.approx(
        math.exp(-total / size), rel=1e-6
    )
    assert found["tiny_answers"]["exact_match,none"] == 0.5


def test_a_text_longer_than_the_context_is_cut_in_front(model_dir):
    model = OvfastLM(model_dir)
    ids = np.random.default_rng(0).integers(0, 400, 600).tolist()
    ((value, greedy),) = model._loglikelihood_tokens([(None, ids[:590], ids[590:])])
    expected = log_probability(PositionLogits(model_dir), ids[-model.max_length - 1 :], 10)
    assert value == pytest.approx(expected, rel=1e-6) and not greedy


def test_greedy_continuations_are_known(model_dir):
    model = OvfastLM(model_dir, progress=False)
    prompt = model.tok_encode("The quick")
    best = int(PositionLogits(model_dir)(prompt)[-1].argmax())
    (_, yes), (_, no) = model._loglikelihood_tokens(
        [(None, prompt, [best]), (None, prompt, [best + 1])]
    )
    assert yes and not no


def test_chat_template(model_dir):
    text = OvfastLM(model_dir).apply_chat_template([{"role": "user", "content": "hello"}])
    assert text == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_unknown_tasks_and_options(tasks, model_dir):
    with pytest.raises(ValueError, match="has no task nothing; it has tiny_answers, tiny_choice"):
        run_harness(model_dir, ["nothing"], include_path=tasks, progress=False)
    with OvfastLM(model_dir, progress=False) as model:
        request = Instance(
            request_type="generate_until", doc={}, arguments=("a", {"num_beams": 4}), idx=0
        )
        with pytest.raises(ValueError, match="does not know: num_beams"):
            model.generate_until([request])


def test_command(ovfast_command, tasks, model_dir):
    run = ovfast_command(
        *("eval", str(model_dir), "--harness", "tiny_choice", "--harness-path", str(tasks)),
        *("--positions", "20", "--without", "speed", "--without", "generations"),
        *("--allow-degenerate", "--no-progress", "--harness-limit", "2", "--json"),
    )
    assert run.code == 0, run.err
    assert json.loads(run.out)["harness"]["tiny_choice"]["acc,none"] in (0.0, 0.5, 1.0)
