"""One peer in a process of its own: how long until its first token, and how much memory it takes.

As a program this reads one JSON object from standard input and prints another on the last line of
standard output; `run_fresh` is the other end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers import PeerUnavailableError, Target, load_peer

_TIMEOUT_SECONDS = 300


def run_fresh(peer: str, target: Target, prompt: Sequence[int], new_tokens: int) -> dict[str, Any]:
    """Start a process that loads `peer` and answers `prompt`.

    Returns token_ids, load_seconds, first_token_seconds (from the start of the process),
    weights_bytes (None if unknown) and memory, bytes by field of /proc/self/status. Raises PeerUnavailableError when the peer cannot run here, which
    includes a crash.
    """
    task = {
        "peer": peer,
        "name": target.name,
        "model_dir": str(target.model_dir.resolve()),
        "gguf": target.gguf and str(target.gguf.resolve()),
        "packed_dir": target.packed_dir and str(target.packed_dir.resolve()),
        "prompt": list(prompt),
        "new_tokens": new_tokens,
        "started": time.monotonic(),
    }
    child = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if child.returncode < 0:
        raise PeerUnavailableError(f"{peer} crashed with signal {-child.returncode}")
    if child.returncode > 0:
        raise RuntimeError(f"{peer} failed in a process of its own:\n{child.stderr}")
    result: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    if "unavailable" in result:
        raise PeerUnavailableError(result["unavailable"])
    return result


def _memory() -> dict[str, int]:
    """VmHWM is the peak, RssAnon private memory, RssFile what is mapped from files."""
    memory = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmHWM", "RssAnon", "RssFile"):
            memory[name] = int(value.split()[0]) * 1024
    return memory


def main() -> None:
    task = json.load(sys.stdin)
    target = Target(
        task["name"],
        Path(task["model_dir"]),
        task["gguf"] and Path(task["gguf"]),
        task["packed_dir"] and Path(task["packed_dir"]),
    )
    began = time.monotonic()
    try:
        peer = load_peer(task["peer"], target)
    except PeerUnavailableError as error:
        print(json.dumps({"unavailable": str(error)}))
        return
    loaded = time.monotonic()
    run = peer.generate(task["prompt"], task["new_tokens"])
    result = {
        "token_ids": run.token_ids,
        "load_seconds": loaded - began,
        "first_token_seconds": loaded + run.ttft_seconds - task["started"],
        "weights_bytes": peer.weights_bytes(),
        "memory": _memory(),
    }
    peer.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
