// SPDX-License-Identifier: MIT
//
// The Python module of the native engine: arrays of a Program in, arrays of an Outcome out.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "astra_archive.hpp"
#include "engine.hpp"
#include "rules.hpp"

namespace py = pybind11;

namespace {

using engine::Engine;
using engine::Program;
using engine::Table;

// Arrays stay alive with the dict that holds them; one that is not contiguous is replaced there.
template <class T>
Table<T> table(const py::dict& arrays, const char* name) {
  constexpr int kAligned = py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  constexpr int kPlain = static_cast<int>(py::array::c_style) | kAligned;
  py::array array = py::cast<py::array>(arrays[name]);
  if (array.itemsize() != static_cast<py::ssize_t>(sizeof(T)))
    throw std::invalid_argument(std::string(name) + ": records have another size here");
  if ((array.flags() & kPlain) != kPlain) arrays[name] = array = py::array::ensure(array, kPlain);
  return {static_cast<const T*>(array.data()), static_cast<size_t>(array.nbytes()) / sizeof(T)};
}

template <class T>
py::array_t<T> array_of(std::vector<T>&& values) {
  auto* kept = new std::vector<T>(std::move(values));
  const py::capsule owner(kept,
                          [](void* pointer) { delete static_cast<std::vector<T>*>(pointer); });
  return py::array_t<T>(static_cast<py::ssize_t>(kept->size()), kept->data(), owner);
}

template <class T>
py::bytes bytes_of(const std::vector<T>& records) {
  return {reinterpret_cast<const char*>(records.data()), records.size() * sizeof(T)};
}

Program program_of(const py::dict& arrays) {
  using namespace engine;
  Program p;
#define ENGINE_TAKE(name, Row) p.name = table<Row>(arrays, #name);
  ENGINE_TABLES(ENGINE_TAKE, ENGINE_TAKE)
#undef ENGINE_TAKE
  p.levels = arrays["levels"].cast<int32_t>();
  p.queues_per_level = arrays["queues_per_level"].cast<int32_t>();
  p.alternate_slots = arrays["alternate_slots"].cast<int32_t>();
  p.rendezvous_bytes = arrays["rendezvous_bytes"].cast<int64_t>();
  p.receives_at_once = arrays["receives_at_once"].cast<bool>();
  return p;
}

bool schedules_keep_rules(const py::dict& arrays) {
  using namespace engine;
  return engine::schedules_keep_rules(
      table<Schedule>(arrays, "schedules"), table<Step>(arrays, "steps"),
      table<Packet>(arrays, "packets"), table<int64_t>(arrays, "sizes"));
}

bool peers_agree(const py::dict& arrays) {
  using namespace engine;
  return engine::peers_agree(table<Family>(arrays, "families"),
                             table<int32_t>(arrays, "schedule_of_position"),
                             table<Schedule>(arrays, "schedules"), table<Step>(arrays, "steps"),
                             table<int64_t>(arrays, "sizes"));
}

using Ints = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

std::vector<int64_t> values_of(const py::handle& array) {
  const auto values = py::cast<Ints>(array);
  return {values.data(), values.data() + values.size()};
}

// What Python says of wavefronts: None, or (phases, what says the hops of transfers, threads).
engine::Waves waves_of(const py::object& told) {
  engine::Waves waves;
  if (told.is_none()) return waves;
  const auto all = py::cast<py::tuple>(told);
  for (const int64_t phase : values_of(all[0]))
    waves.phases.push_back(static_cast<uint8_t>(phase != 0));
  waves.threads = all[2].cast<int32_t>();
  waves.hops_of = [hops_of = py::object(all[1])](const std::vector<int32_t>& src,
                                                 const std::vector<int32_t>& dst, int64_t bytes) {
    const py::gil_scoped_acquire gil;
    engine::Hops hops;
    const auto array = [](const std::vector<int32_t>& ranks) {
      return py::array_t<int32_t>(static_cast<py::ssize_t>(ranks.size()), ranks.data());
    };
    const py::object said = hops_of(array(src), array(dst), bytes);
    if (said.is_none()) return hops;
    const auto rows = py::cast<py::tuple>(said);
    hops.link = values_of(rows[0]);
    hops.hold_ps = values_of(rows[1]);
    hops.takes_ps = values_of(rows[2]);
    if (hops.hold_ps.size() != hops.link.size() || hops.takes_ps.size() != hops.link.size() ||
        hops.link.size() % src.size() != 0)
      throw std::invalid_argument("hops of transfers: arrays differ in length");
    hops.hops = hops.link.size() / src.size();
    return hops;
  };
  return waves;
}

// What came of it: (why it counts for nothing, rank, time), phases that were wavefronts, others, and
// source, destination, bytes and number of the messages of each flow.
py::tuple waves_said(const engine::WaveState& wave) {
  std::vector<int64_t> src, dst, bytes, messages;
  for (const auto& [key, flows] : wave.flows) {
    src.insert(src.end(), flows.src.begin(), flows.src.end());
    dst.insert(dst.end(), flows.dst.begin(), flows.dst.end());
    bytes.insert(bytes.end(), flows.src.size(), flows.bytes);
    messages.insert(messages.end(), flows.src.size(), flows.messages);
  }
  return py::make_tuple(py::make_tuple(static_cast<int32_t>(wave.doubt), wave.rank, wave.now_ps),
                        wave.waved, wave.by_events,
                        py::make_tuple(array_of(std::move(src)), array_of(std::move(dst)),
                                       array_of(std::move(bytes)), array_of(std::move(messages))));
}

// An engine, and the arrays that its Program stands in.
class Session {
 public:
  Session(const py::dict& arrays, uintptr_t table, uintptr_t sim, uint64_t capabilities,
          int64_t resolution_ps, int64_t max_in_flight, uint32_t levels, bool record_nodes,
          int32_t inside, const std::vector<std::pair<int64_t, int64_t>>& folded,
          const py::object& waves, bool by_number) {
    astra_net_info info{};
    info.capabilities = capabilities;
    info.resolution_ps = resolution_ps;
    info.max_in_flight = max_in_flight;
    info.traffic_classes = levels;
    arrays_.append(arrays);
    std::vector<engine::Digit> digits;
    digits.reserve(folded.size());
    for (const auto& [stride, size] : folded) digits.push_back({stride, size});
    engine_ = std::make_unique<Engine>(
        program_of(arrays), *reinterpret_cast<const astra_net_backend*>(table), simulation(sim),
        info, record_nodes, static_cast<engine::Inside>(inside), std::move(digits), waves_of(waves),
        by_number);
  }

