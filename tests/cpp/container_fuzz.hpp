#pragma once

#include <cstddef>
#include <cstdint>

namespace crypto_test {

/// One input of a fuzzer: hostile bytes as a header, as the manifest in an authentic one, and as
/// the files of an encrypted directory. Whatever it is must end in DecryptionError or be accepted
/// without reading or allocating beyond what the bytes themselves justify; anything else aborts.
void fuzz_container(const uint8_t* data, size_t size);

}  // namespace crypto_test
