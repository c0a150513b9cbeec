// Operations for CPU and GPU: shapes and errors, evaluate() against their standard form, the
// rewrite.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <openvino/openvino.hpp>
#include <openvino/opsets/opset13.hpp>

#include "ops/device_ops.hpp"
#include "ops/kernel_files.hpp"
#include "ops/rewrite_device.hpp"
#include "ops/unfused.hpp"
#include "ops_fixtures.hpp"
#include "ovfast/error.hpp"
#include "ovfast/ops.hpp"

namespace ovfast::test {
namespace {

namespace op = ov::opset13;
using ops::AddRMSNorm;
using ops::Int4MatMul;
using ops::SwiGLU;
using testing::HasSubstr;
using Value = ov::Output<ov::Node>;

std::shared_ptr<op::Parameter> parameter(const ov::PartialShape& shape,
                                         const ov::element::Type& type = ov::element::f32) {
    return std::make_shared<op::Parameter>(type, shape);
}

Value vector(size_t size, unsigned seed, const ov::element::Type& type = ov::element::f32) {
    return op::Constant::create(type, {size}, random_floats(size, seed));
}

std::shared_ptr<Int4MatMul> int4(const Value& x, size_t rows, size_t columns, int64_t group) {
    std::vector<uint8_t> codes(rows * columns / 2);
    std::mt19937 random(5);
    for (auto& code : codes) code = static_cast<uint8_t>(random());
    const size_t groups = columns / static_cast<size_t>(group);
    return std::make_shared<Int4MatMul>(
        x, op::Constant::create(ov::element::u8, {rows, columns / 2}, codes),
        op::Constant::create(x.get_element_type(), {rows, groups},
                             random_floats(rows * groups, 6, 0.01F, 0.1F)),
        group);
}

ov::Tensor random_tensor(const ov::element::Type& type, const ov::Shape& shape, unsigned seed) {
    const auto values = random_floats(ov::shape_size(shape), seed, -3.0F, 3.0F);
    const auto constant = op::Constant::create(type, shape, values);
    ov::Tensor tensor(type, shape);
    if (tensor.get_byte_size() != 0) {
        std::memcpy(tensor.data(), constant->get_data_ptr(), tensor.get_byte_size());
    }
    return tensor;
}

std::vector<double> values_of(const ov::Tensor& tensor) {
    std::vector<double> values(tensor.get_size());
    for (size_t i = 0; i < values.size(); ++i) {
        if (tensor.get_element_type() == ov::element::f16) {
            values[i] = static_cast<float>(tensor.data<const ov::float16>()[i]);
        } else if (tensor.get_element_type() == ov::element::bf16) {
            values[i] = static_cast<float>(tensor.data<const ov::bfloat16>()[i]);
        } else {
            values[i] = tensor.data<const float>()[i];
        }
    }
    return values;
}

ov::TensorVector evaluate(const ov::Model& model, const ov::TensorVector& inputs) {
    ov::TensorVector outputs;
    for (const auto& output : model.outputs()) {
        outputs.emplace_back(output.get_element_type(), ov::Shape{0});
    }
    EXPECT_TRUE(model.evaluate(outputs, inputs));
    return outputs;
}

ov::TensorVector infer(const std::shared_ptr<ov::Model>& model, const ov::TensorVector& inputs) {
#ifdef __SANITIZE_ADDRESS__
    // The CPU plugin opens a library of TBB in a way that AddressSanitizer refuses.
    return evaluate(*model, inputs);
#else
    ov::Core core;
    auto request = core.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT", "f32"}})
                       .create_infer_request();
    for (size_t i = 0; i < inputs.size(); ++i) request.set_input_tensor(i, inputs[i]);
    request.infer();
    ov::TensorVector outputs;
    for (size_t i = 0; i < model->outputs().size(); ++i) {
        const ov::Tensor output = request.get_output_tensor(i);
        outputs.emplace_back(output.get_element_type(), output.get_shape());
        output.copy_to(outputs.back());
    }
    return outputs;
#endif
}

/// The fused operation and its standard form in f32 on the same values.
void compare_with_unfused(const std::function<std::shared_ptr<ov::Node>(
                              const std::vector<Value>&, const ov::element::Type&)>& build,
                          const std::vector<ov::Shape>& shapes, const ov::element::Type& type,
                          double tolerance) {
    const auto make = [&](const ov::element::Type& of) {
        ov::ParameterVector parameters;
        std::vector<Value> values;
        for (const auto& shape : shapes) {
            parameters.push_back(parameter(shape, of));
            values.push_back(parameters.back());
        }
        return std::make_shared<ov::Model>(build(values, of)->outputs(), parameters);
    };
    ov::TensorVector inputs, wide;
    for (size_t i = 0; i < shapes.size(); ++i) {
        inputs.push_back(random_tensor(type, shapes[i], static_cast<unsigned>(i)));
        ov::Tensor tensor(ov::element::f32, shapes[i]);
        const auto values = values_of(inputs.back());
        std::copy(values.begin(), values.end(), tensor.data<float>());
        wide.push_back(tensor);
    }
    const auto got = evaluate(*make(type), inputs);
    const auto standard = make(ov::element::f32);
    ASSERT_EQ(ops::unfuse(standard), 1U);
    const ov::TensorVector expected = infer(standard, wide);
    for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i].get_shape(), expected[i].get_shape());
        const auto a = values_of(got[i]);
        const auto b = values_of(expected[i]);
        double largest = 0.0;
        for (const double value : b) largest = std::max(largest, std::fabs(value));
        for (size_t k = 0; k < a.size(); ++k) ASSERT_NEAR(a[k], b[k], tolerance * largest) << i;
    }
}

