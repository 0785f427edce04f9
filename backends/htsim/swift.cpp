// SPDX-License-Identifier: MIT
//
// Swift (Kumar et al., SIGCOMM 2020): windows by a target delay.
#include "network.hpp"
// htsim, whose macros reach far.
#include "swift.h"

namespace astra_htsim {

namespace {

using Scanner = PausingScanner<SwiftRtxTimerScanner>;

class SwiftFlow final : public Flow {
 public:
  SwiftFlow(Network& network, const Transfer& given, SwiftRtxTimerScanner& scanner)
      : Flow(given), source(scanner, nullptr, nullptr, network.events()) {}
  void take(Packet& packet, bool) override { packet.free(); }  // its ends stand in its routes
  void see(Packet& packet, bool at_receiver) override {
    if (!at_receiver) known_ = std::max(known_, static_cast<SwiftAck&>(packet).ds_ackno());
  }
  bool received() const override {
    return sink._cumulative_data_ack >= static_cast<uint64_t>(transfer.bytes);
  }
  bool acknowledged() const override { return known_ >= static_cast<uint64_t>(transfer.bytes); }

  SwiftSrc source;
  SwiftSink sink;

 private:
  uint64_t known_ = 0;  // bytes that the sender knows to be there
};

class Swift final : public Transport {
 public:
  Swift(Network& network, Options& options) : Transport(network) {
    renew_pools<SwiftPacket, SwiftAck>();
    cwnd_packets_ = static_cast<uint32_t>(options.integer("cwnd_packets", 15, 1, 100000));
    plb_ = options.flag("plb", false);
    hdiv_ = options.number("hdiv", 0, 0, 1e6);
  }

  std::unique_ptr<Flow> start(const Transfer& transfer, flowid_t* id) override {
    if (!scanner_)
      scanner_ = std::make_unique<Scanner>(
          network_, static_cast<simtime_picosec>(network_.settings().scan_ps));
    scanner_->wake();
    const Ways& out = network_.fabric().ways(transfer.src, transfer.dst);
    const Ways& back = network_.fabric().ways(transfer.dst, transfer.src);
    auto flow = std::make_unique<SwiftFlow>(network_, transfer, *scanner_);
    SwiftSrc& source = flow->source;
    source.set_cwnd(cwnd_packets_ * static_cast<uint32_t>(Packet::data_packet_size()));
    if (hdiv_ > 0) source.set_hdiv(hdiv_);
    if (plb_) source.enable_plb();
    source.set_flowsize(static_cast<uint64_t>(transfer.bytes));
    *id = next_flow_id();  // that of the subflow which connect() makes
    source.connect(*out.one, *back.one, flow->sink, Clock::now());
    if (plb_) {
      std::vector<const Route*> ways = out.all;
      source.set_paths(&ways);
    }
    return flow;
  }

  void renew() override { scanner_.reset(); }

 private:
  uint32_t cwnd_packets_ = 0;
  bool plb_ = false;
  double hdiv_ = 0;
  std::unique_ptr<Scanner> scanner_;
};

}  // namespace

std::unique_ptr<Transport> make_swift(Network& network, Options& options) {
  return std::make_unique<Swift>(network, options);
}

}  // namespace astra_htsim