  // The same state on another simulation of the network, which is a copy of this one's.
  std::unique_ptr<Session> copy(uintptr_t sim) const {
    return std::unique_ptr<Session>(
        new Session(arrays_, std::make_unique<Engine>(*engine_, simulation(sim))));
  }

  // The arrays are copied.
  void append(const py::dict& arrays) { engine_->append(program_of(arrays)); }

  void watch(int32_t what) { engine_->watch(static_cast<engine::Watch>(what)); }
  py::bytes poll() { return bytes_of(engine_->poll()); }

  // Returns (stop, failure, lie): failure is None or (call, status, native code, item, message) of
  // the network call that ended the run; lie is None or what Lie holds.
  py::tuple advance(int64_t until_ps, const py::object& progress, double period_s) {
    const auto report = [&progress](const engine::Progress& p) {
      const py::gil_scoped_acquire gil;
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (progress.is_none()) return false;
      return progress(p.now_ps, p.events, p.nodes_done, p.nodes_total).is(py::bool_(true));
    };
    py::object failure = py::none(), lie = py::none();
    std::unique_ptr<engine::NetworkFailure> failed;
    std::unique_ptr<engine::Lie> lied;
    engine::Stop stop{};  // NOLINT(bugprone-invalid-enum-default-initialization): 0 is none
    {
      const py::gil_scoped_release unlocked;
      try {
        stop = engine_->advance(until_ps, report, period_s);
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
    return py::make_tuple(static_cast<int32_t>(stop), failure, lie);
  }

  bool missed() const { return engine_->missed(); }

  // All that changes, and into a session of the same Program.
  py::bytes save() {
    astra::Writer archive;
    engine_->visit(archive);
    return archive.sealed(kState);
  }
  void load(const std::string& data) {
    try {
      astra::Reader archive(data.data(), data.size(), kState);
      engine_->visit(archive);
      archive.finish();
    } catch (const astra::ArchiveError& error) {
      throw std::invalid_argument(error.what());
    }
  }

  py::tuple progress() const {
    const engine::Progress p = engine_->progress();
    return py::make_tuple(p.now_ps, p.events, p.nodes_done, p.nodes_total);
  }

  // The arrays of Outcome; `last`: the session ends here, so they need not be copied.
  py::dict outcome(bool last) {
    const auto taken = [last](std::vector<int64_t>& values) {
      return last ? array_of(std::move(values)) : array_of(std::vector<int64_t>(values));
    };
    py::dict result;
    result["finish_ps"] = taken(engine_->finish_ps);
    result["task_finish_ps"] = taken(engine_->task_finish_ps);
    result["node_start_ps"] = taken(engine_->node_start_ps);
    result["node_end_ps"] = taken(engine_->node_end_ps);
    result["task_node_start"] = taken(engine_->task_node_start);
    result["events"] = engine_->progress().events;
    result["transfers"] = engine_->transfers();
    result["relieved"] = engine_->relieved();
    const engine::Folding& folding = engine_->folding();
    result["ties"] = folding.ties();
    result["first_tie"] = folding.first_tie();
    if (engine_->wave()) result["waved"] = waves_said(engine_->wave());
    result["waits"] = bytes_of(engine_->waits());
    result["stays"] = bytes_of(engine_->stays);
    result["deliveries"] = bytes_of(engine_->deliveries);
    return result;
  }

 private:
  Session(py::list arrays, std::unique_ptr<Engine> engine)
      : arrays_(std::move(arrays)), engine_(std::move(engine)) {}
  static constexpr uint64_t kState = 0x33656E69676E65u;  // "engine3"
  static astra_net_sim* simulation(uintptr_t sim) { return reinterpret_cast<astra_net_sim*>(sim); }

  py::list arrays_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace

PYBIND11_MODULE(_engine, module) {
  module.doc() = "The native engine.";
  py::class_<Session>(module, "Session")
      .def(py::init<const py::dict&, uintptr_t, uintptr_t, uint64_t, int64_t, int64_t, uint32_t,
                    bool, int32_t, const std::vector<std::pair<int64_t, int64_t>>&,
                    const py::object&, bool>(),
           py::arg("arrays"), py::arg("table"), py::arg("sim"), py::arg("capabilities"),
           py::arg("resolution_ps"), py::arg("max_in_flight"), py::arg("levels"),
           py::arg("record_nodes"), py::arg("inside"), py::arg("folded"), py::arg("waves"),
           py::arg("by_number"))
      .def("missed", &Session::missed)
      .def("copy", &Session::copy, py::arg("sim"))
      .def("append", &Session::append, py::arg("arrays"))
      .def("watch", &Session::watch, py::arg("what"))
      .def("poll", &Session::poll)
      .def("advance", &Session::advance, py::arg("until_ps"), py::arg("progress"),
           py::arg("period_s"))
      .def("save", &Session::save)
      .def("load", &Session::load, py::arg("data"))
      .def("progress", &Session::progress)
      .def("outcome", &Session::outcome, py::arg("last"));
  module.def("keeps_rules",
             [](const py::dict& arrays) { return engine::keeps_rules(program_of(arrays)); });
  module.def("schedules_keep_rules", &schedules_keep_rules);
  module.def("peers_agree", &peers_agree);
  // Record -> field -> (offset, bytes).
  py::dict layout;
  engine::each_field([&layout](const char* record, const char* field, size_t offset, size_t bytes) {
    if (!layout.contains(record)) layout[record] = py::dict();
    layout[record][field] = py::make_tuple(offset, bytes);
  });
  module.attr("LAYOUT") = layout;
  module.attr("FINGERPRINT") = engine::kFingerprint;
}
