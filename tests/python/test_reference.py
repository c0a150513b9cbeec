"""The plain Python path: its logits against transformers and torch, its loop against itself."""

from __future__ import annotations

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from tiny_models import ARCHITECTURES, Shape

from ovfast.errors import ModelError
from ovfast.reference import ReferenceLLM

# Longer than two KV blocks of 32 tokens, and no multiple of anything.
IDS = np.random.default_rng(1).integers(3, 400, 71).tolist()


@pytest.fixture(scope="module")
def llm(tiny_model_dirs):
    return ReferenceLLM(tiny_model_dirs["qwen2"])


def torch_logits(gguf):
    """What transformers and torch make of the same file: [len(IDS), vocabulary] float32."""
    torch = pytest.importorskip("torch", reason="pip install 'ovfast[torch]'")
    pytest.importorskip("accelerate", reason="transformers loads GGUF files with it")
    from transformers import AutoConfig, AutoModelForCausalLM

    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    config = AutoConfig.from_pretrained(**where)
    # What transformers does not take from the file, but from its defaults for the real models.
    config.pad_token_id = None
    config.head_dim = config.query_pre_attn_scalar = Shape().head_size
    model = AutoModelForCausalLM.from_pretrained(**where, config=config, dtype=torch.float32)
    with torch.inference_mode():
        return model.eval()(torch.tensor([IDS])).logits[0].numpy()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tensor_type", ["F16", "Q8_0", "Q4_0"])
def test_logits_are_those_of_torch(tiny_model, architecture, tensor_type):
    gguf, model_dir = tiny_model(architecture, tensor_type)
    expected = torch_logits(gguf)
    assert 0.5 < expected.std() < 2  # the scale that the tolerance stands for

    llm = ReferenceLLM(model_dir)
    # These types are taken as they are. But queries, keys and values are cast to f16 in graphs that
    # come from GGUF, each rounded by up to 2^-11 of itself: 8e-4 was the most that came of it.
    np.testing.assert_allclose(llm.logits(IDS), expected, rtol=0, atol=2e-3)
    prefill = llm.generate(IDS, 1, keep_logits=True)
    np.testing.assert_allclose(prefill.logits[0], expected[-1], rtol=0, atol=2e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generation_is_the_argmax_of_its_logits(tiny_model_dirs, architecture):
    llm = ReferenceLLM(tiny_model_dirs[architecture])
    result = llm.generate(IDS[:9], 30, keep_logits=True)
    # With random weights Gemma's tied, scaled-up embeddings always predict the last token again.
    assert architecture == "gemma3" or len(set(result.token_ids)) > 5
    assert result.logits.shape == (30, llm.vocab_size)
    assert result.logits.dtype == np.float32
    assert result.token_ids == result.logits.argmax(-1).tolist()
    # The prompt at once and the prompt token by token are the same computation. What is left is the
    # order of sums in f32, and the last bit of an f16 that it may turn.
    stepwise = llm.logits([*IDS[:9], *result.token_ids])[8:-1]
    np.testing.assert_allclose(result.logits, stepwise, rtol=0, atol=2e-3)


def test_a_request_leaves_nothing_behind(llm):
    first = llm.generate(IDS[:9], 12)
    llm.generate(IDS[20:50], 5)
    llm.logits(IDS[:3])
    assert llm.generate(IDS[:9], 12).token_ids == first.token_ids
    assert first.logits is None


def test_end_of_sequence(llm):
    free = llm.generate(IDS[:9], 12).token_ids
    stop = next(place for place in range(3, 12) if free[place] not in free[:place])
    result = llm.generate(IDS[:9], 12, eos_ids=[free[stop], llm.vocab_size - 1])
    assert result.token_ids == free[: stop + 1]


def test_times(llm):
    result = llm.generate(IDS[:9], 4)
    assert result.ttft_seconds > 0
    assert result.inter_token_seconds.shape == (3,)
    assert result.inter_token_seconds.dtype == np.float32
    assert (result.inter_token_seconds > 0).all()
    assert llm.generate(IDS[:9], 1).inter_token_seconds.shape == (0,)


@pytest.mark.parametrize(
    ("ids", "new_tokens", "problem"),
    [
        ([], 4, "the prompt is empty"),
        ([5, -1], 4, "token id -1 is outside the vocabulary"),
        ([10**6], 4, "token id 1000000 is outside the vocabulary"),
        ([5], 0, "max_new_tokens must be at least 1, got 0"),
    ],
)
def test_wrong_arguments(llm, ids, new_tokens, problem):
    with pytest.raises(ValueError, match=problem):
        llm.generate(ids, new_tokens)


@pytest.mark.parametrize("properties", [{"NO_SUCH_PROPERTY": 1}, {"INFERENCE_PRECISION_HINT": "x"}])
def test_wrong_properties(tiny_model_dirs, properties):
    with pytest.raises(ValueError, match=next(iter(properties))):
        ReferenceLLM(tiny_model_dirs["qwen2"], properties=properties)


def test_exact_and_default_precision(tiny_model_dirs):
    def precision(llm):
        model = llm._request.get_compiled_model()
        return str(model.get_property("KV_CACHE_PRECISION"))

    assert "float32" in precision(ReferenceLLM(tiny_model_dirs["qwen2"]))
    assert "uint8" in precision(ReferenceLLM(tiny_model_dirs["qwen2"], exact=False))
    mixed = ReferenceLLM(tiny_model_dirs["qwen2"], properties={"KV_CACHE_PRECISION": "f16"})
    assert "float16" in precision(mixed)


def write_model(folder, inputs, output="logits", stateful=True):
    """A language model of one weight: the logits of token t are row t of a matrix plus a count.

    The count is kept as state, so that steps after the first differ.
    """
    ids = ops.parameter([-1, -1], np.int64, name="input_ids")
    parameters = [ids]
    for name, shape, dtype in inputs:
        parameters.append(ops.parameter(shape, dtype, name=name))
    table = np.random.default_rng(3).normal(size=(11, 11)).astype(np.float32)
    logits = ops.gather(ops.constant(table), ids, ops.constant(0))
    sinks = []
    if stateful:
        count = ops.read_value(ops.constant(np.zeros((1, 1, 11), np.float32)), "count")
        grown = ops.add(count, ops.constant(np.eye(1, 11, dtype=np.float32)[None]))
        sinks = [ops.assign(grown, "count")]
        logits = ops.add(logits, grown)
    result = ops.result(logits)
    result.get_output_tensor(0).set_names({output})
    for parameter in parameters:
        parameter.get_output_tensor(0).set_names({parameter.get_friendly_name()})
    model = ov.Model([result], sinks, parameters)
    ov.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)
    return table


