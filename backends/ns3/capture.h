// SPDX-License-Identifier: MIT
//
// A pcap of the fabric's packets as RoCEv2: what Wireshark shows of a real network, headers only.
// Frames are made here, on request, from the records that the simulation works with.
#ifndef ASTRA_NS3_CAPTURE_H
#define ASTRA_NS3_CAPTURE_H

#include <string>
#include <vector>

#include "fabric.h"
#include "ns3/pcap-file.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

class Capture {
 public:
  // Times are cut to the nanosecond, the finest that a pcap has.
  Capture(const std::string& path, const Parameters& parameters);
  bool ok() const { return !file_.Fail(); }
  // `packet` begins to leave through `port`.
  void Write(const Port& port, const PacketRecord& packet, Tick now);

 private:
  uint64_t PacketNumber(const PacketRecord& packet) const;

  const Parameters& parameters_;
  ns3::PcapFile file_;
  std::vector<uint8_t> frame_;
};

}  // namespace astra_ns3

#endif  // ASTRA_NS3_CAPTURE_H
