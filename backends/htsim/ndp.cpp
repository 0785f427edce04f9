// SPDX-License-Identifier: MIT
//
// NDP (Handley et al., SIGCOMM 2017): switches trim, receivers pull, packets are sprayed.
#include "network.hpp"
// htsim, whose macros reach far.
#include "ndp.h"

namespace astra_htsim {

namespace {

// NDP counts the round-trip times of acknowledgements in a table of so many microseconds, and those
// of repeated ones from time 0.
constexpr simtime_picosec kMostTime = 9999999ull * 1000000;

class NdpFlow final : public Flow {
 public:
  NdpFlow(Network& network, const Transfer& given, bool rts, NdpPullPacer* pacer)
      : Flow(given),
        source(nullptr, nullptr, network.events(), rts),
        sink(pacer),
        done(network, *this) {}
  void take(Packet& packet, bool at_receiver) override {
    if (Clock::now() > kMostTime)
      throw Error(ASTRA_NET_MODEL,
                  "htsim's NDP has room for 10 s of uninterrupted traffic, which have passed");
    if (at_receiver)
      sink.receivePacket(packet);
    else
      source.receivePacket(packet);
  }
  bool received() const override {
    return sink._cumulative_ack >= static_cast<uint64_t>(transfer.bytes);
  }
  uint64_t retransmitted() const override { return source._rtx_packets_sent; }

  NdpSrc source;
  NdpSink sink;
  Finished done;
};

class Ndp final : public Transport {
 public:
  Ndp(Network& network, Options& options) : Transport(network) {
    renew_pools<NdpPacket, NdpAck, NdpNack, NdpPull, NdpRTS>();
    const std::map<std::string, RouteStrategy> strategies = {
        {"ecmp_host", ECMP_FIB},       {"perm", SCATTER_PERMUTE}, {"rand", SCATTER_RANDOM},
        {"ecmp", SCATTER_ECMP},        {"pull", PULL_BASED},      {"ecmp_host_ecn", ECMP_FIB_ECN},
        {"reactive_ecn", REACTIVE_ECN}};
    std::vector<std::string> names;
    for (const auto& [name, value] : strategies) names.push_back(name);
    strategy_ = strategies.at(options.choice("strategy", "ecmp_host", names));
    by_path_id_ = strategy_ == ECMP_FIB || strategy_ == ECMP_FIB_ECN || strategy_ == REACTIVE_ECN;
    cwnd_packets_ = static_cast<uint32_t>(options.integer("cwnd_packets", 15, 1, 100000));
    path_burst_ = static_cast<uint16_t>(options.integer("path_burst", 1, 1, 1000));
    pull_rate_ = options.number("pull_rate", 0.99, 0.01, 100);
    rts_ = options.flag("rts", false);
    NdpSink::_oversubscribed_congestion_control = options.flag("oversubscribed_cc", false);
    NdpSrc::setMinRTO(50000);  // as its own program has it
    NdpSrc::setPathEntropySize(network.settings().most_paths);
    NdpSrc::setRouteStrategy(strategy_);
    NdpSink::setRouteStrategy(strategy_);
  }

  std::unique_ptr<Flow> start(const Transfer& transfer, flowid_t* id) override {
    const int packet = Packet::data_packet_size();
    const Ways& out = network_.fabric().ways(transfer.src, transfer.dst);
    const Ways& back = network_.fabric().ways(transfer.dst, transfer.src);
    auto flow = std::make_unique<NdpFlow>(network_, transfer, rts_, pacer(out));
    NdpSrc& source = flow->source;
    NdpSink& sink = flow->sink;
    source.setCwnd(cwnd_packets_ * static_cast<uint32_t>(packet));
    source.set_dst(static_cast<uint32_t>(transfer.dst));
    source.set_path_burst(path_burst_);
    source.set_flowid(*id);
    source.set_flowsize(static_cast<uint64_t>(transfer.bytes));
    source.set_end_trigger(flow->done);
    sink.set_src(static_cast<uint32_t>(transfer.src));
    const simtime_picosec now = Clock::now();
    if (by_path_id_) {
      source.connect(out.entry, back.entry, sink, now);
      source.set_paths(out.count);
      sink.set_paths(back.count);
    } else {
      std::vector<const Route*> ways = out.all, back_ways = back.all;
      for (const Route* way : ways) check(*way);
      source.connect(nullptr, nullptr, sink, now);
      source.set_paths(&ways);
      sink.set_paths(&back_ways);
    }
    return flow;
  }

  void renew() override { pacers_.clear(); }

 private:
  static void check(const Route& way) {
    if (way.size() >= MAX_PATH_LEN)
      refuse("a way of " + std::to_string(way.size() / 2) +
             " links, but htsim's NDP counts the lengths of at most " +
             std::to_string(MAX_PATH_LEN / 2 - 1) + "; strategy=ecmp_host does not");
  }
  NdpPullPacer* pacer(const Ways& ways) {
    std::unique_ptr<NdpPullPacer>& one = pacers_[ways.receive_port];
    if (!one) one = std::make_unique<NdpPullPacer>(network_.events(), ways.receive_bps, pull_rate_);
    return one.get();
  }

  RouteStrategy strategy_ = NOT_SET;
  bool by_path_id_ = true, rts_ = false;
  uint32_t cwnd_packets_ = 0;
  uint16_t path_burst_ = 1;
  double pull_rate_ = 0;
  std::map<int64_t, std::unique_ptr<NdpPullPacer>> pacers_;
};

}  // namespace

std::unique_ptr<Transport> make_ndp(Network& network, Options& options) {
  return std::make_unique<Ndp>(network, options);
}

}  // namespace astra_htsim
