// SPDX-License-Identifier: MIT
#include "fabric.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "congestion.h"
#include "ecmp.h"
#include "ns3/hash.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

namespace {

// The addresses of the public fork, 11.(id / 256).(id % 256).1: ECMP hashes them.
uint32_t Address(uint32_t id) { return 0x0b000001u + (id / 256) * 0x10000u + (id % 256) * 0x100u; }

constexpr uint16_t kFirstSourcePort = 10000, kDestinationPort = 100;

}  // namespace

NS_OBJECT_ENSURE_REGISTERED(Device);

ns3::TypeId Device::GetTypeId() {
  static ns3::TypeId tid = ns3::TypeId("astra_ns3::Device").SetParent<ns3::Object>();
  return tid;
}

// ---------------------------------------------------------------------------------------------
// Port

void Port::Fire(uint32_t kind, uint64_t order) {
  if (left_out) [[unlikely]]
    return;
  switch (kind) {
    case kArrival: {
      // An event whose packet was lost with its link finds another packet, or none.
      if (wire.empty() || wire.head->order != order) return;
      PacketRecord* packet = wire.pop();
      --fabric->on_wire;
      if (!wire.empty()) {
        fabric->sim->At(wire.head->arrive, wire.head->order, this, kArrival);
        // Its successor was written a whole wire's delay ago and is out of the cache by now.
        __builtin_prefetch(wire.head->next);
      }
      if (loss > 0 && Loses(*packet)) {
        ++lost;
        fabric->Free(packet);
        return;
      }
      peer->owner->Receive(*peer, packet);
      return;
    }
    case kDone:
      if (order != done_order) return;
      done_pending = false;
      owner->Serve(*this);
      return;
    case kWake:
      if (order != wake_order) return;
      wake_at = kNeverTick;
      if (!Busy()) owner->Serve(*this);
      return;
  }
}

bool Port::Loses(const PacketRecord& packet) {
  Irregular();
  const bool resume = packet.kind == PacketKind::kResume;
  if (!fabric->parameters.upstream_order)
    return packet.kind != PacketKind::kPause && !resume && loss_stream->Next() < loss;
  // The fork loses pauses too, and resumes, after which nothing would ever move again.
  const bool lost = loss_stream->Next() < loss;
  return lost && !resume;
}

void Port::TakeDown() {
  up = false;
  while (!wire.empty()) {
    ++lost;
    --fabric->on_wire;
    fabric->Free(wire.pop());
  }
  paused = 0;
  wake_at = kNeverTick;
  wake_order = 0;
}

// ---------------------------------------------------------------------------------------------
// Queue pair

void QueuePair::SetRate(int64_t new_bps) {
  bps = new_bps;
  if (window == 0 || !fabric->parameters.variable_window) return;
  const auto scaled = static_cast<unsigned __int128>(window) * static_cast<uint64_t>(bps) /
                      static_cast<uint64_t>(max_bps);
  current_window = std::max<uint64_t>(1, static_cast<uint64_t>(scaled));
  Changed();
}

void QueuePair::Fire(uint32_t kind, uint64_t order) {
  if (timer[kind] == order) fabric->control->OnTimer(*this, kind);
}

// ---------------------------------------------------------------------------------------------
// Fabric: building

Fabric::~Fabric() {
  for (auto& node : nodes) node->Dispose();
}

void Fabric::AddNic(int32_t node, uint32_t address_id) {
  auto nic = ns3::CreateObject<RdmaNic>();
  nic->fabric = this;
  nic->node = node;
  nic->address_id = address_id;
  nodes.push_back(nic);
  ++hosts_;
}

void Fabric::AddSwitch(int32_t node, uint32_t address_id, uint64_t buffer_bytes) {
  auto device = ns3::CreateObject<SharedBufferSwitch>();
  device->fabric = this;
  device->node = node;
  device->address_id = address_id;
  device->ecmp_seed = address_id;
  device->buffer_bytes = buffer_bytes;
  nodes.push_back(device);
}

void Fabric::AddPort(int32_t src, int64_t bps, Tick delay, double loss) {
  auto port = std::make_unique<Port>();
  Device* owner = ns3::PeekPointer(nodes[static_cast<size_t>(src)]);
  port->owner = owner;
  port->fabric = this;
  port->link = static_cast<uint32_t>(ports.size());
  port->local = static_cast<uint16_t>(owner->ports.size());
  port->nominal_bps = port->bps = port->best_bps = bps;
  port->delay = delay;
  port->loss = loss;
  if (parameters.upstream_order) port->pairs.WatchAll();
  owner->ports.push_back(port.get());
  ports.push_back(std::move(port));
}

void Fabric::Join(uint32_t link, uint32_t reverse) {
  ports[link]->peer = ports[reverse].get();
  ports[reverse]->peer = ports[link].get();
}

void Fabric::ScaleBuffers(double bytes_per_bps) {
  for (auto& node : nodes) {
    auto* device = dynamic_cast<SharedBufferSwitch*>(ns3::PeekPointer(node));
    if (device == nullptr) continue;
    double bps = 0;
    for (const Port* port : device->ports) bps += static_cast<double>(port->bps);
    device->buffer_bytes =
        std::max(device->buffer_bytes, static_cast<uint64_t>(bps * bytes_per_bps));
  }
}

