#pragma once

#include <pybind11/pybind11.h>

namespace ovfast::python {

void register_crypto(pybind11::module_& m);
void register_engine(pybind11::module_& m);
void register_gguf(pybind11::module_& m);
void register_files(pybind11::module_& m);
void register_host(pybind11::module_& m);
void register_ops(pybind11::module_& m);
void register_pack(pybind11::module_& m);
void register_sampling(pybind11::module_& m);
void register_text(pybind11::module_& m);

}  // namespace ovfast::python
