// SPDX-License-Identifier: MIT
//
// gem5's Garnet in the place of our own: the same configuration, cycles and statistics.
//
// gem5 has much that belongs to the process: event queues, the number of controllers, names of
// statistics, sizes of messages.  So there is one network at a time.  Those of before are left
// alone: nothing in gem5 was made to be taken apart.
#include "network.hpp"

#include <algorithm>
#include <deque>
#include <set>
#include <stdexcept>

#include "base/logging.hh"
#include "base/statistics.hh"
#include "base/stats/info.hh"
#include "mem/ruby/system/RubySystem.hh"
#include "options.hpp"
#include "params/PowerState.hh"
#include "params/SrcClockDomain.hh"
#include "params/StubWorkload.hh"
#include "params/System.hh"
#include "params/VoltageDomain.hh"
#include "parts.hh"
#include "sim/clock_domain.hh"
#include "sim/eventq.hh"
#include "sim/power_state.hh"
#include "sim/system.hh"
#include "sim/voltage_domain.hh"
#include "sim/workload.hh"
#include "table.hpp"

namespace garnet {
namespace {

constexpr int64_t kNoLink = 10'000;        // to gem5, no way has this weight
constexpr int64_t kMostBytes = 1 << 24;  // gem5 divides them as float, which is exact up to here
constexpr uint32_t kBlockBytes = 64;

// Makes gem5's objects, each with parameters that live as long: both stay until the process ends.
struct Maker {
  std::string prefix;
  uint32_t queue;  // number of the event queue, which becomes the present one
  gem5::ClockDomain* clock;
  gem5::PowerState* power;

  Maker(const std::string& prefix, uint32_t queue, int64_t period) : prefix(prefix), queue(queue) {
    gem5::curEventQueue(gem5::getEventQueue(queue));
    auto& volts = params<gem5::VoltageDomainParams>("voltage");
    volts.voltage = {1.0};
    auto& domain = params<gem5::SrcClockDomainParams>("clock");
    domain.clock = {static_cast<gem5::Tick>(period)};
    domain.domain_id = -1;
    domain.voltage_domain = new gem5::VoltageDomain(volts);
    clock = new gem5::SrcClockDomain(domain);
    power = new gem5::PowerState(params<gem5::PowerStateParams>("power"));
  }

  template <class Params>
  Params& params(const std::string& name) const {
    auto* made = new Params();  // all numbers 0
    made->name = prefix + name;
    made->eventq_index = queue;
    if constexpr (std::is_base_of_v<gem5::ClockedObjectParams, Params>) {
      made->clk_domain = clock;
      made->power_state = power;
    }
    return *made;
  }
};

// What all networks of a process have in common: controllers are numbered through it.
struct World {
  Maker make{"astra.", 0, 1000};
  gem5::System* system;
  ruby::RubySystem* memory;
  std::vector<Controller*> controllers;
  uint32_t networks = 0;

  World() {
    gem5::Logger::setLevel(gem5::Logger::FATAL);
    auto& of_system = make.params<gem5::SystemParams>("system");
    of_system.cache_line_size = kBlockBytes;
    of_system.workload = new gem5::StubWorkload(make.params<gem5::StubWorkloadParams>("workload"));
    system = new gem5::System(of_system);
    auto& of_ruby = make.params<gem5::RubySystemParams>("ruby");
    of_ruby.block_size_bytes = kBlockBytes;
    of_ruby.memory_size_bits = 64;
    of_ruby.system = system;
    memory = new ruby::RubySystem(of_ruby);
    memory->resetStats();  // it begins to count time here
  }

  void have_controllers(size_t count) {
    while (controllers.size() < count) {
      const size_t node = controllers.size();
      auto& params = make.params<gem5::L1Cache_ControllerParams>("node" + std::to_string(node));
      params.version = static_cast<int>(node);
      params.ruby_system = memory;
      params.system = system;
      controllers.push_back(new Controller(params));
    }
  }
};

World& world() {
  static World* const made = new World();
  return *made;
}

class Gem5 final : public Network {
 public:
  explicit Gem5(const Config& config);

  std::unique_ptr<Network> clone() const override { unable(); }
  void change_link(const LinkChange& /*change*/) override { unable(); }
  void save(astra::Writer& /*archive*/) override { unable(); }
  void load(astra::Reader& /*archive*/) override { unable(); }
  std::vector<int32_t> links_waited_for() const override { return {}; }

