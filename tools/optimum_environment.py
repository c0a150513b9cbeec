"""Make the environment in which `ovfast export` runs Optimum Intel, and print its interpreter.

It takes a minute or two and 1.6 GB in the cache (OVFAST_CACHE), more where pip's PyTorch is the one
for GPUs. OVFAST_PIP_ARGS has further options for pip.
"""

from __future__ import annotations

import sys

from ovfast.errors import Error
from ovfast.export.isolation import isolated_python

if __name__ == "__main__":
    try:
        print(isolated_python())
    except Error as error:
        sys.exit(f"error: {error}")
