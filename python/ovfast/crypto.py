"""Encrypted model directories: AES-256-GCM on disk, plaintext in memory only.

    from ovfast import crypto

    key = crypto.Key.generate()
    key.write("model.key")
    crypto.encrypt("model-dir", "model-dir.enc", key)
    llm = ovfast.LLM("model-dir.enc", key="model.key")
    model = crypto.open_model("model-dir.enc", key)  # for plain OpenVINO

The format, what it protects from and what not: docs/encryption.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ovfast import _core
from ovfast.errors import DecryptionError, ModelError
from ovfast.progress import Bar

if TYPE_CHECKING:
    import openvino

__all__ = [
    "DecryptionError",
    "EncryptedContents",
    "EncryptedFile",
    "Key",
    "OpenSslCipher",
    "as_key",
    "decrypt",
    "encrypt",
    "is_encrypted",
    "list_files",
    "open_files",
    "open_model",
    "open_openssl_model",
    "read_file",
    "read_ir",
    "rekey",
    "verify",
]

EncryptedContents = _core.EncryptedContents
EncryptedFile = _core.EncryptedFile
Key = _core.Key
OpenSslCipher = _core.OpenSslCipher
is_encrypted = _core.is_encrypted

# glibc maps what is larger on its own and unmaps it when it is freed; smaller blocks would lie in
# the heap with what they held (mallopt(3): M_MMAP_THRESHOLD is at most 32 MiB).
_ALWAYS_MAPPED = 33 << 20


def as_key(key: Key | bytes | str | Path) -> Key:
    """Make a `Key` of one: itself, 32 bytes, or the path of a key file.

    Raises TypeError, ValueError for what a key cannot be, Error for a file that cannot be read.
    """
    if isinstance(key, Key):
        return key
    if isinstance(key, bytes):
        return Key.from_bytes(key)
    if isinstance(key, (str, Path)):
        return Key.from_file(Path(key).expanduser())
    raise TypeError(
        "key: expected a Key, 32 bytes or the path of a key file, got " + type(key).__name__
    )


def open_files(
    directory: str | Path, key: Key | bytes | str | Path | None = None
) -> _core.ModelFiles:
    """Open a model directory, encrypted or not.

    Raises DecryptionError when the key is wrong or missing, or something is damaged; ValueError
    when there is a key for a directory that is not encrypted.
    """
    if key is None:
        return _core.ModelFiles.folder(directory)
    if not is_encrypted(directory) and Path(directory).is_dir():
        raise ValueError(f"'{directory}' is not encrypted, but a key was given")
    return _core.open_directory(directory, as_key(key))


def read_file(files: _core.ModelFiles, name: str) -> memoryview:
    """Read a file of a model directory without a copy. Raises ModelError, DecryptionError."""
    return _view(files.read(name))


def open_model(
    directory: str | Path,
    key: Key | bytes | str | Path,
    *,
    xml: str = "openvino_model.xml",
    core: openvino.Core | None = None,
) -> openvino.Model:
    """Read one IR of an encrypted directory for plain OpenVINO.

    Args:
        directory: An encrypted model directory.
        key: Its key.
        xml: Name of the IR.
        core: Where to read it; it learns ovfast's operations when the model is packed. None makes
            one, which does not outlive this call.

    The weights are decrypted straight into the memory that the model's constants share: it is left
    out of core dumps, locked against swap where the limits allow it, and given back to the system
    when the model and what was compiled of it are gone. Compile it without CACHE_DIR: OpenVINO's
    cache would hold the weights in clear.

    Raises DecryptionError, ModelError.
    """
    files = open_files(directory, key)
    try:
        return read_ir(files, xml, core)
    finally:
        files.close()


def read_ir(files: _core.ModelFiles, xml: str, core: openvino.Core | None = None) -> openvino.Model:
    """Do what `open_model` does, of a directory that is open already."""
    binary = str(Path(xml).with_suffix(".bin"))
    weights, memory = _secure_tensor(files.size(binary))
    files.read_into(binary, 0, memory)
    model = _read_ir(files.read(xml), weights, core)
    if model is None:
        raise ModelError(f"OpenVINO cannot read the encrypted '{files.path / xml}'")
    return model


def open_openssl_model(
    xml: str | Path,
    binary: str | Path,
    cipher: OpenSslCipher,
    *,
    core: openvino.Core | None = None,
) -> openvino.Model:
    """Read an IR from two files that `openssl enc` wrote, or `OpenSslCipher.encrypt`.

    Nothing is authenticated: damaged weights are damaged weights. Raises DecryptionError when the
    files decrypt to no IR, as with a wrong key.
    """
    text = cipher.read(xml)
    model = None
    if _core.looks_like_ir(text):
        plain = cipher.read(binary)
        weights, memory = _secure_tensor(len(plain))
        memory[:] = _view(plain)
        model = _read_ir(text, weights, core)
    if model is None:
        raise DecryptionError(
            f"'{xml}' and '{binary}' decrypt to no OpenVINO model: the key or the initialization "
            "vector is wrong, or they are damaged"
        )
    return model


def _view(data: _core.FileBytes) -> memoryview:
    return memoryview(cast(Any, data))  # the stub does not know that it is a buffer


def _secure_tensor(size: int) -> tuple[Any, memoryview]:
    """Make a tensor for weights, and the bytes of it that they take."""
    import openvino

    weights = openvino.Tensor(openvino.Type.u8, openvino.Shape([max(size, _ALWAYS_MAPPED)]))
    memory = memoryview(weights.data)[:size]
    _core.protect_memory(memory)
    return weights, memory


def _read_ir(text: _core.FileBytes, weights: Any, core: openvino.Core | None) -> Any:
    """Read an IR from memory; None when OpenVINO refuses, which may say what is in the graph."""
    import openvino

    from ovfast.ops import library_path

    if core is None:
        core = openvino.Core()
    core.add_extension(str(library_path()))
    _core.wipe_freed_memory()
    try:
        return core.read_model(model=bytes(_view(text)), weights=weights)
    except Exception:  # noqa: BLE001 (see above)
        return None


def encrypt(
    directory: str | Path,
    out_dir: str | Path,
    key: Key | bytes | str | Path,
    *,
    replace: bool = False,
    chunk_bytes: int = 1 << 20,
    progress: bool = True,
) -> EncryptedContents:
    """Encrypt every file of a directory, subfolders included, into a new one.

    Args:
        directory: What is encrypted; what loading wrote into it (.ovfast) is left out.
        out_dir: Appears whole or not at all.
        key: Opens the result.
        replace: Replace a directory that lies at `out_dir`.
        chunk_bytes: Plaintext that is authenticated together, 4 KiB to 64 MiB.
        progress: Show a progress bar.

    Memory does not grow with the size of the files. Raises ModelError, ValueError, Error.
    """
    with Bar(Path(directory).resolve().name, progress) as bar:
        return _core.encrypt_directory(
            directory,
            out_dir,
            as_key(key),
            chunk_bytes=chunk_bytes,
            replace=replace,
            progress=bar.show,
        )


def decrypt(
    directory: str | Path,
    out_dir: str | Path,
    key: Key | bytes | str | Path,
    *,
    replace: bool = False,
    progress: bool = True,
) -> EncryptedContents:
    """Write an encrypted directory in clear. Raises DecryptionError, ValueError, Error."""
    with Bar(Path(directory).resolve().name, progress) as bar:
        return _core.decrypt_directory(
            directory, out_dir, as_key(key), replace=replace, progress=bar.show
        )


def verify(
    directory: str | Path, key: Key | bytes | str | Path, *, progress: bool = True
) -> EncryptedContents:
    """Check every byte of an encrypted directory. Raises DecryptionError."""
    with Bar(Path(directory).resolve().name, progress) as bar:
        return _core.verify_directory(directory, as_key(key), bar.show)


def list_files(directory: str | Path, key: Key | bytes | str | Path) -> EncryptedContents:
    """Tell what an encrypted directory holds. Raises DecryptionError."""
    return _core.list_directory(directory, as_key(key))


def rekey(
    directory: str | Path,
    old_key: Key | bytes | str | Path,
    new_key: Key | bytes | str | Path,
) -> None:
    """Change the key of an encrypted directory in place; its data stays as it is.

    Whoever has the old key and a copy of the old ovfast.encrypted can still read the model: encrypt
    it anew when a key became known. Raises DecryptionError, Error.
    """
    _core.rekey(directory, as_key(old_key), as_key(new_key))