  bool has_route(int32_t src, int32_t dst) const override;
  int32_t first_dimension(int32_t src, int32_t dst) const override;
  int64_t zero_load_cycles(int32_t src, int32_t dst, int64_t bytes) const override;
  void enqueue(const Message& message) override;
  int64_t next_cycle() const override;
  void run(int64_t cycle) override;
  int64_t in_flight() const override { return in_flight_; }
  std::string find_deadlock(bool all) const override;
  bool counts_waiting() const override { return false; }
  std::vector<LinkLoad> link_loads() const override;
  std::vector<NodeLoad> node_loads() const override;
  std::vector<uint64_t> router_flits() const override;
  void add_tables(std::string& json) const override;

 private:
  struct Queue {  // messages of one node and vnet, first in first out
    ruby::MessageBuffer* buffer = nullptr;  // has the next packet, and no more
    std::deque<std::shared_ptr<Transfer>> waiting;
  };

  [[noreturn]] static void unable() { throw std::logic_error("gem5 cannot do this"); }
  void refuse_what_gem5_has_not() const;
  Fabric::Reached reached() const;
  g5::NetworkLink* make_link(const std::string& name, const Wire& wire, Link::At at);
  template <class Made>
  g5::CreditLink* make_credits(const std::string& name, const Wire& wire);
  template <class Params>
  Params& link_params(const std::string& name, const Wire& wire);
  void make_routers();
  void make_interface(size_t node, const Node& given);
  void make_channels();
  void make_buffers();
  void feed(Queue& queue);
  void picked(Packet& packet);
  void delivered(size_t buffer);
  uint64_t moved() const;
  // The channels from one node to another; false where there is no way.
  template <class Visit>
  bool walk(int32_t src, int32_t dst, Visit&& visit) const;
  std::vector<uint64_t> channel_flits() const override;

