#pragma once

#include <map>
#include <openvino/core/model.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/parameter.hpp>
#include <vector>

namespace ovfast::ops {

/// A copy of the part of a graph that lies between some values and others, to be run on its own:
/// what a graph does is found out more surely so than by its form.
class Subgraph {
public:
    using Value = ov::Output<ov::Node>;

    /// `value` becomes a parameter of this shape. Shapes that are static make all those static that
    /// follow from them, and spare the nodes that only they were asked of.
    std::shared_ptr<ov::op::v0::Parameter> begin_at(const Value& value,
                                                    const ov::PartialShape& shape);

    /// The same value in the copy; empty when the graph begins elsewhere too. Throws ov::Exception
    /// when a node does not take inputs of these shapes.
    Value copy(const Value& value);

    /// Of the original, in what was copied.
    const std::vector<const ov::op::v0::Constant*>& constants() const { return constants_; }

private:
    std::map<Value, Value> copies_;
    std::vector<const ov::op::v0::Constant*> constants_;
};

}  // namespace ovfast::ops
