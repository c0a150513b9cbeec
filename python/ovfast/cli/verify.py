"""`ovfast verify`: is every byte of an encrypted directory what it was?"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from ovfast.cli.key import KeySource, key_options

__all__ = ["verify_command"]

_EPILOG = """\b
Examples:
  ovfast verify model-dir.enc --key-file model.key
  ovfast verify model-dir.enc --passphrase --json
"""


@click.command("verify", epilog=_EPILOG)
@click.argument("model_dir", metavar="DIR", type=click.Path(path_type=Path))
@key_options()
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
def verify_command(model_dir: Path, key: KeySource, as_json: bool, no_progress: bool) -> None:
    """Decrypt all of the encrypted directory DIR in memory, and keep nothing.

    The exit code is 1 when anything was changed, cut off, moved or added.
    """
    from ovfast.crypto import verify

    opened = key.require()
    start = time.perf_counter()
    contents = verify(model_dir, opened, progress=not no_progress)
    seconds = time.perf_counter() - start
    if as_json:
        files = [{"name": f.name, "role": f.role, "bytes": f.bytes} for f in contents.files]
        click.echo(
            json.dumps(
                {
                    "files": files,
                    "bytes": contents.bytes,
                    "chunk_bytes": contents.chunk_bytes,
                    "opens_with": "passphrase" if contents.passphrase else "key",
                    "seconds": seconds,
                }
            )
        )
        return
    width = max(len(file.name) for file in contents.files)
    for file in contents.files:
        click.echo(f"{file.name:<{width}}  {file.role:<9} {file.bytes:>13,} bytes")
    click.echo(
        f"{model_dir}: whole, {len(contents.files)} files, {contents.bytes / 1e6:.0f} MB "
        f"in {seconds:.1f} s."
    )
