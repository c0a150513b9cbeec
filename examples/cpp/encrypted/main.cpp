// Runs one inference of an encrypted model with plain OpenVINO: nothing of it is decrypted to disk.

#include <algorithm>
#include <exception>
#include <iostream>
#include <memory>
#include <openvino/openvino.hpp>
#include <string>

#include "ovfast/crypto.hpp"

namespace {

constexpr const char* kUsage =
    "Usage: ovfast-encrypted MODEL_DIR KEY_FILE [XML]\n"
    "\n"
    "MODEL_DIR is a directory that `ovfast encrypt` wrote, KEY_FILE the key that opens it. XML is\n"
    "the IR to run, openvino_model.xml if not given. Its inputs are filled with zeros; dimensions\n"
    "that are open become 1.\n";

int run(const std::string& dir, const std::string& key_file, const std::string& xml) {
    ov::Core core;
    std::shared_ptr<ov::Model> model;
    {
        // The key is wiped at the end of this block: the model does not need it any more.
        const auto key = ovfast::crypto::Key::from_file(key_file);
        model = ovfast::crypto::open_model(core, dir, key, xml);
    }
    // No cache_dir: OpenVINO's cache would hold the weights in clear.
    ov::CompiledModel compiled = core.compile_model(model, "CPU");
    model.reset();

    ov::InferRequest request = compiled.create_infer_request();
    for (const auto& input : compiled.inputs()) {
        ov::Shape shape;
        for (const auto& dimension : input.get_partial_shape()) {
            shape.push_back(dimension.is_static() ? dimension.get_length() : 1);
        }
        ov::Tensor tensor(input.get_element_type(), shape);
        std::fill_n(static_cast<char*>(tensor.data()), tensor.get_byte_size(), '\0');
        request.set_tensor(input, tensor);
    }
    request.infer();
    for (const auto& output : compiled.outputs()) {
        std::cout << output.get_any_name() << ": " << request.get_tensor(output).get_shape()
                  << '\n';
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3 || argc > 4) {
        std::cerr << kUsage;
        return 2;
    }
    try {
        return run(argv[1], argv[2], argc == 4 ? argv[3] : "openvino_model.xml");
    } catch (const std::exception& error) {
        std::cerr << "ovfast-encrypted: error: " << error.what() << '\n';
        return 1;
    }
}
