// SPDX-License-Identifier: MIT
//
// RDMA with our devices: options in, statistics out.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <utility>

#include "capture.h"
#include "congestion.h"
#include "fabric.h"
#include "ns3/boolean.h"
#include "ns3/double.h"
#include "ns3/integer.h"
#include "ns3/object-factory.h"
#include "ns3/uinteger.h"
#include "tables.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

namespace {

class Models final : public Rdma {
 public:
  Models(const Site& site, const Parameters& parameters);
  void Start(const astra_net_transfer& t) override {
    fabric_.Start(t.id, t.src, t.dst, static_cast<uint64_t>(t.bytes), t.traffic_class, t.start_ps);
    SampleFromNowOn();
  }
  void SetLink(uint32_t link, double scale) override { fabric_.SetLink(link, scale); }
  std::string WhereStuck() const override { return fabric_.WhereStuck(); }

 protected:
  size_t InFlight() const override { return fabric_.InFlight(); }
  void CatchUp() override {
    if (fabric_.replay) fabric_.replay->MakeUp();
  }
  size_t Links() const override { return fabric_.ports.size(); }
  LinkState Link(size_t link) const override;
  Counts Count() const override;
  const std::vector<PauseEvent>& Pauses() const override { return fabric_.pause_events; }

 private:
  void ReadControl(astra_net::Options& options);
  void ReadCapture(astra_net::Config& config);

