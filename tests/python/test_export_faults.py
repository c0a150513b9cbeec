"""Export of files that are no good, on disks that are no good, and in processes that are killed."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny_models
from gguf import GGMLQuantizationType as Type

from ovfast import _core
from ovfast.cache import cached_export
from ovfast.errors import Error, ModelError
from ovfast.export import export
from ovfast.export.staging import Staging, locked
from ovfast.model_dir import ModelDir

# As `ovfast export` does it, with room for a failure to be put in front.
SCRIPT = "import sys; from ovfast.export import export; export(sys.argv[1], sys.argv[2])"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_gguf(tmp_path_factory.mktemp("source") / "tiny.gguf")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that an export can be caught in the middle."""
    shape = tiny_models.Shape(layers=8, hidden=1024, heads=32, feed_forward=2048)
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    return tiny_models.write_gguf(path, "qwen2", Type.F16, shape=shape)


def start(source: Path, target: Path, script: str = SCRIPT) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(source), str(target)],
        stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def content(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("share", [0.999, 0.6])
def test_truncated_file(source: Path, tmp_path: Path, share: float) -> None:
    data = source.read_bytes()
    cut = write(tmp_path / "cut.gguf", data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"tensor '.*' \(\w+\) is cut off: expected \d+ bytes"):
        export(cut, tmp_path / "dir")
    assert content(tmp_path) == ["cut.gguf"]


def test_file_that_ends_in_its_header(source: Path, tmp_path: Path) -> None:
    cut = write(tmp_path / "cut.gguf", source.read_bytes()[:3000])
    with pytest.raises(
        ModelError, match=r"ends inside its header: metadata 'tokenizer.ggml.tokens'"
    ):
        export(cut, tmp_path / "dir")
    assert content(tmp_path) == ["cut.gguf"]


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a GGUF file"):
        export(write(tmp_path / "zip.gguf", b"PK\3\4" * 100), tmp_path / "dir")
    with pytest.raises(ModelError, match="does not exist"):
        export(tmp_path / "nothing.gguf", tmp_path / "dir")
    assert content(tmp_path) == ["zip.gguf"]


def test_tensor_that_is_missing(tmp_path: Path) -> None:
    """A tensor that the graph needs has another name."""
    shape = tiny_models.Shape(layers=3)
    data = tiny_models.write_gguf(tmp_path / "m.gguf", shape=shape).read_bytes()
    assert data.count(b"blk.1.attn_k.weight") == 1
    broken = write(
        tmp_path / "m.gguf", data.replace(b"blk.1.attn_k.weight", b"blk.1.attn_k.weighs")
    )
    with pytest.raises(ModelError, match=r"cannot be converted: .*lacks 'blk.1.attn_k.weight'"):
        export(broken, tmp_path / "dir")
    assert content(tmp_path) == ["m.gguf"]


def test_unsupported_architecture(tmp_path: Path) -> None:
    path = tiny_models.write_gguf(tmp_path / "m.gguf", "starcoder2")
    with pytest.raises(ModelError, match=r"'starcoder2'.*Supported are: .*llama.*qwen3"):
        export(path, tmp_path / "dir")
    assert content(tmp_path) == ["m.gguf"]


def test_unsupported_tensor_type(tmp_path: Path) -> None:
    shape = tiny_models.Shape(hidden=256, heads=8)
    path = tiny_models.write_gguf(tmp_path / "m.gguf", "qwen2", Type.TQ2_0, shape=shape)
    with pytest.raises(
        ModelError, match=r"tensor '.*weight' has type TQ2_0.*Supported are: .*Q4_K"
    ):
        export(path, tmp_path / "dir")
    assert content(tmp_path) == ["m.gguf"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("attention.head_count_kv", 0, "at least 1"),  # the frontend divides by it
        ("attention.head_count", 3, "cannot be converted"),
        ("block_count", 0, "at least 1"),
        ("block_count", 3, r"cannot be converted: .*blk\.2\."),
        ("embedding_length", 96, r"token_embd\.weight', 128"),
        ("rope.dimension_count", 64, "size of a head, 32"),
    ],
)
def test_contradicting_hyperparameters(
    source: Path, tmp_path: Path, key: str, value: int, expected: str
) -> None:
    data = source.read_bytes()
    entry = f"qwen2.{key}".encode() + (4).to_bytes(4, "little")
    assert data.count(entry) == 1
    at = data.index(entry) + len(entry)
    broken = data[:at] + value.to_bytes(4, "little") + data[at + 4 :]
    with pytest.raises(ModelError, match=expected):
        export(write(tmp_path / "m.gguf", broken), tmp_path / "dir")
    assert content(tmp_path) == ["m.gguf"]


