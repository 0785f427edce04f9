// SPDX-License-Identifier: MIT
//
// A router: flits and credits arrive, then its switch is allocated in two rounds.
#pragma once

#include "core.hpp"

namespace garnet {
namespace {

template <int W>
inline void Core<W>::take_credit(uint32_t event) {
  const uint32_t slot = event >> 1;
  Output& out = output_of(slot);
  ++credits_of_[slot];
  out.credit.set(vc_of(slot));
  if (event & 1) out.idle.set(vc_of(slot));
  // A credit matters only to a source that has flits or messages waiting.
  if (out.src & kInterface) {
    const Interface& interface = interfaces_[out.src & ~kInterface];
    if (interface.waiting || interface.queued.any()) wake(out.src);
  } else if (routers_[out.src].flits > 0) {
    wake(out.src);
  }
}

template <int W>
inline void Core<W>::take_flit(uint32_t slot) {
  Input& input = inputs_[slot >> shift_];
  if (input.dst & kInterface) {
    eject(slot);
    return;
  }
  Vc& vc = buffers_[slot];
  Router& router = routers_[input.dst];
  ++router.flits;
  if (vc.count++ == 0) {
    input.occupied.set(vc_of(slot));
    occupied_ports_[router.ports + (input.port >> 6)] |= uint64_t{1} << (input.port & 63);
    if (vc.out == kNone) {
      route(slot, input.dst);
      if (any_ordered_) filled_at_[slot] = now_;
    }
  }
  input.waiting -= static_cast<uint64_t>(now_);
  wake(input.dst);
}

// Ordered vnet: another VC of the vnet and input port, for the same output, was filled earlier.  One
// that is on the other side of a dateline has another source, and waiting for it could close a ring.
template <int W>
bool Core<W>::is_before(uint32_t other, uint32_t slot) const {
  const Vc &first = buffers_[other], &second = buffers_[slot];
  return first.out == second.out && first.vc_class == second.vc_class &&
         filled_at_[other] < filled_at_[slot];
}

template <int W>
bool Core<W>::blocked_by_order(uint32_t link, uint32_t k) const {
  const uint32_t base = link << shift_;
  return (inputs_[link].occupied & choices_[k]).scan(0, [&](uint32_t other) {
    return is_before(base | other, base | k);
  }) != kNone;
}

// May the flit at the front of an occupied VC ask for its output?
template <int W>
inline bool Core<W>::may_go(uint32_t link, uint32_t k) const {
  const Vc& vc = buffers_[link << shift_ | k];
  const Output& out = outputs_[vc.out];
  if (vc.down == kNone ? !(out.idle & choice(vc, k)).any() : !out.credit.test(vc_of(vc.down)))
    return false;
  return !any_ordered_ || !config_.vnets[vnet_of_[k]].ordered || !blocked_by_order(link, k);
}

// Stage I of switch allocation: the VC with which an input port takes part, or kNone.
template <int W>
inline uint32_t Core<W>::choose(uint32_t link) const {
  const Input& input = inputs_[link];
  return input.occupied.scan(input.next_vc, [&](uint32_t k) { return may_go(link, k); });
}

template <int W>
inline void Core<W>::grant(Router& router, uint32_t port, uint32_t k, uint32_t out_index) {
  const uint32_t in_index = router.first_in + port, slot = in_index << shift_ | k;
  Input& in = inputs_[in_index];
  Output& out = outputs_[out_index];
  Vc& vc = buffers_[slot];
  if (vc.down == kNone) {
    const uint32_t down = (out.idle & choice(vc, k)).first();
    out.idle.clear(down);
    vc.down = out.link << shift_ | down;
    Packet& packet = packet_pool_[vc.packet];
    Vc& next = buffers_[vc.down];
    next.packet = vc.packet;
    next.left = packet.flits;
    packet.hops += out.channel;
  }
  send(out, vc.down);
  const bool tail = --vc.left == 0;
  credit(slot, in.credit_delay, tail);
  --router.flits;
  if (--vc.count == 0) {
    in.occupied.clear(k);
    if (!in.occupied.any())
      occupied_ports_[router.ports + (port >> 6)] &= ~(uint64_t{1} << (port & 63));
  }
  if (tail) vc.out = vc.down = kNone;
  in.next_vc = k + 1 == vcs_ ? 0 : k + 1;
  out.next_in = port + 1 == router.inputs ? 0 : port + 1;
  in.waiting += static_cast<uint64_t>(now_);
}

template <int W>
bool Core<W>::step_router(uint32_t index) {
  Router& router = routers_[index];
  const uint64_t first_word = occupied_ports_[router.ports];
  if (router.port_words == 1 && (first_word & (first_word - 1)) == 0) {  // one port: no rivals
    const auto port = static_cast<uint32_t>(__builtin_ctzll(first_word));
    const uint32_t in = router.first_in + port, k = choose(in);
    if (k == kNone) return false;
    grant(router, port, k, buffers_[in << shift_ | k].out);
    return true;
  }
  // All input ports choose on the state before any grant of this cycle.
  uint32_t requests = 0;
  for (uint32_t w = 0; w < router.port_words; ++w) {
    for (uint64_t ports = occupied_ports_[router.ports + w]; ports; ports &= ports - 1) {
      const uint32_t port = w * 64 + static_cast<uint32_t>(__builtin_ctzll(ports));
      const uint32_t in = router.first_in + port, k = choose(in);
      if (k == kNone) continue;
      // Stage II: each output port takes the first requesting input port from its pointer on.
      const uint32_t out = buffers_[in << shift_ | k].out, from = outputs_[out].next_in;
      const uint32_t distance = port >= from ? port - from : port + router.inputs - from;
      Best& best = best_[out];
      if (best.distance == kNone) requested_[requests++] = out;
      if (distance < best.distance) best = {distance, port, k};
    }
  }
  for (uint32_t i = 0; i < requests; ++i) {
    Best& best = best_[requested_[i]];
    best.distance = kNone;
    grant(router, best.port, best.vc, requested_[i]);
  }
  return requests > 0;
}

}  // namespace
}  // namespace garnet
