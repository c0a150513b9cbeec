// How near the kernels come to what the machine can do: the multiplication alone, on packed weights
// of every format, against the rate at which the same threads read memory and the rate at which
// they issue vpdpbusd, both measured between the kernel's own runs.
//
//   ovfast-kernel-bench [--rows M,...] [--formats u4g128,...] [--shape NxK] [--rounds R]
//                       [--activations int8|int8_g128|exact] [--json]
//
// The weights are copies enough to exceed any cache. Prints medians over the rounds.

#include <immintrin.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/pack.hpp"
#include "kernels/peak_rate.hpp"
#include "ops/packed_ops.hpp"
#include "ops/parallel_linear.hpp"

namespace {

using namespace ovfast;
using Clock = std::chrono::steady_clock;

constexpr size_t kWorkingSet = size_t{1} << 30;

double seconds(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

template <typename Work>
void on_every_thread(const Work& work) {
    const int threads = tbb::this_task_arena::max_concurrency();
    tbb::parallel_for(0, threads, [&](int t) { work(t, threads); }, tbb::static_partitioner{});
}

// Bytes a second that all threads together read.
double read_bandwidth(const std::vector<uint64_t>& memory) {
    std::vector<uint64_t> sums(64);
    const auto start = Clock::now();
    on_every_thread([&](int t, int threads) {
        const size_t first = memory.size() * t / threads / 64 * 64;
        const size_t last = memory.size() * (t + 1) / threads / 64 * 64;
        __m128i sum[4] = {};
        for (size_t i = first; i < last; i += 8) {
            for (size_t j = 0; j < 4; ++j) {
                const auto* at = reinterpret_cast<const __m128i*>(memory.data() + i + 2 * j);
                sum[j] = _mm_add_epi64(sum[j], _mm_loadu_si128(at));
            }
        }
        sums[t] = static_cast<uint64_t>(_mm_cvtsi128_si64(
            _mm_add_epi64(_mm_add_epi64(sum[0], sum[1]), _mm_add_epi64(sum[2], sum[3]))));
    });
    const double taken = seconds(start);
    volatile uint64_t keep = sums[0] + sums[1];
    (void)keep;
    return static_cast<double>(memory.size() * 8) / taken;
}

// Multiply-adds a second of independent vpdpbusd chains on all threads together; 0 without VNNI.
double vnni_rate() {
    if (!kernels::supported(kernels::Isa::Avx512Vnni)) return 0.0;
    const kernels::PeakLoop loop = *kernels::int8_peak_loop();
    constexpr int iterations = 1'000'000;
    // Processors take up to a millisecond to allow wide multiplications their full rate.
    on_every_thread([&](int, int) { loop.run(iterations / 2); });
    const auto start = Clock::now();
    on_every_thread([&](int, int) { loop.run(iterations); });
    const double taken = seconds(start);
    return loop.operations_per_iteration / 2.0 * iterations *
           tbb::this_task_arena::max_concurrency() / taken;
}

kernels::WeightFormat parse_format(const std::string& text) {
    using kernels::FloatKind;
    using kernels::OffsetKind;
    using kernels::ScaleKind;
    kernels::WeightFormat format;
    if (text == "bf16") {
        return {16, ScaleKind::None, OffsetKind::None, FloatKind::BF16, 0};
    }
    if (text == "q4_k") {
        return {4, ScaleKind::SuperU8, OffsetKind::SuperU8, FloatKind::None, 32};
    }
    if (text == "q6_k") {
        return {6, ScaleKind::SuperI8, OffsetKind::Symmetric, FloatKind::None, 16};
    }
    unsigned bits = 0;
    unsigned group = 0;
    char zero = 0;
    const int found = std::sscanf(text.c_str(), "u%ug%u%c", &bits, &group, &zero);
    if (found < 2) throw std::invalid_argument("unknown format '" + text + "'");
    format.bits = static_cast<uint8_t>(bits);
    format.group = group;
    if (zero == 'z') format.offsets = OffsetKind::ZeroPoint;
    return format;
}

kernels::PlainWeights random_weights(const kernels::WeightFormat& format, size_t rows,
                                     size_t columns) {
    using kernels::OffsetKind;
    using kernels::ScaleKind;
    std::mt19937 random(1);
    kernels::PlainWeights weights;
    weights.format = format;
    weights.rows = rows;
    weights.columns = columns;
    const size_t count = rows * columns;
    if (format.bits == 16) {
        weights.floats.resize(count);
        for (uint16_t& value : weights.floats) {
            value = kernels::to_bf16(static_cast<float>(random() % 200) / 100.0F - 1.0F);
        }
        return weights;
    }
    const size_t groups = (columns + format.group - 1) / format.group;
    const size_t supers = (columns + 255) / 256;
    weights.codes.resize(count);
    for (uint8_t& code : weights.codes) code = random() & ((1U << format.bits) - 1);
    weights.scales.assign(rows * groups, 0.015625F);
    if (format.scales >= ScaleKind::SuperU8) {
        weights.scales.clear();
        weights.scale_supers.assign(rows * supers, 0.001953125F);
        weights.scale_codes.assign(rows * groups, 9);
    }
    if (format.offsets == OffsetKind::ZeroPoint) weights.zero_points.assign(rows * groups, 7);
    if (format.offsets == OffsetKind::SuperU8) {
        weights.offset_supers.assign(rows * supers, 0.001953125F);
        weights.offset_codes.assign(rows * groups, 11);
    }
    return weights;
}

class Copies {
public:
    Copies(const kernels::PlainWeights& plain, size_t total) {
        const size_t bytes = kernels::packed_bytes(plain.format, plain.rows, plain.columns);
        stride_ = (bytes + 63) / 64 * 64;
        const size_t count = std::max<size_t>(1, total / stride_);
        memory_.reset(static_cast<std::byte*>(std::aligned_alloc(64, stride_ * count)));
        kernels::pack(plain, memory_.get());
        for (size_t i = 1; i < count; ++i) {
            std::memcpy(memory_.get() + i * stride_, memory_.get(), bytes);
        }
        for (size_t i = 0; i < count; ++i) {
            views_.push_back(kernels::PackedWeights::view(memory_.get() + i * stride_, bytes));
        }
    }
    const std::vector<kernels::PackedWeights>& views() const { return views_; }

private:
    struct Free {
        void operator()(std::byte* memory) const { std::free(memory); }
    };
    std::unique_ptr<std::byte, Free> memory_;
    size_t stride_ = 0;
    std::vector<kernels::PackedWeights> views_;
};

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
    return parts;
}

int run(int argc, char** argv) {
    std::vector<std::string> formats{"u4g128", "u4g32", "u4g32z", "q4_k", "u5g32",
                                     "q6_k",   "u8g32", "u8g896", "bf16"};
    std::vector<std::string> row_counts{"1", "2", "4", "8", "16", "32", "64", "512"};
    size_t n = 4864;
    size_t k = 896;
    int rounds = 7;
    bool json = false;
    auto precision = kernels::ActivationPrecision::Int8;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--json") {
            json = true;
            continue;
        }
        if (i + 1 == argc) throw std::invalid_argument(option + " needs a value");
        const std::string value = argv[++i];
        if (option == "--rows") {
            row_counts = split(value);
        } else if (option == "--formats") {
            formats = split(value);
        } else if (option == "--shape") {
            if (std::sscanf(value.c_str(), "%zux%zu", &n, &k) != 2) {
                throw std::invalid_argument("--shape wants NxK, got " + value);
            }
        } else if (option == "--activations") {
            const auto parsed = ops::parse_activations(value);
            if (!parsed) throw std::invalid_argument("unknown activations '" + value + "'");
            precision = *parsed;
        } else if (option == "--rounds") {
            rounds = std::stoi(value);
        } else {
            throw std::invalid_argument("unknown option " + option);
        }
    }
    std::vector<uint64_t> memory(kWorkingSet / 8, 1);
    if (!json) {
        std::printf("%-8s %5s %-28s %9s %8s %9s %8s %9s\n", "format", "rows", "kernel", "ms",
                    "GB/s", "of read", "GMAC/s", "of vnni");
    }
    for (const std::string& name : formats) {
        const kernels::WeightFormat format = parse_format(name);
        const Copies copies(random_weights(format, n, k), kWorkingSet);
        for (const std::string& text : row_counts) {
            const size_t rows = std::stoul(text);
            std::vector<float> x(rows * k);
            std::mt19937 random(2);
            for (float& value : x) value = static_cast<float>(random() % 2001) / 1000.0F - 1.0F;
            std::vector<float> out(rows * n);
            // Few rows stream through everything; many need no more than a moment's work.
            const size_t used = std::max<size_t>(
                1, std::min(copies.views().size(), copies.views().size() * 4 / (rows + 3)));
            std::vector<double> times;
            std::vector<double> reads;
            std::vector<double> vnni;
            for (int round = 0; round <= rounds; ++round) {
                const double read = read_bandwidth(memory);
                const double rate = vnni_rate();
                const auto start = Clock::now();
                for (size_t i = 0; i < used; ++i) {
                    const ops::LinearJob job{&copies.views()[i], nullptr, nullptr, 0,
                                             out.data(),         n};
                    ops::run_linear_jobs(x.data(), rows, k, {}, &job, 1, precision);
                }
                const double time = seconds(start) / static_cast<double>(used);
                if (round == 0) continue;  // warms up
                times.push_back(time);
                reads.push_back(read);
                // The clock falls under wide multiplications: before and behind is fair.
                vnni.push_back((rate + vnni_rate()) / 2);
            }
            const double time = median(times);
            const double bytes = static_cast<double>(copies.views()[0].bytes()) / time;
            const double macs = static_cast<double>(n * k * rows) / time;
            const char* kernel = kernels::select_linear(format, rows, precision).name;
            const char* line =
                json ? "{\"format\": \"%s\", \"rows\": %zu, \"kernel\": \"%s\", \"ms\": %.4f, "
                       "\"gb_s\": %.2f, \"of_read\": %.3f, \"gmac_s\": %.1f, \"of_vnni\": %.3f}\n"
                     : "%-8s %5zu %-28s %9.4f %8.2f %9.3f %8.1f %9.3f\n";
            std::printf(line, name.c_str(), rows, kernel, time * 1e3, bytes / 1e9,
                        bytes / median(reads), macs / 1e9,
                        median(vnni) > 0 ? macs / median(vnni) : 0.0);
            std::fflush(stdout);
        }
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "ovfast-kernel-bench: %s\n", error.what());
        return 2;
    }
}
