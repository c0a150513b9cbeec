from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest

from ovfast import _core


def status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def test_process_memory_is_what_the_kernel_says() -> None:
    memory = _core.read_process_memory()
    slack = 4 << 20  # other threads may allocate between the two readings
    assert memory.peak_rss == pytest.approx(status("VmHWM"), abs=slack)
    assert memory.rss == pytest.approx(status("VmRSS"), abs=slack)
    assert memory.rss_anon == pytest.approx(status("RssAnon"), abs=slack)
    assert memory.rss_file == pytest.approx(status("RssFile") + status("RssShmem"), abs=slack)


def test_process_memory_tells_anonymous_from_file_pages(tmp_path: Path) -> None:
    size = 64 << 20
    before = _core.read_process_memory()
    block = np.ones(size, np.uint8)
    anonymous = _core.read_process_memory()
    assert anonymous.rss_anon - before.rss_anon > 0.9 * size
    assert anonymous.peak_rss >= anonymous.rss

    block.tofile(tmp_path / "block")
    mapped = np.memmap(tmp_path / "block", np.uint8, mode="r")
    assert mapped.sum() == size
    file_backed = _core.read_process_memory()
    assert file_backed.rss_file - anonymous.rss_file > 0.9 * size


def test_host_limits(tmp_path: Path) -> None:
    limits = _core.read_host_limits()
    assert 1 <= limits.threads <= limits.affinity
    assert limits.memory_available <= limits.memory_total
    assert "sse4_2" in limits.isa
    assert f"threads={limits.threads}" in repr(limits)

    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4 kB\nMemAvailable: 3 kB\n")
    assert _core.read_host_limits(root=str(tmp_path)).memory_available == 3072
    (tmp_path / "proc/meminfo").write_text("MemTotal: many\n")
    with pytest.raises(_core.Error, match=r"meminfo: expected a number, got 'many'"):
        _core.read_host_limits(str(tmp_path))


def test_versions() -> None:
    assert _core.version().count(".") == 2
    assert _core.openvino_loaded_version() == openvino.get_version()
    assert _core.openvino_loaded_version().startswith(_core.openvino_built_version())
