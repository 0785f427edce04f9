// SPDX-License-Identifier: MIT
//
// What links, routers and interfaces carried.
#pragma once

#include "core.hpp"

namespace garnet {
namespace {

template <int W>
double Core<W>::occupancy(uint32_t link) const {
  uint64_t buffered = 0;
  for (uint32_t k = 0; k < vcs_; ++k) buffered += buffers_[link << shift_ | k].count;
  return static_cast<double>(inputs_[link].waiting + buffered * static_cast<uint64_t>(now_));
}

template <int W>
std::vector<LinkLoad> Core<W>::link_loads() const {
  std::vector<LinkLoad> loads;
  for (uint32_t index : channel_output_) {
    const Output& out = outputs_[index];
    LinkLoad load{out.flits, 0, occupancy(out.link)};
    const auto found = changed_.find(index);
    if (found != changed_.end()) {
      const Changed& changed = found->second;
      load.flits -= changed.held.size();
      load.extra_cycles =
          changed.extra_cycles + static_cast<double>(load.flits - changed.crossed) *
                                     (changed.cycles_per_flit - wire_of(out).cycles_per_flit);
    }
    loads.push_back(load);
  }
  return loads;
}

template <int W>
std::vector<uint64_t> Core<W>::router_flits() const {
  std::vector<uint64_t> flits(routers_.size());
  for (const Output& out : outputs_)
    if (!(out.src & kInterface)) flits[out.src] += out.flits;
  return flits;
}

template <int W>
std::vector<NodeLoad> Core<W>::node_loads() const {
  std::vector<NodeLoad> loads;
  loads.reserve(interfaces_.size());
  for (const Interface& interface : interfaces_) {
    loads.push_back(
        {interface.injected, interface.ejected, occupancy(interface.link), interface.max_queue});
  }
  return loads;
}

template <int W>
std::vector<uint64_t> Core<W>::channel_flits() const {
  std::vector<uint64_t> flits;
  flits.reserve(channel_output_.size());
  for (uint32_t out : channel_output_) flits.push_back(outputs_[out].flits);
  return flits;
}

}  // namespace
}  // namespace garnet
