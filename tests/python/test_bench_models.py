"""What ovfast-bench measures: encrypted directories, tuned models, GGUF files."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from bench_harness import llm, run

from ovfast import _core
from ovfast.crypto import Key, encrypt
from ovfast.model_dir import ModelDir
from ovfast.tuning import apply_tuning, tuning_path, write_tuning

SHORT = ("--prompt-tokens", 16, "--output-tokens", 3, "--warmup", 0, "--runs", 1)
SHAPES = "input_ids[1,4],attention_mask[1,4],position_ids[1,4],beam_idx[1]"
# The model's state grows with each inference, the mask does not: once for each request.
APP = ("-data_shape", SHAPES, "-nireq", 2, "-niter", 2, "-no_warmup")
REPORT = ("-report_type", "no_counters", "-json_stats")
FAILURE = 3


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("OVFAST_CACHE", str(folder))
    return folder


# ---- Encrypted directories ----


@pytest.fixture(scope="module")
def plain(tiny_model_dirs: dict[str, Path]) -> Path:
    return tiny_model_dirs["qwen2"]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("key") / "model.key"
    Key.generate().write(file)
    return file


@pytest.fixture(scope="module")
def encrypted(plain: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("encrypted") / "model.enc"
    encrypt(plain, out, Key.from_file(key), progress=False)
    return out


def require_nothing_of_the_model(folder: Path, plain: Path, key: Path) -> None:
    """No file that was written tells a layer's name or the key."""
    graph = (plain / "openvino_model.xml").read_text()
    words = set(re.findall(r'<layer id="\d+" name="([^"]{8,})"', graph))
    words -= set(re.findall(r'name="([^"]+)" type="(?:Parameter|Result)"', graph))
    assert len(words) > 20
    words.add(key.read_text().strip())
    for file in folder.rglob("*"):
        if file.is_file():
            text = file.read_bytes().decode(errors="replace")
            assert [word for word in words if word in text] == [], file


def test_an_encrypted_directory_as_benchmark_app(
    encrypted: Path, key: Path, plain: Path, tmp_path: Path
) -> None:
    options = (*APP, *REPORT, "-pc", "-dump_config", "config.json", "-roofline")
    done = run("-m", encrypted, "-key-file", key, *options, cwd=tmp_path)
    assert "Count:            2 iterations" in done.stdout
    assert key.read_text().strip() not in done.stdout + done.stderr
    report = json.loads((tmp_path / "benchmark_report.json").read_text())
    assert report["configuration_setup"]["topology"] == "model.enc"
    assert "CPU" in json.loads((tmp_path / "config.json").read_text())
    assert len(list(tmp_path.iterdir())) == 2
    require_nothing_of_the_model(tmp_path, plain, key)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-exec_graph_path", "graph.xml"), "write its graph in clear"),
        (("-cache_dir", "cache"), "write its weights in clear"),
        (("-load_config", "load.json"), "property CACHE_DIR is refused"),
        (("-report_type", "average_counters"), "names of its layers in clear; -pc prints them"),
        (("-report_type", "no_counters", "-pcsort", "sort"), "names of its layers in clear"),
        (("-lfile",), "OpenVINO cannot read its files"),
    ],
)
def test_nothing_is_written_in_clear(
    options: Sequence[str], message: str, encrypted: Path, key: Path, plain: Path, tmp_path: Path
) -> None:
    (tmp_path / "load.json").write_text(json.dumps({"CPU": {"CACHE_DIR": "cache"}}))
    arguments = ("-m", encrypted, "-key-file", key, *APP, *options)
    done = run(*arguments, cwd=tmp_path, code=FAILURE)
    assert message in done.stdout
    assert {file.name for file in tmp_path.iterdir()} <= {"load.json", "benchmark_report.csv"}
    require_nothing_of_the_model(tmp_path, plain, key)


