#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include "ovfast/model_files.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace ovfast::python {
namespace {

/// Contiguous bytes that may be written to, for as long as this lives.
class WritableBytes {
public:
    explicit WritableBytes(const py::object& object) {
        if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) != 0) {
            throw py::error_already_set();
        }
    }
    ~WritableBytes() { PyBuffer_Release(&view_); }
    WritableBytes(const WritableBytes&) = delete;
    WritableBytes& operator=(const WritableBytes&) = delete;

    void* data() const { return view_.buf; }
    size_t size() const { return static_cast<size_t>(view_.len); }

private:
    Py_buffer view_{};
};

}  // namespace

void register_files(py::module_& m) {
    py::class_<FileBytes>(m, "FileBytes", py::buffer_protocol(),
                          "The bytes of a file, to be looked at through memoryview(). Those of an "
                          "encrypted file are wiped when nothing refers to them.")
        .def("__len__", [](const FileBytes& bytes) { return bytes.size; })
        .def("__repr__",
             [](const FileBytes& bytes) {
                 return "FileBytes(" + std::to_string(bytes.size) + " bytes)";
             })
        .def_buffer([](const FileBytes& bytes) {
            // A buffer needs an address, even one of no bytes.
            static uint8_t none = 0;
            auto* data = bytes.size == 0
                             ? &none
                             : reinterpret_cast<uint8_t*>(const_cast<std::byte*>(bytes.data));
            return py::buffer_info(data, sizeof(uint8_t), py::format_descriptor<uint8_t>::format(),
                                   1, {static_cast<py::ssize_t>(bytes.size)}, {1}, true);
        });

    py::class_<ModelFiles, std::shared_ptr<ModelFiles>>(
        m, "ModelFiles",
        "The files of a model directory: a plain folder, or an encrypted one, whose files are "
        "decrypted to memory. Thread-safe.")
        .def_static("folder", &ModelFiles::folder, py::arg("model_dir"),
                    "A plain folder. Raises DecryptionError when it is encrypted.")
        .def_property_readonly("path", &ModelFiles::path, "The directory on disk.")
        .def_property_readonly("encrypted", &ModelFiles::encrypted)
        .def("__contains__", &ModelFiles::has, py::arg("name"))
        .def("names", &ModelFiles::names, "Names of the files, sorted.")
        .def("size", &ModelFiles::size, py::arg("name"),
             "Bytes of plaintext. Raises ModelError when there is no such file.")
        .def("read", py::overload_cast<const std::string&>(&ModelFiles::read, py::const_),
             py::arg("name"), py::call_guard<py::gil_scoped_release>(),
             "The whole file. Raises ModelError or DecryptionError.")
        .def(
            "read_into",
            [](const ModelFiles& files, const std::string& name, uint64_t offset,
               const py::object& out) {
                const WritableBytes bytes(out);
                const py::gil_scoped_release release;
                files.read(name, offset, bytes.size(), bytes.data());
            },
            py::arg("name"), py::arg("offset"), py::arg("out"),
            "Fills a writable buffer with what lies at `offset`, bytes of plaintext. Raises "
            "ModelError, DecryptionError, or ValueError when it goes beyond the end.")
        .def("prefetch", &ModelFiles::prefetch, py::arg("name"),
             "Begins to decrypt a file in the background, for the next read() of it.")
        .def("close", &ModelFiles::close, py::call_guard<py::gil_scoped_release>(),
             "Forgets the keys of an encrypted directory. What was read stays.")
        .def("__repr__", [](const ModelFiles& files) {
            return py::str("ModelFiles({!r}{})")
                .format(files.path().string(), files.encrypted() ? ", encrypted" : "");
        });
}

}  // namespace ovfast::python
