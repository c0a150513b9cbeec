"""`ovfast decrypt`: an encrypted model directory -> a plain one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ovfast.cli.crypt import crypt_options

if TYPE_CHECKING:
    from ovfast.crypto import EncryptedContents, Key

__all__ = ["decrypt_command"]

_EPILOG = """\b
Examples:
  ovfast decrypt model-dir.enc -o model-dir --key-file model.key
  ovfast decrypt openvino_model.bin.enc -o openvino_model.bin \\
      --format openssl-aes-128-cbc --key-hex HEX --iv-hex HEX
"""


@click.command("decrypt", epilog=_EPILOG)
@crypt_options(
    encrypt=False,
    format_help="What SOURCE is: a directory of `ovfast encrypt`, or files of `openssl enc`.",
)
def decrypt_command(
    source: Path, target: Path, key: Key, force: bool, progress: bool
) -> EncryptedContents:
    """Write the encrypted model directory SOURCE in clear.

    No command needs this: they take encrypted directories as they are.
    """
    from ovfast.crypto import decrypt

    return decrypt(source, target, key, replace=force, progress=progress)
