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
#include "ops/lm_head.hpp"
#include "ops/packed_ops.hpp"
#include "ovfast/ops.hpp"

namespace {

std::vector<ov::Extension::Ptr> extensions() {
    using namespace ovfast::ops;
    return {std::make_shared<ov::OpExtension<FullyConnected>>(),
            std::make_shared<ov::OpExtension<QKV>>(), std::make_shared<ov::OpExtension<GatedMLP>>(),
            std::make_shared<ov::OpExtension<Embedding>>(),
            std::make_shared<ov::OpExtension<LMHead>>(),
            std::make_shared<ov::OpExtension<SwiGLU>>(),
            std::make_shared<ov::OpExtension<AddRMSNorm>>(),
            std::make_shared<ov::OpExtension<Int4MatMul>>()};
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(extensions())

namespace ovfast {

// Not through create_extensions(): every extension library exports that name, and another one's may
// have been loaded first.
void register_ops(ov::Core& core) {
    core.add_extension(extensions());
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
