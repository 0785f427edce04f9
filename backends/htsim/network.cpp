// SPDX-License-Identifier: MIT
#define ASTRA_HTSIM_RANDOM  // seeds its random numbers
#include "network.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <ostream>
#include <set>

#include "compositequeue.h"
#include "ecnqueue.h"
#include "queue_lossless_input.h"
#include "queue_lossless_output.h"
#include "randomqueue.h"
#include "swift_scheduler.h"
#include "switch.h"

namespace astra_htsim {

std::ostream nowhere(nullptr);
MakeFatTree fat_tree_part = nullptr;

void failed(const char* condition, const char* file, int line) {
  const std::string path = file;
  throw Error(ASTRA_NET_MODEL, "htsim gave up at " + path.substr(path.find_last_of('/') + 1) + ":" +
                                   std::to_string(line) + ": " + condition);
}

// -- the state that htsim keeps in static members ------------------------------------------------

namespace {

// Members that are private, by the one door that the language leaves: the arguments of an explicit
// instantiation are not checked for access.
template <class Tag, typename Tag::Type kMember>
struct Opened {
  friend typename Tag::Type open(Tag) { return kMember; }
};
struct EventTime {
  using Type = simtime_picosec*;
  friend Type open(EventTime);
};
struct EndTime {
  using Type = simtime_picosec*;
  friend Type open(EndTime);
};
struct PendingEvents {
  using Type = std::multimap<simtime_picosec, EventSource*>*;
  friend Type open(PendingEvents);
};
struct PendingTriggers {
  using Type = std::vector<TriggerTarget*>*;
  friend Type open(PendingTriggers);
};
template struct Opened<EventTime, &EventList::_lasteventtime>;
template struct Opened<EndTime, &EventList::_endtime>;
template struct Opened<PendingEvents, &EventList::_pendingsources>;
template struct Opened<PendingTriggers, &EventList::_pending_triggers>;

struct PacketStatics : Packet {
  static void set_size(int bytes) {
    _packet_size_fixed = false;
    set_packet_size(bytes);
  }
};
struct FlowStatics : PacketFlow {
  static flowid_t next() { return _max_flow_id; }
  static void set_next(flowid_t id) { _max_flow_id = id; }
};

}  // namespace

simtime_picosec Clock::now() { return *open(EventTime{}); }
void Clock::set(simtime_picosec now) { *open(EventTime{}) = now; }
bool Clock::idle() { return open(PendingEvents{})->empty() && open(PendingTriggers{})->empty(); }
simtime_picosec Clock::next() {
  return open(PendingTriggers{})->empty() ? open(PendingEvents{})->begin()->first : now();
}

flowid_t next_flow_id() { return FlowStatics::next(); }

void forget_events() {
  static const flowid_t first = FlowStatics::next();
  open(PendingEvents{})->clear();
  open(PendingTriggers{})->clear();
  *open(EndTime{}) = 0;
  FlowStatics::set_next(first);
  Clock::set(0);
}

void reset_statics(int packet_bytes, uint32_t seed) {
  EventList::getTheEventList();
  forget_events();
  PacketStatics::set_size(packet_bytes);
  srand(seed);
  srandom(seed);
}

// -- flows, ports and counters -------------------------------------------------------------------

Finished::Finished(Network& network, Flow& flow)
    : Trigger(network.events(), 0), network_(network), flow_(flow) {}
void Finished::activate() { network_.finished(flow_); }

void Port::receivePacket(Packet& packet) {
  Flow* flow = network_.find(packet.flow_id());
  if (flow == nullptr) {
    packet.free();
    return;
  }
  const bool at_receiver = flow->transfer.dst == endpoint_;
  // Sources that copy their route have put their own end behind this one.
  if (packet.route() != nullptr && packet.nexthop() < packet.route()->size()) {
    flow->see(packet, at_receiver);
    packet.sendOn();
  } else {
    flow->take(packet, at_receiver);
  }
  network_.look_at(*flow, at_receiver);
}

void LinkCounter::logQueue(BaseQueue& queue, QueueEvent event, Packet& packet) {
  if (event == PKT_SERVICE) {
    const auto took = static_cast<int64_t>(queue.drainTime(&packet));
    bytes += packet.size();
    busy_ps += took;
    ++packets;
    ++network_.served;
    if (load_.on()) {
      const int64_t now = network_.now_ps();
      load_.add(link_, now - took, now, packet.size(), static_cast<double>(took));
    }
  } else if (event == PKT_DROP) {
    ++drops;
  } else if (event == PKT_TRIM) {
    ++trims;
  } else if (event == PKT_ENQUEUE) {
    most_queue_bytes = std::max<int64_t>(most_queue_bytes, queue.queuesize());
  }
}

// -- a fabric of links ---------------------------------------------------------------------------

namespace {

// Spreads packets over all ways of a pair by their path id.  NDP wants its first hop to be a
// HostQueue, which it asks how long a packet waits there.
class Chooser final : public HostQueue {
 public:
  Chooser(linkspeed_bps bps, EventList& events) : HostQueue(bps, 0, events, nullptr) {}
  void receivePacket(Packet& packet) override {
    const Route* way = ways_[packet.pathid() % ways_.size()];
    first_ = dynamic_cast<HostQueue*>(way->at(0));
    packet.set_route(*way);
    packet.sendOn();
  }
  simtime_picosec serviceTime(Packet& packet) override {
    return first_ == nullptr ? 0 : first_->serviceTime(packet);
  }
  void set_ways(std::vector<const Route*> ways) { ways_ = std::move(ways); }

