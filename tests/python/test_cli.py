"""`ovfast run` and `ovfast chat`, with a scripted model where words matter, then with real ones."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from scripted_llm import ScriptedLLM
from terminal import CTRL_C, CTRL_D, Terminal

import ovfast.llm
from ovfast.cli.chat import chat_command
from ovfast.cli.conversation import Conversation
from ovfast.cli.main import main
from ovfast.cli.options import model_options
from ovfast.cli.run import run_command

HERE = Path(__file__).parent


@dataclass
class Result:
    code: int
    out: str
    err: str


Ovfast = Callable[..., Result]


@pytest.fixture
def ovfast_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Ovfast:
    """Runs `ovfast ARGS` in this process."""
    monkeypatch.setenv("OVFAST_CACHE", str(tmp_path / "cache"))

    def run(*args: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(args)
        sys.stdout.flush()
        captured = capfd.readouterr()
        assert isinstance(exit_.value.code, int)
        return Result(exit_.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def scripted(ovfast_command: Ovfast, monkeypatch: pytest.MonkeyPatch) -> Ovfast:
    monkeypatch.setattr(ovfast.llm, "LLM", ScriptedLLM)
    return ovfast_command


def scripted_process() -> list[str]:
    return [sys.executable, "-m", "scripted_llm"]


def environment(tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        "PYTHONPATH": path,
        "OVFAST_CACHE": str(tmp_path / "cache"),
        "SCRIPTED_LLM_STARTED": str(tmp_path / "started"),
    }


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline, f"{file.name} did not appear"
        time.sleep(0.01)


# --- options

OPTIONS = """--max-new-tokens 1 --max-length 2 --min-new-tokens 3 --temperature 0.5 --top-k 4
    --top-p 0.25 --min-p 0.125 --repetition-penalty 1.5 --presence-penalty -0.5
    --frequency-penalty 0.75 --seed 5 --stop a --stop b --stop-token-id 6 --stop-token-id 7
    --ignore-eos --n 8 --logprobs 0 --device GPU --kv-cache-gb 1.5 --threads 9
    --max-context 10 --max-batch-tokens 11 --property A=B=C --property D="""


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


# --- conversations


def test_conversation_keeps_drops_and_takes_back_turns() -> None:
    conversation = Conversation("s")
    assert conversation.messages == [{"role": "system", "content": "s"}]
    assert not conversation.drop_oldest()
    for turn in ("1", "2", "3"):
        conversation.ask(turn)
        conversation.answered(turn * 2)
    conversation.ask("4")
    assert conversation.turns_before_the_last == 3
    assert conversation.drop_oldest()
    assert [message["content"] for message in conversation.messages] == [
        *("s", "2", "22", "3", "33", "4")
    ]
    conversation.take_back()
    assert conversation.messages[-1] == {"role": "assistant", "content": "33"}
    conversation.reset()
    assert [message["role"] for message in conversation.messages] == ["system"]
    conversation.ask("5")
    assert not conversation.drop_oldest()
    assert conversation.messages[-1] == {"role": "user", "content": "5"}


def test_saving_is_whole_or_not_at_all(tmp_path: Path) -> None:
    conversation = Conversation()
    conversation.ask("ä")
    file = tmp_path / "c.json"
    conversation.save(file)
    conversation.save(file)
    assert json.loads(file.read_text("utf-8")) == {"messages": [{"role": "user", "content": "ä"}]}
    with pytest.raises(OSError, match="No such file"):
        conversation.save(tmp_path / "none" / "c.json")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        conversation.save(tmp_path / "taken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.json", "taken"]


# --- chat over pipes


def test_chat_answers_line_by_line(scripted: Ovfast) -> None:
    result = scripted("chat", "model", stdin="hi\n\nyou 好\n".encode())
    assert result.code == 0
    assert result.out == "turn 1: hi\nturn 2: you 好\n"
    assert result.err == ""
    assert ScriptedLLM.last.calls[1][1] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "turn 1: hi"},
        {"role": "user", "content": "you 好"},
    ]


def test_chat_joins_lines_and_escapes_slashes(scripted: Ovfast) -> None:
    scripted("chat", "model", stdin=b"one \\\ntwo\n//etc is a folder\nlast \\")
    assert [call[1][-1]["content"] for call in ScriptedLLM.last.calls] == [
        *("one \ntwo", "/etc is a folder", "last ")
    ]


def test_chat_commands(scripted: Ovfast, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    lines = f"/stats\n/system Be kind.\nhi\n/save {file}\n/stats\n/reset\nyou\n/system -\n/help\n"
    lines += "again\n/exit\nnot read\n"
    result = scripted("chat", "model", "--system", "first", stdin=lines.encode())
    assert result.code == 0
    assert result.out == "turn 1: hi\nturn 1: you\nturn 2: again\n"
    for text in (
        *("There is no answer yet.", "System message: Be kind.", f"Saved to {file}."),
        *("Input tokens:            3", "is forgotten", "System message: none", "/save FILE"),
    ):
        assert text in result.err
    assert json.loads(file.read_text())["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "turn 1: hi"},
    ]
    calls = [call[1] for call in ScriptedLLM.last.calls]
    assert calls[1] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "you"},
    ]
    assert calls[2][0] == {"role": "user", "content": "you"}


@pytest.mark.parametrize(
    ("stdin", "problem"),
    [
        (b"hi\n/nonsense\nyou\n", "unknown command /nonsense"),
        (b"hi\n/save\nyou\n", "/save needs the name"),
        (b"hi\n/save /no/such/folder/x\nyou\n", "No such file"),
        (b"hi\nrefused\nyou\n", "the template refuses"),
        (b"hi\n\xff\nyou\n", "line 2 of stdin is not valid UTF-8"),
    ],
)
def test_chat_over_a_pipe_stops_at_the_first_error(
    scripted: Ovfast, stdin: bytes, problem: str
) -> None:
    result = scripted("chat", "model", stdin=stdin)
    assert result.code == 1
    assert problem in result.err
    assert result.out == "turn 1: hi\n"


def test_chat_needs_a_template(scripted: Ovfast) -> None:
    result = scripted("chat", "base", stdin=b"hi\n")
    assert result.code == 1
    assert "no chat template" in result.err


def test_chat_says_why_an_answer_is_short(scripted: Ovfast) -> None:
    result = scripted("chat", "model", stdin=b"long\n/reset\nfull\n/reset\nsilent\nhi\n")
    assert "(cut off after 12 tokens, as asked for)" in result.err
    assert "(the context of 40 tokens is full: the answer is cut off)" in result.err
    assert "(no answer; your message is taken back)" in result.err
    assert ScriptedLLM.last.calls[-1][1] == [{"role": "user", "content": "hi"}]


LONG = "\n".join(f"{i} a b c d" for i in range(4)).encode()  # 12 words a turn: 3 turns fit


@pytest.mark.parametrize("when", ["ask", "stop"])
def test_chat_over_a_pipe_never_drops_unasked(scripted: Ovfast, when: str) -> None:
    # The "y" is a message, not an answer to a question that nobody sees.
    result = scripted("chat", "model", "--when-full", when, stdin=LONG + b"\ny\n")
    assert result.code == 1
    assert "do not fit into 40" in result.err
    assert result.out.count("turn") == 3


def test_chat_drops_what_it_may_and_says_so(scripted: Ovfast) -> None:
    arguments = ("chat", "model", "--system", "s", "--when-full", "drop")
    result = scripted(*arguments, stdin=LONG)
    assert result.code == 0
    assert result.out.count("turn") == 4
    assert "(dropped the oldest turn)" in result.err
    messages = ScriptedLLM.last.calls[-1][1]
    assert messages[0]["role"] == "system"
    assert messages[1] == {"role": "user", "content": "1 a b c d"}
    result = scripted(*arguments, stdin=LONG + b" " + b"x " * 20)
    assert "(dropped the oldest 2 turns)" in result.err


def test_chat_cannot_drop_the_message_itself(scripted: Ovfast) -> None:
    result = scripted("chat", "model", "--when-full", "drop", stdin=b"hi\n" + b"x " * 50)
    assert result.code == 1
    assert "50 tokens do not fit into 40" in result.err


# --- chat on a terminal


@pytest.fixture
def chat_terminal(tmp_path: Path) -> Any:
    command = [*scripted_process(), "chat", "model"]
    with Terminal(command, env=environment(tmp_path)) as terminal:
        terminal.expect("/help lists the commands")
        terminal.expect(">>> ")
        yield terminal


def test_ctrl_c_stops_the_answer_not_the_program(chat_terminal: Terminal) -> None:
    chat_terminal.type("slow\n")
    chat_terminal.expect("<5>")
    chat_terminal.type(CTRL_C)
    chat_terminal.expect("(stopped; Ctrl+C again leaves)")
    chat_terminal.expect(">>> ")
    chat_terminal.type("and now\n")
    chat_terminal.expect("turn 2: and now")
    chat_terminal.expect(">>> ")
    chat_terminal.type(CTRL_D)
    assert chat_terminal.wait()[0] == 0


def interrupt_prompt(terminal: Terminal) -> None:
    # A signal that comes in the microseconds before Python's readline waits for input is seen with
    # the next key only. No person is that fast.
    time.sleep(0.3)
    terminal.type(CTRL_C)


def test_ctrl_c_twice_leaves(chat_terminal: Terminal) -> None:
    interrupt_prompt(chat_terminal)
    chat_terminal.expect("(Ctrl+C again, Ctrl+D or /exit leaves)")
    chat_terminal.expect(">>> ")
    chat_terminal.type("hi\n")  # a message in between: the next Ctrl+C is a first one
    chat_terminal.expect("turn 1: hi")
    chat_terminal.expect(">>> ")
    interrupt_prompt(chat_terminal)
    chat_terminal.expect("again")
    chat_terminal.expect(">>> ")
    interrupt_prompt(chat_terminal)
    code, text = chat_terminal.wait()
    assert code == 0
    assert "Traceback" not in text


def test_ctrl_c_in_the_answer_and_then_at_the_prompt_leaves(chat_terminal: Terminal) -> None:
    chat_terminal.type("slow\n")
    chat_terminal.expect("<5>")
    chat_terminal.type(CTRL_C)
    chat_terminal.expect(">>> ")
    interrupt_prompt(chat_terminal)
    assert chat_terminal.wait()[0] == 0


def test_errors_on_a_terminal_do_not_end_the_chat(chat_terminal: Terminal) -> None:
    chat_terminal.type("refused\n")
    chat_terminal.expect("error: the template refuses")
    chat_terminal.expect(">>> ")
    chat_terminal.type("/nonsense\n")
    chat_terminal.expect("error: unknown command /nonsense")
    chat_terminal.expect(">>> ")
    chat_terminal.type("hi\n")
    chat_terminal.expect("turn 1: hi")
    chat_terminal.expect(">>> ")
    chat_terminal.type("/exit\n")
    assert chat_terminal.wait()[0] == 0


def test_a_full_context_is_asked_about(chat_terminal: Terminal) -> None:
    for turn, line in enumerate(LONG.decode().split("\n")[:3], start=1):
        chat_terminal.type(line + "\n")
        chat_terminal.expect(f"turn {turn}: {line}")
        chat_terminal.expect(">>> ")
    chat_terminal.type("3 a b c d\n")
    chat_terminal.expect("41 tokens do not fit into 40")
    chat_terminal.expect("Drop its oldest turns until it fits? [Y/n]")
    chat_terminal.type("n\n")
    chat_terminal.expect("error: 41 tokens")
    chat_terminal.expect(">>> ")
    chat_terminal.type("4 a b c d\n")
    chat_terminal.expect("[Y/n]")
    chat_terminal.type("\n")
    chat_terminal.expect("(dropped the oldest turn)")
    chat_terminal.expect("turn 3: 4 a b c d")


def test_history_survives(tmp_path: Path) -> None:
    pytest.importorskip("readline")
    for text in ("unforgettable", "second"):
        command = [*scripted_process(), "chat", "model"]
        with Terminal(command, env=environment(tmp_path)) as terminal:
            terminal.expect(">>> ")
            terminal.type(f"{text}\n")
            terminal.expect(f"turn 1: {text}")
            terminal.expect(">>> ")
            terminal.type(CTRL_D)
            assert terminal.wait()[0] == 0
    history = tmp_path / "cache" / "chat_history"
    assert history.read_text().split() == ["unforgettable", "second"]
    assert history.stat().st_mode & 0o077 == 0


def test_answers_alone_go_to_a_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [*scripted_process(), "chat", "model"]
    with (
        out.open("wb") as file,
        Terminal(command, env=environment(tmp_path), stdout=file.fileno()) as terminal,
    ):
        terminal.expect(">>> ")
        terminal.type("hi\n")
        terminal.expect(">>> ")
        terminal.type("/exit\n")
        assert terminal.wait()[0] == 0
    assert out.read_text() == "turn 1: hi\n"


# --- real engines, tiny random models


def tiny(tiny_model_dirs: dict[str, Path]) -> str:
    return str(tiny_model_dirs["qwen2"])


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
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--top-p", "0", "--temperature", "1"], "top_p"),
        (["--max-new-tokens", "4", "--max-length", "9"], "max_length"),
        (["--kv-cache-gb", "-1"], "kv_cache_gb"),
        (["--logprobs", "21"], "logprobs"),
    ],
)
def test_bad_options_are_named(
    ovfast_command: Ovfast, tiny_model_dirs: dict[str, Path], arguments: list[str], problem: str
) -> None:
    result = ovfast_command("run", tiny(tiny_model_dirs), "hello", "--raw", *arguments)
    assert result.code != 0
    assert result.out == ""
    assert problem in result.err
    assert "Traceback" not in result.err


def test_chat_on_a_model(
    ovfast_command: Ovfast, tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    for file in tiny_model_dirs["qwen2"].iterdir():
        (directory / file.name).symlink_to(file)
    template = directory / "chat_template.jinja"
    template.unlink(missing_ok=True)
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    arguments = ("chat", str(directory), "--max-new-tokens", "5", "--ignore-eos")
    result = ovfast_command(*arguments, stdin=b"hello\nagain\n/stats\n")
    assert result.code == 0, result.err
    assert "Generated tokens:        5 in" in result.err


def test_a_missing_model_is_named(ovfast_command: Ovfast, tmp_path: Path) -> None:
    result = ovfast_command("run", str(tmp_path / "none"), "hello")
    assert (result.code, result.out) == (1, "")
    assert "none" in result.err
