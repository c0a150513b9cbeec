"""The command `ovfast`: which subcommands there are, and how an error ends one."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, cast

import click

__all__ = ["cli", "main"]

# Name -> (module, attribute, one line of help). Help for all of them must not import any.
_COMMANDS = {
    "export": ("ovfast.cli.export", "export_command", "Convert a model into a model directory."),
    "convert": ("ovfast.cli.convert", "convert_command", "Convert a model of another framework."),
    "quantize": ("ovfast.cli.quantize", "quantize_command", "Compress a model's weights."),
    "eval": ("ovfast.cli.eval", "eval_command", "Measure a model, alone or beside another."),
    "pack": ("ovfast.cli.pack", "pack_command", "Pack the weights of a model directory."),
    "inspect": ("ovfast.cli.inspect", "inspect_command", "Show how a model's layers are stored."),
    "tune": ("ovfast.cli.tune", "tune_command", "Find the fastest options for this machine."),
    "ops": ("ovfast.cli.ops", "ops_command", "List, begin and check custom operations."),
    "run": ("ovfast.cli.run", "run_command", "Answer one prompt and report how fast."),
    "chat": ("ovfast.cli.chat", "chat_command", "Talk to a model in the terminal."),
    "keygen": ("ovfast.cli.keygen", "keygen_command", "Make a key for encrypted models."),
    "encrypt": ("ovfast.cli.encrypt", "encrypt_command", "Encrypt a model directory."),
    "decrypt": ("ovfast.cli.decrypt", "decrypt_command", "Write an encrypted model in clear."),
    "verify": ("ovfast.cli.verify", "verify_command", "Check an encrypted model."),
    "rekey": ("ovfast.cli.rekey", "rekey_command", "Change the key of an encrypted model."),
    "doctor": ("ovfast.cli.doctor", "doctor_command", "Check this installation and machine."),
}

_EXIT_FAILURE = 1
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports

_EPILOG = """\b
Examples:
  ovfast export model.gguf -o model-dir
  ovfast run model-dir "Write a haiku about caches." --max-new-tokens 64
  ovfast run model.gguf "1, 1, 2, 3," --raw --json
  ovfast chat model-dir
  ovfast inspect model-dir
  ovfast doctor
"""


class _LazyGroup(click.Group):
    """Loads a subcommand's module when the subcommand is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        return cast(click.Command, getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in _COMMANDS.items()])


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from ovfast import __version__
        from ovfast._build import OPENVINO_VERSION

        click.echo(f"ovfast {__version__} (OpenVINO {OPENVINO_VERSION})")
        ctx.exit()


@click.group(
    cls=_LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of ovfast and OpenVINO, and exit.",
)
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Run generative models, fast, on Intel hardware through OpenVINO."""
    ctx.ensure_object(dict)["debug"] = debug


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0, 1 on an error, 2 on wrong usage, 130 when interrupted."""
    state = {"debug": False}
    try:
        # Without standalone_mode click returns the code that ctx.exit() was called with.
        code = cli.main(args=args, prog_name="ovfast", obj=state, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = error.exit_code
    except click.UsageError as error:
        _print_usage(error)
        code = error.exit_code
    except click.ClickException as error:
        _print_error(error.format_message())
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        # click turns both Ctrl+C and the end of input at a question into Abort.
        interrupted = not isinstance(error.__cause__ or error.__context__, EOFError)
        code = _EXIT_INTERRUPTED if interrupted else _EXIT_FAILURE
    except Exception as error:  # noqa: BLE001 (the one place where all errors end)
        if state["debug"]:
            traceback.print_exc()
        _print_error(_describe(error))
        code = _EXIT_FAILURE
    sys.exit(code if isinstance(code, int) else 0)


def _describe(error: Exception) -> str:
    """One line for what a user can do something about, and honesty about the rest."""
    if isinstance(error, (ValueError, OSError, ImportError)) or _is_ours(error):
        return str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        return "out of memory"
    return f"unexpected {type(error).__name__}: {error} (`ovfast --debug ...` shows where)"


def _is_ours(error: Exception) -> bool:
    # Only a loaded extension module can have raised one of its errors.
    core = sys.modules.get("ovfast._core")
    return core is not None and isinstance(error, core.Error)


def _print_error(message: str) -> None:
    click.echo(f"ovfast: error: {message}", err=True)


def _print_usage(error: click.UsageError) -> None:
    if error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"Try '{error.ctx.command_path} --help' for help.", err=True)
    _print_error(error.format_message())
