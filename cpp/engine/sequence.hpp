#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/answer_writer.hpp"
#include "engine/request.hpp"

namespace ovfast {

/// One answer on its way: its tokens, and what of them is in the KV cache.
struct Sequence {
    std::shared_ptr<RequestState> request;
    std::unique_ptr<AnswerWriter> writer;
    std::vector<int64_t> tokens;  ///< prompt and answer so far

    // Of the scheduler.
    uint64_t order = 0;    ///< of submission; when memory runs out the youngest gives way
    int64_t computed = 0;  ///< tokens whose keys and values are in the cache
    std::vector<int32_t> blocks;
    /// Answers that start from this one once the prompt is computed (SamplingParams::n).
    std::vector<std::unique_ptr<Sequence>> siblings;

    int64_t uncomputed() const { return static_cast<int64_t>(tokens.size()) - computed; }
};

}  // namespace ovfast
