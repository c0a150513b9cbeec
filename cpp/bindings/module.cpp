#include <pybind11/pybind11.h>

#include <cstring>
#include <exception>
#include <string>

#include "ovfast/error.hpp"
#include "ovfast/version.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace {

// The types live as long as the interpreter: translators outlive the module object.
py::handle error_type;
py::handle model_error_type;
py::handle capacity_error_type;
py::handle decryption_error_type;

// Messages quote paths and names out of files, which need not be UTF-8.
void raise_error(py::handle type, const char* message) {
    const auto text = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(
        message, static_cast<Py_ssize_t>(std::strlen(message)), "backslashreplace"));
    PyErr_SetObject(type.ptr(), text.ptr());
}

void register_errors(py::module_& m) {
    const auto add = [&](const char* name, py::handle base, const char* doc) {
        const std::string full = std::string(py::str(m.attr("__name__"))) + "." + name;
        const py::handle type = PyErr_NewExceptionWithDoc(full.c_str(), doc, base.ptr(), nullptr);
        if (!type) throw py::error_already_set();
        m.attr(name) = type;
        return type;
    };
    error_type = add("Error", PyExc_RuntimeError, "Base of ovfast's own errors.");
    model_error_type = add("ModelError", error_type,
                           "A file or directory that cannot be used as a model: missing, "
                           "truncated, corrupted, unsupported.");
    capacity_error_type = add("CapacityError", error_type,
                              "A request that can never fit: longer than the model's context or "
                              "than the KV cache.");
    decryption_error_type = add("DecryptionError", model_error_type,
                                "An encrypted model that cannot be opened: a wrong or missing key, "
                                "damage, files of another model. Names the file, never what is in "
                                "it.");
    py::register_exception_translator([](std::exception_ptr thrown) {
        try {
            if (thrown) std::rethrow_exception(thrown);
        } catch (const ovfast::DecryptionError& e) {
            raise_error(decryption_error_type, e.what());
        } catch (const ovfast::ModelError& e) {
            raise_error(model_error_type, e.what());
        } catch (const ovfast::CapacityError& e) {
            raise_error(capacity_error_type, e.what());
        } catch (const ovfast::Error& e) {
            raise_error(error_type, e.what());
        }
    });
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() =
        "The C++ core of ovfast.\n\n"
        "Wrong arguments raise ValueError or TypeError; files, models and machines that do not do "
        "raise ovfast.Error or one of its kinds. Calls that compute release the GIL.\n\n"
        "Import it as `from ovfast import _core`: the package then checks that the installed "
        "OpenVINO is the one that this module was built against.";

    register_errors(m);

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
    ovfast::python::register_ops(m);
    ovfast::python::register_files(m);
    ovfast::python::register_crypto(m);
    ovfast::python::register_pack(m);
    ovfast::python::register_gguf(m);
    ovfast::python::register_sampling(m);
    ovfast::python::register_text(m);
    ovfast::python::register_engine(m);
}
