// SPDX-License-Identifier: MIT
//
// The records of a Program, as astra_bridge/program.py lays them out.  The module checks on entry
// that the sizes agree.
#ifndef ASTRA_ENGINE_PROGRAM_HPP
#define ASTRA_ENGINE_PROGRAM_HPP

#include <cstddef>
#include <cstdint>

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

template <class T>
struct Span {
  const T* data = nullptr;
  size_t size = 0;
  const T& operator[](int64_t i) const { return data[i]; }
};

struct LogGP {
  int64_t L_ns = 0, o_ns = 0, g_ns = 0;
  double G_ns_per_byte = 0;
  int64_t reduction_ns = 1;
};

struct Program {
  int32_t ranks = 0;
  Span<int32_t> template_of_rank;
  Span<Template> templates;
  Span<Node> nodes;
  Span<int32_t> children;
  Span<MessageSpec> messages;
  Span<Collective> collectives;
  Span<Plan> plans;
  Span<Phase> phases;
  Span<Group> groups;
  Span<int32_t> members;
  Span<Family> families;
  Span<Schedule> schedules;
  Span<Step> steps;
  Span<Packet> packets;
  Span<Graph> graphs;
  Span<GraphNode> graph_nodes;
  Span<int32_t> graph_children;
  Span<int32_t> graph_roots;
  Span<int32_t> graph_of_position;
  Span<int32_t> unit_capacity;
  Span<int32_t> memory_server;
  int32_t levels = 1, queues_per_level = 1, streams_per_queue = 1, alternate_slots = 0;
  Policy policy = Policy::kLifo;
  BusModel bus_model = BusModel::kFixed;
  int64_t endpoint_delay_ps = 0, fast_delay_ps = 0, rendezvous_bytes = 0;
  bool receives_at_once = false;
  LogGP loggp;
};

}  // namespace engine

#endif  // ASTRA_ENGINE_PROGRAM_HPP
