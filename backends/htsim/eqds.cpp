// SPDX-License-Identifier: MIT
//
// EQDS (Olteanu et al., NSDI 2022): credits of the receiver, NICs that take turns, trimming, spraying.
#include "network.hpp"
// htsim, whose macros reach far.
#include "eqds.h"

namespace astra_htsim {

namespace {

// A source calls this whether or not it was given one.
class NoEvents final : public FlowEventLogger {
 public:
  void logEvent(PacketFlow&, Logged&, FlowEvent, mem_b, uint64_t) override {}
};

class EqdsFlow final : public Flow {
 public:
  EqdsFlow(Network& network, const Transfer& given, EqdsNIC& nic, EqdsNIC& sink_nic,
           EqdsPullPacer* pacer)
      : Flow(given),
        source(nullptr, network.events(), nic),
        sink(nullptr, pacer, sink_nic),
        done(network, *this) {}
  void take(Packet& packet, bool at_receiver) override {
    if (at_receiver)
      sink.receivePacket(packet);
    else
      source.receivePacket(packet);
  }
  // Requests to send have numbers among those of packets; as its source counts them.
  bool received() const override {
    const auto packets = static_cast<int64_t>(const_cast<EqdsSink&>(sink).cumulative_ack()) -
                         static_cast<int64_t>(source._rts_packets_sent);
    return packets * EqdsSrc::_mss >= transfer.bytes;
  }
  uint64_t retransmitted() const override { return source._rtx_packets_sent; }

  EqdsSrc source;
  EqdsSink sink;
  Finished done;
};

class Eqds final : public Transport {
 public:
  Eqds(Network& network, Options& options) : Transport(network) {
    renew_pools<EqdsDataPacket, EqdsAckPacket, EqdsNackPacket, EqdsPullPacket, EqdsRtsPacket>();
    // Of the packets that a pull stands for, whatever the size of packets: before any source exists.
    static const uint16_t pulled_bytes = EqdsSrc::_mtu;
    pulled_bytes_ = pulled_bytes;
    cwnd_packets_ = static_cast<mem_b>(options.integer("cwnd_packets", 50, 1, 100000));
    pull_rate_ = options.number("pull_rate", 0.99, 0.01, 100);
    const auto entropies = options.integer("entropies", 64, 1, 1 << 14);
    if ((entropies & (entropies - 1)) != 0)
      refuse("option 'entropies' is '" + std::to_string(entropies) +
             "', but must be a power of two");
    EqdsSrc::_path_entropy_size = static_cast<uint32_t>(entropies);
    rto_us_ = options.number("rto_us", 0, 0, 1e9);
  }

  std::unique_ptr<Flow> start(const Transfer& transfer, flowid_t* id) override {
    const Ways& out = network_.fabric().ways(transfer.src, transfer.dst);
    const Ways& back = network_.fabric().ways(transfer.dst, transfer.src);
    // As its own program has it: two priorities of queues, and three hops of an incast.
    EqdsSrc::_min_rto =
        timeFromUs(rto_us_ > 0 ? rto_us_
                               : 150 + static_cast<double>(network_.settings().queue_bytes) * 6.0 *
                                           8 * 1000000 / static_cast<double>(out.send_bps));
    auto flow = std::make_unique<EqdsFlow>(network_, transfer, nic(out), nic(back), pacer(out));
    EqdsSrc& source = flow->source;
    EqdsSink& sink = flow->sink;
    source.setCwnd(cwnd_packets_ * Packet::data_packet_size());
    source.setDst(static_cast<uint32_t>(transfer.dst));
    source.logFlowEvents(no_events_);
    source.setFlowId(*id);
    sink.setFlowId(*id);
    sink.setSrc(static_cast<uint32_t>(transfer.src));
    source.setFlowsize(static_cast<uint64_t>(transfer.bytes));
    source.setEndTrigger(flow->done);
    source.connect(*out.entry, *back.entry, sink, Clock::now());
    return flow;
  }

  void renew() override {
    pacers_.clear();
    nics_.clear();
  }

 private:
  EqdsNIC& nic(const Ways& ways) {
    std::unique_ptr<EqdsNIC>& one = nics_[ways.send_port];
    if (!one) one = std::make_unique<EqdsNIC>(network_.events(), ways.send_bps);
    return *one;
  }
  EqdsPullPacer* pacer(const Ways& ways) {
    std::unique_ptr<EqdsPullPacer>& one = pacers_[ways.receive_port];
    if (!one)
      one = std::make_unique<EqdsPullPacer>(ways.receive_bps, pull_rate_, pulled_bytes_,
                                            network_.events());
    return one.get();
  }

  NoEvents no_events_;
  uint16_t pulled_bytes_ = 0;
  mem_b cwnd_packets_ = 0;
  double pull_rate_ = 0, rto_us_ = 0;
  std::map<int64_t, std::unique_ptr<EqdsNIC>> nics_;
  std::map<int64_t, std::unique_ptr<EqdsPullPacer>> pacers_;
};

}  // namespace

std::unique_ptr<Transport> make_eqds(Network& network, Options& options) {
  return std::make_unique<Eqds>(network, options);
}

}  // namespace astra_htsim
