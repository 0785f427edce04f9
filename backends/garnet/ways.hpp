// SPDX-License-Identifier: MIT
//
// The ways of packets: which output comes next, and what a lone message takes.
#pragma once

#include <algorithm>
#include <cmath>

#include "core.hpp"

namespace garnet {
namespace {

template <int W>
uint32_t Core<W>::next_output(uint32_t router, int32_t src, const Packet& packet) const {
  if (router == packet.router) return eject_output_[packet.node];
  if (graph_) return next_on_graph(static_cast<int32_t>(router), src, packet);
  const uint16_t local =
      routes_[router * targets_ + (route_by_node_ ? packet.node : packet.router)];
  return local == kNoRoute ? kNone : routers_[router].first_out + local;
}

// A packet is the smallest thing that takes a way of its own.
template <int W>
uint32_t Core<W>::next_on_graph(int32_t router, int32_t src, const Packet& packet) const {
  const auto dst = static_cast<int32_t>(packet.node);
  const astra_net::Routing rule = graph_->routing();
  if (rule != astra_net::Routing::kAdaptive) {
    const bool spray = rule == astra_net::Routing::kSpray;
    const int32_t link = graph_->next(src, dst, router, spray ? packet.serial : 0);
    return link < 0 ? kNone : channel_output_[static_cast<size_t>(link)];
  }
  // Most idle VCs; of equals, the first from where the hash points to.
  const astra_net::Routes::Choice choice = graph_->choices(dst, router);
  const auto count = static_cast<uint64_t>(choice.count());
  uint32_t best = kNone, most = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t pick = (astra_net::flow_hash(src, dst, router, packet.serial) + i) % count;
    const auto link = static_cast<size_t>(choice.link(static_cast<size_t>(pick)));
    const uint32_t idle = outputs_[channel_output_[link]].idle.count();
    if (best != kNone && idle <= most) continue;
    best = channel_output_[link];
    most = idle;
  }
  return best;
}

template <int W>
void Core<W>::route(uint32_t slot, uint32_t router) {
  Vc& vc = buffers_[slot];
  Packet& packet = packet_pool_[vc.packet];
  vc.out = next_output(router, messages_[packet.message].message.src, packet);
  if (!config_.dateline) return;
  // Dateline: a packet takes the upper half of the VCs from the link that closes the ring on.
  const Output& out = outputs_[vc.out];
  if (out.ring < 0) {
    vc.vc_class = 0;
    return;
  }
  if (packet.ring != out.ring) {
    packet.ring = out.ring;
    packet.vc_class = 1;
  }
  if (out.dateline) packet.vc_class = 2;
  vc.vc_class = packet.vc_class;
}

template <int W>
typename Core<W>::Packet Core<W>::lone_packet(int32_t dst) const {
  Packet packet;
  packet.node = static_cast<uint32_t>(dst);
  packet.router = static_cast<uint32_t>(config_.nodes[packet.node].router);
  return packet;
}

template <int W>
bool Core<W>::has_route(int32_t src, int32_t dst) const {
  const Packet packet = lone_packet(dst);
  const auto at = static_cast<uint32_t>(config_.nodes[static_cast<size_t>(src)].router);
  return next_output(at, src, packet) != kNone;
}

template <int W>
int32_t Core<W>::first_dimension(int32_t src, int32_t dst) const {
  const Packet packet = lone_packet(dst);
  const auto at = static_cast<uint32_t>(config_.nodes[static_cast<size_t>(src)].router);
  const int32_t channel = inputs_[outputs_[next_output(at, src, packet)].link].channel;
  return channel < 0 ? 0 : config_.channels[static_cast<size_t>(channel)].dimension;
}

template <int W>
int64_t Core<W>::zero_load_cycles(int32_t src, int32_t dst, int64_t bytes) const {
  const Packet packet = lone_packet(dst);
  double busiest = 1.0, cycles = 1.0;
  const auto cross = [&](const Output& out) {
    const double per_flit =  // of the network as it was made, whatever has become of its links
        std::ldexp(static_cast<double>(busy_of(wire_of(out).cycles_per_flit)), -kFraction);
    busiest = std::max(busiest, per_flit);
    cycles += out.flit_delay + per_flit - 1;
    return inputs_[out.link].dst;
  };
  const Interface& source = interfaces_[static_cast<size_t>(src)];
  uint32_t at = cross(outputs_[inputs_[source.link].output]);
  while (!(at & kInterface)) at = cross(outputs_[next_output(at, src, packet)]);
  const int64_t split = packet_bytes(src, dst), size = split ? split : bytes;
  const auto flits = [&](int64_t part) { return (part - 1) / config_.flit_bytes + 1; };
  int64_t total = bytes / size * flits(size);
  if (bytes % size) total += flits(bytes % size);
  const double all = std::ceil(cycles + static_cast<double>(total - 1) * busiest);
  return all < 9e18 ? static_cast<int64_t>(all) : kNever;
}

}  // namespace
}  // namespace garnet