struct TypeAndTolerance {
    ov::element::Type type;
    double tolerance;  // of the result's rounding
};

class DeviceOps : public testing::TestWithParam<TypeAndTolerance> {};

TEST_P(DeviceOps, GiveWhatTheirStandardFormGives) {
    const auto& [type, tolerance] = GetParam();
    for (const ov::Shape& shape :
         {ov::Shape{3}, ov::Shape{5, 7}, ov::Shape{2, 3, 1033}, ov::Shape{2, 3, 5, 7}}) {
        compare_with_unfused(
            [](const auto& in, const auto&) {
                return std::make_shared<SwiGLU>(in[0], in[1], 1.702F);
            },
            {shape, shape}, type, tolerance);
        compare_with_unfused(
            [&](const auto& in, const auto& of) {
                return std::make_shared<AddRMSNorm>(in[0], in[1], vector(shape.back(), 9, of),
                                                    3e-6F);
            },
            {shape, shape}, type, 2 * tolerance);
    }
    for (const ov::Shape& leading : {ov::Shape{}, ov::Shape{1}, ov::Shape{2, 5}}) {
        ov::Shape shape = leading;
        shape.push_back(192);
        compare_with_unfused([](const auto& in, const auto&) { return int4(in[0], 37, 192, 64); },
                             {shape}, type, 4 * tolerance);
    }
}

INSTANTIATE_TEST_SUITE_P(Types, DeviceOps,
                         testing::Values(TypeAndTolerance{ov::element::f32, 1e-6},
                                         TypeAndTolerance{ov::element::f16, 1e-3},
                                         TypeAndTolerance{ov::element::bf16, 8e-3}),
                         [](const auto& test) { return test.param.type.get_type_name(); });

TEST(DeviceOps, LargeTensorsAreTheSameInPieces) {
    // More than what goes around the caches, and more than one worker's share.
    const ov::Shape shape{5, 1000003};
    compare_with_unfused(
        [](const auto& in, const auto&) { return std::make_shared<SwiGLU>(in[0], in[1]); },
        {shape, shape}, ov::element::f32, 1e-6);
}

TEST(DeviceOps, EmptyTensors) {
    const auto x = parameter({-1, 8});
    const ov::Model model(ov::OutputVector{std::make_shared<SwiGLU>(x, x)->output(0)}, {x});
    const auto got = evaluate(model, {ov::Tensor(ov::element::f32, {0, 8})});
    EXPECT_EQ(got[0].get_shape(), (ov::Shape{0, 8}));
}

TEST(DeviceOps, InferShapes) {
    const auto a = parameter({-1, 3, 8});
    const auto b = parameter({2, -1, 8});
    EXPECT_EQ(SwiGLU(a, b).get_output_partial_shape(0), (ov::PartialShape{2, 3, 8}));
    const AddRMSNorm norm(a, b, vector(8, 1), 1e-6F);
    EXPECT_EQ(norm.get_output_partial_shape(1), (ov::PartialShape{2, 3, 8}));
    const auto x = parameter({-1, 4, 64}, ov::element::f16);
    const auto product = int4(x, 10, 64, 32);
    EXPECT_EQ(product->get_output_partial_shape(0), (ov::PartialShape{-1, 4, 10}));
    EXPECT_EQ(product->get_output_element_type(0), ov::element::f16);
}

