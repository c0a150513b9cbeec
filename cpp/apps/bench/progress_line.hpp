#pragma once

#include <string>

namespace ovfast::bench {

/// A line on stderr that is written over and over, where stderr is a terminal; nothing elsewhere.
class ProgressLine {
public:
    explicit ProgressLine(bool quiet);
    ~ProgressLine() { clear(); }
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;

    void show(const std::string& text);
    void clear();

private:
    bool on_;
    bool shown_ = false;
};

}  // namespace ovfast::bench