 private:
  std::vector<const Route*> ways_;
  HostQueue* first_ = nullptr;
};

// htsim's queue of a host goes round all flows that it has ever had, so those that are over are taken
// out; which changes no result.
class NicQueue final : public FairPriorityQueue {
 public:
  using FairPriorityQueue::FairPriorityQueue;
  void receivePacket(Packet& packet) override {
    if (fresh_ >= kMany && queuesize() == 0) forget();
    FairPriorityQueue::receivePacket(packet);
  }
  void add_finished(flowid_t flow) {
    over_.push_back(flow);
    ++fresh_;
  }

 private:
  static constexpr size_t kMany = 64, kKept = 1024;

  // Packets of a flow may come after its end: the latest are taken out again the next time.
  void forget() {
    for (const flowid_t flow : over_)
      for (auto& queue : _queue) queue.flush_flow(flow);
    if (over_.size() > kKept)
      over_.erase(over_.begin(), over_.end() - static_cast<std::ptrdiff_t>(kKept));
    fresh_ = 0;
  }

  std::vector<flowid_t> over_;
  size_t fresh_ = 0;  // since they were taken out
};

class LinkFabric final : public Fabric {
 public:
  LinkFabric(Network& network, astra_net::Config& config, const astra_net::Log& log)
      : network_(network), links_(config.links), routes_(config) {
    const Settings& settings = network.settings();
    const bool sprays = settings.sprays;
    if (routes_.routing() == astra_net::Routing::kAdaptive ||
        (routes_.routing() == astra_net::Routing::kSpray && !sprays))
      refuse("option 'routing' must be ecmp or static with transport=" + settings.transport +
             (sprays ? ", or spray" : ", which takes packets out of order for lost ones"));
    one_way_ = routes_.routing() == astra_net::Routing::kStatic;
    for (size_t i = 0; i < links_.size(); ++i) {
      const astra_net_link& link = links_[i];
      if (link.loss > 0)
        refuse("link " + std::to_string(i) + ": loss=" + std::to_string(link.loss) +
               ", but htsim's links lose nothing");
    }
    for (size_t i = 0; i < links_.size(); ++i) {
      const astra_net_link& link = links_[i];
      const bool host = link.src < config.endpoints;
      Made made;
      made.bps = whole_rate(i, link.bytes_per_second);
      made.queue = host ? host_queue(i, made.bps) : switch_queue(i, made.bps);
      made.queue->setName("link " + std::to_string(i));
      made.pipe = own<Pipe>(static_cast<simtime_picosec>(link.latency_ps), network.events());
      made_.push_back(made);
    }
    say_slower(log);
    if (settings.queue != "lossless") return;
    for (size_t i = 0; i < links_.size(); ++i) {
      const auto from = static_cast<size_t>(links_[i].src), to = static_cast<size_t>(links_[i].dst);
      if (links_[i].src >= config.endpoints) switch_at(from)->addPort(made_[i].queue);
      if (links_[i].dst >= config.endpoints)
        made_[i].input =
            own<LosslessInputQueue>(network.events(), made_[i].queue, switch_at(to),
                                    static_cast<simtime_picosec>(links_[i].latency_ps));
    }
  }

