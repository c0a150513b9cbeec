#include <dlfcn.h>

#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/frontend/extension/op.hpp>
#include <openvino/frontend/onnx/extension/op.hpp>
#include <openvino/frontend/pytorch/extension/op.hpp>
#include <openvino/frontend/tensorflow/extension/op.hpp>
#include <openvino/runtime/core.hpp>

#include "kernels/cpu_features.hpp"
#include "kernels/linear.hpp"
#include "ops/device_ops.hpp"
#include "ops/kernel_files.hpp"
#include "ops/lm_head.hpp"
#include "ops/packed_ops.hpp"
#include "ovfast/error.hpp"
#include "ovfast/ops.hpp"

namespace {

std::vector<ov::Extension::Ptr> operations() {
    using namespace ovfast::ops;
    return {std::make_shared<ov::OpExtension<FullyConnected>>(),
            std::make_shared<ov::OpExtension<QKV>>(),
            std::make_shared<ov::OpExtension<GatedMLP>>(),
            std::make_shared<ov::OpExtension<Embedding>>(),
            std::make_shared<ov::OpExtension<LMHead>>(),
            std::make_shared<ov::OpExtension<SwiGLU>>(),
            std::make_shared<ov::OpExtension<AddRMSNorm>>(),
            std::make_shared<ov::OpExtension<Int4MatMul>>()};
}

using Attributes = std::map<std::string, std::string>;
using Values = std::map<std::string, ov::Any>;

/// Operations of other frameworks that become ours: of the domain "ovfast" in ONNX, "ovfast::NAME"
/// in PyTorch, where the attribute is the input of that index, and NAME in TensorFlow.
template <typename Op>
void map_frameworks(std::vector<ov::Extension::Ptr>& extensions, const char* attribute,
                    size_t torch_input) {
    namespace frontend = ov::frontend;
    const std::string name = Op::get_type_info_static().name;
    const Attributes same{{attribute, attribute}};
    const Values bits{{std::string(attribute) + "_bits", int64_t{0}}};
    extensions.push_back(
        std::make_shared<frontend::onnx::OpExtension<Op>>(name, "ovfast", same, bits));
    extensions.push_back(std::make_shared<frontend::tensorflow::OpExtension<Op>>(name, same, bits));
    extensions.push_back(std::make_shared<frontend::pytorch::OpExtension<Op>>(
        "ovfast::" + name, std::map<std::string, size_t>{{attribute, torch_input}}, bits));
}

std::vector<ov::Extension::Ptr> extensions() {
    using namespace ovfast::ops;
    std::vector<ov::Extension::Ptr> all = operations();
    map_frameworks<SwiGLU>(all, "alpha", 2);
    map_frameworks<AddRMSNorm>(all, "epsilon", 3);
    map_frameworks<Int4MatMul>(all, "group", 3);
    return all;
}

/// Whether OpenVINO's GPU plugin finds a device. Does not load the others, as
/// Core::get_available_devices() does.
bool has_gpu(ov::Core& core) {
    try {
        return !core.get_property("GPU", ov::available_devices).empty();
    } catch (const ov::Exception&) {
        return false;
    }
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(extensions())

namespace ovfast {

// Not through create_extensions(): every extension library exports that name, and another one's may
// have been loaded first.
void register_ops(ov::Core& core, bool gpu) {
    core.add_extension(extensions());
    if (!gpu || !has_gpu(core)) return;
    const std::filesystem::path config = kernel_config();
    ops::check_kernel_files(config.parent_path());
    core.set_property("GPU", {{"CONFIG_FILE", config.string()}});
}

std::filesystem::path kernel_config() {
    Dl_info library{};
    if (dladdr(reinterpret_cast<const void*>(&kernel_config), &library) == 0) {
        throw Error("cannot find out where libovfast_ops.so lies");
    }
    return std::filesystem::path(library.dli_fname).parent_path().parent_path() / "opencl" /
           "ovfast_ops.xml";
}

std::vector<std::string> operation_names() {
    std::vector<std::string> names;
    for (const auto& extension : operations()) {
        const auto op = std::dynamic_pointer_cast<ov::BaseOpExtension>(extension);
        names.emplace_back(op->get_type_info().name);
    }
    return names;
}

std::vector<std::string> supported_isas() {
    std::vector<std::string> names;
    for (const auto isa : kernels::supported_isas()) names.emplace_back(kernels::name(isa));
    return names;
}

std::vector<std::pair<std::string, uint64_t>> kernel_calls() {
    return kernels::kernel_calls();
}

}  // namespace ovfast
