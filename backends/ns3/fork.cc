// SPDX-License-Identifier: MIT
//
// RDMA with the devices of the public RDMA fork of ns-3 (HPCC's simulator, and what ASTRA-sim and
// SimAI made of it): QbbNetDevice, RdmaHw, SwitchNode and SwitchMmu.  This is what their programs
// are to them: it builds the network, fills the tables of routes, opens a queue pair for each
// transfer, and listens to trace sources.  Where forks differ, the compiler finds out which this is
// (`requires`); attributes are looked up by name when the network is built.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "ns3/boolean.h"
#include "ns3/data-rate.h"
#include "ns3/double.h"
#include "ns3/error-model.h"
#include "ns3/int-header.h"
#include "ns3/integer.h"
#include "ns3/internet-stack-helper.h"
#include "ns3/ipv4.h"
#include "ns3/node.h"
#include "ns3/pint.h"
#include "ns3/pointer.h"
#include "ns3/ppp-header.h"
#include "ns3/qbb-channel.h"
#include "ns3/qbb-helper.h"
#include "ns3/qbb-net-device.h"
#include "ns3/random-variable-stream.h"
#include "ns3/rdma-driver.h"
#include "ns3/rdma-hw.h"
#include "ns3/rng-seed-manager.h"
#include "ns3/string.h"
#include "ns3/switch-mmu.h"
#include "ns3/switch-node.h"
#include "ns3/uinteger.h"
#include "rdma.h"
#include "tables.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

namespace {

using ns3::Ptr;

// ---------------------------------------------------------------------------------------------
// What differs between forks.

// Sequence numbers: of the receiver, and on the wire.
constexpr uint64_t kMostBytes = std::min<uint64_t>(
    std::numeric_limits<decltype(ns3::RdmaRxQueuePair::ReceiverNextExpectedSeq)>::max(),
    std::numeric_limits<decltype(ns3::CustomHeader{}.udp.seq)>::max());

struct PairOrder {
  uint32_t src, dst;
  uint64_t tag, bytes;
  uint16_t priority;
  ns3::Ipv4Address source, destination;
  uint16_t source_port, destination_port;
  uint32_t window;
  uint64_t base_rtt;
};

void Nothing() {}

// ASTRA-sim's and SimAI's pairs know the ranks; HPCC's do not, and tell of their end only.
template <class Driver>
void AddPair(Driver& driver, const PairOrder& o) {
  const ns3::Callback<void> none = ns3::MakeCallback(&Nothing);
  if constexpr (requires {
                  driver.AddQueuePair(o.src, o.dst, o.tag, o.bytes, o.priority, o.source,
                                      o.destination, o.source_port, o.destination_port, o.window,
                                      o.base_rtt, none, none);
                })
    driver.AddQueuePair(o.src, o.dst, o.tag, o.bytes, o.priority, o.source, o.destination,
                        o.source_port, o.destination_port, o.window, o.base_rtt, none, none);
  else
    driver.AddQueuePair(o.bytes, o.priority, o.source, o.destination, o.source_port,
                        o.destination_port, o.window, o.base_rtt, none);
}

// SimAI's NICs keep a second table, for switches inside of servers.
template <class Router>
void AddRoute(Router& router, ns3::Ipv4Address destination, uint32_t interface) {
  if constexpr (requires { router.AddTableEntry(destination, interface, false); })
    router.AddTableEntry(destination, interface, false);
  else
    router.AddTableEntry(destination, interface);
}

// Only some let others than the device itself bring its link up.
template <class Device>
struct LinkUp : Device {
  static constexpr bool kPossible = requires { &LinkUp::NotifyLinkUp; };
  static void Do(Device& device) {
    if constexpr (kPossible) (device.*(&LinkUp::NotifyLinkUp))();
  }
};

// ---------------------------------------------------------------------------------------------

// The fork tells of what it does on stdout, a line for each packet that it drops.  Nobody else
// writes there while ns-3 runs, which is on this thread alone.
class Quiet {
 public:
  Quiet() : buffer_(std::cout.rdbuf(nullptr)) {
#ifdef __GLIBC__
    static FILE* const null = std::fopen("/dev/null", "w");
    stdout_ = stdout;
    if (null != nullptr) stdout = null;
#endif
  }
  ~Quiet() {
    std::cout.rdbuf(buffer_);
#ifdef __GLIBC__
    stdout = stdout_;
#endif
  }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  std::streambuf* buffer_;
  FILE* stdout_ = nullptr;
};

constexpr uint16_t kFirstSourcePort = 10000, kDestinationPort = 100, kFirstPriority = 3;

ns3::Ipv4Address AddressOf(uint32_t id) {
  return ns3::Ipv4Address(0x0b000001u + (id / 256) * 0x10000u + (id % 256) * 0x100u);
}
uint32_t IdOf(ns3::Ipv4Address address) { return address.Get() >> 8 & 0xffff; }

uint64_t KeyOf(uint32_t src_id, uint32_t dst_id, uint16_t port, uint16_t priority) {
  return static_cast<uint64_t>(src_id) << 48 | static_cast<uint64_t>(dst_id) << 32 |
         static_cast<uint64_t>(port) << 16 | priority;
}
uint64_t KeyOf(const ns3::RdmaQueuePair& pair) {
  return KeyOf(IdOf(pair.sip), IdOf(pair.dip), pair.sport, pair.m_pg);
}

// A congestion control by the names of our options and the fork's attributes; what is not given is
// what ours have.  A rate of 0 is so many parts of the line rate.
struct Setting {
  const char* ours;
  const char* theirs;
  const char* fallback;
};
struct Control {
  uint32_t mode;  // CC_MODE
  ns3::IntHeader::Mode header;
  std::vector<Setting> settings;
};

const Setting kMinRate = {"MinRate", "MinRate", "100000000"};

const std::map<std::string, Control>& Controls() {
  static const std::vector<Setting> hpcc = {kMinRate,
                                            {"TargetUtilization", "TargetUtil", "0.95"},
                                            {"MaxStage", "MiThresh", "5"},
                                            {"AdditiveRate", "RateAI", "50000000"}};
  static const auto with = [](std::vector<Setting> settings, const std::vector<Setting>& more) {
    settings.insert(settings.end(), more.begin(), more.end());
    return settings;
  };
  static const std::map<std::string, Control> controls = {
      {"none", {12, ns3::IntHeader::NONE, {kMinRate}}},
      {"dcqcn",
       {1,
        ns3::IntHeader::NONE,
        {kMinRate,
         {"Gain", "EwmaGain", "0.00390625"},
         {"AlphaInterval", "AlphaResumInterval", "55"},
         {"DecreaseInterval", "RateDecreaseInterval", "4"},
         {"IncreaseInterval", "RPTimer", "55"},
         {"FastRecoveryTimes", "FastRecoveryTimes", "5"},
         {"AdditiveRate", "RateAI", "0"},
         {"HyperRate", "RateHAI", "0"},
         {"ClampTarget", "ClampTargetRate", "false"}}}},
      {"hpcc",
       {3, ns3::IntHeader::NORMAL,
        with(hpcc, {{"FastReact", "FastReact", "true"},
                    {"PerHopRates", "MultiRate", "false"},
                    {"SampleFeedback", "SampleFeedback", "false"}})}},
      {"timely",
       {7,
        ns3::IntHeader::TS,
        {kMinRate, {"AdditiveRate", "RateAI", "10000000"}, {"HyperRate", "RateHAI", "50000000"}}}},
      {"dctcp",
       {8,
        ns3::IntHeader::NONE,
        {kMinRate, {"Gain", "EwmaGain", "0.0625"}, {"AdditiveRate", "DctcpRateAI", "1000000000"}}}},
      {"hpcc-pint", {10, ns3::IntHeader::PINT, hpcc}}};
  return controls;
}

// Attributes of RdmaHw that options of other names set.
const std::set<std::string> kSetOtherwise = {"Mtu",
                                             "CcMode",
                                             "L2ChunkSize",
                                             "L2AckInterval",
                                             "L2BackToZero",
                                             "VarWin",
                                             "RateBound",
                                             "PintSmplThresh",
                                             "NACK_Generation_Interval",
                                             "NACKGenerationInterval"};

class Fork final : public Rdma {
 public:
  Fork(const Site& site, const Parameters& parameters);
  ~Fork() override;

