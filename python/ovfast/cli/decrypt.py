"""`ovfast decrypt`: an encrypted model directory -> a plain one."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ovfast.cli.key import KeySource, key_options
from ovfast.cli.openssl_format import FORMATS, convert_openssl, openssl_options

__all__ = ["decrypt_command"]

_EPILOG = """\b
Examples:
  ovfast decrypt model-dir.enc -o model-dir --key-file model.key
  ovfast decrypt openvino_model.bin.enc -o openvino_model.bin \\
      --format openssl-aes-128-cbc --key-hex HEX --iv-hex HEX
"""


@click.command("decrypt", epilog=_EPILOG)
@click.argument("source", metavar="SOURCE", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    metavar="TARGET",
    help="What to write; it appears whole or not at all.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["ovfast", *FORMATS]),
    default="ovfast",
    show_default=True,
    help="What SOURCE is: a directory of `ovfast encrypt`, or files of `openssl enc`.",
)
@openssl_options
@key_options()
@click.option("--force", is_flag=True, help="Replace TARGET if it exists.")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
def decrypt_command(
    source: Path,
    target: Path,
    form: str,
    key_hex: str | None,
    iv_hex: str | None,
    key: KeySource,
    force: bool,
    no_progress: bool,
) -> None:
    """Write the encrypted model directory SOURCE in clear.

    No command needs this: they take encrypted directories as they are.
    """
    if form != "ovfast":
        convert_openssl(source, target, form, key_hex, iv_hex, key, force=force, encrypt=False)
        return
    if key_hex is not None or iv_hex is not None:
        raise click.UsageError("--key-hex and --iv-hex are for the formats of openssl only")
    from ovfast.crypto import decrypt

    opened = key.require()
    start = time.perf_counter()
    contents = decrypt(source, target, opened, replace=force, progress=not no_progress)
    seconds = time.perf_counter() - start
    click.echo(
        f"{target}: {len(contents.files)} files, {contents.bytes / 1e6:.0f} MB in {seconds:.1f} s."
    )
