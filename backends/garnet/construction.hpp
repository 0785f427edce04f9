// SPDX-License-Identifier: MIT
//
// The network as it is made: ports in Garnet's order, buffers, routes, the wheel of events.
#pragma once

#include <algorithm>
#include <numeric>

#include "core.hpp"

namespace garnet {
namespace {

template <int W>
Core<W>::Core(const Config& config) : Network(config) {
  const auto vnets = static_cast<uint32_t>(config.vnets.size());
  const auto routers = static_cast<uint32_t>(config.router_latency.size());
  const auto nodes = static_cast<uint32_t>(config.nodes.size());
  vcs_per_vnet_ = static_cast<uint32_t>(config.vcs_per_vnet);
  vcs_ = vnets * vcs_per_vnet_;
  while ((1u << shift_) < vcs_) ++shift_;
  choices_.resize(size_t{vcs_} * 3);
  for (uint32_t k = 0; k < vcs_; ++k) {
    const uint32_t vnet = k / vcs_per_vnet_;
    vnet_of_.push_back(vnet);
    for (uint32_t offset = 0; offset < vcs_per_vnet_; ++offset) {
      const uint32_t other = vnet * vcs_per_vnet_ + offset;
      choices_[k].set(other);
      choices_[(offset < vcs_per_vnet_ / 2 ? 1 : 2) * vcs_ + k].set(other);
    }
  }
  for (const Vnet& vnet : config.vnets) any_ordered_ |= vnet.ordered;

  // Links in the order of their input ports: by router, its interfaces first, then the neighbours
  // by increasing number (Garnet numbers ports so, whatever the order of the list of links).
  std::vector<std::vector<uint32_t>> nodes_at(routers), into(routers);
  for (uint32_t n = 0; n < nodes; ++n)
    nodes_at[static_cast<size_t>(config.nodes[n].router)].push_back(n);
  for (uint32_t c = 0; c < config.channels.size(); ++c)
    into[static_cast<size_t>(config.channels[c].dst)].push_back(c);
  interfaces_.resize(nodes);
  uint32_t words = 0;
  for (uint32_t r = 0; r < routers; ++r) {
    Router router;
    router.first_in = static_cast<uint32_t>(inputs_.size());
    for (uint32_t n : nodes_at[r]) {
      interfaces_[n].link = static_cast<uint32_t>(inputs_.size());
      add_link(kInterface | n, r, config.nodes[n].wire, -1);
    }
    std::stable_sort(into[r].begin(), into[r].end(), [&](uint32_t a, uint32_t b) {
      return config.channels[a].src < config.channels[b].src;
    });
    for (uint32_t c : into[r])
      add_link(static_cast<uint32_t>(config.channels[c].src), r, config.channels[c].wire,
               static_cast<int32_t>(c));
    router.inputs = static_cast<uint32_t>(inputs_.size()) - router.first_in;
    for (uint32_t port = 0; port < router.inputs; ++port)
      inputs_[router.first_in + port].port = port;
    router.ports = words;
    router.port_words = (router.inputs + 63) / 64;
    words += router.port_words;
    routers_.push_back(router);
  }
  for (uint32_t n = 0; n < nodes; ++n)
    add_link(static_cast<uint32_t>(config.nodes[n].router), kInterface | n, config.nodes[n].wire,
             -1);
  if (inputs_.size() << shift_ > kMaxSlots)
    throw ConfigError(std::to_string(inputs_.size()) + " links (interfaces included) of " +
                      std::to_string(vcs_) + " VCs need more memory than is sensible");

  // The outputs of a router lie together; nothing depends on their order.
  std::vector<uint32_t> order(outputs_.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return outputs_[a].src < outputs_[b].src; });
  std::vector<Output> sorted;
  sorted.reserve(order.size());
  for (uint32_t o : order) sorted.push_back(outputs_[o]);
  outputs_ = std::move(sorted);
  eject_output_.resize(nodes);
  channel_output_.resize(config.channels.size());
  for (uint32_t o = 0; o < outputs_.size(); ++o) {
    Input& input = inputs_[outputs_[o].link];
    input.output = o;
    const uint32_t src = outputs_[o].src;
    if (!(src & kInterface) && (o == 0 || outputs_[o - 1].src != src)) routers_[src].first_out = o;
    if (input.dst & kInterface) eject_output_[input.dst & ~kInterface] = o;
    if (input.channel >= 0) channel_output_[static_cast<size_t>(input.channel)] = o;
  }
  occupied_ports_.resize(words);
  buffers_.resize(inputs_.size() << shift_);
  credits_of_.resize(buffers_.size());
  for (uint32_t slot = 0; slot < buffers_.size(); ++slot) {
    if (vc_of(slot) >= vcs_) continue;
    credits_of_[slot] = static_cast<uint32_t>(config.vnets[vnet_of_[vc_of(slot)]].data
                                                  ? config.buffers_per_data_vc
                                                  : config.buffers_per_ctrl_vc);
    output_of(slot).idle.set(vc_of(slot));
    output_of(slot).credit.set(vc_of(slot));
  }
  to_send_.resize(buffers_.size());
  if (any_ordered_) {
    filled_at_.resize(buffers_.size());
    interface_filled_at_.resize(buffers_.size());
  }
  queues_.resize(size_t{nodes} * vnets);
  best_.resize(outputs_.size());
  requested_.resize(outputs_.size());
  router_awake_.resize(routers);
  interface_awake_.resize(nodes);