def test_part_of_a_split_model(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen2")
    writer.add_uint16("split.count", 3)
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="one of 3 parts"):
        export(tmp_path / "m.gguf", tmp_path / "dir")


@pytest.mark.parametrize("kind", ["outside", "missing", "invalid"])
def test_unusable_vocabulary(source: Path, tmp_path: Path, kind: str) -> None:
    """The child's error surfaces here, and the conversion beside it ends."""
    data = source.read_bytes()
    if kind == "outside":
        key = b"tokenizer.ggml.eos_token_id" + (4).to_bytes(4, "little")
        at = data.index(key) + len(key)
        data = data[:at] + b"\xff\xff\x00\x00" + data[at + 4 :]
        expected = r"'tokenizer.ggml.eos_token_id' is 65535, but the vocabulary has \d+ tokens"
    elif kind == "missing":
        data = data.replace(b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokenz")
        expected = "vocabulary has 0 tokens"
    else:
        data = data.replace(b"<|im_start|>", b"<|im_\xff\xfeart|>", 1)
        expected = "not valid UTF-8"
    with pytest.raises(ModelError, match=expected):
        export(write(tmp_path / "m.gguf", data), tmp_path / "dir")
    assert content(tmp_path) == ["m.gguf"]


def test_child_that_dies(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Error, match="process that converts the tokenizer failed: exit code 1"):
        export(source, tmp_path / "dir")
    assert content(tmp_path) == []


def test_target_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "dir", Path("/proc/ovfast/dir"), Path("/proc/dir")):
        with pytest.raises(Error, match="cannot"):
            export(source, target)
    with pytest.raises(ValueError, match="not a directory"):
        export(source, tmp_path / "file")
    assert content(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_target(source: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(Error, match="Permission denied"):
            export(source, tmp_path / "dir")
    finally:
        tmp_path.chmod(0o755)


def test_read_only_cache(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVFAST_CACHE", "/proc/ovfast")
    with pytest.raises(Error, match=r"cache '/proc/ovfast' cannot be written.*Set OVFAST_CACHE"):
        cached_export(source)


def test_write_that_fails(source: Path, tmp_path: Path) -> None:
    """A quota hits in the middle of the weights; ov::serialize would not notice."""
    limit = 100_000
    script = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));" + SCRIPT
    )
    process = start(source, tmp_path / "dir", script)
    errors = process.communicate()[1].decode()
    assert process.returncode == 1
    assert "openvino_model.bin' failed" in errors
    assert "Free some space" in errors
    assert content(tmp_path) == []


