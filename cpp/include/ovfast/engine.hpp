#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ovfast/export.hpp"
#include "ovfast/model_files.hpp"
#include "ovfast/progress.hpp"
#include "ovfast/sampling.hpp"
#include "ovfast/text.hpp"

namespace ovfast {

/// How a model is loaded and how its engine shares the machine between requests.
struct OVFAST_API EngineOptions {
    /// OpenVINO device: "CPU", "GPU", "GPU.1", "AUTO", "AUTO:GPU,CPU", "HETERO:GPU,CPU",
    /// "MULTI:GPU,CPU". Packed weights, paged attention and prefix caching are the CPU's; elsewhere
    /// a stock directory runs on OpenVINO's own operations, each sequence in a request of its own.
    std::string device = "CPU";
    /// Hard bound of the KV cache, GiB. 0: derived from free memory, the cgroup limit and the
    /// model's context (EngineInfo says what came out). Pages are taken only when used.
    double kv_cache_gb = 0.0;
    /// Tokens that one step computes at most, decoding and prefill chunks together. A request can
    /// be cancelled between chunks, and running requests wait no longer than one chunk.
    int64_t max_batch_tokens = 512;
    /// Sequences that run at once; others wait.
    int64_t max_sequences = 256;
    /// Prompts that begin like an earlier one reuse its keys and values, block by block. At most
    /// one context's worth of blocks is kept for it, and none that a running sequence needs.
    bool prefix_caching = true;
    /// Compute threads. 0: as many as cgroup quota and affinity allow.
    int num_threads = 0;
    /// Tokens of context, prompt and answer together. 0: bounded by the KV cache alone.
    int64_t max_context = 0;
    /// Tokens that end an answer, as generation_config.json names them. Empty: the one that the
    /// tokenizer names.
    std::vector<int64_t> eos_token_ids;
    /// "auto": linear layers run on packed weights (pack.hpp); a stock directory is packed when it
    /// is first loaded. "never": a stock directory runs on OpenVINO's own operations.
    std::string packed = "auto";
    /// "int8": activations may be rounded to 8 bits in linear layers, as OpenVINO does by default.
    /// "int8_g128": the same with one scale for 128 values instead of 32, which is less precise and
    /// makes prompts faster where the weights have such groups, too. "exact": they stay f32.
    std::string activation_precision = "int8";
    /// Packed weights that a thread takes at a time while answering, KiB, and output columns of a
    /// linear layer that it takes at a time of a prompt; 0: 64 and 512. Results do not depend on
    /// them.
    int64_t tile_kb = 0;
    int64_t tile_columns = 0;
    /// "auto": ovfast's own attention, with keys and values in bf16, where processor and model
    /// allow it and no property speaks of a KV cache; else OpenVINO's. "ovfast", "openvino": that
    /// one.
    std::string attention = "auto";
    /// "openvino": on a GPU the graph stays as it is. "ovfast": there ovfast's OpenCL kernels take
    /// the place of gated activations and of norms after a residual. Prompts are then computed in
    /// chunks of a power of two tokens, since each length builds the kernels anew.
    std::string gpu_operations = "openvino";
    /// Told while a model is packed; false cancels. From the constructor only.
    Progress progress;
    /// Further OpenVINO properties for compile_model, "KV_CACHE_PRECISION" -> "u8". Unknown ones
    /// are refused.
    std::map<std::string, std::string> properties;

