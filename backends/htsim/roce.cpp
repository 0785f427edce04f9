// SPDX-License-Identifier: MIT
//
// RoCEv2 without congestion control: sources at line rate, held back by pauses (PFC).
#include "paced.hpp"
// htsim, whose macros reach far.
#include "roce.h"

namespace astra_htsim {

std::unique_ptr<Transport> make_roce(Network& network, Options& /*options*/) {
  renew_pools<RocePacket, RoceAck, RoceNack, EthPausePacket>();
  RoceSrc::setMinRTO(1000);  // as its own program has it
  return std::make_unique<Paced<RoceSrc, RoceSink>>(network);
}

}  // namespace astra_htsim
