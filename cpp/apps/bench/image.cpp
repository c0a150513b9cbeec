#include "apps/bench/image.hpp"

#include <stdexcept>
#include <utility>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#include <stb_image.h>
#define STB_IMAGE_RESIZE_IMPLEMENTATION
#define STB_IMAGE_RESIZE_STATIC
#include <stb_image_resize.h>
#pragma GCC diagnostic pop

namespace ovfast::bench {

Image load_image(const std::string& file, size_t channels) {
    int width = 0;
    int height = 0;
    int in_file = 0;
    uint8_t* pixels =
        stbi_load(file.c_str(), &width, &height, &in_file, static_cast<int>(channels));
    if (!pixels) {
        throw std::runtime_error("Cannot read the image " + file + ": " + stbi_failure_reason());
    }
    Image image{static_cast<size_t>(width), static_cast<size_t>(height), channels, {}};
    image.pixels.assign(pixels, pixels + image.width * image.height * channels);
    stbi_image_free(pixels);
    // Models that benchmark_app measures expect OpenCV's order.
    for (size_t i = 0; channels >= 3 && i < image.pixels.size(); i += channels) {
        std::swap(image.pixels[i], image.pixels[i + 2]);
    }
    return image;
}

Image resize_image(const Image& image, size_t width, size_t height) {
    Image resized{width, height, image.channels, {}};
    resized.pixels.resize(width * height * image.channels);
    const bool done = stbir_resize_uint8(image.pixels.data(), static_cast<int>(image.width),
                                         static_cast<int>(image.height), 0, resized.pixels.data(),
                                         static_cast<int>(width), static_cast<int>(height), 0,
                                         static_cast<int>(image.channels));
    if (!done) {
        throw std::runtime_error("Cannot resize an image of " + std::to_string(image.width) +
                                 " x " + std::to_string(image.height) + " to " +
                                 std::to_string(width) + " x " + std::to_string(height));
    }
    return resized;
}

}  // namespace ovfast::bench
