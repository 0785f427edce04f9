// SPDX-License-Identifier: MIT
// A small backend without congestion: every pair of endpoints has a private wire of one rate and one latency.
#include <cmath>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "astra_net.hpp"

class Wire final : public astra_net::Model {
 public:
  static astra_net_info info() {
    astra_net_info info{};
    info.name = "wire";
    info.version = "1.0";
    info.capabilities = ASTRA_NET_CAP_MULTI_INSTANCE | ASTRA_NET_CAP_PARALLEL;
    info.resolution_ps = 1;
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = 1;
    return info;
  }

  Wire(astra_net::Config& config, const astra_net::Log&)
      : rate_Bps_(config.options.number("rate_Bps", 50e9, 1, 1e18)),
        latency_ps_(config.options.integer("latency_ps", 500000, 0, 1000000000000)) {}

  void start(const astra_net_transfer& transfer) override {
    // long double: 2^40 bytes times 10^12 is exact in it, and not in a double.
    const long double wire_ps = std::ceil(transfer.bytes * 1e12L / rate_Bps_);
    if (wire_ps > 9e18L) throw astra_net::Error(ASTRA_NET_MODEL, "transfer takes over 100 days");
    const int64_t end_ps = astra_net::add_ps(
        transfer.start_ps, astra_net::add_ps(static_cast<int64_t>(wire_ps), latency_ps_));
    arrivals_.push({end_ps, transfer.id});
  }

  astra_net::Reached run(int64_t until_ps) override {
    if (arrivals_.empty() || arrivals_.top().first > until_ps) return {until_ps, arrivals_.empty()};
    const int64_t now_ps = arrivals_.top().first;
    while (!arrivals_.empty() && arrivals_.top().first == now_ps) {
      deliver(arrivals_.top().second, now_ps);
      arrivals_.pop();
    }
    return {now_ps, arrivals_.empty()};
  }

 private:
  using Arrival = std::pair<int64_t, int64_t>;  // time, id
  double rate_Bps_;
  int64_t latency_ps_;
  std::priority_queue<Arrival, std::vector<Arrival>, std::greater<>> arrivals_;
};

ASTRA_NET_BACKEND(Wire)