@contextlib.contextmanager
def small_disk(directory: Path, size: int) -> Iterator[Path]:
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("cannot mount a small file system")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_full_disk(source: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        with pytest.raises(Error, match=r"not enough disk space.*needs \d+ MB, free are \d+ MB"):
            export(source, disk / "dir")
        assert content(disk) == []


def test_disk_full_of_tokenizer(source: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        with pytest.raises(Error):
            export(source, disk / "dir")
        assert content(disk) == []


def children(process: int) -> list[int]:
    return [
        int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


def wait_until_dead(process: int) -> None:
    deadline = time.monotonic() + 10
    with contextlib.suppress(FileNotFoundError):
        while "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_killed_export_is_repaired(large: Path, tmp_path: Path) -> None:
    process = start(large, tmp_path / "dir")
    weights = tmp_path / ".dir.ovfast-partial" / "openvino_model.bin"
    wait_for(lambda: weights.exists() and bool(children(process.pid)), process)
    (child,) = children(process.pid)
    process.kill()
    process.communicate()
    assert not (tmp_path / "dir").exists()
    assert weights.exists()
    wait_until_dead(child)
    export(large, tmp_path / "dir")
    ModelDir.check(tmp_path / "dir")
    assert content(tmp_path) == ["dir"]


def test_child_ends_without_its_parent(source: Path, tmp_path: Path) -> None:
    """The parent's end of its standard input is closed: nothing of the work is done."""
    command = [sys.executable, "-m", "ovfast.export.tokenizer", str(source), str(tmp_path)]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=False
    )
    assert ended.returncode == 1
    assert "openvino_tokenizer.xml" not in content(tmp_path)


@pytest.mark.parametrize("moment", ["beginning", "weights"])
def test_interrupt_leaves_nothing(large: Path, tmp_path: Path, moment: str) -> None:
    process = start(large, tmp_path / "new" / "dir")
    partial = tmp_path / "new" / ".dir.ovfast-partial"
    file = partial if moment == "beginning" else partial / "openvino_model.bin"
    wait_for(lambda: file.exists() and bool(children(process.pid)), process)
    (child,) = children(process.pid)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=30)[1].decode()
    assert process.returncode == -signal.SIGINT, errors
    assert "KeyboardInterrupt" in errors
    wait_until_dead(child)
    assert content(tmp_path) == []


def test_two_exports_at_once(source: Path, tmp_path: Path) -> None:
    script = SCRIPT.replace("export(sys", "r = export(sys") + "; sys.exit(10 if r.reused else 20)"
    both = [start(source, tmp_path / "dir", script) for _ in range(2)]
    errors = [process.communicate()[1].decode() for process in both]
    assert sorted(process.returncode for process in both) == [10, 20], errors
    ModelDir.check(tmp_path / "dir")
    assert content(tmp_path) == ["dir"]


@pytest.mark.parametrize("moves", range(8))
def test_replacement_that_is_cut_off_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    """Killed after any of the moves, it is never taken for a whole model and finished later."""
    target = tmp_path / "dir"
    names = ["config.json", "openvino_model.bin", "openvino_model.xml", "ovfast.json"]
    target.mkdir()
    for name in [*names, "chat_template.jinja", "precious.txt"]:
        (target / name).write_text("old")
    rename, done = Path.rename, []

    def rename_or_die(path: Path, to: Path) -> Path:
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(to.name)
        return rename(path, to)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Path, "rename", rename_or_die)
        with Staging(target) as staging:
            for name in names:
                (staging.path / name).write_text("new")
            staging.commit()
    if "openvino_model.xml" in content(target):
        texts = {(target / name).read_text() for name in names if (target / name).exists()}
        assert texts == {"new"} if moves else {"old"}
    assert done[2:] == names[: max(0, moves - 2)]  # the model after its parts, the manifest last
    with locked(target, waiting=lambda: None):
        pass
    wanted = "new" if moves else "old"
    assert {(target / name).read_text() for name in names} == {wanted}
    assert (target / "precious.txt").read_text() == "old"
    assert ("chat_template.jinja" in content(target)) is (moves == 0)
    assert not [name for name in content(target) if name.startswith(".")]


def test_killed_export_into_a_directory_is_repaired(large: Path, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    process = start(large, tmp_path / "dir")
    weights = tmp_path / "dir" / ".ovfast-partial" / "openvino_model.bin"
    wait_for(weights.exists, process)
    process.kill()
    process.communicate()
    with pytest.raises(ModelError, match=r"no openvino_model\.xml.*cut off"):
        ModelDir.check(tmp_path / "dir")
    export(large, tmp_path / "dir")
    ModelDir.check(tmp_path / "dir")
    assert content(tmp_path) == ["dir"]
    assert not [name for name in content(tmp_path / "dir") if name.startswith(".")]


def test_two_exports_at_once_into_a_directory(source: Path, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    test_two_exports_at_once(source, tmp_path)


def test_lock_follows_a_directory_that_appears(tmp_path: Path) -> None:
    """Whoever waited for a name goes on with the directory that came, as newcomers do."""
    target = tmp_path / "dir"
    waits, got = threading.Event(), threading.Event()

    def second() -> None:
        with locked(target, waiting=waits.set):
            assert content(target) == [".ovfast-lock"]
            got.set()

    thread = threading.Thread(target=second)
    with locked(target, waiting=lambda: None):
        thread.start()
        assert waits.wait(10)
        target.mkdir()
    thread.join(10)
    assert got.is_set()
    assert content(tmp_path) == ["dir"]
    assert content(target) == []


def test_mount_point(source: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 << 20) as disk:
        (disk / "lost+found").mkdir()
        export(source, disk)
        ModelDir.check(disk)
        assert content(tmp_path) == ["disk"]
        export(source, disk, force=True)
        ModelDir.check(disk)


def test_staging_without_commit_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "model").write_text("old")
    with pytest.raises(KeyboardInterrupt), Staging(tmp_path / "dir") as staging:
        (staging.path / "model").write_text("new")
        raise KeyboardInterrupt
    assert (tmp_path / "dir" / "model").read_text() == "old"
    assert content(tmp_path) == ["dir"]


def test_absurd_counts_cost_nothing(source: Path, tmp_path: Path) -> None:
    """A header that claims more than the file holds costs neither memory nor time."""
    data = bytearray(source.read_bytes())
    data[8:16] = (1 << 60).to_bytes(8, "little")  # the number of tensors
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match="tensor list"):
        _core.read_gguf_header(write(tmp_path / "m.gguf", bytes(data)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