    /// Throws std::invalid_argument naming the option, its value and what is allowed.
    void validate() const;
};

/// What came out of EngineOptions on this machine with this model.
struct EngineInfo {
    std::string device;
    int threads = 0;
    int64_t max_context = 0;
    int64_t vocab_size = 0;
    int64_t kv_block_tokens = 0;  ///< tokens in a KV block
    int64_t kv_blocks = 0;        ///< blocks in the cache
    uint64_t kv_bytes_per_token = 0;
    uint64_t kv_cache_bytes = 0;  ///< the bound
    std::string kv_cache_reason;  ///< how the bound was found, a sentence
    double read_seconds = 0.0;    ///< reading and rewriting the model
    double compile_seconds = 0.0;
    /// Logits are computed only for the tokens that are sampled; false for a model whose lm_head
    /// was not recognised, which then computes them for every token of the prompt.
    bool lm_head_rows = false;
    bool prefix_caching = true;  ///< the model can reuse keys and values of another sequence
    std::vector<std::string> execution_devices;  ///< where OpenVINO put it, "GPU.0"
    int64_t gpu_operations = 0;                  ///< operations of ours that run on the GPU
    std::string attention;                       ///< "ovfast" or "openvino"
    int64_t fused_layers = 0;                    ///< decoder layers that run as one operation
    std::string attention_reason;                ///< why it is not ovfast's; empty otherwise
    bool packed = false;                         ///< linear layers run on packed weights
    std::filesystem::path packed_dir;  ///< where those are; empty: in memory, or not packed
    uint64_t weights_bytes = 0;        ///< of all constants of the model
    int64_t unpacked_layers = 0;       ///< with constant weights that were left as they are
    std::vector<std::string> notes;    ///< what a person should know, a sentence each
};

enum class FinishReason {
    kRunning,  ///< not finished
    kStop,     ///< an end-of-sequence or stop token, or a stop string
    kLength,   ///< max_new_tokens, max_length or the context is reached
    kCancelled,
    kError,  ///< the model failed; Request::wait() throws what happened
};
OVFAST_API const char* to_string(FinishReason reason);

/// One piece of one answer, as it is generated.
struct Delta {
    size_t answer = 0;  ///< index among SamplingParams::n answers
    std::string text;   ///< may be empty while a character or stop string is open
    std::vector<int64_t> token_ids;
    std::vector<PositionLogprobs> logprobs;
    FinishReason finish_reason = FinishReason::kRunning;
};

/// One whole answer.
struct Answer {
    std::string text;
    std::vector<int64_t> token_ids;  ///< the stop token included
    std::vector<PositionLogprobs> logprobs;
    FinishReason finish_reason = FinishReason::kRunning;
    std::string stop_string;  ///< which stop string ended it, if one did
};

/// Times of a request in seconds, measured in the engine.
struct RequestMetrics {
    int64_t prompt_tokens = 0;
    int64_t cached_tokens = 0;     ///< of the prompt, found in the prefix cache
    int64_t generated_tokens = 0;  ///< all answers together
    double queue_seconds = 0.0;    ///< submitted -> first scheduled
    double ttft_seconds = 0.0;     ///< submitted -> first token
    double total_seconds = 0.0;    ///< submitted -> last token
    /// Time between a token and the one before it, of each answer in turn (the first token has
    /// none).
    std::vector<float> inter_token_seconds;
    /// Time inside the model's infer() while this request ran, and steps that it took part in.
    double infer_seconds = 0.0;
    int64_t steps = 0;
    /// Times that an answer gave its KV memory back for others and was computed again.
    int64_t preemptions = 0;
};

/// Time of one operation of the compiled model, over the steps since the last question.
struct NodeTime {
    std::string name;  ///< of the operation in the model
    std::string type;  ///< what the plugin runs, "FullyConnected"
    double seconds = 0.0;
    int64_t steps = 0;  ///< in which it ran
};

/// A submitted request. Thread-safe. Dropping the last handle of a running request cancels it.
class OVFAST_API Request {
public:
    virtual ~Request() = default;

    /// The next pieces, in order; empty when `timeout` passes first. After the last piece
    /// done() is true. Throws what the engine threw when the request failed.
    virtual std::vector<Delta> next(std::chrono::milliseconds timeout) = 0;
    /// Waits until the request ends; false when `timeout` passes first. Throws as next().
    virtual bool wait(std::chrono::milliseconds timeout) = 0;
    /// True when all pieces were handed out.
    virtual bool done() const = 0;
    /// Ends the request at the next step; what was generated stays readable.
    virtual void cancel() = 0;

    /// Valid once the request ended.
    virtual const std::vector<Answer>& answers() const = 0;
    virtual const RequestMetrics& metrics() const = 0;
};

/// Loads a language model and runs requests with continuous batching: at every step, sequences that
/// wait join those that run, and finished ones leave. One thread computes; any number may submit.
class OVFAST_API Engine {
public:
    /// `tokenizer` turns generated ids into text. Throws ModelError, std::invalid_argument.
    Engine(const std::filesystem::path& model_dir, std::shared_ptr<const Tokenizer> tokenizer,
           const EngineOptions& options = {});
    /// Of a folder or an encrypted directory (crypto.hpp), which may be closed afterwards.
    Engine(const std::shared_ptr<const ModelFiles>& files,
           std::shared_ptr<const Tokenizer> tokenizer, const EngineOptions& options = {});
    /// Cancels what still runs. Of an encrypted model, memory that is freed is overwritten.
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    /// Queues a request. Throws std::invalid_argument (an empty prompt, a token id outside the
    /// vocabulary, bad params) or CapacityError (longer than the context or the KV cache).
    std::shared_ptr<Request> submit(std::vector<int64_t> prompt_ids, const SamplingParams& params);

    const EngineInfo& info() const;
    /// Where the time of the steps since the last call went; empty unless the property PERF_COUNT
    /// is YES.
    std::vector<NodeTime> take_node_times();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace ovfast
