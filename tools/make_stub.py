"""Write python/ovfast/_core.pyi from the built extension module, or check the committed one.

python tools/make_stub.py           # write
python tools/make_stub.py --check   # exit with 1 and a diff when the committed one is stale
"""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STUB = ROOT / "python" / "ovfast" / "_core.pyi"


def generate() -> str:
    """Return the stub of the installed ovfast._core, formatted as the project is.

    Raises subprocess.CalledProcessError when a signature names a type that Python does not know:
    its class is then bound after its first use.
    """
    with tempfile.TemporaryDirectory() as folder:
        # The package asks for its extension module lazily, so it is imported by name first.
        program = (
            "import sys; from ovfast import _core; from pybind11_stubgen import main; "
            "main(sys.argv[1:])"
        )
        options = [
            "ovfast._core",
            "--exit-code",
            "--numpy-array-use-type-var",
            f"--output-dir={folder}",
        ]
        subprocess.run([sys.executable, "-c", program, *options], check=True)
        stub = Path(folder) / "ovfast" / "_core.pyi"
        # Generated docstrings are the binding's own: only layout is ours to mend.
        ruff = [sys.executable, "-m", "ruff"]
        quiet = ["--quiet", f"--config={ROOT / 'pyproject.toml'}"]
        subprocess.run([*ruff, "check", "--fix-only", "--select=I", *quiet, stub], check=True)
        subprocess.run([*ruff, "format", *quiet, stub], check=True)
        return stub.read_text(encoding="utf-8")


def diff(committed: str, generated: str) -> str:
    """Return a unified diff, empty when both are the same."""
    lines = difflib.unified_diff(
        committed.splitlines(keepends=True),
        generated.splitlines(keepends=True),
        "committed/_core.pyi",
        "generated/_core.pyi",
    )
    return "".join(lines)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    args = parser.parse_args()

    generated = generate()
    if not args.check:
        STUB.write_text(generated, encoding="utf-8")
        print(f"wrote {STUB.relative_to(ROOT)}")
        return 0
    changes = diff(STUB.read_text(encoding="utf-8"), generated)
    sys.stdout.write(changes)
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
