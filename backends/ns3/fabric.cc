// SPDX-License-Identifier: MIT
#include "fabric.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

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
  port->nominal_bps = port->bps = bps;
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

void Fabric::FindPath(QueuePair* qp) {
  const auto walk = [this](const Device& from, int32_t source, int32_t to, uint16_t sport,
                           uint16_t dport, Route* path) {
    path->clear();
    path->epoch = epoch_;
    Port* first = Choose(from, source, to, sport, dport);
    for (const Port* port = first; port != nullptr && port->peer->owner->node != to;) {
      port = Choose(*port->peer->owner, source, to, sport, dport);
      if (port == nullptr) break;
      path->push_back(ports[port->link].get());
    }
    return first;
  };
  const Device& sender = *nodes[static_cast<size_t>(qp->src)];
  const Device& receiver = *nodes[static_cast<size_t>(qp->dst)];
  Port* port = walk(sender, qp->src, qp->dst, qp->source_port, kDestinationPort, &qp->forward);
  qp->routed = port != nullptr;
  if (qp->routed) qp->port = port;
  qp->receiver_port =
      walk(receiver, qp->dst, qp->src, kDestinationPort, qp->source_port, &qp->backward);
}

Port* Fabric::NextHop(const Device& at, PacketRecord* packet) {
  const QueuePair* qp = packet->qp;
  const bool data = packet->kind == PacketKind::kData;
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
  return data ? Choose(at, qp->src, qp->dst, qp->source_port, kDestinationPort)
              : Choose(at, qp->dst, qp->src, kDestinationPort, qp->source_port);
}

// ---------------------------------------------------------------------------------------------
// Fabric: running

void Fabric::Start(int64_t id, int32_t src, int32_t dst, uint64_t bytes, uint32_t traffic_class,
                   int64_t start_ps) {
  if (free_pairs_.empty()) {
    pairs_.push_back(std::make_unique<QueuePair>());
    free_pairs_.push_back(pairs_.back().get());
  }
  QueuePair* qp = free_pairs_.back();
  free_pairs_.pop_back();
  qp->id = id;
  qp->src = src;
  qp->dst = dst;
  qp->bytes = bytes;
  qp->fabric = this;
  auto& source_ports = next_source_port_[static_cast<size_t>(src)];
  if (source_ports.empty()) source_ports.assign(hosts_, kFirstSourcePort);
  qp->source_port = source_ports[static_cast<size_t>(dst)]++;
  qp->queue = static_cast<uint8_t>(3 + traffic_class);
  qp->next_seq = qp->acked_seq = 0;
  qp->expected_seq = qp->nacked_seq = 0;
  qp->nack_until = qp->cnp_until = 0;
  qp->next_available = qp->start = qp->progress = sim->NowTick();
  qp->start_ps = static_cast<uint64_t>(start_ps);
  qp->port = nullptr;
  qp->max_bps = qp->bps = 0;  // until it has a route
  qp->last_wire_bytes = 0;
  qp->timeouts = 0;
  qp->retransmitted = 0;
  qp->in_network = 0;
  qp->listed = qp->acknowledged = qp->delivered = false;
  qp->timer.fill(0);
  FindPath(qp);
  ++active_;

  UseClass(traffic_class);
  const Path path = PathOf(src, dst);
  const bool global = parameters.window == "global";
  const Tick rtt = path.delay < 0 ? 0 : 2 * path.delay + path.transmit;
  qp->base_rtt = global ? max_rtt : rtt;
  qp->bdp_bytes = global ? max_bdp : path.delay < 0 ? 0 : std::max<uint64_t>(1, Bdp(rtt, path.bps));
  qp->window = parameters.window == "none" ? 0 : qp->bdp_bytes;
  if (parameters.telemetry && !parameters.telemetry_exact && qp->forward.size() > kForkTelemetry &&
      blind_transfers++ == 0)
    on_notice("HPCC: a path has " + std::to_string(qp->forward.size()) +
              " switches; a packet of "
              "ASTRA-sim's fork has room for the telemetry of " +
              std::to_string(kForkTelemetry) +
              ": such transfers stay at line rate (compatibility=none has no such limit)");
  qp->current_window = qp->window;
  if (!watching_) {
    watching_ = true;
    sim->After(watch_interval_, this, 0);
  }
  if (!qp->routed) return;  // the watchdog reports it, unless a link comes up
  qp->max_bps = qp->bps = qp->port->bps;
  control->Begin(*qp);
  static_cast<RdmaNic*>(ns3::PeekPointer(nodes[static_cast<size_t>(src)]))->Add(qp);
}

Tick Fabric::IdealTicks(const QueuePair& qp) {
  const Path path = PathOf(qp.src, qp.dst);
  const double mtu = parameters.mtu_bytes, bytes = static_cast<double>(qp.bytes);
  const double packets = std::ceil(bytes / mtu);
  if (parameters.complete_at_ack) {
    // As the fork has it: two delays, a packet's transmissions, and everything at the bottleneck,
    // each packet with 48 bytes of headers.
    return 2 * path.delay + path.transmit +
           static_cast<Tick>((bytes + packets * 48) * 8e12 /
                             static_cast<double>(parameters.tick_ps) /
                             static_cast<double>(path.bps));
  }
  const double header = parameters.header_bytes;
  const double first = std::min(bytes, mtu) + header;
  return path.delay + static_cast<Tick>(static_cast<double>(path.transmit) * first / mtu) +
         Ticks(bytes + packets * header - first, path.bps);
}

