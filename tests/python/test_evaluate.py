"""`ovfast.evaluate` and `ovfast eval` from end to end, on small models."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from altered_models import alter
from cli_harness import Ovfast

import ovfast
from ovfast.errors import Error, ModelError
from ovfast.evaluate import prove
from ovfast.evaluate.expected import Question, read_questions
from ovfast.evaluate.generations import compare_answers
from ovfast.evaluate.layers import rank_layers
from ovfast.evaluate.logits import PositionLogits
from ovfast.evaluate.options import Options, Thresholds
from ovfast.evaluate.page import render_page
from ovfast.evaluate.worker import RawAnswer, run_model
from ovfast.reference import ReferenceLLM

SHORT = {"positions": 200, "max_new_tokens": 40, "progress": False}


def copied(model_dir: Path, tmp_path: Path) -> Path:
    """A copy of a stock directory, which is packed beside itself when `LLM` loads it."""
    return Path(shutil.copytree(model_dir, tmp_path / "copy"))


@pytest.fixture(scope="module")
def four_bits(tiny_model) -> Path:
    return tiny_model("qwen2", "Q4_0")[1]


@pytest.fixture(scope="module")
def original(tiny_model) -> Path:
    return tiny_model("qwen2", "F16")[1]


@pytest.fixture(scope="module")
def result(four_bits, original, tmp_path_factory):
    page = tmp_path_factory.mktemp("report") / "report.html"
    found = ovfast.evaluate(four_bits, original, html=page, **SHORT)
    return found, page.read_text(encoding="utf-8")


def test_against_the_original(result):
    found, _ = result
    assert found.passed and found.text.positions == 200
    assert 1e-4 < found.text.kl_mean < 1
    assert 0.5 < found.text.top1_agreement < 1
    said = found.generations
    assert said.prompts == len(said.answers) == 12
    assert 0 < said.divergent_share < 1
    tokens = sum(one.reference_tokens for one in said.answers)
    assert said.divergent_share == sum(one.divergent_tokens for one in said.answers) / tokens
    for one in said.answers:
        assert one.tokens <= 40
        assert (one.first_divergent_token is None) == (one.divergent_tokens == 0)
    assert found.speed.tokens_per_second > 0 and found.speed.ttft_ms > 0
    assert found.speed.peak_rss_bytes > 50e6
    assert found.speed.weights_bytes < found.speed_reference.weights_bytes
    assert found.speed.weights_bytes < found.speed.disk_bytes
    assert len(found.layers.layers) == 7 and not found.layers.unmatched
    assert all(0.02 < one.relative_error < 0.5 for one in found.layers.layers)


def test_json_has_the_documented_keys(result):
    found, _ = result
    data = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    document = Path(__file__).parents[2] / "docs" / "evaluation.md"
    documented = set(re.findall(r"^\| `([a-z0-9_.]+)`", document.read_text(), re.MULTILINE))
    assert {f"{key}" for key in data} <= documented
    for part in ("text", "generations", "layers", "speed"):
        assert {f"{part}.{key}" for key in data[part]} <= documented, part
    for part, one in (
        ("text.by_context", data["text"]["by_context"][0]),
        ("generations.answers", data["generations"]["answers"][0]),
        ("layers.layers", data["layers"]["layers"][0]),
    ):
        assert {f"{part}.{key}" for key in one} <= documented, part


def test_infinity_is_null_in_json(result):
    found, _ = result
    text = dataclasses.replace(found.text, kl_max=np.inf, kl=np.append(found.text.kl, np.inf))
    infinite = dataclasses.replace(found, text=text)
    assert json.loads(json.dumps(infinite.as_dict(), allow_nan=False))["text"]["kl_max"] is None
    Page().feed(render_page(infinite))


class Page(HTMLParser):
    """Checks that tags are balanced and nothing is fetched."""

    VOID = ("meta", "br", "img", "link", "use", "path", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            assert name != "src" and (name not in ("href", "xlink:href") or value[0] == "#")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_page(result):
    found, text = result
    page = Page()
    page.feed(text)
    assert not page.open
    assert page.tags.count("svg") == 4
    assert page.tags.count("details") == 12
    assert f"{found.text.kl_mean:.4g}" in text
    assert "Passed" in text


def test_page_escapes_what_models_say(result, monkeypatch):
    found, _ = result
    one = dataclasses.replace(found.generations.answers[0], answer="<script>alert(1)</script>")
    said = dataclasses.replace(found.generations, answers=[one])
    text = render_page(dataclasses.replace(found, generations=said))
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_a_model_against_itself(original):
    found = ovfast.evaluate(original, original, exact=True, without=["speed"], **SHORT)
    # The same graph twice: not even rounding differs.
    assert found.text.kl_mean == 0 and found.text.top1_agreement == 1
    assert found.text.perplexity_ratio == 1
    said = found.generations
    assert (said.divergent_share, said.similarity, said.identical) == (0, 1, 1)
    assert said.first_divergent_token == np.mean([one.tokens for one in said.answers])
    assert all(one.first_divergent_token is None for one in said.answers)
    assert [one.relative_error for one in found.layers.layers] == [0] * 7
    assert found.speed is None


def test_divergent_tokens_are_those_of_greedy_answers(four_bits, original):
    prompts = [[5, 6, 7, 8], list(range(40, 70)), [400]]
    models = [ReferenceLLM(directory) for directory in (four_bits, original)]
    ours, theirs = (
        [RawAnswer(llm.generate(ids, 24).token_ids, "", False) for ids in prompts] for llm in models
    )
    logits = [PositionLogits(directory, exact=True) for directory in (four_bits, original)]
    found = compare_answers(
        ["a", "b", "c"], prompts, ours, theirs, *logits, max_new_tokens=24, name="it"
    )
    divergent = 0
    for ids, mine, other, one in zip(prompts, ours, theirs, found.answers, strict=True):
        # Up to the first divergent token the model's own greedy answer is the original's.
        pairs = zip(mine.token_ids, other.token_ids, strict=True)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        assert one.first_divergent_token == first
        best = models[0].logits([*ids, *other.token_ids[:-1]])[len(ids) - 1 :].argmax(1)
        assert one.divergent_tokens == int((best != other.token_ids).sum())
        divergent += one.divergent_tokens
    assert found.divergent_share == divergent / (3 * 24) > 0


def test_alone(tiny_stock_dirs, tmp_path):
    page = tmp_path / "page.html"
    found = ovfast.evaluate(
        copied(tiny_stock_dirs["llama"], tmp_path),
        allow_degenerate=True,
        html=page,
        without=["speed"],
        **SHORT,
    )
    assert found.text.perplexity > 1 and found.text.kl_mean is None
    assert found.generations.divergent_share is None and found.layers is None
    Page().feed(page.read_text(encoding="utf-8"))


def test_the_altered_layer_is_the_worst(tiny_stock_dirs, tmp_path):
    source = tiny_stock_dirs["qwen2"]
    numbers = np.random.default_rng(0)

    def noisy(weight):
        return weight + 0.1 * weight.std() * numbers.normal(size=weight.shape)

    altered = alter(source, tmp_path / "altered", "blk.1.ffn_up", noisy)
    report = rank_layers(altered, source, list(range(30)))
    assert report.reason is None and not report.unmatched and len(report.layers) == 15
    first, *others = report.layers
    assert first.name == "blk.1.ffn_up" and first.operation == "MatMul"
    # Independent noise of a tenth of the weights' own spread.
    assert first.relative_error == pytest.approx(0.1, rel=0.1)
    assert [one.relative_error for one in others] == [0] * 14


def test_layers_of_a_stock_and_a_packed_directory(four_bits, original, tiny_stock_dirs, tmp_path):
    ids = list(range(30))
    stock = copied(tiny_stock_dirs["qwen2"], tmp_path)  # it is packed beside itself
    packed = rank_layers(four_bits, original, ids)
    mixed = rank_layers(four_bits, stock, ids)
    assert {one.operation for one in packed.layers} == {"QKV", "FullyConnected", "GatedMLP"}
    assert [one.name for one in mixed.layers] == [one.name for one in packed.layers]
    for one, other in zip(mixed.layers, packed.layers, strict=True):
        assert one.relative_error == pytest.approx(other.relative_error, rel=1e-3)


def test_layers_do_not_count_the_residual(tiny_model, four_bits, original, tmp_path):
    """A fused operation that adds the residual has the error of the product alone."""
    ids = list(range(30))
    stock = []
    for kind in ("Q4_0", "F16"):
        directory = tmp_path / kind
        ovfast.export(tiny_model("qwen2", kind)[0], directory, packed=False, progress=False)
        stock.append(directory)
    products = {one.name: one.relative_error for one in rank_layers(*stock, ids).layers}
    for one in rank_layers(four_bits, original, ids).layers:
        if one.operation == "FullyConnected":
            assert one.relative_error == pytest.approx(products[one.name], rel=1e-3)


def test_layers_that_do_not_match(tiny_stock_dirs):
    report = rank_layers(tiny_stock_dirs["qwen2"], tiny_stock_dirs["phi3"], list(range(9)))
    # phi3 has gate and up in one matrix, and another vocabulary.
    assert report.unmatched == [
        *("blk.0.ffn_gate", "blk.0.ffn_up", "blk.1.ffn_gate", "blk.1.ffn_up", "result_output")
    ]
    assert report.reason is None
    # What does match has nothing else in common: independent weights of one spread.
    for one in report.layers:
        assert one.relative_error == pytest.approx(2**0.5, rel=0.15)


def test_nan(tiny_stock_dirs, tmp_path):
    def broken(weight):
        weight[3, 3] = np.nan
        return weight

    source = copied(tiny_stock_dirs["qwen2"], tmp_path)
    altered = alter(source, tmp_path / "altered", "blk.1.ffn_out", broken)
    found = ovfast.evaluate(altered, source, **SHORT)
    assert not found.passed and found.text is None and found.generations is None
    assert found.failures[1] == "these layers give no numbers: blk.1.ffn_out"
    assert len(found.layers.layers) == 14
    assert re.search(
        r"altered gives no numbers: .* token \d+ is nan, in the text", found.failures[0]
    )
    json.dumps(found.as_dict(), allow_nan=False)


def test_degenerate_answers(tiny_stock_dirs, tmp_path):
    source = tiny_stock_dirs["qwen2"]
    # All logits are 0: the first token for ever, and every token is as probable as any other.
    altered = alter(source, tmp_path / "altered", "result_output", np.zeros_like)
    found = ovfast.evaluate(altered, without=["speed"], **SHORT)
    guessing, loops = found.failures
    assert "no better than guessing" in guessing and "vocabulary, 412" in guessing
    assert f"it says {found.generations.answers[0].answer!r}" in guessing
    assert "12 of 12" in loops and found.generations.answers[0].answer[-10:] in loops
    assert all(one.loop_unit == 1 for one in found.generations.answers)
    source = copied(source, tmp_path)
    found = ovfast.evaluate(altered, source, without=["speed", "layers"], **SHORT)
    assert "12 of 12, where the original's do not" in found.failures[-1]
    found = ovfast.evaluate(altered, allow_degenerate=True, without=["speed"], **SHORT)
    assert found.passed


def test_prove(four_bits, original):
    proof = prove(four_bits, original, {"max_kl": 1e-6}, positions=100, progress=False)
    assert not proof["passed"] and proof["failures"] == [
        f"the mean KL divergence is {proof['kl_mean']:.6g}, and at most 1e-06 was asked for"
    ]
    assert proof["thresholds"]["max_kl"] == 1e-6 and proof["positions"] == 100
    assert proof["perplexity_ratio"] == proof["perplexity"] / proof["perplexity_reference"]
    assert 0 < proof["divergent_share"] < 1 and proof["prompts"] == 12
    json.dumps(proof, allow_nan=False)


def test_thresholds(four_bits, original):
    limits = {"max_kl": 1.0, "min_agreement": 0.999, "max_perplexity_ratio": 0.01}
    options = {**SHORT, "without": ["speed", "layers", "generations"]}
    found = ovfast.evaluate(four_bits, original, **limits, **options)
    agreement, ratio = found.failures
    assert "at least 0.999" in agreement and "at most 0.01" in ratio
    assert found.as_dict()["thresholds"] == limits
    with pytest.raises(ValueError, match="thresholds compare with the original"):
        ovfast.evaluate(four_bits, max_kl=1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_kl": -1}, "max_kl is -1, expected a number of at least 0"),
        ({"max_kl": float("nan")}, "max_kl is nan"),
        ({"min_agreement": 95}, "min_agreement is 95, expected a share between 0 and 1"),
    ],
)
def test_thresholds_refuse(values, message):
    with pytest.raises(ValueError, match=message):
        Thresholds(**values)
    with pytest.raises(TypeError, match="max_kl: expected float or None, got str"):
        Thresholds(max_kl="1")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"positions": 0}, "positions is 0, expected at least 1"),
        ({"context": 1, "stride": 1}, "context is 1, expected at least 2"),
        ({"context": 64, "stride": 64}, "stride is 64 and context 64: windows must overlap"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"harness_limit": 0}, "harness_limit is 0"),
        ({"without": ["text"]}, "without: expected some of generations, layers, speed; got 'text'"),
        ({"text": "/no/such/file"}, "text: '/no/such/file' does not exist"),
        ({"answers": "/no/such/file"}, "answers: '/no/such/file' does not exist"),
        ({"harness_path": "/"}, "harness_path is given, but no task"),
        ({"harness_limit": 3}, "harness_limit is given, but no task"),
        ({"prompts": "/", "without": ["generations"]}, "prompts are given, but without holds"),
    ],
)
def test_options_refuse(values, message):
    with pytest.raises(ValueError, match=message):
        Options(**values)


def test_options_refuse_types():
    with pytest.raises(TypeError, match="positions: expected int, got str"):
        Options(positions="2000")
    with pytest.raises(TypeError, match="harness: expected a list"):
        Options(harness="arc")


def test_missing_extras(original, tmp_path, monkeypatch):
    from ovfast.evaluate import options

    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(Error, match=r"lm_eval is missing: pip install 'ovfast\[harness\]'"):
        Options(harness=["arc"])
    with pytest.raises(Error, match=r"matplotlib is missing: pip install 'ovfast\[evaluate\]'"):
        ovfast.evaluate(original, html=tmp_path / "page.html")


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("no/such/report.html", "html: the folder of .* does not exist"),
        ("", "html: expected a file to write, got the folder"),
        ("/proc/report.html", "html: the folder of '/proc/report.html' cannot be written to: "),
    ],
)
def test_reports_that_cannot_be_written(ovfast_command: Ovfast, tmp_path, report, message):
    """Said before the models are read: they do not exist."""
    run = ovfast_command("eval", "/no/such/model", "--html", str(tmp_path / report))
    assert run.code == 1
    assert re.search(f"--{message}", run.err), run.err


def test_other_tokenizer(tiny_model_dirs):
    with pytest.raises(ValueError, match="have different tokenizers"):
        ovfast.evaluate(tiny_model_dirs["qwen2"], tiny_model_dirs["llama"], **SHORT)


def test_a_window_longer_than_the_context(original):
    with pytest.raises(ValueError, match="context is 600, but .* was made for 512 tokens"):
        ovfast.evaluate(original, context=600, **SHORT)


def test_worker_says_what_is_wrong(tmp_path, original):
    with pytest.raises(ModelError, match="does not exist"):
        run_model(tmp_path / "none", [[1]], max_new_tokens=4, speed=False)
    with pytest.raises(ValueError, match="token 0 is 1000000"):
        run_model(original, [[10**6]], max_new_tokens=4, speed=False)


def test_few_positions_are_said(original, tmp_path):
    (tmp_path / "text.txt").write_text("The quick brown fox")
    found = ovfast.evaluate(
        original,
        original,
        text=tmp_path / "text.txt",
        without=["speed", "generations", "layers"],
        progress=False,
    )
    assert found.text.positions < 20
    assert f"{found.text.positions} positions; 2000 were wanted" in found.notes[0]


def test_prompts_of_a_person(original, tmp_path):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    lines = [{"prompt": "The quick"}, {"messages": chat}]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    options = {"prompts": file, "max_new_tokens": 6, "without": ["speed"], "positions": 20}
    found = ovfast.evaluate(original, allow_degenerate=True, progress=False, **options)
    assert [one.prompt for one in found.generations.answers] == ["The quick", "hello"]
    raw = ovfast.evaluate(original, raw=True, allow_degenerate=True, progress=False, **options)
    user = [{"role": "user", "content": "The quick"}]
    with ovfast.LLM(original, progress=False) as llm:
        ids = [llm._encode_chat(user), llm._encode_chat(chat), llm.tokenizer.encode("The quick")]
    for evaluated, asked in ((found, ids[:2]), (raw, [ids[2], ids[1]])):
        answers = run_model(original, asked, max_new_tokens=6, speed=False).answers
        assert [one.answer for one in evaluated.generations.answers] == [
            one.text for one in answers
        ]
    file.write_text('{"messages": []}')
    with pytest.raises(ValueError, match="line 1: expected 'prompt' .text. or 'messages'"):
        ovfast.evaluate(original, progress=False, **options)
    file.write_text("")
    with pytest.raises(ValueError, match="holds no prompts"):
        ovfast.evaluate(original, progress=False, **options)


def test_expected_answers(original, tmp_path):
    # No two tokens of this answer are nearly as good, so that rounding does not matter.
    (one,) = run_model(
        original,
        [ovfast.LLM(original, progress=False)._encode("jumps")],
        max_new_tokens=8,
        speed=False,
    ).answers
    lines = [
        {"prompt": "jumps", "answer": one.text, "match": "exact"},
        {"prompt": "jumps", "answer": ["no such", one.text[:3]]},
        {"prompt": "jumps", "answer": "^$^", "match": "regex"},
        {"messages": [{"role": "user", "content": "jumps"}], "answer": ".", "match": "regex"},
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    options = {"raw": True, "positions": 20, "max_new_tokens": 8, "progress": False}
    found = ovfast.evaluate(
        original,
        original,
        answers=file,
        without=["speed", "generations", "layers"],
        **options,
    )
    graded = found.answers
    assert [answer.correct for answer in graded.answers] == [True, True, False, True]
    assert [answer.reference_correct for answer in graded.answers] == [True, True, False, True]
    assert (graded.correct, graded.accuracy, graded.reference_accuracy) == (3, 0.75, 0.75)
    assert [answer.line for answer in graded.answers] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("match", "expected", "answer", "correct"),
    [
        ("exact", ["Paris"], " Paris\n", True),
        ("exact", ["Paris"], "Paris.", False),
        ("exact", ["Rome", "Paris"], "Paris", True),
        ("contains", ["Paris"], "It is Paris.", True),
        ("contains", ["Paris"], "It is paris.", False),
        ("regex", ["^4$"], "2 + 2 is\n4\n", True),
        ("regex", [r"\b4\b"], "It is 42.", False),
    ],
)
def test_matches(match, expected, answer, correct):
    assert Question(1, "?", expected, match).is_answered_by(answer) == correct


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"answer": "a"}, "line 1: expected 'prompt' .* or 'messages'"),
        ({"prompt": "", "answer": "a"}, "line 1: expected 'prompt'"),
        ({"messages": [], "answer": "a"}, "line 1: expected 'prompt'"),
        ({"prompt": "p"}, "'answer' must be text or a list of texts, none empty; got None"),
        ({"prompt": "p", "answer": []}, "none empty; got .."),
        ({"prompt": "p", "answer": "a", "match": "like"}, "'match' must be one of contains, exact"),
        ({"prompt": "p", "answer": "(", "match": "regex"}, "'.' is no regular expression"),
    ],
)
def test_expected_answers_refuse(tmp_path, line, message):
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps(line))
    with pytest.raises(ValueError, match=message):
        read_questions(file)
    file.write_text("\n")
    with pytest.raises(ValueError, match="holds no questions"):
        read_questions(file)


def test_command(ovfast_command: Ovfast, four_bits, original, tmp_path):
    arguments = ["eval", str(four_bits), "--against", str(original), "--positions", "100"]
    quick = ["--without", "speed", "--without", "generations", "--no-progress"]
    page = tmp_path / "page.html"
    run = ovfast_command(*arguments, *quick, "--max-kl", "1", "--html", str(page))
    assert run.code == 0, run.err
    assert "KL divergence:" in run.out and "Worst layers:" in run.out and str(page) in run.out
    assert page.read_text().startswith("<!DOCTYPE html>")
    run = ovfast_command(*arguments, *quick, "--max-kl", "1e-6", "--json")
    assert run.code == 1
    data = json.loads(run.out)
    assert not data["passed"] and data["text"]["positions"] == 100
    assert run.err.splitlines()[-1] == f"ovfast: failed: {data['failures'][0]}"


def test_command_prints_everything(ovfast_command: Ovfast, original, tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps({"prompt": "p", "answer": "no such answer"}))
    run = ovfast_command(
        *("eval", str(original), "--against", str(original), "--positions", "50"),
        *("--max-new-tokens", "4", "--answers", str(file), "--no-progress"),
    )
    assert run.code == 0, run.err
    for title in (
        *("Perplexity", "Same best token", "First divergent token", "Divergent tokens"),
        *("Similarity of answers", "Answers in a loop", "TTFT", "TPOT", "Throughput", "Peak RSS"),
    ):
        assert f"\n{title}:" in f"\n{run.out}"
    assert "0 of 1 correct, the original 0" in run.out


def test_command_takes_a_gguf_file(ovfast_command: Ovfast, tiny_model):
    gguf, _ = tiny_model("qwen2", "Q4_0")
    quick = ["--without", "speed", "--without", "generations", "--allow-degenerate"]
    run = ovfast_command("eval", str(gguf), "--positions", "50", *quick, "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["model"] == gguf.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-kl", "1"], "give it with --against"),
        (["--stride", "300"], "--stride is 300 and context 256"),
        (["--against", "x", "--min-agreement", "7"], "--min-agreement is 7"),
        (["--text", "/no/such"], "--text: '/no/such' does not exist"),
    ],
)
def test_command_refuses(ovfast_command: Ovfast, original, arguments, message):
    run = ovfast_command("eval", str(original), *arguments)
    assert run.code == 2 and message in run.err, run.err


@pytest.mark.real_model
def test_real_model(real_model_dir, tmp_path):
    lines = [
        {"prompt": "What is the capital of France?", "answer": "Paris"},
        {
            "prompt": "What is 2 + 2? Answer with the number only.",
            "answer": r"\b4\b",
            "match": "regex",
        },
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    found = ovfast.evaluate(
        real_model_dir, answers=file, positions=300, max_new_tokens=32, progress=False
    )
    assert found.passed, found.failures
    # Documentation and sources of Python, which it has learnt: far from guessing among 151,936.
    assert 2 < found.text.perplexity < 30
    # It predicts better the more it has read.
    first, *_, last = found.text.by_context
    assert last.loss < first.loss
    assert found.answers.accuracy == 1
    assert found.speed.peak_rss_bytes > 0.5 * found.speed.weights_bytes
