"""The command `ovfast` itself: help, laziness, and how errors end it."""

from __future__ import annotations

import errno
import subprocess
import sys
import types
from collections.abc import Callable

import click
import pytest

import ovfast
from ovfast.cli import main as cli_main

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call main() with arguments; returns exit code, stdout, stderr."""

    def call(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_info:
            cli_main.main(args)
        out, err = capsys.readouterr()
        return exit_info.value.code, out, err  # type: ignore[return-value]

    return call


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make `ovfast boom` raise that."""

    def install(error: BaseException) -> None:
        @click.command("boom")
        def boom_command() -> None:
            raise error

        module = types.ModuleType("ovfast.cli.boom")
        module.boom_command = boom_command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "ovfast.cli.boom", module)
        monkeypatch.setitem(cli_main._COMMANDS, "boom", ("ovfast.cli.boom", "boom_command", ""))

    return install


def test_help_lists_the_commands_and_examples(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for name in ("export", "run", "chat", "doctor"):
        assert f"\n  {name} " in out
    assert "\n    ovfast run model-dir" in out


@pytest.mark.parametrize("name", list(cli_main._COMMANDS))
def test_subcommands_resolve_and_show_examples(name: str, run: Run) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert f"ovfast {name}" in out
    assert "Examples:" in out


def test_help_imports_no_subcommand() -> None:
    code = (
        "import sys\nfrom ovfast.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.startswith('ovfast.')), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stderr.strip() == "['ovfast.cli', 'ovfast.cli.main']"


def test_version(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith(f"ovfast {ovfast.__version__} (OpenVINO 20")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("temperature is -1, expected at least 0"),
        ovfast.ModelError("model.gguf: not a GGUF file"),
        ovfast.CapacityError("the prompt has 9 tokens, the context 8"),
        ImportError("ovfast cannot load"),
    ],
)
def test_expected_errors_are_one_line(
    error: Exception, run: Run, raising: Callable[[BaseException], None]
) -> None:
    raising(error)
    assert run("boom") == (1, "", f"ovfast: error: {error}\n")


def test_file_errors_name_the_file(run: Run, raising: Callable[[BaseException], None]) -> None:
    raising(FileNotFoundError(errno.ENOENT, "No such file or directory", "model.gguf"))
    code, _, err = run("boom")
    assert code == 1
    assert "No such file or directory: 'model.gguf'" in err


def test_unexpected_errors_say_so(run: Run, raising: Callable[[BaseException], None]) -> None:
    raising(KeyError("x"))
    code, out, err = run("boom")
    assert (code, out) == (1, "")
    assert err == "ovfast: error: unexpected KeyError: 'x' (`ovfast --debug ...` shows where)\n"


def test_debug_shows_the_traceback(run: Run, raising: Callable[[BaseException], None]) -> None:
    raising(ValueError("bad option"))
    code, _, err = run("--debug", "boom")
    assert code == 1
    assert "Traceback" in err
    assert "in boom_command" in err
    assert err.endswith("ovfast: error: bad option\n")


def test_interrupt(run: Run, raising: Callable[[BaseException], None]) -> None:
    raising(KeyboardInterrupt())
    code, _, err = run("boom")
    assert code == 130
    assert "Traceback" not in err


def test_end_of_input_is_no_interrupt(run: Run, raising: Callable[[BaseException], None]) -> None:
    raising(EOFError())
    assert run("boom")[0] == 1


def test_exit_codes_pass_through(run: Run, raising: Callable[[BaseException], None]) -> None:
    raising(click.exceptions.Exit(7))
    assert run("boom")[0] == 7


@pytest.mark.parametrize(
    ("args", "message"),
    [(["nonsense"], "nonsense"), (["--nonsense"], "--nonsense"), (["doctor", "--bad"], "--bad")],
)
def test_wrong_usage(args: list[str], message: str, run: Run) -> None:
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ovfast")
    assert err.splitlines()[-1].startswith("ovfast: error: ")
    assert message in err.splitlines()[-1]


def test_a_reader_that_leaves_is_no_error() -> None:
    code = (
        "import sys, click\nfrom ovfast.cli import main as m\n"
        "@click.command()\n"
        "def flood():\n    while True: click.echo('x' * 1000)\n"
        "m.cli.add_command(flood)\n"
        "m._LazyGroup.get_command = lambda self, ctx, name: flood\n"
        "m.main(['flood'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_python_dash_m() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ovfast", "--version"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0
    assert result.stdout.startswith("ovfast ")


def test_without_arguments_there_is_only_the_help(run: Run) -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ovfast ")
    assert "error" not in err.splitlines()[-1]
    assert "ovfast: error" not in err
