"""Files of `openssl enc -aes-N-cbc -K HEX -iv HEX`, for `ovfast encrypt` and `ovfast decrypt`."""

from __future__ import annotations

from pathlib import Path

import click

from ovfast.cli.key import KeySource

__all__ = ["FORMATS", "convert_openssl"]

FORMATS = ("openssl-aes-128-cbc", "openssl-aes-192-cbc", "openssl-aes-256-cbc")

_SUFFIX = ".enc"


def convert_openssl(
    source: Path,
    target: Path,
    form: str,
    key_hex: str | None,
    iv_hex: str | None,
    key: KeySource,
    *,
    force: bool,
    encrypt: bool,
) -> None:
    """Encrypt or decrypt a file, or each file at the top of a directory."""
    if key_hex is None or iv_hex is None:
        raise click.UsageError(f"--format {form} needs --key-hex and --iv-hex")
    if key:
        raise click.UsageError(f"--format {form} takes its key from --key-hex only")
    from ovfast.crypto import OpenSslCipher

    cipher = OpenSslCipher(form.removeprefix("openssl-"), key_hex, iv_hex)
    work = cipher.encrypt if encrypt else cipher.decrypt
    click.echo(
        f"ovfast: warning: {form} authenticates nothing: what was changed decrypts to something "
        "else, unnoticed. The default format notices.",
        err=True,
    )
    pairs = _pairs(source, target, encrypt)
    for _, out in pairs:
        if out.exists() and not force:
            raise ValueError(f"'{out}' exists; --force replaces it")
    for file, out in pairs:
        out.parent.mkdir(parents=True, exist_ok=True)
        work(file, out)
    many = "1 file" if len(pairs) == 1 else f"{len(pairs)} files"
    click.echo(f"{target}: {many}.")


def _pairs(source: Path, target: Path, encrypt: bool) -> list[tuple[Path, Path]]:
    if not source.is_dir():
        return [(source, target)]
    files = sorted(file for file in source.iterdir() if file.is_file())
    if encrypt:
        return [(file, target / (file.name + _SUFFIX)) for file in files]
    encrypted = [file for file in files if file.suffix == _SUFFIX]
    if not encrypted:
        raise ValueError(f"'{source}' holds no file that ends in {_SUFFIX}")
    return [(file, target / file.stem) for file in encrypted]