  void Start(const astra_net_transfer& transfer) override;
  void SetLink(uint32_t link, double scale) override;
  bool Run(Tick limit, const std::function<bool()>& interrupted) override {
    const Quiet quiet;
    return Rdma::Run(limit, interrupted);
  }
  std::string WhereStuck() const override;

 protected:
  size_t InFlight() const override { return transfers_.size(); }
  size_t Links() const override { return ports_.size(); }
  LinkState Link(size_t link) const override;
  Counts Count() const override;
  const std::vector<PauseEvent>& Pauses() const override { return pauses_; }

 private:
  // One direction of a cable: the device that sends, and what has been heard of it.
  struct Port {
    Fork* fork;
    uint32_t link, reverse;
    int32_t src, dst;
    Ptr<ns3::QbbNetDevice> device;
    int64_t nominal_bps;
    double scale = 1;
    bool up = true;  // of the cable
    int64_t delay;

    uint64_t bytes = 0, packets = 0, drops = 0, lost = 0, marks = 0, pauses = 0, resumes = 0;
    Tick busy = 0;
    uint32_t tx_size = 0;  // the packet whose time was asked for last
    Tick tx_time = 0;
    int64_t waiting_bytes = 0, max_queue_bytes = 0;
    Tick last_change = 0;
    double queue_byte_ticks = 0;
    const ns3::Packet* newest = nullptr;  // of the queue, and when it came
    Tick newest_at = -1;
    bool was_marked = false;  // the packet that leaves the queue
  };
  struct Path {
    int64_t delay = -1, transmit = 0;
    int64_t bps = 0;
    uint32_t switches = 0;
  };
  struct Transfer {
    int64_t id, bytes, start_ps;
    int32_t src, dst;
    uint64_t left;  // after the pair that is open
    uint16_t priority;
    uint64_t sent = 0, retransmitted = 0;  // by that pair; by all
  };
  // The watchdog is an event of its own kind.
  struct Watchdog final : astra_ns3::EventTarget {
    Fork* fork;
    void Fire(uint32_t, uint64_t) override { fork->Watch(); }
  };

  void ReadControl(astra_net::Options& options);
  void AddSetting(astra_net::Options& options, const std::string& attribute, const std::string& key,
                  const std::string& fallback);
  void BuildNodes(const Site& site);
  void BuildCables(const Site& site);
  void BuildSwitches(const Site& site);
  void BuildNics(const Site& site);
  void Listen();
  void Connect(const Ptr<ns3::Object>& object, const char* source, const ns3::CallbackBase& sink);
  std::vector<uint32_t> Neighbours(int32_t node) const;
  void FindRoutes(bool as_built);
  void SetRoutes();
  const Path& PathOf(int32_t src, int32_t dst) const {
    return paths_[static_cast<size_t>(dst) * hosts_ + static_cast<size_t>(src)];
  }
  uint64_t Bdp(int64_t rtt, int64_t bps) const {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(rtt) * static_cast<uint64_t>(bps) /
                                 1000000000u / 8);
  }
  void OpenPair(Transfer transfer);
  uint16_t FreePort(int32_t src, int32_t dst, uint16_t priority);
  void QueueChanges(Port* port, int64_t bytes);
  Tick Patience() const;
  void WatchOn();
  void Watch();
  void PairEnds(Ptr<ns3::RdmaQueuePair> pair);

  static bool Marked(const ns3::Packet& packet);
  static void TxBegins(Port* port, Ptr<const ns3::Packet> packet);
  static void Enqueued(Port* port, Ptr<const ns3::Packet> packet, uint32_t queue);
  static void Leaves(Port* port, Ptr<const ns3::Packet> packet);
  static void Dequeued(Port* port, Ptr<const ns3::Packet> packet, uint32_t queue);
  static void Received(Port* port, Ptr<const ns3::Packet> packet);
  static void PauseReceived(Port* port, uint32_t type);
  static void Corrupt(Port* port, Ptr<const ns3::Packet> packet);
  static void Discarded(Port* port, Ptr<const ns3::Packet> packet, uint32_t queue);
  static void DataSent(Fork* fork, Ptr<const ns3::Packet> packet, Ptr<ns3::RdmaQueuePair> pair);

  Parameters parameters_;
  astra_net::Log log_;
  size_t hosts_;
  Control control_;
  std::vector<std::pair<std::string, Ptr<ns3::AttributeValue>>> settings_;
  double pint_probability_ = 1;
  bool global_rtt_ = false;
  std::vector<uint32_t> ids_;  // of nodes, as the fork counts them
  std::vector<int32_t> node_of_;  // by id
  std::vector<Ptr<ns3::Node>> nodes_;
  std::vector<Ptr<ns3::RdmaDriver>> drivers_;  // of hosts
  std::vector<Port> ports_;  // by link
  std::vector<std::vector<uint32_t>> out_;  // per node, its links
  std::vector<std::vector<std::vector<uint32_t>>> next_;  // [host][node]: links towards the host
  std::vector<Path> paths_;  // [host][host], as built
  int64_t max_rtt_ = 0;
  uint64_t max_bdp_ = 0;
  std::unordered_map<uint64_t, Transfer> transfers_;  // in flight, by their pairs
  std::unordered_map<uint64_t, uint16_t> next_port_;  // per source and destination
  std::vector<PauseEvent> pauses_;
  Port* undecided_ = nullptr;  // a switch's, whose packet has not been queued yet
  uint64_t data_packets_ = 0, retransmissions_ = 0, blind_transfers_ = 0;
  uint32_t header_bytes_ = 0;
  bool discarding_ = false;
  Watchdog watchdog_;
  bool watching_ = false;
  uint64_t moves_ = 0, moves_seen_ = 0;
};

