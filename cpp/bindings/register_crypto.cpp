#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <memory>
#include <optional>

#include "crypto/secret.hpp"
#include "ovfast/crypto.hpp"
#include "progress.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace ovfast::python {
namespace {

using namespace ovfast::crypto;

void register_key(py::module_& m) {
    py::class_<Key>(m, "Key",
                    "What opens an encrypted model: 32 random bytes, or a passphrase. It lies in "
                    "locked memory that is overwritten when the last reference goes, and shows "
                    "where it came from, never what it is.")
        .def_static("generate", &Key::generate, "A new random key.")
        .def_static(
            "from_bytes",
            [](const py::bytes& bytes) {
                const std::string_view view = bytes;
                return Key::from_bytes(view.data(), view.size());
            },
            py::arg("data"), "Of exactly 32 bytes. Raises ValueError.")
        .def_static("from_file", &Key::from_file, py::arg("file"),
                    "Of 64 hexadecimal digits, or 32 raw bytes, in a file. Raises ovfast.Error "
                    "when it cannot be read, ValueError when it holds something else.")
        .def_static("from_env", &Key::from_env, py::arg("name"),
                    "Of 64 hexadecimal digits in an environment variable. Raises ValueError.")
        .def_static("from_stdin", &Key::from_stdin, py::call_guard<py::gil_scoped_release>(),
                    "As from_file(), from standard input to its end.")
        .def_static(
            "from_passphrase",
            [](const py::str& passphrase) {
                Py_ssize_t size = 0;
                const char* data = PyUnicode_AsUTF8AndSize(passphrase.ptr(), &size);
                if (data == nullptr) throw py::error_already_set();
                return Key::from_passphrase(data, static_cast<size_t>(size));
            },
            py::arg("passphrase"), "Of any text that is not empty. Raises ValueError.")
        .def_static("ask_passphrase", &Key::ask_passphrase, py::arg("prompt"), py::arg("twice"),
                    py::call_guard<py::gil_scoped_release>(),
                    "Asks on the terminal, without echo; without a terminal it reads a line of "
                    "standard input. Raises ovfast.Error when there is no answer.")
        .def("write", &Key::write, py::arg("file"),
             "Writes 64 hexadecimal digits to a new file that only its owner can read. Raises "
             "ovfast.Error when it exists, ValueError for a passphrase.")
        .def("send", &Key::send, py::arg("descriptor"),
             "Hands the key to another process through a pipe. Raises ovfast.Error.")
        .def_static("receive", &Key::receive, py::arg("descriptor"),
                    py::call_guard<py::gil_scoped_release>(),
                    "Takes what send() wrote, to the end of the pipe. Raises ovfast.Error.")
        .def_property_readonly("is_passphrase", &Key::is_passphrase)
        .def_property_readonly("origin", &Key::origin, "Where it came from.")
        .def("__reduce__",
             [](const Key&) -> py::object { throw py::type_error("a Key cannot be pickled"); })
        .def("__repr__", [](const Key& key) { return "Key(" + key.origin() + ")"; });
    m.def("key_file_warning", &key_file_warning, py::arg("file"),
          "Who may read a key file besides its owner; empty when nobody may.");
}

void register_directories(py::module_& m) {
    py::class_<FileEntry>(m, "EncryptedFile", "A file of an encrypted directory.")
        .def_readonly("name", &FileEntry::name, "Within the directory.")
        .def_property_readonly(
            "role", [](const FileEntry& entry) { return to_string(entry.role); },
            "\"topology\", \"weights\", \"tokenizer\", \"config\", \"template\", \"adapter\", "
            "\"kernel\" or \"other\".")
        .def_readonly("bytes", &FileEntry::bytes, "Of plaintext.")
        .def_readonly("chunks", &FileEntry::chunks);
    py::class_<Contents>(m, "EncryptedContents", "What an encrypted directory holds.")
        .def_readonly("files", &Contents::files)
        .def_readonly("bytes", &Contents::bytes, "Of plaintext, all files.")
        .def_readonly("chunk_bytes", &Contents::chunk_bytes)
        .def_readonly("passphrase", &Contents::passphrase, "Opened by a passphrase, not by a key.")
        .def_readonly("notes", &Contents::notes, "What a person should know.");

    m.def("is_encrypted", &is_encrypted, py::arg("model_dir"),
          "Whether a directory holds an encrypted model, damaged or not.");
    m.def(
        "encrypt_directory",
        [](const std::filesystem::path& model_dir, const std::filesystem::path& out_dir,
           const Key& key, uint32_t chunk_bytes, bool replace, const py::object& progress) {
            EncryptOptions options{chunk_bytes, replace, python_progress(progress)};
            const py::gil_scoped_release release;
            return encrypt_directory(model_dir, out_dir, key, options);
        },
        py::arg("model_dir"), py::arg("out_dir"), py::arg("key"), py::kw_only(),
        py::arg("chunk_bytes") = 1 << 20, py::arg("replace") = false,
        py::arg("progress") = py::none(),
        "Encrypts every file of a directory into a new one, which appears whole or not at all. "
        "Raises ModelError, ValueError or Error.");
    m.def(
        "decrypt_directory",
        [](const std::filesystem::path& model_dir, const std::filesystem::path& out_dir,
           const Key& key, bool replace, const py::object& progress) {
            const Progress report = python_progress(progress);
            const py::gil_scoped_release release;
            return decrypt_directory(model_dir, out_dir, key, replace, report);
        },
        py::arg("model_dir"), py::arg("out_dir"), py::arg("key"), py::kw_only(),
        py::arg("replace") = false, py::arg("progress") = py::none(),
        "The opposite. Raises DecryptionError, ModelError, ValueError or Error.");
    m.def(
        "verify_directory",
        [](const std::filesystem::path& model_dir, const Key& key, const py::object& progress) {
            const Progress report = python_progress(progress);
            const py::gil_scoped_release release;
            return verify_directory(model_dir, key, report);
        },
        py::arg("model_dir"), py::arg("key"), py::arg("progress") = py::none(),
        "Decrypts everything and keeps nothing. Raises DecryptionError.");
    m.def("list_directory", &list_directory, py::arg("model_dir"), py::arg("key"),
          py::call_guard<py::gil_scoped_release>(),
          "What there is, from the authenticated manifest alone. Raises DecryptionError.");
    m.def("rekey", &rekey, py::arg("model_dir"), py::arg("old_key"), py::arg("new_key"),
          py::call_guard<py::gil_scoped_release>(),
          "Wraps the model's data key anew; files with data stay as they are.");
    m.def("open_directory", &open_directory, py::arg("model_dir"), py::arg("key"),
          py::call_guard<py::gil_scoped_release>(),
          "The files of an encrypted directory, decrypted when they are asked for. Raises "
          "DecryptionError or ModelError.");
}

void register_openssl(py::module_& m) {
    py::class_<OpenSslCipher>(
        m, "OpenSslCipher",
        "Key and initialization vector of files that `openssl enc -aes-N-cbc -K -iv` writes and "
        "reads. Nothing is authenticated.")
        .def(py::init<const std::string&, const std::string&, const std::string&>(),
             py::arg("name"), py::arg("key_hex"), py::arg("iv_hex"),
             "Raises ValueError, which tells lengths only.")
        .def("encrypt", &OpenSslCipher::encrypt, py::arg("source"), py::arg("target"),
             py::call_guard<py::gil_scoped_release>(), "Raises ovfast.Error.")
        .def("decrypt", &OpenSslCipher::decrypt, py::arg("source"), py::arg("target"),
             py::call_guard<py::gil_scoped_release>(),
             "Raises DecryptionError for a padding that cannot be, ovfast.Error.")
        .def("read", &OpenSslCipher::read, py::arg("source"),
             py::call_guard<py::gil_scoped_release>(),
             "A file decrypted to memory. Raises as decrypt().")
        .def("__repr__", [](const OpenSslCipher&) { return "OpenSslCipher(...)"; });
    m.def(
        "looks_like_ir", [](const FileBytes& text) { return looks_like_ir(text.text()); },
        py::arg("text"), "Whether bytes are the text of an IR, as far as a look at it tells.");
}

void register_memory(py::module_& m) {
    m.def("wipe_freed_memory", &wipe_freed_memory,
          "From now on the C library overwrites heap memory that is freed, in this process.");
    m.def(
        "protect_memory",
        [](const py::buffer& buffer) {
            const py::buffer_info info = buffer.request();
            protect(info.ptr, static_cast<size_t>(info.size * info.itemsize));
        },
        py::arg("buffer"),
        "Leaves a buffer out of core dumps and locks it against swap where the limits allow it.");
}

}  // namespace

void register_crypto(py::module_& m) {
    register_key(m);
    register_directories(m);
    register_openssl(m);
    register_memory(m);
}

}  // namespace ovfast::python
