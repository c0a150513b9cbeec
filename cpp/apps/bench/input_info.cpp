#include "apps/bench/input_info.hpp"

#include <algorithm>
#include <map>
#include <sstream>
#include <stdexcept>

#include "apps/bench/console.hpp"
#include "apps/bench/shape_text.hpp"
#include "apps/bench/text.hpp"

namespace ovfast::bench {
namespace {

using Ports = std::vector<ov::Output<const ov::Node>>;
using Texts = std::map<std::string, std::vector<std::string>>;  // by the input's name

std::string port_name(const ov::Output<const ov::Node>& port) {
    return port.get_names().empty() ? port.get_node()->get_friendly_name() : port.get_any_name();
}

/// The input that a name on the command line means: a tensor's or a node's. Throws.
const InputInfo& find_input(const std::vector<InputInfo>& inputs, const std::string& name,
                            const std::string& option) {
    std::vector<std::string> names;
    for (const InputInfo& input : inputs) {
        if (input.name == name || input.node_name == name) return input;
        names.push_back(input.name);
    }
    throw std::runtime_error(option + ": the model has no input '" + name +
                             "'. Available inputs: " + join(names, ", "));
}

Texts texts_by_input(const std::string& text, const std::vector<InputInfo>& inputs,
                     const std::string& option) {
    Texts result;
    for (const NamedTexts& entry : parse_named_texts(text)) {
        if (entry.name.empty()) {
            for (const InputInfo& input : inputs) result[input.name] = entry.texts;
        } else {
            result[find_input(inputs, entry.name, option).name] = entry.texts;
        }
    }
    return result;
}

/// As texts_by_input, but shapes without a name are dealt out to the inputs in turn.
Texts data_shapes_by_input(const std::string& text, const std::vector<InputInfo>& inputs) {
    for (const NamedTexts& entry : parse_named_texts(text)) {
        if (!entry.name.empty()) continue;
        const size_t shapes = entry.texts.size();
        if (shapes != 1 && shapes % inputs.size() != 0) {
            throw std::runtime_error(
                "Number of provided data_shapes is not a multiple of the number of model inputs!");
        }
        Texts result;
        for (size_t i = 0; i < std::max(shapes, inputs.size()); ++i) {
            result[inputs[i % inputs.size()].name].push_back(entry.texts[i % shapes]);
        }
        return result;
    }
    return texts_by_input(text, inputs, "-data_shape");
}

ov::PartialShape parse_shape(const std::string& text, const std::string& option) {
    try {
        return ov::PartialShape("[" + text + "]");
    } catch (const ov::Exception& error) {
        throw std::runtime_error(option + ": cannot read the shape [" + text +
                                 "], expected dimensions like 1,3,?,1..64");
    }
}

const std::string& only_one(const std::vector<std::string>& texts, const std::string& option,
                            const std::string& name) {
    if (texts.size() != 1) {
        throw std::runtime_error(option + ": expected one for input '" + name + "', got " +
                                 std::to_string(texts.size()));
    }
    return texts[0];
}

/// An image's layout where the shape looks like one: few channels before or after many rows.
ov::Layout guess_layout(const InputInfo& input) {
    constexpr int64_t most_channels = 4;
    const ov::PartialShape& shape = input.shape;
    if (shape.rank().is_dynamic()) return {};
    const auto rank = shape.size();
    if (rank != 3 && rank != 4) return {};
    const int64_t first = shape[rank - 3].get_max_length();
    const int64_t last = shape[rank - 1].get_max_length();
    std::string layout;
    if (first <= most_channels && last > most_channels) layout = "CHW";
    if (last <= most_channels && first > most_channels) layout = "HWC";
    if (layout.empty()) return {};
    if (rank == 4) layout = "N" + layout;
    log_warning(input.name + ": layout is not set explicitly, so it is defaulted to " + layout +
                ". It is STRONGLY recommended to set layout manually to avoid further issues.");
    return ov::Layout(layout);
}

ov::Dimension parse_batch(const std::string& text) {
    try {
        const ov::Dimension batch(text);
        if (batch != ov::Dimension(0) && (batch.is_dynamic() || batch.get_length() > 0)) {
            return batch;
        }
    } catch (const ov::Exception&) {
    }
    throw std::runtime_error("argument -b/--batch_size: " + text +
                             " is an invalid batch size, expected a positive number, ? or low..up");
}

/// Puts -b into the shapes of the inputs that have a batch; whether a shape changed.
bool apply_batch(std::vector<InputInfo>& inputs, const Options& options) {
    if (options.batch.empty()) return false;
    const ov::Dimension batch = parse_batch(options.batch);
    if (batch.is_static() && !options.data_shape.empty()) {
        log_warning("Batch size will be ignored. Provide batch deminsion in data_shape parameter.");
        return false;
    }
    bool changed = false;
    bool found = false;
    for (InputInfo& input : inputs) {
        int64_t index = -1;
        if (ov::layout::has_batch(input.layout)) {
            index = ov::layout::batch_idx(input.layout);
        } else if (input.layout.empty() && input.shape.rank().is_static() &&
                   input.shape.size() > 0) {
            const ov::Dimension& first = input.shape[0];
            if (first.is_dynamic() || first == 0 || first == 1) {
                log_warning("Batch dimension is not specified for input '" + input.name +
                            "'. The first dimension will be interpreted as batch size.");
                index = 0;
                input.layout = ov::Layout("N...");
            }
        }
        if (index < 0) continue;
        found = true;
        if (index >= 0 && input.shape[index] != batch) {
            input.shape[index] = batch;
            changed = true;
        }
    }
    if (!found) {
        throw std::runtime_error(
            "-b option is provided in command line, but there's no inputs with batch(B) dimension "
            "in input layout, so batch cannot be set. You may specify layout explicitly using "
            "-layout option.");
    }
    return changed;
}

void apply_data_shapes(InputInfo& input, const std::vector<std::string>& texts) {
    if (!input.is_dynamic()) {
        log_warning("Input '" + input.name +
                    "' has static shape. Provided data shapes for this input will be ignored.");
        return;
    }
    for (const std::string& text : texts) {
        const ov::PartialShape shape = parse_shape(text, "-data_shape");
        if (shape.is_dynamic()) {
            throw std::runtime_error("Data shape always should be static, " + shape.to_string() +
                                     " is dynamic.");
        }
        if (!input.shape.compatible(shape)) {
            throw std::runtime_error("Data shape '" + shape.to_string() + "' provided for input '" +
                                     input.name + "' is not compatible with partial shape '" +
                                     input.shape.to_string() + "' for this input.");
        }
        input.data_shapes.push_back(shape.to_shape());
    }
}

std::vector<float> parse_floats(const std::string& text, const std::string& option) {
    std::vector<float> numbers;
    for (const std::string& word : split(text, ',')) {
        std::istringstream in(strip(word));
        float number = 0;
        if (!(in >> number) || !in.eof()) {
            throw std::runtime_error(option + ": expected numbers, got '" + text + "'");
        }
        numbers.push_back(number);
    }
    return numbers;
}

/// Means or scales by channel, for named inputs or for all images.
void apply_normalization(std::vector<InputInfo>& inputs, const std::string& text,
                         const std::string& option, std::vector<float> InputInfo::* member) {
    for (const NamedTexts& entry : parse_named_texts(text)) {
        const std::vector<float> numbers =
            parse_floats(only_one(entry.texts, option, entry.name), option);
        const std::string named =
            entry.name.empty() ? "" : find_input(inputs, entry.name, option).name;
        bool used = false;
        for (InputInfo& input : inputs) {
            if (named.empty() ? !input.is_image() : input.name != named) continue;
            input.*member = numbers;
            used = true;
        }
        if (!used) {
            throw std::runtime_error(option +
                                     " needs an input that is an image (three channels, "
                                     "layout NCHW, NHWC, CHW or HWC), but there is none");
        }
    }
}

/// Each input takes one shape or as many as the others.
void check_group_counts(const InputsInfo& info) {
    for (const InputInfo& input : info.inputs) {
        const size_t count = input.data_shapes.size();
        if (count > 1 && count != info.groups()) {
            throw std::runtime_error(
                "Shapes number for every input should be either 1 or should be equal to shapes "
                "number of other inputs");
        }
    }
}

}  // namespace

bool InputInfo::is_image() const {
    const std::string text = layout.to_string();
    const bool layout_fits =
        text == "[N,C,H,W]" || text == "[N,H,W,C]" || text == "[C,H,W]" || text == "[H,W,C]";
    return layout_fits && dimension("C") == ov::Dimension(3);
}

bool InputInfo::is_image_info() const {
    if (layout.to_string() != "[N,C]") return false;
    const ov::Dimension channels = dimension("C");
    return channels.is_static() ? channels.get_length() >= 2 : channels.relaxes(ov::Dimension(2));
}

ov::Dimension InputInfo::dimension(const std::string& letter) const {
    if (!layout.has_name(letter)) return 0;
    int64_t index = layout.get_index_by_name(letter);
    if (index < 0) index += shape.size();
    return shape[index];
}

std::vector<ov::Shape> InputInfo::shapes() const {
    if (is_dynamic()) return data_shapes;
    return {shape.to_shape()};
}

size_t InputInfo::extent(const ov::Shape& one, const std::string& letter, size_t absent) const {
    if (!layout.has_name(letter)) return absent;
    int64_t index = layout.get_index_by_name(letter);
    if (index < 0) index += one.size();
    return one.at(index);
}

bool InputsInfo::is_static() const {
    return std::none_of(inputs.begin(), inputs.end(),
                        [](const InputInfo& input) { return input.is_dynamic(); });
}

size_t InputsInfo::groups() const {
    size_t most = 0;
    for (const InputInfo& input : inputs) most = std::max(most, input.shapes().size());
    return most;
}

std::string InputsInfo::group_text(size_t group) const {
    std::string text;
    for (const InputInfo& input : inputs) {
        const std::vector<ov::Shape> shapes = input.shapes();
        text += " " + input.name + ": " + to_text(shapes[group % shapes.size()]);
    }
    return text;
}

std::vector<size_t> InputsInfo::group_batches() const {
    std::vector<size_t> batches;
    for (size_t group = 0; group < groups(); ++group) {
        size_t batch = 0;
        for (const InputInfo& input : inputs) {
            const std::vector<ov::Shape> shapes = input.shapes();
            const size_t own = input.extent(shapes[group % shapes.size()], "N", 0);
            if (own == 0) continue;
            if (batch != 0 && own != batch) {
                throw std::runtime_error(
                    "Can't deterimine batch size: batch is different for different inputs!");
            }
            batch = own;
        }
        batches.push_back(std::max<size_t>(batch, 1));
    }
    return batches;
}

ov::Dimension InputsInfo::batch() const {
    ov::Dimension batch = 0;
    for (const InputInfo& input : inputs) {
        if (!ov::layout::has_batch(input.layout)) continue;
        const ov::Dimension own = input.dimension("N");
        if (batch == ov::Dimension(0)) {
            batch = own;
        } else if (own != batch) {
            throw std::runtime_error(
                "Can't deterimine batch size: batch is different for different inputs!");
        }
    }
    return batch == ov::Dimension(0) ? ov::Dimension(1) : batch;
}

InputsInfo make_inputs_info(const Ports& ports, const Options& options) {
    InputsInfo info;
    std::vector<InputInfo>& inputs = info.inputs;
    for (const auto& port : ports) {
        InputInfo input;
        input.name = port_name(port);
        input.node_name = port.get_node()->get_friendly_name();
        input.type = port.get_element_type();
        input.shape = port.get_partial_shape();
        if (input.type == ov::element::string) {
            throw std::runtime_error("Input '" + input.name +
                                     "' takes strings, which ovfast-bench cannot fill: expected a "
                                     "model of numeric inputs");
        }
        inputs.push_back(input);
    }
    if (inputs.empty()) throw std::runtime_error("The model has no inputs");

    for (const auto& [name, texts] : texts_by_input(options.shape, inputs, "-shape")) {
        const ov::PartialShape shape = parse_shape(only_one(texts, "-shape", name), "-shape");
        const_cast<InputInfo&>(find_input(inputs, name, "-shape")).shape = shape;
        info.reshape = true;
    }
    const Texts layouts = texts_by_input(options.layout, inputs, "-layout");
    for (size_t i = 0; i < inputs.size(); ++i) {
        const auto given = layouts.find(inputs[i].name);
        const auto* parameter = dynamic_cast<const ov::op::v0::Parameter*>(ports[i].get_node());
        if (given != layouts.end()) {
            inputs[i].layout = ov::Layout(only_one(given->second, "-layout", given->first));
        } else if (parameter && !parameter->get_layout().empty()) {
            inputs[i].layout = parameter->get_layout();
        } else {
            inputs[i].layout = guess_layout(inputs[i]);
        }
    }
    if (apply_batch(inputs, options)) info.reshape = true;
    const Texts data_shapes = data_shapes_by_input(options.data_shape, inputs);
    for (InputInfo& input : inputs) {
        const auto given = data_shapes.find(input.name);
        if (given != data_shapes.end()) apply_data_shapes(input, given->second);
    }
    check_group_counts(info);
    apply_normalization(inputs, options.mean_values, "-mean_values", &InputInfo::mean);
    apply_normalization(inputs, options.scale_values, "-scale_values", &InputInfo::scale);
    return info;
}

std::string to_text(const ov::Shape& shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); ++i) {
        text += (i > 0 ? "," : "") + std::to_string(shape[i]);
    }
    return text + "]";
}

}  // namespace ovfast::bench
