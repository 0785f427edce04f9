// SPDX-License-Identifier: MIT
// A backend whose model breaks the promises that astra_net.hpp relies on, one per option `act`.
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "astra_net.hpp"

class Unruly final : public astra_net::Model {
 public:
  static astra_net_info info() {
    astra_net_info info{};
    info.name = "unruly";
    info.version = "1.0";
    info.capabilities = ASTRA_NET_CAP_INTERRUPT;  // one simulation per process
    info.resolution_ps = 10;
    info.max_in_flight = 4;
    info.traffic_classes = 2;
    return info;
  }

  Unruly(astra_net::Config& config, const astra_net::Log& log)
      : act_(config.options.choice("act", "behave",
                                   {"behave", "throw", "throw-int", "no-memory", "stranger",
                                    "descend", "stand", "forget", "chatter"})) {
    log(20, "opened");
  }

  void start(const astra_net_transfer& transfer) override {
    if (act_ == "throw") throw std::runtime_error(std::string(300, 'x') + "\xc3\xa4");
    if (act_ == "throw-int") throw 42;
    if (act_ == "no-memory") throw std::bad_alloc();
    started_.push_back(transfer);
  }

  // Everything that has started arrives 100 ps after its start.
  astra_net::Reached run(int64_t until_ps) override {
    if (act_ == "stand") return {0, false};
    if (act_ == "forget") return {until_ps, true};
    if (started_.empty() || started_.front().start_ps + 100 > until_ps)
      return {until_ps, started_.empty()};
    const int64_t now_ps = started_.front().start_ps + 100;
    while (!started_.empty() && started_.front().start_ps + 100 == now_ps) {
      const int64_t id = started_.front().id;
      deliver(act_ == "stranger" ? id + 1 : id, now_ps);
      if (act_ == "descend") deliver(id, now_ps - 50);
      started_.erase(started_.begin());
    }
    return {now_ps, started_.empty()};
  }

  std::string where_stuck() const override { return "(all of them at the cloakroom)"; }

 private:
  std::string act_;
  std::vector<astra_net_transfer> started_;
};

ASTRA_NET_BACKEND(Unruly)
