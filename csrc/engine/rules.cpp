// SPDX-License-Identifier: MIT
//
// In the order of astra_bridge/program/rules.py, where each rule is said in words.
#include "rules.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <tuple>
#include <utility>
#include <vector>

namespace engine {
namespace rules {

constexpr int64_t kMostChunks = int64_t{1} << 17;
constexpr int64_t kMostStreams = int64_t{1} << 27;
constexpr double kMostTransfers = static_cast<double>(int64_t{1} << 44);
constexpr int64_t kMostPairs = int64_t{1} << 28;
constexpr int64_t kMost = int64_t{1} << 62;
constexpr int64_t kMostInt32 = (int64_t{1} << 31) - 1;
constexpr int64_t kMostTag = int64_t{1} << 61;
constexpr int64_t kMostBuckets = 206062531;
constexpr int64_t kMostFlags = 7;
constexpr int64_t kMostKind = 9;

bool within(int64_t value, int64_t low, int64_t high) { return low <= value && value <= high; }

template <class Enum>
bool within(Enum value, Enum last) {
  return within(static_cast<int64_t>(value), 0, static_cast<int64_t>(last));
}

// `count` entries from `start` are among `total`.
bool spans(int64_t start, int64_t count, int64_t total) {
  return within(count, 0, total) && within(start, 0, total - count);
}

bool finite(double value) { return value >= 0 && value < HUGE_VAL; }

template <class Rows, class Holds>
bool all(const Rows& rows, Holds holds) {
  for (size_t i = 0; i < rows.size(); ++i)
    if (!holds(rows[static_cast<int64_t>(i)])) return false;
  return true;
}

template <class T>
int64_t count_of(const Table<T>& rows) {
  return static_cast<int64_t>(rows.size());
}

// Sorted, each once.
template <class T>
void make_distinct(std::vector<T>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

// How many rows tables refer to together, which must not become too many.
class Referred {
 public:
  bool add(int64_t rows) {
    total_ += rows;
    return total_ <= kMostPairs;
  }

 private:
  int64_t total_ = 0;
};

// Lists, one behind the other: list i is [start[i], start[i + 1]) of `entries`.
struct Lists {
  std::vector<int64_t> start{0};
  std::vector<int64_t> entries;

  void end() { start.push_back(static_cast<int64_t>(entries.size())); }
  int64_t size(int64_t list) const { return start[list + 1] - start[list]; }
  const int64_t* begin_of(int64_t list) const { return entries.data() + start[list]; }
  const int64_t* end_of(int64_t list) const { return entries.data() + start[list + 1]; }
};

// ---- what the ranks are, and their tasks ----

bool machines(const Program& p) {
  const int64_t ranks = p.ranks();
  const bool alike = all(p.machines, [](const Machine& m) {
    return within(m.endpoint_delay_ps, 0, kMost) && within(m.fast_delay_ps, 0, kMost) &&
           within(m.L_ns, 0, kMost) && within(m.o_ns, 0, kMost) && within(m.g_ns, 0, kMost) &&
           within(m.reduction_ns, 0, kMost) && m.streams_per_queue >= 1 &&
           within(m.policy, Policy::kExplicit) && within(m.bus_model, BusModel::kLoggp) &&
           finite(m.G_ns_per_byte) &&
           std::all_of(m.unit_capacity, m.unit_capacity + kUnits, [](int32_t n) { return n >= 1; });
  });
  return alike &&
         all(p.memory_server, [&](int32_t server) { return within(server, -1, ranks - 1); }) &&
         all(p.machine_of_rank,
             [&](int32_t machine) { return within(machine, 0, count_of(p.machines) - 1); });
}

bool jobs(const Program& p) {
  const int64_t ranks = p.ranks(), placed = count_of(p.placement);
  if (!all(p.placement, [&](int32_t rank) { return within(rank, 0, ranks - 1); })) return false;
  Referred referred;
  std::vector<int64_t> last(placed > 0 ? ranks : 0, -1);  // job on each rank
  for (int64_t job = 0; job < count_of(p.jobs); ++job) {
    const Job& one = p.jobs[job];
    if (!within(one.tag_base, 0, kMostTag) || !within(one.ranks, 1, ranks)) return false;
    if (one.placement_start < 0) {
      if (one.placement_start != -1) return false;
      continue;
    }
    if (!spans(one.placement_start, one.ranks, placed) || !referred.add(one.ranks)) return false;
    for (int64_t i = 0; i < one.ranks; ++i) {
      int64_t& there = last[p.placement[one.placement_start + i]];
      if (there == job) return false;
      there = job;
    }
  }
  return true;
}

bool tasks(const Program& p) {
  const int64_t ranks = p.ranks();
  return count_of(p.tasks) <= kMostInt32 && jobs(p) &&
         all(p.tasks,
             [&](const Task& task) {
               return within(task.start_ps, 0, kMost) &&
                      within(task.template_index, 0, count_of(p.templates) - 1) &&
                      within(task.job, 0, count_of(p.jobs) - 1) &&
                      within(task.job_rank, 0, int64_t{p.jobs[task.job].ranks} - 1);
             }) &&
         all(p.slowdowns, [&](const Slowdown& one) {
           return within(one.at_ps, 0, kMost) && within(one.rank, 0, ranks - 1) &&
                  finite(one.factor);
         });
}

// ---- templates, and graphs ----

// For each node the template or graph that it belongs to, or -1; false where two want one.
template <class Row>
bool find_owners(const Table<Row>& rows, std::vector<int64_t>& owner) {
  const auto total = static_cast<int64_t>(owner.size());
  Referred referred;
  for (int64_t row = 0; row < count_of(rows); ++row) {
    if (!spans(rows[row].node_start, rows[row].node_count, total)) return false;
    if (!referred.add(rows[row].node_count)) return false;
    for (int64_t i = 0; i < rows[row].node_count; ++i) {
      int64_t& one = owner[rows[row].node_start + i];
      if (one >= 0) return false;
      one = row;
    }
  }
  return true;
}

template <class Row, class Node>
bool edges(const Table<Row>& rows, const Table<Node>& nodes, const Table<int32_t>& children,
           const std::vector<int64_t>& owner) {
  std::vector<int64_t> parents(nodes.size());
  int64_t named = 0;
  Referred referred;
  for (int64_t i = 0; i < count_of(nodes); ++i) {
    const Node& node = nodes[i];
    if (!spans(node.child_start, node.child_count, count_of(children))) return false;
    if (owner[i] < 0) continue;
    named += node.child_count;
    if (named > count_of(children) || !referred.add(node.child_count)) return false;
    const Row& row = rows[owner[i]];
    for (int64_t k = 0; k < node.child_count; ++k) {
      const int64_t child = children[node.child_start + k];
      if (!within(child, 0, row.node_count - 1)) return false;
      ++parents[row.node_start + child];
    }
  }
  for (int64_t i = 0; i < count_of(nodes); ++i)
    if (owner[i] >= 0 && nodes[i].parents != parents[i]) return false;
  return true;
}

bool is_message(const Node& node) { return node.op == Op::kSend || node.op == Op::kRecv; }

bool message_peers(const Program& p, const std::vector<int64_t>& owner) {
  struct Range {
    int64_t low, high;
  };
  std::vector<Range> allowed(p.templates.size());
  for (int64_t i = 0; i < count_of(p.templates); ++i)
    allowed[i] = p.templates[i].relative_peers != 0 ? Range{-kMostInt32, kMostInt32}
                                                    : Range{0, int64_t{p.ranks()} - 1};
  std::vector<std::pair<int64_t, int64_t>> runs;  // of rank and template
  for (int64_t i = 0; i < count_of(p.tasks); ++i) {
    const Task& task = p.tasks[i];
    const int64_t ranks = p.jobs[task.job].ranks;
    Range& range = allowed[task.template_index];
    if (p.templates[task.template_index].relative_peers != 0) {
      range.low = std::max(range.low, -int64_t{task.job_rank});
      range.high = std::min(range.high, ranks - 1 - task.job_rank);
    } else {
      range.high = std::min(range.high, ranks - 1);
      if (p.messages.size() > 0) runs.emplace_back(task.job_rank, task.template_index);
    }
  }
  std::sort(runs.begin(), runs.end());
  for (int64_t i = 0; i < count_of(p.nodes); ++i) {
    if (owner[i] < 0 || !is_message(p.nodes[i])) continue;
    const int64_t peer = p.messages[p.nodes[i].arg].peer;
    if (!within(peer, allowed[owner[i]].low, allowed[owner[i]].high)) return false;
    if (p.templates[owner[i]].relative_peers != 0
            ? peer == 0
            : std::binary_search(runs.begin(), runs.end(), std::make_pair(peer, owner[i])))
      return false;
  }
  return true;
}

bool templates(const Program& p, std::vector<int64_t>& owner) {
  return all(p.templates,
             [](const Template& one) {
               return one.compute_ps >= 0 && within(one.relative_peers, 0, 1);
             }) &&
         find_owners(p.templates, owner) && edges(p.templates, p.nodes, p.children, owner) &&
         all(p.nodes,
             [&](const Node& node) {
               return within(node.duration_ps, 0, kMost) && within(node.op, Op::kMemory) &&
                      within(node.unit, 0, kUnits - 1) &&
                      (node.op != Op::kCollective ||
                       within(node.arg, 0, count_of(p.collectives) - 1)) &&
                      (!is_message(node) || within(node.arg, 0, count_of(p.messages) - 1));
             }) &&
         all(p.messages,
             [](const MessageSpec& one) { return within(one.bytes, 1, kMost) && one.tag >= 0; }) &&
         message_peers(p, owner);
}

bool roots(const Program& p, const Graph& graph, std::vector<bool>& seen) {
  const int64_t nodes = graph.node_start;
  if (!spans(graph.root_start, graph.root_count, count_of(p.graph_roots))) return false;
  int64_t parentless = 0;
  for (int64_t i = 0; i < graph.node_count; ++i)
    parentless += p.graph_nodes[nodes + i].parents == 0;
  if (graph.root_count != parentless) return false;
  for (int64_t i = 0; i < graph.root_count; ++i) {
    const int64_t root = p.graph_roots[graph.root_start + i];
    if (!within(root, 0, graph.node_count - 1) || p.graph_nodes[nodes + root].parents != 0 ||
        seen[nodes + root])
      return false;
    seen[nodes + root] = true;
  }
  return true;
}

bool graphs(const Program& p) {
  const auto node_holds = [&](const GraphNode& node) {
    return within(node.duration_ps, 0, kMost) && within(node.op, GraphOp::kDelay) &&
           (node.op == GraphOp::kDelay ||
            (within(node.bytes, 1, kMost) && within(node.peer, 0, int64_t{p.ranks()} - 1) &&
             node.tag >= 0));
  };
  std::vector<int64_t> owner(p.graph_nodes.size(), -1);
  if (!find_owners(p.graphs, owner) || !edges(p.graphs, p.graph_nodes, p.graph_children, owner) ||
      !all(p.graph_of_position,
           [&](int32_t graph) { return within(graph, 0, count_of(p.graphs) - 1); }) ||
      !all(p.graph_nodes, node_holds))
    return false;
  std::vector<bool> seen(p.graph_nodes.size());
  std::vector<int64_t> ids;
  return all(p.graphs, [&](const Graph& graph) {
    if (!within(graph.buckets, 0, kMostBuckets)) return false;
    ids.clear();
    for (int64_t i = 0; i < graph.node_count; ++i)
      ids.push_back(p.graph_nodes[graph.node_start + i].id);
    make_distinct(ids);
    return static_cast<int64_t>(ids.size()) == graph.node_count && roots(p, graph, seen);
  });
}

// ---- collectives ----

bool groups(const Program& p) {
  const int64_t ranks = p.ranks();
  if (!all(p.members, [&](int32_t member) { return within(member, 0, ranks - 1); })) return false;
  Referred referred;
  std::vector<int64_t> last(p.members.size() > 0 ? ranks : 0, -1);  // group that lists each rank
  int64_t listed = 0;
  for (int64_t i = 0; i < count_of(p.groups); ++i) {
    const Group& group = p.groups[i];
    if (!within(group.size, 1, ranks) || !within(group.stride, 0, ranks) ||
        !within(group.tag_base, 0, kMostTag) || int64_t{group.size} * group.stride > ranks)
      return false;
    const int64_t size = group.stride == 0 ? group.size : 0;
    listed += size;
    if (!spans(group.member_start, size, count_of(p.members)) || listed > count_of(p.members) ||
        !referred.add(size))
      return false;
    for (int64_t k = 0; k < size; ++k) {
      int64_t& there = last[p.members[group.member_start + k]];
      if (there == i) return false;
      there = i;
    }
  }
  return true;
}

bool families(const Program& p) {
  const int64_t total = count_of(p.schedules), table = count_of(p.schedule_of_position);
  int64_t schedules = 0, positions = 0;
  Referred referred;
  return all(p.families, [&](const Family& one) {
    if (!spans(one.first, one.count, total) || one.count < 1 ||
        !spans(one.position_start, one.positions, table) ||
        (one.positions == 0 && one.count != 1) || !referred.add(one.positions))
      return false;
    schedules += one.count;
    positions += one.positions;
    if (schedules > total || positions > table) return false;
    for (int64_t i = 0; i < one.positions; ++i)
      if (!within(p.schedule_of_position[one.position_start + i], 0, one.count - 1)) return false;
    return true;
  });
}

bool phases(const Program& p) {
  return all(p.phases, [&](const Phase& one) {
    if (!within(one.level, 0, p.levels - 1) || !within(one.layout, 0, count_of(p.groups) - 1) ||
        !within(one.family0, 0, count_of(p.families) - 1) ||
        !within(one.family1, 0, count_of(p.families) - 1) || !within(one.pick, QueuePick::kLast) ||
        !within(one.variant, Variant::kAgreed) || !within(one.bus, Bus::kNone) ||
        (one.variant == Variant::kAlternate && !within(one.slot, 0, p.alternate_slots - 1)))
      return false;
    for (const int32_t family : {one.family0, one.family1}) {
      const int32_t positions = p.families[family].positions;
      if (positions != 0 && positions != p.groups[one.layout].size) return false;
    }
    return true;
  });
}

bool collectives(const Program& p) {
  return all(p.collectives,
             [&](const Collective& one) {
               if (!within(one.chunks, 1, kMostChunks) ||
                   !within(one.group, 0, count_of(p.groups) - 1) ||
                   !within(one.kind, 0, kMostKind) || !within(one.bytes, 0, kMost))
                 return false;
               const int64_t size = p.groups[one.group].size;
               if (one.chunks * size > kMostStreams) return false;
               if (one.graph >= 0) return one.graph <= count_of(p.graph_of_position) - size;
               return one.graph == -1 && one.plan_count >= 1 &&
                      spans(one.plan_start, one.plan_count, count_of(p.plans));
             }) &&
         all(p.plans,
             [&](const Plan& one) {
               return one.phase_count >= 1 &&
                      spans(one.phase_start, one.phase_count, count_of(p.phases));
             }) &&
         families(p) && phases(p);
}

// ---- schedules ----

bool step_holds(const Schedule& schedule, int64_t k, const Step& step, int64_t size,
                int64_t received) {
  const auto peer_holds = [&](int64_t bytes, int64_t peer) {
    const int64_t distance = step.peers == Peers::kXor ? peer : std::abs(peer);
    return bytes == 0 || within(distance, 1, size - 1);
  };
  // Each packet lets `burst` steps run: those that follow must fit into the packets that follow.
  const int64_t later = schedule.step_count - 1 - k;
  return peer_holds(step.send_bytes, step.send_to) && peer_holds(step.recv_bytes, step.recv_from) &&
         within(step.need, 0, schedule.window + received) &&
         (step.need == 0 || step.need + later / schedule.burst <= schedule.end);
}

bool schedules(const Table<Schedule>& schedules, const Table<Step>& steps,
               const Table<Packet>& packets, const Table<int64_t>& sizes) {
  const bool rows = all(steps,
                        [](const Step& one) {
                          return within(one.send_bytes, 0, kMost) &&
                                 within(one.recv_bytes, 0, kMost) &&
                                 within(one.peers, Peers::kReduced);
                        }) &&
                    all(packets, [](const Packet& one) {
                      return within(one.bytes, 0, kMost) && within(one.reduce_ps, 0, kMost) &&
                             within(one.flags, 0, kMostFlags);
                    });
  if (!rows) return false;
  int64_t total = 0;
  Referred referred;
  for (int64_t i = 0; i < count_of(schedules); ++i) {
    const Schedule& one = schedules[i];
    if (!spans(one.step_start, one.step_count, count_of(steps)) || one.window < 0 ||
        one.burst < 1 || one.gate_step < 0 || one.gate_received < 0)
      return false;
    total += one.step_count;
    if (total > count_of(steps) || !referred.add(one.step_count)) return false;
    int64_t received = 0;
    for (int64_t k = 0; k < one.step_count; ++k) {
      const Step& step = steps[one.step_start + k];
      if (k == one.gate_step && one.gate_received > received) return false;
      if (!step_holds(one, k, step, sizes[i], received)) return false;
      received += step.recv_bytes > 0;
    }
    if (one.end < 1 || one.end != one.window + received ||
        !within(one.packet_start, 0, count_of(packets) - one.end))
      return false;
  }
  return true;
}

// Each family with each size of a group that runs it.
std::vector<std::pair<int64_t, int64_t>> family_sizes(const Program& p) {
  std::vector<std::pair<int64_t, int64_t>> result;
  for (int64_t i = 0; i < count_of(p.phases); ++i) {
    const Phase& phase = p.phases[i];
    const int64_t size = p.groups[phase.layout].size;
    result.emplace_back(phase.family0, size);
    result.emplace_back(phase.family1, size);
  }
  make_distinct(result);
  return result;
}

// An exclusive or stays within the group, at every position that plays it.
bool exclusive_ors(const Program& p, const std::vector<std::pair<int64_t, int64_t>>& sizes) {
  if (all(p.steps, [](const Step& step) { return step.peers != Peers::kXor; })) return true;
  Referred referred;
  // `own` -1: for all positions, so the group must consist of whole blocks, of the next power of 2.
  const auto stays = [](int64_t own, int64_t value, int64_t size) {
    if (own >= 0) return (own ^ value) < size;
    int64_t block = 1;
    while (block <= value) block *= 2;
    return size % block == 0;
  };
  const auto schedule_holds = [&](const Schedule& one, int64_t own, int64_t size) {
    if (!referred.add(one.step_count)) return false;
    for (int64_t k = 0; k < one.step_count; ++k) {
      const Step& step = p.steps[one.step_start + k];
      if (step.peers != Peers::kXor) continue;
      if ((step.send_bytes != 0 && !stays(own, step.send_to, size)) ||
          (step.recv_bytes != 0 && !stays(own, step.recv_from, size)))
        return false;
    }
    return true;
  };
  return std::all_of(sizes.begin(), sizes.end(), [&](const std::pair<int64_t, int64_t>& pair) {
    const Family& family = p.families[pair.first];
    if (family.positions == 0) return schedule_holds(p.schedules[family.first], -1, pair.second);
    for (int64_t own = 0; own < family.positions; ++own) {
      const int64_t which = p.schedule_of_position[family.position_start + own];
      if (!schedule_holds(p.schedules[family.first + which], own, pair.second)) return false;
    }
    return true;
  });
}

bool family_schedules(const Program& p) {
  const auto family_size = family_sizes(p);
  std::vector<int64_t> sizes(p.schedules.size(), kMostInt32);  // the smallest that runs each
  for (const auto& [family, size] : family_size)
    for (int64_t i = 0; i < p.families[family].count; ++i) {
      int64_t& smallest = sizes[p.families[family].first + i];
      smallest = std::min(smallest, size);
    }
  if (!schedules(p.schedules, p.steps, p.packets, {sizes.data(), sizes.size()}) ||
      !exclusive_ors(p, family_size))
    return false;
  // Without a bus to cross, packets of the own data could end a stream while it starts.
  std::vector<bool> silent(p.families.size());  // some schedule receives nothing
  for (int64_t family = 0; family < count_of(p.families); ++family)
    for (int64_t i = 0; i < p.families[family].count; ++i) {
      const Schedule& one = p.schedules[p.families[family].first + i];
      if (one.end == one.window) silent[family] = true;
    }
  return all(p.phases, [&](const Phase& one) {
    return one.bus != Bus::kNone || (!silent[one.family0] && !silent[one.family1]);
  });
}

// ---- who runs which collective ----

class Users {
 public:
  Users(const Program& program, const std::vector<int64_t>& template_of_node) : p(program) {
    first_.assign(p.templates.size() + 1, 0);
    for (int64_t i = 0; i < count_of(p.tasks); ++i) ++first_[p.tasks[i].template_index + 1];
    for (size_t i = 0; i < p.templates.size(); ++i) first_[i + 1] += first_[i];
    std::vector<int64_t> next(first_);
    ranks_.resize(p.tasks.size());
    for (int64_t i = 0; i < count_of(p.tasks); ++i) {
      const Task& task = p.tasks[i];
      ranks_[next[task.template_index]++] = {task.job_rank, p.jobs[task.job].ranks};
    }
    for (int64_t i = 0; i < count_of(p.nodes); ++i)
      if (template_of_node[i] >= 0 && p.nodes[i].op == Op::kCollective)
        runs_.emplace_back(template_of_node[i], p.nodes[i].arg);
    std::sort(runs_.begin(), runs_.end());
    for (int64_t group = 0; group < count_of(p.groups); ++group)
      if (p.groups[group].stride == 0)
        for (int64_t k = 0; k < p.groups[group].size; ++k)
          listed_.push_back({group, p.members[p.groups[group].member_start + k], k});
    std::sort(listed_.begin(), listed_.end());
  }

  bool keep_rules() {
    if (!transfers()) return false;
    runs_.erase(std::unique(runs_.begin(), runs_.end()), runs_.end());
    return members() && graph_peers();
  }

 private:
  struct Rank {
    int64_t rank, job_ranks;
  };
  struct Member {
    int64_t group, rank, position;
    bool operator<(const Member& other) const {
      return std::tie(group, rank) < std::tie(other.group, other.rank);
    }
  };

  int64_t users(int64_t of) const { return first_[of + 1] - first_[of]; }

  // Of a rank in a group, or -1.
  int64_t position(int64_t group, int64_t rank) const {
    const Group& one = p.groups[group];
    if (one.stride > 0) return rank / one.stride % one.size;
    const auto at = std::lower_bound(listed_.begin(), listed_.end(), Member{group, rank, 0});
    return at != listed_.end() && at->group == group && at->rank == rank ? at->position : -1;
  }

  // For each collective its group, and the lists that its phases are laid out in.
  bool find_groups(Lists& result) const {
    std::vector<std::pair<int64_t, int64_t>> spans;
    spans.reserve(p.plans.size());
    for (int64_t i = 0; i < count_of(p.plans); ++i)
      spans.emplace_back(p.plans[i].phase_start, p.plans[i].phase_count);
    const auto plan_spans = spans;
    make_distinct(spans);
    Lists layouts;  // of each span
    Referred phases, plans, groups;
    std::vector<int64_t> found;
    for (const auto& [start, count] : spans) {
      if (!phases.add(count)) return false;
      found.clear();
      for (int64_t i = start; i < start + count; ++i)
        if (p.groups[p.phases[i].layout].stride == 0) found.push_back(p.phases[i].layout);
      make_distinct(found);
      layouts.entries.insert(layouts.entries.end(), found.begin(), found.end());
      layouts.end();
    }
    for (int64_t i = 0; i < count_of(p.collectives); ++i) {
      const Collective& one = p.collectives[i];
      const int64_t planned = one.graph < 0 ? one.plan_count : 0;
      if (!plans.add(planned)) return false;
      found.assign(1, one.group);
      for (int64_t k = 0; k < planned; ++k) {
        const auto at =
            std::lower_bound(spans.begin(), spans.end(), plan_spans[one.plan_start + k]);
        const int64_t span = at - spans.begin();
        if (!groups.add(layouts.size(span))) return false;
        found.insert(found.end(), layouts.begin_of(span), layouts.end_of(span));
      }
      make_distinct(found);
      result.entries.insert(result.entries.end(), found.begin(), found.end());
      result.end();
    }
    return true;
  }

  bool members() const {
    Lists groups;
    if (!find_groups(groups)) return false;
    std::vector<int64_t> greatest(p.groups.size(), -1);  // rank that a list names
    for (const Member& one : listed_) greatest[one.group] = std::max(greatest[one.group], one.rank);
    std::vector<std::pair<int64_t, int64_t>> pairs;  // template and group
    Referred named, ranks;
    for (const auto& [user, collective] : runs_) {
      if (!named.add(groups.size(collective))) return false;
      for (const int64_t* group = groups.begin_of(collective); group != groups.end_of(collective);
           ++group)
        pairs.emplace_back(user, *group);
    }
    make_distinct(pairs);
    for (const auto& [user, index] : pairs) {
      if (!ranks.add(users(user))) return false;
      const Group& group = p.groups[index];
      for (int64_t i = first_[user]; i < first_[user + 1]; ++i) {
        const Rank& one = ranks_[i];
        const int64_t at = position(index, one.rank);
        const int64_t last = one.rank + (group.size - 1 - at) * group.stride;
        if (at < 0 || greatest[index] >= one.job_ranks || last >= one.job_ranks) return false;
      }
    }
    return true;
  }

  bool graph_peers() const {
    std::vector<std::pair<int64_t, int64_t>> pairs;  // graph and rank
    std::vector<int64_t> least(p.graphs.size(), kMostInt32 + 1);  // ranks of a job that runs each
    Referred ranks, nodes;
    for (const auto& [user, index] : runs_) {
      const Collective& collective = p.collectives[index];
      if (collective.graph < 0) continue;
      if (!ranks.add(users(user))) return false;
      for (int64_t i = first_[user]; i < first_[user + 1]; ++i) {
        const int64_t at = position(collective.group, ranks_[i].rank);
        const int64_t graph = p.graph_of_position[collective.graph + at];
        pairs.emplace_back(graph, ranks_[i].rank);
        least[graph] = std::min(least[graph], ranks_[i].job_ranks);
      }
    }
    make_distinct(pairs);
    for (const auto& [index, rank] : pairs) {
      const Graph& graph = p.graphs[index];
      if (!nodes.add(graph.node_count)) return false;
      for (int64_t i = graph.node_start; i < graph.node_start + graph.node_count; ++i) {
        const GraphNode& node = p.graph_nodes[i];
        if (node.op != GraphOp::kDelay && (node.peer == rank || node.peer >= least[index]))
          return false;
      }
    }
    return true;
  }

  // Whether an engine could send all messages in its life.
  bool transfers() const {
    std::vector<double> of_family, of_phases{0}, of_plans{0}, of_run;  // the middle two summed up
    const auto sends = [this](const Schedule& one) {
      int64_t count = 0;
      for (int64_t k = 0; k < one.step_count; ++k)
        count += p.steps[one.step_start + k].send_bytes > 0;
      return static_cast<double>(count);
    };
    std::vector<double> of_schedule;
    of_schedule.reserve(p.schedules.size());
    for (int64_t i = 0; i < count_of(p.schedules); ++i)
      of_schedule.push_back(sends(p.schedules[i]));
    for (int64_t i = 0; i < count_of(p.families); ++i) {
      const Family& one = p.families[i];
      double total = one.positions == 0 ? of_schedule[one.first] : 0;
      for (int64_t k = 0; k < one.positions; ++k)
        total += of_schedule[one.first + p.schedule_of_position[one.position_start + k]];
      of_family.push_back(total / std::max(one.positions, 1));
    }
    for (int64_t i = 0; i < count_of(p.phases); ++i)
      of_phases.push_back(of_phases.back() +
                          std::max(of_family[p.phases[i].family0], of_family[p.phases[i].family1]));
    for (int64_t i = 0; i < count_of(p.plans); ++i) {
      const int64_t start = p.plans[i].phase_start;
      of_plans.push_back(of_plans.back() + of_phases[start + p.plans[i].phase_count] -
                         of_phases[start]);
    }
    for (int64_t i = 0; i < count_of(p.collectives); ++i) {
      const Collective& one = p.collectives[i];
      of_run.push_back(
          one.graph >= 0 ? 0
                         : (of_plans[one.plan_start + one.plan_count] - of_plans[one.plan_start]) /
                               one.plan_count * static_cast<double>(one.chunks));
    }
    double total = 0;
    for (const auto& [user, collective] : runs_)
      total += static_cast<double>(users(user)) * of_run[collective];
    return total <= kMostTransfers;
  }

  const Program& p;
  std::vector<int64_t> first_;  // of each template in ranks_
  std::vector<Rank> ranks_;
  std::vector<std::pair<int64_t, int64_t>> runs_;  // template and collective, for each node
  std::vector<Member> listed_;
};

// ---- what an algorithm has built ----

// What the members of one group send to one another, and what they expect.
class Messages {
 public:
  // One member stands for all: who receives, where it sends.
  Messages(int64_t size, bool shared) : size_(size), shared_(shared) {}

  // False where a peer is no member.
  bool add(int64_t own, const Step& step) {
    if (step.send_bytes > 0) {
      const int64_t to = peer(own, step.peers, step.send_to);
      if (to >= size_) return false;
      sent_.emplace_back(own, to, step.send_bytes);
    }
    if (step.recv_bytes > 0) {
      int64_t from = peer(own, step.peers, step.recv_from), to = own;
      if (from >= size_) return false;
      if (shared_) {
        to = step.peers == Peers::kXor ? from : (size_ - from) % size_;
        from = 0;
      }
      wanted_.emplace_back(from, to, step.recv_bytes);
    }
    return true;
  }

  bool agree() {
    if (sent_ == wanted_) return true;
    std::sort(sent_.begin(), sent_.end());
    std::sort(wanted_.begin(), wanted_.end());
    return sent_ == wanted_;
  }

 private:
  int64_t peer(int64_t own, Peers peers, int64_t value) const {
    return peers == Peers::kXor ? own ^ value : ((own + value) % size_ + size_) % size_;
  }

  int64_t size_;
  bool shared_;
  std::vector<std::tuple<int64_t, int64_t, int64_t>> sent_, wanted_;  // from, to, bytes
};

}  // namespace rules

bool keeps_rules(const Program& program) {
  std::vector<int64_t> template_of_node(program.nodes.size(), -1);
  return rules::machines(program) && rules::tasks(program) &&
         rules::templates(program, template_of_node) && rules::groups(program) &&
         rules::collectives(program) && rules::family_schedules(program) &&
         rules::graphs(program) && rules::Users(program, template_of_node).keep_rules();
}

bool schedules_keep_rules(const Table<Schedule>& schedules, const Table<Step>& steps,
                          const Table<Packet>& packets, const Table<int64_t>& sizes) {
  return rules::schedules(schedules, steps, packets, sizes);
}

bool peers_agree(const Table<Family>& families, const Table<int32_t>& schedule_of_position,
                 const Table<Schedule>& schedules, const Table<Step>& steps,
                 const Table<int64_t>& sizes) {
  for (int64_t i = 0; i < rules::count_of(families); ++i) {
    const Family& family = families[i];
    const int64_t size = sizes[i];
    const Schedule& first = schedules[family.first];
    int64_t exclusive = 0;
    for (int64_t k = 0; k < first.step_count; ++k)
      exclusive += steps[first.step_start + k].peers == Peers::kXor;
    // An exclusive or stays within a power of two.
    const bool shared =
        family.positions == 0 &&
        (exclusive == 0 || (exclusive == first.step_count && (size & (size - 1)) == 0));
    const int64_t members = shared ? 1 : family.positions == 0 ? size : family.positions;
    rules::Messages messages(size, shared);
    for (int64_t own = 0; own < members; ++own) {
      const int64_t which =
          family.positions == 0 ? 0 : schedule_of_position[family.position_start + own];
      const Schedule& one = schedules[family.first + which];
      for (int64_t k = 0; k < one.step_count; ++k)
        if (!messages.add(own, steps[one.step_start + k])) return false;
    }
    if (!messages.agree()) return false;
  }
  return true;
}

}  // namespace engine
