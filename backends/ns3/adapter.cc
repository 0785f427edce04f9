// SPDX-License-Identifier: MIT
//
// The contract (astra_net.h) over a Transport: time, faults, and the graph.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "astra_net.hpp"
#include "ns3/nstime.h"
#include "ns3/simulator.h"
#include "simulator.h"
#include "tables.h"
#include "transport.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

class Ns3Model final : public astra_net::Model, public EventTarget {
 public:
  static astra_net_info info() {
    astra_net_info info{};
    info.name = "ns3";
    info.version = "1.0";
    info.capabilities = ASTRA_NET_CAP_CONGESTION | ASTRA_NET_CAP_LINK_FAULTS |
                        ASTRA_NET_CAP_INTERRUPT | ASTRA_NET_CAP_PEEK;
    info.resolution_ps = kNanosecondClock ? 1000 : 1;  // the grid is an option (tick_ps)
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = 5;  // class c is priority 3 + c
    return info;
  }

  Ns3Model(astra_net::Config& config, const astra_net::Log& log);
  ~Ns3Model() override { Destroy(); }

  void start(const astra_net_transfer& transfer) override {
    statistics_.clear();
    const Tick tick = CeilTick(transfer.start_ps);
    if (tick * tick_ps_ == transfer.start_ps) {
      simulator_->EnterEndOf(tick);
      transport_->Start(transfer);
    } else {
      late_starts_.push_back(transfer);
      simulator_->AtEndOf(tick, this, kLateStart);
    }
  }

  astra_net::Reached run(int64_t until_ps) override {
    statistics_.clear();
    const Tick limit = until_ps == astra_net::kNever ? kNeverTick - 1 : until_ps / tick_ps_;
    const bool more = transport_->Run(limit, [this] { return interrupted(); });
    if (!transport_->failure().empty())
      throw astra_net::Error(ASTRA_NET_MODEL,
                             "at " + std::to_string(now_ps()) + " ps: " + transport_->failure());
    if (!more) return {now_ps(), true};
    if (transport_->stopped() || until_ps == astra_net::kNever || simulator_->NextTick() <= limit)
      return {now_ps(), false};
    simulator_->EnterEndOf(limit);
    return {until_ps, false};
  }

  int64_t next_event_ps() override {
    const Tick next = simulator_->NextTick();
    return next >= astra_net::kNever / tick_ps_ ? astra_net::kNever : next * tick_ps_;
  }
  void set_link(int32_t link, int64_t at_ps, double scale) override {
    faults_.push_back({static_cast<uint32_t>(link), scale});
    simulator_->AtEndOf(CeilTick(at_ps), this, kFault + static_cast<uint32_t>(faults_.size() - 1));
  }

  std::string stats() override {
    // Asked for its size, then for its text.
    if (statistics_.empty()) transport_->CatchUp();
    if (statistics_.empty()) statistics_ = transport_->Statistics();
    return statistics_;
  }
  std::string where_stuck() const override { return transport_->WhereStuck(); }

  void Fire(uint32_t kind, uint64_t) override {
    if (kind == kLateStart) {
      const astra_net_transfer transfer = late_starts_[next_late_start_++];
      transport_->Start(transfer);
    } else {
      const auto [link, scale] = faults_[kind - kFault];
      transport_->SetLink(link, scale);
    }
  }

 private:
  enum Kind : uint32_t { kLateStart, kFault };

  int64_t now_ps() const { return simulator_->NowTick() * tick_ps_; }
  Tick CeilTick(int64_t ps) const { return ps / tick_ps_ + (ps % tick_ps_ != 0 ? 1 : 0); }
  void Destroy() {
    transport_.reset();
    simulator_ = nullptr;
    ns3::Simulator::Destroy();
  }
  void StandIn(astra_net::Config& config);
  void ReadFaults(astra_net::Config& config);

  ns3::Ptr<FabricSimulator> simulator_;
  std::unique_ptr<Transport> transport_;
  int64_t tick_ps_ = 1;
  std::vector<astra_net_transfer> late_starts_;
  size_t next_late_start_ = 0;
  std::vector<std::pair<uint32_t, double>> faults_;
  std::string statistics_;  // empty where something happened since
  // The network as it was given: nodes from `stand_in_` on are the switches of endpoints that forward.
  astra_net::Config graph_;
  int32_t stand_in_ = INT32_MAX;
};

