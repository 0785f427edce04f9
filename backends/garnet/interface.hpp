// SPDX-License-Identifier: MIT
//
// A network interface: messages become packets, flits are sent and consumed.
#pragma once

#include <algorithm>

#include "core.hpp"

namespace garnet {
namespace {

template <int W>
void Core<W>::enqueue(const Message& message) {
  uint32_t index;
  if (free_messages_.empty()) {
    index = static_cast<uint32_t>(messages_.size());
    messages_.emplace_back();
  } else {
    index = free_messages_.back();
    free_messages_.pop_back();
  }
  messages_[index] = MessageState{};
  messages_[index].message = message;
  messages_[index].bytes_left = message.bytes;
  starts_.push({message.cycle, message.order, message.id, index});
  ++in_flight_;
}

template <int W>
bool Core<W>::pick(uint32_t node, uint32_t vnet) {
  Interface& interface = interfaces_[node];
  Queue& queue = queues_[node * config_.vnets.size() + vnet];
  Output& out = outputs_[inputs_[interface.link].output];
  const uint32_t base = vnet * vcs_per_vnet_;
  uint32_t offset = queue.next_vc, tried = 0;
  while (!out.idle.test(base + offset)) {
    offset = offset + 1 == vcs_per_vnet_ ? 0 : offset + 1;
    if (++tried == vcs_per_vnet_) return false;  // the pointer is back where it began
  }
  queue.next_vc = offset + 1 == vcs_per_vnet_ ? 0 : offset + 1;
  const uint32_t k = base + offset, slot = interface.link << shift_ | k;

  uint32_t index;
  if (free_packets_.empty()) {
    index = static_cast<uint32_t>(packet_pool_.size());
    packet_pool_.emplace_back();
  } else {
    index = free_packets_.back();
    free_packets_.pop_back();
  }
  MessageState& state = messages_[queue.head];
  const int64_t split = state.message.packet_bytes;
  const int64_t bytes = split ? std::min(split, state.bytes_left) : state.bytes_left;
  Packet& packet = packet_pool_[index];
  packet = Packet{};
  packet.message = queue.head;
  packet.flits = static_cast<uint32_t>((bytes - 1) / config_.flit_bytes + 1);
  packet.node = static_cast<uint32_t>(state.message.dst);
  packet.router = static_cast<uint32_t>(config_.nodes[packet.node].router);
  packet.src_vc = k;
  packet.pick = now_;
  packet.serial = ++serial_;
  if (state.first_pick < 0) {
    state.first_pick = now_;
    interface.max_queue = std::max(interface.max_queue, now_ - state.message.cycle);
  }
  ++state.packets;
  ++state.open_packets;
  state.flits += packet.flits;
  state.queueing += now_ - state.message.cycle;
  state.bytes_left -= bytes;

  out.idle.clear(k);
  buffers_[slot].packet = index;
  buffers_[slot].left = packet.flits;
  to_send_[slot] = packet.flits;
  interface.queued.set(k);
  if (any_ordered_) interface_filled_at_[slot] = now_;
  if (state.bytes_left == 0) {
    queue.head = state.next;
    if (queue.head == kNone) {
      queue.tail = kNone;
      interface.waiting &= ~(1u << vnet);
    }
  }
  return true;
}

template <int W>
bool Core<W>::step_interface(uint32_t node) {
  Interface& interface = interfaces_[node];
  bool worked = false;
  for (uint32_t vnets = interface.waiting; vnets; vnets &= vnets - 1)
    worked |= pick(node, static_cast<uint32_t>(__builtin_ctz(vnets)));

  if (!interface.queued.any()) return worked;
  const uint32_t base = interface.link << shift_;
  const uint32_t start = interface.last_vc + 1 == vcs_ ? 0 : interface.last_vc + 1;
  Output& out = outputs_[inputs_[interface.link].output];
  const uint32_t winner = (interface.queued & out.credit).scan(start, [&](uint32_t k) {
    if (!any_ordered_ || !config_.vnets[vnet_of_[k]].ordered) return true;
    return (interface.queued & choices_[k]).scan(0, [&](uint32_t other) {
      return interface_filled_at_[base | other] < interface_filled_at_[base | k];
    }) == kNone;
  });
  if (winner == kNone) return worked;
  interface.last_vc = winner;
  const uint32_t slot = base | winner;
  Packet& packet = packet_pool_[buffers_[slot].packet];
  if (to_send_[slot] == packet.flits) packet.head_send = now_;
  if (--to_send_[slot] == 0) {
    packet.tail_send = now_;
    interface.queued.clear(winner);
  }
  ++interface.injected;
  send(out, slot);
  return true;
}

template <int W>
void Core<W>::eject(uint32_t slot) {
  Vc& vc = buffers_[slot];
  const Input& input = inputs_[slot >> shift_];
  const uint32_t node = input.dst & ~kInterface;
  Packet& packet = packet_pool_[vc.packet];
  if (vc.left == packet.flits) packet.head_recv = now_;
  const bool tail = --vc.left == 0;
  credit(slot, input.credit_delay, tail);
  ++interfaces_[node].ejected;
  if (!tail) return;

  MessageState& state = messages_[packet.message];
  state.network += now_ - packet.pick - 1;
  state.hops += packet.hops;
  if (config_.record_packets)
    packets_.push_back({state.message.id, packet.pick, packet.head_send, packet.tail_send,
                        packet.head_recv, now_, static_cast<int32_t>(packet.flits), packet.hops,
                        static_cast<int32_t>(packet.src_vc), static_cast<int32_t>(vc_of(slot))});
  free_packets_.push_back(vc.packet);
  if (--state.open_packets > 0 || state.bytes_left > 0) return;
  deliveries_.push_back({state.message, now_, state.first_pick, state.packets, state.flits,
                         state.queueing, state.network, state.hops});
  free_messages_.push_back(packet.message);
  --in_flight_;
}

}  // namespace
}  // namespace garnet
