"""Encrypted directories from Python: round trips, keys, models that run, memory that is clean."""

from __future__ import annotations

import gc
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ovfast
from ovfast import _core, crypto
from ovfast.errors import DecryptionError, ModelError

PROMPT = "The quick brown fox"


@pytest.fixture(scope="module")
def key() -> crypto.Key:
    return crypto.Key.generate()


@pytest.fixture(scope="module")
def encrypted(
    key: crypto.Key, tiny_model_dirs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The packed tiny model, encrypted."""
    out = tmp_path_factory.mktemp("encrypted") / "model.enc"
    crypto.encrypt(tiny_model_dirs["qwen2"], out, key, progress=False)
    return out


@pytest.fixture
def copy(encrypted: Path, tmp_path: Path) -> Path:
    """One that may be damaged."""
    return Path(shutil.copytree(encrypted, tmp_path / "model.enc"))


def answer(source: Path, **options: object) -> list[int]:
    with ovfast.LLM(source, kv_cache_gb=0.1, progress=False, **options) as llm:  # type: ignore[arg-type]
        return list(llm.generate(PROMPT, max_new_tokens=12, ignore_eos=True).token_ids)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file() and ".ovfast" not in file.parts
    }


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40_000), min_size=1, max_size=4),
    chunk=st.integers(4096, 65536),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_what_comes_back_is_what_went_in_or_nothing(
    sizes: list[int],
    chunk: int,
    place: float,
    bit: int,
    tmp_path_factory: pytest.TempPathFactory,
    key: crypto.Key,
) -> None:
    folder = tmp_path_factory.mktemp("property")
    plain, enc = folder / "plain", folder / "enc"
    (plain / "sub").mkdir(parents=True)
    for i, size in enumerate(sizes):
        name = f"sub/f{i}" if i % 2 else f"f{i}"
        (plain / name).write_bytes(np.random.default_rng(i).bytes(size))
    crypto.encrypt(plain, enc, key, chunk_bytes=chunk, progress=False)
    crypto.decrypt(enc, folder / "back", key, progress=False)
    assert contents(folder / "back") == contents(plain)
    files = crypto.open_files(enc, key)
    for name, content in contents(plain).items():
        begin = int(place * len(content))
        part = bytearray(max(0, min(5000, len(content) - begin)))
        files.read_into(name, begin, part)
        assert part == content[begin : begin + len(part)]
    # One bit anywhere, in any file.
    every = sorted(file for file in enc.rglob("*") if file.is_file())
    offset = int(place * sum(file.stat().st_size for file in every))
    for file in every:
        if offset < file.stat().st_size:
            data = bytearray(file.read_bytes())
            data[offset] ^= 1 << bit
            file.write_bytes(data)
            break
        offset -= file.stat().st_size
    with pytest.raises(DecryptionError, match=re.escape(file.name)):
        crypto.verify(enc, key, progress=False)
    shutil.rmtree(folder)


def test_an_encrypted_model_answers_like_the_plain_one(
    key: crypto.Key, encrypted: Path, tiny_model_dirs: dict[str, Path]
) -> None:
    assert answer(encrypted, key=key) == answer(tiny_model_dirs["qwen2"])


@pytest.mark.parametrize("packed", ["auto", "never"])
def test_so_does_a_stock_one_and_nothing_is_written(
    packed: str, key: crypto.Key, tiny_stock_dirs: dict[str, Path], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("OVFAST_CACHE", str(tmp_path / "cache"))
    stock = tiny_stock_dirs["qwen2"]
    made = crypto.encrypt(stock, tmp_path / "enc", key, progress=False)
    assert any("not packed" in note for note in made.notes)
    before = contents(tmp_path)
    with ovfast.LLM(
        tmp_path / "enc", key=key, packed=packed, kv_cache_gb=0.1, progress=False
    ) as llm:
        ours = list(llm.generate(PROMPT, max_new_tokens=12, ignore_eos=True).token_ids)
        notes = llm.info.notes
        assert llm.info.packed_dir == Path()
        assert llm.info.packed == (packed == "auto")
    assert contents(tmp_path) == before
    assert any("every load packs it" in note for note in notes) == (packed == "auto")
    assert ours == answer(stock, packed=packed)


def test_chat_works_after_the_key_is_forgotten(
    key: crypto.Key, encrypted: Path, tiny_model_dirs: dict[str, Path]
) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    answers = []
    for source, options in ((encrypted, {"key": key}), (tiny_model_dirs["qwen2"], {})):
        with ovfast.LLM(source, kv_cache_gb=0.1, progress=False, **options) as llm:
            answers.append(llm.chat(messages, max_new_tokens=5).text)
            if options:
                with pytest.raises(DecryptionError, match="closed"):
                    llm._model.files.read("config.json")
    assert answers[0] == answers[1]


def test_caches_in_clear_are_refused(key: crypto.Key, encrypted: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="CACHE_DIR is refused.*in clear"):
        ovfast.LLM(
            encrypted, key=key, properties={"CACHE_DIR": str(tmp_path / "c")}, progress=False
        )
    assert not (tmp_path / "c").exists()


def test_plain_openvino_runs_it(key: crypto.Key, tiny_stock_dirs: dict[str, Path], tmp_path: Path):
    import openvino as ov

    stock = tiny_stock_dirs["qwen2"]
    crypto.encrypt(stock, tmp_path / "enc", key, progress=False)
    core = ov.Core()

    def logits(model: ov.Model) -> np.ndarray:
        compiled = core.compile_model(model, "CPU")
        del model
        gc.collect()
        request = compiled.create_infer_request()
        ids = np.arange(1, 9, dtype=np.int64)[None]
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        inputs["position_ids"] = np.arange(8)[None]
        inputs["beam_idx"] = np.zeros(1, np.int32)
        names = {name for port in compiled.inputs for name in port.names}
        request.infer({name: value for name, value in inputs.items() if name in names})
        return np.array(request.get_tensor("logits").data)

    plain = logits(core.read_model(stock / "openvino_model.xml"))
    # The model is dropped while the compiled one lives, which may refer to the same memory.
    for _ in range(3):
        np.testing.assert_array_equal(logits(crypto.open_model(tmp_path / "enc", key)), plain)
    with pytest.raises(ModelError, match="no file unet"):
        crypto.open_model(tmp_path / "enc", key, xml="unet.xml")


def test_a_packed_model_opens_in_plain_openvino(key: crypto.Key, encrypted: Path) -> None:
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(crypto.open_model(encrypted, key, core=core), "CPU")
    assert {"logits"} == {name for port in compiled.outputs for name in port.names}


def test_key_and_directory_must_fit(
    key: crypto.Key, encrypted: Path, tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    plain = tiny_model_dirs["qwen2"]
    with pytest.raises(DecryptionError, match="is encrypted: give its key"):
        ovfast.LLM(encrypted, progress=False)
    with pytest.raises(DecryptionError, match="is encrypted: give its key"):
        ovfast.export(encrypted, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="is not encrypted, but a key was given"):
        ovfast.LLM(plain, key=key, progress=False)
    with pytest.raises(DecryptionError, match="the key is wrong"):
        ovfast.LLM(encrypted, key=crypto.Key.generate(), progress=False)
    with pytest.raises(ValueError, match="32 bytes, got 31"):
        ovfast.LLM(encrypted, key=bytes(31), progress=False)
    with pytest.raises(TypeError, match="key: expected a Key"):
        ovfast.LLM(encrypted, key=1, progress=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"is no encrypted directory"):
        ovfast.LLM(tmp_path / "model.gguf", key=key, progress=False)


@pytest.mark.parametrize(
    "name",
    [
        *("ovfast.encrypted", "openvino_model.xml.enc", "openvino_model.bin.enc"),
        *("openvino_tokenizer.xml.enc", "openvino_detokenizer.bin.enc", "config.json.enc"),
        *("openvino_model.packed.enc", "openvino_tokenizer.bin.enc"),
    ],
)
@pytest.mark.parametrize("where", ["head", "body", "end", "cut"])
def test_damage_stops_a_load_and_is_named(
    name: str, where: str, key: crypto.Key, copy: Path
) -> None:
    file = copy / name
    data = bytearray(file.read_bytes())
    if where == "cut":
        del data[-1]
    else:
        data[{"head": 20, "body": len(data) // 2, "end": -1}[where]] ^= 1
    file.write_bytes(data)
    with pytest.raises(DecryptionError, match=re.escape(name)) as raised:
        ovfast.LLM(copy, key=key, kv_cache_gb=0.1, progress=False).generate("a", max_new_tokens=1)
    assert "Traceback" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_files_of_two_models_cannot_be_exchanged(
    key: crypto.Key, copy: Path, tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    crypto.encrypt(tiny_model_dirs["qwen2"], tmp_path / "twin", key, progress=False)
    shutil.copy(tmp_path / "twin" / "openvino_model.bin.enc", copy)
    with pytest.raises(DecryptionError, match=r"openvino_model\.bin\.enc.*another model"):
        ovfast.LLM(copy, key=key, progress=False)


def test_nothing_shows_a_key(key: crypto.Key, tmp_path: Path) -> None:
    key.write(tmp_path / "k")
    digits = (tmp_path / "k").read_text().strip()
    shown = [repr(key), str(key), key.origin, repr(crypto.Key.from_file(tmp_path / "k"))]
    shown.append(repr(crypto.OpenSslCipher("aes-256-cbc", digits, "0" * 32)))
    for text in shown:
        assert digits[:8] not in text
    assert repr(crypto.Key.from_file(tmp_path / "k")) == f"Key(key file '{tmp_path / 'k'}')"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(key)
    with pytest.raises(ValueError, match="64 hexadecimal digits") as raised:
        (tmp_path / "bad").write_text(digits[:-1])
        crypto.Key.from_file(tmp_path / "bad")
    assert digits[:8] not in str(raised.value)


def test_rekey_and_passphrase(key: crypto.Key, copy: Path) -> None:
    passphrase = crypto.Key.from_passphrase("correct horse battery staple")
    data = (copy / "openvino_model.bin.enc").read_bytes()
    crypto.rekey(copy, key, passphrase)
    assert (copy / "openvino_model.bin.enc").read_bytes() == data
    with pytest.raises(DecryptionError, match="opens with a passphrase, got a key"):
        crypto.list_files(copy, key)
    with pytest.raises(DecryptionError, match="the passphrase is wrong"):
        crypto.list_files(copy, crypto.Key.from_passphrase("correct horse battery stable"))
    assert crypto.list_files(copy, passphrase).passphrase
    assert len(answer(copy, key=passphrase)) == 12


# What lies in the memory of a process, seen from outside.

_SCRIPT = """
import gc, sys
import ovfast
llm = ovfast.LLM(sys.argv[1], key=sys.argv[2] or None, kv_cache_gb=0.1, progress=False)
llm.generate("The quick brown fox", max_new_tokens=4, ignore_eos=True)
print("open", flush=True)
sys.stdin.readline()
llm.close()
gc.collect()
print("closed", flush=True)
sys.stdin.readline()
"""


def memory_of(process: int) -> Iterator[bytes]:
    with (
        Path(f"/proc/{process}/maps").open() as maps,
        Path(f"/proc/{process}/mem").open("rb", 0) as memory,
    ):
        for line in maps:
            fields = line.split()
            if not fields[1].startswith("r") or fields[-1] in ("[vvar]", "[vsyscall]"):
                continue
            begin, end = (int(number, 16) for number in fields[0].split("-"))
            try:
                memory.seek(begin)
                yield memory.read(end - begin)
            except OSError:
                continue  # a device, or gone meanwhile


def found_in(process: int, wanted: dict[str, list[bytes]]) -> dict[str, int]:
    counts = dict.fromkeys(wanted, 0)
    for region in memory_of(process):
        for name, windows in wanted.items():
            counts[name] += sum(window in region for window in windows)
    return counts


def windows_of(data: bytes, size: int, count: int) -> list[bytes]:
    step = max(1, (len(data) - size) // count)
    found = (data[at : at + size] for at in range(0, len(data) - size, step))
    return [window for window in found if len(set(window)) > size // 3]


def test_memory_is_clean_after_close(
    encrypted: Path, key: crypto.Key, tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    key.write(tmp_path / "model.key")
    digits = (tmp_path / "model.key").read_text().strip()
    plain = tiny_model_dirs["qwen2"]
    xml = (plain / "openvino_model.xml").read_bytes()
    wanted = {
        "topology": windows_of(xml, 96, 200),
        "weights": windows_of((plain / "openvino_model.bin").read_bytes(), 32, 100),
        "key": [bytes.fromhex(digits), digits.encode()],
    }
    assert all(wanted.values())
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(encrypted), str(tmp_path / "model.key")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        running = found_in(child.pid, wanted)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "closed\n"
        closed = found_in(child.pid, wanted)
        child.stdin.write("\n")
        child.stdin.flush()
    assert child.returncode == 0
    assert running["weights"] > 0  # or we would not know that the search finds anything
    assert closed == {"topology": 0, "weights": 0, "key": 0}


# What is written.


def hunted(plain: Path) -> set[bytes]:
    """16 bytes at every 16th place: any 32 consecutive bytes of a file hold one of them."""
    found = set()
    for name in ("openvino_model.bin", "openvino_model.xml", "openvino_tokenizer.bin"):
        data = (plain / name).read_bytes()
        pieces = (data[at : at + 16] for at in range(0, len(data) - 16, 16))
        found |= {piece for piece in pieces if len(set(piece)) > 8}
    return found


def hits(data: bytes, wanted: set[bytes]) -> int:
    return sum(data[at : at + 16] in wanted for at in range(len(data) - 15))


def written_by(trace: Path) -> bytes:
    strings = re.findall(r'"((?:\\x[0-9a-f]{2})+)"', trace.read_text(errors="replace"))
    return b"\0".join(bytes.fromhex(text.replace("\\x", "")) for text in strings)


@pytest.mark.skipif(
    shutil.which("strace") is None,
    reason="strace is missing: install it (tools/system_packages.sh --tests) to see what is written",
)
@pytest.mark.parametrize("stock", [False, True])
def test_nothing_that_is_written_is_plaintext(
    stock: bool,
    key: crypto.Key,
    tiny_model_dirs: dict[str, Path],
    tiny_stock_dirs: dict[str, Path],
    tmp_path: Path,
) -> None:
    plain = (tiny_stock_dirs if stock else tiny_model_dirs)["qwen2"]
    wanted = hunted(plain)
    key.write(tmp_path / "model.key")
    crypto.encrypt(plain, tmp_path / "model.enc", key, progress=False)
    places = {name: tmp_path / name for name in ("home", "cache", "tmp", "work")}
    for place in places.values():
        place.mkdir()
    environment = {
        **os.environ,
        "HOME": str(places["home"]),
        "OVFAST_CACHE": str(places["cache"]),
        "TMPDIR": str(places["tmp"]),
    }

    def traced(*arguments: str) -> bytes:
        trace = tmp_path / "trace"
        calls = "write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,memfd_create"
        command = ["strace", "-f", "-qq", "-xx", "-s", "1000000000", "-e", f"trace={calls}"]
        result = subprocess.run(
            [*command, "-o", str(trace), sys.executable, "-m", "ovfast", *arguments],
            cwd=places["work"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return written_by(trace)

    options = ("--key-file", str(tmp_path / "model.key"))
    written = traced(
        *("run", str(tmp_path / "model.enc"), "Hello", "--max-new-tokens", "4"),
        *("--kv-cache-gb", "0.1", *options),
    )
    assert written  # the report, at least
    assert hits(written, wanted) == 0
    for place in places.values():
        for file in place.rglob("*"):
            if file.is_file():
                assert hits(file.read_bytes(), wanted) == 0, file
    # The same search finds what is there to be found.
    written = traced("decrypt", str(tmp_path / "model.enc"), "-o", str(tmp_path / "back"), *options)
    assert hits(written, wanted) > len(wanted) // 2


@pytest.mark.real_model
def test_the_demo_model_answers_the_same(
    real_model_dir: Path, tmp_path: Path, key: crypto.Key
) -> None:
    crypto.encrypt(real_model_dir, tmp_path / "enc", key, progress=False)
    prompt = "def factorial(n):\n"
    answers = []
    for source, options in ((real_model_dir, {}), (tmp_path / "enc", {"key": key})):
        with ovfast.LLM(source, kv_cache_gb=0.5, progress=False, **options) as llm:
            answers.append(list(llm.generate(prompt, max_new_tokens=32).token_ids))
    assert answers[0] == answers[1]


_PEAK = """
import sys
import ovfast
from ovfast import _core
llm = ovfast.LLM(sys.argv[1], key=sys.argv[2] or None, kv_cache_gb=0.5, progress=False)
print(_core.read_process_memory().peak_rss)
"""


@pytest.mark.real_model
def test_loading_the_demo_model_holds_no_second_copy(
    real_model_dir: Path, tmp_path: Path, key: crypto.Key
) -> None:
    """16 MiB at most beside the weights. A plain load maps as many bytes as are decrypted here."""
    crypto.encrypt(real_model_dir, tmp_path / "enc", key, progress=False)
    key.write(tmp_path / "model.key")
    peaks = []
    for source, with_key in ((real_model_dir, ""), (tmp_path / "enc", tmp_path / "model.key")):
        command = [sys.executable, "-c", _PEAK, str(source), str(with_key)]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks.append(int(child.stdout))
    assert peaks[1] - peaks[0] < 16 << 20


def test_models_of_several_folders_are_covered(tmp_path: Path, key: crypto.Key) -> None:
    files = {
        "model_index.json": b"{}",
        "unet/openvino_model.xml": b"<net></net>",
        "unet/openvino_model.bin": bytes(1000),
        "adapters/style/adapter_model.safetensors": b"x" * 100,
        "kernels/op.cl": b"__kernel",
    }
    for name, data in files.items():
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / name).write_bytes(data)
    (tmp_path / "plain" / ".ovfast").mkdir()
    (tmp_path / "plain" / ".ovfast" / "packed").write_bytes(b"of this machine")
    made = crypto.encrypt(tmp_path / "plain", tmp_path / "enc", key, progress=False)
    assert {file.name: file.role for file in made.files} == {
        "model_index.json": "config",
        "unet/openvino_model.xml": "topology",
        "unet/openvino_model.bin": "weights",
        "adapters/style/adapter_model.safetensors": "adapter",
        "kernels/op.cl": "kernel",
    }
    opened = crypto.open_files(tmp_path / "enc", key)
    for name, data in files.items():
        assert name in opened
        assert bytes(opened.read(name)) == data
    assert "config.json" not in opened
    with pytest.raises(ModelError, match=r"has no file config\.json"):
        opened.read("config.json")


Tiny = Callable[[str, str], tuple[Path, Path]]


def test_inspect_and_tune_take_a_key(key: crypto.Key, encrypted: Path) -> None:
    from ovfast.model_dir import ModelDir

    model = ModelDir.check(encrypted, key)
    assert model.packed
    report = _core.inspect_packing(model.files)
    assert report.packed
    assert all(layer.format for layer in report.layers if layer.operation)


def test_eval_takes_a_key(
    key: crypto.Key, encrypted: Path, tiny_model_dirs: dict[str, Path]
) -> None:
    options = {
        "positions": 40,
        "context": 32,
        "stride": 16,
        "max_new_tokens": 32,
        "progress": False,
    }
    plain = tiny_model_dirs["qwen2"]
    ours = ovfast.evaluate(encrypted, plain, allow_degenerate=True, key=key, **options)
    assert ours.text is not None
    assert ours.text.top1_agreement == 1.0
    assert ours.layers is not None
    assert ours.layers.layers
    assert ours.speed is not None
    assert ours.speed.weights_bytes == (plain / "openvino_model.bin").stat().st_size
    with pytest.raises(DecryptionError, match="is encrypted: give its key"):
        ovfast.evaluate(encrypted, **options)
    with pytest.raises(ValueError, match="is not encrypted, but a key was given"):
        ovfast.evaluate(plain, key=key, **options)


def test_a_key_goes_through_a_pipe() -> None:
    for sent in (crypto.Key.generate(), crypto.Key.from_passphrase("open sesame")):
        receiver, sender = os.pipe()
        sent.send(sender)
        os.close(sender)
        got = crypto.Key.receive(receiver)
        assert got.is_passphrase == sent.is_passphrase
        with pytest.raises(ovfast.Error, match="sent no key"):
            crypto.Key.receive(receiver)
        os.close(receiver)


_STREAMING = """
import sys
from pathlib import Path
from ovfast import _core, crypto
plain, enc, back = (Path(sys.argv[1]) / name for name in ("plain", "enc", "back"))
plain.mkdir()
with (plain / "small").open("wb") as small:
    small.write(bytes(5 << 20))
with (plain / "weights.bin").open("wb") as weights:
    weights.truncate(400 << 20)
key = crypto.Key.generate()
before = _core.read_process_memory().peak_rss
crypto.encrypt(plain, enc, key, progress=False)
crypto.verify(enc, key, progress=False)
crypto.decrypt(enc, back, key, progress=False)
assert (back / "weights.bin").stat().st_size == 400 << 20
print(_core.read_process_memory().peak_rss - before)
"""


def test_memory_does_not_grow_with_files(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STREAMING, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 << 20
