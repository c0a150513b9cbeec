#include "engine/sampler.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>

#include "ovfast/error.hpp"

// The loops that see the whole vocabulary are compiled for several instruction sets, and the loader
// picks one. They round alike everywhere: without -ffp-contract nothing becomes a fused
// multiply-add. Sanitizers run before the loader's choice can, so under them there is one version.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define OVFAST_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define OVFAST_VECTOR_CLONES
#endif

namespace ovfast {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The vocabulary is worked through in blocks: small enough that a block with changed logits is
// patched in a copy that stays in the L1 cache (nothing of the vocabulary's size is ever copied),
// and that the largest logit of each block tells which few blocks a search must look at.
constexpr size_t kBlock = 256;

struct Patch {
    size_t id;
    float value;
};

/// A token that may be chosen. `weight` is its probability relative to the most probable token.
struct Candidate {
    double weight;
    float logit;
    uint32_t id;
};

bool comes_before(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

/// Buffers of one call. Kept for each thread rather than each sequence: with a flat distribution
/// they grow to some megabytes, and hundreds of sequences may run.
struct Scratch {
    std::vector<Patch> patches;
    std::vector<float> block_max;
    std::vector<float> sorted_max;
    std::vector<double> block_sums;
    std::vector<Candidate> candidates;
};

Scratch& scratch() {
    thread_local Scratch buffers;
    return buffers;
}

/// The model's logits with some replaced, read block by block. `patches` ascend by id.
class Logits {
public:
    struct Block {
        const float* values;
        size_t first_id;
        size_t count;
    };
    using Buffer = std::array<float, kBlock>;

    Logits(const float* values, size_t size, const std::vector<Patch>* patches = nullptr)
        : values_(values), size_(size), patches_(patches) {}

    size_t size() const { return size_; }
    size_t blocks() const { return (size_ + kBlock - 1) / kBlock; }

    Block block(size_t index, Buffer& buffer) const {
        const size_t begin = index * kBlock;
        const size_t count = std::min(kBlock, size_ - begin);
        if (patches_ == nullptr) return {values_ + begin, begin, count};
        auto patch = std::lower_bound(patches_->begin(), patches_->end(), begin,
                                      [](const Patch& p, size_t id) { return p.id < id; });
        if (patch == patches_->end() || patch->id >= begin + count) {
            return {values_ + begin, begin, count};
        }
        std::copy_n(values_ + begin, count, buffer.begin());
        for (; patch != patches_->end() && patch->id < begin + count; ++patch) {
            buffer[patch->id - begin] = patch->value;
        }
        return {buffer.data(), begin, count};
    }

private:
    const float* values_;
    size_t size_;
    const std::vector<Patch>* patches_;
};

/// Largest of a block, and whether all are below +infinity (NaN is not below it). Compares integers
/// that order like the floats, because a compiler may not reorder, and so vectorise, a maximum of
/// floats.
OVFAST_VECTOR_CLONES
float block_maximum(const float* values, size_t count, bool& valid) {
    int32_t largest = std::numeric_limits<int32_t>::min();
    int32_t invalid = 0;
    for (size_t i = 0; i < count; ++i) {
        int32_t key;
        std::memcpy(&key, &values[i], sizeof key);
        key ^= (key >> 31) & 0x7FFFFFFF;
        largest = key > largest ? key : largest;
        invalid |= static_cast<int32_t>(!(values[i] < kInfinity));
    }
    largest ^= (largest >> 31) & 0x7FFFFFFF;
    float result;
    std::memcpy(&result, &largest, sizeof result);
    valid = invalid == 0;
    return result;
}

[[noreturn]] void throw_invalid_logit(const Logits::Block& block) {
    const float* bad = std::find_if(block.values, block.values + block.count,
                                    [](float value) { return !(value < kInfinity); });
    throw ModelError("the model's logits hold " +
                     std::string(std::isnan(*bad) ? "NaN" : "+infinity") + " for token " +
                     std::to_string(block.first_id + static_cast<size_t>(bad - block.values)) +
                     "; expected finite numbers or -infinity");
}

struct TokenLogit {
    float logit;
    size_t id;
};

/// The largest logit and the lowest id that has it: the one pass that every choice needs. Fills
/// `block_max`.
TokenLogit find_peak(const Logits& logits, std::vector<float>& block_max) {
    Logits::Buffer buffer;
    block_max.resize(logits.blocks());
    size_t best = 0;
    for (size_t i = 0; i < logits.blocks(); ++i) {
        const Logits::Block block = logits.block(i, buffer);
        bool valid = true;
        block_max[i] = block_maximum(block.values, block.count, valid);
        if (!valid) throw_invalid_logit(block);
        if (block_max[i] > block_max[best]) best = i;
    }
    const Logits::Block block = logits.block(best, buffer);
    const float* peak = std::find(block.values, block.values + block.count, block_max[best]);
    return {block_max[best], block.first_id + static_cast<size_t>(peak - block.values)};
}

constexpr double kSmallestExponent = -708.0;  // exp() of it, 3.3e-308, is still a normal number
constexpr double kSmallestExp = 3.4e-308;

/// exp(x) for x in (-708, 0], to about one unit in the last place, and 0 for -708. Unlike std::exp
/// a compiler can vectorise it, and it gives the same bits with every C library.
inline double exp_of_nonpositive(double x) {
    constexpr double kRound = 0x1.8p52;  // adding it leaves an integer in the lowest bits
    constexpr double kLog2e = 0x1.71547652b82fep0;
    constexpr double kLn2High = 0x1.62e42fefa0000p-1;  // k * kLn2High is exact
    constexpr double kLn2Low = 0x1.cf79abc9e3b3ap-40;
    const double shifted = x * kLog2e + kRound;
    const double k = shifted - kRound;
    const double r = (x - k * kLn2High) - k * kLn2Low;
    // Taylor's series: |r| <= ln(2) / 2, so the first omitted term is below 2^-57.
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    // Multiplies by 2^k: the low bits of `shifted` are k, moved here into the exponent field.
    uint64_t exponent;
    uint64_t bits;
    std::memcpy(&exponent, &shifted, sizeof exponent);
    std::memcpy(&bits, &p, sizeof bits);
    bits += exponent << 52;
    double result;
    std::memcpy(&result, &bits, sizeof result);
    return result > kSmallestExp ? result : 0.0;
}

/// exp() of each exponent, in place.
OVFAST_VECTOR_CLONES
void exp_of_nonpositive(double* exponents, size_t count) {
    for (size_t i = 0; i < count; ++i) exponents[i] = exp_of_nonpositive(exponents[i]);
}

/// Logit -> weight relative to the peak.
class Weigher {
public:
    using Buffer = std::array<double, kBlock>;

    Weigher(float peak, double temperature)
        : peak_(peak),
          // Finite also for denormal temperatures, so that the peak itself gets 0 * scale = 0.
          scale_(std::min(1.0 / temperature, std::numeric_limits<double>::max())) {}

    double operator()(float logit) const { return exp_of_nonpositive(exponent(logit)); }

    void weigh(const Logits::Block& block, double* weights) const {
        // Two loops: in one, the branch of the clamp would keep the compiler from vectorising.
        const Weigher self = *this;
        for (size_t i = 0; i < block.count; ++i) weights[i] = self.exponent(block.values[i]);
        exp_of_nonpositive(weights, block.count);
    }

    double sum(const Logits::Block& block) const {
        Buffer weights;
        weigh(block, weights.data());
        std::fill(weights.begin() + static_cast<std::ptrdiff_t>(block.count), weights.end(), 0.0);
        // Halving is exact to a few units in the last place, fixes the order and vectorises.
        for (size_t half = kBlock / 2; half > 0; half /= 2) {
            double* low = weights.data();
            const double* high = low + half;
            for (size_t i = 0; i < half; ++i) low[i] += high[i];
        }
        return weights[0];
    }

private:
    double exponent(float logit) const {
        return std::max((static_cast<double>(logit) - peak_) * scale_, kSmallestExponent);
    }

    double peak_;
    double scale_;
};

/// Sum of all weights; the sum of each block into `block_sums`.
double sum_weights(const Logits& logits, const Weigher& weigher, std::vector<double>& block_sums) {
    Logits::Buffer buffer;
    block_sums.resize(logits.blocks());
    double sum = 0.0;
    for (size_t i = 0; i < logits.blocks(); ++i) {
        block_sums[i] = weigher.sum(logits.block(i, buffer));
        sum += block_sums[i];
    }
    return sum;
}

/// Tokens with at least the logit `floor`, looking only into blocks that have one.
void gather(const Logits& logits, const std::vector<float>& block_max, float floor,
            std::vector<Candidate>& candidates) {
    Logits::Buffer buffer;
    candidates.clear();
    for (size_t i = 0; i < logits.blocks(); ++i) {
        if (block_max[i] < floor) continue;
        const Logits::Block block = logits.block(i, buffer);
        for (size_t j = 0; j < block.count; ++j) {
            if (block.values[j] >= floor) {
                candidates.push_back(
                    {0.0, block.values[j], static_cast<uint32_t>(block.first_id + j)});
            }
        }
    }
}

/// The k first tokens, in any order.
void gather_top(const Logits& logits, size_t k, Scratch& s) {
    // At least k tokens reach the k-th largest of the block maxima: a bound without any search.
    float floor = -kInfinity;
    if (k <= logits.blocks()) {
        s.sorted_max = s.block_max;
        const auto nth = s.sorted_max.begin() + static_cast<std::ptrdiff_t>(k - 1);
        std::nth_element(s.sorted_max.begin(), nth, s.sorted_max.end(), std::greater<>());
        floor = *nth;
    }
    gather(logits, s.block_max, floor, s.candidates);
    if (s.candidates.size() > k) {
        std::nth_element(s.candidates.begin(),
                         s.candidates.begin() + static_cast<std::ptrdiff_t>(k), s.candidates.end(),
                         comes_before);
        s.candidates.resize(k);
    }
}

double weigh(std::vector<Candidate>& candidates, const Weigher& weigher) {
    double sum = 0.0;
    for (Candidate& candidate : candidates) {
        candidate.weight = weigher(candidate.logit);
        sum += candidate.weight;
    }
    return sum;
}

/// Gathers and weighs all tokens at least `weight` heavy, and perhaps some that are lighter by a
/// rounding error. Returns the sum.
double gather_heavy(const Logits& logits, const TokenLogit& peak, const Weigher& weigher,
                    double temperature, double weight, Scratch& s) {
    float floor = -kInfinity;
    if (weight > 0.0) {
        const double exact = static_cast<double>(peak.logit) + temperature * std::log(weight);
        const double lowest = std::numeric_limits<float>::lowest();
        floor = std::nextafter(static_cast<float>(std::max(exact, lowest)), -kInfinity);
    }
    gather(logits, s.block_max, floor, s.candidates);
    return weigh(s.candidates, weigher);
}

/// The end of the shortest prefix, in order of probability, whose weights' sum satisfies `reached`.
/// Moves the prefix to the front. Linear: bisects with partial sorts instead of sorting all, which
/// matters when the distribution is flat.
template <typename Reached>
std::vector<Candidate>::iterator shortest_prefix(std::vector<Candidate>& candidates,
                                                 Reached reached) {
    constexpr std::ptrdiff_t kFewEnoughToSort = 64;
    auto begin = candidates.begin();
    auto end = candidates.end();
    double sum = 0.0;  // of what lies before `begin`; does not satisfy
    while (end - begin > kFewEnoughToSort) {
        const auto middle = begin + (end - begin) / 2;
        std::nth_element(begin, middle, end, comes_before);
        double half = 0.0;
        for (auto it = begin; it != middle; ++it) half += it->weight;
        if (reached(sum + half)) {
            end = middle;
        } else {
            sum += half;
            begin = middle;
        }
    }
    std::sort(begin, end, comes_before);
    for (auto it = begin; it != end; ++it) {
        sum += it->weight;
        if (reached(sum)) return it + 1;
    }
    return end;  // only rounding stands between the sum and the bound
}

size_t draw(std::vector<Candidate>& candidates, double uniform) {
    double sum = 0.0;
    for (const Candidate& candidate : candidates) sum += candidate.weight;
    const double target = uniform * sum;
    const auto end = shortest_prefix(candidates, [=](double weight) { return weight > target; });
    return (end - 1)->id;
}

/// Draws from the whole vocabulary in ascending order of ids: no sorting, nothing kept but the sums
/// of the blocks.
size_t draw_unfiltered(const Logits& logits, const Weigher& weigher, double uniform, Scratch& s) {
    const double target = uniform * sum_weights(logits, weigher, s.block_sums);
    size_t chosen = 0;
    double before = 0.0;
    double sum = 0.0;
    for (size_t i = 0; i < s.block_sums.size(); ++i) {
        if (s.block_sums[i] == 0.0) continue;
        chosen = i;
        before = sum;
        sum += s.block_sums[i];
        if (sum > target) break;
    }
    Logits::Buffer buffer;
    Weigher::Buffer weights;
    const Logits::Block block = logits.block(chosen, buffer);
    weigher.weigh(block, weights.data());
    // Rounding may leave the sum a hair below the target at the end: then the last one that is
    // possible at all.
    size_t id = block.first_id;
    for (size_t j = 0; j < block.count; ++j) {
        if (weights[j] == 0.0) continue;
        id = block.first_id + j;
        before += weights[j];
        if (before > target) break;
    }
    return id;
}

/// Chooses with temperature and filters; `peak` is of the same logits.
size_t draw_filtered(const Logits& logits, const TokenLogit& peak, const SamplingParams& params,
                     double uniform, Scratch& s) {
    const Weigher weigher(peak.logit, params.temperature);
    const bool top_k = params.top_k > 0 && static_cast<uint64_t>(params.top_k) < logits.size();
    const bool top_p = params.top_p < 1.0;
    if (!top_k && !top_p && params.min_p == 0.0) {
        return draw_unfiltered(logits, weigher, uniform, s);
    }

    double sum = 0.0;  // of everything that top-p takes its share of
    if (top_k) {
        gather_top(logits, static_cast<size_t>(params.top_k), s);
        sum = weigh(s.candidates, weigher);
    } else if (top_p) {
        sum = sum_weights(logits, weigher, s.block_sums);
        // A peaked distribution is done with the first bound and a handful of tokens; a flat one
        // too, with most of the vocabulary. What is lighter than min_p is not missed.
        for (const double bound : {1e-2, 1e-4, 1e-6, 1e-9, 0.0}) {
            const double weight = std::max(bound, params.min_p);
            const double gathered =
                gather_heavy(logits, peak, weigher, params.temperature, weight, s);
            if (gathered >= params.top_p * sum || weight == params.min_p) break;
        }
    } else {
        gather_heavy(logits, peak, weigher, params.temperature, params.min_p, s);
    }
    if (top_p) {
        const double needed = params.top_p * sum;
        s.candidates.erase(
            shortest_prefix(s.candidates, [=](double weight) { return weight >= needed; }),
            s.candidates.end());
    }
    const auto dropped = [&](const Candidate& candidate) {
        return candidate.weight < params.min_p || candidate.weight == 0.0;
    };
    s.candidates.erase(std::remove_if(s.candidates.begin(), s.candidates.end(), dropped),
                       s.candidates.end());
    return draw(s.candidates, uniform);
}

/// Of the model's own logits, whose peak and block maxima were found before.
PositionLogprobs log_probabilities(const Logits& raw, const TokenLogit& peak,
                                   const TokenLogit& chosen, size_t top, Scratch& s) {
    const Weigher weigher(peak.logit, 1.0);
    const double log_sum = std::log(sum_weights(raw, weigher, s.block_sums));
    const auto entry = [&](size_t id, float logit) {
        const double relative = static_cast<double>(logit) - static_cast<double>(peak.logit);
        return TokenLogprob{static_cast<int64_t>(id), static_cast<float>(relative - log_sum)};
    };
    PositionLogprobs result;
    result.chosen = entry(chosen.id, chosen.logit);
    if (top == 0) return result;
    gather_top(raw, top, s);
    std::sort(s.candidates.begin(), s.candidates.end(), comes_before);
    result.top.reserve(s.candidates.size());
    for (const Candidate& candidate : s.candidates) {
        result.top.push_back(entry(candidate.id, candidate.logit));
    }
    return result;
}

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15U;

uint64_t split_mix(uint64_t state) {
    uint64_t z = state + kGolden;
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31U);
}

uint64_t system_seed() {
    std::random_device device;
    return (static_cast<uint64_t>(device()) << 32U) | device();
}

void check_ids(const std::vector<int64_t>& ids, const char* what) {
    for (const int64_t id : ids) {
        if (id < 0) {
            throw std::invalid_argument(std::string(what) + " holds the token id " +
                                        std::to_string(id) + "; expected ids >= 0");
        }
    }
}

}  // namespace

