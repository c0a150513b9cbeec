"""What encryption costs: loading a model, decrypting it from memory and from the disk.

    python benchmarks/encrypted_load.py MODEL_DIR [--rounds 10] [--json FILE]

MODEL_DIR is encrypted into a temporary folder (TMPDIR: take one on the disk that is meant). Plain
and encrypted load in turn, each in a process of its own, the file cache warm; their first tokens
must be the same. Decryption is compared with `openssl speed` on as many threads, and, the file
dropped from the cache each time, with reading the file alone. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ovfast import crypto

WEIGHTS = "openvino_model.bin"
_CHUNK = 1 << 20

_LOAD = """
import json, sys, time
import ovfast
start = time.perf_counter()
llm = ovfast.LLM(sys.argv[1], key=sys.argv[2] or None, tuned=False)
loaded = time.perf_counter()
answer = llm.generate("def f(", max_new_tokens=4)
first = loaded - start + answer.metrics.ttft_seconds
print(json.dumps({"load": loaded - start, "engine": llm.load_seconds, "first_token": first,
                  "token_ids": answer.token_ids}))
"""


def load(directory: Path, key: Path | None) -> dict[str, Any]:
    """Seconds of LLM(directory), of its engine alone, and to the first token; token_ids."""
    command = [sys.executable, "-c", _LOAD, str(directory), str(key or "")]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(child.stdout)
    return found


def openssl_rate() -> float:
    """Bytes/s of AES-256-GCM in OpenSSL's own benchmark, on all threads."""
    threads = len(os.sched_getaffinity(0))
    command = ["openssl", "speed", "-seconds", "2", "-bytes", str(_CHUNK)]
    command += ["-evp", "aes-256-gcm", "-multi", str(threads), "-mr"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(answer.strip().splitlines()[-1].split(":")[-1])


def drop_from_cache(file: Path) -> None:
    """The next read comes from the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_seconds(file: Path) -> float:
    """Seconds to read a file into a buffer that is used again and again."""
    buffer = bytearray(_CHUNK)
    start = time.perf_counter()
    with file.open("rb", buffering=0) as opened:
        while opened.readinto(buffer):
            pass
    return time.perf_counter() - start


def decrypt_seconds(directory: Path, key: Path) -> float:
    """Seconds to decrypt the weights into memory of their own."""
    files = crypto.open_files(directory, key)
    start = time.perf_counter()
    data = files.read(WEIGHTS)
    seconds = time.perf_counter() - start
    del data
    files.close()
    return seconds


def measure(plain: Path, folder: Path, rounds: int) -> dict[str, Any]:
    key, encrypted = folder / "model.key", folder / "encrypted"
    crypto.Key.generate().write(key)
    crypto.encrypt(plain, encrypted, key)
    file = next(encrypted.glob(f"{WEIGHTS}.*"))
    size = (plain / WEIGHTS).stat().st_size

    loads: dict[str, list[dict[str, Any]]] = {"plain": [], "encrypted": []}
    for run in range(rounds + 1):
        pair = {"plain": load(plain, None), "encrypted": load(encrypted, key)}
        assert pair["plain"]["token_ids"] == pair["encrypted"]["token_ids"]
        if run:  # the first warms the file cache
            for name, one in pair.items():
                loads[name].append(one)

    rates: dict[str, list[float]] = {"openssl": [], "decrypt": [], "disk": [], "decrypt, cold": []}

    def cold(work: Callable[[], float]) -> float:
        drop_from_cache(file)
        return size / work()

    for _ in range(rounds):
        decrypt_seconds(encrypted, key)  # into the cache again
        rates["decrypt"].append(size / decrypt_seconds(encrypted, key))
        rates["disk"].append(cold(lambda: read_seconds(file)))
        rates["decrypt, cold"].append(cold(lambda: decrypt_seconds(encrypted, key)))
    rates["openssl"] = [openssl_rate() for _ in range(3)]
    return {"loads": loads, "rates": rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="file for all figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.model_dir.resolve(), Path(folder), arguments.rounds)
    print("| | plain, s | encrypted, s | ratio |\n|---|---:|---:|---:|")
    plain, encrypted = found["loads"]["plain"], found["loads"]["encrypted"]
    for name in ("load", "engine", "first_token"):
        ratios = sorted(b[name] / a[name] for a, b in zip(plain, encrypted, strict=True))
        medians = [statistics.median(one[name] for one in of) for of in (plain, encrypted)]
        print(
            f"| {name} | {medians[0]:.3f} | {medians[1]:.3f} | {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
    for name, rates in found["rates"].items():
        middle = statistics.median(rates)
        print(f"{name}: {middle / 1e9:.2f} GB/s ({min(rates) / 1e9:.2f} to {max(rates) / 1e9:.2f})")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