template <typename Make>
void expect_error(const Make& make, const char* message) {
    try {
        make();
        FAIL() << message;
    } catch (const ov::Exception& error) {
        EXPECT_THAT(error.what(), HasSubstr(message));
    }
}

TEST(DeviceOps, SayWhatIsWrong) {
    const auto x = parameter({2, 64});
    expect_error([&] { SwiGLU(x, parameter({2, 63})); },
                 "up (input 1) must have the shape of input 0, [2,64], got [2,63]");
    expect_error([&] { SwiGLU(x, parameter({2, 64}, ov::element::f16)); },
                 "up (input 1) must have the type of input 0, f32, got f16");
    const auto deep = parameter({1, 1, 1, 2, 64});
    expect_error([&] { SwiGLU(deep, deep); }, "gate (input 0) must have rank 1 to 4");
    const auto whole = parameter({2, 64}, ov::element::i32);
    expect_error([&] { SwiGLU(whole, whole); }, "gate (input 0) must be f32 or f16, got i32");
    expect_error([&] { AddRMSNorm(x, x, vector(63, 1), 1e-6F); },
                 "gamma (input 2) must have one value for each column of input 0, 64, got [63]");
    expect_error([&] { AddRMSNorm(x, x, vector(64, 1), -1.0F); }, "epsilon must be");
    expect_error([&] { int4(x, 10, 64, 48); }, "group must be a positive multiple of 32, got 48");
    expect_error([&] { int4(parameter({2, 65}), 10, 64, 32); },
                 "the last dimension of x must be 64");
    expect_error([&] { int4(x, 10, 96, 64); }, "columns must be a multiple of the group, 64");
}

TEST(DeviceOps, SurviveAFile) {
    const auto x = parameter({-1, 64});
    const auto norm = std::make_shared<AddRMSNorm>(x, x, vector(64, 1), 3.7e-7F);
    const auto model = std::make_shared<ov::Model>(
        ov::OutputVector{std::make_shared<SwiGLU>(norm->output(0), norm->output(1), 1.702F),
                         int4(x, 10, 64, 32)},
        ov::ParameterVector{x});
    std::stringstream xml, bin;
    ov::pass::Serialize(xml, bin).run_on_model(model);
    const std::string weights = bin.str();
    ov::Tensor tensor(ov::element::u8, {weights.size()});
    std::memcpy(tensor.data(), weights.data(), weights.size());
    ov::Core core;
    ovfast::register_ops(core, /*gpu=*/false);
    const auto read = core.read_model(xml.str(), tensor);
    size_t found = 0;
    for (const auto& node : read->get_ops()) {
        if (const auto* swiglu = ov::as_type<SwiGLU>(node.get())) {
            EXPECT_EQ(swiglu->alpha(), 1.702F);
            ++found;
        } else if (const auto* sum = ov::as_type<AddRMSNorm>(node.get())) {
            EXPECT_EQ(sum->epsilon(), 3.7e-7F);
            ++found;
        } else if (const auto* product = ov::as_type<Int4MatMul>(node.get())) {
            EXPECT_EQ(product->group(), 32);
            ++found;
        }
    }
    EXPECT_EQ(found, 3U);
}

TEST(DeviceOps, KernelsLieBesideTheLibraryAsItWasBuiltWithThem) {
    ops::check_kernel_files(kernel_config().parent_path());
}

TEST(DeviceOps, KernelsThatAreMissingOrChangedAreNamed) {
    namespace fs = std::filesystem;
    const fs::path folder =
        fs::temp_directory_path() / ("ovfast_kernels_" + std::to_string(::getpid()));
    for (const auto& file : fs::directory_iterator(kernel_config().parent_path())) {
        const auto error = [&](const auto& damage) -> std::string {
            fs::remove_all(folder);
            fs::copy(kernel_config().parent_path(), folder);
            damage(folder / file.path().filename());
            try {
                ops::check_kernel_files(folder);
            } catch (const ModelError& e) {
                return e.what();
            }
            return "no error";
        };
        const std::string name = "'" + (folder / file.path().filename()).string() + "'";
        EXPECT_THAT(error([](const fs::path& path) { fs::remove(path); }),
                    HasSubstr(name + " cannot be read"));
        EXPECT_THAT(
            error([](const fs::path& path) { fs::resize_file(path, fs::file_size(path) - 1); }),
            HasSubstr(name + " is not the file"));
        EXPECT_THAT(error([](const fs::path& path) { std::ofstream(path, std::ios::app) << "//"; }),
                    HasSubstr(name + " is not the file"));
    }
    fs::remove_all(folder);
}

