#pragma once

#include <string>
#include <vector>

namespace ovfast::bench {

/// A point, with the extent of what it stands for.
struct PlotPoint {
    double x = 0.0, y = 0.0;
    double low = 0.0, high = 0.0;  ///< equal: none is drawn
    std::string label;             ///< shown when the pointer rests on it
};

struct PlotSeries {
    std::string name;
    std::vector<PlotPoint> points;
};

struct Plot {
    std::string title, x_label, y_label;
    std::vector<PlotSeries> series;  ///< at most kPlotColors
    bool log_x = false;              ///< all x are positive
    bool steps = false;              ///< a staircase without markers: a distribution
    bool percent = false;            ///< y is a share of 1
    std::vector<double> x_ticks;     ///< empty: round numbers
};

inline constexpr size_t kPlotColors = 6;

/// Round numbers from below `low` to above `high`, about `count` of them: 1, 2 or 5 times a power
/// of ten apart.
std::vector<double> round_ticks(double low, double high, int count);
/// Those of a logarithmic axis: 1, 2 and 5 times powers of ten, or powers alone over a wide range.
std::vector<double> log_ticks(double low, double high);

/// The share of values that are at most x, as a staircase of at most 400 steps. `values` ascend.
PlotSeries distribution(const std::string& name, const std::vector<double>& values);

/// An <svg> element without colours of its own: classes s0 to s5, grid, axis and label come from
/// the page.
std::string draw(const Plot& plot);

}  // namespace ovfast::bench