  int64_t period_;   // [ticks per cycle]
  uint32_t number_;  // of the networks of this process, from 1 on
  Maker make_;
  gem5::EventQueue& queue_;
  std::vector<int32_t> routes_;
  mutable std::optional<astra_net::Routes> graph_;
  gem5::GarnetNetworkParams& params_;
  Fabric* fabric_ = nullptr;
  std::vector<g5::Router*> routers_;
  std::vector<g5::NetworkLink*> links_, into_, out_of_;  // [channel], [node], [node]
  std::vector<std::pair<const ruby::BasicLink*, size_t>> channels_;
  std::vector<Queue> queues_;  // [node * vnets + vnet]
  std::vector<ruby::MessageBuffer*> arrivals_;  // likewise
  std::vector<int64_t> longest_wait_;  // [node], cycles
  Packet::Picked picked_;
  int64_t in_flight_ = 0;
  int64_t next_check_ = kNever, patience_ = 0;  // [cycles]
  uint64_t moved_ = 0;  // at the last check
};

Gem5::Gem5(const Config& config)
    : Network(config),
      period_(std::max<int64_t>(1, (kPsPerS + config.clock_hz / 2) / config.clock_hz)),
      number_(++world().networks),
      make_("net" + std::to_string(number_) + ".", number_, period_),
      queue_(*gem5::getEventQueue(make_.queue)),
      routes_(compute_routes(config)),
      graph_(config.graph),
      params_(make_.params<gem5::GarnetNetworkParams>("garnet")) {
  refuse_what_gem5_has_not();
  // gem5 draws where ways are equal, as if it began here: the same network, the same answer.
  std::srand(1);
  // To gem5, a network has two nodes or more.
  const size_t nodes = std::max<size_t>(2, config.nodes.size());
  world().have_controllers(nodes);

  make_routers();
  for (size_t node = 0; node < nodes; ++node)
    make_interface(node, node < config.nodes.size() ? config.nodes[node] : garnet::Node{});
  make_channels();
  params_.number_of_virtual_networks = static_cast<unsigned>(config.vnets.size());
  params_.control_msg_size = 8;
  params_.data_msg_size = kBlockBytes;
  params_.ruby_system = world().memory;
  params_.ni_flit_size = static_cast<uint32_t>(config.flit_bytes);
  params_.vcs_per_vnet = static_cast<uint32_t>(config.vcs_per_vnet);
  params_.buffers_per_data_vc = static_cast<uint32_t>(config.buffers_per_data_vc);
  params_.buffers_per_ctrl_vc = static_cast<uint32_t>(config.buffers_per_ctrl_vc);
  params_.routing_algorithm = config.routing == Routing::kXy ? g5::XY_ : g5::TABLE_;
  params_.num_rows = config.routing == Routing::kXy ? config.num_rows : 0;
  make_buffers();
  picked_ = [this](Packet& packet) { picked(packet); };
  fabric_ = new Fabric(params_, reached());

  fabric_->init();
  for (g5::Router* router : routers_) router->init();
  fabric_->regStats();
  for (g5::Router* router : routers_) router->regStats();

  // A flit that is on a link moves nothing until it is at the end.
  double longest = 0;
  const auto note = [&](const Wire& wire) {
    longest = std::max(longest, static_cast<double>(wire.latency) + wire.cycles_per_flit);
  };
  for (const Channel& channel : config.channels) note(channel.wire);
  for (const garnet::Node& node : config.nodes) note(node.wire);
  patience_ = config.deadlock_threshold + 2 * static_cast<int64_t>(longest) +
              *std::max_element(config.router_latency.begin(), config.router_latency.end());
  longest_wait_.resize(config.nodes.size());
}

void Gem5::refuse_what_gem5_has_not() const {
  const auto refuse = [](bool wrong, const std::string& message) {
    if (wrong) throw ConfigError(message);
  };
  refuse(config_.nodes.size() > NUMBER_BITS_PER_SET,
         std::to_string(config_.nodes.size()) + " nodes, but this gem5 was built for " +
             std::to_string(NUMBER_BITS_PER_SET) + "; build it with a larger NUMBER_BITS_PER_SET");
  refuse(config_.dateline, "deadlock_avoidance dateline is not in gem5; allowed: none");
  refuse(graph_ && graph_->routing() != astra_net::Routing::kStatic &&
             graph_->routing() != astra_net::Routing::kSpray,
         "gem5 routes by destination: of ecmp, static, spray and adaptive it has static and spray");
  std::set<std::pair<int32_t, int32_t>> ends;
  for (const Channel& channel : config_.channels)
    refuse(!ends.emplace(channel.src, channel.dst).second,
           "two links go from router " + std::to_string(channel.src) + " to router " +
               std::to_string(channel.dst) + "; gem5 has one");
}

// ---- gem5's objects ----

void Gem5::make_routers() {
  for (size_t r = 0; r < config_.router_latency.size(); ++r) {
    auto& params = make_.params<gem5::GarnetRouterParams>("router" + std::to_string(r));
    params.router_id = static_cast<int>(r);
    params.latency = gem5::Cycles(static_cast<uint64_t>(config_.router_latency[r]));
    params.vcs_per_vnet = static_cast<uint32_t>(config_.vcs_per_vnet);
    params.virt_nets = static_cast<uint32_t>(config_.vnets.size());
    params.width = static_cast<uint32_t>(config_.flit_bytes);
    routers_.push_back(new g5::Router(params));
    params_.routers.push_back(routers_.back());
  }
}

template <class Params>
Params& Gem5::link_params(const std::string& name, const Wire& wire) {
  auto& params = make_.params<Params>(name);
  params.link_latency = gem5::Cycles(static_cast<uint64_t>(wire.latency));
  params.vcs_per_vnet = config_.vcs_per_vnet;
  params.virt_nets = static_cast<int>(config_.vnets.size());
  params.width = static_cast<uint32_t>(config_.flit_bytes);
  return params;
}

g5::NetworkLink* Gem5::make_link(const std::string& name, const Wire& wire, Link::At at) {
  auto& params = link_params<gem5::NetworkLinkParams>(name, wire);
  if (at == Link::At::kBetween && wire.cycles_per_flit == 1.0) return new g5::NetworkLink(params);
  return new Link(params, at, wire.cycles_per_flit);
}

template <class Made>
g5::CreditLink* Gem5::make_credits(const std::string& name, const Wire& wire) {
  return new Made(link_params<gem5::CreditLinkParams>(name, wire));
}

void Gem5::make_interface(size_t node, const garnet::Node& given) {
  const std::string name = std::to_string(node);
  auto& params = make_.params<gem5::GarnetNetworkInterfaceParams>("interface" + name);
  params.id = static_cast<uint32_t>(node);
  params.vcs_per_vnet = static_cast<uint32_t>(config_.vcs_per_vnet);
  params.virt_nets = static_cast<uint32_t>(config_.vnets.size());
  // It counts how often no VC was free, and ends the process: a long packet ahead is enough.
  params.garnet_deadlock_threshold = INT32_MAX;
  params_.netifs.push_back(new g5::NetworkInterface(params));

  auto& link = make_.params<gem5::GarnetExtLinkParams>("ext" + name);
  link.link_id = static_cast<int>(node);
  link.latency = gem5::Cycles(static_cast<uint64_t>(given.wire.latency));
  link.weight = given.weight;
  link.width = static_cast<uint32_t>(config_.flit_bytes);
  link.ext_node = world().controllers[node];
  link.int_node = routers_[static_cast<size_t>(given.router)];
  into_.push_back(make_link("in" + name, given.wire, Link::At::kSource));
  out_of_.push_back(make_link("out" + name, given.wire, Link::At::kEnd));
  link.network_links = {into_.back(), out_of_.back()};
  link.credit_links = {make_credits<g5::CreditLink>("in_credit" + name, given.wire),
                       make_credits<Credits>("out_credit" + name, given.wire)};
  params_.ext_links.push_back(new g5::GarnetExtLink(link));
}

void Gem5::make_channels() {
  const char* const names[] = {"East", "West", "North", "South"};
  const auto opposite = [&](const std::string& port) {
    for (size_t d = 0; d < 4; ++d)
      if (port == names[d]) return std::string(names[d ^ 1]);
    return port;
  };
  const int32_t columns =
      config_.num_rows > 0 ? static_cast<int32_t>(config_.router_latency.size()) / config_.num_rows
                           : 0;
  for (size_t c = 0; c < config_.channels.size(); ++c) {
    const Channel& given = config_.channels[c];
    const std::string name = std::to_string(c);
    auto& link = make_.params<gem5::GarnetIntLinkParams>("int" + name);
    link.link_id = static_cast<int>(config_.nodes.size() + c);
    link.latency = gem5::Cycles(static_cast<uint64_t>(given.wire.latency));
    link.weight = given.weight;
    link.width = static_cast<uint32_t>(config_.flit_bytes);
    link.src_node = routers_[static_cast<size_t>(given.src)];
    link.dst_node = routers_[static_cast<size_t>(given.dst)];
    link.src_outport = given.port;
    if (given.port.empty() && config_.routing == Routing::kXy) {
      const int32_t step = given.dst - given.src;
      const bool same_row = given.src / columns == given.dst / columns;
      if (same_row && std::abs(step) == 1) link.src_outport = names[step < 0];
      if (std::abs(step) == columns && !same_row) link.src_outport = names[2 + (step < 0)];
    }
    link.dst_inport = opposite(link.src_outport);
    links_.push_back(make_link("link" + name, given.wire, Link::At::kBetween));
    link.network_link = links_.back();
    link.credit_link = make_credits<g5::CreditLink>("credit" + name, given.wire);
    auto* made = new g5::GarnetIntLink(link);
    params_.int_links.push_back(made);
    channels_.emplace_back(made, c);
  }
}

void Gem5::make_buffers() {
  const size_t vnets = config_.vnets.size();
  const size_t nodes = params_.netifs.size();
  auto* receiver = new Receiver(routers_[0], [this](size_t buffer) { delivered(buffer); });
  const auto make = [&](const std::string& name) {
    auto& params = make_.params<gem5::MessageBufferParams>(name);
    params.randomization = gem5::MessageRandomization::disabled;
    return new ruby::MessageBuffer(params);
  };
  queues_.resize(nodes * vnets);
  for (size_t index = 0; index < nodes * vnets; ++index) {
    Queue& queue = queues_[index];
    queue.buffer = make("to" + std::to_string(index));
    queue.buffer->registerDequeueCallback([this, &queue] { feed(queue); });
    arrivals_.push_back(make("from" + std::to_string(index)));
    arrivals_.back()->setVnet(static_cast<int>(index));
    arrivals_.back()->setConsumer(receiver);
  }
  for (size_t node = 0; node < nodes; ++node)
    world().controllers[node]->attach = [this, node, vnets](ruby::Network& network) {
      for (size_t vnet = 0; vnet < vnets; ++vnet) {
        const Vnet& kind = config_.vnets[vnet];
        const char* const type = kind.data ? "response" : "request";
        const auto id = static_cast<ruby::NodeID>(node);
        network.setToNetQueue(id, kind.ordered, static_cast<int>(vnet), type,
                              queues_[node * vnets + vnet].buffer);
        network.setFromNetQueue(id, kind.ordered, static_cast<int>(vnet), type,
                                arrivals_[node * vnets + vnet]);
      }
    };
}

// ---- ways ----

// Where the ways are not those of gem5's own table: which nodes each link leads to.
Fabric::Reached Gem5::reached() const {
  Fabric::Reached found;
  if (config_.routing != Routing::kCustom && !graph_) return found;
  const auto nodes = static_cast<int32_t>(config_.nodes.size());
  for (const auto& [link, c] : channels_) {
    ruby::NetDest& set = found[link];
    const int32_t at = config_.channels[c].src;
    for (int32_t node = 0; node < nodes; ++node) {
      if (config_.nodes[static_cast<size_t>(node)].router == at) continue;
      bool leads = false;
      if (!graph_) {
        const size_t entry =
            static_cast<size_t>(at) * config_.nodes.size() + static_cast<size_t>(node);
        leads = routes_[entry] == static_cast<int32_t>(c);
      } else if (graph_->routing() == astra_net::Routing::kStatic) {
        leads = graph_->next(at, node, at) == static_cast<int32_t>(c);
      } else {
        const astra_net::Routes::Choice choice = graph_->choices(node, at);
        for (int32_t i = 0; i < choice.count(); ++i)
          leads |= choice.link(static_cast<size_t>(i)) == static_cast<int32_t>(c);
      }
      if (leads) set.add({ruby::MachineType_L1Cache, static_cast<ruby::NodeID>(node)});
    }
  }
  return found;
}

template <class Visit>
bool Gem5::walk(int32_t src, int32_t dst, Visit&& visit) const {
  int32_t at = config_.nodes[static_cast<size_t>(src)].router;
  const int32_t target = config_.nodes[static_cast<size_t>(dst)].router;
  const bool by_node = config_.routing == Routing::kCustom;
  const size_t targets = by_node ? config_.nodes.size() : config_.router_latency.size();
  while (at != target) {
    const int32_t channel = graph_ ? graph_->next(src, dst, at)
                                   : routes_[static_cast<size_t>(at) * targets +
                                             static_cast<size_t>(by_node ? dst : target)];
    if (channel < 0) return false;
    const Channel& taken = config_.channels[static_cast<size_t>(channel)];
    visit(taken);
    at = taken.dst;
  }
  return true;
}

bool Gem5::has_route(int32_t src, int32_t dst) const {
  int64_t weight = config_.nodes[static_cast<size_t>(dst)].weight;
  const bool whole = walk(src, dst, [&](const Channel& channel) { weight += channel.weight; });
  return whole && (config_.routing != Routing::kTable || weight < kNoLink);
}

int32_t Gem5::first_dimension(int32_t src, int32_t dst) const {
  int32_t found = -1;
  walk(src, dst, [&](const Channel& channel) {
    if (found < 0) found = channel.dimension;
  });
  return std::max(found, 0);
}

int64_t Gem5::zero_load_cycles(int32_t src, int32_t dst, int64_t bytes) const {
  double busiest = 1.0, cycles = 1.0;
  const auto cross = [&](const Wire& wire, int32_t router_cycles) {
    busiest = std::max(busiest, wire.cycles_per_flit);
    cycles += static_cast<double>(wire.latency + router_cycles) + wire.cycles_per_flit;
  };
  const auto depth = [&](int32_t router) {
    return config_.router_latency[static_cast<size_t>(router)] - 1;
  };
  const garnet::Node& source = config_.nodes[static_cast<size_t>(src)];
  cross(source.wire, depth(source.router));
  walk(src, dst, [&](const Channel& channel) { cross(channel.wire, depth(channel.dst)); });
  cross(config_.nodes[static_cast<size_t>(dst)].wire, 0);
  const int64_t split = packet_bytes(src, dst), size = split ? split : bytes;
  const auto flits = [&](int64_t part) { return (part - 1) / config_.flit_bytes + 1; };
  int64_t total = bytes / size * flits(size);
  if (bytes % size) total += flits(bytes % size);
  const double all = std::ceil(cycles + static_cast<double>(total - 1) * busiest);
  return all < 9e18 ? static_cast<int64_t>(all) : kNever;
}

// ---- what happens ----

void Gem5::enqueue(const Message& message) {
  gem5::curEventQueue(&queue_);
  const int64_t largest =
      message.packet_bytes ? std::min(message.packet_bytes, message.bytes) : message.bytes;
  if (largest + config_.flit_bytes > kMostBytes)
    throw astra_net::Error(ASTRA_NET_MODEL,
                           "transfer " + std::to_string(message.id) + ": a packet of " +
                               std::to_string(largest) + " bytes; gem5 counts flits right up to " +
                               std::to_string(kMostBytes) + "; set a smaller packet_bytes");
  auto transfer = std::make_shared<Transfer>();
  transfer->message = message;
  transfer->bytes_left = message.bytes;
  Queue& queue = queues_[static_cast<size_t>(message.src) * config_.vnets.size() +
                         static_cast<size_t>(message.vnet)];
  queue.waiting.push_back(std::move(transfer));
  if (queue.buffer->isEmpty()) feed(queue);
  if (in_flight_++ > 0) return;
  moved_ = moved();
  next_check_ = message.cycle + patience_;
}

// Hands gem5 the next packet of a queue whose buffer is empty, or was until now.
void Gem5::feed(Queue& queue) {
  if (queue.waiting.empty()) return;
  const std::shared_ptr<Transfer> transfer = queue.waiting.front();
  const Message& message = transfer->message;
  const int64_t bytes = message.packet_bytes ? std::min(message.packet_bytes, transfer->bytes_left)
                                             : transfer->bytes_left;
  transfer->bytes_left -= bytes;
  ++transfer->open_packets;
  if (transfer->bytes_left == 0) queue.waiting.pop_front();
  ruby::NetDest to;
  to.add({ruby::MachineType_L1Cache, static_cast<ruby::NodeID>(message.dst)});
  const auto enqueued = static_cast<gem5::Tick>(message.cycle * period_);
  auto packet = std::make_shared<Packet>(enqueued, transfer, static_cast<uint32_t>(bytes),
                                         static_cast<int32_t>((bytes - 1) / config_.flit_bytes + 1),
                                         *fabric_, to, picked_);
  queue.buffer->enqueue(std::move(packet), std::max(enqueued, gem5::curTick()),
                        static_cast<gem5::Tick>(period_));
}

void Gem5::picked(Packet& packet) {
  Transfer& transfer = *packet.transfer;
  const Message& message = transfer.message;
  packet.record.pick = static_cast<int64_t>(gem5::curTick()) / period_;
  const int64_t waited = packet.record.pick - message.cycle;
  if (transfer.first_pick < 0) {
    transfer.first_pick = packet.record.pick;
    int64_t& longest = longest_wait_[static_cast<size_t>(message.src)];
    longest = std::max(longest, waited);
  }
  ++transfer.packets;
  transfer.flits += packet.record.flits;
  transfer.queueing += waited;
}

void Gem5::delivered(size_t buffer) {
  const ruby::MsgPtr message = arrivals_[buffer]->peekMsgPtr();
  arrivals_[buffer]->clear();
  auto& packet = static_cast<Packet&>(*message);
  packet.record.deliver = static_cast<int64_t>(gem5::curTick()) / period_;
  Transfer& transfer = *packet.transfer;
  transfer.network += packet.record.deliver - packet.record.pick - 1;
  transfer.hops += packet.record.hops;
  if (config_.record_packets) packets_.push_back(packet.record);
  if (--transfer.open_packets > 0 || transfer.bytes_left > 0) return;
  deliveries_.push_back({transfer.message, packet.record.deliver, transfer.first_pick,
                         transfer.packets, transfer.flits, transfer.queueing, transfer.network,
                         transfer.hops});
  --in_flight_;
}

// What gem5 has left to do when nothing is in flight, such as credits on their way, it does before
// whatever comes next.
int64_t Gem5::next_cycle() const {
  if (in_flight_ == 0 || queue_.empty()) return kNever;
  return static_cast<int64_t>(queue_.nextTick()) / period_;
}

void Gem5::run(int64_t cycle) {
  gem5::curEventQueue(&queue_);
  if (cycle >= next_bin_) begin_bin(cycle);
  // Interfaces and routers with something to send try again in every cycle: a network that is stuck
  // has events without end.
  if (cycle >= next_check_) {
    const uint64_t moved = this->moved();
    suspicious_ = moved == moved_;
    moved_ = moved;
    next_check_ = cycle + patience_;
  }
  now_ = cycle;
  const auto tick = static_cast<gem5::Tick>(cycle * period_);
  while (!queue_.empty() && queue_.nextTick() <= tick) queue_.serviceOne();
}

std::string Gem5::find_deadlock(bool /*all*/) const {
  return "no flit has moved for " + std::to_string(patience_) + " cycles";
}

// ---- statistics ----

uint64_t Gem5::moved() const {
  uint64_t flits = 0;
  for (const auto* links : {&links_, &into_, &out_of_})
    for (const g5::NetworkLink* link : *links) flits += link->getLinkUtilization();
  return flits;
}

std::vector<uint64_t> Gem5::channel_flits() const {
  std::vector<uint64_t> flits;
  for (const g5::NetworkLink* link : links_) flits.push_back(link->getLinkUtilization());
  return flits;
}

std::vector<LinkLoad> Gem5::link_loads() const {
  std::vector<LinkLoad> loads;
  for (const uint64_t flits : channel_flits()) loads.push_back({flits, 0, 0});
  return loads;
}

std::vector<NodeLoad> Gem5::node_loads() const {
  std::vector<NodeLoad> loads;
  for (size_t node = 0; node < config_.nodes.size(); ++node)
    loads.push_back({into_[node]->getLinkUtilization(), out_of_[node]->getLinkUtilization(), 0,
                     longest_wait_[node]});
  return loads;
}

std::vector<uint64_t> Gem5::router_flits() const {
  std::vector<uint64_t> flits(config_.router_latency.size());
  for (size_t node = 0; node < config_.nodes.size(); ++node)
    flits[static_cast<size_t>(config_.nodes[node].router)] += out_of_[node]->getLinkUtilization();
  for (size_t c = 0; c < links_.size(); ++c)
    flits[static_cast<size_t>(config_.channels[c].src)] += links_[c]->getLinkUtilization();
  return flits;
}

// gem5's own, as it would write them to stats.txt, without those that are 0.
void Gem5::add_tables(std::string& json) const {
  gem5::curEventQueue(&queue_);
  using gem5::statistics::Info;
  std::vector<Info*> ours;
  for (Info* info : gem5::statistics::statsList())
    if (info->name.compare(0, make_.prefix.size(), make_.prefix) == 0) ours.push_back(info);
  // Some are sums over routers and links that gem5 forms when it writes them, on top of the last.
  for (Info* info : ours)
    if (info->name.find(".router") != std::string::npos ||
        info->name.find("link_utilization") != std::string::npos ||
        info->name.find("avg_vc_load") != std::string::npos)
      info->reset();
  fabric_->collateStats();
  std::vector<std::pair<std::string, double>> rows;
  const auto add = [&](const std::string& name, double value) {
    if (std::isfinite(value) && value != 0)
      rows.emplace_back(name.substr(make_.prefix.size()), value);
  };
  for (Info* info : ours) {
    info->prepare();
    if (const auto* scalar = dynamic_cast<gem5::statistics::ScalarInfo*>(info)) {
      add(info->name, scalar->result());
    } else if (const auto* vector = dynamic_cast<gem5::statistics::VectorInfo*>(info)) {
      const auto& values = vector->result();
      for (size_t i = 0; i < values.size(); ++i) {
        const bool named = i < vector->subnames.size() && !vector->subnames[i].empty();
        const std::string part = named ? vector->subnames[i] : std::to_string(i);
        add(values.size() == 1 ? info->name : info->name + "::" + part, values[i]);
      }
    }
  }
  Table(json, "gem5")
      .column("name", rows, [](const auto& row, size_t) { return row.first; })
      .column("value", rows, [](const auto& row, size_t) { return row.second; });
}

}  // namespace

std::unique_ptr<Network> Network::make(const Config& config) {
  validate(config);
  return std::make_unique<Gem5>(config);
}

}  // namespace garnet