// What the fork has only one of.  `others` says what it is.
void Only(astra_net::Options& options, const char* key, bool is_it, const std::string& what) {
  if (!is_it)
    Refuse(std::string("option '") + key + "' is '" + options.text(key, "") +
           "', but this ns-3 is the RDMA fork, whose devices have only " + what);
}

void CheckParameters(astra_net::Options& options, const Parameters& p, uint32_t telemetry_bytes) {
  const Parameters fork;
  const auto size = [&](const char* key, uint32_t given, uint32_t plain, uint32_t extra) {
    Only(options, key, given == plain || given == plain + extra,
         std::to_string(plain + extra) + " bytes");
  };
  Only(options, "tick_ps", p.tick_ps == 1000, "1000");
  Only(options, "order", p.upstream_order, "astra-sim");
  Only(options, "queue_pairs", p.queue_pairs == 0, "0: a pair for each message");
  Only(options, "loss_recovery", !p.selective, "go-back-n");
  Only(options, "completion", p.complete_at_ack, "ack");
  Only(options, "telemetry_exact", !p.telemetry_exact, "false");
  Only(options, "pfc", p.pfc, "true");
  Only(options, "fast_forward", p.fast_forward == "off", "off");
  size("header_bytes", p.header_bytes, fork.header_bytes, telemetry_bytes);
  Only(options, "ack_bytes",
       p.ack_bytes == fork.ack_bytes || p.ack_bytes == 22 + std::max(26u, 12 + telemetry_bytes),
       std::to_string(22 + std::max(26u, 12 + telemetry_bytes)) + " bytes");
  size("pause_bytes", p.pause_bytes, fork.pause_bytes, 0);
  for (const char* key : {"rto_us", "retry_limit"})
    Only(options, key, options.text(key, "").empty(), "no timeouts");
  for (const char* key : {"pcap", "pcap_links"})
    Only(options, key, options.text(key, "").empty(), "no pcap in this format");
  // Accepted, for the fork draws its random numbers itself.
  options.text("streams_taken", "");
  if (p.buffer_bytes > std::numeric_limits<uint32_t>::max())
    Refuse("option 'buffer_bytes': the RDMA fork of ns-3 counts a switch's in 32 bits");
}

Fork::Fork(const Site& site, const Parameters& parameters)
    : Rdma(site, parameters),
      parameters_(parameters),
      log_(site.log),
      hosts_(static_cast<size_t>(site.config.endpoints)) {
  const Quiet quiet;
  watchdog_.fork = this;
  astra_net::Options& options = site.config.options;
  ReadControl(options);
  CheckParameters(options, parameters_,
                  control_.header == ns3::IntHeader::NONE ? 0 : ns3::IntHeader::GetStaticSize());
  ns3::RngSeedManager::SetSeed(parameters_.seed);
  ns3::RngSeedManager::SetRun(parameters_.run);
  BuildNodes(site);
  BuildCables(site);
  BuildSwitches(site);
  BuildNics(site);
  FindRoutes(true);
  SetRoutes();
  // As much as MaxRtt's checker takes.
  if (max_rtt_ > std::numeric_limits<uint32_t>::max())
    Refuse("a round trip takes more than 4.29 s, which the RDMA fork's switches cannot count");
  for (size_t node = hosts_; node < nodes_.size(); ++node) {
    nodes_[node]->SetAttribute("CcMode", ns3::UintegerValue(control_.mode));
    nodes_[node]->SetAttribute("MaxRtt", ns3::UintegerValue(static_cast<uint64_t>(max_rtt_)));
  }
  Listen();
}

// Objects that hold one another would outlive the run.
Fork::~Fork() {
  for (const Ptr<ns3::RdmaDriver>& driver : drivers_) {
    driver->m_rdma->m_nic.clear();
    driver->m_rdma->m_qpMap.clear();
    driver->m_rdma->m_node = nullptr;
    driver->m_rdma = nullptr;
    driver->m_node = nullptr;
  }
}

void Fork::ReadControl(astra_net::Options& options) {
  std::vector<std::string> names;
  for (const auto& [name, control] : Controls()) names.push_back(name);
  const std::string name = options.choice("congestion_control", "dcqcn", names);
  control_ = Controls().at(name);
  ns3::IntHeader::mode = control_.header;
  ns3::IntHop::multi = parameters_.telemetry_multiple;
  if (control_.header == ns3::IntHeader::PINT) {
    pint_probability_ = options.number("cc.Probability", 1, 0, 1);
    ns3::Pint::set_log_base(options.number("cc.LogBase", 1.05, 1.0001, 100));
    ns3::IntHeader::pint_bytes = ns3::Pint::get_n_bytes();
    // The fork rounds by the C library's, and its program never seeds it.
    std::srand(1);
  }
  if (control_.header == ns3::IntHeader::TS)
    Only(options, "cc.Unstamped", options.flag("cc.Unstamped", true), "true");
  global_rtt_ = options.choice("base_rtt", parameters_.window == "global" ? "global" : "pair",
                               {"global", "pair"}) == "global";
  std::set<std::string> taken = kSetOtherwise;
  for (const Setting& setting : control_.settings) {
    const std::string ours = std::string("cc.") + setting.ours;
    const std::string theirs = std::string("cc.") + setting.theirs;
    AddSetting(options, setting.theirs, options.text(ours, "").empty() ? theirs : ours,
               setting.fallback);
    taken.insert(setting.theirs);
  }
  const ns3::TypeId type = ns3::RdmaHw::GetTypeId();
  for (uint32_t i = 0; i < type.GetAttributeN(); ++i) {
    const std::string attribute = type.GetAttribute(i).name;
    if (taken.count(attribute) == 0) AddSetting(options, attribute, "cc." + attribute, "");
  }
}

// An attribute of RdmaHw, from the text of an option or else from `fallback`; empty is the fork's.
void Fork::AddSetting(astra_net::Options& options, const std::string& attribute,
                      const std::string& key, const std::string& fallback) {
  const std::string given = options.text(key, fallback);
  if (given.empty()) return;
  ns3::TypeId::AttributeInformation info;
  if (!ns3::RdmaHw::GetTypeId().LookupAttributeByName(attribute, &info)) {
    if (options.text(key, "").empty()) return;
    Refuse("option '" + key + "': RdmaHw of this fork has no attribute " + attribute);
  }
  astra_net::Options text;
  text.add(key, given);
  const std::string type = info.checker->GetValueTypeName();
  Ptr<ns3::AttributeValue> value;
  if (type == "ns3::DoubleValue")
    value = ns3::Create<ns3::DoubleValue>(text.number(key, 0, -1e12, 1e12));
  else if (type == "ns3::BooleanValue")
    value = ns3::Create<ns3::BooleanValue>(text.flag(key, false));
  else if (type == "ns3::DataRateValue")
    value =
        ns3::Create<ns3::DataRateValue>(ns3::DataRate(static_cast<uint64_t>(text.integer(key, 0))));
  else
    value = ns3::Create<ns3::UintegerValue>(static_cast<uint64_t>(text.integer(key, 0)));
  if (!info.checker->Check(*value))
    Refuse("option '" + key + "' is '" + given + "', but must be within " +
           info.checker->GetUnderlyingTypeInformation());
  settings_.emplace_back(attribute, value);
}

