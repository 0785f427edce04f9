// SPDX-License-Identifier: MIT
//
// Fast-forward: where the network does again what it did, it moves on by whole periods at once.
//
// All that decides on what happens next is described: VCs, credits, the pointers of arbiters, packets,
// events; times as distances from now, packets by where they stand.  Where a description is word for
// word an earlier one, the cycles after it repeat those between the two.  What only grows (counts
// of flits and packets, bytes that are left of a message) is no part of it: it grows by the same
// again with each period, and bounds the number of periods.
#pragma once

#include <algorithm>

#include "clock.hpp"
#include "core.hpp"

namespace garnet {
namespace {

constexpr int64_t kLongestPause = 1024;  // packets of the beacon between two looks
constexpr size_t kOfMessage = 6;  // its counts in for_each_count: bytes left, packets, ...

template <int W>
bool Core<W>::may_repeat() const {
  // Not where every packet or bin is wanted, and where packets of one pair take different ways.
  const bool by_pair = !graph_ || graph_->routing() == astra_net::Routing::kEcmp ||
                       graph_->routing() == astra_net::Routing::kStatic;
  return !config_.record_packets && config_.series_cycles == 0 && by_pair;
}

// Leaves out what nothing depends on any more: stale VCs, and links that have become free.
template <int W>
void Core<W>::describe(Description& seen) const {
  std::vector<uint64_t>& words = seen.words;
  words.clear();
  seen.messages.clear();
  seen.cycle = now_;
  const auto add = [&](auto... values) { (words.push_back(static_cast<uint64_t>(values)), ...); };
  const auto add_bits = [&](const Bits<W>& bits) {
    for (uint64_t word : bits.word) words.push_back(word);
  };
  add(starts_.size(), in_flight_, changes_.size());
  for (const Input& input : inputs_) {
    add_bits(input.occupied);
    add(input.next_vc);
  }
  for (const Output& out : outputs_) {
    add_bits(out.idle);
    add_bits(out.credit);
    const bool taken = out.busy && out.free_at > now_;
    add(out.next_in, out.busy, taken ? out.free_at - now_ : 0, taken ? out.free_part : 0);
  }
  for (uint32_t slot = 0; slot < buffers_.size(); ++slot) {
    const Vc& vc = buffers_[slot];
    add(vc.left, vc.count, credits_of_[slot], to_send_[slot]);
    if (vc.left == 0) continue;
    add(vc.out, vc.down, vc.vc_class);
    if (any_ordered_)
      add(vc.out == kNone ? 0 : now_ - filled_at_[slot],
          to_send_[slot] ? now_ - interface_filled_at_[slot] : 0);
    const Packet& packet = packet_pool_[vc.packet];
    add(packet.message, packet.flits, packet.hops, packet.ring, packet.vc_class, packet.src_vc,
        now_ - packet.pick);
    seen.messages.push_back(packet.message);
  }
  for (const Router& router : routers_) add(router.flits);
  for (const Interface& interface : interfaces_) {
    add_bits(interface.queued);
    add(interface.last_vc, interface.waiting);
  }
  for (const Queue& queue : queues_) {
    add(queue.head, queue.tail, queue.next_vc);
    if (queue.head != kNone) seen.messages.push_back(queue.head);
  }
  std::sort(seen.messages.begin(), seen.messages.end());
  seen.messages.erase(std::unique(seen.messages.begin(), seen.messages.end()), seen.messages.end());
  for (uint32_t index : seen.messages) {
    const MessageState& state = messages_[index];
    add(state.message.id, state.bytes_left == 0, state.open_packets, state.first_pick);
  }
  const auto add_events = [&](int64_t after, const std::vector<uint32_t>& flits,
                              const std::vector<uint32_t>& credits) {
    add(after, flits.size(), credits.size());
    words.insert(words.end(), flits.begin(), flits.end());
    words.insert(words.end(), credits.begin(), credits.end());
  };
  for (int64_t after = 1; after < wheel_size_; ++after) {
    const auto bucket = static_cast<size_t>((now_ + after) & (wheel_size_ - 1));
    if (!flits_[bucket].empty() || !credits_[bucket].empty())
      add_events(after, flits_[bucket], credits_[bucket]);
  }
  add(kNever);
  for (const auto& [at, events] : far_) add_events(at - now_, events.first, events.second);
  for (const auto& [out, changed] : changed_) add_events(out, changed.held, {});
  for (const auto* awake : {&awake_routers_, &awake_interfaces_}) {
    add(awake->size());
    words.insert(words.end(), awake->begin(), awake->end());
  }
  seen.counts.clear();
  for_each_count(*this, seen.messages,
                 [&](auto& count) { seen.counts.push_back(static_cast<uint64_t>(count)); });
}

// What grows by the same in every period.
template <int W>
template <class Self, class Function>
void Core<W>::for_each_count(Self& self, const std::vector<uint32_t>& messages,
                             Function&& function) {
  for (auto& input : self.inputs_) function(input.waiting);
  for (auto& out : self.outputs_) function(out.flits);
  for (auto& interface : self.interfaces_) {
    function(interface.injected);
    function(interface.ejected);
  }
  function(self.serial_);
  for (uint32_t index : messages) {
    auto& state = self.messages_[index];
    function(state.bytes_left);
    function(state.packets);
    function(state.flits);
    function(state.network);
    function(state.hops);
    function(state.queueing);
  }
}

// After a cycle: whether it is worth to look, by the packets of one message, the beacon.
template <int W>
void Core<W>::fast_forward(int64_t last) {
  if (now_ < look_at_) return;
  if (!may_repeat()) {
    look_at_ = kNever;
    return;
  }
  if (beacon_ == kNone || queues_[beacon_].head == kNone ||
      messages_[queues_[beacon_].head].message.id != beacon_message_) {
    find_beacon();
    return;
  }
  const Queue& queue = queues_[beacon_];
  const MessageState& state = messages_[queue.head];
  if (queue.next_vc != beacon_vc_ || state.packets < beacon_packets_) return;
  describe(looked_);
  const bool same = looked_.words == seen_.words;
  if (same && jump(last)) {
    pause_ = 1;
    misses_ = 0;
    describe(seen_);
  } else if (same) {
    pause_ = std::min(2 * pause_, kLongestPause);
    std::swap(seen_, looked_);
  } else if (++misses_ >= keep_) {
    // As in Brent's search for a cycle: what is compared with is kept for twice as long each time.
    keep_ = std::min<int64_t>(2 * keep_, 64);
    pause_ = std::min(2 * pause_, kLongestPause);
    misses_ = 0;
    std::swap(seen_, looked_);
  }
  beacon_packets_ = messages_[queues_[beacon_].head].packets + pause_;
}

// The interface that has most left to send, if that is worth it.
template <int W>
void Core<W>::find_beacon() {
  beacon_ = kNone;
  int64_t most = 0;
  for (uint32_t q = 0; q < queues_.size(); ++q) {
    if (queues_[q].head == kNone) continue;
    const MessageState& state = messages_[queues_[q].head];
    const int64_t split = state.message.packet_bytes;
    if (split == 0 || state.packets == 0) continue;
    const int64_t packets = state.bytes_left / split;
    if (packets > most) most = packets, beacon_ = q;
  }
  look_at_ = now_ + 256;
  if (most < int64_t{8} * vcs_per_vnet_) beacon_ = kNone;
  if (beacon_ == kNone) return;
  look_at_ = now_;
  const MessageState& state = messages_[queues_[beacon_].head];
  beacon_message_ = state.message.id;
  beacon_vc_ = queues_[beacon_].next_vc;
  beacon_packets_ = state.packets;
  keep_ = 1;
  misses_ = 0;
  seen_.words.clear();
}

// Moves on by as many periods from seen_ to now as surely are like it; false where by none.
template <int W>
bool Core<W>::jump(int64_t last) {
  const int64_t period = now_ - seen_.cycle;
  // The last cycle that is jumped is before all that does not repeat itself.
  int64_t until = std::min({last, next_change_ - 1, next_check_ - 1, kMostCycle});
  if (!starts_.empty()) until = std::min(until, starts_.top().cycle);
  int64_t periods = until > now_ ? (until - now_) / period : 0;
  std::vector<uint64_t> growth;
  growth.reserve(looked_.counts.size());
  for (size_t i = 0; i < looked_.counts.size(); ++i)
    growth.push_back(looked_.counts[i] - seen_.counts[i]);
  const size_t first = growth.size() - kOfMessage * looked_.messages.size();
  for (size_t m = 0; m < looked_.messages.size(); ++m) {
    const auto taken = static_cast<int64_t>(-growth[first + kOfMessage * m]);
    if (taken > 0)  // a byte is left, so that no packet is short and none the last
      periods = std::min(periods, (messages_[looked_.messages[m]].bytes_left - 1) / taken);
  }
  if (periods < 1) return false;

  const auto times = static_cast<uint64_t>(periods);
  const int64_t shift = periods * period;
  const uint64_t serials = growth[first - 1] * times;
  size_t i = 0;
  for_each_count(*this, looked_.messages, [&](auto& count) {
    count = static_cast<std::decay_t<decltype(count)>>(static_cast<uint64_t>(count) +
                                                       growth[i++] * times);
  });
  // Each packet of a later period has waited longer for its pick, by a period.
  for (size_t m = 0; m < looked_.messages.size(); ++m) {
    const uint64_t rise = growth[first + kOfMessage * m + 1] * static_cast<uint64_t>(period);
    int64_t& queueing = messages_[looked_.messages[m]].queueing;
    const uint64_t sum = times % 2 ? times * ((times + 1) / 2) : times / 2 * (times + 1);
    queueing = static_cast<int64_t>(static_cast<uint64_t>(queueing) + rise * sum);
  }
  for (int64_t& at : filled_at_) at += shift;
  for (int64_t& at : interface_filled_at_) at += shift;
  for (Packet& packet :
       packet_pool_) {  // the other times of one are for records, which are not kept
    packet.pick += shift;
    packet.serial += serials;
  }
  for (Output& out : outputs_)
    if (out.busy && out.free_at > now_) out.free_at += shift;
  const int64_t turn = shift & (wheel_size_ - 1);
  std::rotate(flits_.begin(), flits_.end() - turn, flits_.end());
  std::rotate(credits_.begin(), credits_.end() - turn, credits_.end());
  for (size_t bucket = 0; bucket < flits_.size(); ++bucket) {
    const uint64_t bit = uint64_t{1} << (bucket & 63);
    wheel_used_[bucket >> 6] &= ~bit;
    if (!flits_[bucket].empty() || !credits_[bucket].empty()) wheel_used_[bucket >> 6] |= bit;
  }
  std::map<int64_t, std::pair<std::vector<uint32_t>, std::vector<uint32_t>>> far;
  for (auto& [at, events] : far_) far.emplace(at + shift, std::move(events));
  far_ = std::move(far);
  now_ += shift;
  ++jumps_;
  jumped_cycles_ += shift;
  return true;
}

}  // namespace
}  // namespace garnet
