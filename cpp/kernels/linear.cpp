#include "kernels/linear.hpp"

#include <array>
#include <atomic>
#include <stdexcept>

#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

const std::vector<const LinearKernel*>& supported_kernels() {
    static const std::vector<const LinearKernel*> kernels = [] {
        std::vector<const LinearKernel*> found;
        for (const auto list : {scalar_linear_kernels, avx2_linear_kernels, avx_vnni_linear_kernels,
                                avx512_linear_kernels, amx_linear_kernels}) {
            for (const LinearKernel* const* kernel = list(); *kernel != nullptr; ++kernel) {
                if (supported((*kernel)->isa)) found.push_back(*kernel);
            }
        }
        return found;
    }();
    return kernels;
}

constexpr size_t kMostKernels = 32;
constexpr size_t kShards = 16;

// A cache line or more of its own for each of a few threads: all of them count at the same time.
struct alignas(64) Shard {
    std::array<std::atomic<uint64_t>, kMostKernels> calls{};
};
std::array<Shard, kShards> shards;

Shard& shard_of_this_thread() {
    static std::atomic<size_t> threads{0};
    thread_local Shard& shard = shards[threads.fetch_add(1) % kShards];
    return shard;
}

}  // namespace

std::vector<const LinearKernel*> linear_kernels() {
    return supported_kernels();
}

const LinearKernel& select_linear(const WeightFormat& format, size_t rows,
                                  ActivationPrecision precision) {
    const LinearKernel* best = nullptr;
    for (const LinearKernel* kernel : supported_kernels()) {
        if (precision == ActivationPrecision::Exact && kernel->activations != ActivationKind::F32) {
            continue;
        }
        if (rows < kernel->min_rows || rows > kernel->max_rows || !kernel->supports(format)) {
            continue;
        }
        if (best != nullptr && kernel->preference <= best->preference) continue;
        if (allowed(kernel->isa)) best = kernel;
    }
    if (best == nullptr) {
        throw std::invalid_argument("no kernel multiplies " + std::to_string(rows) + " rows by " +
                                    format.text());
    }
    return *best;
}

std::vector<std::pair<std::string, uint64_t>> kernel_calls() {
    std::vector<std::pair<std::string, uint64_t>> counts;
    const auto& kernels = supported_kernels();
    for (size_t i = 0; i < kernels.size(); ++i) {
        uint64_t calls = 0;
        for (const Shard& shard : shards) calls += shard.calls[i].load(std::memory_order_relaxed);
        counts.emplace_back(kernels[i]->name, calls);
    }
    return counts;
}

void run_linear(const LinearKernel& kernel, const LinearArgs& args) {
    const auto& kernels = supported_kernels();
    size_t index = 0;
    while (index < kernels.size() && kernels[index] != &kernel) ++index;
    if (index == kernels.size()) {
        throw std::invalid_argument(std::string("this machine cannot run the kernel ") +
                                    kernel.name);
    }
    shard_of_this_thread().calls.at(index).fetch_add(1, std::memory_order_relaxed);
    kernel.run(args);
}

std::vector<const VectorKernels*> all_vector_kernels() {
    std::vector<const VectorKernels*> tables;
    for (const auto get : {scalar_vector_kernels, avx2_vector_kernels, avx512_vector_kernels}) {
        if (supported(get().isa)) tables.push_back(&get());
    }
    return tables;
}

const VectorKernels& vector_kernels() {
    const VectorKernels* best = nullptr;
    for (const auto get : {scalar_vector_kernels, avx2_vector_kernels, avx512_vector_kernels}) {
        // AVX-VNNI has no elementwise instructions of its own: AVX2's serve it.
        const bool stands_in = get().isa == Isa::Avx2 && forced_isa() == Isa::AvxVnni;
        if (allowed(get().isa) || stands_in) best = &get();
    }
    return *best;
}

}  // namespace ovfast::kernels
