// SPDX-License-Identifier: MIT
//
// Transports of a paced source with go-back-n on a fabric that loses nothing: RoCE and HPCC.
#ifndef ASTRA_HTSIM_PACED_HPP
#define ASTRA_HTSIM_PACED_HPP

#include "network.hpp"

namespace astra_htsim {

template <class Source, class Sink>
class PacedFlow final : public Flow {
 public:
  PacedFlow(Network& network, const Transfer& given, const Ways& ways)
      : Flow(given),
        source(nullptr, nullptr, network.events(), ways.send_bps),
        done(network, *this),
        queue_(ways.host_queue) {
    if (queue_ != nullptr) queue_->addHostSender(&source);  // what a pause of the host reaches
  }
  ~PacedFlow() override { leave(); }
  void take(Packet& packet, bool at_receiver) override {
    if (at_receiver)
      sink.receivePacket(packet);
    else
      source.receivePacket(packet);
  }
  bool received() const override {
    return sink._cumulative_ack >= static_cast<uint64_t>(transfer.bytes);
  }
  // htsim counts bytes under this name.
  uint64_t retransmitted() const override {
    return source._rtx_packets_sent / static_cast<uint64_t>(Packet::data_packet_size());
  }
  void end() override { leave(); }

  Source source;
  Sink sink;
  Finished done;

 private:
  void leave() {
    if (queue_ == nullptr) return;
    auto& senders = queue_->_senders;
    senders.erase(std::remove(senders.begin(), senders.end(), static_cast<PacketSink*>(&source)),
                  senders.end());
    queue_ = nullptr;
  }
  HostQueue* queue_;
};

template <class Source, class Sink>
class Paced final : public Transport {
 public:
  explicit Paced(Network& network) : Transport(network) {}

  std::unique_ptr<Flow> start(const Transfer& transfer, flowid_t* id) override {
    const Ways& out = network_.fabric().ways(transfer.src, transfer.dst);
    const Ways& back = network_.fabric().ways(transfer.dst, transfer.src);
    auto flow = std::make_unique<PacedFlow<Source, Sink>>(network_, transfer, out);
    Source& source = flow->source;
    source.set_dst(static_cast<uint32_t>(transfer.dst));
    source.set_flowsize(static_cast<uint64_t>(transfer.bytes));
    source.set_flowid(*id);
    source.set_end_trigger(flow->done);
    flow->sink.set_src(static_cast<uint32_t>(transfer.src));
    const bool switched = network_.fabric().switched();
    source.connect(switched ? out.entry : const_cast<Route*>(out.one),
                   switched ? back.entry : const_cast<Route*>(back.one), flow->sink, Clock::now());
    return flow;
  }
};

}  // namespace astra_htsim

#endif  // ASTRA_HTSIM_PACED_HPP
