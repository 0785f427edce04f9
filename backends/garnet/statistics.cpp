// SPDX-License-Identifier: MIT
#include "statistics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "table.hpp"

namespace garnet {
namespace {

double utilization_of(const Network& network, const LinkLoad& link, size_t channel) {
  const int64_t cycles = network.now() + 1;
  if (cycles == 0) return 0.0;
  const double per_flit = network.config().channels[channel].wire.cycles_per_flit;
  return (static_cast<double>(link.flits) * per_flit + link.extra_cycles) /
         static_cast<double>(cycles);
}

}  // namespace

std::string saturation_warning(const Network& network) {
  const std::vector<LinkLoad> links = network.link_loads();
  size_t saturated = 0;
  for (size_t i = 0; i < links.size(); ++i)
    saturated += utilization_of(network, links[i], i) > 0.95;
  if (saturated == 0) return "";
  return "saturated: " + std::to_string(saturated) + " of " + std::to_string(links.size()) +
         " links were busy for more than 95 % of the time";
}

std::string statistics_json(const Network& network, const std::vector<Flow>& flows,
                            const std::vector<std::pair<int32_t, int32_t>>& link_ends) {
  const Config& config = network.config();
  const double period_ps = 1e12 / static_cast<double>(config.clock_hz);
  const int64_t cycles = network.now() + 1;
  const std::vector<LinkLoad> links = network.link_loads();
  const std::vector<NodeLoad> nodes = network.node_loads();
  const std::vector<uint64_t> routers = network.router_flits();
  const Series series = network.series();
  const auto utilization = [&](const LinkLoad& link, size_t i) {
    return utilization_of(network, link, i);
  };

  uint64_t injected = 0, ejected = 0;
  double buffered = 0;
  for (const NodeLoad& node : nodes) {
    injected += node.injected_flits;
    ejected += node.ejected_flits;
    buffered += node.occupancy_flit_cycles;
  }
  double utilization_sum = 0;
  for (size_t i = 0; i < links.size(); ++i) {
    utilization_sum += utilization(links[i], i);
    buffered += links[i].occupancy_flit_cycles;
  }
  double packets = 0, hops = 0, latency = 0, queueing = 0, on_the_way = 0, ideal = 0;
  for (const Flow& flow : flows) {
    const auto count = static_cast<double>(flow.packets);
    packets += count;
    hops += static_cast<double>(flow.hops);
    queueing += count * static_cast<double>(flow.queueing_ps);
    on_the_way += count * static_cast<double>(flow.network_ps);
    latency += static_cast<double>(flow.fct_ps);
    ideal += static_cast<double>(flow.ideal_fct_ps);
  }
  const auto ratio = [](double a, double b) { return b > 0 ? a / b : 0.0; };
  const auto transfers = static_cast<double>(flows.size());

  std::string json = "{";
  const auto scalar = [&](const char* name, const std::string& value) {
    json += '"' + std::string(name) + "\":" + value + ',';
  };
  scalar("clock_hz", json_text(config.clock_hz));
  scalar("flit_bytes", json_text(config.flit_bytes));
  scalar("cycles", json_text(cycles));
  scalar("transfers", json_text(static_cast<int64_t>(flows.size())));
  scalar("packets", json_text(static_cast<int64_t>(packets)));
  scalar("flits_injected", json_text(injected));
  scalar("flits_received", json_text(ejected));
  scalar("flit_hops", json_text(std::accumulate(routers.begin(), routers.end(), uint64_t{0})));
  scalar("average_hops", json_text(ratio(hops, packets)));
  scalar("average_packet_queueing_latency_ps", json_text(ratio(queueing, packets)));
  scalar("average_packet_network_latency_ps", json_text(ratio(on_the_way, packets)));
  scalar("average_transfer_latency_ps", json_text(ratio(latency, transfers)));
  scalar("average_ideal_transfer_latency_ps", json_text(ratio(ideal, transfers)));
  scalar("average_link_utilization",
         json_text(ratio(utilization_sum, static_cast<double>(links.size()))));
  if (network.counts_waiting())
    scalar("average_buffered_flits", json_text(ratio(buffered, static_cast<double>(cycles))));
  if (config.fast_forward) {
    scalar("fast_forward_jumps", json_text(network.jumps()));
    scalar("fast_forward_ns",
           json_text(static_cast<int64_t>(
               std::llround(static_cast<double>(network.jumped_cycles()) * period_ps / 1000))));
  }
  if (config.series_cycles > 0)
    scalar("sample_interval_ps",
           json_text(std::llround(static_cast<double>(config.series_cycles) * period_ps)));
  json += "\"warnings\":[";
  const std::string warning = saturation_warning(network);
  if (!warning.empty()) json += '"' + warning + '"';
  json += "],\"tables\":{";
  if (!flows.empty()) {
    Table(json, "flows")
        .column("id", flows, [](const Flow& f, size_t) { return f.id; })
        .column("src", flows, [](const Flow& f, size_t) { return f.src; })
        .column("dst", flows, [](const Flow& f, size_t) { return f.dst; })
        .column("bytes", flows, [](const Flow& f, size_t) { return f.bytes; })
        .column("start_ps", flows, [](const Flow& f, size_t) { return f.start_ps; })
        .column("fct_ps", flows, [](const Flow& f, size_t) { return f.fct_ps; })
        .column("ideal_fct_ps", flows, [](const Flow& f, size_t) { return f.ideal_fct_ps; })
        .column("queueing_ps", flows, [](const Flow& f, size_t) { return f.queueing_ps; })
        .column("network_ps", flows, [](const Flow& f, size_t) { return f.network_ps; })
        .column("packets", flows, [](const Flow& f, size_t) { return f.packets; })
        .column("hops", flows, [](const Flow& f, size_t) { return f.hops; });
  }
  {
    Table table(json, "links");
    table.column("link", links, [](const LinkLoad&, size_t i) { return static_cast<int64_t>(i); })
        .column("src", links, [&](const LinkLoad&, size_t i) { return link_ends[i].first; })
        .column("dst", links, [&](const LinkLoad&, size_t i) { return link_ends[i].second; })
        .column("bytes", links,
                [&](const LinkLoad& l, size_t) {
                  return l.flits * static_cast<uint64_t>(config.flit_bytes);
                })
        .column("busy_ps", links,
                [&](const LinkLoad& l, size_t i) {
                  return std::llround(static_cast<double>(l.flits) * period_ps *
                                          config.channels[i].wire.cycles_per_flit +
                                      l.extra_cycles * period_ps);
                })
        .column("flits", links, [](const LinkLoad& l, size_t) { return l.flits; })
        .column("utilization", links, utilization);
    if (network.counts_waiting())
      table.column("average_buffered_flits", links, [&](const LinkLoad& l, size_t) {
        return ratio(l.occupancy_flit_cycles, static_cast<double>(cycles));
      });
  }
  Table(json, "routers")
      .column("router", routers, [](uint64_t, size_t i) { return static_cast<int64_t>(i); })
      .column("flits", routers, [](uint64_t flits, size_t) { return flits; });
  Table(json, "interfaces")
      .column("node", nodes, [](const NodeLoad&, size_t i) { return static_cast<int64_t>(i); })
      .column("router", nodes, [&](const NodeLoad&, size_t i) { return config.nodes[i].router; })
      .column("injected_flits", nodes, [](const NodeLoad& n, size_t) { return n.injected_flits; })
      .column("ejected_flits", nodes, [](const NodeLoad& n, size_t) { return n.ejected_flits; })
      .column("longest_wait_for_vc_ps", nodes, [&](const NodeLoad& n, size_t) {
        return std::llround(static_cast<double>(n.max_queue_cycles) * period_ps);
      });
  const auto over_time = [&](const char* name, const char* place,
                             const std::vector<SeriesPoint>& points) {
    Table(json, name)
        .column("start_ps", points,
                [&](const SeriesPoint& p, size_t) {
                  return std::llround(static_cast<double>(p.bin_start_cycle) * period_ps);
                })
        .column(place, points, [](const SeriesPoint& p, size_t) { return p.place; })
        .column("flits", points, [](const SeriesPoint& p, size_t) { return p.flits; });
  };
  if (config.series_cycles > 0) {
    over_time("link_series", "link", series.links);
    const auto& points = series.links;
    Table(json, "link_load")
        .column("link", points, [](const SeriesPoint& p, size_t) { return p.place; })
        .column("time_ps", points,
                [&](const SeriesPoint& p, size_t) {
                  return std::llround(static_cast<double>(p.bin_start_cycle) * period_ps);
                })
        .column("bytes", points,
                [&](const SeriesPoint& p, size_t) {
                  return p.flits * static_cast<uint64_t>(config.flit_bytes);
                })
        .column("busy_ps", points, [&](const SeriesPoint& p, size_t) {
          const auto& wire = config.channels[static_cast<size_t>(p.place)].wire;
          return std::llround(static_cast<double>(p.flits) * period_ps * wire.cycles_per_flit);
        });
    over_time("router_series", "router", series.routers);
  }
  if (config.record_packets) {
    const auto& rows = network.packets();
    using Row = PacketRecord;
    Table(json, "packets")
        .column("transfer", rows, [](const Row& r, size_t) { return r.id; })
        .column("pick", rows, [](const Row& r, size_t) { return r.pick; })
        .column("head_send", rows, [](const Row& r, size_t) { return r.head_send; })
        .column("tail_send", rows, [](const Row& r, size_t) { return r.tail_send; })
        .column("head_recv", rows, [](const Row& r, size_t) { return r.head_recv; })
        .column("deliver", rows, [](const Row& r, size_t) { return r.deliver; })
        .column("flits", rows, [](const Row& r, size_t) { return r.flits; })
        .column("hops", rows, [](const Row& r, size_t) { return r.hops; })
        .column("src_vc", rows, [](const Row& r, size_t) { return r.src_vc; })
        .column("dst_vc", rows, [](const Row& r, size_t) { return r.dst_vc; });
  }
  network.add_tables(json);
  json += "}}";
  return json;
}

}  // namespace garnet
