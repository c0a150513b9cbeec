#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ovfast/text.hpp"
#include "register.hpp"
#include "text/detokenizer.hpp"
#include "text/stop_strings.hpp"

namespace py = pybind11;

namespace ovfast::python {
namespace {

/// A lone surrogate has no UTF-8: UnicodeEncodeError, which is a ValueError.
std::string utf8_of(const py::str& text) {
    Py_ssize_t size = 0;
    const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (data == nullptr) throw py::error_already_set();
    return {data, static_cast<size_t>(size)};
}

std::string utf8_of(const py::bytes& text) {
    return text;
}

template <typename Text>
std::vector<int64_t> encode(const Tokenizer& tokenizer, const Text& text, bool add_special_tokens) {
    const std::string utf8 = utf8_of(text);
    const py::gil_scoped_release release;
    return tokenizer.encode(utf8, add_special_tokens);
}

void register_tokenizer(py::module_& m) {
    py::class_<Tokenizer, std::shared_ptr<Tokenizer>>(
        m, "Tokenizer",
        "Text to token ids and back, through the openvino_tokenizer.xml and "
        "openvino_detokenizer.xml of a model directory. Thread-safe.",
        // It may still be compiling: other Python threads must go on meanwhile.
        py::release_gil_before_calling_cpp_dtor())
        .def(py::init<const std::filesystem::path&, const std::filesystem::path&>(),
             py::arg("model_dir"), py::arg("extension"), py::call_guard<py::gil_scoped_release>(),
             "Args:\n"
             "    model_dir: directory with openvino_tokenizer.{xml,bin} and "
             "openvino_detokenizer.{xml,bin}.\n"
             "    extension: path of the openvino_tokenizers library.\n\n"
             "The tokenizer is compiled in the background; encode() waits for it.\n\n"
             "Raises:\n"
             "    ModelError: a file is missing or the detokenizer cannot be used.\n"
             "    ValueError: there is no file `extension`.")
        .def(py::init<const ModelFiles&, const std::filesystem::path&>(), py::arg("files"),
             py::arg("extension"), py::call_guard<py::gil_scoped_release>(),
             "The same of a directory that was opened, perhaps an encrypted one.")
        .def("encode", &encode<py::str>, py::arg("text"), py::arg("add_special_tokens") = true,
             "Token ids of `text`, neither truncated nor padded.\n\n"
             "Args:\n"
             "    text: a str without lone surrogates.\n"
             "    add_special_tokens: add what the model wants around a plain prompt (BOS).\n\n"
             "Raises:\n"
             "    ModelError: the tokenizer cannot be loaded.\n"
             "    ValueError: `text` has no UTF-8 form.")
        .def("encode", &encode<py::bytes>, py::arg("text"), py::arg("add_special_tokens") = true,
             "The same of UTF-8 bytes; ValueError names the first byte that is none.")
        .def("decode", &Tokenizer::decode, py::arg("token_ids"),
             py::arg("skip_special_tokens") = true, py::call_guard<py::gil_scoped_release>(),
             "Text of `token_ids`. Bytes that form no character become U+FFFD.\n\n"
             "Raises:\n"
             "    ValueError: an id is outside the vocabulary.")
        .def_property_readonly("eos_token_id", &Tokenizer::eos_token_id,
                               "The end-of-sequence token that the tokenizer names, or None.")
        .def_property_readonly("vocab_size", &Tokenizer::vocab_size,
                               "How many ids decode() knows; logits may be padded to more.");
}

// The classes below keep the GIL: a call takes less time than giving it up and getting it back.

void register_incremental_detokenizer(py::module_& m) {
    py::class_<IncrementalDetokenizer>(
        m, "IncrementalDetokenizer",
        "Token ids in, pieces of text out, special tokens skipped. A piece never ends inside a "
        "character; the pieces and finish() concatenate to Tokenizer.decode() of all ids. For one "
        "thread.")
        .def(py::init<const Tokenizer&>(), py::arg("tokenizer"))
        .def("push", py::overload_cast<int64_t>(&IncrementalDetokenizer::push), py::arg("token_id"),
             "Text that became certain with this token; may be empty.\n\n"
             "Raises:\n"
             "    ValueError: the id is outside the vocabulary.")
        .def("finish", py::overload_cast<>(&IncrementalDetokenizer::finish),
             "What is still held back; U+FFFD for bytes that never became a character. After it, "
             "another text may begin.");
}

void register_stop_strings(py::module_& m) {
    py::class_<StopStrings>(m, "StopStrings",
                            "Finds stop strings in text that arrives in pieces, and holds back "
                            "whatever could still become one. For one thread.")
        .def(py::init<std::vector<std::string>, bool>(), py::arg("stop_strings"),
             py::arg("include") = false,
             "Args:\n"
             "    stop_strings: the strings; none of them empty.\n"
             "    include: whether the text that is returned includes the one that was found.")
        .def("push", &StopStrings::push, py::arg("piece"),
             "Takes the next piece and returns the text that may be shown. After a match, nothing.")
        .def("finish", &StopStrings::finish,
             "The end of the text: what was held back and is no stop string after all.")
        .def_property_readonly("matched", &StopStrings::matched, "Whether a stop string was found.")
        .def_property_readonly("match", &StopStrings::match,
                               "The stop string that was found; empty if none.");
}

}  // namespace

void register_text(py::module_& m) {
    register_tokenizer(m);
    register_incremental_detokenizer(m);
    register_stop_strings(m);
}

}  // namespace ovfast::python