// Nodes in the order of their ids, which the fork's addresses and hashes are made of.
void Fork::BuildNodes(const Site& site) {
  const auto count = static_cast<size_t>(site.config.nodes);
  if (count > 65535) Refuse("more than 65535 nodes");
  for (size_t node = 0; node < count; ++node) ids_.push_back(static_cast<uint32_t>(node));
  const auto given = ReadTable("node_ids", site.config.options.text("node_ids", ""), 1);
  if (!given.empty() && given.size() != static_cast<size_t>(site.graph.nodes))
    Refuse("option 'node_ids' has " + std::to_string(given.size()) + " entries for " +
           std::to_string(site.graph.nodes) + " nodes");
  for (size_t node = 0; node < given.size(); ++node)
    ids_[node] = static_cast<uint32_t>(given[node][0]);
  node_of_.assign(count, -1);
  for (size_t node = 0; node < count; ++node) {
    if (ids_[node] >= count || node_of_[ids_[node]] >= 0)
      Refuse("option 'node_ids': the RDMA fork needs each of 0 to " + std::to_string(count - 1) +
             " once");
    node_of_[ids_[node]] = static_cast<int32_t>(node);
  }
  // Each keeps a table of its ports by its ports.
  const double wanted = static_cast<double>(count - hosts_) * sizeof(ns3::SwitchNode);
  const double memory =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  if (wanted > memory)
    Refuse(std::to_string(count - hosts_) + " switches of the RDMA fork take " +
           std::to_string(static_cast<int64_t>(wanted / (1 << 30))) +
           " GiB of memory, more than this machine has");
  nodes_.resize(count);
  out_.resize(count);
  for (const int32_t node : node_of_) {
    const auto at = static_cast<size_t>(node);
    if (at < hosts_) {
      nodes_[at] = ns3::CreateObject<ns3::Node>();
      continue;
    }
    nodes_[at] = ns3::CreateObject<ns3::SwitchNode>();
    nodes_[at]->SetAttribute("EcnEnabled", ns3::BooleanValue(parameters_.ecn));
  }
  // The stack is what addresses stand in, and takes its share of the random streams.
  const ns3::InternetStackHelper internet;
  for (const int32_t node : node_of_) internet.Install(nodes_[static_cast<size_t>(node)]);
}

void Fork::BuildCables(const Site& site) {
  const std::vector<astra_net_link>& links = site.config.links;
  ports_.resize(links.size());
  // The fork loses packets by stream 50 of those that users may number: one for the links that have
  // the common loss, and the same afresh for each cable with a loss of its own.
  const auto add_stream = [] {
    auto stream = ns3::CreateObject<ns3::UniformRandomVariable>();
    stream->SetStream(50);
    return stream;
  };
  const auto add_model = [](double loss, const Ptr<ns3::RandomVariableStream>& stream) {
    auto model = ns3::CreateObject<ns3::RateErrorModel>();
    model->SetRandomVariable(stream);
    model->SetAttribute("ErrorRate", ns3::DoubleValue(loss));
    model->SetAttribute("ErrorUnit", ns3::StringValue("ERROR_UNIT_PACKET"));
    return model;
  };
  std::set<uint32_t> own;
  for (const auto& row : ReadTable("own_loss", site.config.options.text("own_loss", ""), 2))
    for (const double link : row) {
      if (!(link >= 0 && link < static_cast<double>(links.size())))
        Refuse("option 'own_loss': there are links 0 to " + std::to_string(links.size() - 1));
      own.insert(static_cast<uint32_t>(link));
    }
  std::map<double, Ptr<ns3::RateErrorModel>> common;
  const Ptr<ns3::UniformRandomVariable> common_stream = add_stream();
  common[0] = add_model(0, common_stream);

  ns3::QbbHelper helper;
  for (uint32_t link = 0; link < links.size(); ++link) {
    const uint32_t back = site.reverse[link];
    if (back < link) continue;
    const auto rate = [&](uint32_t one) {
      return static_cast<int64_t>(std::llround(links[one].bytes_per_second * 8));
    };
    const auto delay = [&](uint32_t one) { return (links[one].latency_ps + 500) / 1000; };
    if (delay(link) != delay(back))
      Refuse("links " + std::to_string(link) + " and " + std::to_string(back) +
             " are the directions of one cable, which has one delay in the RDMA fork of ns-3");
    helper.SetDeviceAttribute("PauseTime", ns3::UintegerValue(5));
    helper.SetDeviceAttribute("QcnEnabled", ns3::BooleanValue(parameters_.ecn));
    helper.SetDeviceAttribute("DynamicThreshold", ns3::BooleanValue(true));
    helper.SetChannelAttribute("Delay",
                               ns3::TimeValue(ns3::TimeStep(static_cast<uint64_t>(delay(link)))));
    const ns3::NetDeviceContainer ends = helper.Install(
        nodes_[static_cast<size_t>(links[link].src)], nodes_[static_cast<size_t>(links[link].dst)]);
    Ptr<ns3::RateErrorModel> own_model;
    for (const uint32_t one : {link, back}) {
      Port& port = ports_[one];
      port.fork = this;
      port.link = one;
      port.reverse = one == link ? back : link;
      port.src = links[one].src;
      port.dst = links[one].dst;
      port.device = ns3::DynamicCast<ns3::QbbNetDevice>(ends.Get(one == link ? 0 : 1));
      port.nominal_bps = rate(one);
      port.delay = delay(one);
      port.device->SetDataRate(ns3::DataRate(static_cast<uint64_t>(port.nominal_bps)));
      out_[static_cast<size_t>(port.src)].push_back(one);
      // What is lost on a link is found corrupt at its end.
      const double loss = links[port.reverse].loss;
      Ptr<ns3::RateErrorModel> model;
      if (own.count(one) > 0) {
        if (!own_model) own_model = add_model(loss, add_stream());
        model = own_model;
      } else {
        Ptr<ns3::RateErrorModel>& known = common[loss];
        if (!known) known = add_model(loss, common_stream);
        model = known;
      }
      if (loss > 0) port.device->SetAttribute("ReceiveErrorModel", ns3::PointerValue(model));
      // Hosts have one address, and a switch's are never asked for.
      const Ptr<ns3::Ipv4> ipv4 = port.device->GetNode()->GetObject<ns3::Ipv4>();
      const uint32_t interface = ipv4->AddInterface(port.device);
      const bool host = static_cast<size_t>(port.src) < hosts_;
      ipv4->AddAddress(
          interface, host
                         ? ns3::Ipv4InterfaceAddress(AddressOf(ids_[static_cast<size_t>(port.src)]),
                                                     ns3::Ipv4Mask(0xff000000))
                         : ns3::Ipv4InterfaceAddress(ns3::Ipv4Address(0x0a000001u + 4 * one),
                                                     ns3::Ipv4Mask(0xfffffffc)));
      ipv4->SetMetric(interface, 1);
      ipv4->SetUp(interface);
    }
  }
}