Sampler::Sampler(const SamplingParams& params, const std::vector<int64_t>& prompt_ids,
                 const std::vector<int64_t>& banned_before_minimum, size_t answer)
    : params_(params) {
    params_.validate();
    check_ids(prompt_ids, "prompt");
    check_ids(banned_before_minimum, "banned_before_minimum");

    // Only what can change a logit is tracked, so that plain requests cost nothing.
    if (params_.repetition_penalty != 1.0) {
        std::vector<int64_t> ids = prompt_ids;
        std::sort(ids.begin(), ids.end());
        ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
        tracked_.reserve(ids.size());
        for (const int64_t id : ids) tracked_.push_back({id, 0, true, false});
    }
    if (params_.min_new_tokens > 0) {
        for (const int64_t id : banned_before_minimum) track(id).banned = true;
    }
    if (!params_.greedy()) {
        const uint64_t seed = params_.seed ? *params_.seed : system_seed();
        random_state_ = split_mix(split_mix(seed) + static_cast<uint64_t>(answer));
    }
}

size_t Sampler::largest_needed(std::vector<int64_t>& lowered) const {
    const bool raises = params_.repetition_penalty < 1.0 || params_.presence_penalty < 0.0 ||
                        params_.frequency_penalty < 0.0;
    if (raises || params_.logprobs) return 0;
    for (const Tracked& token : tracked_) lowered.push_back(token.id);
    return params_.greedy() ? 1 : static_cast<size_t>(params_.top_k);
}

