"""Where the key of an encrypted model comes from: options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ovfast.crypto import Key

__all__ = ["KeySource", "key_options"]

_OPTIONS = ("key_file", "key_env", "key_stdin", "passphrase")


class KeySource:
    """The options that were given; the key is read when it is asked for."""

    def __init__(self, prefix: str, given: dict[str, Any]) -> None:
        """Take the values of the options; `prefix` is "" or "new-"."""
        self._prefix = prefix
        self._given = {name: value for name, value in given.items() if value}
        if len(self._given) > 1:
            first, second, *_ = (self._flag(name) for name in self._given)
            raise click.UsageError(f"{first} and {second} both say what the key is: give one")

    def __bool__(self) -> bool:
        """Whether any was given."""
        return bool(self._given)

    @property
    def takes_stdin(self) -> bool:
        """Whether the key is read from standard input."""
        return "key_stdin" in self._given

    def get(self, *, new: bool = False) -> Key | None:
        """Read the key; None when no option was given. A `new` passphrase is asked for twice."""
        if not self._given:
            return None
        from ovfast import _core
        from ovfast.crypto import Key

        # What is decrypted must not end on disk when something crashes.
        _forbid_core_dumps()
        ((name, value),) = self._given.items()
        if name == "key_file":
            warning = _core.key_file_warning(value)
            if warning:
                click.echo(f"ovfast: warning: {warning}", err=True)
            return Key.from_file(value)
        if name == "key_env":
            return Key.from_env(value)
        if name == "key_stdin":
            return Key.from_stdin()
        return Key.ask_passphrase("New passphrase: " if new else "Passphrase: ", new)

    def require(self, *, new: bool = False) -> Key:
        """Read the key. Raises UsageError when no option was given."""
        key = self.get(new=new)
        if key is None:
            flags = [self._flag(name) for name in _OPTIONS]
            raise click.UsageError(f"no key: give {', '.join(flags[:-1])} or {flags[-1]}")
        return key

    def for_llm(self) -> dict[str, Any]:
        """The argument of `LLM`, if there is one."""
        key = self.get()
        return {} if key is None else {"key": key}

    def _flag(self, name: str) -> str:
        return f"--{self._prefix}{name.replace('_', '-')}"


def key_options(prefix: str = "") -> Callable[[Callable[..., Any]], Any]:
    """Decorate a command with options for a key; it gets `key` (or `new_key`), a KeySource."""
    new = "new " if prefix else ""

    def decorate(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def command(**given: Any) -> Any:
            mine = {name: given.pop(f"{prefix.replace('-', '_')}{name}") for name in _OPTIONS}
            argument = f"{prefix.replace('-', '_')}key"
            return function(**{argument: KeySource(prefix, mine)}, **given)

        decorated: Any = command
        for option in (
            click.option(
                f"--{prefix}passphrase",
                is_flag=True,
                help=f"Ask for the {new}passphrase of an encrypted model; without a terminal it is "
                "a line of stdin.",
            ),
            click.option(
                f"--{prefix}key-stdin", is_flag=True, help=f"Read the {new}key from stdin."
            ),
            click.option(
                f"--{prefix}key-env",
                metavar="NAME",
                help=f"The environment variable that holds the {new}key.",
            ),
            click.option(
                f"--{prefix}key-file",
                metavar="FILE",
                type=click.Path(),
                help=f"The file that holds the {new}key of an encrypted model.",
            ),
        ):
            decorated = option(decorated)
        return decorated

    return decorate


def _forbid_core_dumps() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