void Fabric::Deliver(QueuePair* qp) {
  qp->delivered = true;
  if (!parameters.complete_at_ack) on_complete(*qp, sim->NowTick());
}

void Fabric::Acknowledged(QueuePair* qp) {
  qp->acknowledged = true;
  control->End(*qp);
  --active_;
  if (parameters.complete_at_ack) on_complete(*qp, sim->NowTick());
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
  if (qp != nullptr && --qp->in_network == 0) Release(qp);
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
  if (scale == 0) {
    if (!was_up) return;
    port.TakeDown();
  } else {
    port.bps =
        std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(port.nominal_bps) * scale));
    port.tx_cache_ = {};
    port.up = true;
    watch_interval_ = std::max(watch_interval_, HopTicks(port));
  }
  if (port.up != was_up) {
    ++epoch_;
    for (auto& table : tables_) table.reset();
    for (size_t host = 0; host < hosts_; ++host)
      for (Port* other : nodes[host]->ports)
        for (QueuePair* qp : other->pairs.Clear()) Release(qp);
    // Pairs go on, from their first unacknowledged byte only when a timeout says so.
    for (auto& pair : pairs_) {
      QueuePair* qp = pair.get();
      if (qp->acknowledged) continue;
      FindPath(qp);
      if (!qp->routed) continue;
      if (qp->max_bps == 0) {
        qp->max_bps = qp->bps = qp->port->bps;
        control->Begin(*qp);
      }
      qp->port->pairs.Add(qp);
    }
    for (size_t host = 0; host < hosts_; ++host)
      for (Port* other : nodes[host]->ports) other->RequestService();
  }
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
  if (!qp->routed || qp->next_seq > qp->acked_seq) return true;
  const bool paused = (qp->port->paused >> qp->queue & 1) != 0;
  if (!paused && !qp->port->Busy() && qp->next_available <= now) qp->port->RequestService();
  return false;
}

// The watchdog: retransmission timeouts of all pairs, and networks that stand still.
void Fabric::Fire(uint32_t, uint64_t) {
  watching_ = false;
  if (active_ == 0) return;
  const Tick now = sim->NowTick();
  Tick next = now + watch_interval_;
  // Nothing has to move by itself as long as something is under way or waits for its time.
  bool waiting = on_wire > 0;
  for (auto& pair : pairs_) {
    QueuePair* qp = pair.get();
    if (qp->acknowledged) continue;
    // Exponential backoff, at most 64 times the timeout.
    const Tick patience = parameters.retransmit_timeout << std::min<uint32_t>(qp->timeouts, 6);
    if (now < qp->progress + patience) {
      next = std::min(next, qp->progress + patience);
      waiting = true;
      continue;
    }
    if (!Lost(qp, now)) {
      waiting = waiting ||
                (qp->BytesLeft() > 0 && !qp->WindowBound() && !(qp->port->paused >> qp->queue & 1));
      continue;
    }
    if (qp->timeouts >= parameters.retransmit_limit) {
      failure = "gave up after " + std::to_string(qp->timeouts) + " timeouts" + WhereStuck();
      stop = true;
      return;
    }
    ++qp->timeouts;
    ++timeouts;
    qp->progress = now;
    waiting = true;
    if (qp->next_seq > qp->acked_seq) {
      qp->retransmitted += qp->next_seq - qp->acked_seq;
      ++retransmissions;
    }
    qp->next_seq = qp->acked_seq;
    if (qp->routed) {
      if (qp->listed)
        qp->Changed();
      else
        qp->port->pairs.Add(qp);
      qp->port->RequestService();
    }
  }
  if (!waiting && on_wire == 0) {
    failure = "deadlock: nothing has moved and nothing can: what is left waits for pauses to end" +
              WhereStuck();
    stop = true;
    return;
  }
  watching_ = true;
  sim->After(std::max<Tick>(next - now, 1), this, 0);
}

std::string Fabric::WhereStuck() const {
  std::string text;
  int named = 0;
  for (const auto& pair : pairs_) {
    const QueuePair& qp = *pair;
    if (qp.acknowledged) continue;
    if (++named > 3) break;
    text += (named == 1 ? "; waiting: transfer " : ", transfer ") + std::to_string(qp.id) + " (" +
            std::to_string(qp.src) + " -> " + std::to_string(qp.dst) + ", " +
            std::to_string(qp.acked_seq) + " of " + std::to_string(qp.bytes) + " bytes" +
            (!qp.routed || qp.receiver_port == nullptr ? ", no route" : "") + ")";
  }
  if (static_cast<int>(active_) > named) text += ", of " + std::to_string(active_);
  return text;
}

}  // namespace astra_ns3