Sampler::Choice Sampler::sample(const float* logits, size_t vocab_size) {
    if (logits == nullptr || vocab_size == 0 || vocab_size > std::numeric_limits<uint32_t>::max()) {
        throw std::invalid_argument("vocab_size is " + std::to_string(vocab_size) +
                                    "; expected logits of 1 to 2^32 - 1 tokens");
    }
    Scratch& s = scratch();
    s.patches.clear();
    for (const Tracked& token : tracked_) {
        const auto id = static_cast<size_t>(token.id);
        if (id >= vocab_size) break;
        s.patches.push_back({id, adjusted(token, logits[id])});
    }
    const Logits raw(logits, vocab_size);
    const Logits allowed(logits, vocab_size, s.patches.empty() ? nullptr : &s.patches);
    const TokenLogit peak = find_peak(allowed, s.block_max);
    if (peak.logit == -kInfinity) {
        throw ModelError("the model's logits leave no token to choose: none of " +
                         std::to_string(vocab_size) +
                         " is finite and allowed before min_new_tokens");
    }
    const size_t id =
        params_.greedy() ? peak.id : draw_filtered(allowed, peak, params_, next_uniform(), s);
    Choice choice;
    choice.token_id = static_cast<int64_t>(id);
    if (params_.logprobs) {
        const TokenLogit raw_peak = s.patches.empty() ? peak : find_peak(raw, s.block_max);
        choice.logprobs = log_probabilities(raw, raw_peak, {logits[id], id},
                                            static_cast<size_t>(*params_.logprobs), s);
    }
    record(choice.token_id);
    return choice;
}

