// Streams the answer of a model directory to one prompt.

#include <chrono>
#include <exception>
#include <iostream>
#include <memory>
#include <string>

#include "ovfast/engine.hpp"
#include "ovfast/sampling.hpp"
#include "ovfast/text.hpp"
#include "ovfast/version.hpp"

namespace {

constexpr const char* kUsage =
    "Usage: ovfast-stream MODEL_DIR PROMPT [MAX_NEW_TOKENS]\n"
    "\n"
    "MODEL_DIR is a directory that `ovfast export` or Optimum Intel wrote. The prompt is taken as\n"
    "it is: no chat template is applied.\n";

int run(const std::string& model_dir, const std::string& prompt, int64_t max_new_tokens) {
    const auto tokenizer = std::make_shared<ovfast::Tokenizer>(model_dir, TOKENIZERS_EXTENSION);
    ovfast::Engine engine(model_dir, tokenizer);

    ovfast::SamplingParams params;
    params.max_new_tokens = max_new_tokens;
    const auto request = engine.submit(tokenizer->encode(prompt), params);
    while (!request->done()) {
        for (const ovfast::Delta& delta : request->next(std::chrono::seconds(1))) {
            std::cout << delta.text << std::flush;
        }
    }

    const ovfast::RequestMetrics& metrics = request->metrics();
    const double decode_seconds = metrics.total_seconds - metrics.ttft_seconds;
    std::cout << "\n\n"
              << metrics.generated_tokens << " tokens; first after " << metrics.ttft_seconds * 1e3
              << " ms";
    if (metrics.generated_tokens > 1) {
        std::cout << ", then " << (metrics.generated_tokens - 1) / decode_seconds << " tokens/s";
    }
    std::cout << '\n';
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const bool help =
        argc == 2 && (std::string(argv[1]) == "--help" || std::string(argv[1]) == "-h");
    if (help || argc < 3 || argc > 4) {
        (help ? std::cout : std::cerr)
            << kUsage << "\novfast " << ovfast::version() << ", OpenVINO "
            << ovfast::openvino_loaded_version() << '\n';
        return help ? 0 : 2;
    }
    try {
        return run(argv[1], argv[2], argc == 4 ? std::stoll(argv[3]) : 128);
    } catch (const std::exception& error) {
        std::cerr << "ovfast-stream: error: " << error.what() << '\n';
        return 1;
    }
}