void Fabric::SetGraph(astra_net::Config graph, int32_t stand_in) {
  graph_ = std::make_unique<astra_net::Config>(std::move(graph));
  stand_in_ = stand_in;
  MakeRoutes();
  reorders_ = routes_->routing() == astra_net::Routing::kSpray ||
              routes_->routing() == astra_net::Routing::kAdaptive;
}

void Fabric::Finish() {
  next_source_port_.resize(hosts_);
  SortNeighbours();
  FindExtremes();
  for (auto& node : nodes)
    if (auto* device = dynamic_cast<SharedBufferSwitch*>(ns3::PeekPointer(node)))
      device->Configure();
  watch_interval_ = parameters.retransmit_timeout;
  for (const auto& port : ports) watch_interval_ = std::max(watch_interval_, HopTicks(*port));
}

// Bytes that `bps` sends in `rtt`.
uint64_t Fabric::Bdp(Tick rtt, int64_t bps) const {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(rtt) * static_cast<uint64_t>(bps) *
                               static_cast<uint64_t>(parameters.tick_ps) / 1000000000000ull / 8);
}

// Switches set reserve and headroom aside for every traffic class that is in use: as many memories
// as there are.  The fork counts them once per port, whatever the classes.
void Fabric::UseClass(uint32_t traffic_class) {
  if ((classes_used_ >> traffic_class & 1) != 0) return;
  classes_used_ |= 1u << traffic_class;
  const auto classes = static_cast<uint32_t>(__builtin_popcount(classes_used_));
  if (parameters.upstream_order || classes <= lossless_classes) return;
  lossless_classes = classes;
  for (auto& node : nodes)
    if (auto* device = dynamic_cast<SharedBufferSwitch*>(ns3::PeekPointer(node)))
      device->Configure();
}

Tick Fabric::Ticks(double bytes, int64_t bps) const {
  const double ticks_per_second = 1e12 / static_cast<double>(parameters.tick_ps);
  const double exact = bytes * 8 * ticks_per_second / static_cast<double>(bps);
  // ns3::Time rounds to the nearest tick a quotient that it has first cut off after 64 binary
  // places of a second: a half is always a little less than a half, and goes down.
  return static_cast<Tick>(std::floor(exact + 0.5 - 2.5e-11));
}

// ---------------------------------------------------------------------------------------------
// Fabric: routes

// Next hops are numbered in the order in which the search meets them, and ECMP picks by number.
// The fork keeps neighbours ordered by the addresses of its objects, which come out as hosts by
// ascending id, then switches by descending id (large objects are mapped downwards).
void Fabric::SortNeighbours() {
  const auto before = [this](const Port* a, const Port* b) {
    const Device& x = *a->peer->owner;
    const Device& y = *b->peer->owner;
    const bool x_host = static_cast<size_t>(x.node) < hosts_;
    const bool y_host = static_cast<size_t>(y.node) < hosts_;
    if (x_host != y_host) return x_host;
    if (x.node == y.node) return a->link < b->link;
    return (x_host || !parameters.upstream_order) ? x.address_id < y.address_id
                                                  : x.address_id > y.address_id;
  };
  tables_.resize(nodes.size());
  built_.resize(nodes.size());
  neighbours_.resize(nodes.size());
  for (size_t node = 0; node < nodes.size(); ++node) {
    neighbours_[node].assign(nodes[node]->ports.begin(), nodes[node]->ports.end());
    std::sort(neighbours_[node].begin(), neighbours_[node].end(), before);
  }
  access_.resize(hosts_);
  for (size_t host = 0; host < hosts_; ++host) {
    const auto& cables = nodes[host]->ports;
    const bool leaf =
        cables.size() == 1 && static_cast<size_t>(cables[0]->peer->owner->node) >= hosts_;
    access_[host] = leaf ? cables[0]->peer : nullptr;
  }
}

// One hop, as part of a path.
Fabric::Path Fabric::Hop(const Port& port) const {
  const double packet = static_cast<double>(parameters.mtu_bytes) * 8 * 1e12 /
                        static_cast<double>(parameters.tick_ps);
  return {port.delay, static_cast<Tick>(packet / static_cast<double>(port.nominal_bps)),
          port.nominal_bps};
}

// The longest round trip and the largest product of bandwidth and delay of all pairs of hosts.
void Fabric::FindExtremes() {
  const auto join = [](const Path& a, const Path& b) {
    return Path{a.delay + b.delay, a.transmit + b.transmit, std::min(a.bps, b.bps)};
  };
  const auto take = [this](const Path& path) {
    const Tick rtt = 2 * path.delay + path.transmit;
    max_rtt = std::max(max_rtt, rtt);
    max_bdp = std::max(max_bdp, Bdp(rtt, path.bps));
  };
  // Hosts of one switch whose cables are alike differ only in who they are: one, or two, stand for
  // all of them.
  std::map<int32_t, std::map<std::tuple<Tick, Tick, int64_t>, std::vector<int32_t>>> leaves;
  for (size_t host = 0; host < hosts_; ++host) {
    if (access_[host] == nullptr) {
      const Table table = SearchFrom(static_cast<int32_t>(host), true);
      for (size_t source = 0; source < hosts_; ++source)
        if (source != host && table.paths[source].delay >= 0) take(table.paths[source]);
      continue;
    }
    const Path last = Hop(*access_[host]);
    leaves[access_[host]->owner->node][{last.delay, last.transmit, last.bps}].push_back(
        static_cast<int32_t>(host));
  }
  for (const auto& [root, kinds] : leaves) {
    const Table table = SearchFrom(root, true);
    for (const auto& [kind, hosts] : kinds) {
      const Path last{std::get<0>(kind), std::get<1>(kind), std::get<2>(kind)};
      for (size_t source = 0; source < hosts_; ++source) {
        const bool itself = hosts.size() == 1 && static_cast<size_t>(hosts[0]) == source;
        if (!itself && table.paths[source].delay >= 0) take(join(table.paths[source], last));
      }
    }
  }
}

