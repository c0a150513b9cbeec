#pragma once

#include <memory>
#include <openvino/core/model.hpp>
#include <string>

#include "apps/bench/counters.hpp"
#include "apps/bench/infer_loop.hpp"
#include "apps/bench/input_info.hpp"
#include "apps/bench/machine.hpp"

namespace ovfast::bench {

/// -roofline: the limits of the machine, measured before and after the inferences.
class AppRoofline {
public:
    /// Measures for the first time. The model tells what there is to compute.
    explicit AppRoofline(std::shared_ptr<const ov::Model> model);
    /// Measures again and prints what was reached. `layers` have counters with -pc, else none;
    /// each of `streams` has its part of the machine.
    void print(const InputsInfo& info, const Measured& measured, const Counters& layers,
               int streams);

private:
    std::shared_ptr<const ov::Model> model_;
    MachineProbe probe_;
    BusyMeter busy_;
};

}  // namespace ovfast::bench
