"""The compatibility format against the real `openssl` program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ovfast import crypto
from ovfast.errors import DecryptionError

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the openssl program is missing"
)

BITS = (128, 192, 256)
SIZES = (0, 1, 15, 16, 17, (1 << 20) - 1, 1 << 20, (1 << 20) + 1)
IV = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


def key_of(bits: int) -> str:
    return np.random.default_rng(bits).bytes(bits // 8).hex()


def openssl(bits: int, direction: str, source: Path, target: Path) -> None:
    subprocess.run(
        [
            *("openssl", "enc", f"-aes-{bits}-cbc", direction, "-K", key_of(bits), "-iv", IV),
            *("-in", str(source), "-out", str(target)),
        ],
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("size", SIZES)
def test_both_sides_write_the_same_bytes_and_read_each_other(
    bits: int, size: int, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(np.random.default_rng(size).bytes(size))
    cipher = crypto.OpenSslCipher(f"aes-{bits}-cbc", key_of(bits), IV)
    cipher.encrypt(plain, tmp_path / "ours")
    openssl(bits, "-e", plain, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    cipher.decrypt(tmp_path / "theirs", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == plain.read_bytes()
    openssl(bits, "-d", tmp_path / "ours", tmp_path / "back2")
    assert (tmp_path / "back2").read_bytes() == plain.read_bytes()
    assert bytes(cipher.read(tmp_path / "theirs")) == plain.read_bytes()


@pytest.mark.parametrize(
    ("name", "key", "iv", "message"),
    [
        ("aes-128-ecb", "0" * 32, IV, "expected one of aes-128-cbc, aes-192-cbc, aes-256-cbc"),
        ("aes-128-cbc", "0" * 30, IV, "must have 32 hexadecimal digits, got 30 characters"),
        ("aes-128-cbc", "0" * 64, IV, "must have 32 hexadecimal digits, got 64 characters"),
        ("aes-256-cbc", "g" * 64, IV, "got 64 characters that are not all such digits"),
        ("aes-128-cbc", "0" * 32, "", "initialization vector must have 32 .* got 0"),
    ],
)
def test_keys_must_have_their_length(name: str, key: str, iv: str, message: str) -> None:
    # openssl itself fills up or cuts, with a warning at most.
    with pytest.raises(ValueError, match=message):
        crypto.OpenSslCipher(name, key, iv)


def test_a_truncated_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(bytes(100))
    cipher = crypto.OpenSslCipher("aes-128-cbc", key_of(128), IV)
    cipher.encrypt(tmp_path / "plain", tmp_path / "enc")
    data = (tmp_path / "enc").read_bytes()
    for length in (0, 1, 15, len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(DecryptionError, match="cut"):
            cipher.decrypt(tmp_path / "cut", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert {file.name for file in tmp_path.iterdir()} == {"plain", "enc", "cut"}


def test_a_model_opens_from_files_of_openssl(
    tiny_stock_dirs: dict[str, Path], tmp_path: Path
) -> None:
    stock = tiny_stock_dirs["qwen2"]
    for name in ("openvino_model.xml", "openvino_model.bin"):
        openssl(256, "-e", stock / name, tmp_path / name)
    cipher = crypto.OpenSslCipher("aes-256-cbc", key_of(256), IV)
    model = crypto.open_openssl_model(
        tmp_path / "openvino_model.xml", tmp_path / "openvino_model.bin", cipher
    )
    assert {"logits"} == {name for port in model.outputs for name in port.names}


def test_wrong_keys_with_valid_padding_do_no_harm(
    tiny_stock_dirs: dict[str, Path], tmp_path: Path
) -> None:
    """About one wrong key of 256 is not noticed by the padding."""
    right = crypto.OpenSslCipher("aes-128-cbc", key_of(128), IV)
    for name in ("openvino_model.xml", "openvino_model.bin"):
        right.encrypt(tiny_stock_dirs["qwen2"] / name, tmp_path / name)
    # The padding is all in the last block, the vector of which is the block before.
    small = tmp_path / "end"
    small.write_bytes((tmp_path / "openvino_model.xml").read_bytes()[-32:])
    passed = 0
    for number in range(3000):
        wrong = crypto.OpenSslCipher("aes-128-cbc", f"{number:032x}", IV)
        try:
            wrong.read(small)
        except DecryptionError:
            continue
        passed += 1
        if passed > 6:
            break
        with pytest.raises(DecryptionError, match="decrypt to no OpenVINO model|is damaged"):
            crypto.open_openssl_model(
                tmp_path / "openvino_model.xml", tmp_path / "openvino_model.bin", wrong
            )
    assert passed > 3


def test_right_text_with_wrong_weights_does_not_crash(
    tiny_stock_dirs: dict[str, Path], tmp_path: Path
) -> None:
    import openvino as ov

    cipher = crypto.OpenSslCipher("aes-128-cbc", key_of(128), IV)
    for name in ("openvino_model.xml", "openvino_model.bin"):
        cipher.encrypt(tiny_stock_dirs["qwen2"] / name, tmp_path / name)
    binary = tmp_path / "openvino_model.bin"
    data = bytearray(binary.read_bytes())
    data[: len(data) // 2] = np.random.default_rng(1).bytes(len(data) // 2)  # the padding stays
    binary.write_bytes(data)
    try:
        model = crypto.open_openssl_model(tmp_path / "openvino_model.xml", binary, cipher)
        ov.Core().compile_model(model, "CPU")
    except (DecryptionError, RuntimeError):
        pass  # or numbers that mean nothing: nobody can tell
    binary.write_bytes(data[: len(data) // 32 * 16])
    with pytest.raises(DecryptionError):
        crypto.open_openssl_model(tmp_path / "openvino_model.xml", binary, cipher)
