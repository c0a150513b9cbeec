#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/pack.hpp"
#include "ops/kernel_files.hpp"
#include "ovfast/ops.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace ovfast::python {
namespace {

using Codes = py::array_t<uint8_t, py::array::c_style | py::array::forcecast>;
using Scales = py::array_t<float, py::array::c_style | py::array::forcecast>;

template <typename Array>
auto values_of(const Array& array) {
    return std::vector<typename Array::value_type>(array.data(), array.data() + array.size());
}

void expect_shape(const py::array& array, const char* name, size_t rows, size_t columns) {
    if (array.ndim() == 2 && static_cast<size_t>(array.shape(0)) == rows &&
        static_cast<size_t>(array.shape(1)) == columns) {
        return;
    }
    throw std::invalid_argument(std::string(name) + " must have shape (" + std::to_string(rows) +
                                ", " + std::to_string(columns) + "), got " +
                                std::string(py::str(array.attr("shape"))));
}

py::array_t<uint8_t> pack_weights(const Codes& codes, const Scales& scales,
                                  const std::optional<Codes>& zero_points, int bits) {
    if (codes.ndim() != 2 || codes.size() == 0 || scales.ndim() != 2 || scales.size() == 0) {
        throw std::invalid_argument("codes and scales must be matrices with elements");
    }
    kernels::PlainWeights plain;
    plain.rows = static_cast<size_t>(codes.shape(0));
    plain.columns = static_cast<size_t>(codes.shape(1));
    const auto groups = static_cast<size_t>(scales.shape(1));
    expect_shape(scales, "scales", plain.rows, groups);
    if (plain.columns % groups != 0) {
        throw std::invalid_argument("the " + std::to_string(plain.columns) +
                                    " columns of codes do not divide into the " +
                                    std::to_string(groups) + " groups of scales");
    }
    plain.format.bits = static_cast<uint8_t>(bits);
    plain.format.scales = kernels::ScaleKind::F32;
    plain.format.group = static_cast<uint32_t>(plain.columns / groups);
    plain.codes = values_of(codes);
    plain.scales = values_of(scales);
    if (zero_points) {
        expect_shape(*zero_points, "zero_points", plain.rows, groups);
        plain.format.offsets = kernels::OffsetKind::ZeroPoint;
        plain.zero_points = values_of(*zero_points);
    }
    py::array_t<uint8_t> packed(
        static_cast<py::ssize_t>(kernels::packed_bytes(plain.format, plain.rows, plain.columns)));
    kernels::pack(plain, packed.mutable_data());
    return packed;
}

py::array_t<float> unpack_weights(const Codes& packed) {
    const auto weights =
        kernels::PackedWeights::view(packed.data(), static_cast<size_t>(packed.size()));
    weights.verify();
    const auto values = kernels::unpack(weights);
    py::array_t<float> unpacked({weights.rows(), weights.columns()});
    std::copy(values.begin(), values.end(), unpacked.mutable_data());
    return unpacked;
}

}  // namespace

void register_ops(py::module_& m) {
    m.def("supported_isas", &supported_isas,
          "Instruction sets that kernels exist for and this machine can run: 'scalar', 'avx2', "
          "'avx_vnni', 'avx512_vnni', 'amx'. OVFAST_FORCE_ISA names one of them.");
    m.def("operation_names", &operation_names,
          "Types of all operations in libovfast_ops.so: 'FullyConnected', 'SwiGLU', ...");
    m.def(
        "check_kernel_files", &ops::check_kernel_files, py::arg("folder"),
        "Compares the OpenCL kernels in a folder, and their XML, with those that ovfast was built "
        "with. Raises ModelError that names a file that is missing or another one.");
    m.def("kernel_calls", &kernel_calls,
          "(name, calls) of each kernel in this process: which path was taken.");
    m.def("pack_weights", &pack_weights, py::arg("codes"), py::arg("scales"),
          py::arg("zero_points") = py::none(), py::arg("bits") = 4,
          "Packs a quantized matrix for ovfast's operations; u8 [bytes].\n\n"
          "codes u8 [rows, columns] below 2^bits; scales f32 [rows, groups]; zero_points u8 [rows, "
          "groups], 2^(bits-1) without them. A weight is scale * (code - zero_point). bits: 4, 5, "
          "6 or 8. Raises ValueError for shapes, groups and codes that do not fit.");
    m.def("unpack_weights", &unpack_weights, py::arg("packed"),
          "The matrix that packed bytes hold, f32 [rows, columns]. Raises ValueError when they are "
          "damaged or no packed weights.");
}

}  // namespace ovfast::python