  graph_ = config.graph;
  route_by_node_ = config.routing == Routing::kCustom;
  targets_ = route_by_node_ ? nodes : routers;
  const std::vector<int32_t> table = compute_routes(config);
  routes_.assign(table.size(), kNoRoute);
  for (size_t entry = 0; entry < table.size(); ++entry) {
    if (table[entry] < 0) continue;
    const uint32_t out = channel_output_[static_cast<size_t>(table[entry])];
    const uint32_t local = out - routers_[entry / targets_].first_out;
    if (local >= kNoRoute) throw ConfigError("a router has more than 65534 outputs");
    routes_[entry] = static_cast<uint16_t>(local);
  }

  int64_t longest = 0;
  for (const Output& out : outputs_)
    longest = std::max<int64_t>({longest, out.flit_delay, inputs_[out.link].credit_delay});
  wheel_size_ = 64;
  while (wheel_size_ <= longest && wheel_size_ < kMaxWheel) wheel_size_ *= 2;
  flits_.resize(static_cast<size_t>(wheel_size_));
  credits_.resize(static_cast<size_t>(wheel_size_));
  wheel_used_.resize(static_cast<size_t>(wheel_size_ / 64));
  next_check_ = config.deadlock_threshold;
  progress_.resize(buffers_.size());
}

template <int W>
void Core<W>::add_link(uint32_t src, uint32_t dst, const Wire& wire, int32_t channel) {
  Input input;
  input.dst = dst;
  input.channel = channel;
  input.credit_delay = static_cast<uint32_t>(1 + wire.latency + (src & kInterface ? 1 : 0));
  Output out;
  out.link = static_cast<uint32_t>(inputs_.size());
  out.src = src;
  // Sent in T, stamped T + 1, then the latency; a router of depth p allocates p - 1 later.
  out.flit_delay = static_cast<uint32_t>(1 + wire.latency);
  if (!(dst & kInterface)) out.flit_delay += static_cast<uint32_t>(config_.router_latency[dst] - 1);
  if (wire.cycles_per_flit > 1.0) out.busy = busy_of(wire.cycles_per_flit);
  if (channel >= 0) {
    out.channel = true;
    const Channel& given = config_.channels[static_cast<size_t>(channel)];
    if (given.ring) out.ring = static_cast<int16_t>(given.dimension);
    out.dateline = given.dateline;
  }
  inputs_.push_back(input);
  outputs_.push_back(out);
}

}  // namespace
}  // namespace garnet
