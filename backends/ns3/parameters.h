// SPDX-License-Identifier: MIT
#ifndef ASTRA_NS3_PARAMETERS_H
#define ASTRA_NS3_PARAMETERS_H

#include <cstddef>
#include <cstdint>
#include <string>

#include "astra_net.hpp"
#include "simulator.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

// Everything that RDMA is parameterised by.  As they stand here, they are the public fork's.
struct Parameters {
  int64_t tick_ps = 1000;
  uint32_t mtu_bytes = 1000;
  uint32_t header_bytes = 36, ack_bytes = 48, pause_bytes = 31;  // on the wire, without telemetry
  uint32_t queue_pairs = 0;  // per ordered pair of ranks and class; 0: one for each message
  bool selective = false;  // repeat; else go-back-N
  uint64_t chunk_bytes = 4000, ack_interval_bytes = 1;
  bool back_to_zero = false;
  Tick nack_interval = 500000;
  Tick retransmit_timeout = 4000000;
  uint32_t retransmit_limit = 7;
  std::string window = "pair";  // pair, global, none
  bool variable_window = true, rate_bound = true;
  bool complete_at_ack = true;
  bool ack_high_priority = false;
  bool ecn = true, pfc = true;
  uint32_t reserve_bytes = 4096, resume_offset_bytes = 3072;
  bool upstream_order = true;  // neighbours, random streams, wake-ups: as ASTRA-sim's fork
  Tick cnp_interval = 0;  // between CNPs of a pair; 0: receivers send none
  bool telemetry = false, pint = false;
  uint32_t telemetry_multiple = 1;
  bool telemetry_exact = false;
  double pint_log_base = 1.05;
  size_t pfc_rows = 1000000;  // the most pause events that are kept for the table
  bool flow_table = true;
  std::string fast_forward = "off";  // off, exact, steady
  Tick sample_interval = 0;
  // Of switches' buffers: at least the HPCC paper's, which is a small switch's.
  uint64_t buffer_bytes = 32 << 20;
  bool buffer_given = false;
  double headroom_factor = 3;  // of the bytes that a link's delay holds
  int64_t headroom_extra_bytes = 0;
  uint32_t seed = 1, run = 1;
};

// What clusters run today.
Parameters TodaysParameters();

// Reads the options that RDMA has whoever its devices are; what is not given is as in `preset`.
Parameters ReadParameters(astra_net::Options& options, const Parameters& preset);

}  // namespace astra_ns3

#endif  // ASTRA_NS3_PARAMETERS_H
