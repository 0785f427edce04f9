// SPDX-License-Identifier: MIT
//
// Links: flits and credits cross them, at a rate that may change.
#pragma once

#include <algorithm>

#include "core.hpp"

namespace garnet {
namespace {

// The next flit crosses a link with a busy time, from free_at on; gives the cycle of its arrival.
template <int W>
inline int64_t Core<W>::cross(Output& out) {
  const int64_t part = out.free_part + out.busy;
  out.free_at += part >> kFraction;
  out.free_part = static_cast<uint32_t>(part & ((1 << kFraction) - 1));
  return out.free_at - (out.free_part == 0) + out.flit_delay - 1;
}

template <int W>
inline void Core<W>::send(Output& out, uint32_t slot) {
  if (--credits_of_[slot] == 0) out.credit.clear(vc_of(slot));
  ++out.flits;
  int64_t at = now_ + out.flit_delay;
  if (out.busy) {
    if (out.busy == kDown) {
      changed_[static_cast<uint32_t>(&out - outputs_.data())].held.push_back(slot);
      return;
    }
    // A slower link takes the flits one after another; how many may wait is bounded by credits.
    if (out.free_at < now_ + 1) {
      out.free_at = now_ + 1;
      out.free_part = 0;
    }
    at = cross(out);
  }
  post(flits_, false, at, slot);
}

template <int W>
inline void Core<W>::credit(uint32_t slot, uint32_t delay, bool tail) {
  post(credits_, true, now_ + delay, slot << 1 | static_cast<uint32_t>(tail));
}

template <int W>
void Core<W>::change_link(const LinkChange& change) {
  const auto later = [](const LinkChange& a, const LinkChange& b) {
    return a.cycle != b.cycle ? a.cycle < b.cycle : a.order < b.order;
  };
  changes_.insert(std::upper_bound(changes_.begin(), changes_.end(), change, later), change);
  next_change_ = changes_.front().cycle + 1;
}

template <int W>
void Core<W>::make_changes() {
  const auto due = std::find_if(changes_.begin(), changes_.end(),
                                [&](const LinkChange& change) { return change.cycle >= now_; });
  for (auto change = changes_.begin(); change != due; ++change) make_change(*change);
  changes_.erase(changes_.begin(), due);
  next_change_ = changes_.empty() ? kNever : changes_.front().cycle + 1;
}

// The link has the new rate from the present cycle on.  A flit that is crossing it goes on at the
// rate with which it began; those behind it cross it after that, each at the new rate.
template <int W>
void Core<W>::make_change(const LinkChange& change) {
  const uint32_t index = channel_output_[static_cast<size_t>(change.channel)];
  Output& out = outputs_[index];
  const double given = wire_of(out).cycles_per_flit;
  Changed& changed = changed_.try_emplace(index, Changed{given, {}, 0, 0}).first->second;

  // From now until the link is free for the first flit that waits; in the unit of out.busy.
  Wide free = static_cast<Wide>(out.free_at - now_) * (1 << kFraction) + out.free_part;
  free = std::max<Wide>(free, 0);
  std::vector<uint32_t> waiting;
  waiting.swap(changed.held);
  if (out.busy != kDown) {
    // A flit that begins now arrives flit_delay - 1 later, if it crosses in one cycle.
    const auto flits = recall(out.link, now_ + out.flit_delay - 1);
    // One that began before the last change has kept an older rate, and does so again.
    const uint64_t at_this_rate = out.flits - changed.crossed;
    const size_t older = flits.size() > at_this_rate ? 1 : 0;
    size_t begun = flits.size();
    for (; begun > older && free >= out.busy; --begun) free -= out.busy;
    for (size_t i = 0; i < flits.size(); ++i) {
      if (i < begun)
        post(flits_, false, flits[i].first, flits[i].second);
      else
        waiting.push_back(flits[i].second);
    }
  }
  const uint64_t crossed = out.flits - waiting.size();
  changed.extra_cycles +=
      static_cast<double>(crossed - changed.crossed) * (changed.cycles_per_flit - given);
  changed.crossed = crossed;
  changed.cycles_per_flit = change.cycles_per_flit;

  out.free_at = now_ + static_cast<int64_t>(free >> kFraction);
  out.free_part = static_cast<uint32_t>(free & ((1 << kFraction) - 1));
  if (change.cycles_per_flit > 0) {
    out.busy = busy_of(change.cycles_per_flit);
    for (uint32_t slot : waiting) post(flits_, false, cross(out), slot);
  } else {
    out.busy = kDown;
    changed.held = std::move(waiting);
  }
}

// Takes back the flits that would come to the end of a link in the cycle `from` or later: pairs of
// cycle and slot, in the order in which they were sent.
template <int W>
std::vector<std::pair<int64_t, uint32_t>> Core<W>::recall(uint32_t link, int64_t from) {
  std::vector<std::pair<int64_t, uint32_t>> found;
  const auto take = [&](std::vector<uint32_t>& flits, int64_t at) {
    if (at < from) return;
    const auto ours = [&](uint32_t slot) {
      if (slot >> shift_ != link) return false;
      found.emplace_back(at, slot);
      return true;
    };
    flits.erase(std::remove_if(flits.begin(), flits.end(), ours), flits.end());
  };
  for (int64_t at = now_; at < now_ + wheel_size_; ++at) {
    const auto bucket = static_cast<size_t>(at & (wheel_size_ - 1));
    take(flits_[bucket], at);
    if (flits_[bucket].empty() && credits_[bucket].empty())
      wheel_used_[bucket >> 6] &= ~(uint64_t{1} << (bucket & 63));
  }
  for (auto entry = far_.begin(); entry != far_.end();) {
    auto& [flits, credits] = entry->second;
    take(flits, entry->first);
    entry = flits.empty() && credits.empty() ? far_.erase(entry) : std::next(entry);
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace
}  // namespace garnet