  const Ways& ways(int32_t src, int32_t dst) override {
    const auto key =
        (static_cast<uint64_t>(static_cast<uint32_t>(src)) << 32) | static_cast<uint32_t>(dst);
    const auto found = pairs_.find(key);
    if (found != pairs_.end()) return found->second;
    Ways& made = pairs_[key];
    make(src, dst, &made);
    return made;
  }

  void forget(flowid_t flow, int32_t src, int32_t dst) override {
    for (const Ways* ways : {&this->ways(src, dst), &this->ways(dst, src)})
      for (NicQueue* queue : nics_.at(ways)) queue->add_finished(flow);
  }

 private:
  struct Made {
    linkspeed_bps bps = 0;
    BaseQueue* queue = nullptr;
    Pipe* pipe = nullptr;
    LosslessInputQueue* input = nullptr;  // where it ends, if packets may be held back there
  };

  // htsim counts whole picoseconds per byte: the next slower rate that it has.
  linkspeed_bps whole_rate(size_t i, double bytes_per_second) {
    const double ps = std::max(1.0, std::ceil(1e12 / bytes_per_second - 1e-9));
    if (ps > 1e6)
      refuse("link " + std::to_string(i) + " is slower than 8 Mbps, which htsim does not resolve");
    const auto bps = static_cast<linkspeed_bps>(8e12 / ps);
    const double wanted_bps = bytes_per_second * 8;
    if (static_cast<double>(bps) < wanted_bps * 0.999) ++slower_[{wanted_bps, bps}];
    return bps;
  }
  void say_slower(const astra_net::Log& log) const {
    for (const auto& [rates, count] : slower_) {
      char text[160];
      std::snprintf(
          text, sizeof text,
          "%lld links of %.6g Gbps have %.6g Gbps in htsim, which counts whole picoseconds "
          "per byte",
          static_cast<long long>(count), rates.first * 1e-9,
          static_cast<double>(rates.second) * 1e-9);
      log(30, text);
    }
  }

  BaseQueue* host_queue(size_t i, linkspeed_bps bps) {
    const std::string& kind = network_.settings().host_queue;
    EventList& events = network_.events();
    LinkCounter* counter = network_.counter(i);
    const mem_b room = memFromPkt(1000);  // nothing is dropped beyond
    if (kind == "swift") return own<FairScheduler>(bps, events, counter);
    if (kind == "prio") return own<PriorityQueue>(bps, room, events, counter);
    return own<NicQueue>(bps, room, events, counter);
  }

  BaseQueue* switch_queue(size_t i, linkspeed_bps bps) {
    const Settings& settings = network_.settings();
    EventList& events = network_.events();
    LinkCounter* counter = network_.counter(i);
    const auto room = static_cast<mem_b>(settings.queue_bytes);
    if (settings.queue == "lossless") return own<LosslessOutputQueue>(bps, room, events, counter);
    if (settings.queue == "ecn")
      return own<ECNQueue>(bps, room, events, counter, static_cast<mem_b>(settings.mark_bytes));
    if (settings.queue == "random")
      return own<RandomQueue>(bps, room, events, counter, memFromPkt(3));
    if (settings.queue == "fifo") return own<Queue>(bps, room, events, counter);
    auto* queue = own<CompositeQueue>(bps, room, events, counter);
    if (settings.mark_bytes > 0) queue->set_ecn_threshold(static_cast<mem_b>(settings.mark_bytes));
    return queue;
  }

