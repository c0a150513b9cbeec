#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "apps/bench/image.hpp"
#include "apps/bench/input_info.hpp"
#include "apps/bench/model.hpp"
#include "apps/bench/npy.hpp"
#include "apps/bench/tensors.hpp"
#include "bench_models.hpp"

namespace ovfast::bench {
namespace {

namespace fs = std::filesystem;

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

class BenchInputs : public testing::Test {
protected:
    void SetUp() override { fs::create_directories(folder_); }
    void TearDown() override { fs::remove_all(folder_); }

    std::string write(const std::string& name, const std::string& content) const {
        const fs::path path = folder_ / name;
        std::ofstream(path, std::ios::binary) << content;
        return path;
    }

    /// A picture of pixels given as red, green, blue, row by row.
    std::string write_ppm(const std::string& name, size_t width, size_t height,
                          const std::string& pixels) const {
        return write(
            name, "P6 " + std::to_string(width) + " " + std::to_string(height) + " 255\n" + pixels);
    }

    std::string write_npy(const std::string& name, const std::string& descr,
                          const std::string& shape, const std::string& data,
                          const std::string& fortran = "False") const {
        std::string header = "{'descr': '" + descr + "', 'fortran_order': " + fortran +
                             ", 'shape': (" + shape + "), }\n";
        std::string start = "\x93NUMPY\x01";
        start += '\0';
        start += static_cast<char>(header.size());
        start += '\0';
        return write(name, start + header + data);
    }

