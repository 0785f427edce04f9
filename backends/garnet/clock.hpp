// SPDX-License-Identifier: MIT
//
// Cycles of a clock as picoseconds: cycle c is the instant ceil(c / clock).
#pragma once

#include <cstdint>
#include <string>

#include "options.hpp"

namespace garnet {

// Sums of a cycle and what a configuration allows (deadlock_threshold, series_cycles, delays) stay
// within int64 up to here.
constexpr int64_t kMostCycle = INT64_MAX - 4'000'000'000'000'000;

struct Clock {
  int64_t hz = 1'000'000'000;

  int64_t ps_of(int64_t cycle) const {
    const Wide ps = (static_cast<Wide>(cycle) * kPsPerS + hz - 1) / hz;
    if (ps >= astra_net::kNever) beyond_time(cycle);
    return static_cast<int64_t>(ps);
  }
  int64_t first_cycle_from(int64_t ps) const {
    if (ps == 0) return 0;
    return static_cast<int64_t>(static_cast<Wide>(ps - 1) * hz / kPsPerS) + 1;
  }
  int64_t last_cycle_to(int64_t ps) const {
    return static_cast<int64_t>(static_cast<Wide>(ps) * hz / kPsPerS);
  }
  [[noreturn]] void beyond_time(int64_t cycle) const {
    throw astra_net::Error(ASTRA_NET_MODEL, "cycle " + std::to_string(cycle) + " at " +
                                                std::to_string(hz) +
                                                " Hz is beyond the range of time (2^63 ps)");
  }
};

}  // namespace garnet
