#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>

#include "ovfast/engine.hpp"
#include "progress.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace ovfast::python {
namespace {

// How long Python's signal handlers wait at most: Ctrl+C must not feel slow, and a thread that
// wakes often takes time from those that compute.
constexpr std::chrono::milliseconds kSignalPeriod{20};

// Runs `wait(slice)` without the GIL until it returns true or `timeout` seconds pass, letting
// Python handle signals in between.
template <typename Wait>
bool wait_with_signals(std::optional<double> timeout, const Wait& wait) {
    using Clock = std::chrono::steady_clock;
    if (timeout && std::isnan(*timeout)) {
        throw py::value_error("timeout is nan, expected seconds or None");
    }
    if (timeout && *timeout > 1e9) timeout.reset();  // decades: more than the clock can count
    const auto deadline =
        timeout ? Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                     std::chrono::duration<double>(std::max(*timeout, 0.0)))
                : Clock::time_point::max();
    while (true) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
            std::max(deadline - Clock::now(), Clock::duration::zero()));
        bool ready = false;
        {
            const py::gil_scoped_release release;
            ready = wait(std::min(left, kSignalPeriod));
        }
        if (ready) return true;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        if (Clock::now() >= deadline) return false;
    }
}

py::array_t<float> to_array(const std::vector<float>& values) {
    return py::array_t<float>(static_cast<py::ssize_t>(values.size()), values.data());
}

void register_options(py::module_& m) {
    py::class_<EngineOptions>(m, "EngineOptions",
                              "How a model is loaded and how its engine shares the machine.")
        .def(py::init([](const py::kwargs& kwargs) {
                 EngineOptions options;
                 const py::object self = py::cast(&options, py::return_value_policy::reference);
                 for (const auto& [name, value] : kwargs) {
                     if (!py::hasattr(self, name)) {
                         throw py::type_error("EngineOptions has no option '" +
                                              py::str(name).cast<std::string>() + "'");
                     }
                     py::setattr(self, name, value);
                 }
                 return options;
             }),
             "Takes the attributes as keywords; an unknown one raises TypeError.")
        .def_readwrite(
            "device", &EngineOptions::device,
            "OpenVINO device: \"CPU\", \"GPU\", \"GPU.1\", \"AUTO\", \"HETERO:GPU,CPU\", ...")
        .def_readwrite("kv_cache_gb", &EngineOptions::kv_cache_gb,
                       "Hard bound of the KV cache, GiB; 0 derives it from free memory.")
        .def_readwrite("max_batch_tokens", &EngineOptions::max_batch_tokens,
                       "Tokens that one step computes at most; also the prefill chunk.")
        .def_readwrite("max_sequences", &EngineOptions::max_sequences,
                       "Sequences that run at once; others wait.")
        .def_readwrite("prefix_caching", &EngineOptions::prefix_caching,
                       "Reuse keys and values of earlier prompts that begin alike.")
        .def_readwrite("num_threads", &EngineOptions::num_threads,
                       "Compute threads; 0 takes what cgroup quota and affinity allow.")
        .def_readwrite("max_context", &EngineOptions::max_context,
                       "Tokens of context; 0 is bounded by the KV cache alone.")
        .def_readwrite("eos_token_ids", &EngineOptions::eos_token_ids, "Tokens that end an answer.")
        .def_readwrite(
            "packed", &EngineOptions::packed,
            "\"auto\": on packed weights, packed at the first load of a stock directory; "
            "\"never\": on OpenVINO's own operations.")
        .def_readwrite(
            "activation_precision", &EngineOptions::activation_precision,
            "\"int8\", \"int8_g128\" (one scale for 128 values instead of 32) or \"exact\" "
            "(f32): of activations in linear layers.")
        .def_readwrite(
            "tile_kb", &EngineOptions::tile_kb,
            "KiB of packed weights that a thread takes at a time while answering; 0: 64.")
        .def_readwrite(
            "tile_columns", &EngineOptions::tile_columns,
            "Output columns of a linear layer that it takes at a time of a prompt; 0: 512.")
        .def_readwrite("gpu_operations", &EngineOptions::gpu_operations,
                       "On a GPU: \"openvino\" or \"ovfast\", whose OpenCL kernels it then uses.")
        .def_readwrite("attention", &EngineOptions::attention,
                       "\"auto\", \"ovfast\" (keys and values in bf16) or \"openvino\".")
        .def_property(
            "progress", [](const EngineOptions&) { return py::none(); },
            [](EngineOptions& self, const py::object& callback) {
                self.progress = python_progress(callback);
            },
            "progress(fraction, what), called while a model is packed; it cancels by returning "
            "False or raising. Write only.")
        .def_readwrite("properties", &EngineOptions::properties,
                       "Further OpenVINO properties, name to value; unknown ones are refused. "
                       "Reading gives a copy: assign to change it.")
        .def("validate", &EngineOptions::validate,
             "Raises ValueError naming the option, its value and what is allowed.");

    py::class_<EngineInfo>(m, "EngineInfo", "What came out of the options on this machine.")
        .def_readonly("device", &EngineInfo::device)
        .def_readonly("threads", &EngineInfo::threads, "Compute threads.")
        .def_readonly("max_context", &EngineInfo::max_context, "Tokens, prompt and answer.")
        .def_readonly("vocab_size", &EngineInfo::vocab_size, "Width of the model's logits.")
        .def_readonly("kv_block_tokens", &EngineInfo::kv_block_tokens, "Tokens in a KV block.")
        .def_readonly("kv_blocks", &EngineInfo::kv_blocks, "Blocks in the KV cache.")
        .def_readonly("kv_bytes_per_token", &EngineInfo::kv_bytes_per_token)
        .def_readonly("kv_cache_bytes", &EngineInfo::kv_cache_bytes, "Bound of the KV cache.")
        .def_readonly("kv_cache_reason", &EngineInfo::kv_cache_reason, "How the bound was found.")
        .def_readonly("read_seconds", &EngineInfo::read_seconds, "Reading and rewriting the model.")
        .def_readonly("compile_seconds", &EngineInfo::compile_seconds)
        .def_readonly("lm_head_rows", &EngineInfo::lm_head_rows,
                      "Whether logits are computed only for the tokens that are sampled.")
        .def_readonly("prefix_caching", &EngineInfo::prefix_caching,
                      "Whether the model can reuse keys and values of another sequence.")
        .def_readonly("execution_devices", &EngineInfo::execution_devices,
                      "Where OpenVINO put the model, ['GPU.0']; empty on the CPU.")
        .def_readonly("gpu_operations", &EngineInfo::gpu_operations,
                      "Operations of ovfast in the graph on the GPU.")
        .def_readonly("attention", &EngineInfo::attention, "\"ovfast\" or \"openvino\".")
        .def_readonly("fused_layers", &EngineInfo::fused_layers,
                      "Decoder layers that run as one operation.")
        .def_readonly("attention_reason", &EngineInfo::attention_reason,
                      "Why attention is not ovfast's; empty otherwise.")
        .def_readonly("packed", &EngineInfo::packed, "Linear layers run on packed weights.")
        .def_readonly("packed_dir", &EngineInfo::packed_dir,
                      "Where those are; empty when they are in memory only, or not packed.")
        .def_readonly("weights_bytes", &EngineInfo::weights_bytes, "Of all constants.")
        .def_readonly("unpacked_layers", &EngineInfo::unpacked_layers,
                      "Layers with constant weights that were left as they are.")
        .def_readonly("notes", &EngineInfo::notes, "What a person should know.");
}

