"""Hugging Face folders through Optimum Intel: what can be seen without it, and real exports."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_harness import Ovfast
from tiny_folders import write_folder
from transformers import CONFIG_MAPPING

import ovfast
from ovfast.errors import Error, ModelError
from ovfast.evaluate.logits import PositionLogits
from ovfast.export import hub, huggingface, verify
from ovfast.export.isolation import environment_python
from ovfast.export.route import choose

# Takes the place of optimum_worker.py. It "exports" by copying a directory that lies beside it.
FAKE_WORKER = """
import json, pathlib, shutil, sys
request = json.loads(sys.argv[1])
here = pathlib.Path(__file__).parent
model = pathlib.Path(request["model"])
(here / "seen").write_text(json.dumps({
    "files": sorted(file.name for file in model.iterdir()),
    "config": json.loads((model / "config.json").read_text()),
}))
with (here / "calls").open("a") as calls:
    calls.write(request["command"] + "\\n")
if request["task"] == "fail":
    sys.exit("optimum says: no such task")
shutil.copytree(here / "stock", request["output"])
answer = {"task": "text-generation-with-past", "weights": "f16"}
if (here / "rotary").exists():
    answer["rotary"] = json.loads((here / "rotary").read_text())
pathlib.Path(request["answer"]).write_text(json.dumps(answer))
"""


def spell_anew(folder: Path) -> None:
    """Let transformers 5 write config.json, in its own spelling."""
    raw = json.loads((folder / "config.json").read_text())
    CONFIG_MAPPING[raw["model_type"]].from_dict(raw).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("source") / "tiny", "qwen2")


@pytest.fixture(scope="module")
def stock(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, exported layer by layer in f16 and not packed."""
    out = tmp_path_factory.mktemp("stock") / "out"
    ovfast.export(folder, out, weights="f16", packed=False, progress=False)
    return out


