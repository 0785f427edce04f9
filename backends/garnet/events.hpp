// SPDX-License-Identifier: MIT
//
// What happens later, by cycle, and who must be looked at: the wheel, and the list of the awake.
#pragma once

#include <algorithm>

#include "core.hpp"

namespace garnet {
namespace {

template <int W>
inline void Core<W>::wake(uint32_t component) {
  if (component & kInterface) {
    const uint32_t n = component & ~kInterface;
    if (interface_awake_[n]) return;
    interface_awake_[n] = 1;
    awake_interfaces_.push_back(n);
  } else if (!router_awake_[component]) {
    router_awake_[component] = 1;
    awake_routers_.push_back(component);
  }
}

template <int W>
inline void Core<W>::post(std::vector<std::vector<uint32_t>>& wheel, bool credit, int64_t at,
                          uint32_t event) {
  if (__builtin_expect(at - now_ < wheel_size_, 1)) {
    const auto bucket = static_cast<size_t>(at & (wheel_size_ - 1));
    wheel[bucket].push_back(event);
    wheel_used_[bucket >> 6] |= uint64_t{1} << (bucket & 63);
  } else {
    auto& [flits, credits] = far_[at];
    (credit ? credits : flits).push_back(event);
  }
}

template <int W>
template <class Function>
void Core<W>::for_each_event(Function&& function) const {
  for (const auto& bucket : flits_)
    for (uint32_t slot : bucket) function(slot);
  for (const auto& bucket : credits_)
    for (uint32_t event : bucket) function(event >> 1);
  for (const auto& [at, events] : far_) {
    for (uint32_t slot : events.first) function(slot);
    for (uint32_t event : events.second) function(event >> 1);
  }
  for (const auto& [out, changed] : changed_)
    for (uint32_t slot : changed.held) function(slot);
}

template <int W>
int64_t Core<W>::next_cycle() const {
  if (!awake_routers_.empty() || !awake_interfaces_.empty()) return now_ + 1;
  int64_t next = starts_.empty() ? kNever : std::max(starts_.top().cycle, now_) + 1;
  next = std::min(next, next_change_);
  if (!far_.empty()) next = std::min(next, far_.begin()->first);
  const auto words = static_cast<int64_t>(wheel_used_.size());
  const int64_t first = (now_ + 1) & (wheel_size_ - 1);
  for (int64_t step = 0; step <= words; ++step) {
    const int64_t w = ((first >> 6) + step) & (words - 1);
    uint64_t used = wheel_used_[static_cast<size_t>(w)];
    if (step == 0) used &= ~uint64_t{0} << (first & 63);
    if (used == 0) continue;
    const int64_t bucket = w * 64 + __builtin_ctzll(used);
    return std::min(next, now_ + 1 + ((bucket - first) & (wheel_size_ - 1)));
  }
  return next;
}

}  // namespace
}  // namespace garnet