def test_reasons_that_quote_the_graph_are_not_shown(
    encrypted: Path, plain: Path, key: Path, tmp_path: Path
) -> None:
    wrong = ("-shape", "input_ids[1,2,3,4]", "-niter", 1)
    done = run("-m", plain, *wrong, cwd=tmp_path, code=FAILURE)
    assert "While validating node" in done.stdout  # what OpenVINO says
    arguments = ("-m", encrypted, "-key-file", key, *wrong, *REPORT)
    done = run(*arguments, cwd=tmp_path, code=FAILURE)
    assert "the reason is not shown, since the model is encrypted" in done.stdout
    assert "While validating node" not in done.stdout
    report = json.loads((tmp_path / "benchmark_report.json").read_text())
    assert "is printed only" in report["execution_results"]["error"]


def test_every_way_to_give_a_key(
    encrypted: Path,
    plain: Path,
    key: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    digits = key.read_text()
    monkeypatch.setenv("MODEL_KEY", digits.strip())
    compile_only = ("-m", encrypted, "-niter", 0)
    run(*compile_only, "-key-env", "MODEL_KEY", cwd=tmp_path)
    run(*compile_only, "--key-stdin", cwd=tmp_path, stdin=digits)
    run("llm", "-m", encrypted, *SHORT, "--key-env", "MODEL_KEY")
    run("llm", "-m", encrypted, *SHORT, "--key-stdin", stdin=digits)
    spoken = tmp_path / "spoken.enc"
    encrypt(plain, spoken, Key.from_passphrase("a b c"), progress=False)
    run("-m", spoken, "-niter", 0, "-passphrase", cwd=tmp_path, stdin="a b c\n")
    run("llm", "-m", spoken, *SHORT, "--passphrase", stdin="a b c\n")
    # Read once for both.
    both = ("--ab", "threads=1", "--key-stdin")
    run("llm", "-m", encrypted, *SHORT, *both, stdin=digits)


def test_missing_and_wrong_keys(
    encrypted: Path, plain: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong.key"
    Key.generate().write(wrong)
    for options, message, app_code, llm_code in (
        ((), "is encrypted: give {}key-file, {}key-env, {}key-stdin or {}passphrase", 3, 1),
        (("--key-file", wrong), "the key is wrong, or it is damaged", 3, 1),
        (("--key-file", "none.key"), "key file 'none.key' cannot be read", 3, 1),
        (("--key-env", "NO_KEY"), "NO_KEY, which should hold the key, is not set", 3, 2),
        (("--key-file", key, "--key-env", "A"), "key-env both say what the key is", 2, 2),
    ):
        done = run("-m", encrypted, *APP, *REPORT, *options, cwd=tmp_path, code=app_code)
        assert message.format("-", "-", "-", "-") in done.stdout + done.stderr
        report = json.loads((tmp_path / "benchmark_report.json").read_text())
        expected = message.format("-", "-", "-", "-")
        assert expected in report["execution_results"]["error"]
        error = llm(tmp_path, encrypted, *SHORT, *options, code=llm_code)["error"]
        assert message.format("--", "--", "--", "--") in error
        done = run("roofline", "-m", encrypted, *options, code=llm_code)
        assert message.format("--", "--", "--", "--") in done.stderr
    not_encrypted = ("-key-file", key, "-niter", 0)
    done = run("-m", plain, *not_encrypted, cwd=tmp_path, code=FAILURE)
    assert "is not encrypted, but a key was given" in done.stdout
    error = llm(tmp_path, plain, *SHORT, "--key-file", key, code=2)["error"]
    assert "is not encrypted, but a key was given" in error
    assert "no model" in run("roofline", "--key-file", key, code=2).stderr


def test_a_key_file_that_others_can_use(encrypted: Path, key: Path, tmp_path: Path) -> None:
    open_key = shutil.copy(key, tmp_path / "open.key")
    open_key.chmod(0o644)
    done = run("llm", "-m", encrypted, *SHORT, "--key-file", open_key)
    assert "can be used by others (mode 0644)" in done.stderr


def test_llm_of_an_encrypted_directory(
    encrypted: Path, plain: Path, key: Path, tmp_path: Path
) -> None:
    files = ("--csv", tmp_path / "a.csv", "--html", tmp_path / "a.html", "--detail", "--roofline")
    report = llm(tmp_path, encrypted, *SHORT, *files, "--key-file", key)
    (configuration,) = report["configurations"]
    assert configuration["encrypted"] is True
    assert configuration["packed"] is True
    assert configuration["workloads"][0]["runs"][0]["generated_tokens"] == 3
    require_nothing_of_the_model(tmp_path, plain, key)
    same = llm(tmp_path, plain, *SHORT, "--roofline")
    assert same["configurations"][0]["encrypted"] is False
    assert report["roofline"]["weight_bytes_by_type"] == same["roofline"]["weight_bytes_by_type"]
    assert not any("only in memory" in warning for warning in report["warnings"])


def test_layers_of_an_encrypted_model_are_printed_only(
    encrypted: Path, key: Path, tmp_path: Path
) -> None:
    arguments = (*SHORT, "--key-file", key, "--pc")
    error = llm(tmp_path, encrypted, *arguments, code=2)["error"]
    assert "it is printed only, not written to --json or --html" in error
    assert "GatedMLP" in run("llm", "-m", encrypted, *arguments).stdout
    error = llm(tmp_path, encrypted, *SHORT, "--key-file", key, "--property", "CACHE_DIR=c", code=2)
    assert "CACHE_DIR is refused" in error["error"]


def test_an_encrypted_stock_directory_is_packed_in_memory(
    tiny_stock_dirs: dict[str, Path], key: Path, tmp_path: Path, cache: Path
) -> None:
    stock, enc = tiny_stock_dirs["qwen2"], tmp_path / "stock.enc"
    encrypt(stock, enc, Key.from_file(key), progress=False)
    before = sorted(enc.rglob("*"))
    report = llm(tmp_path, enc, *SHORT, "--key-file", key, "--roofline")
    assert report["configurations"][0]["packed"] is True
    assert any("only in memory" in warning for warning in report["warnings"])
    run("-m", enc, "-key-file", key, *APP, cwd=tmp_path)
    assert sorted(enc.rglob("*")) == before
    assert list(cache.iterdir()) == []


def test_a_and_b_one_of_them_encrypted(
    encrypted: Path, plain: Path, key: Path, tmp_path: Path
) -> None:
    for a, b in ((encrypted, plain), (plain, encrypted)):
        report = llm(tmp_path, a, *SHORT, "--key-file", key, "--ab", f"model={b}")
        flags = [side["encrypted"] for side in report["configurations"]]
        assert flags == [a == encrypted, b == encrypted]
    report = llm(tmp_path, plain, *SHORT, "--ab", f"model={encrypted},key-file={key}")
    assert [side["encrypted"] for side in report["configurations"]] == [False, True]


def test_ab_as_benchmark_app(key: Path, tmp_path: Path) -> None:
    import openvino as ov
    from openvino import opset13 as op

    (tmp_path / "model").mkdir()
    image = op.parameter([1, 64], ov.Type.f32, name="image")
    ov.save_model(ov.Model([op.relu(image)], [image]), tmp_path / "model" / "openvino_model.xml")
    encrypt(tmp_path / "model", tmp_path / "enc", Key.from_file(key), progress=False)
    arguments = ("-m", "enc", "-key-file", key, "-t", 1, "-ab", "m=model")
    assert "8 rounds in alternation" in run(*arguments, cwd=tmp_path).stdout
    arguments = ("-m", "model", "-t", 1, "-ab", f"m=enc,key-file={key}")
    assert "8 rounds in alternation" in run(*arguments, cwd=tmp_path).stdout
    # A bad file is found out as of any encrypted model.
    (tmp_path / "enc" / "openvino_model.bin.enc").write_bytes(b"")
    done = run("-m", "enc", "-key-file", key, "-niter", 0, cwd=tmp_path, code=FAILURE)
    assert "openvino_model.bin.enc" in done.stdout


def test_roofline_of_an_encrypted_directory(encrypted: Path, plain: Path, key: Path) -> None:
    def rows(*arguments: object) -> list[dict[str, Any]]:
        done = run("roofline", "-m", *arguments, "--json", "--probes", 1)
        return [
            {name: row[name] for name in ("name", "bytes", "int8_operations")}
            for row in json.loads(done.stdout)["rows"]
        ]

    assert rows(encrypted, "--key-file", key) == rows(plain)


# ---- What `ovfast tune` stored ----

TUNED = {
    "num_threads": 1,
    "attention": "openvino",
    "inference_precision": "f32",
    "tile_kb": 128,
    "tile_columns": 1024,
    "max_batch_tokens": 256,
}


def stages() -> list[dict[str, Any]]:
    """Numbers and texts of every kind, whose sum C++ has to find as Python writes them."""
    generator = random.Random(0)
    floats = [0.0, -0.0, 1.0, 0.1, 1 / 3, 1e-4, 1e-5, 9.999e-5, 1e15, 1e16, 1e22, 5e-324, 1e308]
    while len(floats) < 3000:
        (value,) = struct.unpack("d", generator.randbytes(8))
        if math.isfinite(value):
            floats.append(value)
    floats += [generator.random() * 10 ** generator.randint(-7, 18) for _ in range(3000)]
    return [{"floats": floats, "text": 'µ "quoted"\\\n\x7f\u2028😀', "none": None, "yes": True,
             "integers": [0, -1, 2**62], "empty": [{}, []]}]  # fmt: skip


def store(model: Path, options: dict[str, Any]) -> Path:
    tuning = {"made": "2026-01-01T00:00:00+00:00", "options": options, "stages": stages()}
    return write_tuning(ModelDir.check(model), tuning)


def test_what_was_tuned_is_applied(plain: Path, tmp_path: Path) -> None:
    assert llm(tmp_path, plain, *SHORT)["configurations"][0]["tuned"] is None
    store(plain, TUNED)
    report = llm(tmp_path, plain, *SHORT, "--html", tmp_path / "a.html")
    assert report["warnings"] == [w for w in report["warnings"] if "tuning" not in w]
    (configuration,) = report["configurations"]
    assert configuration["tuned"] == {"made": "2026-01-01T00:00:00+00:00", "applied": TUNED}
    assert configuration["threads"] == 1
    assert configuration["attention"] == "openvino"
    assert configuration["properties"] == {"INFERENCE_PRECISION_HINT": "f32"}
    assert "tuned: attention=openvino" in (tmp_path / "a.html").read_text()
    text = run("llm", "-m", plain, *SHORT).stdout
    assert "Tuned: attention=openvino" in text
    assert "--no-tuned leaves it out" in text
    a, b = llm(tmp_path, plain, *SHORT, "--ab", "no-tuned")["configurations"]
    assert (a["tuned"]["applied"], b["tuned"]) == (TUNED, None)
    assert b["attention"] == "ovfast"


@pytest.mark.parametrize(
    ("arguments", "engine", "given"),
    [
        (("--threads", 2), {"num_threads": 2}, ["num_threads"]),
        (("--threads", 0), {}, ["num_threads"]),
        (("--attention", "auto", "--tile-kb", 64), {"tile_kb": 64}, ["attention", "tile_kb"]),
        (
            ("--max-batch-tokens", 512, "--tile-columns", 512),
            {"tile_columns": 512},
            ["max_batch_tokens", "tile_columns"],
        ),
        (("--property", "INFERENCE_NUM_THREADS=1"),
         {"properties": {"INFERENCE_NUM_THREADS": "1"}}, []),
        (("--property", "EXECUTION_MODE_HINT=PERFORMANCE"),
         {"properties": {"EXECUTION_MODE_HINT": "PERFORMANCE"}}, []),
        (("--packed", "never"), {"packed": "never"}, []),
        (("--activation-precision", "exact"),
         {"activation_precision": "exact"}, ["activation_precision"]),
        (("--activation-precision", "int8"), {}, ["activation_precision"]),
        (("--no-tuned",), None, []),
    ],
)  # fmt: skip
def test_the_same_is_applied_as_in_python(
    arguments: Sequence[object],
    engine: dict[str, Any] | None,
    given: Sequence[str],
    tiny_stock_dirs: dict[str, Path],
    tmp_path: Path,
) -> None:
    model = shutil.copytree(tiny_stock_dirs["qwen2"], tmp_path / "model")
    store(model, TUNED)
    expected = None
    if engine is not None:
        options = _core.EngineOptions(**engine)
        expected = apply_tuning(ModelDir.check(model), options, given)
    (configuration,) = llm(tmp_path, model, *SHORT, *arguments)["configurations"]
    if expected is None:
        assert configuration["tuned"] is None
    else:
        assert configuration["tuned"]["applied"] == expected["applied"]


def test_a_tuning_that_cannot_be_used_is_named(plain: Path, tmp_path: Path) -> None:
    file = store(plain, TUNED)
    assert file == tuning_path(ModelDir.check(plain))
    stored = json.loads(file.read_text())

    def broken(change: Callable[[dict[str, Any]], object]) -> str:
        copy = json.loads(json.dumps(stored))
        change(copy)
        file.write_text(json.dumps(copy))
        report = llm(tmp_path, plain, *SHORT)
        assert report["configurations"][0]["tuned"] is None
        assert report["configurations"][0]["attention"] == "ovfast"
        (warning,) = (one for one in report["warnings"] if "tuning" in one)
        return warning

    assert "its contents do not fit its checksum" in broken(
        lambda one: one["tuning"]["options"].update(num_threads=2)
    )
    assert "its format is 9, expected 1" in broken(lambda one: one.update(format=9))
    assert "'tuning' not found" in broken(lambda one: one.pop("tuning"))
    file.write_text("{")
    assert any("cannot be used" in one for one in llm(tmp_path, plain, *SHORT)["warnings"])


def test_a_tuned_encrypted_model(encrypted: Path, plain: Path, key: Path, tmp_path: Path) -> None:
    store(plain, {"tile_kb": 128})
    (configuration,) = llm(tmp_path, encrypted, *SHORT, "--key-file", key)["configurations"]
    assert configuration["tuned"]["applied"] == {"tile_kb": 128}


# ---- GGUF files, through the console command ----


def test_a_gguf_file_is_exported_first(
    tiny_model: Callable[[str, str], tuple[Path, Path]], tmp_path: Path, cache: Path
) -> None:
    gguf = tiny_model("qwen2", "Q8_0")[0]
    script = Path(sys.executable).with_name("ovfast-bench")
    file = tmp_path / "report.json"
    for model in (("-m", gguf), (f"--model={gguf}",), (f"-m{gguf}", "--packed", "never")):
        run("llm", *model, *SHORT, "--json", file, program=script)
        (configuration,) = json.loads(file.read_text())["configurations"]
        assert Path(configuration["model"]).parent == cache / "models"
        assert configuration["packed"] is ("--packed" not in model)
    assert len(list((cache / "models").iterdir())) == 2

    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF")
    done = run("llm", "-m", bad, "--json", file, program=script, code=1)
    assert "bad.gguf" in done.stderr.splitlines()[0]
    assert "export it first: ovfast export" in json.loads(file.read_text())["error"]
    done = run("llm", "-m", tmp_path / "none.gguf", program=script, code=1)
    assert "does not exist" in done.stderr
    assert run("llm", "-m", program=script, code=2).stderr.startswith("ovfast-bench llm: error")
