// SPDX-License-Identifier: MIT
// astra_bridge._native._trace: decode(buffer) -> the fields of astra_bridge.trace.raw.RawTrace.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <utility>

#include "decode.hpp"
#include "mapped.hpp"

namespace py = pybind11;

namespace {

// An array over a vector that `owner` keeps alive: nothing is copied.
template <class T>
py::array array(std::vector<T>& values, py::object owner) {
  return py::array_t<T>({static_cast<py::ssize_t>(values.size())}, {}, values.data(),
                        std::move(owner));
}

py::list bytes_list(const std::vector<std::string>& values) {
  py::list out;
  for (const auto& value : values) out.append(py::bytes(value));
  return out;
}

py::tuple decode(const py::buffer& buffer) {
  const py::buffer_info info = buffer.request();
  if (info.ndim != 1 || info.itemsize != 1 || info.strides[0] != 1)
    throw py::type_error("decode: a contiguous buffer of bytes is wanted");
  auto owned = std::make_unique<trace::Trace>();
  {
    py::gil_scoped_release release;
    *owned = trace::decode({static_cast<const char*>(info.ptr), static_cast<size_t>(info.size)});
  }
  trace::Trace& t = *owned;
  py::capsule owner(owned.release(), [](void* p) { delete static_cast<trace::Trace*>(p); });
  py::list ints;
  for (auto& column : t.ints) {
    if (column.empty())
      ints.append(py::none());
    else
      ints.append(array(column, owner));
  }
  return py::make_tuple(py::bytes(t.version), array(t.record_start, owner), array(t.node_id, owner),
                        array(t.type, owner), array(t.duration_micros, owner),
                        array(t.is_cpu_op, owner), ints, array(t.pg_name, owner),
                        array(t.involved_dim, owner), bytes_list(t.strings),
                        bytes_list(t.involved_dims), array(t.dep_start, owner),
                        array(t.dep_id, owner), array(t.data_dep_count, owner));
}

}  // namespace

PYBIND11_MODULE(_trace, m) {
  m.doc() = "Native decoder of Chakra traces";
  static py::exception<trace::Error> raw_error(m, "RawError", PyExc_ValueError);
  // NOLINTNEXTLINE(performance-unnecessary-value-param): pybind11 wants this signature.
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const trace::Error& error) {
      PyErr_SetObject(raw_error.ptr(), py::make_tuple(error.place, error.problem).ptr());
    }
  });
  py::class_<trace::MappedFile>(m, "MappedFile", py::buffer_protocol(),
                                "The bytes of a file, given a descriptor and its size.")
      .def(py::init([](int descriptor, size_t size) {
        try {
          return std::make_unique<trace::MappedFile>(descriptor, size);
        } catch (const std::system_error& error) {
          errno = error.code().value();
          PyErr_SetFromErrno(PyExc_OSError);
          throw py::error_already_set();
        }
      }))
      .def_buffer([](trace::MappedFile& file) {
        return py::buffer_info(file.data(), static_cast<py::ssize_t>(file.size()));
      });
  m.def("decode", &decode, py::arg("data"),
        "Decode the bytes of an .et file; returns the fields of RawTrace in order.");
}
