#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ovfast::bench {

/// Pixels of 8 bits, row by row, channels interleaved: gray, or blue, green, red (and alpha).
struct Image {
    size_t width = 0;
    size_t height = 0;
    size_t channels = 0;
    std::vector<uint8_t> pixels;
};

/// Reads bmp, png, jpg, pgm, ppm, tga, gif, psd as `channels` (1, 3 or 4) channels. Throws
/// std::runtime_error.
Image load_image(const std::string& file, size_t channels);

Image resize_image(const Image& image, size_t width, size_t height);

}  // namespace ovfast::bench
