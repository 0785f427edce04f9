// SPDX-License-Identifier: MIT
#include "parameters.h"

#include "astra_load.hpp"
#include "tables.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

Parameters TodaysParameters() {
  Parameters p;
  p.tick_ps = 1;
  p.upstream_order = false;
  p.queue_pairs = 1;
  p.selective = true;
  // RoCE's largest.
  p.mtu_bytes = 4096;
  // RoCEv2 on the wire: preamble 8, Ethernet 18, gap 12, IPv4 20, UDP 8, BTH 12, ICRC 4; an ACK
  // adds AETH 4; a PFC frame is the smallest Ethernet frame.
  p.header_bytes = 82;
  p.ack_bytes = 86;
  p.pause_bytes = 84;
  p.ack_interval_bytes = 16384;
  p.complete_at_ack = false;
  p.telemetry_exact = true;
  p.headroom_factor = 2;
  return p;
}

Parameters ReadParameters(astra_net::Options& options, const Parameters& preset) {
  Parameters p = preset;
  const auto size = [&](const char* key, uint32_t fallback, int64_t least, int64_t most) {
    return static_cast<uint32_t>(options.integer(key, fallback, least, most));
  };
  const auto bytes = [&](const char* key, uint64_t fallback) {
    return static_cast<uint64_t>(options.integer(key, static_cast<int64_t>(fallback), 0));
  };
  p.tick_ps = options.choice("tick_ps", std::to_string(p.tick_ps), {"1", "1000"}) == "1" ? 1 : 1000;
  const double per_us = 1e6 / static_cast<double>(p.tick_ps);
  p.upstream_order = options.choice("order", p.upstream_order ? "astra-sim" : "plain",
                                    {"plain", "astra-sim"}) == "astra-sim";
  p.queue_pairs = size("queue_pairs", p.queue_pairs, 0, 1024);
  p.selective = options.choice("loss_recovery", p.upstream_order ? "go-back-n" : "selective",
                               {"selective", "go-back-n"}) == "selective";
  p.mtu_bytes = size("mtu_bytes", p.mtu_bytes, 1, 1 << 20);
  p.header_bytes = size("header_bytes", p.header_bytes, 0, 4096);
  p.ack_bytes = size("ack_bytes", p.ack_bytes, 1, 4096);
  p.pause_bytes = size("pause_bytes", p.pause_bytes, 1, 4096);
  p.chunk_bytes = bytes("chunk_bytes", p.chunk_bytes);
  p.ack_interval_bytes =
      bytes("ack_interval_bytes", p.upstream_order ? 1 : preset.ack_interval_bytes);
  p.back_to_zero = options.flag("back_to_zero", p.back_to_zero);
  if (p.back_to_zero && (p.selective || p.queue_pairs > 0))
    Refuse("option 'back_to_zero' needs loss_recovery=go-back-n and queue_pairs=0");
  if (p.selective && p.upstream_order)
    Refuse("option 'loss_recovery' is selective, but the fork's order has only go-back-n");
  p.nack_interval = static_cast<Tick>(options.number("nack_interval_us", 500, 0, 1e9) * per_us);
  p.retransmit_timeout = static_cast<Tick>(options.number("rto_us", 4000, 0.1, 1e9) * per_us);
  p.retransmit_limit = size("retry_limit", p.retransmit_limit, 0, 1000);
  p.window = options.choice("window", p.window, {"pair", "global", "none"});
  p.variable_window = options.flag("variable_window", p.variable_window);
  p.rate_bound = options.flag("rate_bound", p.rate_bound);
  p.complete_at_ack =
      options.choice("completion", p.complete_at_ack ? "ack" : "data", {"data", "ack"}) == "ack";
  p.ack_high_priority = options.flag("ack_high_priority", p.ack_high_priority);
  p.ecn = options.flag("ecn", p.ecn);
  p.pfc = options.flag("pfc", p.pfc);
  p.telemetry_multiple = size("telemetry_multiple", p.telemetry_multiple, 1, 1 << 20);
  p.telemetry_exact = options.flag("telemetry_exact", p.telemetry_exact);
  p.pfc_rows = static_cast<size_t>(bytes("pfc_rows", p.pfc_rows));
  p.flow_table = options.flag("flow_table", p.flow_table);
  p.fast_forward = options.choice("fast_forward", p.fast_forward, {"off", "exact", "steady"});
  // Not less than a tick, and a whole number of them.
  const int64_t interval_ps = astra_net::sample_interval_ps(options);
  p.sample_interval = (interval_ps + p.tick_ps - 1) / p.tick_ps;
  p.buffer_given = !options.text("buffer_bytes", "").empty();
  p.buffer_bytes = static_cast<uint64_t>(
      options.integer("buffer_bytes", static_cast<int64_t>(p.buffer_bytes), 1));
  p.headroom_factor = options.number("headroom_factor", p.headroom_factor, 0, 1000);
  if (!preset.upstream_order) p.headroom_extra_bytes = 4 * (p.mtu_bytes + p.header_bytes);
  p.headroom_extra_bytes = options.integer("headroom_extra_bytes", p.headroom_extra_bytes);
  p.seed = size("seed", p.seed, 1, 4294944442);
  p.run = size("run", p.run, 0, 1 << 20);
  return p;
}

}  // namespace astra_ns3
