// Which of attention's implementations may run; compiled for every processor.

#include "kernels/attention.hpp"

#include "kernels/attention_amx.hpp"

namespace ovfast::kernels {

bool attention_supported() {
    return supports_avx512_bf16() && allowed(Isa::Avx512Vnni);
}

size_t attention_tile_queries() {
    return allowed(Isa::Amx) ? kAttentionManyQueries : kAttentionFewQueries;
}

}  // namespace ovfast::kernels