    const fs::path folder_ = fs::path(testing::TempDir()) / "bench_inputs" /
                             testing::UnitTest::GetInstance()->current_test_info()->name();
};

InputsInfo info_of(const ov::ParameterVector& parameters, const Options& options = {}) {
    ov::OutputVector outputs(parameters.begin(), parameters.end());
    static std::vector<std::shared_ptr<ov::Model>> alive;
    alive.push_back(std::make_shared<ov::Model>(outputs, parameters));
    return make_inputs_info(std::as_const(*alive.back()).inputs(), options);
}

std::string message_of(const std::function<void()>& call) {
    try {
        call();
    } catch (const std::exception& error) {
        return error.what();
    }
    return "no error";
}

TEST_F(BenchInputs, GuessesLayoutsOfImagesOnly) {
    const auto layout = [](const ov::PartialShape& shape) {
        return info_of({make_input("x", ov::element::f32, shape)}).inputs[0].layout.to_string();
    };
    EXPECT_EQ(layout({1, 3, 224, 224}), "[N,C,H,W]");
    EXPECT_EQ(layout({1, 224, 224, 3}), "[N,H,W,C]");
    EXPECT_EQ(layout({3, 224, 224}), "[C,H,W]");
    EXPECT_EQ(layout({224, 224, 1}), "[H,W,C]");
    EXPECT_EQ(layout({1, 12, 64, 64}), "[...]");
    EXPECT_EQ(layout({1, 128}), "[...]");
    EXPECT_EQ(layout(ov::PartialShape::dynamic()), "[...]");
}

TEST_F(BenchInputs, ShapesBatchesAndGroups) {
    Options options;
    options.data_shape = "ids[1,8][2,16],mask_node[1,8][2,16]";
    options.layout = "ids[NC]";
    const InputsInfo info = info_of({make_input("ids", ov::element::i64, {-1, -1}),
                                     make_input("mask", ov::element::i64, {-1, -1})},
                                    options);
    EXPECT_EQ(info.groups(), 2U);
    EXPECT_THAT(info.group_batches(), ElementsAre(1, 2));
    EXPECT_EQ(info.group_text(1), " ids: [2,16] mask: [2,16]");
    EXPECT_FALSE(info.is_static());

    options = {};
    options.shape = "x[1,3,1..64,32]";
    options.batch = "4";
    const InputsInfo batch = info_of({make_input("x", ov::element::f32, {1, 3, 32, 32})}, options);
    EXPECT_TRUE(batch.reshape);
    EXPECT_EQ(batch.inputs[0].shape, (ov::PartialShape{4, 3, ov::Dimension(1, 64), 32}));
}

TEST_F(BenchInputs, WrongShapes) {
    const auto message = [](const std::function<void(Options&)>& set) {
        Options options;
        set(options);
        return message_of([&] {
            info_of({make_input("ids", ov::element::i64, {-1, 1000}),
                     make_input("mask", ov::element::i64, {-1, -1})},
                    options);
        });
    };
    EXPECT_THAT(message([](Options& o) { o.shape = "idz[1,2]"; }),
                HasSubstr("no input 'idz'. Available inputs: ids, mask"));
    EXPECT_THAT(message([](Options& o) { o.data_shape = "ids[1,8]"; }),
                HasSubstr("Data shape '[1,8]' provided for input 'ids' is not compatible with "
                          "partial shape '[?,1000]'"));
    EXPECT_THAT(message([](Options& o) { o.data_shape = "mask[1,?]"; }),
                HasSubstr("always should be static"));
    EXPECT_THAT(message([](Options& o) { o.data_shape = "mask[1,x]"; }),
                HasSubstr("cannot read the shape [1,x]"));
    EXPECT_THAT(
        message([](Options& o) { o.data_shape = "ids[1,1000][2,1000],mask[1,8][1,8][1,8]"; }),
        HasSubstr("either 1 or should be equal"));
    EXPECT_THAT(message([](Options& o) { o.data_shape = "[1,1][2,2][3,3]"; }),
                HasSubstr("not a multiple of the number of model inputs"));
    EXPECT_THAT(message([](Options& o) { o.batch = "0"; }), HasSubstr("invalid batch size"));
    EXPECT_THAT(message([](Options& o) { o.batch = "many"; }), HasSubstr("invalid batch size"));
    EXPECT_THAT(message([](Options& o) {
                    o.batch = "2";
                    o.layout = "[CD]";
                }),
                HasSubstr("no inputs with batch(B) dimension"));
    EXPECT_THAT(message([](Options& o) { o.mean_values = "[1,2,3]"; }),
                HasSubstr("needs an input that is an image"));
    EXPECT_THAT(message([](Options& o) { o.scale_values = "ids[1,two]"; }),
                HasSubstr("expected numbers, got '1,two'"));
    EXPECT_THAT(message_of([] { info_of({make_input("text", ov::element::string, {-1})}); }),
                HasSubstr("Input 'text' takes strings"));
}

TEST_F(BenchInputs, ImagesInEveryLayoutBlueFirst) {
    const std::string file = write_ppm("a.ppm", 2, 1, std::string("\1\2\3\4\5\6", 6));
    const auto values = [&](const ov::PartialShape& shape, const std::string& layout) {
        Options options;
        options.layout = "[" + layout + "]";
        InputsInfo info = info_of({make_input("x", ov::element::f32, shape)}, options);
        const InputData data = make_input_data({file}, info);
        const auto* first = data.at(0, 0).data<float>();
        return std::vector<float>(first, first + data.at(0, 0).get_size());
    };
    EXPECT_THAT(values({1, 3, 1, 2}, "NCHW"), ElementsAre(3, 6, 2, 5, 1, 4));
    EXPECT_THAT(values({1, 1, 2, 3}, "NHWC"), ElementsAre(3, 2, 1, 6, 5, 4));
    EXPECT_THAT(values({3, 1, 2}, "CHW"), ElementsAre(3, 6, 2, 5, 1, 4));
    EXPECT_EQ(values({1, 3, 4, 4}, "NCHW").size(), 48U) << "resized";
    EXPECT_EQ(values({2, 3, 1, 2}, "NCHW").size(), 12U) << "twice for the batch";
    EXPECT_EQ(values({1, 1, 1, 2}, "NCHW").size(), 2U) << "gray";
    // A dynamic input takes the picture's own shape.
    EXPECT_THAT(values({-1, 3, -1, -1}, "NCHW"), ElementsAre(3, 6, 2, 5, 1, 4));
    EXPECT_THAT(message_of([&] { load_image(write("b.png", "no picture"), 3); }),
                HasSubstr("Cannot read the image"));
}

TEST_F(BenchInputs, NumpyArrays) {
    const std::string data(8, '\1');
    const ov::Tensor tensor = load_npy(write_npy("a.npy", "<i4", "1, 2", data), ov::element::i32);
    EXPECT_EQ(tensor.get_shape(), (ov::Shape{1, 2}));
    EXPECT_EQ(tensor.data<int32_t>()[1], 0x01010101);
    EXPECT_EQ(load_npy(write_npy("s.npy", "<f8", "", data), ov::element::f64).get_size(), 1U);

    const auto message = [&](const std::string& file) {
        return message_of([&] { load_npy(file, ov::element::i32); });
    };
    EXPECT_THAT(message(write_npy("f.npy", "<f8", "1,", data)),
                HasSubstr("is of float64 format, which does not match input type int32"));
    EXPECT_THAT(message(write_npy("b.npy", ">i4", "2,", data)), HasSubstr("does not match"));
    EXPECT_THAT(message(write_npy("o.npy", "<i4", "2,", data, "True")), HasSubstr("Fortran order"));
    EXPECT_THAT(message(write_npy("l.npy", "<i4", "3,", data)),
                HasSubstr("expected 12 bytes of data, got 8"));
    EXPECT_THAT(message(write("n.npy", "not an array at all")), HasSubstr("no such header"));
    EXPECT_THAT(message(write("c.npy", std::string("\x93NUMPY\x01\0\xff\x0f", 10) + "{...")),
                HasSubstr("cut short"));
    EXPECT_THAT(message((folder_ / "none.npy").string()), HasSubstr("Cannot read"));
}

TEST_F(BenchInputs, FilesByInputAndInTurn) {
    const std::string one = write_npy("1.npy", "<i4", "1, 2", std::string(8, '\1'));
    const std::string two = write_npy("2.npy", "<i4", "1, 2", std::string(8, '\2'));
    const std::string raw = write("3.bin", std::string(4, '\3'));
    InputsInfo info = info_of(
        {make_input("a", ov::element::i32, {1, 2}), make_input("b:0", ov::element::u8, {1, 4})});
    const InputData data = make_input_data({"a:" + one + "," + two + ",b:0:" + raw}, info);
    EXPECT_EQ(data.at(0, 0).data<int32_t>()[0], 0x01010101);
    EXPECT_EQ(data.at(0, 1).data<int32_t>()[0], 0x02020202);
    EXPECT_EQ(data.at(0, 2).data<int32_t>()[0], 0x01010101);
    EXPECT_EQ(data.at(1, 5).data<uint8_t>()[0], 3);

    const auto message = [&](const std::string& argument) {
        return message_of([&] { make_input_data({argument}, info); });
    };
    EXPECT_THAT(message("c:" + one), HasSubstr("Cannot find inputs: ['c']"));
    EXPECT_THAT(message("a:nothing.bin"), HasSubstr("'nothing.bin' doesn't exist"));
    EXPECT_THAT(message("a:" + raw), HasSubstr("contains 32 bits but model expects 64"));
    EXPECT_THAT(message("a:" + write("x.txt", "x")), HasSubstr("None of the files"));
    EXPECT_THAT(message("b:0:" + one), HasSubstr("int32 format, which does not match"));
    EXPECT_THAT(message("a:image_info"),
                HasSubstr("needs a model with one input that is an image"));
    EXPECT_EQ(message("a:random"), "no error");
}

TEST_F(BenchInputs, BinariesOfAWholeTensorOrOfOneFrame) {
    Options options;
    options.layout = "[NC]";
    InputsInfo info = info_of({make_input("a", ov::element::u8, {2, 2})}, options);
    const std::string whole = write("whole.bin", "abcd");
    const std::string left = write("0.bin", "ef");
    const std::string right = write("1.bin", "gh");
    const auto text = [&](const std::string& argument) {
        const InputData data = make_input_data({argument}, info);
        return std::string(static_cast<const char*>(data.at(0, 0).data()), 4);
    };
    EXPECT_EQ(text(whole), "abcd");
    EXPECT_EQ(text(left + "," + right), "efgh");
}

TEST_F(BenchInputs, RandomValuesOfEveryType) {
    for (const auto& type :
         {ov::element::f64, ov::element::f32, ov::element::f16, ov::element::bf16,
          ov::element::boolean, ov::element::i8, ov::element::u8, ov::element::i16,
          ov::element::u16, ov::element::i32, ov::element::u32, ov::element::i64, ov::element::u64,
          ov::element::u4, ov::element::f8e4m3}) {
        ov::Tensor tensor(type, {64});
        std::memset(tensor.data(), 0, tensor.get_byte_size());
        fill_random(tensor);
        const auto* bytes = static_cast<const uint8_t*>(tensor.data());
        EXPECT_TRUE(std::any_of(bytes, bytes + tensor.get_byte_size(), [](uint8_t byte) {
            return byte != 0;
        })) << type;
        if (type == ov::element::boolean) {
            EXPECT_LE(*std::max_element(bytes, bytes + 64), 1);
        }
        if (type == ov::element::f32) {
            EXPECT_LE(*std::max_element(tensor.data<float>(), tensor.data<float>() + 64), 255);
        }
        if (type == ov::element::i64) {
            EXPECT_LE(*std::max_element(tensor.data<int64_t>(), tensor.data<int64_t>() + 64), 255);
        }
    }
}

TEST_F(BenchInputs, TypesAreBuiltIntoTheModel) {
    const auto input = make_input("x", ov::element::f32, {1, 3, 8, 8});
    const auto relu = std::make_shared<ov::op::v0::Relu>(input);
    relu->get_output_tensor(0).set_names({"y"});
    const auto build = [&](const std::function<void(Options&)>& set) {
        Options options;
        set(options);
        auto model = std::make_shared<ov::Model>(ov::OutputVector{relu}, ov::ParameterVector{input})
                         ->clone();
        InputsInfo info = make_inputs_info(std::as_const(*model).inputs(), options);
        model = preprocess(model, info, options);
        EXPECT_EQ(model->input(0).get_element_type(), info.inputs[0].type);
        return std::pair(model->input(0).get_element_type(), model->output(0).get_element_type());
    };
    using ov::element::f16, ov::element::f32, ov::element::i32, ov::element::u8;
    EXPECT_EQ(build([](Options&) {}), std::pair(u8, f32)) << "an image";
    EXPECT_EQ(build([](Options& o) { o.input_precision = "f16"; }), std::pair(f16, f32));
    EXPECT_EQ(build([](Options& o) { o.output_precision = "f16"; }), std::pair(u8, f16));
    EXPECT_EQ(build([](Options& o) {
                  o.input_precision = "f16";
                  o.input_output_precision = "x:i32, y:f16";
              }),
              std::pair(i32, f16));
    EXPECT_THAT(message_of([&] { build([](Options& o) { o.input_output_precision = "z:f16"; }); }),
                HasSubstr("Node 'z' does not exist in model"));
    EXPECT_THAT(message_of([&] { build([](Options& o) { o.input_output_precision = "x:f12"; }); }),
                HasSubstr("Undefined precision: 'f12' !"));
}

TEST_F(BenchInputs, AFolderMeansTheModelInIt) {
    EXPECT_THAT(message_of([&] { model_file(folder_); }),
                HasSubstr("expected openvino_model.xml or saved_model.pb"));
    const std::string xml = write("openvino_model.xml", "");
    EXPECT_EQ(model_file(folder_), xml);
    EXPECT_EQ(model_file(xml), xml);
}

}  // namespace
}  // namespace ovfast::bench