// Breadth first from the destination; only switches forward.
Fabric::Table Fabric::SearchFrom(int32_t root, bool as_built) const {
  Table table;
  table.paths.resize(nodes.size());
  table.paths[static_cast<size_t>(root)] = {0, 0, INT64_MAX};
  std::vector<int32_t> distance(nodes.size(), -1), queue = {root};
  std::vector<std::pair<size_t, Port*>> found;
  distance[static_cast<size_t>(root)] = 0;
  for (size_t i = 0; i < queue.size(); ++i) {
    const auto now = static_cast<size_t>(queue[i]);
    for (const Port* port : neighbours_[now]) {
      if (!as_built && !(port->up && port->peer->up)) continue;
      Port* towards = port->peer;
      const auto next = static_cast<size_t>(towards->owner->node);
      if (distance[next] < 0) {
        distance[next] = distance[now] + 1;
        const Path hop = Hop(*towards);
        table.paths[next] = {table.paths[now].delay + hop.delay,
                             table.paths[now].transmit + hop.transmit,
                             std::min(table.paths[now].bps, hop.bps)};
        if (next >= hosts_) queue.push_back(static_cast<int32_t>(next));
      }
      if (distance[next] == distance[now] + 1) found.emplace_back(next, towards);
    }
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  table.first.assign(nodes.size() + 1, 0);
  for (const auto& [node, port] : found) {
    ++table.first[node + 1];
    table.hops.push_back(port);
  }
  for (size_t node = 0; node < nodes.size(); ++node) table.first[node + 1] += table.first[node];
  return table;
}

const Fabric::Table& Fabric::TableTo(int32_t root, bool as_built) {
  std::unique_ptr<Table>& table = (as_built ? built_ : tables_)[static_cast<size_t>(root)];
  if (!table) table = std::make_unique<Table>(SearchFrom(root, as_built));
  return *table;
}

Fabric::Hops Fabric::Choices(const Device& at, int32_t to) {
  int32_t root = to;
  if (Port* const& last = access_[static_cast<size_t>(to)]; last != nullptr) {
    if (!last->up || !last->peer->up) return {nullptr, 0};
    if (&at == last->owner) return {&last, 1};
    root = last->owner->node;
  }
  const Table& table = TableTo(root);
  const auto node = static_cast<size_t>(at.node);
  return {table.hops.data() + table.first[node], table.first[node + 1] - table.first[node]};
}

// Of a pair without a route: as it was built.
Fabric::Path Fabric::PathOf(int32_t src, int32_t dst) {
  const auto source = static_cast<size_t>(src);
  const Port* last = access_[static_cast<size_t>(dst)];
  if (last == nullptr) {
    const Path path = TableTo(dst).paths[source];
    return path.delay >= 0 ? path : TableTo(dst, true).paths[source];
  }
  const int32_t root = last->owner->node;
  Path path;
  if (last->up && last->peer->up) path = TableTo(root).paths[source];
  if (path.delay < 0) path = TableTo(root, true).paths[source];
  if (path.delay < 0) return path;
  const Path hop = Hop(*last);
  return {path.delay + hop.delay, path.transmit + hop.transmit, std::min(path.bps, hop.bps)};
}

Port* Fabric::Choose(const Device& at, int32_t from, int32_t to, uint16_t source_port,
                     uint16_t destination_port) {
  const Hops choices = Choices(at, to);
  if (choices.count == 0) return nullptr;
  if (choices.count == 1) return *choices.begin;
  const uint32_t source = Address(nodes[static_cast<size_t>(from)]->address_id);
  const uint32_t destination = Address(nodes[static_cast<size_t>(to)]->address_id);
  if (static_cast<size_t>(at.node) >= hosts_) {
    const uint32_t seed = static_cast<const SharedBufferSwitch&>(at).ecmp_seed;
    return choices
        .begin[EcmpHash(source, destination, source_port, destination_port, seed) % choices.count];
  }
  const uint32_t both = source_port | (static_cast<uint32_t>(destination_port) << 16);
  const std::array<uint32_t, 3> key = {source, destination, both};
  return choices.begin[ns3::Hash32(reinterpret_cast<const char*>(key.data()), 12) % choices.count];
}

// The ways by the links that are up.
void Fabric::MakeRoutes() {
  astra_net::Config now = *graph_;
  now.links.clear();
  route_ports_.clear();
  for (uint32_t link = 0; link < graph_->links.size(); ++link) {
    if (!ports[link]->up || !ports[link]->peer->up) continue;
    now.links.push_back(graph_->links[link]);
    route_ports_.push_back(link);
  }
  routes_ = std::make_unique<astra_net::Routes>(now);
}

int32_t Fabric::GraphNode(const Device& at) const {
  return at.node >= stand_in_ ? at.node - stand_in_ : at.node;
}

// Where a packet of the pair leaves a node: for `packet` itself, or for those without a way of their own.
Port* Fabric::Pick(const Device& at, const QueuePair& qp, bool data, const PacketRecord* packet) {
  const int32_t from = data ? qp.src : qp.dst, to = data ? qp.dst : qp.src;
  const int32_t node = GraphNode(at);
  // An endpoint with a stand-in has one cable, which is the last one of the stand-in's.
  if (stand_in_ != INT32_MAX && at.node != node && node == to) return at.ports.back();
  if (stand_in_ != INT32_MAX && static_cast<size_t>(at.node) < hosts_) return at.ports.back();
  uint64_t label = qp.index;
  if (packet != nullptr) {
    if (routes_->routing() == astra_net::Routing::kAdaptive) return LeastWaiting(at, qp);
    label |= (packet->seq + 1) << 16;
  }
  const int32_t link = routes_->next(from, to, node, label);
  return link < 0 ? nullptr : ports[route_ports_[static_cast<size_t>(link)]].get();
}

// The shortest queue; of equally short ones the next after the one that the hash says.
Port* Fabric::LeastWaiting(const Device& at, const QueuePair& qp) {
  const int32_t node = GraphNode(at);
  const astra_net::Routes::Choice choice = routes_->choices(qp.dst, node);
  const auto count = static_cast<size_t>(choice.count());
  if (count == 0) return nullptr;
  const size_t first = astra_net::flow_hash(qp.src, qp.dst, node, qp.index) % count;
  Port* best = nullptr;
  uint64_t least = UINT64_MAX;
  for (size_t i = 0; i < count; ++i) {
    const auto link = static_cast<size_t>(choice.link((first + i) % count));
    Port* port = ports[route_ports_[link]].get();
    const uint64_t waiting = 2ull * port->waiting_bytes + (port->Busy() ? 1 : 0);
    if (waiting >= least) continue;
    least = waiting;
    best = port;
  }
  return best;
}

void Fabric::FindPath(QueuePair* qp) {
  const auto choose = [this, qp](const Device& at, bool data) {
    if (routes_) return Pick(at, *qp, data, nullptr);
    return data ? Choose(at, qp->src, qp->dst, qp->source_port, kDestinationPort)
                : Choose(at, qp->dst, qp->src, kDestinationPort, qp->source_port);
  };
  const auto walk = [&](int32_t from, int32_t to, bool data, Route* path) {
    path->clear();
    path->epoch = epoch_;
    Port* first = choose(*nodes[static_cast<size_t>(from)], data);
    for (const Port* port = first; port != nullptr && port->peer->owner->node != to;) {
      port = choose(*port->peer->owner, data);
      if (port == nullptr) break;
      path->push_back(ports[port->link].get());
    }
    return first;
  };
  Port* port = walk(qp->src, qp->dst, true, &qp->forward);
  qp->routed = port != nullptr;
  if (qp->routed) qp->port = port;
  qp->receiver_port = walk(qp->dst, qp->src, false, &qp->backward);
  qp->stale = false;
}

Port* Fabric::NextHop(const Device& at, PacketRecord* packet) {
  const QueuePair* qp = packet->qp;
  const bool data = packet->kind == PacketKind::kData;
  if (reorders_ && data) return Pick(at, *qp, true, packet);
  const Route& path = data ? qp->forward : qp->backward;
  if (packet->epoch == epoch_ && packet->egress != nullptr && packet->egress->owner == &at) {
    Port* egress = packet->egress;
    ++packet->hop;
    packet->egress = packet->hop < packet->hops ? path[packet->hop] : nullptr;
    return egress;
  }
  if (packet->epoch == path.epoch && packet->hop < path.size() && path[packet->hop]->owner == &at)
    return path[packet->hop++];
  // The routes have changed since it was sent: look it up like a switch would.
  if (routes_) return Pick(at, *qp, data, nullptr);
  return data ? Choose(at, qp->src, qp->dst, qp->source_port, kDestinationPort)
              : Choose(at, qp->dst, qp->src, kDestinationPort, qp->source_port);
}

// ---------------------------------------------------------------------------------------------
// Fabric: running

void Fabric::Start(int64_t id, int32_t src, int32_t dst, uint64_t bytes, uint32_t traffic_class,
                   int64_t start_ps) {
  QueuePair* qp = PairFor(id, src, dst, traffic_class);
  if (replay && qp->routed) replay->Input(qp);
  Message* message = Enqueue(qp, id, bytes, start_ps);
  if (!watching_) {
    watching_ = true;
    sim->After(watch_interval_, this, 0);
  }
  if (!qp->routed) return;  // the watchdog reports it, unless a link comes up
  if (routes_) message->ideal = LeastTicks(qp, bytes);
  if (qp->max_bps == 0) Begin(qp);
  Resume(qp);
}

// The next in turn of the pairs that last, or a new one.
QueuePair* Fabric::PairFor(int64_t id, int32_t src, int32_t dst, uint32_t traffic_class) {
  if (parameters.queue_pairs == 0) return NewPair(id, src, dst, traffic_class, false, 0);
  Channel& channel =
      channels_[static_cast<uint64_t>(src) << 35 | static_cast<uint64_t>(dst) << 3 | traffic_class];
  const uint32_t turn = channel.turn;
  channel.turn = (turn + 1) % parameters.queue_pairs;
  if (turn < channel.pairs.size()) {
    if (channel.pairs[turn]->stale) Reroute(channel.pairs[turn]);
    return channel.pairs[turn];
  }
  channel.pairs.push_back(
      NewPair(static_cast<int64_t>(pairs_.size()), src, dst, traffic_class, true, turn));
  return channel.pairs.back();
}

QueuePair* Fabric::NewPair(int64_t id, int32_t src, int32_t dst, uint32_t traffic_class,
                           bool lasting, uint32_t index) {
  if (free_pairs_.empty()) {
    pairs_.push_back(std::make_unique<QueuePair>());
    free_pairs_.push_back(pairs_.back().get());
  }
  QueuePair* qp = free_pairs_.back();
  free_pairs_.pop_back();
  qp->id = id;
  qp->src = src;
  qp->dst = dst;
  qp->bytes = qp->packets = 0;
  qp->lasting = lasting;
  qp->fabric = this;
  auto& source_ports = next_source_port_[static_cast<size_t>(src)];
  if (source_ports.empty()) source_ports.assign(hosts_, kFirstSourcePort);
  qp->source_port = source_ports[static_cast<size_t>(dst)]++;
  qp->index = lasting ? index : qp->source_port - kFirstSourcePort;
  qp->queue = static_cast<uint8_t>(3 + traffic_class);
  qp->next_seq = qp->acked_seq = 0;
  // The fork acknowledges by rules of its own: whoever is bound by the window waits.
  qp->requested_seq = parameters.upstream_order ? UINT64_MAX : 0;
  qp->expected_seq = qp->nacked_seq = 0;
  qp->nack_until = qp->cnp_until = 0;
  qp->marked_since = false;
  qp->repair.reset();
  qp->next_available = qp->progress = sim->NowTick();
  qp->port = nullptr;
  qp->max_bps = qp->bps = 0;  // until it has a route
  qp->last_wire_bytes = 0;
  qp->timeouts = 0;
  qp->ideal_bytes = 0;
  qp->in_network = 0;
  qp->listed = qp->acknowledged = qp->active = false;
  qp->run = nullptr;
  qp->timer.fill(0);
  FindPath(qp);
  UseClass(traffic_class);
  SetWindow(qp);
  return qp;
}

Message* Fabric::Enqueue(QueuePair* qp, int64_t id, uint64_t bytes, int64_t start_ps) {
  if (free_messages_ == nullptr) {
    constexpr size_t kBlock = 256;
    message_blocks_.emplace_back(new Message[kBlock]);
    for (size_t i = 0; i < kBlock; ++i) {
      message_blocks_.back()[i].next = free_messages_;
      free_messages_ = &message_blocks_.back()[i];
    }
  }
  Message* message = free_messages_;
  free_messages_ = message->next;
  const Tick now = sim->NowTick();
  message->next = nullptr;
  message->id = id;
  message->begin = qp->bytes;
  message->end = qp->bytes + bytes;
  message->first_packet = qp->packets;
  message->start_ps = static_cast<uint64_t>(start_ps);
  message->start = now;
  message->ideal = kNeverTick;
  message->retransmitted = 0;
  if (qp->Finished()) {
    qp->progress = now;
    qp->timeouts = 0;
  }
  qp->packets += (bytes + parameters.mtu_bytes - 1) / parameters.mtu_bytes;
  qp->bytes += bytes;
  if (qp->oldest == nullptr) {
    qp->oldest = message;
  } else {
    qp->newest->next = message;
  }
  qp->newest = message;
  if (qp->sending == nullptr) {
    qp->sending = message;
    qp->send_end = message->end;
  }
  if (qp->receiving == nullptr) {
    qp->receiving = message;
    qp->receive_end = message->end;
  }
  ++active_;
  ++disturbances;
  return message;
}

// A window of one bandwidth-delay product.  What the fork counts as the delay are two latencies and
// one packet's transmissions; a product that holds a link busy has those of headers and of the
// acknowledgement too, and the bytes for which none has been asked yet.
void Fabric::SetWindow(QueuePair* qp) {
  const bool global = parameters.window == "global";
  if (!routes_) {
    const Path path = PathOf(qp->src, qp->dst);
    const Tick rtt = path.delay < 0 ? 0 : 2 * path.delay + path.transmit;
    qp->base_rtt = global ? max_rtt : rtt;
    qp->bdp_bytes = global           ? max_bdp
                    : path.delay < 0 ? 0
                                     : std::max<uint64_t>(1, Bdp(rtt, path.bps));
    qp->window = parameters.window == "none" ? 0 : qp->bdp_bytes;
  } else if (qp->routed) {
    Tick rtt = 0;
    int64_t bps = qp->port->nominal_bps;
    const auto add = [&](const Port* port, uint32_t bytes) {
      rtt += port->delay + Ticks(bytes, port->nominal_bps);
    };
    add(qp->port, parameters.mtu_bytes + parameters.header_bytes);
    for (uint32_t hop = 0; hop < qp->forward.size(); ++hop) {
      add(qp->forward[hop], parameters.mtu_bytes + parameters.header_bytes);
      bps = std::min(bps, qp->forward[hop]->nominal_bps);
    }
    if (qp->receiver_port != nullptr) add(qp->receiver_port, parameters.ack_bytes);
    for (uint32_t hop = 0; hop < qp->backward.size(); ++hop)
      add(qp->backward[hop], parameters.ack_bytes);
    qp->base_rtt = global ? std::max(max_rtt, rtt) : rtt;
    qp->bdp_bytes = std::max(global ? max_bdp : uint64_t{1}, Bdp(rtt, bps));
    const uint64_t unasked =
        std::max<uint64_t>(parameters.ack_interval_bytes, parameters.mtu_bytes) -
        parameters.mtu_bytes;
    qp->window = parameters.window == "none" ? 0 : qp->bdp_bytes + unasked;
  }
  if (parameters.telemetry && !parameters.telemetry_exact && qp->forward.size() > kForkTelemetry &&
      blind_transfers++ == 0)
    on_notice("HPCC: a path has " + std::to_string(qp->forward.size()) +
              " switches; a packet of "
              "ASTRA-sim's fork has room for the telemetry of " +
              std::to_string(kForkTelemetry) +
              ": such transfers stay at line rate (compatibility=none has no such limit)");
  qp->current_window = qp->window;
}

void Fabric::Begin(QueuePair* qp) {
  if (routes_) SetWindow(qp);
  qp->max_bps = qp->bps = qp->port->bps;
  control->Begin(*qp);
}

void Fabric::Resume(QueuePair* qp) {
  if (qp->listed)
    qp->Changed();
  else
    qp->port->pairs.Add(qp);
  qp->port->RequestService();
}

// Ways have changed: what is under way may be the faster for having had two.
void Fabric::Reroute(QueuePair* qp) {
  FindPath(qp);
  qp->ideal_bytes = 0;
  for (Message* message = qp->oldest; message != nullptr; message = message->next)
    message->ideal = std::min(message->ideal, LeastOnAnyRoute(*qp, message->Bytes()));
  if (qp->routed && qp->max_bps == 0) Begin(qp);
}

// Store and forward of whole packets and a last one, which is the shorter: all of them follow one
// another at the narrowest link up to some hop, from which on the last one decides.
Tick Fabric::LeastOnRoute(const QueuePair& qp, uint64_t packets, uint32_t last) const {
  const uint32_t whole = parameters.mtu_bytes + parameters.header_bytes;
  const uint32_t rest = last + parameters.header_bytes;
  Tick delay = 0, before = 0, slowest = 0, after = 0, most = 0;
  const auto at = [&qp](uint32_t hop) { return hop == 0 ? qp.port : qp.forward[hop - 1]; };
  const uint32_t hops = 1 + qp.forward.size();
  for (uint32_t hop = 0; hop < hops; ++hop) {
    delay += at(hop)->delay;
    after += Ticks(rest, at(hop)->best_bps);
  }
  if (packets == 1) return delay + after;
  for (uint32_t hop = 0; hop < hops; ++hop) {
    const Tick one = Ticks(whole, at(hop)->best_bps);
    before += one;
    slowest = std::max(slowest, one);
    most = std::max(most, before + static_cast<Tick>(packets - 2) * slowest + after);
    after -= Ticks(rest, at(hop)->best_bps);
  }
  return delay + most;
}

// Whatever the way: all bytes leave the sender by its cables, and come to the receiver by its own.
Tick Fabric::LeastOnAnyRoute(const QueuePair& qp, uint64_t bytes) const {
  const uint64_t packets = (bytes + parameters.mtu_bytes - 1) / parameters.mtu_bytes;
  const auto wire = static_cast<double>(bytes + packets * parameters.header_bytes);
  Tick longest = 0, delays = 0, longest_delay = 0;
  bool direct = false;
  for (const int32_t end : {qp.src, qp.dst}) {
    int64_t bps = 0;
    Tick delay = kNeverTick;
    for (const Port* port : nodes[static_cast<size_t>(end)]->ports) {
      const Port* used = end == qp.src ? port : port->peer;
      direct = direct || port->peer->owner->node == (end == qp.src ? qp.dst : qp.src);
      bps += used->best_bps;
      delay = std::min(delay, used->delay);
    }
    if (bps == 0) return 0;
    longest = std::max(longest, Ticks(wire, bps) - static_cast<Tick>(packets));  // each is rounded
    longest_delay = std::max(longest_delay, delay);
    delays += delay;
  }
  return std::max<Tick>(longest, 0) + (direct ? longest_delay : delays);
}

// A transfer often has the size of the one before it.
Tick Fabric::LeastTicks(QueuePair* qp, uint64_t bytes) {
  if (qp->ideal_bytes == bytes) return qp->ideal;
  const uint64_t packets = (bytes + parameters.mtu_bytes - 1) / parameters.mtu_bytes;
  const uint64_t last = bytes - (packets - 1) * parameters.mtu_bytes;
  qp->ideal_bytes = bytes;
  qp->ideal = reorders_ ? LeastOnAnyRoute(*qp, bytes)
                        : LeastOnRoute(*qp, packets, static_cast<uint32_t>(last));
  if (parameters.complete_at_ack && qp->receiver_port != nullptr) {
    const auto add = [&](const Port* port) {
      qp->ideal += port->delay + Ticks(parameters.ack_bytes, port->best_bps);
    };
    add(qp->receiver_port);
    for (uint32_t hop = 0; hop < qp->backward.size(); ++hop) add(qp->backward[hop]);
  }
  return qp->ideal;
}

Tick Fabric::IdealTicks(const QueuePair& qp, const Message& message) {
  if (routes_) return message.ideal == kNeverTick ? 0 : message.ideal;
  // As the fork has it: two delays, a packet's transmissions, and everything at the bottleneck,
  // each packet with 48 bytes of headers.
  const Path path = PathOf(qp.src, qp.dst);
  const double mtu = parameters.mtu_bytes, bytes = static_cast<double>(message.Bytes());
  const double packets = std::ceil(bytes / mtu);
  return 2 * path.delay + path.transmit +
         static_cast<Tick>((bytes + packets * 48) * 8e12 / static_cast<double>(parameters.tick_ps) /
                           static_cast<double>(path.bps));
}

void Fabric::Deliver(QueuePair* qp) {
  while (qp->receiving != nullptr && qp->expected_seq >= qp->receive_end) {
    const Message* message = qp->receiving;
    ++disturbances;
    qp->receiving = message->next;
    qp->receive_end = message->next == nullptr ? UINT64_MAX : message->next->end;
    if (!parameters.complete_at_ack) on_complete(*qp, *message, sim->NowTick());
  }
  if (replay) replay->Arrived(qp);
}

void Fabric::Acknowledge(QueuePair* qp) {
  if (!qp->lasting && qp->Finished()) {
    qp->acknowledged = true;
    control->End(*qp);
  }
  while (qp->oldest != nullptr && qp->acked_seq >= qp->oldest->end) {
    Message* message = qp->oldest;
    qp->oldest = message->next;
    if (qp->oldest == nullptr) qp->newest = nullptr;
    if (qp->sending == message) {
      qp->sending = message->next;
      if (qp->sending != nullptr) qp->send_end = qp->sending->end;
    }
    --active_;
    ++disturbances;
    static_cast<RdmaNic*>(ns3::PeekPointer(nodes[static_cast<size_t>(qp->src)]))
        ->trace_complete(message->id, static_cast<uint64_t>(sim->NowTick() - message->start));
    if (parameters.complete_at_ack) on_complete(*qp, *message, sim->NowTick());
    message->next = free_messages_;
    free_messages_ = message;
  }
  if (replay) replay->Acknowledged(qp);
}

void Fabric::Repeat(QueuePair* qp, uint64_t begin, uint64_t end) {
  ++retransmissions;
  for (Message* message = qp->oldest; message != nullptr && message->begin < end;
       message = message->next)
    if (message->end > begin)
      message->retransmitted += std::min(end, message->end) - std::max(begin, message->begin);
}

void Fabric::Release(QueuePair* qp) {
  if (qp->acknowledged && !qp->listed && qp->in_network == 0) free_pairs_.push_back(qp);
}

void Fabric::Free(PacketRecord* packet) {
  if (parameters.telemetry && packet->qp != nullptr && packet->telemetry != nullptr) {
    packet->telemetry->next_free = free_telemetry_;
    free_telemetry_ = packet->telemetry;
  }
  QueuePair* qp = packet->qp;
  packet->next = free_packets_;
  free_packets_ = packet;
  if (qp != nullptr && --qp->in_network == 0) {
    if (replay && qp->Finished()) replay->Ended(qp);
    Release(qp);
  }
}

Telemetry* Fabric::NewTelemetry() {
  if (free_telemetry_ == nullptr) {
    constexpr size_t kBlock = 256;
    telemetry_blocks_.emplace_back(new Telemetry[kBlock]);
    for (size_t i = 0; i < kBlock; ++i) {
      telemetry_blocks_.back()[i].next_free = free_telemetry_;
      free_telemetry_ = &telemetry_blocks_.back()[i];
    }
  }
  Telemetry* telemetry = free_telemetry_;
  free_telemetry_ = telemetry->next_free;
  telemetry->hops = 0;
  return telemetry;
}

void Fabric::SetLink(uint32_t link, double scale) {
  Port& port = *ports[link];
  const bool was_up = port.up;
  ++disturbances;
  if (replay) replay->MakeUp();
  if (scale == 0) {
    if (!was_up) return;
    port.TakeDown();
  } else {
    port.bps =
        std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(port.nominal_bps) * scale));
    port.tx_cache_ = {};
    port.up = true;
    watch_interval_ = std::max(watch_interval_, HopTicks(port));
    if (port.bps > port.best_bps) {
      port.best_bps = port.bps;
      for (auto& pair : pairs_) {
        pair->ideal_bytes = 0;
        for (Message* message = pair->oldest; message != nullptr; message = message->next)
          message->ideal = std::min(message->ideal, LeastOnAnyRoute(*pair, message->Bytes()));
      }
    }
  }
  if (port.up != was_up) {
    ++epoch_;
    for (auto& table : tables_) table.reset();
    if (routes_) MakeRoutes();
    for (size_t host = 0; host < hosts_; ++host)
      for (Port* other : nodes[host]->ports)
        for (QueuePair* qp : other->pairs.Clear()) Release(qp);
    // Pairs go on, from their first unacknowledged byte only when a timeout says so.
    for (auto& pair : pairs_) {
      QueuePair* qp = pair.get();
      if (qp->acknowledged) continue;
      qp->stale = qp->Finished();
      if (qp->stale) continue;
      Reroute(qp);
      if (qp->routed) qp->port->pairs.Add(qp);
    }
    for (size_t host = 0; host < hosts_; ++host)
      for (Port* other : nodes[host]->ports) other->RequestService();
  }
  if (replay) replay->Recount();
  for (auto& pair : pairs_)
    if (!pair->acknowledged && pair->max_bps > 0) control->OnPortRate(*pair);
  if (port.up) port.RequestService();
}

