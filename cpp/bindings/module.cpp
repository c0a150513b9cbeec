#include <pybind11/pybind11.h>

#include <string>

#include "ovfast/error.hpp"
#include "ovfast/version.hpp"
#include "register.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, m) {
    m.doc() =
        "The C++ core of ovfast.\n\n"
        "Wrong arguments raise ValueError or TypeError; files, models and machines that do not do "
        "raise ovfast.Error or one of its kinds. Calls that compute release the GIL.\n\n"
        "Import it as `from ovfast import _core`: the package then checks that the installed "
        "OpenVINO is the one that this module was built against.";

    // pybind11 asks the translator that was registered last first, so the base comes before its
    // kinds.
    auto error = py::register_exception<ovfast::Error>(m, "Error", PyExc_RuntimeError);
    error.doc() = "Base of ovfast's own errors.";
    auto model_error = py::register_exception<ovfast::ModelError>(m, "ModelError", error);
    model_error.doc() =
        "A file or directory that cannot be used as a model: missing, truncated, corrupted, "
        "unsupported.";
    auto capacity_error = py::register_exception<ovfast::CapacityError>(m, "CapacityError", error);
    capacity_error.doc() =
        "A request that can never fit: longer than the model's context or than the KV cache.";

    // Two builds of one OpenVINO release share a soname, two releases do not: what got loaded under
    // our soname is wrong only when somebody put another library in its place.
    const std::string built = ovfast::openvino_built_version();
    const std::string loaded = ovfast::openvino_loaded_version();
    if (loaded.compare(0, built.size(), built) != 0) {
        throw py::import_error("ovfast was built against OpenVINO " + built + ", but OpenVINO " +
                               loaded +
                               " is loaded in this process. Repair it with: pip install "
                               "--force-reinstall openvino==" +
                               built);
    }

    ovfast::python::register_host(m);
    ovfast::python::register_gguf(m);
    ovfast::python::register_sampling(m);
    ovfast::python::register_text(m);
    ovfast::python::register_engine(m);
}
