"""Runs functions of gpu_child.py in processes of their own where OpenVINO finds an emulated GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ovfast.errors import Error

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "gpu_emulation"))

import prepare


class EmulatedGpu:
    """Environment variables, and the interpreter that has pyopencl."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.python = prepare.environment_python(prepare.REQUIREMENTS)

    def variables(self, **more: str) -> dict[str, str]:
        return {**os.environ, **self.environment, **more}

    def run(self, function: str, *arguments: Any, **environment: str) -> Any:
        """Call `function` of gpu_child.py; what it returns comes back as JSON."""
        return self._call(
            [sys.executable, str(HERE / "gpu_child.py")], function, arguments, environment
        )

    def run_opencl(self, function: str, *arguments: Any) -> Any:
        """The same of opencl_child.py, without OpenVINO and without the layer."""
        assert self.python is not None
        # The layer makes programs live for ever, which pyopencl does not need.
        command = [str(self.python), str(HERE / "opencl_child.py")]
        return self._call(
            command, function, arguments, {"OPENCL_LAYERS": "", "PYOPENCL_NO_CACHE": "1"}
        )

    def _call(
        self,
        command: list[str],
        function: str,
        arguments: tuple[Any, ...],
        environment: dict[str, str],
    ) -> Any:
        result = subprocess.run(
            [*command, function],
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            timeout=300,
            env=self.variables(**environment),
            check=False,
        )
        assert result.returncode == 0, f"{function}: {result.stderr[-4000:]}"
        return json.loads(result.stdout.splitlines()[-1])


def emulated_gpu() -> EmulatedGpu:
    """Prepare it, or skip with the reason."""
    try:
        return EmulatedGpu(prepare.prepared())
    except Error as error:
        pytest.skip(f"no emulated GPU: {error}")
