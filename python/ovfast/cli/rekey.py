"""`ovfast rekey`: another key for an encrypted directory."""

from __future__ import annotations

from pathlib import Path

import click

from ovfast.cli.key import KeySource, key_options

__all__ = ["rekey_command"]

_EPILOG = """\b
Examples:
  ovfast rekey model-dir.enc --key-file old.key --new-key-file new.key
  ovfast rekey model-dir.enc --key-file old.key --new-passphrase
"""


@click.command("rekey", epilog=_EPILOG)
@click.argument("model_dir", metavar="DIR", type=click.Path(path_type=Path))
@key_options()
@key_options("new-")
def rekey_command(model_dir: Path, key: KeySource, new_key: KeySource) -> None:
    """Change the key that opens the encrypted directory DIR. Its data stays as it is.

    Whoever has the old key and a copy of the old ovfast.encrypted can still read the data: when a
    key became known, encrypt the model anew.
    """
    from ovfast.crypto import rekey

    if key.takes_stdin and new_key.takes_stdin:
        raise click.UsageError("only one of the keys can come from stdin")
    old = key.require()
    rekey(model_dir, old, new_key.require(new=True))
    click.echo(f"{model_dir}: opens with the new key.")
