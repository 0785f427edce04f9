// SPDX-License-Identifier: MIT
//
// A cycle of the network, made of its parts.
#include "network.hpp"

#include <algorithm>

#include "construction.hpp"
#include "core.hpp"
#include "deadlock.hpp"
#include "events.hpp"
#include "fast_forward.hpp"
#include "interface.hpp"
#include "links.hpp"
#include "loads.hpp"
#include "router.hpp"
#include "saving.hpp"
#include "ways.hpp"

namespace garnet {

template <int W>
void Core<W>::run(int64_t cycle) {
  if (cycle >= next_bin_) begin_bin(cycle);
  if (cycle >= next_check_) {
    if (free_packets_.size() < packet_pool_.size()) check_progress();
    next_check_ = cycle + config_.deadlock_threshold;
  }
  now_ = cycle;
  if (cycle >= next_change_) make_changes();
  while (!starts_.empty() && starts_.top().cycle < cycle) {
    const uint32_t index = starts_.top().state;
    starts_.pop();
    const Message& message = messages_[index].message;
    const auto node = static_cast<uint32_t>(message.src);
    Queue& queue = queues_[node * config_.vnets.size() + static_cast<size_t>(message.vnet)];
    (queue.tail == kNone ? queue.head : messages_[queue.tail].next) = index;
    queue.tail = index;
    interfaces_[node].waiting |= 1u << message.vnet;
    wake(kInterface | node);
  }
  const auto bucket = static_cast<size_t>(cycle & (wheel_size_ - 1));
  if (wheel_used_[bucket >> 6] >> (bucket & 63) & 1) {
    wheel_used_[bucket >> 6] &= ~(uint64_t{1} << (bucket & 63));
    // Nothing is posted for the present cycle, so these lists do not change under the loops.
    const std::vector<uint32_t>& credits = credits_[bucket];
    for (size_t i = 0; i < credits.size(); ++i) {
      if (i + kAhead < credits.size()) __builtin_prefetch(&credits_of_[credits[i + kAhead] >> 1]);
      take_credit(credits[i]);
    }
    credits_[bucket].clear();
    const std::vector<uint32_t>& flits = flits_[bucket];
    for (size_t i = 0; i < flits.size(); ++i) {
      if (i + kAhead < flits.size()) __builtin_prefetch(&buffers_[flits[i + kAhead]]);
      take_flit(flits[i]);
    }
    flits_[bucket].clear();
  }
  if (!far_.empty() && far_.begin()->first == cycle) {
    const auto events = std::move(far_.begin()->second);
    far_.erase(far_.begin());
    for (uint32_t event : events.second) take_credit(event);
    for (uint32_t slot : events.first) take_flit(slot);
  }

  scratch_.clear();
  scratch_.swap(awake_interfaces_);
  for (uint32_t n : scratch_) interface_awake_[n] = 0;
  for (uint32_t n : scratch_)
    if (step_interface(n) && (interfaces_[n].waiting || interfaces_[n].queued.any()))
      wake(kInterface | n);
  scratch_.clear();
  scratch_.swap(awake_routers_);
  for (uint32_t r : scratch_) router_awake_[r] = 0;
  for (uint32_t r : scratch_)
    if (step_router(r) && routers_[r].flits > 0) wake(r);
}

std::unique_ptr<Network> Network::make(const Config& config) {
  validate(config);
  const size_t vcs = config.vnets.size() * static_cast<size_t>(config.vcs_per_vnet);
  if (vcs <= 64) return std::make_unique<Core<1>>(config);
  if (vcs <= 256) return std::make_unique<Core<4>>(config);
  return std::make_unique<Core<16>>(config);
}

}  // namespace garnet
