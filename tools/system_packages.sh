#!/usr/bin/env bash
# Makes sure that what pip cannot bring is there: a C++17 compiler, Python's venv module, OpenSSL's
# headers, the libraries that ovfast-bench is built with; with --tests GoogleTest, the openssl
# program and strace; with --gpu-emulation an OpenCL loader and headers. Installs what is missing with
# apt-get when root, else says how.
set -euo pipefail

python="${PYTHON:-python3}"
missing=()

command -v "${CXX:-c++}" >/dev/null || missing+=(g++)
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
has_header() {
    printf '#include <%s>\n' "$1" | "${CXX:-c++}" -std=c++17 -fsyntax-only -x c++ - 2>/dev/null
}
has_header openssl/evp.h || missing+=(libssl-dev)
has_header CLI/CLI.hpp || missing+=(libcli11-dev)
has_header nlohmann/json.hpp || missing+=(nlohmann-json3-dev)
has_header stb/stb_image.h || missing+=(libstb-dev)
if [[ "${1:-}" == --tests ]]; then
    command -v openssl >/dev/null || missing+=(openssl)
    command -v strace >/dev/null || missing+=(strace)
    has_header gmock/gmock.h || missing+=(libgtest-dev libgmock-dev)
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
    echo "Elsewhere: a C++17 compiler, Python's venv module, OpenSSL 3 with its headers, CLI11," \
        "nlohmann-json and stb; for the tests GoogleTest, the openssl program and strace; for the" \
        "emulated GPU an OpenCL loader and headers" >&2
    exit 1
fi