@pytest.mark.parametrize(
    "inputs",
    [[], [("attention_mask", [-1, -1], np.int64)], [("beam_idx", [-1], np.int32)]],
)
def test_graphs_of_optimum_may_lack_inputs(tmp_path, inputs):
    # They also return the logits of every position where those from GGUF return the last.
    table = write_model(tmp_path, inputs)
    llm = ReferenceLLM(tmp_path)
    expected, token = [], 4
    for step in range(1, 7):
        row = table[token] + step * np.eye(1, 11)[0]
        token = int(row.argmax())
        expected.append(token)
    assert llm.generate([7, 2, 4], 6).token_ids == expected


def test_not_a_language_model(tmp_path):
    with pytest.raises(ModelError, match=r"holds no openvino_model\.xml"):
        ReferenceLLM(tmp_path)
    (tmp_path / "openvino_model.xml").write_text("<net>")
    with pytest.raises(ModelError, match="cannot be read"):
        ReferenceLLM(tmp_path)
    write_model(tmp_path, [("pixels", [-1], np.float32)])
    with pytest.raises(ModelError, match="pixels"):
        ReferenceLLM(tmp_path)
    write_model(tmp_path, [], output="embedding")
    with pytest.raises(ModelError, match="no output named logits"):
        ReferenceLLM(tmp_path)
    write_model(tmp_path, [], stateful=False)
    with pytest.raises(ModelError, match="no KV cache as state"):
        ReferenceLLM(tmp_path)
