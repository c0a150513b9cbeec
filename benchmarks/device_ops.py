"""How fast the operations for CPU and GPU are, beside their standard form and the memory's rate.

    python benchmarks/device_ops.py                    # CPU
    python benchmarks/device_ops.py --device GPU       # where there is one
    python benchmarks/device_ops.py --save models      # IR of each, for ovfast-bench and benchmark_app

A and B alternate in one process; medians. What counts is the time of the operation's nodes in the graph
(PERF_COUNT): at a graph's borders plugins copy, which a model pays once and this would pay all the time.
On the CPU the rate is that of reading (read_bandwidth).
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as opset
from openvino.utils.node_factory import NodeFactory

from ovfast import _core, ops


def swiglu(factory: NodeFactory, rows: int, columns: int, own: bool) -> tuple[ov.Model, int]:
    """A graph and the bytes that it has to read and write."""
    gate, up = (opset.parameter([-1, columns], np.float32) for _ in range(2))
    if own:
        node = factory.create("SwiGLU", [gate.output(0), up.output(0)], {"alpha": 1.0}).output(0)
    else:
        node = opset.multiply(opset.swish(gate), up).output(0)
    return ov.Model([node], [gate, up], "swiglu"), 12 * rows * columns


def add_rms_norm(factory: NodeFactory, rows: int, columns: int, own: bool) -> tuple[ov.Model, int]:
    """The same of a residual and a norm."""
    x, residual = (opset.parameter([-1, columns], np.float32) for _ in range(2))
    gamma = opset.constant(np.linspace(0.5, 1.5, columns, dtype=np.float32))
    if own:
        arguments = [x.output(0), residual.output(0), gamma.output(0)]
        outputs = factory.create("AddRMSNorm", arguments, {"epsilon": 1e-6}).outputs()
    else:
        total = opset.add(x, residual)
        mean = opset.reduce_mean(opset.multiply(total, total), opset.constant([-1]), True)
        root = opset.sqrt(opset.add(mean, opset.constant(np.float32(1e-6))))
        outputs = [opset.multiply(opset.divide(total, root), gamma).output(0), total.output(0)]
    return ov.Model(outputs, [x, residual], "add_rms_norm"), 16 * rows * columns


def request_of(core: ov.Core, model: ov.Model, device: str, rows: int) -> Any:
    """A request with tensors of its own that are used again and again."""
    properties = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": True,
    }
    compiled = core.compile_model(model, device, properties)
    request = compiled.create_infer_request()
    random = np.random.default_rng(0)
    for i, port in enumerate(compiled.inputs):
        shape = (rows, port.get_partial_shape()[1].get_length())
        request.set_input_tensor(i, ov.Tensor(random.standard_normal(shape, np.float32)))
    return request


class Clock:
    """Times of the nodes of a request, which plugins give as averages over all inferences."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.count = 0
        self.total = 0.0

    def seconds(self, times: int = 3) -> float:
        """Seconds of one inference, copies at the borders left out."""
        for _ in range(times):
            self.request.infer()
        average = sum(
            info.real_time.total_seconds()
            for info in self.request.profiling_info
            if info.node_type
            not in ("Parameter", "Result", "Input", "Output", "Reorder", "Constant")
        )
        before, self.total = self.total, average * (self.count + times)
        self.count += times
        return (self.total - before) / times


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="CPU")
    parser.add_argument("--megabytes", type=float, default=192, help="of the three or four tensors")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--save", type=Path, help="write the graphs there and measure nothing")
    options = parser.parse_args()

    core = ov.Core()
    ops.register(core)
    factory = NodeFactory()
    factory.add_extension(str(ops.library_path()))
    for name, build, arrays, columns in (
        ("SwiGLU", swiglu, 3, 4864),
        ("AddRMSNorm", add_rms_norm, 4, 4096),
    ):
        rows = max(1, int(options.megabytes * 1e6 / (4 * arrays * columns)))
        if options.save:
            options.save.mkdir(parents=True, exist_ok=True)
            ov.save_model(build(factory, rows, columns, True)[0], options.save / f"{name}.xml")
            print(options.save / f"{name}.xml", f"[{rows},{columns}]")
            continue
        clocks = []
        for own in (True, False):
            model, size = build(factory, rows, columns, own)
            clocks.append(Clock(request_of(core, model, options.device, rows)))
        times: list[list[float]] = [[], []]
        rates = []
        for _ in range(options.rounds + 2):
            for i, clock in enumerate(clocks):
                times[i].append(clock.seconds())
            if options.device == "CPU":
                rates.append(_core.read_bandwidth(megabytes=256))
        own, standard = (statistics.median(one[2:]) for one in times)
        line = f"{name:<11} {size / own / 1e9:6.1f} GB/s  {standard / own:4.2f} times its standard form"
        if rates:
            share = statistics.median(
                size / mine / rate for mine, rate in zip(times[0][2:], rates[2:], strict=True)
            )
            line += (
                f"  {share:4.0%} of the rate of reading, {statistics.median(rates) / 1e9:.1f} GB/s"
            )
        print(line, flush=True)


if __name__ == "__main__":
    main()