// The time that a full packet takes over a link; what a wait has to be compared with.
Tick Fabric::HopTicks(const Port& port) const {
  return Ticks(parameters.mtu_bytes + parameters.header_bytes, port.bps) + port.delay;
}

// Whether `qp` waits for something that was sent and is nowhere any more.  What is still under way
// or queued is late, not lost, and so is a pair whose turn at its port has not come: a simulator
// knows, and need not guess.
bool Fabric::Lost(QueuePair* qp, Tick now) {
  if (qp->in_network > 0) return false;
  const bool asked = qp->next_seq > qp->acked_seq && qp->requested_seq > qp->acked_seq;
  if (!qp->routed || (asked && qp->LostBytes() == 0)) return true;
  const bool paused = (qp->port->paused >> qp->queue & 1) != 0;
  if (!paused && !qp->port->Busy() && qp->next_available <= now) qp->port->RequestService();
  return false;
}

// The watchdog: retransmission timeouts of all pairs, and networks that stand still.
void Fabric::Fire(uint32_t, uint64_t) {
  watching_ = false;
  ++disturbances;
  if (active_ == 0) return;
  const Tick now = sim->NowTick();
  Tick next = now + watch_interval_;
  // Nothing has to move by itself as long as something is under way or waits for its time.
  bool waiting = on_wire > 0;
  for (auto& pair : pairs_) {
    QueuePair* qp = pair.get();
    if (qp->Finished()) continue;
    if (qp->routed && qp->port->left_out) {  // no packet of it is lost
      next = std::min(next, now + parameters.retransmit_timeout);
      waiting = true;
      continue;
    }
    // Exponential backoff, at most 64 times the timeout.
    const Tick patience = parameters.retransmit_timeout << std::min<uint32_t>(qp->timeouts, 6);
    if (now < qp->progress + patience) {
      next = std::min(next, qp->progress + patience);
      waiting = true;
      continue;
    }
    if (!Lost(qp, now)) {
      waiting = waiting || (qp->Able() && !(qp->port->paused >> qp->queue & 1));
      continue;
    }
    if (qp->timeouts >= parameters.retransmit_limit) {
      on_failure("gave up after " + std::to_string(qp->timeouts) + " timeouts" + WhereStuck());
      return;
    }
    ++qp->timeouts;
    ++timeouts;
    qp->progress = now;
    waiting = true;
    TimedOut(qp);
    if (qp->routed) Resume(qp);
  }
  if (!waiting && on_wire == 0) {
    on_failure("deadlock: nothing has moved and nothing can: what is left waits for pauses to end" +
               WhereStuck());
    return;
  }
  watching_ = true;
  sim->After(std::max<Tick>(next - now, 1), this, 0);
}

