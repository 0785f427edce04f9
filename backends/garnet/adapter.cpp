// SPDX-License-Identifier: MIT
//
// Garnet behind the network contract: options and links in, cycles to picoseconds, transfers to
// messages.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <sstream>

#include "astra_net.hpp"
#include "network.hpp"
#include "statistics.hpp"

namespace {

using astra_net::Error;
using astra_net::kNever;
__extension__ typedef __int128 Wide;

constexpr int64_t kPsPerS = 1'000'000'000'000;
constexpr int64_t kMost = 1'000'000'000;  // cycles of a latency, bytes of a flit, buffers of a VC
// Sums of a cycle and what a configuration allows (deadlock_threshold, series_cycles, delays) stay
// within int64 up to here.
constexpr int64_t kMostCycle = INT64_MAX - 4'000'000'000'000'000;
constexpr uint32_t kTrafficClasses = 32;

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

std::string text(double value) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.6g", value);
  return digits;
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

std::vector<garnet::Vnet> read_vnets(astra_net::Options& options, const char* fallback) {
  std::vector<garnet::Vnet> vnets;
  const auto rows = rows_of(options.text("vnets", fallback));
  for (size_t i = 0; i < rows.size(); ++i) {
    garnet::Vnet vnet;
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
void read_topology(astra_net::Config& given, garnet::Config& config) {
  const auto routers = rows_of(given.options.text("routers", ""));
  for (size_t i = 0; i < routers.size(); ++i)
    for (const std::string& field : routers[i])
      config.router_latency.push_back(small("routers", i, field));
  const auto nodes = rows_of(given.options.text("nodes", ""));
  for (size_t i = 0; i < nodes.size(); ++i) {
    const auto& f = expect("nodes", i, nodes[i], 1, 4, "router [latency [weight [cycles/flit]]]");
    garnet::Node node;
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
    garnet::Channel channel;
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
void derive_topology(astra_net::Config& given, garnet::Config& config, bool dateline) {
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
  config.flit_bytes =
      given.options.integer("flit_bytes", std::max<int64_t>(1, static_cast<int64_t>(wanted)), 1,
                            kMost);
  int64_t longest = 1;
  for (size_t i = 0; i < given.links.size(); ++i) {
    const astra_net_link& link = given.links[i];
    garnet::Channel channel;
    channel.src = link.src;
    channel.dst = link.dst;
    const Wide cycles = (static_cast<Wide>(link.latency_ps) * config.clock_hz + kPsPerS - 1) /
                        kPsPerS;
    if (cycles > kMost)
      throw Error(ASTRA_NET_INVALID, "link " + std::to_string(i) + ": latency_ps=" +
                                         std::to_string(link.latency_ps) + " is more than " +
                                         std::to_string(kMost) + " cycles");
    channel.wire.latency = cycles < 1 ? 1 : static_cast<int64_t>(cycles);
    channel.wire.cycles_per_flit =
        std::max(1.0, static_cast<double>(config.flit_bytes) * clock / link.bytes_per_second);
    longest = std::max(longest, channel.wire.latency);
    config.channels.push_back(channel);
  }
  for (int32_t e = 0; e < given.endpoints; ++e) {
    garnet::Node node;
    node.router = e;
    config.nodes.push_back(node);
  }
  // A packet holds a VC until its credits are back, a round trip after its last flit.  Where the
  // packets go one after another, K VCs keep the link busy if K packets of B flits last as long
  // as one packet and the round trip.
  config.vcs_per_vnet =
      static_cast<int32_t>(given.options.integer("vcs_per_vnet", dateline ? 8 : 4, 1, 1024));
  const int64_t usable = std::max<int64_t>(2, dateline ? config.vcs_per_vnet / 2
                                                       : config.vcs_per_vnet);
  const int64_t round_trip = 3 + 2 * longest + latency;
  const int64_t buffers = std::max<int64_t>(8, (round_trip + usable - 2) / (usable - 1));
  config.buffers_per_data_vc =
      given.options.integer("buffers_per_data_vc", std::min<int64_t>(buffers, kMost), 1, kMost);
  config.buffers_per_ctrl_vc =
      given.options.integer("buffers_per_ctrl_vc", config.buffers_per_data_vc, 1, kMost);
  config.packet_bytes =
      read_packet_bytes(given.options, config.buffers_per_data_vc * config.flit_bytes);
}

garnet::Config read_config(astra_net::Config& given) {
  garnet::Config config;
  astra_net::Options& options = given.options;
  config.clock_hz = options.integer("clock_hz", 1'000'000'000, 1, kPsPerS);
  const std::string routing = options.choice("routing", "table", {"table", "xy", "custom"});
  config.routing = routing == "xy"       ? garnet::Routing::kXy
                   : routing == "custom" ? garnet::Routing::kCustom
                                         : garnet::Routing::kTable;
  config.num_rows = static_cast<int32_t>(options.integer("num_rows", 0, 0, 65'535));
  config.dateline =
      options.choice("deadlock_avoidance", "none", {"none", "dateline"}) == "dateline";
  config.deadlock_threshold = options.integer("deadlock_threshold", 50'000, 1);
  config.series_cycles = options.integer("series_cycles", 0);
  config.record_packets = options.flag("record_packets", false);
  const bool own = !options.text("nodes", "").empty();
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

class Garnet final : public astra_net::Model {
 public:
  static astra_net_info info() {
    astra_net_info info{};
    info.name = "garnet";
    info.version = "1.0";
    info.capabilities = ASTRA_NET_CAP_MULTI_INSTANCE | ASTRA_NET_CAP_PARALLEL |
                        ASTRA_NET_CAP_INTERRUPT | ASTRA_NET_CAP_SNAPSHOT |
                        ASTRA_NET_CAP_LINK_FAULTS | ASTRA_NET_CAP_CONGESTION;
    info.resolution_ps = 1;
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = kTrafficClasses;
    return info;
  }

  Garnet(astra_net::Config& given, const astra_net::Log& log) : log_(log) {
    const garnet::Config config = read_config(given);
    vnet_per_dimension_ = given.options.flag("vnet_per_dimension", false);
    record_transfers_ = given.options.flag("record_transfers", true);
    try {
      network_ = garnet::Network::make(config);
    } catch (const garnet::ConfigError& error) {
      throw Error(ASTRA_NET_INVALID, error.what());
    }
    for (const garnet::Channel& channel : config.channels)
      link_ends_.push_back({channel.src, channel.dst});
  }

  Garnet(const Garnet& other)
      : Model(),
        log_(other.log_),
        network_(other.network_->clone()),
        vnet_per_dimension_(other.vnet_per_dimension_),
        record_transfers_(other.record_transfers_),
        link_ends_(other.link_ends_),
        flows_(other.flows_) {}

  // Endpoints are the interfaces, again and again where there are more: endpoint e is interface
  // e mod n.  So a message of an interface to itself, which Garnet has and the contract has not,
  // can be written as one from e to e + n.
  void start(const astra_net_transfer& transfer) override {
    const garnet::Config& config = network_->config();
    const auto nodes = static_cast<int32_t>(config.nodes.size());
    garnet::Message message;
    message.id = transfer.id;
    message.order = transfer.start_ps;
    message.cycle = first_cycle_from(transfer.start_ps);
    if (message.cycle > kMostCycle) beyond_time(message.cycle);
    message.bytes = transfer.bytes;
    message.src = transfer.src % nodes;
    message.dst = transfer.dst % nodes;
    if (!network_->has_route(message.src, message.dst))
      throw Error(ASTRA_NET_MODEL, "transfer " + std::to_string(transfer.id) +
                                       ": no route from node " + std::to_string(message.src) +
                                       " to node " + std::to_string(message.dst));
    message.packet_bytes = network_->packet_bytes(message.src, message.dst);
    const int64_t largest = message.packet_bytes
                                ? std::min(message.packet_bytes, transfer.bytes)
                                : transfer.bytes;
    if (largest / config.flit_bytes >= INT32_MAX)
      throw Error(ASTRA_NET_MODEL, "transfer " + std::to_string(transfer.id) + ": a packet of " +
                                       std::to_string(largest) +
                                       " bytes has more than 2^31 flits; set a smaller "
                                       "packet_bytes");
    uint32_t vnet = transfer.traffic_class;
    // Then a transfer over a slow dimension does not hold up those behind it over fast ones.
    if (vnet_per_dimension_)
      vnet = static_cast<uint32_t>(network_->first_dimension(message.src, message.dst));
    message.vnet = static_cast<int32_t>(vnet % config.vnets.size());
    network_->enqueue(message);
    statistics_.clear();
  }

  astra_net::Reached run(int64_t until_ps) override {
    statistics_.clear();
    const int64_t last = until_ps == kNever ? kNever : last_cycle_to(until_ps);
    for (;;) {
      const int64_t cycle = network_->next_cycle();
      if (cycle == garnet::kNever) {
        // Stuck for want of a link is no deadlock; the caller says so, with where_stuck().
        if (network_->in_flight() > 0) deadlock(true);
        return {until_ps, true};
      }
      if (cycle > last) return {until_ps, false};
      if (cycle > kMostCycle) beyond_time(cycle);
      network_->run(cycle);
      if (!network_->deliveries().empty()) {
        report(cycle);
        return {ps_of(cycle), false};
      }
      if (network_->take_suspicion()) deadlock(false);
      if (interrupted()) return {ps_of(cycle), false};
    }
  }

  int64_t link_count(int64_t) const override {
    return static_cast<int64_t>(network_->config().channels.size());
  }

  void set_link(int32_t link, int64_t at_ps, double bandwidth_scale) override {
    const double given =
        network_->config().channels[static_cast<size_t>(link)].wire.cycles_per_flit;
    garnet::LinkChange change;
    change.cycle = first_cycle_from(at_ps);
    change.order = at_ps;
    change.channel = link;
    if (at_ps == kNever || change.cycle > kMostCycle)
      throw Error(ASTRA_NET_INVALID, "at_ps=" + std::to_string(at_ps) +
                                         " is beyond the range of time");
    if (bandwidth_scale > 0) {
      change.cycles_per_flit = given / bandwidth_scale;
      if (!(change.cycles_per_flit >= 1 && change.cycles_per_flit <= static_cast<double>(kMost)))
        throw Error(ASTRA_NET_INVALID,
                    "bandwidth_scale=" + text(bandwidth_scale) + " of link " +
                        std::to_string(link) + "; allowed: 0, or from " +
                        text(given / static_cast<double>(kMost)) + " to " + text(given) +
                        ", a flit per cycle");
    }
    network_->change_link(change);
  }

  std::string where_stuck() const override {
    const std::vector<int32_t> links = network_->links_waited_for();
    if (links.empty()) return "";
    std::string named;
    for (size_t i = 0; i < links.size() && i < 4; ++i) {
      const auto [src, dst] = link_ends_[static_cast<size_t>(links[i])];
      named += (named.empty() ? "" : ", ") + std::to_string(links[i]) + " (" +
               std::to_string(src) + " -> " + std::to_string(dst) + ")";
    }
    return "(waiting for link " + named + (links.size() > 4 ? ", ..." : "") + ", which is down)";
  }

  // Hosts ask for the size first, then for the text.
  std::string stats() override {
    if (!statistics_.empty()) return statistics_;
    for (garnet::Flow& flow : flows_)
      if (flow.ideal_fct_ps == 0)
        flow.ideal_fct_ps = ps_of(network_->zero_load_cycles(
            static_cast<int32_t>(flow.src), static_cast<int32_t>(flow.dst), flow.bytes));
    const std::string warning = garnet::saturation_warning(*network_);
    if (!warning.empty()) log_(30, warning);
    return statistics_ = garnet::statistics_json(*network_, flows_, link_ends_);
  }

  std::unique_ptr<Model> copy() const override { return std::make_unique<Garnet>(*this); }

 private:
  // Cycle c is the instant ceil(c / clock) in picoseconds.
  int64_t ps_of(int64_t cycle) const {
    const int64_t hz = network_->config().clock_hz;
    const Wide ps = (static_cast<Wide>(cycle) * kPsPerS + hz - 1) / hz;
    if (ps >= kNever) beyond_time(cycle);
    return static_cast<int64_t>(ps);
  }
  [[noreturn]] void beyond_time(int64_t cycle) const {
    throw Error(ASTRA_NET_MODEL, "cycle " + std::to_string(cycle) + " at " +
                                     std::to_string(network_->config().clock_hz) +
                                     " Hz is beyond the range of time (2^63 ps)");
  }
  int64_t first_cycle_from(int64_t ps) const {
    if (ps == 0) return 0;
    return static_cast<int64_t>(static_cast<Wide>(ps - 1) * network_->config().clock_hz /
                                kPsPerS) + 1;
  }
  int64_t last_cycle_to(int64_t ps) const {
    return static_cast<int64_t>(static_cast<Wide>(ps) * network_->config().clock_hz / kPsPerS);
  }

  void report(int64_t cycle) {
    auto& deliveries = network_->deliveries();
    const int64_t now_ps = ps_of(cycle);
    std::sort(deliveries.begin(), deliveries.end(), [](const auto& a, const auto& b) {
      return a.message.id < b.message.id;
    });
    for (const garnet::Delivery& delivery : deliveries) {
      const garnet::Message& message = delivery.message;
      deliver(message.id, now_ps);
      if (!record_transfers_) continue;
      flows_.push_back({message.id, message.src, message.dst, message.bytes, message.order,
                        now_ps - message.order, 0, delivery.packets, delivery.hops,
                        ps_of(delivery.queueing_cycles / delivery.packets),
                        ps_of(delivery.network_cycles / delivery.packets)});
    }
    deliveries.clear();
  }

  // `all`: nothing can move.  Otherwise only VCs that stood still for a whole threshold count.
  void deadlock(bool all) {
    const std::string circle = network_->find_deadlock(all);
    if (circle.empty() && (!all || !network_->links_waited_for().empty())) return;
    const std::string cycle = std::to_string(network_->now());
    log_(40, "deadlock in cycle " + cycle + ": " + (circle.empty() ? "no circle found" : circle));
    throw Error(ASTRA_NET_MODEL, "deadlock in cycle " + cycle + ", " +
                                     std::to_string(network_->in_flight()) +
                                     " transfers in flight: " + circle);
  }

  astra_net::Log log_;
  std::unique_ptr<garnet::Network> network_;
  bool vnet_per_dimension_ = false, record_transfers_ = true;
  std::vector<std::pair<int32_t, int32_t>> link_ends_;
  std::vector<garnet::Flow> flows_;
  std::string statistics_;  // empty where something happened since
};

}  // namespace

ASTRA_NET_BACKEND(Garnet)