  Fabric fabric_;
  std::unique_ptr<Capture> capture_;
};

void Models::ReadControl(astra_net::Options& options) {
  const std::map<std::string, std::string> types = {{"none", "CongestionControl"},
                                                    {"dcqcn", "Dcqcn"},
                                                    {"dcqcn-sigcomm15", "DcqcnSigcomm15"},
                                                    {"hpcc", "Hpcc"},
                                                    {"hpcc-pint", "HpccPint"},
                                                    {"timely", "Timely"},
                                                    {"dctcp", "Dctcp"},
                                                    {"swift", "Swift"}};
  std::vector<std::string> names;
  for (const auto& [name, type] : types) names.push_back(name);
  const std::string name = options.choice(
      "congestion_control", fabric_.parameters.upstream_order ? "dcqcn" : "dcqcn-sigcomm15", names);
  ns3::ObjectFactory factory("astra_ns3::" + types.at(name));
  fabric_.control = factory.Create<CongestionControl>();
  fabric_.control->fabric = &fabric_;
  // Those that take a measure from every acknowledgement get one for every packet.
  if (name != "none" && name != "dcqcn" && name != "dcqcn-sigcomm15" &&
      options.text("ack_interval_bytes", "").empty())
    fabric_.parameters.ack_interval_bytes = 1;
  fabric_.parameters.telemetry = name == "hpcc";
  fabric_.parameters.pint = name == "hpcc-pint";
  // cc.<Attribute> sets an attribute of the ns-3 object.  The text is read here, for ns-3 ends the
  // process over one that it cannot read; ns-3's checker knows the range.
  for (ns3::TypeId tid = factory.GetTypeId(); tid != ns3::Object::GetTypeId();
       tid = tid.GetParent())
    for (uint32_t i = 0; i < tid.GetAttributeN(); ++i) {
      const ns3::TypeId::AttributeInformation attribute = tid.GetAttribute(i);
      const std::string key = "cc." + attribute.name;
      const std::string given = options.text(key, "");
      if (given.empty()) continue;
      const std::string type = attribute.checker->GetValueTypeName();
      std::unique_ptr<ns3::AttributeValue> value;
      if (type == "ns3::DoubleValue")
        value = std::make_unique<ns3::DoubleValue>(options.number(key, 0, -1e12, 1e12));
      else if (type == "ns3::BooleanValue")
        value = std::make_unique<ns3::BooleanValue>(options.flag(key, false));
      else if (type == "ns3::IntegerValue")
        value = std::make_unique<ns3::IntegerValue>(options.integer(key, 0, INT64_MIN));
      else
        value =
            std::make_unique<ns3::UintegerValue>(static_cast<uint64_t>(options.integer(key, 0)));
      if (!fabric_.control->SetAttributeFailSafe(attribute.name, *value))
        Refuse("option '" + key + "' is '" + given + "', but must be within " +
               attribute.checker->GetUnderlyingTypeInformation());
    }
  if (name == "dcqcn-sigcomm15")
    fabric_.parameters.cnp_interval =
        static_cast<const DcqcnSigcomm15&>(*fabric_.control).CnpInterval();
  if (name == "hpcc-pint")
    fabric_.parameters.pint_log_base = static_cast<const HpccPint&>(*fabric_.control).log_base;
}

Models::Models(const Site& site, const Parameters& parameters)
    : Rdma(site, parameters), fabric_(site.simulator, parameters) {
  const Parameters& p = fabric_.parameters;
  astra_net::Config& config = site.config;
  astra_net::Options& options = config.options;
  ReadControl(options);
  fabric_.random = RandomStreams(p.seed, p.run);
  fabric_.random.SkipStreams(
      static_cast<uint64_t>(options.integer("streams_taken", 0, 0, 1 << 30)));
  std::vector<uint32_t> ids;
  for (const auto& row : ReadTable("node_ids", options.text("node_ids", ""), 1))
    ids.push_back(static_cast<uint32_t>(row[0]));
  if (!ids.empty() && ids.size() != static_cast<size_t>(site.graph.nodes))
    Refuse("option 'node_ids' has " + std::to_string(ids.size()) + " entries for " +
           std::to_string(site.graph.nodes) + " nodes");
  if (config.nodes > 65535) Refuse("more than 65535 nodes");
  for (int32_t node = 0; node < config.nodes; ++node) {
    const auto at = static_cast<size_t>(node);
    const uint32_t id = at < ids.size() ? ids[at] : static_cast<uint32_t>(node);
    if (node < config.endpoints)
      fabric_.AddNic(node, id);
    else
      fabric_.AddSwitch(node, id, p.buffer_bytes);
  }

  for (size_t i = 0; i < config.links.size(); ++i) {
    const astra_net_link& link = config.links[i];
    fabric_.AddPort(link.src, static_cast<int64_t>(std::llround(link.bytes_per_second * 8)),
                    (link.latency_ps + tick_ps_ / 2) / tick_ps_, link.loss);
  }
  // The fork loses packets by stream 50 of those that users may number (they begin at 2^63): one
  // for the links that have the common loss, and the same afresh for each link with a loss of its
  // own, given as its two directions.
  constexpr uint64_t kLossStream = (1ull << 63) + 50;
  const auto add_stream = [&] {
    fabric_.loss_streams.push_back(std::make_unique<RandomStreams>(p.seed, p.run, kLossStream));
    return fabric_.loss_streams.back().get();
  };
  RandomStreams* common = fabric_.parameters.upstream_order ? add_stream() : &fabric_.random;
  for (auto& port : fabric_.ports) port->loss_stream = common;
  for (const auto& row : ReadTable("own_loss", options.text("own_loss", ""), 2)) {
    RandomStreams* own = add_stream();
    for (const double link : row) {
      if (!(link >= 0 && link < static_cast<double>(config.links.size())))
        Refuse("option 'own_loss': there are links 0 to " +
               std::to_string(config.links.size() - 1));
      fabric_.ports[static_cast<size_t>(link)]->loss_stream = own;
    }
  }
  for (uint32_t i = 0; i < site.reverse.size(); ++i) fabric_.Join(i, site.reverse[i]);
  // Tomahawk 4's 113 MB per 25.6 Tbit/s.
  if (!p.buffer_given) fabric_.ScaleBuffers(4.4e-6);
  if (!p.upstream_order) fabric_.SetGraph(site.graph, site.stand_in);
  if (fabric_.Reorders() && !fabric_.parameters.selective)
    Refuse(
        "option 'routing' brings packets out of order, which loss_recovery=go-back-n takes for "
        "loss");

  // ECN thresholds per link rate; without an entry, the DCQCN paper's in proportion to the rate.
  std::map<int64_t, std::vector<double>> ecn;
  for (const auto& row : ReadTable("ecn_map", options.text("ecn_map", ""), 4))
    ecn[std::llround(row[0])] = row;
  const int64_t nic_bps = fabric_.nodes[0]->ports.empty() ? 1 : fabric_.nodes[0]->ports[0]->bps;
  for (auto& port : fabric_.ports) {
    const auto found = ecn.find(port->bps);
    const double scale = static_cast<double>(port->bps) / 25e9;
    port->kmin = found == ecn.end() ? std::llround(100e3 * scale) : std::llround(found->second[1]);
    port->kmax = found == ecn.end() ? std::llround(400e3 * scale) : std::llround(found->second[2]);
    port->pmax = found == ecn.end() ? 0.2 : found->second[3];
    if (port->kmin > port->kmax || port->pmax < 0 || port->pmax > 1)
      Refuse("option 'ecn_map': needs Kmin <= Kmax and Pmax from 0 to 1");
    // What is still on its way after a pause was sent: the wire twice, and a packet at each end.
    const double wire = static_cast<double>(port->bps) * static_cast<double>(port->delay) *
                        static_cast<double>(tick_ps_) * 1e-12 / 8;
    port->headroom_limit =
        p.headroom_extra_bytes + static_cast<int64_t>(std::floor(wire) * p.headroom_factor);
    // A faster port may take a larger share of the buffer (alpha doubles with the rate).
    port->alpha_shift = 3;
    for (int64_t bps = port->bps; bps > nic_bps && port->alpha_shift > 0; bps /= 2)
      --port->alpha_shift;
  }
  fabric_.on_notice = [log = site.log](const std::string& text) { log(30, text); };
  fabric_.on_failure = [this](const std::string& why) { Fail(why); };
  fabric_.Finish();
  if (LoadIsWanted())
    fabric_.on_transmit = [this](const Port& port, const PacketRecord& packet) {
      Load(port.link, port.busy_until, packet.wire_bytes);
    };
  ReadCapture(config);
  // Whoever looks at single packets or at times in between is shown all of them.
  if (p.fast_forward != "off" && !fabric_.on_transmit && !fabric_.Reorders()) {
    // The fork's pairs send one message each, and its NICs look at all of them.
    if (p.fast_forward == "steady" && p.queue_pairs > 0 && !p.upstream_order && p.selective) {
      fabric_.replay = std::make_unique<Replay>(&fabric_);
      simulator_->on_settle = [this] { fabric_.replay->Settle(); };
    } else {
      fabric_.repetition = std::make_unique<Repetition>(&fabric_);
      simulator_->on_look = [this](Tick limit) { return fabric_.repetition->Look(limit); };
    }
  }
  fabric_.on_complete = [this](const QueuePair& qp, const Message& message, Tick now) {
    const auto start = static_cast<int64_t>(message.start_ps);
    Complete({message.id, qp.src, qp.dst, static_cast<int64_t>(message.Bytes()), start,
              now * tick_ps_ - start, fabric_.IdealTicks(qp, message) * tick_ps_,
              static_cast<int64_t>(message.retransmitted)});
  };
}

void Models::ReadCapture(astra_net::Config& config) {
  const std::string path = config.options.text("pcap", "");
  std::vector<bool> wanted(config.links.size(), true);
  const std::string links = config.options.text("pcap_links", "");
  if (!links.empty()) wanted.assign(wanted.size(), false);
  for (const auto& row : ReadTable("pcap_links", links, 1)) {
    if (!(row[0] >= 0 && row[0] < static_cast<double>(wanted.size())))
      Refuse("option 'pcap_links': there are links 0 to " + std::to_string(wanted.size() - 1));
    wanted[static_cast<size_t>(row[0])] = true;
  }
  if (path.empty()) return;
  capture_ = std::make_unique<Capture>(path, fabric_.parameters);
  if (!capture_->ok()) Refuse("option 'pcap': cannot write '" + path + "'");
  fabric_.on_transmit = [this, wanted, others = fabric_.on_transmit](const Port& port,
                                                                     const PacketRecord& packet) {
    if (others) others(port, packet);
    if (wanted[port.link]) capture_->Write(port, packet, simulator_->NowTick());
  };
}

LinkState Models::Link(size_t link) const {
  const Port& port = *fabric_.ports[link];
  const auto ticks = static_cast<double>(std::max<Tick>(1, simulator_->NowTick()));
  return {port.tx_bytes,
          port.tx_packets,
          port.drops,
          port.lost,
          port.marks,
          port.pauses,
          port.busy_ticks * tick_ps_,
          port.waiting_bytes,
          port.max_queue_bytes,
          std::llround(static_cast<double>(port.queue_byte_ticks) / ticks)};
}

Rdma::Counts Models::Count() const {
  Counts counts{fabric_.packet_hops,     fabric_.data_packets, 0,
                fabric_.retransmissions, fabric_.timeouts,     {}};
  for (const auto& port : fabric_.ports) counts.resumes += port->resumes;
  if (fabric_.parameters.telemetry)
    counts.more.emplace_back("hpcc_blind_transfers", fabric_.blind_transfers);
  if (fabric_.parameters.cnp_interval > 0) counts.more.emplace_back("cnps", fabric_.cnps);
  if (fabric_.parameters.fast_forward != "off") {
    const Repetition* repetition = fabric_.repetition.get();
    const Tick jumped = repetition == nullptr ? 0 : repetition->jumped();
    counts.more.emplace_back("fast_forward_jumps", repetition == nullptr ? 0 : repetition->jumps());
    counts.more.emplace_back("fast_forward_ns", static_cast<uint64_t>(jumped * tick_ps_ / 1000));
  }
  if (fabric_.parameters.fast_forward == "steady") {
    const Replay* replay = fabric_.replay.get();
    const Tick ticks = replay == nullptr ? 0 : replay->ticks();
    counts.more.emplace_back("fast_forward_replays", replay == nullptr ? 0 : replay->count());
    counts.more.emplace_back("fast_forward_repeats", replay == nullptr ? 0 : replay->repeats());
    counts.more.emplace_back("fast_forward_left_out_hops", replay == nullptr ? 0 : replay->hops());
    counts.more.emplace_back("fast_forward_left_out_ns",
                             static_cast<uint64_t>(ticks * tick_ps_ / 1000));
  }
  return counts;
}

}  // namespace

const bool kNanosecondClock = false;

std::unique_ptr<Transport> MakeRdma(Site* site) {
  astra_net::Options& options = site->config.options;
  const Parameters parameters = ReadParameters(options, TodaysParameters());
  site->SetTick(parameters.tick_ps);
  std::vector<std::string> routings = {"ecmp"};
  if (!parameters.upstream_order) routings = {"ecmp", "static", "spray", "adaptive"};
  options.choice("routing", "ecmp", routings);
  return std::make_unique<Models>(*site, parameters);
}

}  // namespace astra_ns3