// What the sender then learns, by asking for an acknowledgement of its first byte, is which bytes
// the receiver has.
void Fabric::TimedOut(QueuePair* qp) {
  ++disturbances;
  if (!parameters.selective) {
    if (qp->next_seq > qp->acked_seq) Repeat(qp, qp->acked_seq, qp->next_seq);
    qp->GoBack();
    return;
  }
  Repair& repair = qp->Repairs();
  repair.lost.clear();
  repair.unsent = 0;
  const auto lose = [&](uint64_t begin, uint64_t end) {
    if (begin >= end) return;
    repair.Lose(begin, end);
    Repeat(qp, begin, end);
  };
  uint64_t missing = qp->acked_seq;
  if (qp->expected_seq > missing) {  // only its acknowledgement
    const Message* message = qp->Find(missing);
    lose(missing, std::min(missing + parameters.mtu_bytes, message->end));
    missing = qp->expected_seq;
  }
  for (const ByteRange& range : repair.held) {
    lose(missing, range.begin);
    missing = range.end;
  }
  lose(missing, qp->next_seq);
}

std::string Fabric::WhereStuck() const {
  std::string text;
  int named = 0;
  for (const auto& pair : pairs_) {
    const QueuePair& qp = *pair;
    for (const Message* message = qp.oldest; message != nullptr; message = message->next) {
      if (++named > 3) break;
      const uint64_t done = std::max(qp.acked_seq, message->begin) - message->begin;
      text += (named == 1 ? "; waiting: transfer " : ", transfer ") + std::to_string(message->id) +
              " (" + std::to_string(qp.src) + " -> " + std::to_string(qp.dst) + ", " +
              std::to_string(done) + " of " + std::to_string(message->Bytes()) + " bytes" +
              (!qp.routed || qp.receiver_port == nullptr ? ", no route" : "") + ")";
    }
    if (named > 3) break;
  }
  if (static_cast<int>(active_) > named) text += ", of " + std::to_string(active_);
  return text;
}

}  // namespace astra_ns3
