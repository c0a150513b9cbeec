"""`ovfast keygen`, `encrypt`, `decrypt`, `verify`, `rekey`, and keys for the commands that run models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_harness import Ovfast, tiny

from ovfast.crypto import Key, encrypt, list_files

RUN = ("--raw", "--max-new-tokens", "4", "--kv-cache-gb", "0.1", "--no-report", "--ignore-eos")


@pytest.fixture(scope="module")
def made(
    tiny_model_dirs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """An encrypted directory and the file of its key."""
    folder = tmp_path_factory.mktemp("cli-crypto")
    key = Key.generate()
    key.write(folder / "model.key")
    encrypt(tiny_model_dirs["qwen2"], folder / "model.enc", key, progress=False)
    return folder / "model.enc", folder / "model.key"


def test_from_a_key_to_an_answer_and_back(
    ovfast_command: Ovfast,
    tiny_model_dirs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    key, enc, back = "model.key", "model.enc", "back"
    done = ovfast_command("keygen", "-o", key)
    assert done.code == 0
    digits = Path(key).read_text().strip()
    assert digits not in done.out + done.err
    assert Path(key).stat().st_mode & 0o777 == 0o600
    again = ovfast_command("keygen", "-o", key)
    assert again.code == 1
    assert "a lost key cannot be made again" in again.err

    done = ovfast_command("encrypt", tiny(tiny_model_dirs), "-o", enc, "--key-file", key)
    assert (done.code, done.err) == (0, "")
    assert "files" in done.out
    again = ovfast_command("encrypt", tiny(tiny_model_dirs), "-o", enc, "--key-file", key)
    assert again.code == 1
    assert "--force" in again.err
    assert (
        ovfast_command(
            "encrypt", tiny(tiny_model_dirs), "-o", enc, "--key-file", key, "--force"
        ).code
        == 0
    )

    plain = ovfast_command("run", tiny(tiny_model_dirs), "Hello", *RUN)
    ours = ovfast_command("run", enc, "Hello", *RUN, "--key-file", key)
    assert (ours.code, ours.out) == (0, plain.out)

    done = ovfast_command("decrypt", enc, "-o", back, "--key-file", key)
    assert done.code == 0
    for file in Path(tiny(tiny_model_dirs)).iterdir():
        if file.is_file():
            assert (Path(back) / file.name).read_bytes() == file.read_bytes()


def test_every_way_to_give_a_key(
    ovfast_command: Ovfast,
    made: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enc, key = made
    expected = ovfast_command("verify", str(enc), "--key-file", str(key))
    assert expected.code == 0
    assert "openvino_model.bin" in expected.out
    assert "weights" in expected.out
    monkeypatch.setenv("MODEL_KEY", key.read_text().strip())
    assert ovfast_command("verify", str(enc), "--key-env", "MODEL_KEY").code == 0
    with key.open("rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-m", "ovfast", "verify", str(enc), "--key-stdin", "--json"],
            stdin=stdin,
            capture_output=True,
            text=True,
            check=True,
        )
    described = json.loads(done.stdout)
    assert described["opens_with"] == "key"
    roles = {file["name"]: file["role"] for file in described["files"]}
    assert roles["config.json"] == "config"
    assert roles["openvino_model.xml"] == "topology"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "no key: give --key-file, --key-env, --key-stdin or --passphrase"),
        (("--key-file", "no-such-file"), 1, "key file 'no-such-file' cannot be read"),
        (("--key-env", "NO_SUCH_VARIABLE"), 1, "NO_SUCH_VARIABLE, which should hold the key"),
        (("--key-file", "a", "--key-env", "b"), 2, "--key-file and --key-env both say"),
    ],
)
def test_missing_keys(
    options: tuple[str, ...],
    code: int,
    message: str,
    ovfast_command: Ovfast,
    made: tuple[Path, Path],
) -> None:
    done = ovfast_command("verify", str(made[0]), *options)
    assert done.code == code
    assert message in done.err


def test_wrong_keys_and_open_key_files(
    ovfast_command: Ovfast, made: tuple[Path, Path], tmp_path: Path
) -> None:
    enc, _ = made
    other = tmp_path / "other.key"
    other.write_text("ab" * 32)
    other.chmod(0o640)
    done = ovfast_command("run", str(enc), "Hello", *RUN, "--key-file", str(other))
    assert done.code == 1
    assert "can be used by others (mode 0640)" in done.err
    assert "the key is wrong" in done.err
    assert "abab" not in done.err
    other.write_text("ab" * 31)
    done = ovfast_command("run", str(enc), "Hello", *RUN, "--key-file", str(other))
    assert done.code == 1
    assert "64 hexadecimal digits or 32 raw bytes, got 62 bytes" in done.err
    done = ovfast_command("run", str(enc), "Hello", *RUN)
    assert done.code == 1
    assert "is encrypted: give its key" in done.err
    done = ovfast_command("run", str(enc), "-", "--key-stdin", stdin=b"Hello")
    assert done.code == 2
    assert "the key comes from stdin" in done.err
    done = ovfast_command("chat", str(enc), "--key-stdin")
    assert done.code == 2


def test_commands_that_need_plain_files_say_so(
    ovfast_command: Ovfast, made: tuple[Path, Path], tmp_path: Path
) -> None:
    for command in (
        ("export", str(made[0]), "-o", str(tmp_path / "e")),
        ("pack", str(made[0])),
        ("encrypt", str(made[0]), "-o", str(tmp_path / "x"), "--key-file", str(made[1])),
    ):
        done = ovfast_command(*command)
        assert done.code == 1, done
        assert "encrypted" in done.err
    assert not any((tmp_path / name).exists() for name in "ex")


def test_inspect_takes_a_key(ovfast_command: Ovfast, made: tuple[Path, Path]) -> None:
    done = ovfast_command(
        "inspect", str(made[0]), "--key-file", str(made[1]), "--json", "--no-progress"
    )
    assert done.code == 0
    assert json.loads(done.out)["packed"]


def test_damage_is_an_exit_code(
    ovfast_command: Ovfast, made: tuple[Path, Path], tmp_path: Path
) -> None:
    enc = Path(shutil.copytree(made[0], tmp_path / "enc"))
    file = enc / "config.json.enc"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    done = ovfast_command("verify", str(enc), "--key-file", str(made[1]), "--no-progress")
    assert done.code == 1
    assert "config.json.enc" in done.err
    assert "Traceback" not in done.err


def without_terminal(*arguments: str, stdin: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ovfast", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # no terminal to ask on
    )


def test_rekey_to_a_passphrase(made: tuple[Path, Path], tmp_path: Path) -> None:
    enc = Path(shutil.copytree(made[0], tmp_path / "enc"))
    done = without_terminal(
        *("rekey", str(enc), "--key-file", str(made[1]), "--new-passphrase"),
        stdin="open sesame\nopen sesamy\n",
    )
    assert done.returncode == 1
    assert "two were different" in done.stderr
    done = without_terminal(
        *("rekey", str(enc), "--key-file", str(made[1]), "--new-passphrase"),
        stdin="open sesame\nopen sesame\n",
    )
    assert done.returncode == 0, done.stderr
    assert "sesame" not in done.stdout + done.stderr
    done = without_terminal("verify", str(enc), "--passphrase", stdin="open sesame\n")
    assert done.returncode == 0, done.stderr
    done = without_terminal("verify", str(enc), "--passphrase", stdin="open sesam\n")
    assert done.returncode == 1
    assert "the passphrase is wrong" in done.stderr
    done = without_terminal("verify", str(enc), "--passphrase", stdin="")
    assert done.returncode == 1
    assert list_files(enc, Key.from_passphrase("open sesame")).passphrase


KEY, IV = "00112233445566778899aabbccddeeff", "0f0e0d0c0b0a09080706050403020100"
CBC = ("--format", "openssl-aes-128-cbc", "--key-hex", KEY, "--iv-hex", IV)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl program is missing")
def test_openssl_format(
    ovfast_command: Ovfast, tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    plain = Path(tiny(tiny_model_dirs))
    xml = plain / "openvino_model.xml"
    done = ovfast_command("encrypt", str(xml), "-o", str(tmp_path / "x.enc"), *CBC)
    assert done.code == 0
    assert "authenticates nothing" in done.err
    assert KEY not in done.out + done.err
    decrypted = subprocess.run(
        [
            *("openssl", "enc", "-d", "-aes-128-cbc", "-K", KEY, "-iv", IV),
            "-in",
            tmp_path / "x.enc",
        ],
        capture_output=True,
        check=True,
    )
    assert decrypted.stdout == xml.read_bytes()
    done = ovfast_command("encrypt", str(xml), "-o", str(tmp_path / "x.enc"), *CBC)
    assert done.code == 1
    # Whole directories, there and back.
    assert ovfast_command("encrypt", str(plain), "-o", str(tmp_path / "all"), *CBC).code == 0
    assert (tmp_path / "all" / "openvino_model.bin.enc").is_file()
    assert (
        ovfast_command("decrypt", str(tmp_path / "all"), "-o", str(tmp_path / "b"), *CBC).code == 0
    )
    assert (tmp_path / "b" / "openvino_model.bin").read_bytes() == (
        plain / "openvino_model.bin"
    ).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format", "openssl-aes-128-cbc"), "needs --key-hex and --iv-hex"),
        ((*CBC, "--key-file", "k"), "takes its key from --key-hex only"),
        (("--key-hex", KEY, "--key-file", "k"), "for the formats of openssl only"),
    ],
)
def test_openssl_options_must_fit(
    options: tuple[str, ...], message: str, ovfast_command: Ovfast, tmp_path: Path
) -> None:
    done = ovfast_command("encrypt", "x", "-o", str(tmp_path / "y"), *options)
    assert done.code == 2
    assert message in done.err
