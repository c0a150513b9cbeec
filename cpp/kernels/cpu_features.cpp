#include "kernels/cpu_features.hpp"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>

namespace ovfast::kernels {
namespace {

constexpr std::array<Isa, 5> kIsas = {Isa::Scalar, Isa::Avx2, Isa::AvxVnni, Isa::Avx512Vnni,
                                      Isa::Amx};

struct Registers {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

/// Zeros for a leaf or subleaf that the processor does not have.
Registers cpuid(unsigned leaf, unsigned subleaf) {
    Registers found;
    if (leaf == 7 && subleaf > 0 && cpuid(7, 0).eax < subleaf) return found;
    __get_cpuid_count(leaf, subleaf, &found.eax, &found.ebx, &found.ecx, &found.edx);
    return found;
}

bool has(unsigned word, std::initializer_list<int> bits) {
    for (const int bit : bits) {
        if ((word >> bit & 1U) == 0) return false;
    }
    return true;
}

/// Register sets that the system saves at a switch of threads.
uint64_t saved_state() {
    uint32_t low = 0;
    uint32_t high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
}

/// Linux gives the 8 KB of tile registers only to processes that ask.
bool tiles_granted() {
    constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr long kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

std::array<bool, kIsas.size()> detect() {
    std::array<bool, kIsas.size()> found{};
    found[static_cast<size_t>(Isa::Scalar)] = true;
    const Registers basic = cpuid(1, 0);
    if (!has(basic.ecx, {12, 27, 28, 29})) return found;  // FMA, OSXSAVE, AVX, F16C
    const Registers extended = cpuid(7, 0);
    const Registers more = cpuid(7, 1);
    const uint64_t saved = saved_state();
    const auto saves = [&](uint64_t mask) { return (saved & mask) == mask; };

    const bool avx2 = has(extended.ebx, {5}) && saves(0x6);  // XMM, YMM
    const bool avx_vnni = avx2 && has(more.eax, {4});
    const bool avx512 = avx2 && has(extended.ebx, {16, 17, 30, 31}) &&  // F, DQ, BW, VL
                        has(extended.ecx, {1, 11}) &&                   // VBMI, VNNI
                        saves(0xE6);                                    // masks, ZMM
    const bool amx = avx512 && has(more.eax, {5}) &&                    // AVX-512 BF16
                     has(extended.edx, {22, 24, 25}) &&                 // AMX BF16, TILE, INT8
                     saves(0x60000) && tiles_granted();  // tile configuration and data
    found[static_cast<size_t>(Isa::Avx2)] = avx2;
    found[static_cast<size_t>(Isa::AvxVnni)] = avx_vnni;
    found[static_cast<size_t>(Isa::Avx512Vnni)] = avx512;
    found[static_cast<size_t>(Isa::Amx)] = amx;
    return found;
}

bool detect_avx512_bf16() {
    return has(cpuid(7, 1).eax, {5});
}

std::string supported_names() {
    std::string names;
    for (const Isa isa : supported_isas()) {
        if (!names.empty()) names += ", ";
        names += name(isa);
    }
    return names;
}

std::optional<Isa> from_environment() {
    const char* text = std::getenv("OVFAST_FORCE_ISA");
    if (text == nullptr || *text == '\0') return std::nullopt;
    for (const Isa isa : kIsas) {
        if (text != std::string(name(isa))) continue;
        if (supported(isa)) return isa;
        throw std::invalid_argument(std::string("OVFAST_FORCE_ISA=") + text +
                                    ": not supported here; supported: " + supported_names());
    }
    throw std::invalid_argument(std::string("OVFAST_FORCE_ISA=") + text +
                                ": no such instruction set; supported here: " + supported_names());
}

constexpr int kNotOverridden = -1;
std::atomic<int> override_{kNotOverridden};

}  // namespace

const char* name(Isa isa) {
    switch (isa) {
        case Isa::Scalar:
            return "scalar";
        case Isa::Avx2:
            return "avx2";
        case Isa::AvxVnni:
            return "avx_vnni";
        case Isa::Avx512Vnni:
            return "avx512_vnni";
        case Isa::Amx:
            return "amx";
    }
    throw std::invalid_argument("no such instruction set: " +
                                std::to_string(static_cast<int>(isa)));
}

bool supported(Isa isa) {
    static const std::array<bool, kIsas.size()> found = detect();
    return found.at(static_cast<size_t>(isa));
}

bool supports_avx512_bf16() {
    static const bool found = supported(Isa::Avx512Vnni) && detect_avx512_bf16();
    return found;
}

std::vector<Isa> supported_isas() {
    std::vector<Isa> isas;
    for (const Isa isa : kIsas) {
        if (supported(isa)) isas.push_back(isa);
    }
    return isas;
}

std::optional<Isa> forced_isa() {
    const int forced = override_.load(std::memory_order_relaxed);
    if (forced != kNotOverridden) return static_cast<Isa>(forced);
    static const std::optional<Isa> from_user = from_environment();
    return from_user;
}

void force_isa(std::optional<Isa> isa) {
    if (isa && !supported(*isa)) {
        throw std::invalid_argument(std::string("expected one of ") + supported_names() + ", got " +
                                    name(*isa));
    }
    override_.store(isa ? static_cast<int>(*isa) : kNotOverridden, std::memory_order_relaxed);
}

bool allowed(Isa isa) {
    if (!supported(isa)) return false;
    const std::optional<Isa> forced = forced_isa();
    return !forced || isa == *forced || isa == Isa::Scalar ||
           (*forced == Isa::Amx && isa == Isa::Avx512Vnni);
}

}  // namespace ovfast::kernels
