"""`ovfast run` and the options that it shares with chat: a scripted model where words matter, then real ones."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import click
import pytest
from cli_harness import Ovfast, environment, scripted_process, tiny, wait_for
from scripted_llm import ScriptedLLM
from terminal import Terminal

from ovfast import LLM
from ovfast.cli.chat import chat_command
from ovfast.cli.options import model_options
from ovfast.cli.run import run_command
from ovfast.model_dir import ModelDir
from ovfast.tuning import write_tuning

HERE = Path(__file__).parent


# --- options

OPTIONS = """--max-new-tokens 1 --max-length 2 --min-new-tokens 3 --temperature 0.5 --top-k 4
    --top-p 0.25 --min-p 0.125 --repetition-penalty 1.5 --presence-penalty -0.5
    --frequency-penalty 0.75 --seed 5 --stop a --stop b --stop-token-id 6 --stop-token-id 7
    --ignore-eos --n 8 --logprobs 0 --device GPU --kv-cache-gb 1.5 --threads 9
    --max-context 10 --max-batch-tokens 11 --packed never --activation-precision exact
    --attention openvino --tile-kb 12 --tile-columns 13 --no-tuned --property A=B=C --property D="""


def test_only_given_options_are_passed_on() -> None:
    taken: dict[str, Any] = {}

    @click.command()
    @model_options()
    def command(**given: Any) -> None:
        taken.update(given)

    command.main([], standalone_mode=False)
    assert taken == {"engine": {}, "generation": {}}


def test_every_option_arrives_under_the_name_of_the_python_interface() -> None:
    taken: dict[str, Any] = {}

    @click.command()
    @model_options()
    def command(**given: Any) -> None:
        taken.update(given)

    command.main(OPTIONS.split(), standalone_mode=False)
    assert taken["generation"] == {
        "max_new_tokens": 1,
        "max_length": 2,
        "min_new_tokens": 3,
        "temperature": 0.5,
        "top_k": 4,
        "top_p": 0.25,
        "min_p": 0.125,
        "repetition_penalty": 1.5,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.75,
        "seed": 5,
        "stop_strings": ["a", "b"],
        "stop_token_ids": [6, 7],
        "ignore_eos": True,
        "n": 8,
        "logprobs": 0,
    }
    assert taken["engine"] == {
        "device": "GPU",
        "kv_cache_gb": 1.5,
        "num_threads": 9,
        "max_context": 10,
        "max_batch_tokens": 11,
        "packed": "never",
        "activation_precision": "exact",
        "attention": "openvino",
        "tile_kb": 12,
        "tile_columns": 13,
        "tuned": False,
        "properties": {"A": "B=C", "D": ""},
    }


def test_zero_and_false_count_as_given() -> None:
    taken: dict[str, Any] = {}

    @click.command()
    @model_options()
    def command(**given: Any) -> None:
        taken.update(given)

    command.main(["--temperature", "0", "--no-ignore-eos"], standalone_mode=False)
    assert taken["generation"] == {"temperature": 0.0, "ignore_eos": False}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--property", "KEY"], "expected KEY=VALUE, got 'KEY'"),
        (["--property", "=V"], "expected KEY=VALUE"),
        (["--property", "K=1", "--property", "K=2"], "given twice: 1 and 2"),
        (["--temperature", "hot"], "not a valid float"),
        (["--seed", "1.5"], "not a valid integer"),
        (["--attention", "mine"], "'mine' is not one of 'auto', 'ovfast', 'openvino'"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_wrong_usage_ends_with_2(scripted: Ovfast, arguments: list[str], problem: str) -> None:
    result = scripted("run", "model", "hello", *arguments)
    assert (result.code, result.out) == (2, "")
    assert problem in result.err


@pytest.mark.parametrize("command", ["run", "chat"])
def test_help_shows_every_option(scripted: Ovfast, command: str) -> None:
    result = scripted(command, "--help")
    assert result.code == 0
    one_prompt = ["--n ", "--logprobs", "--json", "--raw"]
    for option in ["--stop-token-id", "--kv-cache-gb", "--property KEY=VALUE", "--system"]:
        assert option in result.out
    for option in one_prompt:
        assert (option in result.out) == (command == "run")


def test_what_was_tuned_is_applied_unless_refused(
    ovfast_command: Ovfast, tiny_model_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tiny(tiny_model_dirs)
    ran: list[LLM] = []
    generate = LLM.stream

    def remember(llm: LLM, *arguments: Any, **options: Any) -> Any:
        ran.append(llm)
        return generate(llm, *arguments, **options)

    monkeypatch.setattr(LLM, "stream", remember)
    write_tuning(ModelDir.check(directory), {"options": {"attention": "openvino"}})
    for options in ([], ["--no-tuned"], ["--attention", "auto"]):
        command = (
            "run",
            directory,
            "hi",
            "--raw",
            "--kv-cache-gb",
            "0.01",
            "--max-new-tokens",
            "1",
        )
        assert ovfast_command(*command, *options).code == 0
    applied = [llm.tuning and llm.tuning["applied"] for llm in ran]
    assert applied == [{"attention": "openvino"}, None, {}]


def test_commands_have_their_names() -> None:
    assert (run_command.name, chat_command.name) == ("run", "chat")


# --- run


def test_run_prints_the_text_and_only_the_text_to_stdout(scripted: Ovfast) -> None:
    result = scripted("run", "model", "héllo 你好")
    assert result.code == 0
    assert result.out == "turn 1: héllo 你好\n"
    assert "First inference latency: 100.0 ms" in result.err
    assert "Other inference latency: 10.0 ms/token" in result.err
    assert "Load time:               1.25 s" in result.err
    assert "turn 1" not in result.err
    assert ScriptedLLM.last.closed


def test_run_passes_system_and_options(scripted: Ovfast) -> None:
    scripted(
        *("run", "model", "hi", "--system", "Be brief.", "--temperature", "0.5", "--threads", "3")
    )
    assert ScriptedLLM.last.calls == [
        (
            "stream_chat",
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
            {"temperature": 0.5},
        )
    ]
    assert ScriptedLLM.last.engine == {"num_threads": 3}


def test_run_raw_and_models_without_template(scripted: Ovfast) -> None:
    assert scripted("run", "model", "hi", "--raw").out == "raw:hi\n"
    assert scripted("run", "base", "hi").out == "raw:hi\n"


def test_run_does_not_pass_over_a_broken_template(scripted: Ovfast) -> None:
    result = scripted("run", "broken", "hi")
    assert (result.code, result.out) == (1, "")
    assert "cannot be used" in result.err
    assert scripted("run", "broken", "hi", "--raw").code == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["model", "hi", "--raw", "--system", "x"], "--raw leaves out"),
        (["base", "hi", "--system", "x"], "--system needs a chat template"),
        (["model", ""], "the prompt is empty"),
        (["model", "\udcff"], "not valid UTF-8 at character 0"),
        ([], "Missing argument 'MODEL'"),
    ],
)
def test_run_refuses(scripted: Ovfast, arguments: list[str], problem: str) -> None:
    result = scripted("run", *arguments)
    assert (result.code, result.out) == (2, "")
    assert problem in result.err


@pytest.mark.parametrize("arguments", [["-"], []])
@pytest.mark.parametrize(
    ("stdin", "prompt"), [(b"a\nb\n", "a\nb"), ("ö\r\n".encode(), "ö"), (b"x\n\n", "x\n")]
)
def test_run_reads_the_prompt_from_a_pipe(
    scripted: Ovfast, arguments: list[str], stdin: bytes, prompt: str
) -> None:
    result = scripted("run", "model", *arguments, "--raw", "--no-report", stdin=stdin)
    assert ScriptedLLM.last.calls[0][1] == prompt
    assert result.err == ""


def test_run_refuses_bad_pipes(scripted: Ovfast) -> None:
    result = scripted("run", "model", stdin=b"ab\xff")
    assert result.code == 2
    assert "not valid UTF-8: invalid start byte at byte 2" in result.err
    assert scripted("run", "model", stdin=b"\n").code == 2


def test_run_prefers_the_argument_to_the_pipe(scripted: Ovfast) -> None:
    assert scripted("run", "model", "hi", "--raw", stdin=b"ignored").out == "raw:hi\n"


def test_run_reports_errors_of_the_model(scripted: Ovfast) -> None:
    result = scripted("run", "missing", "hi")
    assert (result.code, result.out) == (1, "")
    assert "error: 'missing' does not exist" in result.err
    result = scripted("run", "model", "refused")
    assert (result.code, result.out) == (1, "")
    assert "the template refuses" in result.err


def test_run_json_is_one_object(scripted: Ovfast) -> None:
    result = scripted("run", "model", "ünï", "--json")
    assert (result.code, result.err) == (0, "")
    whole = json.loads(result.out)
    assert whole["text"] == "turn 1: ünï"
    assert whole["finish_reason"] == "stop"
    assert len(whole["token_ids"]) == whole["metrics"]["generated_tokens"] == 11
    assert whole["logprobs"] is None
    assert whole["metrics"]["load_seconds"] == 1.25
    assert whole["metrics"]["peak_rss_bytes"] > 0


def test_run_several_answers(scripted: Ovfast) -> None:
    result = scripted("run", "model", "hi", "--n", "2", "--temperature", "1")
    assert result.out == (
        "--- answer 1 of 2 (stop)\nturn 1: hi (0)\n--- answer 2 of 2 (stop)\nturn 1: hi (1)\n"
    )
    whole = json.loads(scripted("run", "base", "hi", "--n", "2", "--json").out)
    assert [answer["text"] for answer in whole["answers"]] == ["raw:hi (0)", "raw:hi (1)"]


def start_slow_run(tmp_path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*scripted_process(), "run", "model", "slow", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(tmp_path),
    )


def test_run_streams_and_ctrl_c_keeps_what_there_is(tmp_path: Path) -> None:
    with start_slow_run(tmp_path) as process:
        assert process.stdout is not None
        # It comes long before the end, which is 20 seconds away.
        assert process.stdout.read(3) == b"<0>"
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert time.monotonic() - start < 5
    assert process.returncode == 130
    assert out.startswith(b"<1>") or out == b"\n"
    assert out.endswith(b"\n")
    assert b"Finish reason:           cancelled" in err
    assert b"Traceback" not in err


def test_run_json_after_ctrl_c_is_still_json(tmp_path: Path) -> None:
    with start_slow_run(tmp_path, "--json") as process:
        wait_for(tmp_path / "started")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    whole = json.loads(out)
    assert whole["finish_reason"] == "cancelled"
    assert whole["text"].startswith("<0><1>")
    assert err == b""


def test_run_ends_quietly_when_nobody_reads(tmp_path: Path) -> None:
    with start_slow_run(tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(3)
        process.stdout.close()
        assert process.wait(timeout=10) == 141
        assert process.stderr.read() == b""


def test_run_asks_for_a_prompt_on_a_terminal(tmp_path: Path) -> None:
    command = [*scripted_process(), "run", "model"]
    with Terminal(command, env=environment(tmp_path)) as terminal:
        code, text = terminal.wait()
    assert code == 2
    assert "no prompt" in text


# --- real engines, tiny random models


def test_run_on_a_model(ovfast_command: Ovfast, tiny_model_dirs: dict[str, Path]) -> None:
    arguments = ("run", tiny(tiny_model_dirs), "hello", "--raw", "--max-new-tokens", "8")
    arguments += ("--ignore-eos",)
    plain = ovfast_command(*arguments)
    assert plain.code == 0, plain.err
    assert "Generated tokens:        8 in " in plain.err
    whole = ovfast_command(*arguments, "--json", "--logprobs", "2")
    assert (whole.code, whole.err) == (0, "")
    answer = json.loads(whole.out)
    assert len(answer["token_ids"]) == 8
    assert answer["finish_reason"] == "length"
    assert plain.out == answer["text"] + ("" if answer["text"].endswith("\n") else "\n")
    assert [len(position["top"]) for position in answer["logprobs"]] == [2] * 8
    for position, token in zip(answer["logprobs"], answer["token_ids"], strict=True):
        assert position["token_id"] == token
        same = [top["token"] for top in position["top"] if top["token_id"] == token]
        assert same == [position["token"]]
        assert position["top"][0]["logprob"] >= position["logprob"]
    metrics = answer["metrics"]
    assert metrics["prompt_tokens"] > 0
    assert metrics["ttft_ms"] > 0
    assert metrics["tpot_p99_ms"] >= metrics["tpot_p50_ms"] > 0
    assert metrics["peak_rss_bytes"] >= metrics["rss_bytes"] > metrics["shared_bytes"] > 0


def test_run_several_on_a_model(ovfast_command: Ovfast, tiny_model_dirs: dict[str, Path]) -> None:
    arguments = ("run", tiny(tiny_model_dirs), "hello", "--raw", "--json", "--n", "3")
    arguments += ("--temperature", "1", "--seed", "7", "--max-new-tokens", "6", "--ignore-eos")
    first, second = (json.loads(ovfast_command(*arguments).out) for _ in range(2))
    assert [len(answer["token_ids"]) for answer in first["answers"]] == [6, 6, 6]
    assert first["answers"] == second["answers"]
    assert first["metrics"]["generated_tokens"] == 18


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--temperature", "-1"], "--temperature is -1; expected"),
        (["--temperature", "nan"], "--temperature is nan; expected"),
        (["--top-p", "0", "--temperature", "1"], "--top-p is 0; expected"),
        (["--top-p", "0.5", "--temperature", "0"], "--top-p is 0.5; expected its default"),
        (["--max-new-tokens", "0"], "--max-new-tokens is 0; expected at least 1"),
        (["--max-new-tokens", "4", "--max-length", "9"], "--max-new-tokens is 4 and --max-length"),
        (["--min-new-tokens", "4", "--max-new-tokens", "3"], "at most --max-new-tokens, 3"),
        (["--n", "0"], "--n is 0; expected 1 to 128"),
        (["--n", "2", "--temperature", "0"], "--n is 2; expected 1"),
        (["--seed", "-1"], "--seed is -1; expected int in [0, 2**64)"),
        (["--stop", ""], "--stop is empty; expected text"),
        (["--stop-token-id", "-1"], "--stop-token-id is -1; expected"),
        (["--logprobs", "21", "--json"], "--logprobs is 21; expected 0 to 20"),
        (["--logprobs", "2"], "--logprobs is shown by --json only"),
        (["--kv-cache-gb", "-1"], "--kv-cache-gb is -1.0, expected a positive number"),
        (["--kv-cache-gb", "0"], "--kv-cache-gb is 0.0, expected a positive number"),
        (["--threads", "0"], "--threads is 0, expected a positive number"),
        (["--max-context", "0"], "--max-context is 0, expected a positive number"),
        (["--device", "TPU"], "--device is 'TPU', expected 'CPU'"),
        (["--device", "num_threads"], "--device is 'num_threads', expected 'CPU'"),
    ],
)
def test_bad_values_are_wrong_usage_before_a_model_is_read(
    ovfast_command: Ovfast, tmp_path: Path, arguments: list[str], problem: str
) -> None:
    result = ovfast_command("run", str(tmp_path / "none"), "hello", "--raw", *arguments)
    assert (result.code, result.out) == (2, "")
    assert f"error: {problem}" in result.err or f"expected {problem}" in result.err
    assert "Try 'ovfast run --help'" in result.err


def test_what_the_model_may_allow_is_not_judged_without_it(scripted: Ovfast) -> None:
    # generation_config.json may set a temperature.
    assert scripted("run", "model", "hi", "--top-p", "0.5").code == 0


def test_run_says_what_was_full(scripted: Ovfast) -> None:
    cut = "Finish reason:           length"
    assert f"{cut} (the context is full)\n" in scripted("run", "model", "full").err
    assert f"{cut} (the KV cache is full)\n" in scripted("run", "small-cache", "full").err
    assert f"{cut}\n" in scripted("run", "model", "long").err
    whole = json.loads(scripted("run", "model", "full", "--json").out)
    assert whole["finish_reason"] == whole["metrics"]["finish_reason"] == "length"
    assert whole["metrics"]["finish_detail"] == "the context is full"


def test_a_missing_model_is_named(ovfast_command: Ovfast, tmp_path: Path) -> None:
    result = ovfast_command("run", str(tmp_path / "none"), "hello")
    assert (result.code, result.out) == (1, "")
    assert "none" in result.err
