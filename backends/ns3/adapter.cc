// SPDX-License-Identifier: MIT
//
// The contract (astra_net.h) over a Fabric: options in, statistics out.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "astra_load.hpp"
#include "astra_net.hpp"
#include "capture.h"
#include "congestion.h"
#include "fabric.h"
#include "ns3/boolean.h"
#include "ns3/double.h"
#include "ns3/global-value.h"
#include "ns3/integer.h"
#include "ns3/nstime.h"
#include "ns3/object-factory.h"
#include "ns3/simulator.h"
#include "ns3/string.h"
#include "ns3/uinteger.h"
#include "simulator.h"
#include "tcp.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

namespace {

using astra_net::Error;

[[noreturn]] void Refuse(const std::string& message) { throw Error(ASTRA_NET_INVALID, message); }

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

// "a:b:c,a:b:c" -> rows of numbers, each of the same width.
std::vector<std::vector<double>> Table(const std::string& key, const std::string& text,
                                       size_t width) {
  std::vector<std::vector<double>> rows;
  for (const std::string& item : Split(text, ',')) {
    std::vector<double> row;
    for (const std::string& field : Split(item, ':')) {
      char* end = nullptr;
      row.push_back(std::strtod(field.c_str(), &end));
      if (end == field.c_str() || *end != '\0' || !std::isfinite(row.back()))
        Refuse("option '" + key + "': '" + field + "' in '" + item + "' is not a number");
    }
    if (row.size() != width)
      Refuse("option '" + key + "': '" + item + "' must be " + std::to_string(width) +
             " numbers with ':' between them");
    rows.push_back(std::move(row));
  }
  return rows;
}

// One column of a table in JSON.
class Column {
 public:
  explicit Column(const char* name) : text_(std::string("\"") + name + "\": [") {}
  void Add(int64_t value) {
    if (count_++ > 0) text_ += ", ";
    text_ += std::to_string(value);
  }
  std::string Text() const { return text_ + "]"; }

 private:
  std::string text_;
  size_t count_ = 0;
};

std::string JsonTable(const char* name, const std::vector<Column>& columns) {
  std::string text = std::string("\"") + name + "\": {";
  for (size_t i = 0; i < columns.size(); ++i) text += (i > 0 ? ", " : "") + columns[i].Text();
  return text + "}";
}

}  // namespace

class Ns3Model final : public astra_net::Model, public EventTarget {
 public:
  static astra_net_info info() {
    astra_net_info info{};
    info.name = "ns3";
    info.version = "1.0";
    info.capabilities = ASTRA_NET_CAP_CONGESTION | ASTRA_NET_CAP_LINK_FAULTS |
                        ASTRA_NET_CAP_INTERRUPT | ASTRA_NET_CAP_PEEK;
    info.resolution_ps = 1;  // the grid is an option (tick_ps): 1 or 1000 ps
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = 5;  // class c is priority 3 + c
    return info;
  }

  Ns3Model(astra_net::Config& config, const astra_net::Log& log);
  ~Ns3Model() override {
    fabric_.reset();
    tcp_.reset();
    simulator_ = nullptr;
    ns3::Simulator::Destroy();
  }

  void start(const astra_net_transfer& transfer) override {
    statistics_.clear();
    const Tick tick = CeilTick(transfer.start_ps);
    if (tick * tick_ps_ == transfer.start_ps) {
      simulator_->EnterEndOf(tick);
      StartNow(transfer);
    } else {
      late_starts_.push_back(transfer);
      simulator_->AtEndOf(tick, this, kLateStart);
    }
  }

