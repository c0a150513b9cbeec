#include "apps/bench/progress_line.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

namespace ovfast::bench {

ProgressLine::ProgressLine(bool quiet) : on_(!quiet && isatty(STDERR_FILENO) == 1) {}

void ProgressLine::show(const std::string& text) {
    if (!on_) return;
    winsize size{};
    // A line that wraps could not be written over.
    const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    const size_t width = known ? size.ws_col - 1U : 79U;
    std::fprintf(stderr, "\r%s\x1b[K", text.substr(0, width).c_str());
    std::fflush(stderr);
    shown_ = true;
}

void ProgressLine::clear() {
    if (!shown_) return;
    std::fputs("\r\x1b[K", stderr);
    std::fflush(stderr);
    shown_ = false;
}

}  // namespace ovfast::bench
