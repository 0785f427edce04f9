// SPDX-License-Identifier: MIT
//
// HPCC (Li et al., SIGCOMM 2019): windows by the telemetry of switches.
#include "paced.hpp"
// htsim, whose macros reach far.
#include "hpcc.h"

namespace astra_htsim {

std::unique_ptr<Transport> make_hpcc(Network& network, Options& options) {
  renew_pools<HPCCPacket, HPCCAck, HPCCNack, EthPausePacket>();
  HPCCSrc::_T = timeFromUs(options.number("base_rtt_us", 12, 0.01, 1e6));
  HPCCSrc::_eta = options.number("target_utilization", 0.95, 0.01, 1);
  HPCCSrc::_max_stages = static_cast<uint32_t>(options.integer("max_stages", 5, 0, 1000));
  return std::make_unique<Paced<HPCCSrc, HPCCSink>>(network);
}

}  // namespace astra_htsim