namespace {

// Directed links in pairs: the k-th from a to b with the k-th from b to a.
std::vector<uint32_t> Reverse(const astra_net::Config& config) {
  if (config.links.empty()) Refuse("a packet-level network needs links");
  std::vector<uint32_t> reverse(config.links.size());
  std::map<std::pair<int32_t, int32_t>, std::vector<uint32_t>> unpaired;
  for (uint32_t i = 0; i < config.links.size(); ++i) {
    const astra_net_link& link = config.links[i];
    const double bps = link.bytes_per_second * 8;
    if (bps < 1 || bps > 1e17)
      Refuse("link " + std::to_string(i) + ": its rate is not in 1 .. 1e17 bit/s");
    std::vector<uint32_t>& others = unpaired[{link.dst, link.src}];
    if (others.empty()) {
      unpaired[{link.src, link.dst}].push_back(i);
      continue;
    }
    reverse[i] = others.front();
    reverse[others.front()] = i;
    others.erase(others.begin());
  }
  for (const auto& [ends, links] : unpaired)
    if (!links.empty())
      Refuse("link " + std::to_string(links.front()) + " (" + std::to_string(ends.first) + " -> " +
             std::to_string(ends.second) +
             ") has no link in the other direction, which acknowledgements need");
  return reverse;
}

}  // namespace

Ns3Model::Ns3Model(astra_net::Config& config, const astra_net::Log& log) {
  const bool tcp = config.options.choice("transport", "rdma", {"rdma", "tcp"}) == "tcp";
  const auto own_links = static_cast<uint32_t>(config.links.size());
  StandIn(config);
  const ns3::Time::Unit unit = kNanosecondClock ? ns3::Time::NS : ns3::Time::PS;
  // Only once in a process, for ns-3 aborts on a second time; and that once also where nothing is to
  // change, for ns3::Time keeps a list of all of its instances until then.
  static bool is_set = ns3::Time::GetResolution() == ns3::Time::PS;
  if (!is_set) ns3::Time::SetResolution(unit);
  is_set = true;
  simulator_ = ns3::CreateObject<FabricSimulator>();
  ns3::Simulator::SetImplementation(simulator_);
  try {
    Site site{config,
              graph_,
              stand_in_,
              own_links,
              Reverse(config),
              ns3::PeekPointer(simulator_),
              1,
              [this](int64_t id, int64_t time_ps) { deliver(id, time_ps); },
              log};
    transport_ = tcp ? MakeTcp(&site) : MakeRdma(&site);
    tick_ps_ = site.tick_ps;
    config.nodes = graph_.nodes;
    config.links = graph_.links;
    ReadFaults(config);
  } catch (...) {
    Destroy();
    throw;
  }
}

// An endpoint that passes packets on for others becomes two nodes: a NIC, and a switch that has its
// links, one after the other without delay, by a link as fast as all of these together.
void Ns3Model::StandIn(astra_net::Config& config) {
  graph_ = config;
  if (!config.options.flag("endpoints_forward", false)) return;
  stand_in_ = config.nodes;
  std::vector<double> rates(static_cast<size_t>(config.endpoints), 0);
  for (astra_net_link& link : config.links) {
    if (link.src < config.endpoints) {
      rates[static_cast<size_t>(link.src)] += link.bytes_per_second;
      link.src += stand_in_;
    }
    if (link.dst < config.endpoints) link.dst += stand_in_;
  }
  config.nodes += config.endpoints;
  for (int32_t host = 0; host < config.endpoints; ++host) {
    astra_net_link cable{};
    cable.src = host;
    cable.dst = host + stand_in_;
    cable.bytes_per_second = std::max(1.0, rates[static_cast<size_t>(host)]);
    config.links.push_back(cable);
    std::swap(cable.src, cable.dst);
    config.links.push_back(cable);
  }
}

void Ns3Model::ReadFaults(astra_net::Config& config) {
  const auto links = static_cast<double>(config.links.size());
  for (const auto& row : ReadTable("faults", config.options.text("faults", ""), 3)) {
    if (!(row[0] >= 0 && row[0] <= 9e15 && row[1] >= 0 && row[1] < links && row[2] >= 0))
      Refuse("option 'faults': needs a time [ps], a link and a scale of its bandwidth");
    set_link(static_cast<int32_t>(row[1]), static_cast<int64_t>(row[0]), row[2]);
  }
}

}  // namespace astra_ns3

ASTRA_NET_BACKEND(astra_ns3::Ns3Model)
