#include "apps/bench/model.hpp"

#include <filesystem>
#include <map>
#include <stdexcept>

#include "apps/bench/console.hpp"
#include "apps/bench/text.hpp"

namespace ovfast::bench {
namespace {

namespace fs = std::filesystem;

using Port = ov::Output<const ov::Node>;

ov::element::Type parse_type(const std::string& name) {
    static const std::map<std::string, ov::element::Type> types = {
        {"bool", ov::element::boolean}, {"f16", ov::element::f16}, {"f32", ov::element::f32},
        {"f64", ov::element::f64},      {"i8", ov::element::i8},   {"i16", ov::element::i16},
        {"i32", ov::element::i32},      {"i64", ov::element::i64}, {"u8", ov::element::u8},
        {"u16", ov::element::u16},      {"u32", ov::element::u32}, {"u64", ov::element::u64},
    };
    const auto found = types.find(name);
    if (found == types.end()) throw std::runtime_error("Undefined precision: '" + name + "' !");
    return found->second;
}

/// "input:f16, output:0:f16" -> type by name; a name may hold colons.
std::map<std::string, ov::element::Type> parse_types(const std::string& text) {
    std::map<std::string, ov::element::Type> types;
    if (text.empty()) return types;
    for (const std::string& pair : split(text, ',')) {
        const size_t colon = pair.rfind(':');
        if (colon == std::string::npos) {
            throw std::runtime_error("-iop: expected name:precision, got '" + strip(pair) + "'");
        }
        types[strip(pair.substr(0, colon))] = parse_type(strip(pair.substr(colon + 1)));
    }
    return types;
}

/// The node that computes an output.
std::string producer(const Port& output) {
    const ov::Node* node = output.get_node();
    return node->get_input_size() > 0
               ? node->get_input_source_output(0).get_node()->get_friendly_name()
               : node->get_friendly_name();
}

void log_port(const Port& port, const std::string& node, const ov::Layout& layout) {
    std::string names;
    for (const std::string& name : port.get_names()) {
        names += (names.empty() ? "" : " , ") + name;
    }
    if (names.empty()) names = "***NO_NAME***";
    log_info("    " + names + " (node: " + (node.empty() ? "***NO_NAME***" : node) +
             ") : " + port.get_element_type().get_type_name() + " / " + layout.to_string() + " / " +
             port.get_partial_shape().to_string());
}

void log_ports(const std::vector<Port>& inputs, const std::vector<Port>& outputs) {
    log_info("Model inputs:");
    for (const Port& input : inputs) {
        const auto* node = dynamic_cast<const ov::op::v0::Parameter*>(input.get_node());
        log_port(input, input.get_node()->get_friendly_name(),
                 node ? node->get_layout() : ov::Layout());
    }
    log_info("Model outputs:");
    for (const Port& output : outputs) {
        const auto* node = dynamic_cast<const ov::op::v0::Result*>(output.get_node());
        log_port(output, producer(output), node ? node->get_layout() : ov::Layout());
    }
}

void warn_of_normalization(const InputsInfo& info) {
    for (const InputInfo& input : info.inputs) {
        if (input.mean.empty() && input.scale.empty()) continue;
        log_warning(
            "Mean/scale values are fused into the model. This slows down performance compared to "
            "--imean and --iscale which existed before");
        return;
    }
}

}  // namespace

std::string model_file(const std::string& path) {
    const fs::path absolute = fs::absolute(path);
    if (!fs::is_directory(absolute)) return absolute;
    const fs::path xml = absolute / "openvino_model.xml";
    if (fs::exists(xml)) return xml;
    if (fs::exists(absolute / "saved_model.pb")) return absolute;
    throw std::runtime_error("The directory '" + path +
                             "' has no model: expected openvino_model.xml or saved_model.pb in it");
}

void name_inputs(ov::Model& model) {
    for (auto& input : model.inputs()) {
        if (input.get_names().empty()) input.set_names({input.get_node()->get_friendly_name()});
    }
}

void reshape(ov::Model& model, const InputsInfo& info) {
    std::map<ov::Output<ov::Node>, ov::PartialShape> shapes;
    std::vector<std::string> texts;
    for (size_t i = 0; i < info.inputs.size(); ++i) {
        const InputInfo& input = info.inputs[i];
        shapes[model.input(i)] = input.shape;
        texts.push_back("'" + input.name + "': " + input.shape.to_string());
    }
    log_info("Reshaping model: " + join(texts, ", "));
    model.reshape(shapes);
}

std::shared_ptr<ov::Model> preprocess(std::shared_ptr<ov::Model> model, InputsInfo& info,
                                      const Options& options) {
    ov::preprocess::PrePostProcessor processor(model);
    std::map<std::string, ov::element::Type> types = parse_types(options.input_output_precision);
    // Takes the type out of the map, so that names without a port remain.
    const auto named_type = [&](const ov::Output<ov::Node>& port,
                                const std::string& node) -> ov::element::Type {
        std::vector<std::string> names(port.get_names().begin(), port.get_names().end());
        names.push_back(node);
        for (const std::string& name : names) {
            const auto found = types.find(name);
            if (found == types.end()) continue;
            const ov::element::Type type = found->second;
            types.erase(found);
            return type;
        }
        return ov::element::dynamic;
    };

    for (size_t i = 0; i < info.inputs.size(); ++i) {
        InputInfo& input = info.inputs[i];
        ov::element::Type type = named_type(model->input(i), input.node_name);
        if (type == ov::element::dynamic && !options.input_precision.empty()) {
            type = parse_type(options.input_precision);
        }
        if (type == ov::element::dynamic && input.is_image()) type = ov::element::u8;
        auto& of_input = processor.input(i);
        if (type != ov::element::dynamic) {
            of_input.tensor().set_element_type(type);
            input.type = type;
        }
        auto& steps = of_input.preprocess();
        if (!input.mean.empty()) steps.convert_element_type(ov::element::f32).mean(input.mean);
        if (!input.scale.empty()) steps.convert_element_type(ov::element::f32).scale(input.scale);
        if (!input.layout.empty()) of_input.model().set_layout(input.layout);
    }
    for (size_t i = 0; i < model->outputs().size(); ++i) {
        ov::element::Type type = named_type(model->output(i), producer(model->output(i)));
        if (type == ov::element::dynamic && !options.output_precision.empty()) {
            type = parse_type(options.output_precision);
        }
        if (type != ov::element::dynamic) processor.output(i).tensor().set_element_type(type);
    }
    if (!types.empty()) {
        throw std::runtime_error("Node '" + types.begin()->first + "' does not exist in model");
    }
    warn_of_normalization(info);
    return processor.build();
}

void log_inputs_and_outputs(const ov::Model& model) {
    log_ports(model.inputs(), model.outputs());
}

void log_inputs_and_outputs(const ov::CompiledModel& model) {
    log_ports(model.inputs(), model.outputs());
}

}  // namespace ovfast::bench
