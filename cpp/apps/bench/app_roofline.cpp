#include "apps/bench/app_roofline.hpp"

#include <algorithm>
#include <map>
#include <sstream>

#include "apps/bench/console.hpp"
#include "apps/bench/roofline.hpp"
#include "ovfast/host.hpp"

namespace ovfast::bench {
namespace {

constexpr int kProbes = 3;  // before, and again after

// In the shapes of the data, when there is one group of them.
std::shared_ptr<const ov::Model> in_shapes(const std::shared_ptr<const ov::Model>& model,
                                           const InputsInfo& info) {
    if (info.is_static() || info.groups() != 1) return model;
    std::map<std::string, ov::PartialShape> shapes;
    for (const InputInfo& input : info.inputs) shapes[input.name] = input.shapes().front();
    const std::shared_ptr<ov::Model> copy = model->clone();
    copy->reshape(shapes);
    return copy;
}

}  // namespace

AppRoofline::AppRoofline(std::shared_ptr<const ov::Model> model)
    : model_(std::move(model)), probe_(read_host_limits().threads) {
    for (int i = 0; i < kProbes; ++i) probe_.measure();
}

void AppRoofline::print(const InputsInfo& info, const Measured& measured, const Counters& layers,
                        int streams) {
    const std::optional<Activity> activity = busy_.activity();
    for (int i = 0; i < kProbes; ++i) probe_.measure();
    if (measured.iterations == 0) return;
    const double seconds = measured.duration_ms / 1e3 / static_cast<double>(measured.iterations);
    const std::string text = inference_roofline(in_shapes(model_, info), seconds, layers,
                                                probe_.limits(), std::max(streams, 1));
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) log_info(line);
    for (const std::string& warning : noise_warnings(activity, probe_.limits())) {
        log_warning(warning);
    }
}

}  // namespace ovfast::bench