  Switch* switch_at(size_t node) {
    Switch*& one = switches_[node];
    if (one == nullptr) one = own<Switch>(network_.events(), "switch " + std::to_string(node));
    return one;
  }

  void make(int32_t src, int32_t dst, Ways* into) {
    std::vector<size_t> one;
    for (int32_t node = src; node != dst;) {
      const int32_t link = routes_.next(src, dst, node);
      if (link < 0) throw Error(ASTRA_NET_MODEL, routes_.no_way(src, dst));
      one.push_back(static_cast<size_t>(link));
      node = links_[static_cast<size_t>(link)].dst;
    }
    std::vector<std::vector<size_t>> ways = {one};
    if (network_.settings().all_ways && !one_way_) ways = find(src, dst);
    Ways& made = *into;
    std::set<size_t> out, in;
    for (const std::vector<size_t>& way : ways) {
      out.insert(way.front());
      in.insert(way.back());
      if (way.size() > size_t{1} + network_.settings().most_switches)
        refuse("from " + std::to_string(src) + " to " + std::to_string(dst) + " there are " +
               std::to_string(way.size() - 1) +
               " switches, but transport=" + network_.settings().transport + " has room for " +
               std::to_string(network_.settings().most_switches));
      made.all.push_back(route(way, dst));
    }
    std::vector<NicQueue*>& nics = nics_[into];
    for (const size_t link : out) {
      made.send_bps += made_[link].bps;
      if (auto* nic = dynamic_cast<NicQueue*>(made_[link].queue)) nics.push_back(nic);
    }
    for (const size_t link : in) made.receive_bps += made_[link].bps;
    made.send_port = static_cast<int64_t>(*out.begin());
    made.receive_port = static_cast<int64_t>(*in.begin());
    made.count = static_cast<uint32_t>(made.all.size());
    made.one = route(one, dst);
    made.host_queue = dynamic_cast<HostQueue*>(made_[one.front()].queue);
    if (!network_.settings().sprays) return;
    auto* chooser = own<Chooser>(made.send_bps, network_.events());
    chooser->set_ways(made.all);
    owned_routes_.push_back(std::make_unique<Route>());
    made.entry = owned_routes_.back().get();
    made.entry->push_back(chooser);
  }

  Route* route(const std::vector<size_t>& way, int32_t dst) {
    owned_routes_.push_back(std::make_unique<Route>());
    Route* made = owned_routes_.back().get();
    for (const size_t link : way) {
      made->push_back(made_[link].queue);
      made->push_back(made_[link].pipe);
      if (made_[link].input != nullptr) made->push_back(made_[link].input);
    }
    made->push_back(&network_.port(dst));
    made->set_path_id(0, 1);
    return made;
  }

  // All ways, or as many of them as the user allows: then by hashes.
  std::vector<std::vector<size_t>> find(int32_t src, int32_t dst) {
    const size_t most = network_.settings().most_paths;
    std::vector<std::vector<size_t>> found;
    std::vector<size_t> way;
    enumerate(src, dst, src, most + 1, &way, &found);
    if (found.size() <= most) return found;
    std::set<std::vector<size_t>> known;
    found.clear();
    for (uint64_t label = 0; label < 4 * most && found.size() < most; ++label) {
      way.clear();
      for (int32_t node = src; node != dst;) {
        const int32_t link = routes_.next(src, dst, node, label);
        way.push_back(static_cast<size_t>(link));
        node = links_[static_cast<size_t>(link)].dst;
      }
      if (known.insert(way).second) found.push_back(way);
    }
    return found;
  }

  void enumerate(int32_t src, int32_t dst, int32_t node, size_t most, std::vector<size_t>* way,
                 std::vector<std::vector<size_t>>* found) {
    if (node == dst) {
      found->push_back(*way);
      return;
    }
    const astra_net::Routes::Choice choice = routes_.choices(dst, node);
    std::vector<size_t> links;  // a choice lasts until the next one
    for (int32_t i = 0; i < choice.count(); ++i)
      links.push_back(static_cast<size_t>(choice.link(static_cast<size_t>(i))));
    for (const size_t link : links) {
      if (found->size() >= most) return;
      way->push_back(link);
      enumerate(src, dst, links_[link].dst, most, way, found);
      way->pop_back();
    }
  }