void Fork::BuildSwitches(const Site& site) {
  std::map<int64_t, std::vector<double>> ecn;
  for (const auto& row : ReadTable("ecn_map", site.config.options.text("ecn_map", ""), 4)) {
    if (row[1] > row[2] || row[3] < 0 || row[3] > 1)
      Refuse("option 'ecn_map': needs Kmin <= Kmax and Pmax from 0 to 1");
    if (std::fmod(row[1], 1000) != 0 || std::fmod(row[2], 1000) != 0)
      Refuse("option 'ecn_map': the RDMA fork of ns-3 needs whole KB");
    ecn[std::llround(row[0])] = row;
  }
  const int64_t nic_bps = out_[0].empty() ? 1 : ports_[out_[0][0]].nominal_bps;
  for (size_t node = hosts_; node < nodes_.size(); ++node) {
    const Ptr<ns3::SwitchNode> device = ns3::DynamicCast<ns3::SwitchNode>(nodes_[node]);
    ns3::SwitchMmu& mmu = *device->m_mmu;
    if (device->GetNDevices() >= ns3::SwitchMmu::pCnt)
      Refuse("node " + std::to_string(node) + " has " + std::to_string(out_[node].size()) +
             " ports, but a switch of the RDMA fork has at most " +
             std::to_string(ns3::SwitchMmu::pCnt - 1));
    for (const uint32_t link : out_[node]) {
      const Port& port = ports_[link];
      const uint32_t at = port.device->GetIfIndex();
      const auto found = ecn.find(port.nominal_bps);
      // Without an entry, the DCQCN paper's in proportion to the rate.
      const double scale = static_cast<double>(port.nominal_bps) / 25e9;
      const double kmin = found == ecn.end() ? 100 * scale : found->second[1] / 1000;
      const double kmax = found == ecn.end() ? 400 * scale : found->second[2] / 1000;
      mmu.ConfigEcn(at, static_cast<uint32_t>(std::llround(kmin)),
                    static_cast<uint32_t>(std::llround(kmax)),
                    found == ecn.end() ? 0.2 : found->second[3]);
      // What is still on its way after a pause was sent.
      const double wire =
          static_cast<double>(port.nominal_bps) * static_cast<double>(port.delay) * 1e-9 / 8;
      mmu.ConfigHdrm(at,
                     static_cast<uint32_t>(std::floor(wire) * parameters_.headroom_factor +
                                           static_cast<double>(parameters_.headroom_extra_bytes)));
      // A faster port may take a larger share of the buffer (alpha doubles with the rate).
      mmu.pfc_a_shift[at] = 3;
      for (int64_t bps = port.nominal_bps; bps > nic_bps && mmu.pfc_a_shift[at] > 0; bps /= 2)
        --mmu.pfc_a_shift[at];
    }
    mmu.ConfigNPort(device->GetNDevices() - 1);
    mmu.ConfigBufferSize(static_cast<uint32_t>(parameters_.buffer_bytes));
    mmu.node_id = device->GetId();
  }
}

void Fork::BuildNics(const Site&) {
  ns3::RdmaEgressQueue::ack_q_idx = parameters_.ack_high_priority ? 0 : 3;
  const int64_t nic_bps = out_[0].empty() ? 1 : ports_[out_[0][0]].nominal_bps;
  drivers_.resize(hosts_);
  for (const int32_t node : node_of_) {
    const auto host = static_cast<size_t>(node);
    if (host >= hosts_) continue;
    auto nic = ns3::CreateObject<ns3::RdmaHw>();
    const auto set = [&](const char* name, const ns3::AttributeValue& value) {
      if (!nic->SetAttributeFailSafe(name, value))
        Refuse(std::string("RdmaHw of this fork does not take the attribute ") + name);
    };
    for (const auto& [name, value] : settings_) {
      const auto* rate = dynamic_cast<const ns3::DataRateValue*>(ns3::PeekPointer(value));
      // 0 of ours: in proportion to the line rate.
      if (rate != nullptr && rate->Get().GetBitRate() == 0)
        set(name.c_str(), ns3::DataRateValue(ns3::DataRate(
                              static_cast<uint64_t>(nic_bps / (name == "RateHAI" ? 100 : 1000)))));
      else
        set(name.c_str(), *value);
    }
    set("Mtu", ns3::UintegerValue(parameters_.mtu_bytes));
    set("CcMode", ns3::UintegerValue(control_.mode));
    // Where neither says when to acknowledge, it is every packet; the fork divides by the chunk.
    constexpr uint64_t kNoChunk = std::numeric_limits<uint32_t>::max();
    set("L2ChunkSize", ns3::UintegerValue(parameters_.chunk_bytes == 0
                                              ? kNoChunk
                                              : std::min(parameters_.chunk_bytes, kNoChunk)));
    set("L2AckInterval",
        ns3::UintegerValue(std::clamp<uint64_t>(parameters_.ack_interval_bytes, 1, INT32_MAX)));
    set("L2BackToZero", ns3::BooleanValue(parameters_.back_to_zero));
    set("VarWin", ns3::BooleanValue(parameters_.variable_window));
    set("RateBound", ns3::BooleanValue(parameters_.rate_bound));
    const double nack_us = static_cast<double>(parameters_.nack_interval) / 1000;
    if (!nic->SetAttributeFailSafe("NACK_Generation_Interval", ns3::DoubleValue(nack_us)))
      set("NACKGenerationInterval", ns3::DoubleValue(nack_us));
    nic->SetPintSmplThresh(pint_probability_);
    auto driver = ns3::CreateObject<ns3::RdmaDriver>();
    driver->SetNode(nodes_[host]);
    driver->SetRdmaHw(nic);
    nodes_[host]->AggregateObject(driver);
    driver->Init();
    Connect(driver, "QpComplete", ns3::MakeCallback(&Fork::PairEnds, this));
    drivers_[host] = driver;
  }
}

// ---------------------------------------------------------------------------------------------
// Routes