  astra_net::Reached run(int64_t until_ps) override {
    statistics_.clear();
    const Tick limit = until_ps == astra_net::kNever ? kNeverTick - 1 : until_ps / tick_ps_;
    bool& stop = fabric_ ? fabric_->stop : tcp_->stop;
    stop = false;
    const bool more = simulator_->RunUntil(limit, &stop, [this] { return interrupted(); });
    const std::string& failure = fabric_ ? fabric_->failure : tcp_->failure;
    if (!failure.empty()) throw Error(ASTRA_NET_MODEL, Present() + failure);
    if (!more) return {now_ps(), true};
    if (stop || until_ps == astra_net::kNever || simulator_->NextTick() <= limit)
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
    if (statistics_.empty()) statistics_ = tcp_ ? TcpStats() : FabricStats();
    return statistics_;
  }
  std::string where_stuck() const override {
    return fabric_ ? fabric_->WhereStuck() : tcp_->WhereStuck();
  }

  void Fire(uint32_t kind, uint64_t) override {
    if (kind == kLateStart) {
      const astra_net_transfer transfer = late_starts_[next_late_start_++];
      StartNow(transfer);
    } else if (kind == kSample) {
      Sample();
    } else {
      const auto [link, scale] = faults_[kind - kFault];
      fabric_ ? fabric_->SetLink(link, scale) : tcp_->SetLink(link, scale);
    }
  }

 private:
  enum Kind : uint32_t { kLateStart, kSample, kFault };
  struct Flow {
    int64_t id, src, dst, bytes, start_ps, fct_ps, ideal_fct_ps, retransmitted_bytes;
  };
  struct QueueSample {
    Tick time;
    uint32_t link, queue_bytes;
    uint64_t tx_bytes;
  };

  int64_t now_ps() const { return simulator_->NowTick() * tick_ps_; }
  std::string Present() const { return "at " + std::to_string(now_ps()) + " ps: "; }
  Tick CeilTick(int64_t ps) const { return ps / tick_ps_ + (ps % tick_ps_ != 0 ? 1 : 0); }
  void StartNow(const astra_net_transfer& t) {
    if (tcp_) {
      // The stack has one queue per port, so another class would not be what it says.
      if (t.traffic_class != 0)
        throw Error(ASTRA_NET_MODEL, "transfer " + std::to_string(t.id) +
                                         ": traffic_class=" + std::to_string(t.traffic_class) +
                                         ", but transport=tcp has only class 0");
      tcp_flows_[t.id] = {t.id, t.src, t.dst, t.bytes, t.start_ps, 0, 0, 0};
      tcp_->Start(t.id, t.src, t.dst, static_cast<uint64_t>(t.bytes));
      return;
    }
    fabric_->Start(t.id, t.src, t.dst, static_cast<uint64_t>(t.bytes), t.traffic_class, t.start_ps);
    if (sample_interval_ > 0 && !sampling_) {
      sampling_ = true;
      SampleLater();
    }
  }
  void Sample();
  // At the next multiple of the interval.
  void SampleLater() {
    simulator_->After(sample_interval_ - simulator_->NowTick() % sample_interval_, this, kSample);
  }
  std::string TcpStats() const;
  std::string FabricStats() const;
  void ReadParameters(astra_net::Options& options, Parameters* parameters);
  void ReadRouting(astra_net::Config& config);
  void Build(astra_net::Config& config);
  void BuildTcp(astra_net::Config& config);
  std::vector<uint32_t> Reverse(const astra_net::Config& config) const;
  void ReadFaults(astra_net::Config& config);
  void ReadCapture(astra_net::Config& config);
  void ReadControl(astra_net::Options& options);

  ns3::Ptr<FabricSimulator> simulator_;
  // One of the two.
  std::unique_ptr<Fabric> fabric_;
  std::unique_ptr<TcpNetwork> tcp_;
  std::unique_ptr<Capture> capture_;
  std::map<int64_t, Flow> tcp_flows_;
  int64_t tick_ps_ = 1;
  bool record_flows_ = true;
  std::vector<Flow> flows_;
  std::vector<astra_net_transfer> late_starts_;
  size_t next_late_start_ = 0;
  std::vector<std::pair<uint32_t, double>> faults_;
  Tick sample_interval_ = 0;
  bool sampling_ = false;
  std::vector<QueueSample> samples_;
  astra_net::LinkLoad load_;
  std::string statistics_;  // empty where something happened since
  std::vector<astra_net_link> links_;  // TCP only
  // The network as it was given: nodes from `stand_in_` on are the switches of endpoints that forward.
  astra_net::Config graph_;
  int32_t stand_in_ = INT32_MAX;
  uint32_t own_links_ = 0;  // of the network as it was given
  astra_net::Log log_;
};

