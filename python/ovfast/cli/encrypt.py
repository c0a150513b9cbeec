"""`ovfast encrypt`: a model directory -> an encrypted one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ovfast.cli.crypt import crypt_options

if TYPE_CHECKING:
    from ovfast.crypto import EncryptedContents, Key

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
@crypt_options(
    encrypt=True,
    format_help="ovfast: authenticated, a whole directory. The others: what `openssl enc` reads, "
    "which notices no change.",
)
def encrypt_command(
    source: Path, target: Path, key: Key, force: bool, progress: bool
) -> EncryptedContents:
    """Encrypt the model directory SOURCE, every file of it, with AES-256-GCM.

    Commands that run models take TARGET with the same key; nothing is decrypted to disk. A change
    of any bit is noticed. Pack a model before (ovfast pack DIR -o DIR2): one that is not packed is
    packed in memory at every load.
    """
    from ovfast.crypto import encrypt

    return encrypt(source, target, key, replace=force, progress=progress)
