// SPDX-License-Identifier: MIT
#include "config.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <queue>

namespace garnet {
namespace {

constexpr int32_t kNoLinkWeight = 10'000;  // Garnet does not create links of weight 0 or 10000

void require(bool ok, const std::string& message) {
  if (!ok) throw ConfigError(message);
}

std::string number(int64_t value) { return std::to_string(value); }

void check_wire(const Wire& wire, const std::string& what) {
  require(wire.latency >= 0 && wire.latency <= 1'000'000'000,
          what + ": latency " + number(wire.latency) + " cycles; allowed: 0 .. 1000000000");
  require(
      wire.cycles_per_flit >= 1.0 && wire.cycles_per_flit <= 1e9,
      what + ": " + std::to_string(wire.cycles_per_flit) + " cycles per flit; allowed: 1 .. 1e9");
}

// The table of Garnet: minimum total weight, then minimum weight of the link itself, then the
// lowest output port.  Output ports are ordered by destination router.
std::vector<int32_t> weight_table(const Config& config) {
  const auto routers = static_cast<int32_t>(config.router_latency.size());
  const auto size = static_cast<size_t>(routers);
  std::vector<std::vector<int32_t>> into(size), out_of(size);
  for (int32_t c = 0; c < static_cast<int32_t>(config.channels.size()); ++c) {
    const Channel& channel = config.channels[static_cast<size_t>(c)];
    if (channel.weight == 0 || channel.weight == kNoLinkWeight) continue;
    into[static_cast<size_t>(channel.dst)].push_back(c);
    out_of[static_cast<size_t>(channel.src)].push_back(c);
  }
  for (auto& list : out_of)
    std::stable_sort(list.begin(), list.end(), [&](int32_t a, int32_t b) {
      return config.channels[static_cast<size_t>(a)].dst <
             config.channels[static_cast<size_t>(b)].dst;
    });
  std::vector<bool> wanted(size, false);
  for (const Node& node : config.nodes) wanted[static_cast<size_t>(node.router)] = true;

  constexpr int64_t kFar = std::numeric_limits<int64_t>::max() / 4;
  std::vector<int32_t> table(size * size, -1);
  std::vector<int64_t> distance(size);
  using Entry = std::pair<int64_t, int32_t>;
  for (int32_t target = 0; target < routers; ++target) {
    if (!wanted[static_cast<size_t>(target)]) continue;
    std::fill(distance.begin(), distance.end(), kFar);
    distance[static_cast<size_t>(target)] = 0;
    std::priority_queue<Entry, std::vector<Entry>, std::greater<Entry>> frontier;
    frontier.emplace(0, target);
    while (!frontier.empty()) {
      const auto [far, at] = frontier.top();
      frontier.pop();
      if (far != distance[static_cast<size_t>(at)]) continue;
      for (int32_t c : into[static_cast<size_t>(at)]) {
        const Channel& channel = config.channels[static_cast<size_t>(c)];
        int64_t& known = distance[static_cast<size_t>(channel.src)];
        if (far + channel.weight < known) {
          known = far + channel.weight;
          frontier.emplace(known, channel.src);
        }
      }
    }
    for (int32_t r = 0; r < routers; ++r) {
      if (r == target || distance[static_cast<size_t>(r)] == kFar) continue;
      int32_t best = -1, best_weight = std::numeric_limits<int32_t>::max();
      for (int32_t c : out_of[static_cast<size_t>(r)]) {
        const Channel& channel = config.channels[static_cast<size_t>(c)];
        const bool shortest = channel.weight + distance[static_cast<size_t>(channel.dst)] ==
                              distance[static_cast<size_t>(r)];
        if (shortest && channel.weight < best_weight) {
          best = c;
          best_weight = channel.weight;
        }
      }
      table[static_cast<size_t>(r) * size + static_cast<size_t>(target)] = best;
    }
  }
  return table;
}

std::vector<int32_t> xy_table(const Config& config) {
  const auto routers = static_cast<int32_t>(config.router_latency.size());
  const int32_t columns = routers / config.num_rows;
  const auto size = static_cast<size_t>(routers);
  enum { kEast, kWest, kNorth, kSouth };
  const char* const names[] = {"East", "West", "North", "South"};
  const int32_t step[] = {1, -1, columns, -columns};
  std::vector<int32_t> port(size * 4, -1);
  for (size_t c = 0; c < config.channels.size(); ++c) {
    const Channel& channel = config.channels[c];
    for (size_t d = 0; d < 4; ++d) {
      const bool beside = channel.dst - channel.src == step[d] &&
                          (d > kWest || channel.dst / columns == channel.src / columns);
      if (channel.port.empty() ? beside : channel.port == names[d]) {
        require(beside, "link " + number(channel.src) + " -> " + number(channel.dst) +
                            ": its port is " + names[d] +
                            ", but its end is not the neighbour in that direction (XY routing on " +
                            number(config.num_rows) + " rows of " + number(columns) + ")");
        port[static_cast<size_t>(channel.src) * 4 + d] = static_cast<int32_t>(c);
        break;
      }
    }
  }
  std::vector<int32_t> table(size * size, -1);
  for (int32_t r = 0; r < routers; ++r)
    for (int32_t t = 0; t < routers; ++t) {
      if (r == t) continue;
      const int32_t x = r % columns, tx = t % columns;
      const size_t d = x < tx ? kEast : x > tx ? kWest : r < t ? kNorth : kSouth;
      table[static_cast<size_t>(r) * size + static_cast<size_t>(t)] =
          port[static_cast<size_t>(r) * 4 + d];
    }
  return table;
}

// Follows the ways to one target: refuses circles, and erases ways that break off.
void follow(const Config& config, std::vector<int32_t>& table, size_t targets, size_t target,
            size_t target_router) {
  enum { kUnknown, kOnWalk, kArrives, kEnds };
  std::vector<int8_t> state(config.router_latency.size(), kUnknown);
  state[target_router] = kArrives;
  std::vector<size_t> walk;
  for (size_t from = 0; from < state.size(); ++from) {
    walk.clear();
    size_t r = from;
    while (state[r] == kUnknown) {
      state[r] = kOnWalk;
      walk.push_back(r);
      const int32_t channel = table[r * targets + target];
      if (channel < 0)
        state[r] = kEnds;
      else
        r = static_cast<size_t>(config.channels[static_cast<size_t>(channel)].dst);
    }
    require(state[r] != kOnWalk, "the routes to " + number(static_cast<int64_t>(target)) +
                                     " go in a circle through router " +
                                     number(static_cast<int64_t>(r)));
    for (size_t w : walk) {
      state[w] = state[r];
      if (state[r] == kEnds) table[w * targets + target] = -1;
    }
  }
}

// Explicit next hops.
std::vector<int32_t> custom_table(const Config& config) {
  const size_t routers = config.router_latency.size(), nodes = config.nodes.size();
  std::vector<int32_t> table(routers * nodes, -1);
  std::map<std::pair<int32_t, int32_t>, int32_t> channel_between;
  for (size_t c = 0; c < config.channels.size(); ++c)
    channel_between.emplace(std::pair{config.channels[c].src, config.channels[c].dst},
                            static_cast<int32_t>(c));
  for (const Route& route : config.routes) {
    const auto at = channel_between.find({route.router, route.next});
    require(at != channel_between.end(), "route at router " + number(route.router) + " for node " +
                                             number(route.node) + ": no link goes to router " +
                                             number(route.next));
    table[static_cast<size_t>(route.router) * nodes + static_cast<size_t>(route.node)] = at->second;
  }
  return table;
}

}  // namespace

void validate(const Config& config) {
  require(config.clock_hz >= 1 && config.clock_hz <= 1'000'000'000'000,
          "clock_hz " + number(config.clock_hz) + "; allowed: 1 .. 1000000000000");
  require(config.flit_bytes >= 1 && config.flit_bytes <= 1'000'000'000,
          "flit_bytes " + number(config.flit_bytes) + "; allowed: 1 .. 1000000000");
  require(!config.vnets.empty() && config.vnets.size() <= 32,
          number(static_cast<int64_t>(config.vnets.size())) + " vnets; allowed: 1 .. 32");
  require(config.vcs_per_vnet >= 1 && config.vcs_per_vnet <= 256,
          "vcs_per_vnet " + number(config.vcs_per_vnet) + "; allowed: 1 .. 256");
  require(static_cast<int64_t>(config.vnets.size()) * config.vcs_per_vnet <= 1024,
          number(static_cast<int64_t>(config.vnets.size()) * config.vcs_per_vnet) +
              " VCs per port (vnets * vcs_per_vnet); allowed: up to 1024");
  for (const auto& [name, value] :
       {std::pair<const char*, int64_t>{"buffers_per_ctrl_vc", config.buffers_per_ctrl_vc},
        {"buffers_per_data_vc", config.buffers_per_data_vc}})
    require(value >= 1 && value <= 1'000'000'000,
            std::string(name) + " " + number(value) + "; allowed: 1 .. 1000000000");
  require(!config.packet_bytes.empty(), "packet_bytes is empty");
  for (int64_t bytes : config.packet_bytes)
    require(bytes >= 0,
            "packet_bytes " + number(bytes) + "; allowed: 0 (a message is one packet) or more");
  constexpr int64_t kMostCycles = 1'000'000'000'000'000;
  require(config.deadlock_threshold >= 1 && config.deadlock_threshold <= kMostCycles,
          "deadlock_threshold " + number(config.deadlock_threshold) + "; allowed: 1 .. 10^15");
  require(config.series_cycles >= 0 && config.series_cycles <= kMostCycles,
          "series_cycles " + number(config.series_cycles) + "; allowed: 0 (off) .. 10^15");
  const auto routers = static_cast<int64_t>(config.router_latency.size());
  require(routers >= 1 && routers <= 16'384, number(routers) + " routers; allowed: 1 .. 16384");
  for (int64_t r = 0; r < routers; ++r) {
    const int32_t latency = config.router_latency[static_cast<size_t>(r)];
    require(
        latency >= 1 && latency <= 1'000'000,
        "router " + number(r) + ": latency " + number(latency) + " cycles; allowed: 1 .. 1000000");
  }
  require(!config.nodes.empty(), "no nodes: a network needs at least one network interface");
  require(config.routing != Routing::kCustom ||
              routers * static_cast<int64_t>(config.nodes.size()) <= int64_t{16'384} * 16'384,
          "custom routing of " + number(static_cast<int64_t>(config.nodes.size())) +
              " nodes over " + number(routers) + " routers needs too large a table");
  for (size_t n = 0; n < config.nodes.size(); ++n) {
    const Node& node = config.nodes[n];
    const std::string what = "node " + number(static_cast<int64_t>(n));
    require(node.router >= 0 && node.router < routers,
            what + ": router " + number(node.router) + "; allowed: 0 .. " + number(routers - 1));
    require(node.weight >= 0, what + ": weight " + number(node.weight) + "; allowed: 0 or more");
    check_wire(node.wire, what);
  }
  for (size_t c = 0; c < config.channels.size(); ++c) {
    const Channel& channel = config.channels[c];
    const std::string what = "link " + number(static_cast<int64_t>(c));
    for (int32_t end : {channel.src, channel.dst})
      require(end >= 0 && end < routers,
              what + ": router " + number(end) + "; allowed: 0 .. " + number(routers - 1));
    require(channel.src != channel.dst,
            what + ": goes from router " + number(channel.src) + " to itself");
    require(channel.weight >= 0,
            what + ": weight " + number(channel.weight) + "; allowed: 0 or more");
    require(channel.dimension >= 0 && channel.dimension <= 1000,
            what + ": dimension " + number(channel.dimension) + "; allowed: 0 .. 1000");
    check_wire(channel.wire, what);
  }
  for (const Route& route : config.routes) {
    require(route.router >= 0 && route.router < routers && route.next >= 0 && route.next < routers,
            "route: routers " + number(route.router) + ", " + number(route.next) +
                "; allowed: 0 .. " + number(routers - 1));
    require(route.node >= 0 && route.node < static_cast<int64_t>(config.nodes.size()),
            "route: node " + number(route.node) + "; allowed: 0 .. " +
                number(static_cast<int64_t>(config.nodes.size()) - 1));
  }
  require(config.routing != Routing::kCustom || !config.routes.empty(),
          "routing custom needs routes");
  if (config.routing == Routing::kXy)
    require(config.num_rows >= 1 && routers % config.num_rows == 0,
            "num_rows " + number(config.num_rows) + " with " + number(routers) +
                " routers: XY routing needs rows of equal length");
  require(!config.dateline || config.vcs_per_vnet >= 2,
          "deadlock_avoidance dateline needs vcs_per_vnet 2 or more");
}

std::vector<int32_t> compute_routes(const Config& config) {
  const size_t routers = config.router_latency.size();
  if (config.routing == Routing::kGraph) return {};
  if (config.routing == Routing::kTable) return weight_table(config);
  const bool by_node = config.routing == Routing::kCustom;
  std::vector<int32_t> table = by_node ? custom_table(config) : xy_table(config);
  const size_t targets = by_node ? config.nodes.size() : routers;
  for (size_t t = 0; t < targets; ++t)
    follow(config, table, targets, t, by_node ? static_cast<size_t>(config.nodes[t].router) : t);
  return table;
}

}  // namespace garnet