  template <class T, class... Arguments>
  T* own(Arguments&&... arguments) {
    auto made = std::make_unique<T>(std::forward<Arguments>(arguments)...);
    T* pointer = made.get();
    owned_.push_back(std::move(made));
    return pointer;
  }

  Network& network_;
  std::vector<astra_net_link> links_;
  astra_net::Routes routes_;
  bool one_way_ = false;
  std::map<std::pair<double, linkspeed_bps>, int64_t> slower_;  // what links are to have, and have
  std::vector<std::unique_ptr<EventSource>> owned_;
  std::vector<std::unique_ptr<Route>> owned_routes_;
  std::vector<Made> made_;
  std::unordered_map<size_t, Switch*> switches_;
  std::unordered_map<uint64_t, Ways> pairs_;  // whose values stay where they are
  std::unordered_map<const Ways*, std::vector<NicQueue*>> nics_;
};

}  // namespace

std::unique_ptr<Fabric> make_links(Network& network, astra_net::Config& config,
                                   const astra_net::Log& log) {
  return std::make_unique<LinkFabric>(network, config, log);
}

// -- the network ---------------------------------------------------------------------------------

Network::Network(astra_net::Config& config, Settings settings, const astra_net::Log& log)
    : settings_(std::move(settings)), links_(config.links) {
  Options& options = config.options;
  load_ = astra_net::LinkLoad(astra_net::sample_interval_ps(options));
  record_flows_ = options.flag("flow_table", true);
  const auto seed = static_cast<uint32_t>(options.integer("seed", 13, 0, INT32_MAX));
  reset_statics(settings_.packet_bytes, seed);
  LosslessInputQueue::_high_threshold =
      settings_.pfc_high * static_cast<uint64_t>(settings_.packet_bytes);
  LosslessInputQueue::_low_threshold =
      settings_.pfc_low * static_cast<uint64_t>(settings_.packet_bytes);
  for (size_t i = 0; i < links_.size(); ++i)
    counters_.push_back(std::make_unique<LinkCounter>(i, *this, load_));
  for (int32_t i = 0; i < config.endpoints; ++i) ports_.push_back(std::make_unique<Port>(*this, i));
  const std::string file = options.text("fat_tree", "");
  if (file.empty()) {
    fabric_ = make_links(*this, config, log);
  } else {
    if (fat_tree_part == nullptr)
      refuse("option 'fat_tree': this version of htsim has no fat-tree that the adapter knows");
    fabric_ = fat_tree_part(*this, file, links_, config.endpoints, options);
  }
}

Network::~Network() { forget_events(); }

void Network::start(const astra_net_transfer& transfer) {
  if (Clock::idle() && open_ == 0)
    renew(transfer.start_ps);
  else
    Clock::set(static_cast<simtime_picosec>(transfer.start_ps - epoch_ps_));
  Transfer given;
  given.id = transfer.id;
  given.bytes = transfer.bytes;
  given.start_ps = transfer.start_ps;
  given.src = transfer.src;
  given.dst = transfer.dst;
  flowid_t id = next_id_++;
  fabric_->attach(id, given.src, given.dst);
  std::unique_ptr<Flow> flow = transport->start(given, &id);
  flow->identity = id;
  flows_[id] = std::move(flow);
  ++open_;
}

// Nothing is under way and no event is left: nothing refers to the flows that have been.  htsim
// keeps times and round-trip times in places that do not hold late ones.
void Network::renew(int64_t start_ps) {
  flows_.clear();
  forget_events();
  transport->renew();
  epoch_ps_ = start_ps;
  next_id_ = 1;
}

int64_t Network::next_ps() const {
  if (Clock::idle()) return astra_net::kNever;
  const simtime_picosec next = Clock::next();
  return next >= static_cast<simtime_picosec>(astra_net::kNever - epoch_ps_)
             ? astra_net::kNever
             : epoch_ps_ + static_cast<int64_t>(next);
}

Flow* Network::find(flowid_t id) {
  const auto found = flows_.find(id);
  return found == flows_.end() ? nullptr : found->second.get();
}

void Network::look_at(Flow& flow, bool at_receiver) {
  if (flow.delivered) return;
  if (settings_.completes_with_data ? at_receiver && flow.received()
                                    : !at_receiver && flow.acknowledged())
    deliver(flow);
}

void Network::finished(Flow& flow) {
  flow.finished = true;
  flow.end();
  if (!flow.delivered) deliver(flow);
}

void Network::deliver(Flow& flow) {
  flow.delivered = true;
  --open_;
  fabric_->forget(flow.identity, flow.transfer.src, flow.transfer.dst);
  const Transfer& transfer = flow.transfer;
  const auto retransmitted = static_cast<int64_t>(flow.retransmitted());
  retransmitted_ += static_cast<uint64_t>(retransmitted);
  ++gone_;
  if (record_flows_)
    rows_.push_back({transfer.id, transfer.src, transfer.dst, transfer.bytes, transfer.start_ps,
                     now_ps() - transfer.start_ps, retransmitted});
  on_delivery(transfer.id);
}

std::string Network::where_stuck() const {
  return "(nothing moves in htsim: what was lost is not sent again)";
}

namespace {

class Column {
 public:
  explicit Column(const char* name) : text_(std::string("\"") + name + "\": [") {}
  void add(int64_t value) {
    if (count_++ > 0) text_ += ", ";
    text_ += std::to_string(value);
  }
  std::string text() const { return text_ + "]"; }

