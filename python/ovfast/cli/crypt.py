"""What `ovfast encrypt` and `ovfast decrypt` have in common."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ovfast.cli.key import KeySource, key_options
from ovfast.cli.openssl_format import FORMATS, convert_openssl

if TYPE_CHECKING:
    from ovfast.crypto import EncryptedContents, Key

__all__ = ["crypt_options"]

Work = Callable[[Path, Path, "Key", bool, bool], "EncryptedContents"]


def crypt_options(*, encrypt: bool, format_help: str) -> Callable[[Work], Any]:
    """Decorate the work on ovfast's own format with the options of both commands.

    It gets source, target, the key, whether to replace the target and whether to show progress;
    what it returns is printed. Formats of openssl are done here, and never reach it.

    Args:
        encrypt: Whether the formats of openssl are written or read.
        format_help: Help of --format.
    """
    options = (
        click.argument("source", metavar="SOURCE", type=click.Path(path_type=Path)),
        click.option(
            "-o",
            "--output",
            "target",
            type=click.Path(path_type=Path),
            required=True,
            metavar="TARGET",
            help="What to write; it appears whole or not at all.",
        ),
        click.option(
            "--format",
            "form",
            type=click.Choice(["ovfast", *FORMATS]),
            default="ovfast",
            show_default=True,
            help=format_help,
        ),
        click.option(
            "--key-hex",
            metavar="HEX",
            help="Key of an openssl format: 32, 48 or 64 digits. Others on this machine can see "
            "it while the command runs.",
        ),
        click.option(
            "--iv-hex", metavar="HEX", help="Initialization vector of an openssl format: 32 digits."
        ),
        key_options(),
        click.option("--force", is_flag=True, help="Replace TARGET if it exists."),
        click.option("--no-progress", is_flag=True, help="Show no progress bar."),
    )

    def decorate(work: Work) -> Any:
        @functools.wraps(work)
        def command(
            source: Path,
            target: Path,
            form: str,
            key_hex: str | None,
            iv_hex: str | None,
            key: KeySource,
            force: bool,
            no_progress: bool,
        ) -> None:
            if form != "ovfast":
                convert_openssl(
                    source, target, form, key_hex, iv_hex, key, force=force, encrypt=encrypt
                )
                return
            if key_hex is not None or iv_hex is not None:
                raise click.UsageError("--key-hex and --iv-hex are for the formats of openssl only")
            opened = key.require(new=encrypt)
            start = time.perf_counter()
            contents = work(source, target, opened, force, not no_progress)
            seconds = time.perf_counter() - start
            click.echo(
                f"{target}: {len(contents.files)} files, {contents.bytes / 1e6:.0f} MB "
                f"in {seconds:.1f} s."
            )
            for note in contents.notes:
                click.echo(f"Note: {note}.")

        decorated: Any = command
        # click lists options in the reverse order of decoration.
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate
