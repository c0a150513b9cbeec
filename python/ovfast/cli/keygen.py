"""`ovfast keygen`: a new key in a file."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["keygen_command"]

_EPILOG = """\b
Examples:
  ovfast keygen -o model.key
  ovfast encrypt model-dir -o model-dir.enc --key-file model.key
"""


@click.command("keygen", epilog=_EPILOG)
@click.option(
    "-o",
    "--output",
    "out_file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Where to write the key; a file that exists is never replaced.",
)
def keygen_command(out_file: Path) -> None:
    """Write a new random key of 256 bits, as 64 hexadecimal digits, that only you can read.

    Whoever has it can read what is encrypted with it; without it nobody can, you neither.
    """
    from ovfast.crypto import Key

    Key.generate().write(out_file)
    click.echo(f"{out_file}: a new key. Keep a copy where the models are not.")