Ns3Model::Ns3Model(astra_net::Config& config, const astra_net::Log& log) : log_(log) {
  const bool tcp = config.options.choice("transport", "rdma", {"rdma", "tcp"}) == "tcp";
  Parameters parameters;
  if (!tcp) ReadParameters(config.options, &parameters);
  tick_ps_ = tcp ? 1 : parameters.tick_ps;
  std::vector<std::string> routings = {"ecmp"};
  if (!tcp && !parameters.upstream_order) routings = {"ecmp", "static", "spray", "adaptive"};
  config.options.choice("routing", "ecmp", routings);
  ReadRouting(config);
  // Only once in a process: ns-3 aborts on a second change.
  if (ns3::Time::GetResolution() != ns3::Time::PS) ns3::Time::SetResolution(ns3::Time::PS);
  simulator_ = ns3::CreateObject<FabricSimulator>();
  simulator_->SetTick(tick_ps_);
  ns3::Simulator::SetImplementation(simulator_);
  try {
    if (tcp) {
      BuildTcp(config);
    } else {
      fabric_ = std::make_unique<Fabric>(ns3::PeekPointer(simulator_), std::move(parameters));
      Build(config);
    }
    config.nodes = graph_.nodes;
    config.links = graph_.links;
    ReadFaults(config);
  } catch (...) {
    fabric_.reset();
    tcp_.reset();
    simulator_ = nullptr;
    ns3::Simulator::Destroy();
    throw;
  }
}

void Ns3Model::ReadParameters(astra_net::Options& options, Parameters* p) {
  p->tick_ps = options.choice("tick_ps", "1", {"1", "1000"}) == "1" ? 1 : 1000;
  const double per_us = 1e6 / static_cast<double>(p->tick_ps);
  p->upstream_order = options.choice("order", "plain", {"plain", "astra-sim"}) == "astra-sim";
  p->queue_pairs = static_cast<uint32_t>(options.integer("queue_pairs", 1, 0, 1024));
  p->selective = options.choice("loss_recovery", p->upstream_order ? "go-back-n" : "selective",
                                {"selective", "go-back-n"}) == "selective";
  // RoCE's largest.
  p->mtu_bytes = static_cast<uint32_t>(options.integer("mtu_bytes", 4096, 1, 1 << 20));
  // RoCEv2 on the wire: preamble 8, Ethernet 18, gap 12, IPv4 20, UDP 8, BTH 12, ICRC 4; an ACK
  // adds AETH 4; a PFC frame is the smallest Ethernet frame.
  p->header_bytes = static_cast<uint32_t>(options.integer("header_bytes", 82, 0, 4096));
  p->ack_bytes = static_cast<uint32_t>(options.integer("ack_bytes", 86, 1, 4096));
  p->pause_bytes = static_cast<uint32_t>(options.integer("pause_bytes", 84, 1, 4096));
  p->chunk_bytes = static_cast<uint64_t>(options.integer("chunk_bytes", 4000, 0));
  p->ack_interval_bytes = static_cast<uint64_t>(
      options.integer("ack_interval_bytes", p->upstream_order ? 1 : 16384, 0));
  p->back_to_zero = options.flag("back_to_zero", false);
  if (p->back_to_zero && (p->selective || p->queue_pairs > 0))
    Refuse("option 'back_to_zero' needs loss_recovery=go-back-n and queue_pairs=0");
  if (p->selective && p->upstream_order)
    Refuse("option 'loss_recovery' is selective, but the fork's order has only go-back-n");
  p->nack_interval = static_cast<Tick>(options.number("nack_interval_us", 500, 0, 1e9) * per_us);
  p->retransmit_timeout = static_cast<Tick>(options.number("rto_us", 4000, 0.1, 1e9) * per_us);
  p->retransmit_limit = static_cast<uint32_t>(options.integer("retry_limit", 7, 0, 1000));
  p->window = options.choice("window", "pair", {"pair", "global", "none"});
  p->variable_window = options.flag("variable_window", true);
  p->rate_bound = options.flag("rate_bound", true);
  p->complete_at_ack = options.choice("completion", "data", {"data", "ack"}) == "ack";
  p->ack_high_priority = options.flag("ack_high_priority", false);
  p->ecn = options.flag("ecn", true);
  p->pfc = options.flag("pfc", true);
  p->telemetry_multiple =
      static_cast<uint32_t>(options.integer("telemetry_multiple", 1, 1, 1 << 20));
  p->telemetry_exact = options.flag("telemetry_exact", true);
  p->pfc_rows = static_cast<size_t>(options.integer("pfc_rows", 1000000, 0, 1ll << 40));
  record_flows_ = options.flag("flow_table", true);
  // Not less than a tick, and a whole number of them.
  const int64_t interval_ps = astra_net::sample_interval_ps(options);
  sample_interval_ = (interval_ps + p->tick_ps - 1) / p->tick_ps;
  load_ = astra_net::LinkLoad(sample_interval_ * p->tick_ps);
}