void register_results(py::module_& m) {
    py::class_<Delta>(m, "Delta", "One piece of one answer, as it is generated.")
        .def_readonly("answer", &Delta::answer, "Index among the n answers.")
        .def_readonly("text", &Delta::text)
        .def_readonly("token_ids", &Delta::token_ids)
        .def_readonly("logprobs", &Delta::logprobs)
        .def_property_readonly(
            "finish_reason", [](const Delta& d) { return to_string(d.finish_reason); },
            "\"running\", \"stop\", \"length\", \"cancelled\" or \"error\".");

    py::class_<Answer>(m, "Answer", "One whole answer.")
        .def_readonly("text", &Answer::text)
        .def_readonly("token_ids", &Answer::token_ids, "The stop token included.")
        .def_readonly("logprobs", &Answer::logprobs)
        .def_readonly("stop_string", &Answer::stop_string, "Which one ended it; \"\" if none.")
        .def_property_readonly("finish_reason",
                               [](const Answer& a) { return to_string(a.finish_reason); });

    py::class_<RequestMetrics>(m, "RequestMetrics", "Times of a request, seconds.")
        .def_readonly("prompt_tokens", &RequestMetrics::prompt_tokens)
        .def_readonly("cached_tokens", &RequestMetrics::cached_tokens,
                      "Of the prompt, found in the prefix cache.")
        .def_readonly("generated_tokens", &RequestMetrics::generated_tokens,
                      "All answers together.")
        .def_readonly("queue_seconds", &RequestMetrics::queue_seconds,
                      "Submitted to first scheduled.")
        .def_readonly("ttft_seconds", &RequestMetrics::ttft_seconds, "Submitted to first token.")
        .def_readonly("total_seconds", &RequestMetrics::total_seconds, "Submitted to last token.")
        .def_property_readonly(
            "inter_token_seconds",
            [](const RequestMetrics& metrics) { return to_array(metrics.inter_token_seconds); },
            "float32 [tokens - answers]: time from each token to the next, answer by answer.")
        .def_readonly("infer_seconds", &RequestMetrics::infer_seconds,
                      "Inside the model while this request took part.")
        .def_readonly("steps", &RequestMetrics::steps, "Steps that it took part in.")
        .def_readonly("preemptions", &RequestMetrics::preemptions,
                      "Times that an answer gave its KV memory back and was computed again.");
}

