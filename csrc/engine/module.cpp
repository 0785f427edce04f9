// SPDX-License-Identifier: MIT
//
// The Python module of the native engine: arrays of a Program in, arrays of an Outcome out.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>

#include "engine.hpp"

namespace py = pybind11;

namespace {

using engine::Engine;
using engine::Program;
using engine::Span;

// Arrays stay alive with the dict that holds them.
template <class T>
Span<T> span(const py::dict& arrays, const char* name) {
  const py::array array = py::cast<py::array>(arrays[name]);
  // A row of a table is one record.
  py::ssize_t record = array.itemsize();
  for (py::ssize_t axis = 1; axis < array.ndim(); ++axis) record *= array.shape(axis);
  if (record != static_cast<py::ssize_t>(sizeof(T)))
    throw std::invalid_argument(std::string(name) + ": records have another size here");
  if ((array.flags() & py::array::c_style) == 0)
    throw std::invalid_argument(std::string(name) + ": not contiguous");
  return {static_cast<const T*>(array.data()), static_cast<size_t>(array.nbytes()) / sizeof(T)};
}

template <class T>
py::array_t<T> array_of(std::vector<T>&& values) {
  auto* kept = new std::vector<T>(std::move(values));
  const py::capsule owner(kept, [](void* pointer) { delete static_cast<std::vector<T>*>(pointer); });
  return py::array_t<T>(static_cast<py::ssize_t>(kept->size()), kept->data(), owner);
}

Program program_of(const py::dict& arrays) {
  Program p;
  p.template_of_rank = span<int32_t>(arrays, "template_of_rank");
  p.ranks = static_cast<int32_t>(p.template_of_rank.size);
  p.templates = span<engine::Template>(arrays, "templates");
  p.nodes = span<engine::Node>(arrays, "nodes");
  p.children = span<int32_t>(arrays, "children");
  p.messages = span<engine::MessageSpec>(arrays, "messages");
  p.collectives = span<engine::Collective>(arrays, "collectives");
  p.plans = span<engine::Plan>(arrays, "plans");
  p.phases = span<engine::Phase>(arrays, "phases");
  p.groups = span<engine::Group>(arrays, "groups");
  p.members = span<int32_t>(arrays, "members");
  p.families = span<engine::Family>(arrays, "families");
  p.schedules = span<engine::Schedule>(arrays, "schedules");
  p.steps = span<engine::Step>(arrays, "steps");
  p.packets = span<engine::Packet>(arrays, "packets");
  p.graphs = span<engine::Graph>(arrays, "graphs");
  p.graph_nodes = span<engine::GraphNode>(arrays, "graph_nodes");
  p.graph_children = span<int32_t>(arrays, "graph_children");
  p.graph_roots = span<int32_t>(arrays, "graph_roots");
  p.graph_of_position = span<int32_t>(arrays, "graph_of_position");
  p.unit_capacity = span<int32_t>(arrays, "unit_capacity");
  p.memory_server = span<int32_t>(arrays, "memory_server");
  p.levels = arrays["levels"].cast<int32_t>();
  p.queues_per_level = arrays["queues_per_level"].cast<int32_t>();
  p.streams_per_queue = arrays["streams_per_queue"].cast<int32_t>();
  p.alternate_slots = arrays["alternate_slots"].cast<int32_t>();
  p.policy = static_cast<engine::Policy>(arrays["policy"].cast<int32_t>());
  p.bus_model = static_cast<engine::BusModel>(arrays["bus_model"].cast<int32_t>());
  p.endpoint_delay_ps = arrays["endpoint_delay_ps"].cast<int64_t>();
  p.fast_delay_ps = arrays["fast_delay_ps"].cast<int64_t>();
  p.rendezvous_bytes = arrays["rendezvous_bytes"].cast<int64_t>();
  p.receives_at_once = arrays["receives_at_once"].cast<bool>();
  const py::tuple loggp = arrays["loggp"];
  p.loggp = {loggp[0].cast<int64_t>(), loggp[1].cast<int64_t>(), loggp[2].cast<int64_t>(),
             loggp[3].cast<double>(), loggp[4].cast<int64_t>()};
  return p;
}

// Returns a dict: the arrays of Outcome; "failure": None or (call, status, native code, item,
// message) of the network call that ended the run; "lie": None or what Lie holds.
py::dict run(const py::dict& arrays, uintptr_t table, uintptr_t sim, uint64_t capabilities,
             int64_t resolution_ps, int64_t max_in_flight, bool record_nodes,
             const py::object& progress, double period_s) {
  const Program program = program_of(arrays);
  const auto& network = *reinterpret_cast<const astra_net_backend*>(table);
  astra_net_info info{};
  info.capabilities = capabilities;
  info.resolution_ps = resolution_ps;
  info.max_in_flight = max_in_flight;
  Engine machine(program, network, reinterpret_cast<astra_net_sim*>(sim), info, record_nodes);
  const auto report = [&progress](const engine::Progress& p) {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (!progress.is_none()) progress(p.now_ps, p.events, p.nodes_done, p.nodes_total);
  };
  py::object failure = py::none(), lie = py::none();
  {
    std::unique_ptr<engine::NetworkFailure> failed;
    std::unique_ptr<engine::Lie> lied;
    {
      const py::gil_scoped_release unlocked;
      try {
        machine.run(report, period_s);
      } catch (const engine::NetworkFailure& error) {
        failed = std::make_unique<engine::NetworkFailure>(error);
      } catch (const engine::Lie& error) {
        lied = std::make_unique<engine::Lie>(error);
      }
    }
    if (failed)
      failure = py::make_tuple(failed->call, failed->status, failed->native_code, failed->item,
                               py::bytes(failed->what()));
    if (lied) lie = py::make_tuple(lied->call, lied->name, lied->value, lied->bound, lied->item);
  }
  const engine::Progress end = machine.progress();
  if (!progress.is_none()) progress(end.now_ps, end.events, end.nodes_done, end.nodes_total);
  const std::vector<engine::Wait> waits = machine.waits();
  py::dict result;
  result["finish_ps"] = array_of(std::move(machine.finish_ps));
  result["node_start_ps"] = array_of(std::move(machine.node_start_ps));
  result["node_end_ps"] = array_of(std::move(machine.node_end_ps));
  result["rank_node_start"] = array_of(std::move(machine.rank_node_start));
  result["events"] = end.events;
  result["transfers"] = machine.transfers();
  result["relieved"] = machine.relieved();
  result["waits"] =
      py::bytes(reinterpret_cast<const char*>(waits.data()), waits.size() * sizeof(engine::Wait));
  result["failure"] = failure;
  result["lie"] = lie;
  return result;
}

}  // namespace

PYBIND11_MODULE(_engine, module) {
  module.doc() = "The native engine.";
  module.def("run", &run, py::arg("arrays"), py::arg("table"), py::arg("sim"),
             py::arg("capabilities"), py::arg("resolution_ps"), py::arg("max_in_flight"),
             py::arg("record_nodes"), py::arg("progress"), py::arg("period_s"));
  py::dict sizes;
  sizes["templates"] = sizeof(engine::Template);
  sizes["nodes"] = sizeof(engine::Node);
  sizes["messages"] = sizeof(engine::MessageSpec);
  sizes["collectives"] = sizeof(engine::Collective);
  sizes["plans"] = sizeof(engine::Plan);
  sizes["phases"] = sizeof(engine::Phase);
  sizes["groups"] = sizeof(engine::Group);
  sizes["schedules"] = sizeof(engine::Schedule);
  sizes["steps"] = sizeof(engine::Step);
  sizes["packets"] = sizeof(engine::Packet);
  sizes["graphs"] = sizeof(engine::Graph);
  sizes["graph_nodes"] = sizeof(engine::GraphNode);
  module.attr("RECORD_BYTES") = sizes;
}