@pytest.fixture
def fake(stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A worker without Optimum; returns the file with a line for each call of it."""
    place = tmp_path / "fake"
    place.mkdir()
    (place / "worker.py").write_text(FAKE_WORKER)
    shutil.copytree(stock, place / "stock", ignore=shutil.ignore_patterns("*token*", "ovfast.json"))
    monkeypatch.setattr(huggingface, "_WORKER", place / "worker.py")
    monkeypatch.setattr(huggingface, "_interpreter", lambda *_: Path(sys.executable))
    return place / "calls"


def test_export_is_whole_and_reused(folder: Path, fake: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = ovfast.export(folder, out, via="optimum", weights="f16", progress=False)
    assert (first.reused, first.packed) == (False, True)
    assert first.notes == ["exported for text-generation-with-past with f16 weights"]
    assert not list(out.glob(".*")) and (out / "openvino_tokenizer.xml").exists()
    again = ovfast.export(folder, out, via="optimum", weights="f16", progress=False)
    assert again.reused and fake.read_text() == "export\n"
    with pytest.raises(ValueError, match="--force"):
        ovfast.export(folder, out, via="optimum", weights="int8", progress=False)


def test_failure_tells_why_and_leaves_nothing(folder: Path, fake: Path, tmp_path: Path) -> None:
    with pytest.raises(Error, match="optimum says: no such task"):
        ovfast.export(folder, tmp_path / "a" / "out", task="fail", progress=False)
    assert not (tmp_path / "a").exists()


def test_rope_parameters_reach_optimum_in_old_keys(
    folder: Path, fake: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(folder, tmp_path / "new"))
    spell_anew(source)
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    assert json.loads(before["config.json"])["rope_parameters"]["rope_theta"] == 1e6
    powers = np.arange(0, 32, 2) / 32
    rotary = [{"inv_freq": (1e6**-powers).tolist(), "factor": 1.0}]
    (fake.parent / "rotary").write_text(json.dumps(rotary))
    out = tmp_path / "out"
    result = ovfast.export(source, out, via="optimum", weights="f16", progress=False)
    seen = json.loads((fake.parent / "seen").read_text())
    assert seen["config"]["rope_theta"] == 1e6
    assert "rope_parameters" not in seen["config"]
    assert seen["files"] == sorted(before)
    assert result.notes[1:] == [
        "rope_parameters given to Optimum's transformers 4 as rope_theta 1000000.0"
    ]
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before

    # A class of models that does not know the key, however it is spelled.
    rotary[0]["inv_freq"] = (1e4**-powers).tolist()
    (fake.parent / "rotary").write_text(json.dumps(rotary))
    with pytest.raises(ModelError, match="does not compute the rotary positions of .*1000000.0"):
        ovfast.export(source, tmp_path / "a" / "out", via="optimum", weights="f16", progress=False)
    assert not (tmp_path / "a").exists()
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before


def test_route(folder: Path, stock: Path, tmp_path: Path) -> None:
    assert choose(folder, "auto", task=None) == "direct"
    assert choose(folder, "auto", task="text-generation") == "direct"
    assert choose(folder, "auto", task="feature-extraction") == "optimum"
    assert choose(folder, "optimum", task=None) == "optimum"
    assert choose(stock, "auto", task=None) is None
    with pytest.raises(ValueError, match="via must be one of"):
        choose(folder, "magic", task=None)
    with pytest.raises(ValueError, match="Hugging Face folders"):
        choose(stock, "optimum", task=None)
    other = tmp_path / "bert"
    shutil.copytree(folder, other)
    (other / "config.json").write_text('{"model_type": "bert"}')
    assert choose(other, "auto", task=None) == "optimum"
    with pytest.raises(ValueError, match="via 'direct' is for text generation"):
        choose(other, "direct", task=None)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"weights": "int3"}, "weights must be one of f16"),
        ({"weights": "f16", "group_size": 64}, "group_size is for int4"),
        ({"group_size": 0}, "at least 1, got 0"),
        ({"revision": "main"}, "is a path"),
    ],
)
def test_refused_options(
    folder: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ovfast.export(folder, tmp_path / "out", via="optimum", progress=False, **options)


def test_without_isolation_and_optimum(
    folder: Path, tmp_path: Path, ovfast_command: Ovfast
) -> None:
    arguments = ("export", str(folder), "-o", str(tmp_path / "out"), "--via", "optimum")
    result = ovfast_command(*arguments, "--no-isolation")
    assert result.code == 1
    assert "needs optimum-intel 1.27.0" in result.err and "pip install -r" in result.err
    assert not (tmp_path / "out").exists()


def test_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert hub.is_hub_id("organisation/name-1.5B")
    for path in ("models/tiny", "/a/b", "./b", "a/b/c", "model", "a/model.gguf"):
        assert not hub.is_hub_id(path), path
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ModelError, match="organisation/name' is no path here, and"):
        ovfast.export("organisation/name", tmp_path / "out", progress=False)


def test_compare_finds_another_model(folder: Path, stock: Path, tmp_path: Path) -> None:
    ids = verify.sample_ids(stock)
    assert len(ids) == 48
    logits = PositionLogits(stock, exact=True)(ids)[None]
    reference = tmp_path / "reference.npz"

    def compare(expected: np.ndarray) -> dict[str, object]:
        np.savez(reference, **{"in.input_ids": np.array([ids]), "out.logits": expected})
        return verify.compare(stock, reference, "f16")["outputs"]["logits"]

    noise = np.random.default_rng(0).normal(0, logits.std(), logits.shape).astype(np.float32)
    assert compare(logits)["nrmse"] < 1e-6
    assert compare(logits + 0.005 * noise)["nrmse"] == pytest.approx(0.005, rel=0.05)
    with pytest.raises(ModelError, match="does not say what the original says"):
        compare(logits + 0.02 * noise)
    with pytest.raises(ModelError, match="does not say"):
        compare(np.full_like(logits, np.nan))
    with pytest.raises(ModelError, match=r"shape \[1, 48"):
        compare(logits[:, :7])


def test_no_memory_to_verify(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = [Path("openvino_model.xml")]
    assert verify.reason_to_skip(folder, graph, "text-generation") is None
    assert "several models" in str(verify.reason_to_skip(folder, graph * 2, "image-text-to-text"))
    monkeypatch.setattr(verify, "_available_memory", lambda: 1_000_000)
    reason = verify.reason_to_skip(folder, graph, "text-generation")
    assert reason is not None and "GB are free" in reason


@pytest.fixture(scope="module")
def optimum() -> None:
    if environment_python() is None:
        pytest.skip("no environment with Optimum Intel: tools/optimum_environment.py makes it")


@pytest.mark.slow
@pytest.mark.usefixtures("optimum")
@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_same_logits_as_layer_by_layer(family: str, tmp_path: Path) -> None:
    if family == "gemma3":  # two bases, one scaled
        folder = write_folder(tmp_path / "tiny", family, rope_local_base_freq=20000.0)
        spell_anew(folder)
    else:
        folder = write_folder(tmp_path / "tiny", family)
    options = {"weights": "f16", "packed": False, "progress": False, "task": "text-generation"}
    ovfast.export(folder, tmp_path / "direct", via="direct", **options)
    result = ovfast.export(folder, tmp_path / "optimum", via="optimum", verify=True, **options)
    assert result.quality is not None
    ids = verify.sample_ids(tmp_path / "direct")
    direct = PositionLogits(tmp_path / "direct", exact=True)(ids).astype(np.float64)
    other = PositionLogits(tmp_path / "optimum", exact=True)(ids).astype(np.float64)
    # Both hold the same f16 weights; Optimum also rounds its tables of cosines to f16, by up to
    # 2^-12, and positions are turned by that in each of three layers.
    assert np.sqrt(np.mean((direct - other) ** 2)) < 0.003 * other.std()
    assert (direct.argmax(-1) == other.argmax(-1)).mean() > 0.95


@pytest.mark.slow
@pytest.mark.usefixtures("optimum")
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_same_logits_as_transformers_5(family: str, tmp_path: Path) -> None:
    """A folder that it wrote, with a base of 1,000,000, and one with scaled frequencies."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    folder = write_folder(tmp_path / "f16", family)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert "rope_theta" not in config
    assert config["rope_parameters"]["rope_type"] == ("default" if family == "qwen2" else "llama3")
    out = tmp_path / "out"
    ovfast.export(folder, out, via="optimum", weights="f16", packed=False, progress=False)
    ids = np.random.default_rng(0).integers(3, 460, 200).tolist()
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0].double().numpy()
    got = PositionLogits(out, exact=True)(ids).astype(np.float64)
    error = np.sqrt(np.mean((got - wanted) ** 2, axis=-1)) / wanted.std()
    # As above; the first positions turn by little whatever the base.
    assert error[:8].max() < 0.01
    assert error[100:].max() < 0.01
    assert (got.argmax(-1) == wanted.argmax(-1)).mean() > 0.95