void register_request(py::module_& m) {
    py::class_<Request, std::shared_ptr<Request>>(
        m, "Request", "A submitted request. Dropping it cancels it. Thread-safe.")
        .def(
            "next",
            [](Request& self, std::optional<double> timeout) {
                std::vector<Delta> pieces;
                wait_with_signals(timeout, [&](std::chrono::milliseconds slice) {
                    pieces = self.next(slice);
                    return !pieces.empty() || self.done();
                });
                return pieces;
            },
            py::arg("timeout") = py::none(),
            "The next pieces, in order. Empty when `timeout` seconds pass first, and when all were "
            "handed out. Raises what ended the request, if it failed.")
        .def(
            "wait",
            [](Request& self, std::optional<double> timeout) {
                return wait_with_signals(
                    timeout, [&](std::chrono::milliseconds slice) { return self.wait(slice); });
            },
            py::arg("timeout") = py::none(),
            "Waits for the end. False when `timeout` seconds pass first. Raises as next().")
        .def_property_readonly("done", &Request::done, "All pieces were handed out.")
        .def("cancel", &Request::cancel,
             "Ends the request at the next step; what was generated stays readable.")
        .def_property_readonly("answers", &Request::answers, "Valid once the request ended.")
        .def_property_readonly("metrics", &Request::metrics, "Valid once the request ended.");
}

}  // namespace

void register_engine(py::module_& m) {
    register_options(m);
    register_results(m);
    register_request(m);

    // The destructor waits for the step under way, so other Python threads must go on meanwhile.
    py::class_<NodeTime>(m, "NodeTime", "Time of one operation of the compiled model.")
        .def_readonly("name", &NodeTime::name)
        .def_readonly("type", &NodeTime::type, "What the plugin runs.")
        .def_readonly("seconds", &NodeTime::seconds, "Over all steps in which it ran.")
        .def_readonly("steps", &NodeTime::steps, "In which it ran.");
    py::class_<Engine>(m, "Engine",
                       "Runs requests on one model with continuous batching. Thread-safe.",
                       py::release_gil_before_calling_cpp_dtor())
        .def(py::init([](const std::filesystem::path& model_dir,
                         std::shared_ptr<Tokenizer> tokenizer, const EngineOptions& options) {
                 const py::gil_scoped_release release;
                 return std::make_unique<Engine>(model_dir, std::move(tokenizer), options);
             }),
             py::arg("model_dir"), py::arg("tokenizer"),
             py::arg_v("options", EngineOptions{}, "EngineOptions()"),
             "Loads and compiles the model. Raises ModelError, CapacityError, ValueError.")
        .def(py::init([](std::shared_ptr<ModelFiles> files, std::shared_ptr<Tokenizer> tokenizer,
                         const EngineOptions& options) {
                 const py::gil_scoped_release release;
                 return std::make_unique<Engine>(std::move(files), std::move(tokenizer), options);
             }),
             py::arg("files"), py::arg("tokenizer"),
             py::arg_v("options", EngineOptions{}, "EngineOptions()"),
             "The same of a directory that was opened, perhaps an encrypted one.")
        .def("submit", &Engine::submit, py::arg("prompt_ids"), py::arg("params"),
             py::call_guard<py::gil_scoped_release>(),
             "Queues a request of int64 token ids. Raises ValueError or CapacityError.")
        .def("take_node_times", &Engine::take_node_times,
             "Where the time of the steps since the last call went; empty unless the property "
             "PERF_COUNT is YES.")
        .def_property_readonly("info", &Engine::info, py::return_value_policy::copy);
}

}  // namespace ovfast::python
