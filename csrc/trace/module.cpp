// SPDX-License-Identifier: MIT
// astra_bridge._native._trace: decode(buffer) -> the fields of astra_bridge.trace.raw.RawTrace;
// KinetoScanner, for astra_bridge.sources.kineto.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <utility>

#include "decode.hpp"
#include "kineto.hpp"
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

template <class T>
py::bytes column(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

py::bytes text(std::string_view value) { return {value.data(), value.size()}; }

// A function of Python's that takes bytes, as one that may be moved without touching its count.
template <class Result, class... Text>
std::function<Result(Text...)> asked(const py::function& function) {
  return [kept = std::make_shared<py::function>(function)](Text... texts) {
    return (*kept)(text(texts)...).template cast<Result>();
  };
}

trace::KinetoScanner scanner(const std::vector<std::pair<std::string, int>>& categories,
                             const py::function& thread, const py::function& communicates,
                             const py::function& call, const py::function& kernel) {
  using Text = std::string_view;
  return {categories,
          {asked<int32_t, Text, Text>(thread), asked<bool, Text>(communicates),
           asked<int32_t, Text>(call), asked<std::pair<int32_t, bool>, Text>(kernel)}};
}

// Where the rest of the bytes begins, whether it is plain, and what was found.
py::tuple scan(trace::KinetoScanner& scanner, const py::bytes& data) {
  trace::KinetoColumns out;
  bool plain = true;
  // Python's bytes end with a zero.
  const size_t taken = scanner.scan(std::string_view(data), out, plain);
  py::list rest, args;
  for (const std::string_view event : out.rest) rest.append(text(event));
  for (const auto& [at, value] : out.gpu_args) args.append(py::make_tuple(at, text(value)));
  return py::make_tuple(
      taken, plain,
      py::make_tuple(column(out.op_thread), column(out.op_start_us), column(out.op_took_us)),
      py::make_tuple(column(out.call_thread), column(out.call_start_us), column(out.call_took_us),
                     column(out.call_name), column(out.call_correlation)),
      py::make_tuple(column(out.gpu_device), column(out.gpu_stream), column(out.gpu_start_us),
                     column(out.gpu_took_us), column(out.gpu_name), column(out.gpu_correlation)),
      args, rest);
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
  py::class_<trace::KinetoScanner>(m, "KinetoScanner", "The plain events of Kineto's trace.")
      .def(py::init(&scanner))
      .def("scan", &scan);
  m.def("decode", &decode, py::arg("data"),
        "Decode the bytes of an .et file; returns the fields of RawTrace in order.");
}
