// SPDX-License-Identifier: MIT
//
// TCP (New Reno), and DCTCP (Alizadeh et al., SIGCOMM 2010).
#include "network.hpp"
// htsim, whose macros reach far.
#include "dctcp.h"
#include "tcp.h"

namespace astra_htsim {

namespace {

using Scanner = PausingScanner<TcpRtxTimerScanner>;

template <class Source>
class TcpFlow final : public Flow {
 public:
  TcpFlow(Network& network, const Transfer& given)
      : Flow(given), source(nullptr, nullptr, network.events()) {}
  void take(Packet& packet, bool at_receiver) override {
    if (at_receiver)
      sink.receivePacket(packet);
    else
      source.receivePacket(packet);
  }
  // Byte 1 is the handshake's.
  bool received() const override {
    return sink._cumulative_ack > static_cast<uint64_t>(transfer.bytes);
  }
  bool acknowledged() const override {
    return source._last_acked > static_cast<uint64_t>(transfer.bytes);
  }
  uint64_t retransmitted() const override { return source._drops; }

  Source source;
  TcpSink sink;
};

template <class Source>
class Tcp final : public Transport {
 public:
  Tcp(Network& network, Options& options) : Transport(network) {
    renew_pools<TcpPacket, TcpAck>();
    cwnd_packets_ = static_cast<uint64_t>(options.integer("cwnd_packets", 10, 1, 100000));
    ssthresh_packets_ = static_cast<uint64_t>(options.integer("ssthresh_packets", 100, 2, 100000));
  }

  std::unique_ptr<Flow> start(const Transfer& transfer, flowid_t* id) override {
    if (!scanner_)
      scanner_ = std::make_unique<Scanner>(
          network_, static_cast<simtime_picosec>(network_.settings().scan_ps));
    scanner_->wake();
    auto flow = std::make_unique<TcpFlow<Source>>(network_, transfer);
    Source& source = flow->source;
    *id = source.getFlowId();
    const auto packet = static_cast<uint64_t>(Packet::data_packet_size());
    source.set_cwnd(cwnd_packets_ * packet);
    source.set_ssthresh(ssthresh_packets_ * packet);
    source.set_flowsize(static_cast<uint64_t>(transfer.bytes));
    scanner_->registerTcp(source);
    source.connect(*network_.fabric().ways(transfer.src, transfer.dst).one,
                   *network_.fabric().ways(transfer.dst, transfer.src).one, flow->sink,
                   Clock::now());
    return flow;
  }

  void renew() override { scanner_.reset(); }

 private:
  uint64_t cwnd_packets_ = 0, ssthresh_packets_ = 0;
  std::unique_ptr<Scanner> scanner_;
};

}  // namespace

std::unique_ptr<Transport> make_tcp(Network& network, Options& options) {
  return std::make_unique<Tcp<TcpSrc>>(network, options);
}
std::unique_ptr<Transport> make_dctcp(Network& network, Options& options) {
  return std::make_unique<Tcp<DCTCPSrc>>(network, options);
}

}  // namespace astra_htsim