// ---- the rewrite ------------------------------------------------------------------------------

Value normalized(const Value& x, int64_t columns) {
    const auto squares =
        std::make_shared<op::Power>(x, op::Constant::create(ov::element::f32, {}, {2.0F}));
    const auto mean = std::make_shared<op::ReduceMean>(
        squares, op::Constant::create(ov::element::i64, {1}, {-1}), true);
    const auto root = std::make_shared<op::Sqrt>(
        std::make_shared<op::Add>(mean, op::Constant::create(ov::element::f32, {}, {1e-6F})));
    const auto unit = std::make_shared<op::Divide>(x, root);
    return std::make_shared<op::Multiply>(unit, vector(static_cast<size_t>(columns), 3));
}

size_t count(const ov::Model& model, const std::string& type) {
    size_t found = 0;
    for (const auto& node : model.get_ops()) found += node->get_type_name() == type;
    return found;
}

std::vector<double> inferred_values(const std::shared_ptr<ov::Model>& model,
                                    const ov::TensorVector& inputs) {
    std::vector<double> all;
    for (const ov::Tensor& output : infer(model, inputs)) {
        const auto values = values_of(output);
        all.insert(all.end(), values.begin(), values.end());
    }
    return all;
}

TEST(RewriteDevice, PutsInOperationsThatComputeTheSame) {
    const auto x = parameter({-1, -1, 16});
    const auto y = parameter({-1, -1, 16});
    const auto sum = std::make_shared<op::Add>(x, y);
    const Value norm = normalized(sum, 16);
    const auto product = std::make_shared<op::Multiply>(std::make_shared<op::Swish>(norm), x);
    const auto again = std::make_shared<op::Add>(product, sum);
    const auto model = std::make_shared<ov::Model>(ov::OutputVector{normalized(again, 16), again},
                                                   ov::ParameterVector{x, y});
    const ov::TensorVector inputs{random_tensor(ov::element::f32, {2, 3, 16}, 1),
                                  random_tensor(ov::element::f32, {2, 3, 16}, 2)};
    const auto before = inferred_values(model, inputs);
    EXPECT_EQ(ops::use_device_operations(*model), 3U);
    EXPECT_EQ(count(*model, "SwiGLU"), 1U);
    EXPECT_EQ(count(*model, "AddRMSNorm"), 2U);
    EXPECT_EQ(count(*model, "Swish") + count(*model, "ReduceMean"), 0U);
    const auto after = inferred_values(model, inputs);
    ASSERT_EQ(before.size(), after.size());
    for (size_t i = 0; i < before.size(); ++i) ASSERT_NEAR(before[i], after[i], 1e-5) << i;
}

TEST(RewriteDevice, LeavesWhatDoesNotFit) {
    const auto keeps = [](const ov::OutputVector& outputs, const ov::ParameterVector& inputs) {
        const ov::Model model(outputs, inputs);
        EXPECT_EQ(ops::use_device_operations(model), 0U);
    };
    const auto x = parameter({-1, 16});
    const auto row = parameter({1, 16});
    keeps({normalized(std::make_shared<op::Add>(x, row), 16)}, {x, row});  // broadcasts
    keeps({normalized(x, 16)}, {x});                                       // no sum
    keeps({std::make_shared<op::Multiply>(std::make_shared<op::Swish>(x), row)}, {x, row});
    const auto deep = parameter({1, 1, 1, -1, 16});
    keeps({std::make_shared<op::Multiply>(std::make_shared<op::Swish>(deep), deep)}, {deep});
    const auto swish = std::make_shared<op::Swish>(x);
    const auto product = std::make_shared<op::Multiply>(swish, std::make_shared<op::Relu>(x));
    keeps({product, swish}, {x});  // read elsewhere, too
    const auto gelu = std::make_shared<op::Gelu>(x);
    keeps({std::make_shared<op::Multiply>(gelu, std::make_shared<op::Relu>(x))}, {x});
}

}  // namespace
}  // namespace ovfast::test
