"""Packed directories: made once, checked at every load, never used when they are not whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from cli_harness import Ovfast
from gguf import GGMLQuantizationType as Type

import ovfast
from ovfast import _core
from ovfast.errors import Error, ModelError
from ovfast.model_dir import PACK_MANIFEST, ModelDir
from ovfast.ops import library_path
from ovfast.reference import ReferenceLLM

PROMPT = [5, 9, 13, 40, 41]
OPTIONS = {"max_new_tokens": 8, "ignore_eos": True}
LOAD = "import sys, ovfast; print(ovfast.LLM(sys.argv[1], kv_cache_gb=0.01).info.packed_dir)"


@pytest.fixture
def stock(tiny_stock_dirs: dict[str, Path], tmp_path: Path) -> Path:
    """A stock directory of one's own, without what other tests packed in it."""
    source, ignore = tiny_stock_dirs["qwen2"], shutil.ignore_patterns(".ovfast")
    return Path(shutil.copytree(source, tmp_path / "stock", ignore=ignore))


@pytest.fixture
def packed(tiny_model_dirs: dict[str, Path], tmp_path: Path) -> Path:
    """A packed directory of one's own."""
    return Path(shutil.copytree(tiny_model_dirs["qwen2"], tmp_path / "packed"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVFAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tokens(source: Path, **options: object) -> tuple[list[int], _core.EngineInfo]:
    with ovfast.LLM(source, kv_cache_gb=0.01, progress=False, **options) as llm:
        return llm.generate(PROMPT, **OPTIONS).token_ids, llm.info


def run(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
    )


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def segments(directory: Path) -> list[tuple[int, int]]:
    """Packed weights in a .bin: offset and length."""
    lines = (directory / PACK_MANIFEST).read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    return [(int(row[1]), int(row[2])) for row in rows if row[0] == "packed"]


def outside(directory: Path) -> int:
    """An offset in the .bin that is no packed weight's, and not padding."""
    data = (directory / "openvino_model.bin").read_bytes()
    taken = segments(directory)
    return next(
        at
        for at, byte in enumerate(data)
        if byte and not any(first <= at < first + size for first, size in taken)
    )


DAMAGES: dict[str, Callable[[Path], None]] = {
    "packed weights": lambda d: flip(d / "openvino_model.bin", segments(d)[1][0] + 500),
    "header of packed weights": lambda d: flip(d / "openvino_model.bin", segments(d)[1][0] + 9),
    "last packed byte": lambda d: flip(d / "openvino_model.bin", sum(segments(d)[-1]) - 1),
    "another constant": lambda d: flip(d / "openvino_model.bin", outside(d)),
    "graph": lambda d: flip(d / "openvino_model.xml", 4000),
    "manifest": lambda d: flip(d / PACK_MANIFEST, 60),
    "truncated weights": lambda d: os.truncate(
        d / "openvino_model.bin", (d / "openvino_model.bin").stat().st_size - 1
    ),
    "layout": lambda d: (d / PACK_MANIFEST).write_text(
        (d / PACK_MANIFEST).read_text().replace("layout\t1\n", "layout\t2\n")
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_directory_is_refused(packed: Path, damage: Callable[[Path], None]) -> None:
    damage(packed)
    with pytest.raises(ModelError, match=r"damaged|truncated|cannot be used"):
        tokens(packed)
    with pytest.raises(ModelError):
        _core.inspect_packing(packed)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_packing_of_a_stock_directory_is_made_anew(
    stock: Path, damage: Callable[[Path], None]
) -> None:
    expected, info = tokens(stock)
    assert info.packed_dir == stock / ".ovfast" / "packed-v1"
    weights = (info.packed_dir / "openvino_model.bin").read_bytes()
    damage(info.packed_dir)
    assert tokens(stock)[0] == expected
    # The names of nodes, and so the graph's text, differ from time to time.
    assert (info.packed_dir / "openvino_model.bin").read_bytes() == weights
    _core.inspect_packing(info.packed_dir)


def test_a_damaged_export_in_the_cache_is_made_anew(tmp_path: Path, cache: Path) -> None:
    gguf = tiny_models.write_gguf(tmp_path / "tiny.gguf")
    expected, info = tokens(gguf)
    assert info.packed
    (directory,) = (cache / "models").iterdir()
    DAMAGES["packed weights"](directory)
    assert tokens(gguf)[0] == expected
    _core.inspect_packing(directory)


def test_a_packed_directory_without_its_manifest_is_refused(packed: Path) -> None:
    (packed / PACK_MANIFEST).unlink()
    with pytest.raises(ModelError, match=rf"no {PACK_MANIFEST}"):
        tokens(packed)


def test_a_stock_directory_is_packed_once(stock: Path) -> None:
    _, info = tokens(stock)
    assert info.packed
    assert info.unpacked_layers == 0
    assert info.notes == []
    binary = info.packed_dir / "openvino_model.bin"
    before = binary.stat().st_ino
    tokens(stock)
    assert binary.stat().st_ino == before
    # The same content in new files: hashed, and found to be the same.
    for file in stock.glob("openvino_model.*"):
        os.utime(file, ns=(1, 1))
    tokens(stock)
    assert binary.stat().st_ino == before


def test_other_weights_are_packed_anew(stock: Path) -> None:
    before = tokens(stock)[1].weights_bytes
    other = stock.parent / "other.gguf"
    tiny_models.write_gguf(other, "qwen2", Type.Q8_0, seed=1)
    ovfast.export(other, stock, progress=False, force=True, packed=False)
    _, info = tokens(stock)
    assert info.packed_dir == stock / ".ovfast" / "packed-v1"
    assert info.weights_bytes != before


def test_packed_and_stock_graph_compute_the_same(stock: Path) -> None:
    """F16 weights: packing changes no value, and exact activations round nothing."""
    exact = {
        "properties": {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"},
        "activation_precision": "exact",
    }
    fused, info = tokens(stock, **exact)
    plain, stock_info = tokens(stock, packed="never", **exact)
    assert (info.packed, stock_info.packed) == (True, False)
    assert fused == plain


def test_never_is_for_stock_directories(packed: Path) -> None:
    with pytest.raises(ValueError, match=r"packed is 'never', but .* packed model.*--no-pack"):
        tokens(packed, packed="never")


@pytest.mark.parametrize("option", ["packed", "activation_precision"])
def test_options_of_another_value_are_refused(stock: Path, option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} is 'yes', expected '\w+'.* or '\w+'"):
        tokens(stock, **{option: "yes"})
    with pytest.raises(TypeError, match=rf"{option}: expected str"):
        tokens(stock, **{option: True})


@pytest.mark.parametrize("tiles", [{"tile_kb": 1}, {"tile_kb": 4096, "tile_columns": 64}])
def test_tiles_change_no_result(packed: Path, tiles: dict[str, int]) -> None:
    assert tokens(packed, **tiles)[0] == tokens(packed)[0]


@pytest.mark.parametrize("option", ["tile_kb", "tile_columns"])
def test_tiles_that_cannot_be_are_refused(stock: Path, option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} is 64, but packed is 'never'"):
        tokens(stock, **{option: 64}, packed="never")
    with pytest.raises(ValueError, match=rf"{option} is 0, expected a positive number or None"):
        tokens(stock, **{option: 0})
    with pytest.raises(ValueError, match=rf"{option} is 2000000, expected 1 to 1048576"):
        tokens(stock, **{option: 2_000_000})


def test_where_the_directory_cannot_be_written_the_cache_is(stock: Path, cache: Path) -> None:
    (stock / ".ovfast").touch()  # stands in for a directory that is read-only: root may write those
    expected, info = tokens(stock)
    assert info.packed_dir.parent == cache / "packed"
    assert info.packed_dir.name.endswith("-v1")
    before = (info.packed_dir / "openvino_model.bin").stat().st_ino
    assert tokens(stock)[0] == expected
    assert (info.packed_dir / "openvino_model.bin").stat().st_ino == before


def test_where_nothing_can_be_written_the_weights_are_in_memory(stock: Path, cache: Path) -> None:
    expected, _ = tokens(stock)
    shutil.rmtree(stock / ".ovfast")
    (stock / ".ovfast").touch()
    cache.touch()
    got, info = tokens(stock)
    assert got == expected
    assert info.packed
    assert info.packed_dir == Path()
    assert "in memory only" in info.notes[0]
    with pytest.raises(Error, match="no place for the packed weights"):
        _core.pack_for_loading(stock)


def test_two_processes_pack_at_once(stock: Path) -> None:
    processes = [run(LOAD, str(stock)) for _ in range(3)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.strip() == str(stock / ".ovfast" / "packed-v1")
    _core.inspect_packing(stock / ".ovfast" / "packed-v1")
    names = {file.name for file in (stock / ".ovfast").iterdir()}
    assert names == {"packed-v1", "packed-v1.lock", "source"}


def test_killed_while_it_packs_leaves_nothing_that_is_used(stock: Path) -> None:
    """Stopped in the middle by its own progress, with the staging directory there."""
    script = (
        "import sys, time\nfrom ovfast import _core\n"
        "def stop(fraction, what):\n"
        "    if 'writing' in what or fraction > 0.5:\n"
        "        print('there', flush=True)\n        time.sleep(600)\n"
        "_core.pack_for_loading(sys.argv[1], stop)\n"
    )
    process = run(script, str(stock))
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (stock / ".ovfast" / "packed-v1.partial").is_dir()
    assert not (stock / ".ovfast" / "packed-v1").exists()
    _, info = tokens(stock)
    assert info.packed_dir == stock / ".ovfast" / "packed-v1"
    assert not (stock / ".ovfast" / "packed-v1.partial").exists()


def test_who_waits_for_another_process_can_stop(stock: Path) -> None:
    holding, release = threading.Event(), threading.Event()

    def hold(fraction: float, what: str) -> None:
        holding.set()
        release.wait(60)

    holder = threading.Thread(target=_core.pack_for_loading, args=(stock, hold))
    holder.start()
    try:
        assert holding.wait(60)
        said: list[str] = []

        def give_up(fraction: float, what: str) -> bool:
            said.append(what)
            return False

        with pytest.raises(Error, match="cancelled"):
            _core.pack_for_loading(stock, give_up)
        assert said[0] == "waiting for another process that packs this model"
    finally:
        release.set()
        holder.join()


def test_cancelled_leaves_nothing(stock: Path) -> None:
    with pytest.raises(Error, match="cancelled"):
        _core.pack_for_loading(stock, lambda fraction, what: False)
    assert not list((stock / ".ovfast").glob("packed-v1*/*"))


def test_openvino_alone_runs_a_packed_directory(packed: Path) -> None:
    """A program that knows of ovfast only the path of its extension."""
    script = (
        "import sys, json, numpy as np, openvino as ov\n"
        "core = ov.Core()\ncore.add_extension(sys.argv[2])\n"
        "model = core.read_model(sys.argv[1] + '/openvino_model.xml')\n"
        "request = core.compile_model(model, 'CPU').create_infer_request()\n"
        "ids = np.array([[5, 9, 13, 40, 41]])\n"
        "inputs = {'input_ids': ids, 'attention_mask': np.ones_like(ids),\n"
        "    'position_ids': np.arange(5)[None], 'beam_idx': np.zeros(1, np.int32)}\n"
        "names = {name for port in model.inputs for name in port.get_names()}\n"
        "request.infer({k: v for k, v in inputs.items() if k in names})\n"
        "assert 'ovfast' not in sys.modules\n"
        "print(json.dumps(request.get_tensor('logits').data[0, -1].tolist()))\n"
    )
    process = run(script, str(packed), str(library_path()))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    expected = ReferenceLLM(packed, exact=False).generate(PROMPT, 1, keep_logits=True).logits
    np.testing.assert_allclose(json.loads(out.splitlines()[-1]), expected[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "tensor_type", ["Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"]
)
def test_gguf_weights_are_taken_from_the_file(tensor_type: str, tmp_path: Path) -> None:
    """Not from the converted graph, which rounds some of them: no note says so."""
    shape = tiny_models.Shape(hidden=256, feed_forward=512, head_size=64)
    try:
        gguf = tiny_models.write_gguf(tmp_path / "m.gguf", "qwen2", Type[tensor_type], shape=shape)
    except NotImplementedError:
        pytest.skip(f"the gguf package cannot write {tensor_type}")
    result = ovfast.export(gguf, tmp_path / "packed", progress=False)
    assert result.packed
    assert result.notes == []
    bits = {"4": "u4 ", "5": "u5 ", "6": "u6 ", "8": "u8 "}[tensor_type[1]]
    report = _core.inspect_packing(tmp_path / "packed")
    linear = [layer for layer in report.layers if layer.operation in ("QKV", "GatedMLP")]
    assert linear
    assert all(part.startswith(bits) for layer in linear for part in layer.format.split(", "))


def test_pack_into_a_directory_of_its_own(
    stock: Path, tmp_path: Path, ovfast_command: Ovfast
) -> None:
    target = tmp_path / "target"
    result = ovfast_command("pack", str(stock), "-o", str(target), "--json")
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert said["packed"]
    assert not said["reused"]
    assert said["unpacked_layers"] == 0
    assert ModelDir.check(target).packed
    kept = {file.name for file in stock.iterdir() if file.is_file()}
    assert {file.name for file in target.iterdir()} == kept | {PACK_MANIFEST}
    assert tokens(target)[0] == tokens(stock)[0]
    again = json.loads(ovfast_command("pack", str(stock), "-o", str(target), "--json").out)
    assert again["reused"]
    DAMAGES["packed weights"](target)
    refused = ovfast_command("pack", str(stock), "-o", str(target))
    assert refused.code == 1
    assert "--force" in refused.err
    assert ovfast_command("pack", str(stock), "-o", str(target), "--force").code == 0
    _core.inspect_packing(target)


def test_pack_beside_the_model(stock: Path, ovfast_command: Ovfast) -> None:
    result = ovfast_command("pack", str(stock))
    assert result.code == 0, result.err
    assert str(stock / ".ovfast" / "packed-v1") in result.out
    assert "already" in ovfast_command("pack", str(stock)).out
    assert "already" not in ovfast_command("pack", str(stock), "--force").out


def test_inspect_shows_every_layer(packed: Path, stock: Path, ovfast_command: Ovfast) -> None:
    result = ovfast_command("inspect", str(packed))
    assert result.code == 0, result.err
    assert all(name in result.out for name in ("QKV", "GatedMLP", "FullyConnected", "f16"))
    said = json.loads(ovfast_command("inspect", str(stock), "--json").out)
    assert said["directory"] is None
    assert not (stock / ".ovfast").exists()
    mine = json.loads(ovfast_command("inspect", str(packed), "--json").out)
    assert mine["directory"] == str(packed)
    assert [layer["formats"] for layer in mine["layers"]] == [
        layer["formats"] for layer in said["layers"]
    ]


def test_inspect_refuses_what_is_damaged(packed: Path, ovfast_command: Ovfast) -> None:
    DAMAGES["packed weights"](packed)
    result = ovfast_command("inspect", str(packed))
    assert result.code == 1
    assert "damaged" in result.err


def test_export_takes_a_packed_directory_as_it_is(packed: Path, tmp_path: Path) -> None:
    result = ovfast.export(packed, tmp_path / "copy", progress=False)
    assert result.packed
    assert not result.reused
    assert (tmp_path / "copy" / "openvino_model.bin").samefile(packed / "openvino_model.bin")
    with pytest.raises(ValueError, match="cannot be unpacked"):
        ovfast.export(packed, tmp_path / "stock", progress=False, packed=False)
    with pytest.raises(ValueError, match="is packed already"):
        _core.pack_model(packed, tmp_path)
