#include "apps/bench/prompts.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>

#include "ovfast/error.hpp"

namespace ovfast::bench {
namespace {

using nlohmann::json;

// Common words of every length, so that tokens are about what they are in real text.
constexpr std::array<const char*, 96> kWords{
    "the",      "of",        "and",        "to",         "in",          "that",       "was",
    "for",      "it",        "with",       "as",         "be",          "on",         "not",
    "this",     "are",       "from",       "have",       "which",       "one",        "would",
    "all",      "there",     "been",       "their",      "we",          "so",         "when",
    "more",     "time",      "people",     "water",      "system",      "government", "between",
    "world",    "number",    "program",    "question",   "school",      "during",     "without",
    "possible", "important", "example",    "children",   "information", "business",   "service",
    "history",  "language",  "research",   "village",    "development", "according",  "themselves",
    "another",  "following", "increase",   "university", "experience",  "different",  "national",
    "certain",  "community", "production", "structure",  "temperature", "technology", "knowledge",
    "average",  "function",  "market",     "pressure",   "distance",    "surface",    "measure",
    "memory",   "machine",   "compute",    "network",    "sequence",    "pattern",    "bright",
    "cold",     "river",     "mountain",   "garden",     "window",      "travel",     "answer",
    "letter",   "simple",    "green",      "seven",      "slowly"};

[[noreturn]] void refuse(const std::filesystem::path& file, size_t line, const std::string& why) {
    throw Error("'" + file.string() + "', line " + std::to_string(line) + ": " + why);
}

std::vector<int64_t> parse_ids(const std::string& line, const std::filesystem::path& file,
                               size_t number) {
    std::vector<int64_t> ids;
    const char* at = line.data();
    const char* end = at + line.size();
    const auto separates = [](char c) { return c == ' ' || c == ',' || c == '\t' || c == '\r'; };
    while ((at = std::find_if_not(at, end, separates)) != end) {
        int64_t id = 0;
        const auto [next, error] = std::from_chars(at, end, id);
        if (error != std::errc() || (next != end && !separates(*next))) {
            refuse(file, number,
                   "expected token ids, got '" + std::string(at, std::find_if(at, end, separates)) +
                       "'");
        }
        ids.push_back(id);
        at = next;
    }
    return ids;
}

std::vector<int64_t> parse_object(const std::string& line, const std::filesystem::path& file,
                                  size_t number, const Tokenizer& tokenizer) {
    try {
        const json object = json::parse(line);
        if (object.is_object()) {
            if (object.contains("token_ids")) {
                return object["token_ids"].get<std::vector<int64_t>>();
            }
            for (const char* key : {"prompt", "text"}) {
                if (object.contains(key)) return tokenizer.encode(object[key].get<std::string>());
            }
        }
    } catch (const json::exception& e) {
        refuse(file, number, e.what());
    } catch (const std::invalid_argument& e) {
        refuse(file, number, e.what());
    }
    refuse(file, number, "expected an object with 'token_ids', 'prompt' or 'text'");
}

}  // namespace

std::string sample_text(size_t words, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string text;
    size_t left = 0;  // in this sentence
    for (size_t i = 0; i < words; ++i) {
        std::string word = kWords[random() % kWords.size()];
        if (left == 0) {
            left = 5 + random() % 12;
            word[0] = static_cast<char>(word[0] - 'a' + 'A');
            if (i > 0) text += random() % 6 == 0 ? ".\n\n" : ". ";
        } else {
            text += random() % 9 == 0 ? ", " : " ";
        }
        text += word;
        --left;
    }
    return text;
}

std::vector<int64_t> build_prompt(const Tokenizer& tokenizer, int64_t tokens, uint64_t seed) {
    if (tokens < 1) {
        throw std::invalid_argument("a prompt needs at least 1 token, got " +
                                    std::to_string(tokens));
    }
    const auto wanted = static_cast<size_t>(tokens);
    for (size_t words = wanted + 8;; words *= 2) {
        std::vector<int64_t> ids = tokenizer.encode(sample_text(words, seed));
        if (ids.size() >= wanted) {
            ids.resize(wanted);
            return ids;
        }
    }
}

std::vector<std::vector<int64_t>> read_prompts(const std::filesystem::path& file,
                                               const Tokenizer& tokenizer) {
    std::ifstream stream(file);
    if (!stream) throw Error("cannot read '" + file.string() + "'");
    std::vector<std::vector<int64_t>> prompts;
    size_t number = 0;
    for (std::string line; std::getline(stream, line);) {
        ++number;
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        prompts.push_back(file.extension() == ".jsonl" ? parse_object(line, file, number, tokenizer)
                                                       : parse_ids(line, file, number));
        if (prompts.back().empty()) refuse(file, number, "the prompt is empty");
    }
    if (prompts.empty()) throw Error("'" + file.string() + "' holds no prompt");
    return prompts;
}

}  // namespace ovfast::bench
