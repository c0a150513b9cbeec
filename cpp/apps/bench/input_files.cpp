#include "apps/bench/input_files.hpp"

#include <algorithm>
#include <filesystem>
#include <set>
#include <stdexcept>

#include "apps/bench/console.hpp"
#include "apps/bench/text.hpp"

namespace ovfast::bench {
namespace {

namespace fs = std::filesystem;

constexpr size_t most_files = 20;

const std::set<std::string> image_extensions = {".bmp", ".dib", ".jpeg", ".jpg", ".jpe", ".png",
                                                ".pbm", ".pgm", ".ppm",  ".pnm", ".tga", ".gif"};

/// A path, or the files in it when it is a folder; random and image_info stay what they are.
std::vector<std::string> expand(const std::string& path) {
    if (path == "random" || path == "image_info") return {path};
    if (!fs::exists(path)) throw std::runtime_error("Path '" + path + "' doesn't exist");
    if (!fs::is_directory(path)) return {path};
    std::vector<std::string> files;
    for (const auto& entry : fs::directory_iterator(path)) {
        if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    return files;
}

using Mapping = std::map<std::string, std::vector<std::string>>;  // input's name -> paths

/// "input1:a.bin,b.bin,input2:c.bin", or "a.bin,b.bin" for all inputs in turn.
void map_argument(const std::string& argument, const InputsInfo& info, Mapping& mapping) {
    std::vector<std::string> names;
    for (const InputInfo& input : info.inputs) names.push_back(input.name);
    std::string current;
    std::vector<std::string> unnamed;
    for (std::string part : split(argument, ',')) {
        if (part.empty()) continue;
        // The name of an input may hold a colon itself: the longest one that fits.
        std::string found;
        for (const InputInfo& input : info.inputs) {
            for (const std::string& name : {input.name, input.node_name}) {
                if (part.rfind(name + ":", 0) != 0 || name.size() < found.size()) continue;
                found = name;
                current = input.name;
            }
        }
        if (!found.empty()) {
            part = part.substr(found.size() + 1);
        } else if (contains(part, ":") && !fs::exists(part)) {
            throw std::runtime_error("Wrong input mapping! Cannot find inputs: ['" +
                                     part.substr(0, part.find(':')) + "']. Available inputs: ['" +
                                     join(names, "', '") + "']. Please check `-i` input data");
        }
        const std::vector<std::string> files = expand(part);
        std::vector<std::string>& target = current.empty() ? unnamed : mapping[current];
        target.insert(target.end(), files.begin(), files.end());
    }
    if (unnamed.empty()) return;

    std::vector<std::string> to_fill;
    for (const InputInfo& input : info.inputs) {
        if (!input.is_image_info()) to_fill.push_back(input.name);
    }
    if (to_fill.empty()) to_fill = names;
    if (names.size() > 1) {
        log_warning("Model has " + std::to_string(names.size()) +
                    " inputs. It's recommended to use name mapping to specify parameters for each "
                    "input.");
    }
    if (unnamed.size() > names.size() && unnamed.size() % names.size() != 0) {
        const size_t given = unnamed.size();
        unnamed.resize(given - given % names.size());
        log_warning("Number of provided input files '" + std::to_string(given) +
                    "' is not a multiple of the number of model inputs. Only " +
                    std::to_string(unnamed.size()) + " files fill be used.");
    }
    for (size_t i = 0; i < unnamed.size(); ++i) {
        mapping[to_fill[i % to_fill.size()]].push_back(unnamed[i]);
    }
}

InputFiles sort_out(const std::string& input, const std::vector<std::string>& paths) {
    if (paths.size() == 1 && paths[0] == "random") return {Source::random, {}};
    if (paths.size() == 1 && paths[0] == "image_info") return {Source::image_info, {}};
    InputFiles images{Source::images, {}};
    InputFiles numpy{Source::numpy, {}};
    InputFiles binaries{Source::binaries, {}};
    std::vector<std::string> unsupported;
    for (const std::string& path : paths) {
        const std::string extension = lower_extension(path);
        if (image_extensions.count(extension)) {
            images.files.push_back(path);
        } else if (extension == ".npy") {
            numpy.files.push_back(path);
        } else if (extension == ".bin") {
            binaries.files.push_back(path);
        } else {
            unsupported.push_back(path);
        }
    }
    if (!unsupported.empty()) {
        log_warning("This files has unsupported extensions and will be ignored: ['" +
                    join(unsupported, "', '") + "'].\nSupported extentions:\nImages: " +
                    join({image_extensions.begin(), image_extensions.end()}, " ") +
                    "\nBinary: .bin\nNumpy: .npy");
    }
    for (InputFiles* files : {&images, &numpy, &binaries}) {
        if (files->files.empty()) continue;
        std::sort(files->files.begin(), files->files.end());
        const size_t count = files->files.size();
        std::string text =
            "For input " + input + " " + std::to_string(count) + " files were added.";
        if (count > most_files) {
            text += " The number of files will be limited to " + std::to_string(most_files) + ".";
            files->files.resize(most_files);
        }
        log_info(text);
        return *files;
    }
    throw std::runtime_error("None of the files for input '" + input +
                             "' can be used: expected images, .npy or .bin");
}

}  // namespace

std::map<std::string, InputFiles> find_input_files(const std::vector<std::string>& arguments,
                                                   const InputsInfo& info) {
    Mapping mapping;
    for (const std::string& argument : arguments) map_argument(argument, info, mapping);
    std::map<std::string, InputFiles> found;
    for (const auto& [name, paths] : mapping) found[name] = sort_out(name, paths);
    return found;
}

}  // namespace ovfast::bench
