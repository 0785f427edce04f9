// SPDX-License-Identifier: MIT
//
// What a Garnet network is made of.  All times are in cycles of the router clock.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "astra_routes.hpp"

namespace garnet {

// A value that the caller gave is wrong; the message says which and what is allowed.
struct ConfigError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Vnet {
  bool data = true;  // data vnets have buffers_per_data_vc slots per VC, the others ..ctrl_vc
  bool ordered = false;  // packets of one source keep their order on the way
};

struct Wire {
  int64_t latency = 1;  // [cycles]; gem5 documents >= 1, and is undefined below
  double cycles_per_flit = 1.0;  // >= 1; more than 1 where the link is narrower or slower
};

struct Node {  // a network interface
  int32_t router = 0;
  int32_t weight = 1;
  Wire wire;  // both directions
};

struct Channel {  // a directed link between two routers
  int32_t src = 0, dst = 0;
  int32_t weight = 1;
  Wire wire;
  std::string port;  // direction at the source ("East", ...), read by XY routing
  int32_t dimension = 0;
  bool ring = false;  // part of a ring of its dimension (dateline VCs) ...
  bool dateline = false;  // ... and this link closes it
};

struct Route {  // custom routing: at `router`, packets for `node` go to router `next`
  int32_t router = 0, node = 0, next = 0;
};

enum class Routing { kTable, kXy, kCustom, kGraph };

struct Config {
  int64_t clock_hz = 1'000'000'000;
  int64_t flit_bytes = 16;
  std::vector<Vnet> vnets{Vnet{}};
  int32_t vcs_per_vnet = 4;
  int64_t buffers_per_ctrl_vc = 1;
  int64_t buffers_per_data_vc = 4;
  Routing routing = Routing::kTable;
  int32_t num_rows = 0;
  bool dateline = false;  // split the VCs of a vnet in two classes, see Channel::ring
  // By the dimension of a message's first link, the last one for all further dimensions;
  // 0: a message is one packet.
  std::vector<int64_t> packet_bytes{0};
  int64_t deadlock_threshold = 50'000;  // [cycles], Garnet's own default
  int64_t series_cycles = 0;  // length of a bin of the load over time; 0: not recorded
  bool record_packets = false;
  bool fast_forward = false;  // jump over cycles that repeat others
  std::vector<int32_t> router_latency;  // one per router
  std::vector<Node> nodes;
  std::vector<Channel> channels;
  std::vector<Route> routes;
  std::optional<astra_net::Routes> graph;  // of kGraph: a router per node, a channel per link
};

// Throws ConfigError.
void validate(const Config& config);

// Entry r * routers + d: index into config.channels of the first link of the way from router r to
// router d, or -1 where there is no complete way.  For custom routing d is a node, of `nodes`.
std::vector<int32_t> compute_routes(const Config& config);

}  // namespace garnet