void Ns3Model::ReadControl(astra_net::Options& options) {
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
  const std::string name =
      options.choice("congestion_control",
                     fabric_->parameters.upstream_order ? "dcqcn" : "dcqcn-sigcomm15", names);
  ns3::ObjectFactory factory("astra_ns3::" + types.at(name));
  fabric_->control = factory.Create<CongestionControl>();
  fabric_->control->fabric = fabric_.get();
  // Those that take a measure from every acknowledgement get one for every packet.
  if (name != "none" && name != "dcqcn" && name != "dcqcn-sigcomm15" &&
      options.text("ack_interval_bytes", "").empty())
    fabric_->parameters.ack_interval_bytes = 1;
  fabric_->parameters.telemetry = name == "hpcc";
  fabric_->parameters.pint = name == "hpcc-pint";
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
      if (!fabric_->control->SetAttributeFailSafe(attribute.name, *value))
        Refuse("option '" + key + "' is '" + given + "', but must be within " +
               attribute.checker->GetUnderlyingTypeInformation());
    }
  if (name == "dcqcn-sigcomm15")
    fabric_->parameters.cnp_interval =
        static_cast<const DcqcnSigcomm15&>(*fabric_->control).CnpInterval();
  if (name == "hpcc-pint")
    fabric_->parameters.pint_log_base = static_cast<const HpccPint&>(*fabric_->control).log_base;
}

