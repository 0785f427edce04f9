// SPDX-License-Identifier: MIT
//
// Who waits for whom: suspicion, and the circle that is an error.
#pragma once

#include <algorithm>
#include <sstream>

#include "core.hpp"

namespace garnet {
namespace {

template <int W>
void Core<W>::check_progress() {
  for (size_t slot = 0; slot < buffers_.size(); ++slot) {
    const Vc& vc = buffers_[slot];
    const Progress seen{vc.left ? packet_pool_[vc.packet].serial : 0, vc.left};
    if (seen.left && seen.serial == progress_[slot].serial && seen.left == progress_[slot].left)
      suspicious_ = true;
    progress_[slot] = seen;
  }
}

template <int W>
std::string Core<W>::describe(uint32_t slot) const {
  const uint32_t src = output_of(slot).src;
  const Packet& packet = packet_pool_[buffers_[slot].packet];
  const Message& message = messages_[packet.message].message;
  std::ostringstream text;
  text << "router " << inputs_[slot >> shift_].dst << " from " << (src & kInterface ? "node " : "")
       << (src & ~kInterface) << " VC " << vc_of(slot) << " (" << message.id << ": " << message.src
       << " to " << message.dst << ")";
  return text.str();
}

template <int W>
std::string Core<W>::find_deadlock(bool all) const {
  const size_t slots = buffers_.size();
  // alive: may still move.  A VC is stuck until something that it waits for is found alive.
  std::vector<uint8_t> alive(slots, 1);
  std::vector<uint32_t> holder(slots, kNone);  // the VC upstream whose packet owns this VC
  for (uint32_t slot = 0; slot < slots; ++slot) {
    const Vc& vc = buffers_[slot];
    if (vc.down != kNone) holder[vc.down] = slot;
    if (inputs_[slot >> shift_].dst & kInterface || vc.left == 0) continue;
    const bool still =
        progress_[slot].left == vc.left && progress_[slot].serial == packet_pool_[vc.packet].serial;
    alive[slot] = !(all || still) || (vc.count > 0 && may_go(slot >> shift_, vc_of(slot)));
  }
  for_each_event([&](uint32_t slot) { alive[slot] = 1; });
  // What a stuck VC waits for; any one of them is enough to set it free.
  const auto waits_for = [&](uint32_t slot, std::vector<uint32_t>& result) {
    result.clear();
    const Vc& vc = buffers_[slot];
    const uint32_t k = vc_of(slot);
    if (vc.count == 0) {
      if (holder[slot] != kNone) result.push_back(holder[slot]);
    } else if (any_ordered_ && config_.vnets[vnet_of_[k]].ordered &&
               blocked_by_order(slot >> shift_, k)) {
      (inputs_[slot >> shift_].occupied & choices_[k]).scan(0, [&](uint32_t other) {
        const uint32_t rival = (slot & ~((1u << shift_) - 1)) | other;
        if (is_before(rival, slot)) result.push_back(rival);
        return false;
      });
    } else if (vc.down != kNone) {
      result.push_back(vc.down);
    } else {
      choice(vc, k).scan(0, [&](uint32_t other) {
        result.push_back(outputs_[vc.out].link << shift_ | other);
        return false;
      });
    }
  };
  std::vector<uint32_t> targets;
  for (bool changed = true; changed;) {
    changed = false;
    for (uint32_t slot = 0; slot < slots; ++slot) {
      if (alive[slot]) continue;
      waits_for(slot, targets);
      const bool freed =
          (!all && targets.empty()) ||
          std::any_of(targets.begin(), targets.end(), [&](uint32_t t) { return alive[t]; });
      if (freed) alive[slot] = 1, changed = true;
    }
  }
  // Every VC that is left waits only for others that are left, so a walk meets itself.
  std::vector<uint32_t> walk, position(slots, kNone);
  uint32_t at = kNone;
  for (uint32_t slot = 0; slot < slots && at == kNone; ++slot)
    if (!alive[slot]) at = slot;
  while (at != kNone && position[at] == kNone) {
    position[at] = static_cast<uint32_t>(walk.size());
    walk.push_back(at);
    waits_for(at, targets);
    at = targets.empty() ? kNone : targets.front();
  }
  if (at == kNone) return "";
  std::ostringstream text;
  for (size_t i = position[at]; i < walk.size(); ++i) text << describe(walk[i]) << " waits for ";
  text << describe(at);
  return text.str();
}

template <int W>
std::vector<int32_t> Core<W>::links_waited_for() const {
  std::vector<int32_t> links;
  for (const auto& [out, changed] : changed_)
    if (!changed.held.empty()) links.push_back(inputs_[outputs_[out].link].channel);
  std::sort(links.begin(), links.end());
  return links;
}

}  // namespace
}  // namespace garnet