// As our own fabric orders them for the fork: hosts by ascending id, then switches by descending id.
std::vector<uint32_t> Fork::Neighbours(int32_t node) const {
  std::vector<uint32_t> links = out_[static_cast<size_t>(node)];
  std::sort(links.begin(), links.end(), [this](uint32_t a, uint32_t b) {
    const auto x = static_cast<size_t>(ports_[a].dst), y = static_cast<size_t>(ports_[b].dst);
    if ((x < hosts_) != (y < hosts_)) return x < hosts_;
    if (x == y) return a < b;
    return x < hosts_ ? ids_[x] < ids_[y] : ids_[x] > ids_[y];
  });
  return links;
}

// Breadth first from each host; only switches forward.
void Fork::FindRoutes(bool as_built) {
  const size_t count = nodes_.size();
  std::vector<std::vector<uint32_t>> neighbours(count);
  for (size_t node = 0; node < count; ++node)
    neighbours[node] = Neighbours(static_cast<int32_t>(node));
  next_.assign(hosts_, std::vector<std::vector<uint32_t>>(count));
  if (as_built) paths_.assign(hosts_ * hosts_, Path());
  for (size_t root = 0; root < hosts_; ++root) {
    std::vector<Path> paths(count);
    std::vector<int32_t> distance(count, -1), queue = {static_cast<int32_t>(root)};
    distance[root] = 0;
    paths[root] = {0, 0, INT64_MAX, 0};
    for (size_t i = 0; i < queue.size(); ++i) {
      const auto now = static_cast<size_t>(queue[i]);
      for (const uint32_t link : neighbours[now]) {
        const Port& towards = ports_[ports_[link].reverse];
        const auto next = static_cast<size_t>(towards.src);
        if (!towards.up) continue;
        if (distance[next] < 0) {
          distance[next] = distance[now] + 1;
          paths[next] = {paths[now].delay + towards.delay,
                         paths[now].transmit +
                             static_cast<int64_t>(parameters_.mtu_bytes * 8000000000ull /
                                                  static_cast<uint64_t>(towards.nominal_bps)),
                         std::min(paths[now].bps, towards.nominal_bps),
                         static_cast<uint32_t>(distance[now])};
          if (next >= hosts_) queue.push_back(towards.src);
        }
        if (distance[next] == distance[now] + 1) next_[root][next].push_back(towards.link);
      }
    }
    if (!as_built) continue;
    for (size_t host = 0; host < hosts_; ++host) {
      paths_[root * hosts_ + host] = paths[host];
      if (host == root || paths[host].delay < 0) continue;
      const int64_t rtt = 2 * paths[host].delay + paths[host].transmit;
      max_rtt_ = std::max(max_rtt_, rtt);
      max_bdp_ = std::max(max_bdp_, Bdp(rtt, paths[host].bps));
    }
  }
}

void Fork::SetRoutes() {
  for (size_t node = 0; node < nodes_.size(); ++node) {
    const bool is_host = node < hosts_;
    const Ptr<ns3::SwitchNode> device = ns3::DynamicCast<ns3::SwitchNode>(nodes_[node]);
    for (size_t host = 0; host < hosts_; ++host) {
      if (host == node) continue;
      const ns3::Ipv4Address address = AddressOf(ids_[host]);
      // A NIC must have an entry for whom it has a pair with, and that pair's packets may be lost.
      static const std::vector<uint32_t> none;
      const std::vector<uint32_t>& links = next_[host][node];
      for (const uint32_t link : links) {
        const uint32_t interface = ports_[link].device->GetIfIndex();
        if (is_host)
          AddRoute(*drivers_[node]->m_rdma, address, interface);
        else
          AddRoute(*device, address, interface);
      }
      if (is_host && links.empty() && !out_[node].empty())
        AddRoute(*drivers_[node]->m_rdma, address, ports_[out_[node][0]].device->GetIfIndex());
    }
  }
}

// ---------------------------------------------------------------------------------------------
// Running

// Counting up, as the fork's program does; past 65535, those that are free again.
uint16_t Fork::FreePort(int32_t src, int32_t dst, uint16_t priority) {
  const uint32_t from = ids_[static_cast<size_t>(src)], to = ids_[static_cast<size_t>(dst)];
  uint16_t& next = next_port_.emplace(KeyOf(from, to, 0, 0), kFirstSourcePort).first->second;
  for (uint32_t tried = 0; tried < 65536; ++tried) {
    const uint16_t port = next++;
    if (transfers_.count(KeyOf(from, to, port, priority)) == 0) return port;
  }
  throw astra_net::Error(ASTRA_NET_MODEL, "more than 65536 transfers from " + std::to_string(src) +
                                              " to " + std::to_string(dst) +
                                              " at once: the RDMA fork has no more ports");
}

void Fork::Start(const astra_net_transfer& t) {
  const Path& path = PathOf(t.src, t.dst);
  if (control_.header == ns3::IntHeader::NORMAL && path.switches > ns3::IntHeader::maxHop &&
      blind_transfers_++ == 0)
    log_(30, "HPCC: a path has " + std::to_string(path.switches) +
                 " switches; a packet of this fork has room for the telemetry of " +
                 std::to_string(ns3::IntHeader::maxHop) + ": such transfers stay at line rate");
  OpenPair({t.id, t.bytes, t.start_ps, t.src, t.dst, static_cast<uint64_t>(t.bytes),
            static_cast<uint16_t>(kFirstPriority + t.traffic_class)});
  if (!watching_) WatchOn();
  watching_ = true;
  SampleFromNowOn();
}

// Of what is left of a transfer, as much as sequence numbers can count: a pair after another.
void Fork::OpenPair(Transfer transfer) {
  const auto src = static_cast<size_t>(transfer.src), dst = static_cast<size_t>(transfer.dst);
  const uint64_t most = (kMostBytes / parameters_.mtu_bytes - 1) * parameters_.mtu_bytes;
  const uint64_t bytes = std::min(transfer.left, most);
  const Path& path = PathOf(transfer.src, transfer.dst);
  const int64_t rtt = path.delay < 0 ? 0 : 2 * path.delay + path.transmit;
  const uint64_t bdp = path.delay < 0 ? 0 : std::max<uint64_t>(1, Bdp(rtt, path.bps));
  const uint64_t window = parameters_.window == "none"     ? 0
                          : parameters_.window == "global" ? max_bdp_
                                                           : bdp;
  const uint16_t port = FreePort(transfer.src, transfer.dst, transfer.priority);
  const PairOrder order{ids_[src],
                        ids_[dst],
                        0,
                        bytes,
                        transfer.priority,
                        AddressOf(ids_[src]),
                        AddressOf(ids_[dst]),
                        port,
                        kDestinationPort,
                        static_cast<uint32_t>(std::min<uint64_t>(window, UINT32_MAX)),
                        static_cast<uint64_t>(global_rtt_ ? max_rtt_ : rtt)};
  transfer.left -= bytes;
  transfer.sent = 0;
  transfers_[KeyOf(ids_[src], ids_[dst], port, transfer.priority)] = transfer;
  if (out_[src].empty()) return;  // stuck
  const Quiet quiet;
  AddPair(*drivers_[src], order);
}