// An endpoint that passes packets on for others becomes two nodes: a NIC, and a switch that has its
// links, one after the other without delay, by a link as fast as all of these together.
void Ns3Model::ReadRouting(astra_net::Config& config) {
  graph_ = config;
  own_links_ = static_cast<uint32_t>(config.links.size());
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

// Directed links in pairs: the k-th from a to b with the k-th from b to a.
std::vector<uint32_t> Ns3Model::Reverse(const astra_net::Config& config) const {
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

void Ns3Model::ReadFaults(astra_net::Config& config) {
  const auto links = static_cast<double>(config.links.size());
  for (const auto& row : Table("faults", config.options.text("faults", ""), 3)) {
    if (!(row[0] >= 0 && row[0] <= 9e15 && row[1] >= 0 && row[1] < links && row[2] >= 0))
      Refuse("option 'faults': needs a time [ps], a link and a scale of its bandwidth");
    set_link(static_cast<int32_t>(row[1]), static_cast<int64_t>(row[0]), row[2]);
  }
}

void Ns3Model::BuildTcp(astra_net::Config& config) {
  astra_net::Options& options = config.options;
  TcpParameters parameters;
  parameters.control = options.text("tcp", parameters.control);
  ns3::TypeId control;
  if (!ns3::TypeId::LookupByNameFailSafe("ns3::" + parameters.control, &control) ||
      !control.IsChildOf(ns3::TypeId::LookupByName("ns3::TcpCongestionOps"))) {
    std::string known;
    for (uint16_t i = 0; i < ns3::TypeId::GetRegisteredN(); ++i) {
      const ns3::TypeId tid = ns3::TypeId::GetRegistered(i);
      if (tid.IsChildOf(ns3::TypeId::LookupByName("ns3::TcpCongestionOps")) &&
          tid.HasConstructor() && tid.GetName().rfind("ns3::Tcp", 0) == 0)
        known += (known.empty() ? "" : ", ") + tid.GetName().substr(5);
    }
    Refuse("option 'tcp' is '" + parameters.control + "', but must be one of " + known);
  }
  parameters.segment_bytes = static_cast<uint32_t>(options.integer("mtu_bytes", 1448, 1, 60000));
  parameters.queue_bytes =
      static_cast<uint64_t>(options.integer("queue_bytes", 4 << 20, 2048, 1 << 30));
  parameters.socket_bytes =
      static_cast<uint64_t>(options.integer("socket_bytes", 4 << 20, 4096, 1 << 30));
  parameters.min_rto_us = options.number("rto_us", 1000, 1, 1e9);
  parameters.seed = static_cast<uint32_t>(options.integer("seed", 1, 1, 4294944442));
  parameters.run = static_cast<uint32_t>(options.integer("run", 1, 0, 1 << 20));
  parameters.ecn = options.flag("ecn", parameters.control == "TcpDctcp");
  for (const auto& row : Table("ecn_map", options.text("ecn_map", "0:65000:65000:1"), 4)) {
    parameters.kmin_bytes = row[1];
    parameters.kmax_bytes = row[2];
    parameters.pmax = row[3];
  }
  const std::vector<uint32_t> reverse = Reverse(config);
  std::vector<TcpLink> links;
  for (size_t i = 0; i < config.links.size(); ++i) {
    const astra_net_link& link = config.links[i];
    links.push_back({link.src, link.dst,
                     static_cast<int64_t>(std::llround(link.bytes_per_second * 8)), link.latency_ps,
                     link.loss, reverse[i]});
  }
  links_ = config.links;
  tcp_ = std::make_unique<TcpNetwork>(parameters, config.endpoints, config.nodes, links);
  tcp_->on_complete = [this](int64_t id) {
    deliver(id, now_ps());
    Flow flow = tcp_flows_[id];
    tcp_flows_.erase(id);
    flow.fct_ps = now_ps() - flow.start_ps;
    flows_.push_back(flow);
  };
}

void Ns3Model::Build(astra_net::Config& config) {
  astra_net::Options& options = config.options;
  Fabric& fabric = *fabric_;
  ReadControl(options);
  const auto seed = static_cast<uint32_t>(options.integer("seed", 1, 1, 4294944442));
  const auto run = static_cast<uint32_t>(options.integer("run", 1, 0, 1 << 20));
  fabric.random = RandomStreams(seed, run);
  fabric.random.SkipStreams(static_cast<uint64_t>(options.integer("streams_taken", 0, 0, 1 << 30)));
  // At least the HPCC paper's, which is a small switch's, and Tomahawk 4's 113 MB per 25.6 Tbit/s.
  const auto buffer = static_cast<uint64_t>(options.integer("buffer_bytes", 32 << 20, 1));
  const bool scaled = options.text("buffer_bytes", "").empty();
  const double headroom_factor = options.number("headroom_factor", 2, 0, 1000);
  const auto headroom_extra = static_cast<int64_t>(options.integer(
      "headroom_extra_bytes", 4 * (fabric.parameters.mtu_bytes + fabric.parameters.header_bytes)));
  std::vector<uint32_t> ids;
  for (const auto& row : Table("node_ids", options.text("node_ids", ""), 1))
    ids.push_back(static_cast<uint32_t>(row[0]));
  if (!ids.empty() && ids.size() != static_cast<size_t>(graph_.nodes))
    Refuse("option 'node_ids' has " + std::to_string(ids.size()) + " entries for " +
           std::to_string(graph_.nodes) + " nodes");
  if (config.nodes > 65535) Refuse("more than 65535 nodes");
  for (int32_t node = 0; node < config.nodes; ++node) {
    const auto at = static_cast<size_t>(node);
    const uint32_t id = at < ids.size() ? ids[at] : static_cast<uint32_t>(node);
    if (node < config.endpoints)
      fabric.AddNic(node, id);
    else
      fabric.AddSwitch(node, id, buffer);
  }

  for (size_t i = 0; i < config.links.size(); ++i) {
    const astra_net_link& link = config.links[i];
    fabric.AddPort(link.src, static_cast<int64_t>(std::llround(link.bytes_per_second * 8)),
                   (link.latency_ps + tick_ps_ / 2) / tick_ps_, link.loss);
  }
  // The fork loses packets by stream 50 of those that users may number (they begin at 2^63): one
  // for the links that have the common loss, and the same afresh for each link with a loss of its
  // own, given as its two directions.
  constexpr uint64_t kLossStream = (1ull << 63) + 50;
  const auto add_stream = [&] {
    fabric.loss_streams.push_back(std::make_unique<RandomStreams>(seed, run, kLossStream));
    return fabric.loss_streams.back().get();
  };
  RandomStreams* common = fabric.parameters.upstream_order ? add_stream() : &fabric.random;
  for (auto& port : fabric.ports) port->loss_stream = common;
  for (const auto& row : Table("own_loss", options.text("own_loss", ""), 2)) {
    RandomStreams* own = add_stream();
    for (const double link : row) {
      if (!(link >= 0 && link < static_cast<double>(config.links.size())))
        Refuse("option 'own_loss': there are links 0 to " +
               std::to_string(config.links.size() - 1));
      fabric.ports[static_cast<size_t>(link)]->loss_stream = own;
    }
  }
  const std::vector<uint32_t> reverse = Reverse(config);
  for (uint32_t i = 0; i < reverse.size(); ++i) fabric.Join(i, reverse[i]);
  if (scaled) fabric.ScaleBuffers(4.4e-6);
  if (!fabric.parameters.upstream_order) fabric.SetGraph(graph_, stand_in_);
  if (fabric.Reorders() && !fabric.parameters.selective)
    Refuse(
        "option 'routing' brings packets out of order, which loss_recovery=go-back-n takes for "
        "loss");

  // ECN thresholds per link rate; without an entry, the DCQCN paper's in proportion to the rate.
  std::map<int64_t, std::vector<double>> ecn;
  for (const auto& row : Table("ecn_map", options.text("ecn_map", ""), 4))
    ecn[std::llround(row[0])] = row;
  const int64_t nic_bps = fabric.nodes[0]->ports.empty() ? 1 : fabric.nodes[0]->ports[0]->bps;
  for (auto& port : fabric.ports) {
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
        headroom_extra + static_cast<int64_t>(std::floor(wire) * headroom_factor);
    // A faster port may take a larger share of the buffer (alpha doubles with the rate).
    port->alpha_shift = 3;
    for (int64_t bps = port->bps; bps > nic_bps && port->alpha_shift > 0; bps /= 2)
      --port->alpha_shift;
  }
  fabric.on_notice = [this](const std::string& text) { log_(30, text); };
  fabric.Finish();
  if (load_.on())
    fabric.on_transmit = [this](const Port& port, const PacketRecord& packet) {
      const Tick now = simulator_->NowTick();
      load_.add(port.link, now * tick_ps_, port.busy_until * tick_ps_, packet.wire_bytes,
                static_cast<double>((port.busy_until - now) * tick_ps_));
    };
  ReadCapture(config);
  fabric.on_complete = [this](const QueuePair& qp, const Message& message, Tick now) {
    deliver(message.id, now * tick_ps_);
    fabric_->stop = true;
    if (!record_flows_) return;
    const auto start = static_cast<int64_t>(message.start_ps);
    flows_.push_back({message.id, qp.src, qp.dst, static_cast<int64_t>(message.Bytes()), start,
                      now * tick_ps_ - start, fabric_->IdealTicks(qp, message) * tick_ps_,
                      static_cast<int64_t>(message.retransmitted)});
  };
}

void Ns3Model::ReadCapture(astra_net::Config& config) {
  const std::string path = config.options.text("pcap", "");
  std::vector<bool> wanted(config.links.size(), true);
  const std::string links = config.options.text("pcap_links", "");
  if (!links.empty()) wanted.assign(wanted.size(), false);
  for (const auto& row : Table("pcap_links", links, 1)) {
    if (!(row[0] >= 0 && row[0] < static_cast<double>(wanted.size())))
      Refuse("option 'pcap_links': there are links 0 to " + std::to_string(wanted.size() - 1));
    wanted[static_cast<size_t>(row[0])] = true;
  }
  if (path.empty()) return;
  capture_ = std::make_unique<Capture>(path, fabric_->parameters);
  if (!capture_->ok()) Refuse("option 'pcap': cannot write '" + path + "'");
  fabric_->on_transmit = [this, wanted, others = fabric_->on_transmit](const Port& port,
                                                                       const PacketRecord& packet) {
    if (others) others(port, packet);
    if (wanted[port.link]) capture_->Write(port, packet, simulator_->NowTick());
  };
}

void Ns3Model::Sample() {
  const Tick now = simulator_->NowTick();
  for (const auto& port : fabric_->ports)
    if (port->waiting_bytes > 0 || port->tx_bytes > 0)
      samples_.push_back({now, port->link, port->waiting_bytes, port->tx_bytes});
  sampling_ = fabric_->InFlight() > 0;
  if (sampling_) SampleLater();
}

std::string Ns3Model::TcpStats() const {
  std::vector<Column> links, flows;
  for (const char* name : {"link", "src", "dst", "bytes", "busy_ps", "packets", "drops"})
    links.emplace_back(name);
  uint64_t packets = 0, drops = 0;
  for (size_t i = 0; i < links_.size(); ++i) {
    const TcpNetwork::LinkCount& count = tcp_->counts[i];
    packets += count.packets;
    drops += count.drops;
    const int64_t row[] = {
        static_cast<int64_t>(i),
        links_[i].src,
        links_[i].dst,
        static_cast<int64_t>(count.bytes),
        std::llround(static_cast<double>(count.bytes) / links_[i].bytes_per_second * 1e12),
        static_cast<int64_t>(count.packets),
        static_cast<int64_t>(count.drops)};
    for (size_t j = 0; j < links.size(); ++j) links[j].Add(row[j]);
  }
  for (const char* name : {"id", "src", "dst", "bytes", "start_ps", "fct_ps"})
    flows.emplace_back(name);
  for (const Flow& flow : flows_) {
    const int64_t row[] = {flow.id, flow.src, flow.dst, flow.bytes, flow.start_ps, flow.fct_ps};
    for (size_t j = 0; j < flows.size(); ++j) flows[j].Add(row[j]);
  }
  return "{\"packet_hops\": " + std::to_string(packets) + ", \"drops\": " + std::to_string(drops) +
         ", \"events\": " + std::to_string(simulator_->EventsRun()) + ", \"tables\": {" +
         JsonTable("links", links) + ", " + JsonTable("flows", flows) + "}}";
}

std::string Ns3Model::FabricStats() const {
  const Fabric& fabric = *fabric_;
  uint64_t drops = 0, lost = 0, marks = 0, pauses = 0, resumes = 0;
  const auto ticks = static_cast<double>(std::max<Tick>(1, simulator_->NowTick()));
  std::vector<Column> links;
  for (const char* name : {"link", "src", "dst", "bytes", "busy_ps", "packets", "drops", "lost",
                           "ecn_marks", "pauses_sent", "max_queue_bytes", "mean_queue_bytes"})
    links.emplace_back(name);
  for (const auto& port : fabric.ports) {
    drops += port->drops;
    lost += port->lost;
    marks += port->marks;
    pauses += port->pauses;
    resumes += port->resumes;
    // A forwarding endpoint's switch is it, but for the cable in between.
    const auto end = [&](const Device& device) {
      const bool own = port->link < own_links_;
      return own && device.node >= stand_in_ ? device.node - stand_in_ : device.node;
    };
    const int64_t row[] = {port->link,
                           end(*port->owner),
                           end(*port->peer->owner),
                           static_cast<int64_t>(port->tx_bytes),
                           port->busy_ticks * tick_ps_,
                           static_cast<int64_t>(port->tx_packets),
                           static_cast<int64_t>(port->drops),
                           static_cast<int64_t>(port->lost),
                           static_cast<int64_t>(port->marks),
                           static_cast<int64_t>(port->pauses),
                           port->max_queue_bytes,
                           std::llround(port->queue_byte_ticks / ticks)};
    for (size_t i = 0; i < links.size(); ++i) links[i].Add(row[i]);
  }
  std::vector<Column> flows;
  for (const char* name :
       {"id", "src", "dst", "bytes", "start_ps", "fct_ps", "ideal_fct_ps", "retransmitted_bytes"})
    flows.emplace_back(name);
  for (const Flow& flow : flows_) {
    const int64_t row[] = {flow.id,       flow.src,    flow.dst,          flow.bytes,
                           flow.start_ps, flow.fct_ps, flow.ideal_fct_ps, flow.retransmitted_bytes};
    for (size_t i = 0; i < flows.size(); ++i) flows[i].Add(row[i]);
  }
  std::vector<Column> pfc;
  for (const char* name : {"time_ps", "link", "priority", "pause"}) pfc.emplace_back(name);
  for (const auto& event : fabric.pause_events) {
    const int64_t row[] = {event.time * tick_ps_, event.link, event.queue, event.pause ? 1 : 0};
    for (size_t i = 0; i < pfc.size(); ++i) pfc[i].Add(row[i]);
  }
  std::vector<Column> queues;
  for (const char* name : {"time_ps", "link", "queue_bytes", "tx_bytes"}) queues.emplace_back(name);
  for (const QueueSample& sample : samples_) {
    const int64_t row[] = {sample.time * tick_ps_, sample.link, sample.queue_bytes,
                           static_cast<int64_t>(sample.tx_bytes)};
    for (size_t i = 0; i < queues.size(); ++i) queues[i].Add(row[i]);
  }
  const uint64_t left_out = pauses + resumes - fabric.pause_events.size();
  std::string text = "{";
  const std::pair<const char*, uint64_t> scalars[] = {{"packet_hops", fabric.packet_hops},
                                                      {"data_packets", fabric.data_packets},
                                                      {"events", simulator_->EventsRun()},
                                                      {"ecn_marks", marks},
                                                      {"drops", drops},
                                                      {"lost", lost},
                                                      {"pfc_pauses", pauses},
                                                      {"pfc_resumes", resumes},
                                                      {"retransmissions", fabric.retransmissions},
                                                      {"timeouts", fabric.timeouts},
                                                      {"pfc_rows_left_out", left_out}};
  for (const auto& [name, value] : scalars)
    text += std::string("\"") + name + "\": " + std::to_string(value) + ", ";
  if (fabric.parameters.telemetry)
    text += "\"hpcc_blind_transfers\": " + std::to_string(fabric.blind_transfers) + ", ";
  if (fabric.parameters.cnp_interval > 0) text += "\"cnps\": " + std::to_string(fabric.cnps) + ", ";
  text += load_.interval_json() + "\"tables\": {" + JsonTable("links", links) + ", " +
          JsonTable("flows", flows) + ", " + JsonTable("pfc", pfc);
  if (sample_interval_ > 0) text += ", " + JsonTable("queues", queues);
  std::vector<std::pair<int64_t, size_t>> counted;
  for (const auto& port : fabric.ports) counted.emplace_back(port->link, port->link);
  return text + load_.table_json(counted) + "}}";
}

}  // namespace astra_ns3

ASTRA_NET_BACKEND(astra_ns3::Ns3Model)
