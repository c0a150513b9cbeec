// libFuzzer's way into container_fuzz.cpp. With clang:
//   cmake -S . -B build/fuzz -DCMAKE_CXX_COMPILER=clang++ -DOVFAST_FUZZ=ON -DOVFAST_TESTS=ON
//       -DOVFAST_PYTHON=OFF -DPython_EXECUTABLE="$PWD/.venv/bin/python"
//   cmake --build build/fuzz --target fuzz_container
//   build/fuzz/tests/cpp/fuzz_container -max_total_time=300 -malloc_limit_mb=64

#include "container_fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    crypto_test::fuzz_container(data, size);
    return 0;
}