void Fork::PairEnds(Ptr<ns3::RdmaQueuePair> pair) {
  const auto found = transfers_.find(KeyOf(*pair));
  if (found == transfers_.end()) return;
  const Transfer transfer = found->second;
  transfers_.erase(found);
  drivers_[static_cast<size_t>(transfer.dst)]->m_rdma->DeleteRxQp(pair->sip.Get(), pair->m_pg,
                                                                  pair->sport);
  if (transfer.left > 0) {
    OpenPair(transfer);
    return;
  }
  // As the fork has it: two delays, a packet's transmissions, and everything at the bottleneck.
  const Path& path = PathOf(transfer.src, transfer.dst);
  const auto bytes = static_cast<uint64_t>(transfer.bytes);
  const uint64_t headers =
      (bytes + parameters_.mtu_bytes - 1) / parameters_.mtu_bytes *
      (ns3::CustomHeader::GetStaticWholeHeaderSize() - ns3::IntHeader::GetStaticSize());
  const auto wire = static_cast<int64_t>(static_cast<unsigned __int128>(bytes + headers) *
                                         8000000000u / static_cast<uint64_t>(path.bps));
  Complete({transfer.id, transfer.src, transfer.dst, transfer.bytes, transfer.start_ps,
            NowPs() - transfer.start_ps, (2 * path.delay + path.transmit + wire) * tick_ps_,
            static_cast<int64_t>(transfer.retransmitted)});
}

// The fork has no timeouts: what waits for a packet that was lost waits for ever, while the timers of
// congestion control go on.  It is stuck once nothing has moved for longer than anything takes.
Tick Fork::Patience() const {
  ns3::DataRateValue slowest;
  drivers_[0]->m_rdma->GetAttribute("MinRate", slowest);
  const double bits = 8e9 * (parameters_.mtu_bytes + 128);
  double longest = bits / static_cast<double>(std::max<uint64_t>(1, slowest.Get().GetBitRate()));
  for (const Port& port : ports_)
    longest =
        std::max(longest, static_cast<double>(port.delay) +
                              bits / static_cast<double>(port.device->GetDataRate().GetBitRate()));
  return static_cast<Tick>(std::min(2 * longest, 1e17)) + 1000000;
}

void Fork::WatchOn() {
  moves_seen_ = moves_;
  simulator_->After(Patience(), &watchdog_, 0);
}

void Fork::Watch() {
  if (transfers_.empty()) {
    watching_ = false;
  } else if (moves_ == moves_seen_) {
    Fail("nothing moves any more, and the RDMA fork of ns-3 repeats nothing by itself" +
         WhereStuck());
  } else {
    WatchOn();
  }
}

std::string Fork::WhereStuck() const {
  // In the order of their numbers, whatever the map's.
  std::map<int64_t, std::pair<uint64_t, const Transfer*>> waiting;
  for (const auto& [key, transfer] : transfers_) waiting[transfer.id] = {key, &transfer};
  std::string text;
  int named = 0;
  for (const auto& [id, entry] : waiting) {
    if (++named > 3) {
      text += ", of " + std::to_string(waiting.size());
      break;
    }
    const auto& [key, transfer] = entry;
    const auto src = static_cast<size_t>(transfer->src), dst = static_cast<size_t>(transfer->dst);
    const Ptr<ns3::RdmaQueuePair> pair = drivers_[src]->m_rdma->GetQp(
        AddressOf(ids_[dst]).Get(), static_cast<uint16_t>(key >> 16), static_cast<uint16_t>(key));
    text.append(named == 1 ? "; waiting: transfer " : ", transfer ").append(std::to_string(id));
    text.append(" (").append(std::to_string(src)).append(" -> ").append(std::to_string(dst));
    // What the pairs before this one have carried, and its own.
    const uint64_t open = pair ? pair->m_size : 0, known = pair ? pair->snd_una : 0;
    const uint64_t before = static_cast<uint64_t>(transfer->bytes) - transfer->left - open;
    text.append(", ").append(std::to_string(pair ? before + known : 0)).append(" of ");
    text.append(std::to_string(transfer->bytes)).append(" bytes");
    text.append(next_[dst][src].empty() ? ", no route)" : ")");
  }
  return text;
}

// A cable fails as a whole, and is whole again once both of its directions are.
void Fork::SetLink(uint32_t link, double scale) {
  Port& port = ports_[link];
  Port& back = ports_[port.reverse];
  port.scale = scale;
  if (scale > 0)
    port.device->SetDataRate(ns3::DataRate(
        static_cast<uint64_t>(std::max(1.0, static_cast<double>(port.nominal_bps) * scale))));
  const bool up = port.scale > 0 && back.scale > 0;
  if (up == port.up) return;
  using Up = LinkUp<ns3::QbbNetDevice>;
  if (up && !Up::kPossible)
    throw astra_net::Error(ASTRA_NET_MODEL, "link " + std::to_string(link) +
                                                ": this RDMA fork of ns-3 cannot bring a link that "
                                                "has failed up again");
  // In the fork's order.
  port.up = back.up = up;
  FindRoutes(false);
  for (size_t node = 0; node < nodes_.size(); ++node) {
    if (node < hosts_)
      drivers_[node]->m_rdma->ClearTable();
    else
      ns3::DynamicCast<ns3::SwitchNode>(nodes_[node])->ClearTable();
  }
  for (Port* end : {&port, &back}) {
    if (up) {
      Up::Do(*end->device);
      continue;
    }
    discarding_ = true;
    end->device->TakeDown();
    discarding_ = false;
  }
  SetRoutes();
  for (const int32_t node : node_of_)
    if (static_cast<size_t>(node) < hosts_)
      drivers_[static_cast<size_t>(node)]->m_rdma->RedistributeQp();
  for (const Port* end : {&port, &back})
    if (up) end->device->TriggerTransmit();
}

// ---------------------------------------------------------------------------------------------
// What trace sources tell

void Fork::Connect(const Ptr<ns3::Object>& object, const char* source,
                   const ns3::CallbackBase& sink) {
  if (!object->TraceConnectWithoutContext(source, sink))
    throw astra_net::Error(ASTRA_NET_INTERNAL,
                           object->GetInstanceTypeId().GetName() +
                               " of this RDMA fork of ns-3 has no trace source " + source);
}

void Fork::Listen() {
  for (Port& port : ports_) {
    Connect(port.device, "PhyTxBegin", ns3::MakeBoundCallback(&Fork::TxBegins, &port));
    Connect(port.device, "PhyRxDrop", ns3::MakeBoundCallback(&Fork::Corrupt, &port));
    Connect(port.device, "QbbDrop", ns3::MakeBoundCallback(&Fork::Discarded, &port));
    if (static_cast<size_t>(port.src) < hosts_) {
      Connect(port.device, "RdmaQpDequeue", ns3::MakeBoundCallback(&Fork::DataSent, this));
      continue;
    }
    Connect(port.device, "MacRx", ns3::MakeBoundCallback(&Fork::Received, &port));
    Connect(port.device, "QbbPfc", ns3::MakeBoundCallback(&Fork::PauseReceived, &port));
    Connect(port.device, "QbbEnqueue", ns3::MakeBoundCallback(&Fork::Enqueued, &port));
    Connect(port.device, "Sniffer", ns3::MakeBoundCallback(&Fork::Leaves, &port));
    Connect(port.device, "QbbDequeue", ns3::MakeBoundCallback(&Fork::Dequeued, &port));
  }
}

