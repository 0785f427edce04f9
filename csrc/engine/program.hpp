// SPDX-License-Identifier: MIT
//
// The records of a Program, as astra_bridge/program.py lays them out.  The module checks on entry
// that the sizes agree.
#ifndef ASTRA_ENGINE_PROGRAM_HPP
#define ASTRA_ENGINE_PROGRAM_HPP

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace engine {

enum class Op : uint8_t { kNothing, kDelay, kCollective, kSend, kRecv, kMemory };
constexpr int kUnits = 4;
enum class Pick : uint8_t { kNext, kFirst, kLast };
enum class Variant : uint8_t { kByDirection, kAlternate, kAgreed };
enum class Bus : uint8_t { kEndpoint, kFast, kNone };
enum class BusModel : int32_t { kFixed, kLogGP };
enum class Policy : int32_t { kLifo, kFifo, kExplicit };
enum class GraphOp : uint8_t { kSend, kRecv, kDelay };
constexpr int32_t kToMemory = 1, kReduced = 2, kSendBack = 4;

struct LogGP {
  int64_t L_ns = 0, o_ns = 0, g_ns = 0;
  double G_ns_per_byte = 0;
  int64_t reduction_ns = 1;
};

struct Task {
  int64_t start_ps;
  int32_t job, job_rank, template_index;
};
struct Job {
  int64_t tag_base, placement_start;
  int32_t ranks;
};
struct Machine {
  int64_t endpoint_delay_ps, fast_delay_ps;
  LogGP loggp;
  int32_t unit_capacity[kUnits];
  int32_t streams_per_queue;
  Policy policy;
  BusModel bus_model;
};
struct Slowdown {
  int64_t at_ps;
  double factor;
  int32_t rank;
};
struct Template {
  int64_t node_start, node_count, compute_ps;
};
struct Node {
  int64_t duration_ps, child_start;
  int32_t child_count, arg, parents;
  Op op;
  uint8_t unit;
};
struct MessageSpec {
  int64_t bytes;
  int32_t peer, tag;
};
struct Collective {
  int64_t chunks;
  int32_t plan_start, plan_count, group, priority, graph, kind;
  int64_t bytes;
};
struct Plan {
  int32_t phase_start, phase_count;
};
struct Phase {
  int32_t level, layout, family[2], slot;
  Pick pick;
  Variant variant;
  Bus bus;
};
struct Group {
  int32_t size, stride;
  int64_t member_start, tag_base;
};
struct Family {
  int32_t first, count;
};
struct Schedule {
  int64_t step_start, packet_start;
  int32_t step_count, window, burst, gate_step, gate_received, end;
};
struct Step {
  int64_t send_bytes, recv_bytes;
  int32_t send_to, recv_from, need;
};
struct Packet {
  int64_t bytes, reduce_ps;
  int32_t flags;
};
struct Graph {
  int64_t node_start, node_count, root_start, root_count, buckets;
};
struct GraphNode {
  int64_t duration_ps, bytes, child_start, id;
  int32_t child_count, peer, tag, parents;
  GraphOp op;
};
struct Wait {
  int32_t rank, peer;
  int64_t bytes;
  int32_t node, collective, what;
  int32_t unused;
};
enum WaitFor : int32_t { kReceive, kInFlight, kUnreceived };

// Rows that somebody else holds, until rows are appended.
template <class T>
class Table {
 public:
  Table() = default;
  Table(const T* data, size_t size) : data_(data), size_(size) {}
  Table(const Table& other) : own_(other.own_), data_(other.data_), size_(other.size_) { point(); }
  Table(Table&& other) noexcept
      : own_(std::move(other.own_)), data_(other.data_), size_(other.size_) {
    point();
  }
  Table& operator=(Table other) noexcept {
    own_ = std::move(other.own_);
    data_ = other.data_;
    size_ = other.size_;
    point();
    return *this;
  }
  ~Table() = default;

  size_t size() const { return size_; }
  const T& operator[](int64_t i) const { return data_[i]; }
  void append(const Table& more) {
    if (more.size_ == 0) return;
    if (own_.empty()) own_.assign(data_, data_ + size_);
    own_.insert(own_.end(), more.data_, more.data_ + more.size_);
    size_ = own_.size();
    point();
  }

 private:
  void point() {
    if (!own_.empty()) data_ = own_.data();
  }
  std::vector<T> own_;
  const T* data_ = nullptr;
  size_t size_ = 0;
};

struct Program {
  Table<Task> tasks;
  Table<Job> jobs;
  Table<int32_t> placement;
  Table<Machine> machines;
  Table<int32_t> machine_of_rank;
  Table<int32_t> memory_server;
  Table<Slowdown> slowdowns;
  Table<Template> templates;
  Table<Node> nodes;
  Table<int32_t> children;
  Table<MessageSpec> messages;
  Table<Collective> collectives;
  Table<Plan> plans;
  Table<Phase> phases;
  Table<Group> groups;
  Table<int32_t> members;
  Table<Family> families;
  Table<Schedule> schedules;
  Table<Step> steps;
  Table<Packet> packets;
  Table<Graph> graphs;
  Table<GraphNode> graph_nodes;
  Table<int32_t> graph_children;
  Table<int32_t> graph_roots;
  Table<int32_t> graph_of_position;
  int32_t levels = 1, queues_per_level = 1, alternate_slots = 0;
  int64_t rendezvous_bytes = 0;
  bool receives_at_once = false;

  int32_t ranks() const { return static_cast<int32_t>(machine_of_rank.size()); }

  // Every table that grows with work, of two Programs: f(ours, theirs).
  template <class F>
  void each_table(const Program& other, F f) {
    f(tasks, other.tasks);
    f(jobs, other.jobs);
    f(placement, other.placement);
    f(slowdowns, other.slowdowns);
    f(templates, other.templates);
    f(nodes, other.nodes);
    f(children, other.children);
    f(messages, other.messages);
    f(collectives, other.collectives);
    f(plans, other.plans);
    f(phases, other.phases);
    f(groups, other.groups);
    f(members, other.members);
    f(families, other.families);
    f(schedules, other.schedules);
    f(steps, other.steps);
    f(packets, other.packets);
    f(graphs, other.graphs);
    f(graph_nodes, other.graph_nodes);
    f(graph_children, other.graph_children);
    f(graph_roots, other.graph_roots);
    f(graph_of_position, other.graph_of_position);
  }

  // Rows of `fragment` come behind ours; its references already count ours.
  void append(const Program& fragment) {
    each_table(fragment, [](auto& ours, const auto& theirs) { ours.append(theirs); });
    alternate_slots += fragment.alternate_slots;
  }
};

}  // namespace engine

#endif  // ASTRA_ENGINE_PROGRAM_HPP
