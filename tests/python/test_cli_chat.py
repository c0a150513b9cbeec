"""`ovfast chat`: a scripted model where words matter, then a real one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from cli_harness import Ovfast, environment, scripted_process
from scripted_llm import ScriptedLLM
from terminal import CTRL_C, CTRL_D, Terminal

from ovfast.cli.conversation import Conversation

HERE = Path(__file__).parent


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
    with pytest.raises(OSError, match=r"No such file .*/none/c\.json'$"):
        conversation.save(tmp_path / "none" / "c.json")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match=r": '[^']*/taken'$"):
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


def test_chat_tells_a_full_cache_from_a_full_context(scripted: Ovfast) -> None:
    result = scripted("chat", "small-cache", stdin=b"full\n")
    assert "(the KV cache of 40 tokens is full: the answer is cut off)" in result.err


@pytest.mark.parametrize("arguments", [["--temperature", "nan"], ["--threads", "0"]])
def test_chat_refuses_bad_values_before_a_model_is_read(
    scripted: Ovfast, arguments: list[str]
) -> None:
    result = scripted("chat", "missing", *arguments)
    assert result.code == 2
    assert f"error: {arguments[0]} is {arguments[1]}" in result.err


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


def test_ctrl_c_that_throws_a_line_away_is_a_first_one(chat_terminal: Terminal) -> None:
    pytest.importorskip("readline")
    interrupt_prompt(chat_terminal)
    chat_terminal.expect("leaves)")
    chat_terminal.expect(">>> ")
    chat_terminal.type("half a mess")
    chat_terminal.expect("half a mess")
    interrupt_prompt(chat_terminal)
    chat_terminal.expect("leaves)")
    chat_terminal.expect(">>> ")
    chat_terminal.type("hi\n")
    chat_terminal.expect("turn 1: hi")
    chat_terminal.expect(">>> ")
    interrupt_prompt(chat_terminal)  # the line of before must not count
    chat_terminal.expect("leaves)")
    chat_terminal.expect(">>> ")
    interrupt_prompt(chat_terminal)
    assert chat_terminal.wait()[0] == 0


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


# --- a real engine, tiny random model


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
