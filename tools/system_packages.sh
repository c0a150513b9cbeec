#!/usr/bin/env bash
# Makes sure that what pip cannot bring is there: a C++17 compiler, Python's venv module and, when
# called with --tests, GoogleTest; with --gpu-emulation, an OpenCL loader and headers. Installs what is
# missing with apt-get when root, else says how.
set -euo pipefail

python="${PYTHON:-python3}"
missing=()

command -v "${CXX:-c++}" >/dev/null || missing+=(g++)
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [[ "${1:-}" == --tests ]]; then
    printf '#include <gmock/gmock.h>\n' | "${CXX:-c++}" -std=c++17 -fsyntax-only -x c++ - 2>/dev/null ||
        missing+=(libgtest-dev libgmock-dev)
fi
if [[ "${1:-}" == --gpu-emulation ]]; then
    "$python" -c 'import ctypes; ctypes.CDLL("libOpenCL.so.1")' 2>/dev/null ||
        missing+=(ocl-icd-libopencl1)
    printf '#include <CL/cl_layer.h>\n' | "${CC:-cc}" -DCL_TARGET_OPENCL_VERSION=300 -fsyntax-only \
        -x c - 2>/dev/null || missing+=(opencl-headers)
fi
[[ ${#missing[@]} -eq 0 ]] && exit 0

if command -v apt-get >/dev/null && [[ "$(id -u)" -eq 0 ]]; then
    echo "Installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
    echo "Missing: ${missing[*]}" >&2
    echo "On Debian and Ubuntu: sudo apt-get install ${missing[*]}" >&2
    echo "Elsewhere: install a C++17 compiler, Python's venv module, GoogleTest and an OpenCL loader" >&2
    exit 1
fi