 private:
  std::string text_;
  size_t count_ = 0;
};

std::string table(const char* name, const std::vector<Column>& columns) {
  std::string text = std::string("\"") + name + "\": {";
  for (size_t i = 0; i < columns.size(); ++i) text += (i > 0 ? ", " : "") + columns[i].text();
  return text + "}";
}

}  // namespace

std::string Network::stats() const {
  std::vector<Column> links, flows;
  for (const char* name :
       {"link", "src", "dst", "bytes", "busy_ps", "packets", "drops", "trims", "max_queue_bytes"})
    links.emplace_back(name);
  int64_t packets = 0, drops = 0, trims = 0;
  for (size_t i = 0; i < links_.size(); ++i) {
    const LinkCounter& counter = *counters_[i];
    packets += counter.packets;
    drops += counter.drops;
    trims += counter.trims;
    const int64_t row[] = {static_cast<int64_t>(i), links_[i].src,   links_[i].dst,
                           counter.bytes,           counter.busy_ps, counter.packets,
                           counter.drops,           counter.trims,   counter.most_queue_bytes};
    for (size_t j = 0; j < links.size(); ++j) links[j].add(row[j]);
  }
  for (const char* name :
       {"id", "src", "dst", "bytes", "start_ps", "fct_ps", "retransmitted_packets"})
    flows.emplace_back(name);
  for (const Row& flow : rows_) {
    const int64_t row[] = {flow.id,       flow.src,    flow.dst,          flow.bytes,
                           flow.start_ps, flow.fct_ps, flow.retransmitted};
    for (size_t j = 0; j < flows.size(); ++j) flows[j].add(row[j]);
  }
  std::vector<std::pair<int64_t, size_t>> counted;
  for (size_t i = 0; i < links_.size(); ++i) counted.emplace_back(static_cast<int64_t>(i), i);
  std::string text = "{";
  const std::pair<const char*, int64_t> scalars[] = {
      {"packet_hops", packets},
      {"drops", drops},
      {"trims", trims},
      {"retransmitted_packets", static_cast<int64_t>(retransmitted_)},
      {"transfers", static_cast<int64_t>(gone_)},
      {"events", static_cast<int64_t>(events_run)}};
  for (const auto& [name, value] : scalars)
    text += std::string("\"") + name + "\": " + std::to_string(value) + ", ";
  return text + load_.interval_json() + "\"tables\": {" + table("links", links) + ", " +
         table("flows", flows) + load_.table_json(counted) + "}}";
}

}  // namespace astra_htsim
