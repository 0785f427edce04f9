// SPDX-License-Identifier: MIT
//
// gem5's Garnet behind the network contract, in the place of our own router.
#include "model.hpp"

namespace gem5 {
extern const char* gem5Version;
}

namespace {

class Gem5 final : public garnet::Model {
 public:
  using Model::Model;

  static astra_net_info info() {
    astra_net_info info{};
    info.name = "gem5";
    info.version = gem5::gem5Version;
    info.capabilities = ASTRA_NET_CAP_INTERRUPT | ASTRA_NET_CAP_CONGESTION | ASTRA_NET_CAP_PEEK;
    info.resolution_ps = 1;
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = garnet::kTrafficClasses;
    return info;
  }
};

}  // namespace

ASTRA_NET_BACKEND(Gem5)
