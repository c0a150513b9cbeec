"""`ovfast encrypt`: a model directory -> an encrypted one."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ovfast.cli.key import KeySource, key_options
from ovfast.cli.openssl_format import FORMATS, convert_openssl, openssl_options

__all__ = ["encrypt_command"]

_EPILOG = """\b
Examples:
  ovfast encrypt model-dir -o model-dir.enc --key-file model.key
  ovfast encrypt model-dir -o model-dir.enc --passphrase
  ovfast run model-dir.enc "Hello" --key-file model.key
  ovfast encrypt openvino_model.bin -o openvino_model.bin.enc \\
      --format openssl-aes-128-cbc --key-hex HEX --iv-hex HEX
"""


@click.command("encrypt", epilog=_EPILOG)
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
    help="ovfast: authenticated, a whole directory. The others: what `openssl enc` reads, which "
    "notices no change.",
)
@openssl_options
@key_options()
@click.option("--force", is_flag=True, help="Replace TARGET if it exists.")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
def encrypt_command(
    source: Path,
    target: Path,
    form: str,
    key_hex: str | None,
    iv_hex: str | None,
    key: KeySource,
    force: bool,
    no_progress: bool,
) -> None:
    """Encrypt the model directory SOURCE, every file of it, with AES-256-GCM.

    Commands that run models take TARGET with the same key; nothing is decrypted to disk. A change
    of any bit is noticed. Pack a model before (ovfast pack DIR -o DIR2): one that is not packed is
    packed in memory at every load.
    """
    if form != "ovfast":
        convert_openssl(source, target, form, key_hex, iv_hex, key, force=force, encrypt=True)
        return
    if key_hex is not None or iv_hex is not None:
        raise click.UsageError("--key-hex and --iv-hex are for the formats of openssl only")
    from ovfast.crypto import encrypt

    opened = key.require(new=True)
    start = time.perf_counter()
    contents = encrypt(source, target, opened, replace=force, progress=not no_progress)
    seconds = time.perf_counter() - start
    click.echo(
        f"{target}: {len(contents.files)} files, {contents.bytes / 1e6:.0f} MB in {seconds:.1f} s."
    )
    for note in contents.notes:
        click.echo(f"Note: {note}.")
