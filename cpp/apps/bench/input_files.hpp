#pragma once

#include <map>
#include <string>
#include <vector>

#include "apps/bench/input_info.hpp"

namespace ovfast::bench {

enum class Source { random, image_info, images, numpy, binaries };

/// Where the data of one input comes from.
struct InputFiles {
    Source source = Source::random;
    std::vector<std::string> files;  // sorted; empty for random and image_info
};

/// Finds the files of each input, by name, from the arguments of -i. Inputs without files are left
/// out. Throws std::runtime_error.
std::map<std::string, InputFiles> find_input_files(const std::vector<std::string>& arguments,
                                                   const InputsInfo& info);

}  // namespace ovfast::bench
