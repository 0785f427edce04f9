// SPDX-License-Identifier: MIT
// A network that does not keep the order inside an instant, takes only a few transfers at a time,
// says when they have left, and is slower in the second dimension: what the analytical networks are
// not.
#include <deque>
#include <functional>
#include <map>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "astra_net.hpp"

// Every source has one port, first come, first served, 8 ps a byte; then a wire of `latency_ps`.
class Narrow final : public astra_net::Model {
 public:
  static astra_net_info info() {
    astra_net_info info{};
    info.name = "narrow";
    info.version = "1.0";
    info.capabilities = ASTRA_NET_CAP_MULTI_INSTANCE | ASTRA_NET_CAP_SENT | ASTRA_NET_CAP_LEVELS;
    info.resolution_ps = 16;
    info.max_in_flight = 5;
    info.traffic_classes = 2;
    return info;
  }

  Narrow(astra_net::Config& config, const astra_net::Log&)
      : latency_ps_(config.options.integer("latency_ps", 16000)),
        lose_(config.options.integer("lose", 0)) {}

  void start(const astra_net_transfer& transfer) override {
    const int64_t begin_ps = std::max(transfer.start_ps, free_ps_[transfer.src]);
    const int64_t end_ps = begin_ps + (transfer.bytes * 8 + 15) / 16 * 16;
    free_ps_[transfer.src] = end_ps;
    events_.push({end_ps, {transfer.id, false}});
    const int64_t wire_ps = latency_ps_ / 16 * 16 + 3200 * int64_t{transfer.traffic_class};
    events_.push({end_ps + wire_ps, {transfer.id, true}});
  }

  astra_net::Reached run(int64_t until_ps) override {
    if (events_.empty() || events_.top().first > until_ps) return {until_ps, events_.empty()};
    const int64_t now_ps = events_.top().first;
    while (!events_.empty() && events_.top().first == now_ps) {
      const auto [id, arrived] = events_.top().second;
      events_.pop();
      if (arrived && ++arrivals_ == lose_)
        lose(id, now_ps);
      else if (arrived)
        deliver(id, now_ps);
      else
        sent(id, now_ps);
    }
    return {now_ps, events_.empty()};
  }

 private:
  using Event = std::pair<int64_t, std::pair<int64_t, bool>>;
  int64_t latency_ps_;
  int64_t lose_, arrivals_ = 0;  // which arrival gets lost, or 0
  std::map<int32_t, int64_t> free_ps_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
};

ASTRA_NET_BACKEND(Narrow)
