#include "apps/bench/tensors.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <numeric>
#include <stdexcept>

#include "apps/bench/console.hpp"
#include "apps/bench/files.hpp"
#include "apps/bench/image.hpp"
#include "apps/bench/input_files.hpp"
#include "apps/bench/npy.hpp"

namespace ovfast::bench {
namespace {

using Tensors = std::vector<ov::Tensor>;
using Files = std::vector<std::string>;

std::vector<size_t> batches_of(const InputInfo& input) {
    std::vector<size_t> batches;
    for (const ov::Shape& shape : input.shapes()) batches.push_back(input.extent(shape, "N", 1));
    return batches;
}

void check_compatible(const InputInfo& input, const ov::Shape& shape) {
    if (input.shape.compatible(ov::PartialShape(shape))) return;
    throw std::runtime_error("Data shape '" + to_text(shape) + "' provided for input '" +
                             input.name + "' is not compatible with partial shape '" +
                             input.shape.to_string() + "' for this input.");
}

/// Stores pixels of 8 bits as numbers of the input's type.
void store(ov::Tensor& tensor, size_t index, uint8_t value) {
    switch (tensor.get_element_type()) {
        case ov::element::u8:
        case ov::element::i8:
            static_cast<uint8_t*>(tensor.data())[index] = value;
            return;
        case ov::element::f32:
            static_cast<float*>(tensor.data())[index] = value;
            return;
        case ov::element::f16:
            static_cast<ov::float16*>(tensor.data())[index] = ov::float16(float(value));
            return;
        case ov::element::bf16:
            static_cast<ov::bfloat16*>(tensor.data())[index] = ov::bfloat16(float(value));
            return;
        case ov::element::f64:
            static_cast<double*>(tensor.data())[index] = value;
            return;
        case ov::element::i32:
        case ov::element::u32:
            static_cast<uint32_t*>(tensor.data())[index] = value;
            return;
        case ov::element::i64:
        case ov::element::u64:
            static_cast<uint64_t*>(tensor.data())[index] = value;
            return;
        case ov::element::i16:
        case ov::element::u16:
            static_cast<uint16_t*>(tensor.data())[index] = value;
            return;
        default:
            throw std::runtime_error("Images cannot fill an input of type " +
                                     tensor.get_element_type().get_type_name());
    }
}

/// Puts an image into the frame `frame` of the tensor, in the order that the layout asks for.
void put_image(const InputInfo& input, const Image& image, size_t frame, ov::Tensor& tensor) {
    const std::string layout = input.layout.to_string();
    const bool planar = layout == "[N,C,H,W]" || layout == "[C,H,W]";
    const size_t area = image.width * image.height;
    const size_t size = area * image.channels;
    if (size * (frame + 1) > tensor.get_size()) {
        throw std::runtime_error(
            "Image of " + std::to_string(size) + " values is not compatible with input shape " +
            to_text(tensor.get_shape()) + "! Make sure -i parameter is valid.");
    }
    for (size_t pixel = 0; pixel < area; ++pixel) {
        for (size_t channel = 0; channel < image.channels; ++channel) {
            const size_t place = planar ? channel * area + pixel : pixel * image.channels + channel;
            store(tensor, frame * size + place, image.pixels[pixel * image.channels + channel]);
        }
    }
}

size_t image_channels(const InputInfo& input) {
    const ov::Dimension channels = input.dimension("C");
    const bool fits = input.layout.has_name("C") && input.layout.has_name("H") &&
                      input.layout.has_name("W") && channels.is_static();
    if (!fits || (channels != 1 && channels != 3 && channels != 4)) {
        throw std::runtime_error("Input '" + input.name +
                                 "' cannot take images: expected a layout of "
                                 "images with 1, 3 or 4 channels, got layout " +
                                 input.layout.to_string() + " and shape " +
                                 input.shape.to_string());
    }
    return channels.get_length();
}

ov::Tensor image_of_its_own_shape(InputInfo& input, const std::string& file) {
    log_info("Prepare image " + file);
    const Image image = load_image(file, image_channels(input));
    log_info("Image will be processed with original shape - (" + std::to_string(image.height) +
             ", " + std::to_string(image.width) + ")");
    const std::string layout = input.layout.to_string();
    ov::Shape shape = {image.height, image.width, image.channels};
    if (layout == "[N,C,H,W]" || layout == "[C,H,W]") {
        shape = {image.channels, image.height, image.width};
    }
    if (input.shape.size() == 4) shape.insert(shape.begin(), 1);
    check_compatible(input, shape);
    ov::Tensor tensor(input.type, shape);
    put_image(input, image, 0, tensor);
    return tensor;
}

/// The files that are used: a multiple of the frames of all shapes, if there are enough.
Files usable(Files files, const InputInfo& input, const std::string& kind) {
    const std::vector<size_t> batches = batches_of(input);
    const size_t frames = std::accumulate(batches.begin(), batches.end(), size_t{0});
    if (frames == 0) return files;
    if (files.size() > frames && files.size() % frames != 0) {
        files.resize(files.size() - files.size() % frames);
        log_warning("Number of provided " + kind + " for input '" + input.name +
                    "' is not a multiple of the number of provided data shapes. Only " +
                    std::to_string(files.size()) + " " + kind +
                    " will be processed for this input.");
    } else if (files.size() < frames) {
        log_warning("Some " + kind + " will be dublicated: " + std::to_string(frames) +
                    " is required, but only " + std::to_string(files.size()) + " were provided.");
    }
    return files;
}

Tensors from_images(InputInfo& input, const Files& given) {
    const std::vector<ov::Shape> shapes = input.shapes();
    Tensors tensors;
    if (shapes.empty()) {
        for (const std::string& file : given) {
            tensors.push_back(image_of_its_own_shape(input, file));
        }
        return tensors;
    }
    const Files files = usable(given, input, "images");
    const size_t channels = image_channels(input);
    size_t next = 0;
    for (size_t i = 0; i < std::max(shapes.size(), files.size()); ++i) {
        const ov::Shape& shape = shapes[i % shapes.size()];
        const size_t width = input.extent(shape, "W", 0);
        const size_t height = input.extent(shape, "H", 0);
        ov::Tensor tensor(input.type, shape);
        for (size_t frame = 0; frame < input.extent(shape, "N", 1); ++frame) {
            const std::string& file = files[next++ % files.size()];
            log_info("Prepare image " + file);
            Image image = load_image(file, channels);
            if (image.width != width || image.height != height) {
                log_warning("Image is resized from ((" + std::to_string(image.height) + ", " +
                            std::to_string(image.width) + ")) to ((" + std::to_string(width) +
                            ", " + std::to_string(height) + "))");
                image = resize_image(image, width, height);
            }
            put_image(input, image, frame, tensor);
        }
        tensors.push_back(tensor);
    }
    return tensors;
}

Tensors from_numpy(InputInfo& input, const Files& files) {
    const std::vector<ov::Shape> shapes = input.shapes();
    Tensors tensors;
    for (size_t i = 0; i < std::max(shapes.size(), files.size()); ++i) {
        const std::string& file = files[i % files.size()];
        ov::Tensor tensor = load_npy(file, input.type);
        const ov::Shape got = tensor.get_shape();
        if (shapes.empty()) {
            if (input.shape.rank().is_static() && input.shape.size() == got.size() + 1) {
                ov::Shape with_batch = got;
                with_batch.insert(with_batch.begin(), 1);
                tensor.set_shape(with_batch);
            }
            check_compatible(input, tensor.get_shape());
        } else if (got != shapes[i % shapes.size()]) {
            throw std::runtime_error("Numpy array shape mismatch. File " + file +
                                     " has shape: " + to_text(got) +
                                     ", expected: " + to_text(shapes[i % shapes.size()]));
        }
        tensors.push_back(tensor);
    }
    return tensors;
}

/// Each file holds a whole tensor, or one element of the batch.
Tensors from_binaries(InputInfo& input, const Files& given) {
    const std::vector<ov::Shape> shapes = input.shapes();
    if (shapes.empty()) {
        throw std::runtime_error("Input " + input.name + " is dynamic. Provide data shapes!");
    }
    const Files files = usable(given, input, "binaries");
    Tensors tensors;
    size_t next = 0;
    for (size_t i = 0; i < std::max(shapes.size(), files.size()); ++i) {
        const ov::Shape& shape = shapes[i % shapes.size()];
        ov::Tensor tensor(input.type, shape);
        auto* bytes = static_cast<char*>(tensor.data());
        const size_t expected = tensor.get_byte_size();
        const size_t batch =
            input.layout.has_name("N") && ov::layout::batch_idx(input.layout) == 0 ? shape[0] : 1;
        for (size_t filled = 0; filled < expected;) {
            const std::string& file = files[next++ % files.size()];
            const std::string content = read_file(file);
            const bool whole = content.size() == expected && filled == 0;
            if (!whole && content.size() * batch != expected) {
                throw std::runtime_error("File " + file + " contains " +
                                         std::to_string(content.size() * 8) +
                                         " bits but model expects " + std::to_string(expected * 8));
            }
            std::memcpy(bytes + filled, content.data(), content.size());
            filled += content.size();
        }
        tensors.push_back(tensor);
    }
    return tensors;
}

Tensors from_random(InputInfo& input) {
    Tensors tensors;
    for (const ov::Shape& shape : input.shapes()) {
        tensors.emplace_back(input.type, shape);
        fill_random(tensors.back());
    }
    if (tensors.empty()) {
        throw std::runtime_error("Input " + input.name + " is dynamic. Provide data shapes!");
    }
    return tensors;
}

/// Height, width and ones: what detection networks take beside the image.
Tensors from_image_size(InputInfo& input, const InputInfo& image) {
    Tensors tensors;
    const std::vector<ov::Shape> sizes = image.shapes();
    if (sizes.empty()) {
        throw std::runtime_error("Input " + image.name + " is dynamic. Provide data shapes!");
    }
    const std::vector<ov::Shape> shapes = input.shapes();
    for (size_t i = 0; i < std::max(shapes.size(), sizes.size()) && !shapes.empty(); ++i) {
        ov::Tensor values(ov::element::f32, shapes[i % shapes.size()]);
        const ov::Shape& size = sizes[i % sizes.size()];
        const size_t width = values.get_shape().at(1);
        for (size_t k = 0; k < values.get_size(); ++k) {
            const size_t place = k % width;
            values.data<float>()[k] = place == 0   ? image.extent(size, "H", 1)
                                      : place == 1 ? image.extent(size, "W", 1)
                                                   : 1;
        }
        ov::Tensor tensor(input.type, values.get_shape());
        if (input.type == ov::element::f32) {
            values.copy_to(tensor);
        } else if (input.type == ov::element::i32 || input.type == ov::element::i64) {
            for (size_t k = 0; k < values.get_size(); ++k) {
                const auto number = static_cast<int64_t>(values.data<float>()[k]);
                if (input.type == ov::element::i32) tensor.data<int32_t>()[k] = number;
                if (input.type == ov::element::i64) tensor.data<int64_t>()[k] = number;
            }
        } else {
            throw std::runtime_error("image_info cannot fill an input of type " +
                                     input.type.get_type_name() + ", expected f32, i32 or i64");
        }
        tensors.push_back(tensor);
    }
    return tensors;
}

Tensors make_tensors(InputInfo& input, const InputFiles& files, const InputInfo* image) {
    switch (files.source) {
        case Source::images:
            return from_images(input, files.files);
        case Source::numpy:
            return from_numpy(input, files.files);
        case Source::binaries:
            return from_binaries(input, files.files);
        case Source::image_info:
            if (!image) {
                throw std::runtime_error("image_info for input '" + input.name +
                                         "' needs a model with one input that is an image");
            }
            log_info("Create input tensors for input '" + input.name + "' with image sizes");
            return from_image_size(input, *image);
        case Source::random:
            break;
    }
    log_info("Fill input '" + input.name + "' with random values ");
    return from_random(input);
}

}  // namespace

InputData make_input_data(const std::vector<std::string>& arguments, InputsInfo& info) {
    const std::map<std::string, InputFiles> files = find_input_files(arguments, info);
    const InputInfo* image = nullptr;
    size_t images = 0;
    for (const InputInfo& input : info.inputs) {
        if (!input.is_image()) continue;
        image = &input;
        ++images;
    }
    if (images != 1) image = nullptr;

    std::vector<Tensors> tensors;
    for (InputInfo& input : info.inputs) {
        const auto found = files.find(input.name);
        InputFiles source;
        if (found != files.end()) {
            source = found->second;
        } else if (image && input.is_image_info()) {
            source.source = Source::image_info;
        } else {
            log_warning("No input files were given for input '" + input.name +
                        "'!. This input will be filled with random values!");
        }
        tensors.push_back(make_tensors(input, source, image));
    }
    // Only now, lest an input's own files count as shapes for the next one.
    for (size_t i = 0; i < info.inputs.size(); ++i) {
        InputInfo& input = info.inputs[i];
        if (!input.is_dynamic() || !input.data_shapes.empty()) continue;
        for (const ov::Tensor& tensor : tensors[i]) input.data_shapes.push_back(tensor.get_shape());
    }
    return InputData(std::move(tensors));
}

}  // namespace ovfast::bench
