#pragma once

// What each instruction set's files contribute. A file of its own for each set, compiled with that
// set's flags; nothing but these functions leaves it, and it includes no header with inline code
// that other files share: the linker may keep the AVX-512 copy of such a function for everyone.

#include "kernels/linear.hpp"
#include "kernels/stream.hpp"

namespace ovfast::kernels {

/// A null-terminated array of kernels.
const LinearKernel* const* scalar_linear_kernels();
const LinearKernel* const* avx2_linear_kernels();
const LinearKernel* const* avx_vnni_linear_kernels();
const LinearKernel* const* avx512_linear_kernels();
const LinearKernel* const* amx_linear_kernels();

const VectorKernels& scalar_vector_kernels();
const VectorKernels& avx2_vector_kernels();
const VectorKernels& avx512_vector_kernels();

const StreamKernels& scalar_stream_kernels();
const StreamKernels& avx2_stream_kernels();
const StreamKernels& avx512_stream_kernels();

}  // namespace ovfast::kernels