@pytest.mark.slow
@pytest.mark.usefixtures("optimum")
def test_feature_extraction(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,'!?"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(tokens))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
    )
    BertModel(config).save_pretrained(folder)
    out = tmp_path / "out"
    result = ovfast.export(folder, out, verify=True, progress=False)
    assert result.notes == ["exported for feature-extraction with f16 weights"]
    assert result.quality["verify"]["outputs"]["last_hidden_state"]["nrmse"] < 0.002
    assert not result.packed and (out / "openvino_tokenizer.xml").exists()
    assert ovfast.export(folder, out, verify=True, progress=False).reused


@pytest.mark.slow
@pytest.mark.usefixtures("optimum")
def test_speech(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    folder = tmp_path / "whisper"
    torch.manual_seed(0)
    small = {"layers": 1, "attention_heads": 2, "ffn_dim": 64}
    sizes = {f"{part}_{k}": v for part in ("encoder", "decoder") for k, v in small.items()}
    config = WhisperConfig(
        vocab_size=480,
        d_model=32,
        num_mel_bins=16,
        max_target_positions=64,
        pad_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **sizes,
    )
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    for file in write_folder(tmp_path / "text", "qwen2").glob("tokenizer*"):
        shutil.copy(file, folder)
    out = tmp_path / "out"
    result = ovfast.export(folder, out, weights="int8", verify=True, progress=False)
    assert {file.name for file in out.glob("openvino_*coder_model.bin")} == {
        "openvino_encoder_model.bin",
        "openvino_decoder_model.bin",
    }
    assert "logits" in json.loads((out / "ovfast.json").read_text())["quality"]["verify"]["outputs"]
    assert result.weights_bytes > 0
