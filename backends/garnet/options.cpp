// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "astra_load.hpp"

namespace garnet {
namespace {

using astra_net::Error;

// Records of an option: rows separated by ';' or ',', fields by blanks.
std::vector<std::vector<std::string>> rows_of(const std::string& value) {
  std::vector<std::vector<std::string>> rows;
  std::string row;
  const auto finish = [&] {
    std::istringstream fields(row);
    std::vector<std::string> found;
    for (std::string field; fields >> field;) found.push_back(field);
    if (!found.empty()) rows.push_back(found);
    row.clear();
  };
  for (char c : value) {
    if (c == ';' || c == ',')
      finish();
    else
      row += c;
  }
  finish();
  return rows;
}

[[noreturn]] void refuse(const std::string& key, size_t row, const std::string& why) {
  throw Error(ASTRA_NET_INVALID, "option '" + key + "', entry " + std::to_string(row) + ": " + why);
}

int64_t whole(const std::string& key, size_t row, const std::string& field) {
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(field.c_str(), &end, 10);
  if (errno != 0 || *end != '\0') refuse(key, row, "'" + field + "' is not a whole number");
  return value;
}

int32_t small(const std::string& key, size_t row, const std::string& field) {
  const int64_t value = whole(key, row, field);
  if (value < INT32_MIN || value > INT32_MAX) refuse(key, row, "'" + field + "' is out of range");
  return static_cast<int32_t>(value);
}

double real(const std::string& key, size_t row, const std::string& field) {
  char* end = nullptr;
  const double value = std::strtod(field.c_str(), &end);
  if (*end != '\0' || !std::isfinite(value)) refuse(key, row, "'" + field + "' is not a number");
  return value;
}

const std::vector<std::string>& expect(const std::string& key, size_t row,
                                       const std::vector<std::string>& fields, size_t least,
                                       size_t most, const char* format) {
  if (fields.size() < least || fields.size() > most)
    refuse(key, row, std::to_string(fields.size()) + " fields; expected: " + format);
  return fields;
}

// One value per link; empty where the option is not given.
std::vector<int32_t> per_link(astra_net::Options& options, const std::string& key, size_t links) {
  std::vector<int32_t> values;
  const auto rows = rows_of(options.text(key, ""));
  for (size_t i = 0; i < rows.size(); ++i)
    for (const std::string& field : rows[i]) values.push_back(small(key, i, field));
  if (!values.empty() && values.size() != links)
    throw Error(ASTRA_NET_INVALID, "option '" + key + "' has " + std::to_string(values.size()) +
                                       " values, but there are " + std::to_string(links) +
                                       " links");
  return values;
}

std::vector<int64_t> read_packet_bytes(astra_net::Options& options, int64_t fallback) {
  std::vector<int64_t> sizes;
  const auto rows = rows_of(options.text("packet_bytes", std::to_string(fallback)));
  for (size_t i = 0; i < rows.size(); ++i)
    for (const std::string& field : rows[i]) sizes.push_back(whole("packet_bytes", i, field));
  return sizes;
}

std::vector<Vnet> read_vnets(astra_net::Options& options, const char* fallback) {
  std::vector<Vnet> vnets;
  const auto rows = rows_of(options.text("vnets", fallback));
  for (size_t i = 0; i < rows.size(); ++i) {
    Vnet vnet;
    const auto& fields = expect("vnets", i, rows[i], 1, 2, "data | ctrl, then maybe: ordered");
    if (fields[0] != "data" && fields[0] != "ctrl")
      refuse("vnets", i, "'" + fields[0] + "' is not data or ctrl");
    if (fields.size() > 1 && fields[1] != "ordered")
      refuse("vnets", i, "'" + fields[1] + "' is not: ordered");
    vnet.data = fields[0] == "data";
    vnet.ordered = fields.size() > 1;
    vnets.push_back(vnet);
  }
  return vnets;
}

// The topology in Garnet's own terms: options "routers", "nodes" and "links".
void read_topology(astra_net::Config& given, Config& config) {
  const auto routers = rows_of(given.options.text("routers", ""));
  for (size_t i = 0; i < routers.size(); ++i)
    for (const std::string& field : routers[i])
      config.router_latency.push_back(small("routers", i, field));
  const auto nodes = rows_of(given.options.text("nodes", ""));
  for (size_t i = 0; i < nodes.size(); ++i) {
    const auto& f = expect("nodes", i, nodes[i], 1, 4, "router [latency [weight [cycles/flit]]]");
    Node node;
    node.router = small("nodes", i, f[0]);
    if (f.size() > 1) node.wire.latency = whole("nodes", i, f[1]);
    if (f.size() > 2) node.weight = small("nodes", i, f[2]);
    if (f.size() > 3) node.wire.cycles_per_flit = real("nodes", i, f[3]);
    config.nodes.push_back(node);
  }
  const auto links = rows_of(given.options.text("links", ""));
  for (size_t i = 0; i < links.size(); ++i) {
    const auto& f = expect("links", i, links[i], 2, 6,
                           "source end [latency [weight [cycles/flit [direction]]]]");
    Channel channel;
    channel.src = small("links", i, f[0]);
    channel.dst = small("links", i, f[1]);
    if (f.size() > 2) channel.wire.latency = whole("links", i, f[2]);
    if (f.size() > 3) channel.weight = small("links", i, f[3]);
    if (f.size() > 4) channel.wire.cycles_per_flit = real("links", i, f[4]);
    if (f.size() > 5) channel.port = f[5];
    config.channels.push_back(channel);
  }
  config.flit_bytes = given.options.integer("flit_bytes", 16, 1, kMost);
  config.vcs_per_vnet = static_cast<int32_t>(given.options.integer("vcs_per_vnet", 4, 1, 1024));
  config.buffers_per_ctrl_vc = given.options.integer("buffers_per_ctrl_vc", 1, 1, kMost);
  config.buffers_per_data_vc = given.options.integer("buffers_per_data_vc", 4, 1, kMost);
  config.packet_bytes = read_packet_bytes(given.options, 0);
}

// The topology as the contract gives it: a router per node, an interface per endpoint.  Sizes that
// the options leave open are chosen so that every link can be kept busy.
void derive_topology(astra_net::Config& given, Config& config, bool dateline) {
  const auto latency =
      static_cast<int32_t>(given.options.integer("router_latency", 1, 1, 1'000'000));
  config.router_latency.assign(static_cast<size_t>(given.nodes), latency);
  std::vector<double> out(static_cast<size_t>(given.nodes)), in(out.size());
  double fastest = 0;
  for (size_t i = 0; i < given.links.size(); ++i) {
    const astra_net_link& link = given.links[i];
    if (link.loss > 0)
      throw Error(ASTRA_NET_INVALID,
                  "link " + std::to_string(i) + ": loss=" + std::to_string(link.loss) +
                      ", but Garnet's links lose nothing; set it to 0 or use another backend");
    out[static_cast<size_t>(link.src)] += link.bytes_per_second;
    in[static_cast<size_t>(link.dst)] += link.bytes_per_second;
    fastest = std::max(fastest, link.bytes_per_second);
  }
  // An interface moves one flit per cycle: wide enough for all links of its router together.
  for (int32_t e = 0; e < given.endpoints; ++e)
    fastest = std::max({fastest, out[static_cast<size_t>(e)], in[static_cast<size_t>(e)]});
  const double clock = static_cast<double>(config.clock_hz);
  const double wanted = std::ceil(fastest / clock * (1 - 1e-12));
  if (!(wanted <= 1e9))
    throw Error(ASTRA_NET_INVALID, "links of " + std::to_string(fastest) +
                                       " bytes per second need a higher clock_hz than " +
                                       std::to_string(config.clock_hz));
  config.flit_bytes = given.options.integer(
      "flit_bytes", std::max<int64_t>(1, static_cast<int64_t>(wanted)), 1, kMost);
  int64_t longest = 1;
  for (size_t i = 0; i < given.links.size(); ++i) {
    const astra_net_link& link = given.links[i];
    Channel channel;
    channel.src = link.src;
    channel.dst = link.dst;
    const Wide cycles =
        (static_cast<Wide>(link.latency_ps) * config.clock_hz + kPsPerS - 1) / kPsPerS;
    if (cycles > kMost)
      throw Error(ASTRA_NET_INVALID, "link " + std::to_string(i) +
                                         ": latency_ps=" + std::to_string(link.latency_ps) +
                                         " is more than " + std::to_string(kMost) + " cycles");
    channel.wire.latency = cycles < 1 ? 1 : static_cast<int64_t>(cycles);
    channel.wire.cycles_per_flit =
        std::max(1.0, static_cast<double>(config.flit_bytes) * clock / link.bytes_per_second);
    longest = std::max(longest, channel.wire.latency);
    config.channels.push_back(channel);
  }
  for (int32_t e = 0; e < given.endpoints; ++e) {
    Node node;
    node.router = e;
    config.nodes.push_back(node);
  }
  // A packet holds a VC until its credits are back, a round trip after its last flit.  Where the
  // packets go one after another, K VCs keep the link busy if K packets of B flits last as long
  // as one packet and the round trip.
  config.vcs_per_vnet =
      static_cast<int32_t>(given.options.integer("vcs_per_vnet", dateline ? 8 : 4, 1, 1024));
  const int64_t usable =
      std::max<int64_t>(2, dateline ? config.vcs_per_vnet / 2 : config.vcs_per_vnet);
  const int64_t round_trip = 3 + 2 * longest + latency;
  const int64_t buffers = std::max<int64_t>(8, (round_trip + usable - 2) / (usable - 1));
  config.buffers_per_data_vc =
      given.options.integer("buffers_per_data_vc", std::min<int64_t>(buffers, kMost), 1, kMost);
  config.buffers_per_ctrl_vc =
      given.options.integer("buffers_per_ctrl_vc", config.buffers_per_data_vc, 1, kMost);
  config.packet_bytes =
      read_packet_bytes(given.options, config.buffers_per_data_vc * config.flit_bytes);
}

}  // namespace

Config read_config(astra_net::Config& given) {
  Config config;
  astra_net::Options& options = given.options;
  config.clock_hz = options.integer("clock_hz", 1'000'000'000, 1, kPsPerS);
  const bool own = !options.text("nodes", "").empty();
  const std::string routing = options.choice(
      "routing", "table",
      own ? std::vector<std::string>{"table", "xy", "custom"}
          : std::vector<std::string>{"table", "ecmp", "static", "spray", "adaptive"});
  config.routing = routing == "xy"       ? Routing::kXy
                   : routing == "custom" ? Routing::kCustom
                   : routing == "table"  ? Routing::kTable
                                         : Routing::kGraph;
  if (config.routing == Routing::kGraph) config.graph.emplace(given);
  config.num_rows = static_cast<int32_t>(options.integer("num_rows", 0, 0, 65'535));
  config.dateline =
      options.choice("deadlock_avoidance", "none", {"none", "dateline"}) == "dateline";
  config.deadlock_threshold = options.integer("deadlock_threshold", 50'000, 1);
  const double interval_s = static_cast<double>(astra_net::sample_interval_ps(options)) / 1e12;
  config.series_cycles = options.integer(
      "series_cycles",
      static_cast<int64_t>(std::ceil(interval_s * static_cast<double>(config.clock_hz))));
  config.fast_forward = options.choice("fast_forward", "off", {"off", "exact"}) == "exact";
  config.record_packets = options.flag("record_packets", false);
  // Derived buffers keep a link busy only if packets do not take turns flit by flit, which an
  // ordered vnet prevents; see derive_topology.
  config.vnets = read_vnets(options, own ? "data" : "data ordered");
  if (own && !given.links.empty())
    throw Error(ASTRA_NET_INVALID,
                "the topology is given twice: as links and as the option 'nodes'");
  if (own)
    read_topology(given, config);
  else
    derive_topology(given, config, config.dateline);

  const size_t links = config.channels.size();
  const auto weights = per_link(options, "link_weights", links);
  const auto dimensions = per_link(options, "link_dimensions", links);
  const auto rings = per_link(options, "link_rings", links);
  for (size_t i = 0; i < links; ++i) {
    if (!weights.empty()) config.channels[i].weight = weights[i];
    if (!dimensions.empty()) config.channels[i].dimension = dimensions[i];
    // 0: in no ring, 1: in a ring of its dimension, 2: closes it.
    if (!rings.empty()) {
      config.channels[i].ring = rings[i] > 0;
      config.channels[i].dateline = rings[i] > 1;
    }
  }
  const auto routes = rows_of(options.text("routes", ""));
  for (size_t i = 0; i < routes.size(); ++i) {
    const auto& f = expect("routes", i, routes[i], 3, 3, "router node next-router");
    config.routes.push_back(
        {small("routes", i, f[0]), small("routes", i, f[1]), small("routes", i, f[2])});
  }
  const size_t nodes = config.nodes.size();
  if (nodes == 0 || static_cast<size_t>(given.endpoints) % nodes != 0)
    throw Error(ASTRA_NET_INVALID, std::to_string(given.endpoints) +
                                       " endpoints; allowed: a multiple of the number of nodes, " +
                                       std::to_string(nodes));
  return config;
}

}  // namespace garnet
