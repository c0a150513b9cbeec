"""Taking down what a pipeline feeds to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from ptq_models import adder, classifier

from ovfast.quantize.capture import RESET_STATE, capture
from ovfast.quantize.ptq_options import ActivationOptions
from ovfast.quantize.samples import read_samples


def image(number: float) -> Any:
    return np.full((1, 1, 8, 8), number, np.float32)


def step(number: float) -> Any:
    return np.full((1, 4), number, np.float32)


def two_inputs() -> ov.Model:
    ports = []
    for name in "ab":
        port = ops.parameter([-1], np.float32, name=name)
        port.output(0).set_names({name})
        ports.append(port)
    return ov.Model([ops.add(*ports).output(0)], ports, "add")


def test_every_way_to_feed_a_model() -> None:
    compiled = ov.compile_model(classifier(), "CPU")
    before = compiled.create_infer_request()
    queue = ov.AsyncInferQueue(compiled, 2)
    other = ov.compile_model(classifier(), "CPU")
    before.infer(image(99))
    with capture(compiled) as inputs:
        compiled(image(1))
        compiled.infer_new_request({0: image(2)})
        before.infer([image(3)], share_inputs=True)
        before.start_async({"image": ov.Tensor(image(4))})
        before.wait()
        fresh = compiled.create_infer_request()
        fresh.infer(inputs={compiled.input(0): image(5).astype(np.float64)})
        fresh.set_input_tensor(ov.Tensor(image(6)))
        fresh.infer()
        for number in (7, 8, 9):
            queue.start_async({"image": image(number)})
        queue.wait_all()
        other(image(99))
    before.infer(image(99))
    assert [item["image"][0, 0, 0, 0] for item in inputs] == list(range(1, 10))
    assert all(set(item) == {"image"} and item["image"].dtype == np.float32 for item in inputs)
    assert "reset_state" not in vars(ov.InferRequest)
    assert not hasattr(ov.InferRequest.infer, "__wrapped__")


def test_what_is_captured_is_a_copy_and_the_answers_stay_right() -> None:
    compiled = ov.compile_model(two_inputs(), "CPU")
    request = compiled.create_infer_request()
    a = np.array([1, 2], np.float32)
    with capture(request) as inputs:
        answer = request.infer({"a": a, "b": np.array([10, 20], np.float32)}, share_inputs=True)[0]
        np.testing.assert_array_equal(answer, [11, 22])
        a[:] = 5
        request.infer([a, np.ones(2, np.float32)])
        compiled([a, a])  # another request
    assert len(inputs) == 2
    np.testing.assert_array_equal(inputs[0]["a"], [1, 2])
    np.testing.assert_array_equal(inputs[1]["b"], [1, 1])


def test_sequences_of_a_stateful_model() -> None:
    compiled = ov.compile_model(adder(), "CPU")
    one, two = compiled.create_infer_request(), compiled.create_infer_request()
    with capture(compiled) as inputs:
        # At the same time, so that only the order by sequences can be replayed.
        sums = [one.infer(step(1)), two.infer(step(10)), one.infer(step(2)), two.infer(step(20))]
        sums = [np.array(result[0]) for result in sums]
        one.reset_state()
        sums.append(np.array(one.infer(step(3))[0]))
        one.infer(step(4))
    fed = [(item["x"][0, 0], item[RESET_STATE]) for item in inputs]
    assert fed == [(1, True), (2, False), (10, True), (20, False), (3, True), (4, False)]
    replay = compiled.create_infer_request()
    answers = []
    for item in inputs:
        if item[RESET_STATE]:
            replay.reset_state()
        answers.append(np.array(replay.infer({"x": item["x"]})[0]))
    for answer, expected in zip(answers[:5], [sums[i] for i in (0, 2, 1, 3, 4)], strict=True):
        np.testing.assert_array_equal(answer, expected)


def test_capture_goes_through_a_folder(tmp_path: Path) -> None:
    model = adder()
    compiled = ov.compile_model(model, "CPU")
    with capture(compiled, limit=3) as inputs:
        request = compiled.create_infer_request()
        for number in range(5):
            request.infer(step(number))
            if number == 1:
                request.reset_state()
    assert len(inputs) == 3
    folder = inputs.save(tmp_path / "captured")
    samples = read_samples(model, ActivationOptions(data=folder), 300)
    assert [sample[RESET_STATE] for sample in samples] == [True, False, True]
    for sample, item in zip(samples, inputs, strict=True):
        np.testing.assert_array_equal(sample["x"], item["x"])
    with pytest.raises(ValueError, match="is there already: expected a new or an empty folder"):
        inputs.save(folder)


def test_a_saved_batch_stays_one_sample(tmp_path: Path) -> None:
    model = classifier()
    compiled = ov.compile_model(model, "CPU")
    with capture(compiled) as inputs:
        compiled(np.ones((6, 1, 8, 8), np.float32))
    samples = read_samples(model, ActivationOptions(data=inputs.save(tmp_path / "c")), 300)
    assert [list(sample) for sample in samples] == [["image"]]
    assert samples[0]["image"].shape == (6, 1, 8, 8)


def test_refusals() -> None:
    compiled = ov.compile_model(classifier(), "CPU")
    with pytest.raises(TypeError, match="expected an openvino.CompiledModel or"), capture("m.xml"):
        pass
    with pytest.raises(ValueError, match="limit: expected"), capture(compiled, 0):
        pass
    with pytest.raises(ValueError, match="nothing was captured"), capture(compiled):
        pass
    with pytest.raises(KeyError), capture(compiled):  # not hidden by the complaint
        raise KeyError
    assert not hasattr(ov.InferRequest.infer, "__wrapped__")
