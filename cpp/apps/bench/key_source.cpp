#include "apps/bench/key_source.hpp"

#include <sys/resource.h>

#include <cstdio>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "ovfast/error.hpp"

namespace ovfast::bench {
namespace {

// What is decrypted must not end on disk when something crashes.
void forbid_core_dumps() {
    rlimit limit{};
    if (getrlimit(RLIMIT_CORE, &limit) != 0) return;
    limit.rlim_cur = 0;
    setrlimit(RLIMIT_CORE, &limit);
}

}  // namespace

bool KeySource::operator==(const KeySource& other) const {
    return std::tie(file, env, from_stdin, passphrase) ==
           std::tie(other.file, other.env, other.from_stdin, other.passphrase);
}

bool KeySource::given() const {
    return !(*this == KeySource{});
}

void KeySource::check(const std::string& dashes) const {
    std::vector<std::string> names;
    if (!file.empty()) names.push_back(dashes + "key-file");
    if (!env.empty()) names.push_back(dashes + "key-env");
    if (from_stdin) names.push_back(dashes + "key-stdin");
    if (passphrase) names.push_back(dashes + "passphrase");
    if (names.size() > 1) {
        throw std::invalid_argument(names[0] + " and " + names[1] +
                                    " both say what the key is: give one");
    }
}

std::optional<crypto::Key> KeySource::read(const std::string& model,
                                           const std::string& dashes) const {
    if (!crypto::is_encrypted(model)) {
        if (!given() || !std::filesystem::exists(model)) return std::nullopt;
        throw std::invalid_argument("'" + model + "' is not encrypted, but a key was given");
    }
    if (!given()) {
        throw DecryptionError("'" + model + "' is encrypted: give " + dashes + "key-file, " +
                              dashes + "key-env, " + dashes + "key-stdin or " + dashes +
                              "passphrase");
    }
    forbid_core_dumps();
    if (!file.empty()) {
        const std::string warning = crypto::key_file_warning(file);
        if (!warning.empty()) std::fprintf(stderr, "ovfast-bench: warning: %s\n", warning.c_str());
        return crypto::Key::from_file(file);
    }
    if (!env.empty()) return crypto::Key::from_env(env);
    if (from_stdin) return crypto::Key::from_stdin();
    return crypto::Key::ask_passphrase("Passphrase: ", false);
}

void add_key_options(CLI::App& app, KeySource& source) {
    const std::string group = "Key of an encrypted model";
    app.add_option("--key-file", source.file, "The file that holds it")
        ->type_name("FILE")
        ->group(group);
    app.add_option("--key-env", source.env, "The environment variable that holds it")
        ->type_name("NAME")
        ->group(group);
    app.add_flag("--key-stdin", source.from_stdin, "Read it from stdin")->group(group);
    app.add_flag("--passphrase", source.passphrase,
                 "Ask for the passphrase; without a terminal it is a line of stdin")
        ->group(group);
}

KeyPair KeyPair::read(const KeySource& a, const std::string& model_a, const KeySource& b,
                      const std::string& model_b, const std::string& dashes) {
    if (!(a == b)) return {a.read(model_a, dashes), b.read(model_b, dashes)};
    const bool first = crypto::is_encrypted(model_a);
    const bool second = crypto::is_encrypted(model_b);
    const std::optional<crypto::Key> key = a.read(!first && second ? model_b : model_a, dashes);
    return {first ? key : std::nullopt, second ? key : std::nullopt};
}

std::shared_ptr<ModelFiles> open_files(const std::string& model,
                                       const std::optional<crypto::Key>& key) {
    return key ? crypto::open_directory(model, *key) : ModelFiles::folder(model);
}

}  // namespace ovfast::bench
