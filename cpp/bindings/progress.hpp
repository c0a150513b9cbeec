#pragma once

#include <pybind11/pybind11.h>

#include "ovfast/progress.hpp"

namespace ovfast::python {

/// Calls a Python function from the thread that works; None and True go on, False cancels. An
/// exception (Ctrl+C among them) passes through the work and surfaces in the caller.
Progress python_progress(const pybind11::object& callback);

}  // namespace ovfast::python
