#include "apps/bench/svg_plot.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>

#include "apps/bench/html.hpp"
#include "apps/bench/text_table.hpp"

namespace ovfast::bench {
namespace {

constexpr double kWidth = 640.0, kHeight = 300.0;
constexpr double kLeft = 62.0, kRight = 18.0, kTop = 14.0, kBottom = 46.0;
constexpr size_t kMostSteps = 400;

struct Axis {
    double low = 0.0, high = 1.0;
    double from = 0.0, to = 1.0;  // in the drawing
    bool log = false;
    std::vector<double> ticks;

    double at(double value) const {
        const auto scaled = [this](double v) { return log ? std::log10(v) : v; };
        return from + (to - from) * (scaled(value) - scaled(low)) / (scaled(high) - scaled(low));
    }
};

std::string number(double value) {
    std::ostringstream text;
    text.precision(6);
    text << value;
    return text.str();
}

std::string place(double value) {
    std::ostringstream text;
    text.precision(1);
    text << std::fixed << value;
    return text.str();
}

template <typename Get>
std::pair<double, double> range(const Plot& plot, const Get& get) {
    double low = INFINITY;
    double high = -INFINITY;
    for (const PlotSeries& series : plot.series) {
        for (const PlotPoint& point : series.points) {
            const auto [a, b] = get(point);
            low = std::min(low, a);
            high = std::max(high, b);
        }
    }
    if (!std::isfinite(low)) throw std::invalid_argument("a plot without points");
    return {low, high};
}

Axis x_axis(const Plot& plot) {
    const auto [low, high] = range(plot, [](const PlotPoint& p) { return std::pair(p.x, p.x); });
    Axis axis;
    axis.from = kLeft;
    axis.to = kWidth - kRight;
    axis.log = plot.log_x;
    axis.ticks = plot.x_ticks;
    if (plot.log_x) {
        axis.low = plot.x_ticks.empty() ? low / 1.05 : low / 1.25;
        axis.high = plot.x_ticks.empty() ? high * 1.05 : high * 1.25;
        if (axis.ticks.empty()) axis.ticks = log_ticks(axis.low, axis.high);
    } else if (plot.x_ticks.empty()) {
        const double margin = std::max((high - low) * 0.03, std::fabs(high) * 0.001);
        axis.low = std::max(low - margin, std::min(low, 0.0));
        axis.high = high > low ? high + margin : high + std::max(std::fabs(high) * 0.1, 1e-9);
        axis.ticks = round_ticks(axis.low, axis.high, 7);
    } else {
        const double margin = std::max((high - low) * 0.06, 0.5);
        axis.low = low - margin;
        axis.high = high + margin;
    }
    return axis;
}

Axis y_axis(const Plot& plot) {
    Axis axis;
    axis.from = kHeight - kBottom;
    axis.to = kTop;
    if (plot.percent) {
        axis.ticks = {0.0, 0.25, 0.5, 0.75, 1.0};
        axis.high = 1.0;
        return axis;
    }
    // Rates and times: from 0 on.
    const double high = range(plot, [](const PlotPoint& p) {
                            return std::pair(0.0, std::max(p.y, p.high));
                        }).second;
    axis.ticks = round_ticks(0.0, high > 0.0 ? high * 1.02 : 1.0, 5);
    axis.high = axis.ticks.back();
    return axis;
}

void draw_axes(std::ostringstream& svg, const Plot& plot, const Axis& x, const Axis& y) {
    for (const double tick : y.ticks) {
        const std::string at = place(y.at(tick));
        svg << "<line class=\"grid\" x1=\"" << place(x.from) << "\" x2=\"" << place(x.to)
            << "\" y1=\"" << at << "\" y2=\"" << at << "\"/><text class=\"tick\" x=\""
            << place(x.from - 8) << "\" y=\"" << at << "\" dy=\"0.32em\" text-anchor=\"end\">"
            << (plot.percent ? number(tick * 100.0) + " %" : number(tick)) << "</text>";
    }
    for (const double tick : x.ticks) {
        if (tick < x.low || tick > x.high) continue;
        svg << "<line class=\"grid\" x1=\"" << place(x.at(tick)) << "\" x2=\"" << place(x.at(tick))
            << "\" y1=\"" << place(y.from) << "\" y2=\"" << place(y.from + 4)
            << "\"/><text class=\"tick\" x=\"" << place(x.at(tick)) << "\" y=\""
            << place(y.from + 18) << "\" text-anchor=\"middle\">" << number(tick) << "</text>";
    }
    svg << "<line class=\"axis\" x1=\"" << place(x.from) << "\" x2=\"" << place(x.to) << "\" y1=\""
        << place(y.from) << "\" y2=\"" << place(y.from) << "\"/><text class=\"label\" x=\""
        << place((x.from + x.to) / 2.0) << "\" y=\"" << place(kHeight - 8)
        << "\" text-anchor=\"middle\">" << escape_html(plot.x_label)
        << "</text><text class=\"label\" transform=\"translate(14 " << place((y.from + y.to) / 2.0)
        << ") rotate(-90)\" text-anchor=\"middle\">" << escape_html(plot.y_label) << "</text>";
}

void draw_line(std::ostringstream& svg, const Plot& plot, const PlotSeries& series,
               const std::string& color, const Axis& x, const Axis& y) {
    std::ostringstream path;
    for (size_t i = 0; i < series.points.size(); ++i) {
        const std::string at_x = place(x.at(series.points[i].x));
        const std::string at_y = place(y.at(series.points[i].y));
        if (i == 0) {
            path << 'M' << at_x << ' ' << at_y;
        } else if (plot.steps) {
            path << 'H' << at_x << 'V' << at_y;
        } else {
            path << 'L' << at_x << ' ' << at_y;
        }
    }
    if (plot.steps && !series.points.empty()) path << 'H' << place(x.to);  // all of it is below
    svg << "<path class=\"line " << color << "\" d=\"" << path.str() << "\"><title>"
        << escape_html(series.name) << "</title></path>";
    if (plot.steps) return;
    for (const PlotPoint& point : series.points) {
        const std::string at = place(x.at(point.x));
        if (point.high > point.low) {
            svg << "<line class=\"whisker " << color << "\" x1=\"" << at << "\" x2=\"" << at
                << "\" y1=\"" << place(y.at(point.low)) << "\" y2=\"" << place(y.at(point.high))
                << "\"/>";
        }
        svg << "<circle class=\"dot " << color << "\" cx=\"" << at << "\" cy=\""
            << place(y.at(point.y)) << "\" r=\"4\"><title>"
            << escape_html(point.label.empty() ? series.name : point.label) << "</title></circle>";
    }
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
    const double rough = std::max((high - low) / std::max(count, 1), 1e-12);
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    double step = 10.0 * power;
    for (const double factor : {5.0, 2.0, 1.0}) {
        if (factor * power >= rough * 0.999) step = factor * power;
    }
    std::vector<double> ticks;
    const auto first = static_cast<int64_t>(std::floor(low / step + 1e-9));
    const auto last = static_cast<int64_t>(std::ceil(high / step - 1e-9));
    for (int64_t i = first; i <= last; ++i) ticks.push_back(static_cast<double>(i) * step);
    return ticks;
}

std::vector<double> log_ticks(double low, double high) {
    std::vector<double> ticks;
    if (high / low < 4.0) {  // hardly a power of ten: as on a linear axis
        for (const double tick : round_ticks(low, high, 5)) {
            if (tick >= low && tick <= high) ticks.push_back(tick);
        }
        return ticks;
    }
    const bool wide = high / low > 2000.0;
    for (double power = std::pow(10.0, std::floor(std::log10(low))); power <= high; power *= 10.0) {
        for (const double factor : {1.0, 2.0, 5.0}) {
            const double tick = factor * power;
            if (tick >= low && tick <= high && (factor == 1.0 || !wide)) ticks.push_back(tick);
        }
    }
    return ticks;
}

PlotSeries distribution(const std::string& name, const std::vector<double>& values) {
    PlotSeries series{name, {}};
    if (values.empty()) return series;
    const size_t count = values.size();
    series.points.push_back({values.front(), 0.0, 0.0, 0.0, ""});
    const size_t steps = std::min(count, kMostSteps);
    for (size_t i = 1; i <= steps; ++i) {
        const size_t rank = count * i / steps;  // of the sorted values, from 1
        series.points.push_back({values[rank - 1],
                                 static_cast<double>(rank) / static_cast<double>(count), 0.0, 0.0,
                                 ""});
    }
    return series;
}

std::string draw(const Plot& plot) {
    if (plot.series.size() > kPlotColors) {
        throw std::invalid_argument("a plot of " + std::to_string(plot.series.size()) +
                                    " series, expected at most " + std::to_string(kPlotColors));
    }
    const Axis x = x_axis(plot);
    const Axis y = y_axis(plot);
    std::ostringstream svg;
    svg << "<svg viewBox=\"0 0 " << kWidth << ' ' << kHeight << "\" role=\"img\" aria-label=\""
        << escape_html(plot.title) << "\">";
    draw_axes(svg, plot, x, y);
    for (size_t i = 0; i < plot.series.size(); ++i) {
        draw_line(svg, plot, plot.series[i], "s" + std::to_string(i), x, y);
    }
    svg << "</svg>";
    return svg.str();
}

}  // namespace ovfast::bench