void Fork::TxBegins(Port* port, Ptr<const ns3::Packet> packet) {
  Fork& fork = *port->fork;
  const uint32_t size = packet->GetSize();
  if (size != port->tx_size) {
    port->tx_size = size;
    port->tx_time = port->device->GetDataRate().CalculateBytesTxTime(size).GetTimeStep();
  }
  port->bytes += size;
  ++port->packets;
  port->busy += port->tx_time;
  ++fork.moves_;
  if (fork.LoadIsWanted()) fork.Load(port->link, fork.simulator_->NowTick() + port->tx_time, size);
}

// ECN's "congestion experienced", in the second byte of the IP header.
bool Fork::Marked(const ns3::Packet& packet) {
  static const uint32_t at = ns3::PppHeader().GetSerializedSize() + 1;
  uint8_t head[64];
  return packet.CopyData(head, at + 1) == at + 1 && (head[at] & 3) == 3;
}

// The queue holds so many more bytes.  Its length is looked at before it changes, but for a packet
// that leaves as soon as it has come: that one has not waited.
void Fork::QueueChanges(Port* port, int64_t bytes) {
  const Tick now = simulator_->NowTick();
  port->queue_byte_ticks +=
      static_cast<double>(port->waiting_bytes) * static_cast<double>(now - port->last_change);
  port->last_change = now;
  port->waiting_bytes += bytes;
}

void Fork::Enqueued(Port* port, Ptr<const ns3::Packet> packet, uint32_t queue) {
  Fork& fork = *port->fork;
  fork.undecided_ = queue == 0 ? fork.undecided_ : nullptr;
  port->max_queue_bytes = std::max(port->max_queue_bytes, port->waiting_bytes);
  fork.QueueChanges(port, packet->GetSize());
  port->newest = ns3::PeekPointer(packet);
  port->newest_at = fork.simulator_->NowTick();
  if (queue != 0) return;
  ns3::CustomHeader header(ns3::CustomHeader::L2_Header | ns3::CustomHeader::L3_Header |
                           ns3::CustomHeader::L4_Header);
  packet->PeekHeader(header);
  if (header.l3Prot != 0xFE) return;
  const bool pause = header.pfc.time > 0;
  ++(pause ? port->pauses : port->resumes);
  if (fork.pauses_.size() < fork.parameters_.pfc_rows)
    fork.pauses_.push_back({port->newest_at, port->link, header.pfc.qIndex, pause});
}

void Fork::Leaves(Port* port, Ptr<const ns3::Packet> packet) { port->was_marked = Marked(*packet); }

void Fork::Dequeued(Port* port, Ptr<const ns3::Packet> packet, uint32_t) {
  Fork& fork = *port->fork;
  if (port->newest != ns3::PeekPointer(packet) || port->newest_at != fork.simulator_->NowTick())
    port->max_queue_bytes = std::max(port->max_queue_bytes, port->waiting_bytes);
  fork.QueueChanges(port, -static_cast<int64_t>(packet->GetSize()));
  if (!port->was_marked && Marked(*packet)) ++port->marks;
}

// A switch queues what it has received at once, or drops it without a word.
void Fork::Received(Port* port, Ptr<const ns3::Packet>) {
  Fork& fork = *port->fork;
  if (fork.undecided_ != nullptr) ++fork.ports_[fork.undecided_->reverse].drops;
  fork.undecided_ = port;
}

void Fork::PauseReceived(Port* port, uint32_t) {
  if (port->fork->undecided_ == port) port->fork->undecided_ = nullptr;
}

void Fork::Corrupt(Port* port, Ptr<const ns3::Packet>) { ++port->fork->ports_[port->reverse].lost; }

// By a device that is down: of its queue, or of what arrives.
void Fork::Discarded(Port* port, Ptr<const ns3::Packet> packet, uint32_t) {
  Fork& fork = *port->fork;
  if (!fork.discarding_) {
    ++fork.ports_[port->reverse].lost;
    return;
  }
  ++port->lost;
  if (static_cast<size_t>(port->src) >= fork.hosts_)
    fork.QueueChanges(port, -static_cast<int64_t>(packet->GetSize()));
}

void Fork::DataSent(Fork* fork, Ptr<const ns3::Packet>, Ptr<ns3::RdmaQueuePair> pair) {
  ++fork->data_packets_;
  const auto found = fork->transfers_.find(KeyOf(*pair));
  if (found == fork->transfers_.end()) return;
  Transfer& transfer = found->second;
  const uint64_t end = pair->snd_nxt;  // of this packet
  if (end <= transfer.sent) {
    const uint64_t mtu = fork->parameters_.mtu_bytes;
    ++fork->retransmissions_;
    transfer.retransmitted += transfer.sent - (end - 1) / mtu * mtu;
  }
  transfer.sent = end;
}

LinkState Fork::Link(size_t link) const {
  const Port& port = ports_[link];
  const Tick now = simulator_->NowTick();
  const double byte_ticks = port.queue_byte_ticks + static_cast<double>(port.waiting_bytes) *
                                                        static_cast<double>(now - port.last_change);
  const bool undecided = undecided_ != nullptr && undecided_->reverse == link;
  return {port.bytes,
          port.packets,
          port.drops + (undecided ? 1 : 0),
          port.lost,
          port.marks,
          port.pauses,
          port.busy * tick_ps_,
          port.waiting_bytes,
          std::max(port.max_queue_bytes, port.waiting_bytes),
          std::llround(byte_ticks / static_cast<double>(std::max<Tick>(1, now)))};
}

Rdma::Counts Fork::Count() const {
  Counts counts{0, data_packets_, 0, retransmissions_, 0, {}};
  for (const Port& port : ports_) {
    counts.packet_hops += port.packets;
    counts.resumes += port.resumes;
  }
  if (control_.header == ns3::IntHeader::NORMAL)
    counts.more.emplace_back("hpcc_blind_transfers", blind_transfers_);
  return counts;
}

}  // namespace

const bool kNanosecondClock = true;

std::unique_ptr<Transport> MakeRdma(Site* site) {
  astra_net::Options& options = site->config.options;
  const Parameters parameters = ReadParameters(options, Parameters());
  options.choice("routing", "ecmp", {"ecmp"});
  site->SetTick(1000);
  return std::make_unique<Fork>(*site, parameters);
}

}  // namespace astra_ns3
