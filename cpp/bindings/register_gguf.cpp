#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include "ovfast/error.hpp"
#include "ovfast/gguf.hpp"
#include "progress.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace ovfast::python {
namespace {

/// Text of a file need not be UTF-8; what is not makes the file a bad model, not a Unicode error.
py::str to_python(const std::string& text, const std::string& key) {
    PyObject* decoded =
        PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), nullptr);
    if (!decoded) {
        PyErr_Clear();
        throw ModelError("metadata '" + key + "' is not valid UTF-8");
    }
    return py::reinterpret_steal<py::str>(decoded);
}

py::object to_python(const GgufValue& value, const std::string& key) {
    return std::visit(
        [&](const auto& item) -> py::object {
            using Item = std::decay_t<decltype(item)>;
            if constexpr (std::is_same_v<Item, std::string>) {
                return to_python(item, key);
            } else if constexpr (std::is_same_v<Item, std::vector<std::string>>) {
                py::list list(item.size());
                for (size_t i = 0; i < item.size(); ++i) list[i] = to_python(item[i], key);
                return list;
            } else {
                return py::cast(item);
            }
        },
        value);
}

py::dict metadata(const GgufHeader& header) {
    py::dict dict;
    for (const auto& [key, value] : header.metadata) {
        dict[to_python(key, "key")] = to_python(value, key);
    }
    return dict;
}

}  // namespace

void register_gguf(py::module_& m) {
    py::class_<GgufTensor>(m, "GgufTensor", "A tensor as a GGUF file's header describes it.")
        .def_readonly("name", &GgufTensor::name)
        .def_readonly("type", &GgufTensor::type, "GGML's name of the type: 'Q4_K', 'F16', ...")
        .def_readonly("shape", &GgufTensor::shape, "GGML order: fastest dimension first.")
        .def_readonly("offset", &GgufTensor::offset, "From the beginning of the file, bytes.")
        .def_readonly("size", &GgufTensor::size, "Bytes.")
        .def("__repr__", [](const GgufTensor& tensor) {
            return py::str("GgufTensor(name={!r}, type={!r}, shape={!r})")
                .format(tensor.name, tensor.type, tensor.shape);
        });

    py::class_<GgufHeader>(m, "GgufHeader", "The header of a GGUF file.")
        .def_readonly("version", &GgufHeader::version)
        .def_readonly("architecture", &GgufHeader::architecture)
        .def_readonly("file_size", &GgufHeader::file_size, "Bytes.")
        .def_readonly("context_length", &GgufHeader::context_length,
                      "Tokens; 0 when the file does not say.")
        .def_readonly("tensors", &GgufHeader::tensors)
        .def_property_readonly(
            "metadata", &metadata,
            "A new dict of the file's metadata. Raises ModelError when a text in "
            "it is not UTF-8.")
        .def("bytes_by_type", &GgufHeader::bytes_by_type, "Tensor type -> bytes stored in it.");

    m.def("read_gguf_header", &read_gguf_header, py::arg("path"), py::kw_only(),
          py::arg("with_arrays") = false, py::call_guard<py::gil_scoped_release>(),
          "Reads and checks a GGUF file's header without touching the weights.\n\n"
          "with_arrays keeps array metadata (the vocabulary) too. Raises ModelError that says what "
          "is wrong with the file and where.");

    m.def(
        "import_gguf",
        [](const std::filesystem::path& path, const std::filesystem::path& out_dir,
           const py::object& progress, bool packed) {
            const Progress report = python_progress(progress);
            const py::gil_scoped_release release;
            return import_gguf(path, out_dir, report, packed);
        },
        py::arg("path"), py::arg("out_dir"), py::arg("progress") = py::none(), py::kw_only(),
        py::arg("packed") = true,
        "Converts a GGUF file to openvino_model.xml and .bin in the existing directory out_dir.\n\n"
        "packed: on packed weights, where they can be packed; without, other programs can run it. "
        "progress(fraction, what) is called now and then with a fraction in [0, 1]; it cancels by "
        "returning False or raising. Raises ModelError (bad file, unsupported architecture or "
        "type) or Error (cancelled, disk full). Partial files are left to the caller.");
}

}  // namespace ovfast::python
