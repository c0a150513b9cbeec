#pragma once

#include <functional>
#include <string>

namespace ovfast {

/// Progress of a long step: a fraction in [0, 1] and what is being done. Returns false to cancel.
using Progress = std::function<bool(double fraction, const std::string& what)>;

}  // namespace ovfast
