// SPDX-License-Identifier: MIT
//
// Our own router, behind the network contract.
#include "model.hpp"

namespace {

class Garnet final : public garnet::Model {
 public:
  using Model::Model;

  static astra_net_info info() {
    astra_net_info info{};
    info.name = "garnet";
    info.version = "1.1";
    info.capabilities = ASTRA_NET_CAP_MULTI_INSTANCE | ASTRA_NET_CAP_PARALLEL |
                        ASTRA_NET_CAP_INTERRUPT | ASTRA_NET_CAP_SNAPSHOT |
                        ASTRA_NET_CAP_LINK_FAULTS | ASTRA_NET_CAP_CONGESTION | ASTRA_NET_CAP_SAVE |
                        ASTRA_NET_CAP_PEEK;
    info.resolution_ps = 1;
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = garnet::kTrafficClasses;
    return info;
  }
};

}  // namespace

ASTRA_NET_BACKEND(Garnet)
