// SPDX-License-Identifier: MIT
//
// The JSON that stats() returns: scalars, and tables of columns.
#pragma once

#include <string>
#include <vector>

#include "network.hpp"

namespace garnet {

struct Flow {  // one transfer, in picoseconds
  int64_t id, src, dst, bytes, start_ps, fct_ps, ideal_fct_ps, packets, hops;
  int64_t queueing_ps, network_ps;  // mean of its packets
};

// A sentence about links that hardly ever rested; empty where there are none.
std::string saturation_warning(const Network& network);

// `link_ends`: source and end of each channel as the host numbers them.
std::string statistics_json(const Network& network, const std::vector<Flow>& flows,
                            const std::vector<std::pair<int32_t, int32_t>>& link_ends);

}  // namespace garnet
