// SPDX-License-Identifier: MIT
//
// The load of links and routers over time.
#include "network.hpp"

namespace garnet {

Network::Network(const Config& config)
    : config_(config),
      binned_flits_(config.channels.size()),
      binned_router_flits_(config.router_latency.size()) {
  if (config.series_cycles > 0) next_bin_ = config.series_cycles;
}

void Network::begin_bin(int64_t cycle) {
  close_bin(series_);
  binned_flits_ = channel_flits();
  binned_router_flits_ = router_flits();
  next_bin_ = (cycle / config_.series_cycles + 1) * config_.series_cycles;
}

void Network::close_bin(Series& series) const {
  const auto append = [&](std::vector<SeriesPoint>& points, const std::vector<uint64_t>& now,
                          const std::vector<uint64_t>& before) {
    for (size_t i = 0; i < now.size(); ++i)
      if (now[i] != before[i])
        points.push_back(
            {next_bin_ - config_.series_cycles, static_cast<int32_t>(i), now[i] - before[i]});
  };
  append(series.links, channel_flits(), binned_flits_);
  append(series.routers, router_flits(), binned_router_flits_);
}

Series Network::series() const {
  Series points = series_;
  if (config_.series_cycles > 0) close_bin(points);
  return points;
}

}  // namespace garnet