Sampler::Tracked& Sampler::track(int64_t id) {
    auto it =
        std::lower_bound(tracked_.begin(), tracked_.end(), id,
                         [](const Tracked& token, int64_t other) { return token.id < other; });
    if (it == tracked_.end() || it->id != id) it = tracked_.insert(it, {id, 0, false, false});
    return *it;
}

float Sampler::adjusted(const Tracked& token, float logit) const {
    // A fault of the model stays visible, and what it excludes stays excluded.
    if (!std::isfinite(logit)) return logit;
    if (token.banned) return -kInfinity;
    double value = logit;
    if (token.in_prompt || token.generated > 0) {
        const double penalty = params_.repetition_penalty;
        value = value > 0.0 ? value / penalty : value * penalty;
    }
    if (token.generated > 0) {
        value -= params_.frequency_penalty * static_cast<double>(token.generated);
        value -= params_.presence_penalty;
    }
    const double limit = std::numeric_limits<float>::max();
    return static_cast<float>(std::clamp(value, -limit, limit));
}

void Sampler::record(int64_t id) {
    const bool penalties = params_.repetition_penalty != 1.0 || params_.presence_penalty != 0.0 ||
                           params_.frequency_penalty != 0.0;
    if (penalties) ++track(id).generated;
    if (++generated_ != params_.min_new_tokens) return;
    const auto unused = [](Tracked& token) {
        token.banned = false;
        return !token.in_prompt && token.generated == 0;
    };
    tracked_.erase(std::remove_if(tracked_.begin(), tracked_.end(), unused), tracked_.end());
}

double Sampler::next_uniform() {
    const uint64_t bits = split_mix(random_state_);
    random_state_ += kGolden;
    return static_cast<double>(bits >> 11U) * 0x1p-53;
}

}  // namespace ovfast
