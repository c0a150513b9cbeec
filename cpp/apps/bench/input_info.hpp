#pragma once

#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "apps/bench/options.hpp"

namespace ovfast::bench {

/// One input of the model and what it is to be fed with.
struct InputInfo {
    std::string name;  // a tensor name, else the node's
    std::string node_name;
    ov::element::Type type;
    ov::Layout layout;
    ov::PartialShape shape;
    std::vector<ov::Shape> data_shapes;  // of a dynamic input, in the order of -data_shape
    std::vector<float> mean;             // by channel; empty for none
    std::vector<float> scale;

    bool is_dynamic() const { return shape.is_dynamic(); }
    /// The layout is one of images and there are three channels.
    bool is_image() const;
    /// An input of two dimensions that takes height and width.
    bool is_image_info() const;
    /// The dimension that the layout calls `letter`; 0 when there is none.
    ov::Dimension dimension(const std::string& letter) const;
    /// The shapes that tensors take in turn: that of a static input, else data_shapes.
    std::vector<ov::Shape> shapes() const;
    /// The extent called `letter` in one of shapes(); `absent` when the layout has none.
    size_t extent(const ov::Shape& one, const std::string& letter, size_t absent) const;
};

struct InputsInfo {
    std::vector<InputInfo> inputs;
    bool reshape = false;  // -shape or -b ask for other shapes than the model's

    bool is_static() const;
    /// How many groups of shapes there are: the most shapes that an input has, 0 for none.
    size_t groups() const;
    /// The name of each input with its shape in that group: " ids: [1,64] mask: [1,64]".
    std::string group_text(size_t group) const;
    /// The batch of each group; 1 where no layout has one. Throws std::runtime_error when inputs
    /// disagree.
    std::vector<size_t> group_batches() const;
    /// The batch of the model, maybe dynamic; 1 where no layout has one.
    ov::Dimension batch() const;
};

/// Applies -shape, -data_shape, -layout, -b, -mean_values and -scale_values to the inputs. Throws
/// std::runtime_error.
InputsInfo make_inputs_info(const std::vector<ov::Output<const ov::Node>>& inputs,
                            const Options& options);

/// "[1,64]".
std::string to_text(const ov::Shape& shape);

}  // namespace ovfast::bench
