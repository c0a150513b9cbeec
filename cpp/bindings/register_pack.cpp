#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <memory>

#include "ovfast/pack.hpp"
#include "progress.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace ovfast::python {

Progress python_progress(const py::object& callback) {
    // Whoever drops the last copy may not hold the GIL.
    const std::shared_ptr<py::object> held(new py::object(callback), [](py::object* object) {
        const py::gil_scoped_acquire gil;
        delete object;
    });
    return [held](double fraction, const std::string& what) {
        const py::gil_scoped_acquire gil;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        if (held->is_none()) return true;
        const py::object go_on = (*held)(fraction, what);
        return go_on.is_none() || go_on.cast<bool>();
    };
}

void register_pack(py::module_& m) {
    py::class_<PackedLayer>(m, "PackedLayer",
                            "A layer with constant weights and what became of it.")
        .def_readonly("name", &PackedLayer::name)
        .def_readonly("operation", &PackedLayer::operation,
                      "'FullyConnected', 'QKV', 'GatedMLP', 'Embedding'; '' for one left alone.")
        .def_readonly("reason", &PackedLayer::reason, "Why it was left alone.")
        .def_readonly("format", &PackedLayer::format, "Of each of its weights.")
        .def_readonly("source_bytes", &PackedLayer::source_bytes, "Of its weights before.")
        .def_readonly("packed_bytes", &PackedLayer::packed_bytes, "And after.")
        .def("__repr__", [](const PackedLayer& layer) {
            return py::str("PackedLayer(name={!r}, operation={!r}, format={!r})")
                .format(layer.name, layer.operation, layer.format);
        });

    py::class_<PackReport>(m, "PackReport", "What packing a model did.")
        .def_readonly("packed", &PackReport::packed, "Whether anything was packed.")
        .def_readonly("directory", &PackReport::directory,
                      "Where the packed model lies; empty when it was not written.")
        .def_readonly("reused", &PackReport::reused, "It lay there already.")
        .def_readonly("source_bytes", &PackReport::source_bytes, "Constants before.")
        .def_readonly("packed_bytes", &PackReport::packed_bytes, "Constants after.")
        .def_readonly("layers", &PackReport::layers)
        .def_readonly("notes", &PackReport::notes, "What a person should know.");

    m.def("is_packed", &is_packed, py::arg("model_dir"),
          "Whether a directory holds a packed model, damaged or not.");
    m.def(
        "pack_model",
        [](const std::filesystem::path& model_dir, const std::filesystem::path& out_dir,
           const py::object& progress) {
            const Progress report = python_progress(progress);
            const py::gil_scoped_release release;
            return pack_model(model_dir, out_dir, report);
        },
        py::arg("model_dir"), py::arg("out_dir"), py::arg("progress") = py::none(),
        "Packs the model of a stock directory into the existing directory out_dir.\n\n"
        "Writes openvino_model.xml, .bin and .packed, and nothing when nothing packs. "
        "progress(fraction, what) cancels by returning False or raising. Raises ModelError, "
        "ValueError (packed already) or Error (cancelled, disk full). Partial files are left to "
        "the caller.");
    m.def(
        "pack_for_loading",
        [](const std::filesystem::path& model_dir, const py::object& progress, bool again) {
            const Progress report = python_progress(progress);
            const py::gil_scoped_release release;
            return pack_for_loading(model_dir, report, again);
        },
        py::arg("model_dir"), py::arg("progress") = py::none(), py::kw_only(),
        py::arg("again") = false,
        "Packs a stock directory where Engine looks for it: beside the model, else in the "
        "cache.\n\n"
        "Does nothing when a packing of this very model is there, unless again. Raises as "
        "pack_model(), and Error when there is no place that can be written to.");
    m.def(
        "inspect_packing",
        [](const std::filesystem::path& model_dir, const py::object& progress) {
            const Progress report = python_progress(progress);
            const py::gil_scoped_release release;
            return inspect_packing(model_dir, report);
        },
        py::arg("model_dir"), py::arg("progress") = py::none(),
        "What a directory's packing did, or, for a stock one, would do, with nothing written.\n\n"
        "Reads and checks all of a packed directory. Raises ModelError when it is damaged.");
    m.def(
        "inspect_packing",
        [](const ModelFiles& files, const py::object& progress) {
            const Progress report = python_progress(progress);
            const py::gil_scoped_release release;
            return inspect_packing(files, report);
        },
        py::arg("files"), py::arg("progress") = py::none(),
        "The same of a directory that was opened, perhaps an encrypted one.");
}

}  // namespace ovfast::python
