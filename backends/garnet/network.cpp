// SPDX-License-Identifier: MIT
#include "network.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <queue>
#include <sstream>

namespace garnet {
namespace {

__extension__ typedef __int128 Wide;

constexpr uint32_t kNone = UINT32_MAX;
constexpr uint16_t kNoRoute = UINT16_MAX;
constexpr uint32_t kInterface = 1u << 31;  // a component that is a network interface
constexpr int kFraction = 16;              // bits after the point of a link's busy time
constexpr int64_t kDown = INT64_MAX;       // the busy time of a link that is down
constexpr int64_t kMaxWheel = 8192;        // cycles; events further away wait in a map
constexpr size_t kMaxSlots = size_t{1} << 26;
constexpr size_t kAhead = 4;               // events whose memory is fetched before their turn

// The set of VCs of a port: one machine word in the usual case, several for many VCs.
template <int W>
struct Bits {
  uint64_t word[W] = {};

  void set(uint32_t i) { word[i >> 6] |= uint64_t{1} << (i & 63); }
  void clear(uint32_t i) { word[i >> 6] &= ~(uint64_t{1} << (i & 63)); }
  bool test(uint32_t i) const { return word[i >> 6] >> (i & 63) & 1; }
  bool any() const {
    uint64_t all = 0;
    for (uint64_t w : word) all |= w;
    return all != 0;
  }
  Bits operator&(const Bits& other) const {
    Bits result;
    for (int w = 0; w < W; ++w) result.word[w] = word[w] & other.word[w];
    return result;
  }
  uint32_t first() const {
    for (int w = 0; w < W; ++w)
      if (word[w]) return static_cast<uint32_t>(w * 64 + __builtin_ctzll(word[w]));
    return kNone;
  }
  // The first member, in circular order from `start`, for which accept() is true; else kNone.
  template <class Accept>
  uint32_t scan(uint32_t start, Accept&& accept) const {
    if constexpr (W == 1) {  // rotated, so that one loop over the set bits is in order
      uint64_t bits = word[0] >> start | word[0] << (-start & 63);
      for (; bits; bits &= bits - 1) {
        const uint32_t i = (static_cast<uint32_t>(__builtin_ctzll(bits)) + start) & 63;
        if (accept(i)) return i;
      }
      return kNone;
    }
    const int first_word = static_cast<int>(start >> 6);
    const uint64_t upper = ~uint64_t{0} << (start & 63);
    for (int step = 0; step <= W; ++step) {
      const int w = (first_word + step) % W;
      uint64_t bits = word[w];
      if (step == 0) bits &= upper;
      if (step == W) bits &= ~upper;
      for (; bits; bits &= bits - 1) {
        const auto i = static_cast<uint32_t>(w * 64 + __builtin_ctzll(bits));
        if (accept(i)) return i;
      }
    }
    return kNone;
  }
};

template <int W>
class Core final : public Network {
 public:
  explicit Core(const Config& config);
  std::unique_ptr<Network> clone() const override { return std::make_unique<Core>(*this); }

  bool has_route(int32_t src, int32_t dst) const override;
  int32_t first_dimension(int32_t src, int32_t dst) const override;
  int64_t zero_load_cycles(int32_t src, int32_t dst, int64_t bytes) const override;
  void enqueue(const Message& message) override;
  void change_link(const LinkChange& change) override;
  int64_t next_cycle() const override;
  void run(int64_t cycle) override;
  int64_t in_flight() const override { return in_flight_; }
  std::string find_deadlock(bool all) const override;
  std::vector<int32_t> links_waited_for() const override;
  std::vector<LinkLoad> link_loads() const override;
  std::vector<NodeLoad> node_loads() const override;
  std::vector<uint64_t> router_flits() const override;
  Series series() const override;

 private:
  // A directed connection has an input port at its end and an output port at its source.  Links
  // are numbered in the order of input ports; outputs, numbered by source, lie together too.
  struct alignas(64) Input {
    Bits<W> occupied;       // VCs with flits
    uint32_t dst = 0;       // router, or kInterface | node
    uint32_t port = 0;      // number of the input port there
    uint32_t next_vc = 0;   // stage I starts at this VC
    uint32_t output = 0;    // the other side
    uint64_t waiting = 0;   // sum of departures - sum of arrivals; wraps
    uint32_t credit_delay = 0;
    int32_t channel = -1;   // index into config.channels, or -1
  };
  struct alignas(64) Output {
    Bits<W> idle;           // VCs that no packet holds
    Bits<W> credit;         // VCs with a free slot at the end
    uint32_t link = 0;      // the other side
    uint32_t src = 0;       // router, or kInterface | node
    uint32_t next_in = 0;   // stage II starts at this input port
    uint32_t flit_delay = 0;
    uint64_t flits = 0;
    int64_t busy = 0;       // cycles per flit << kFraction; 0 where always one; or kDown
    int64_t free_at = 0;    // cycle, plus free_part >> kFraction
    uint32_t free_part = 0;
    int16_t ring = -1;      // dimension of the ring that it is part of, or -1
    bool dateline = false;
    bool channel = false;   // goes to a router
  };
  // VC k of a link: the input VC at its end.
  struct Vc {
    uint32_t packet = 0;
    uint32_t out = kNone;   // output of the packet at its front
    uint32_t down = kNone;  // VC that the packet got there
    uint32_t left = 0;      // flits of the packet that have not left this VC
    uint32_t count = 0;     // flits in the buffer
    uint32_t vc_class = 0;  // which VCs of the output the packet may take
  };
  struct Router {
    uint32_t first_in = 0, inputs = 0, first_out = 0;
    uint32_t ports = 0;  // index of the first word of its set of occupied input ports
    uint32_t port_words = 0;
    uint32_t flits = 0;  // in all input buffers
  };
  struct Interface {
    Bits<W> queued;        // VCs with flits to send
    uint32_t last_vc = 0;  // winner of the last cycle
    uint32_t link = 0;     // to the router
    uint32_t waiting = 0;  // bit per vnet: messages queue for a VC
    uint64_t injected = 0, ejected = 0;
    int64_t max_queue = 0;
  };
  struct Queue {  // messages of one node and vnet, first in first out
    uint32_t head = kNone, tail = kNone;
    uint32_t next_vc = 0;  // where the search for an idle VC starts
  };
  struct MessageState {
    Message message;
    int64_t bytes_left = 0;  // not yet in packets
    int64_t open_packets = 0;
    int64_t first_pick = -1, packets = 0, flits = 0, queueing = 0, network = 0, hops = 0;
    uint32_t next = kNone;
  };
  struct Packet {
    uint32_t message = 0, flits = 0, node = 0, router = 0;
    int32_t hops = 0, ring = -1;
    uint32_t vc_class = 0, src_vc = 0;
    int64_t pick = 0, head_send = 0, tail_send = 0, head_recv = 0;
    uint64_t serial = 0;
  };
  struct Start {
    int64_t cycle, order, id;
    uint32_t state;
    bool operator>(const Start& other) const {
      if (cycle != other.cycle) return cycle > other.cycle;
      if (order != other.order) return order > other.order;
      return id > other.id;
    }
  };
  struct Changed {  // a link whose rate has been changed
    double cycles_per_flit = 0;  // now; 0: down
    std::vector<uint32_t> held;  // slots of the flits that wait until it is up
    uint64_t crossed = 0;        // flits that began to cross it before the last change,
    double extra_cycles = 0;     // and what they took beyond the rate of the configuration
  };
  struct Best {
    uint32_t distance = kNone, port = 0, vc = 0;
  };
  struct Progress {
    uint64_t serial = 0;
    uint32_t left = 0;
  };

  static int64_t busy_of(double cycles_per_flit) {
    return static_cast<int64_t>(std::ceil(std::ldexp(cycles_per_flit, kFraction)));
  }
  const Wire& wire_of(const Output& out) const {
    const Input& input = inputs_[out.link];
    if (input.channel >= 0) return config_.channels[static_cast<size_t>(input.channel)].wire;
    return config_.nodes[(out.src & kInterface ? out.src : input.dst) & ~kInterface].wire;
  }
  void add_link(uint32_t src, uint32_t dst, const Wire& wire, int32_t channel);
  uint32_t next_output(uint32_t router, const Packet& packet) const;
  void route(uint32_t slot, uint32_t router);
  void wake(uint32_t component);
  void post(std::vector<std::vector<uint32_t>>& wheel, bool credit, int64_t at, uint32_t event);
  void send(Output& out, uint32_t slot);
  static int64_t cross(Output& out);
  void make_changes();
  void make_change(const LinkChange& change);
  std::vector<std::pair<int64_t, uint32_t>> recall(uint32_t link, int64_t from);
  void credit(uint32_t slot, uint32_t delay, bool tail);
  void take_credit(uint32_t event);
  void take_flit(uint32_t slot);
  void eject(uint32_t slot);
  bool step_interface(uint32_t node);
  bool pick(uint32_t node, uint32_t vnet);
  bool step_router(uint32_t router);
  void grant(Router& router, uint32_t port, uint32_t k, uint32_t out);
  uint32_t choose(uint32_t link) const;
  bool may_go(uint32_t link, uint32_t vc) const;
  bool blocked_by_order(uint32_t link, uint32_t vc) const;
  // The VCs that a packet in VC k may take at its output.
  const Bits<W>& choice(const Vc& vc, uint32_t k) const {
    return choices_[vc.vc_class * vcs_ + k];
  }
  uint32_t vc_of(uint32_t slot) const { return slot & ((1u << shift_) - 1); }
  Output& output_of(uint32_t slot) { return outputs_[inputs_[slot >> shift_].output]; }
  const Output& output_of(uint32_t slot) const { return outputs_[inputs_[slot >> shift_].output]; }
  void check_progress();
  std::vector<uint64_t> channel_flits() const;
  void close_bin(Series& series) const;
  std::string describe(uint32_t slot) const;
  double occupancy(uint32_t link) const;  // integral of the flits at its end, in flit-cycles
  template <class Function>
  void for_each_event(Function&& function) const;

  uint32_t shift_ = 0;  // slot of VC k of link l: l << shift_ | k
  uint32_t vcs_ = 0, vcs_per_vnet_ = 0;
  bool any_ordered_ = false;
  std::vector<uint32_t> vnet_of_;
  std::vector<Bits<W>> choices_;  // [class * vcs + VC]; class 0: all VCs of the vnet
  std::vector<Input> inputs_;     // [link]
  std::vector<Output> outputs_;
  std::vector<Vc> buffers_;       // [slot]
  std::vector<uint32_t> credits_of_;  // [slot]: free slots, as the source knows them
  std::vector<Router> routers_;
  std::vector<uint64_t> occupied_ports_;
  std::vector<Interface> interfaces_;
  std::vector<Queue> queues_;             // [node * vnets + vnet]
  std::vector<uint32_t> to_send_;         // [slot]: flits that wait in the source interface
  std::vector<int64_t> filled_at_;        // [slot], ordered vnets: arrival of the head
  std::vector<int64_t> interface_filled_at_;
  std::vector<uint32_t> eject_output_;    // [node]
  std::vector<uint16_t> routes_;          // [router * targets + target]: output - first_out
  size_t targets_ = 0;
  bool route_by_node_ = false;
  std::vector<Best> best_;                // [output], scratch of step_router
  std::vector<uint32_t> requested_;

  std::vector<MessageState> messages_;
  std::vector<uint32_t> free_messages_;
  std::vector<Packet> packet_pool_;
  std::vector<uint32_t> free_packets_;
  uint64_t serial_ = 0;
  int64_t in_flight_ = 0;
  std::priority_queue<Start, std::vector<Start>, std::greater<Start>> starts_;

  int64_t wheel_size_ = 0;
  std::vector<std::vector<uint32_t>> flits_, credits_;  // [cycle % wheel_size_]
  std::vector<uint64_t> wheel_used_;                    // bit per bucket
  std::map<int64_t, std::pair<std::vector<uint32_t>, std::vector<uint32_t>>> far_;

  std::vector<LinkChange> changes_;      // to come, in the order in which they are made
  int64_t next_change_ = kNever;         // the cycle that begins with the first of them
  std::map<uint32_t, Changed> changed_;  // by output

  std::vector<uint32_t> awake_routers_, awake_interfaces_, scratch_;
  std::vector<uint8_t> router_awake_, interface_awake_;

  std::vector<uint64_t> binned_flits_;  // [channel]: flits at the end of the last bin
  std::vector<uint64_t> binned_router_flits_;
  Series series_;
  std::vector<uint32_t> channel_output_;  // [channel]: output
  int64_t next_bin_ = kNever, next_check_ = 0;
  std::vector<Progress> progress_;      // [slot], at the last check
};

template <int W>
Core<W>::Core(const Config& config) : Network(config) {
  const auto vnets = static_cast<uint32_t>(config.vnets.size());
  const auto routers = static_cast<uint32_t>(config.router_latency.size());
  const auto nodes = static_cast<uint32_t>(config.nodes.size());
  vcs_per_vnet_ = static_cast<uint32_t>(config.vcs_per_vnet);
  vcs_ = vnets * vcs_per_vnet_;
  while ((1u << shift_) < vcs_) ++shift_;
  choices_.resize(size_t{vcs_} * 3);
  for (uint32_t k = 0; k < vcs_; ++k) {
    const uint32_t vnet = k / vcs_per_vnet_;
    vnet_of_.push_back(vnet);
    for (uint32_t offset = 0; offset < vcs_per_vnet_; ++offset) {
      const uint32_t other = vnet * vcs_per_vnet_ + offset;
      choices_[k].set(other);
      choices_[(offset < vcs_per_vnet_ / 2 ? 1 : 2) * vcs_ + k].set(other);
    }
  }
  for (const Vnet& vnet : config.vnets) any_ordered_ |= vnet.ordered;

  // Links in the order of their input ports: by router, its interfaces first, then the neighbours
  // by increasing number (Garnet numbers ports so, whatever the order of the list of links).
  std::vector<std::vector<uint32_t>> nodes_at(routers), into(routers);
  for (uint32_t n = 0; n < nodes; ++n)
    nodes_at[static_cast<size_t>(config.nodes[n].router)].push_back(n);
  for (uint32_t c = 0; c < config.channels.size(); ++c)
    into[static_cast<size_t>(config.channels[c].dst)].push_back(c);
  interfaces_.resize(nodes);
  uint32_t words = 0;
  for (uint32_t r = 0; r < routers; ++r) {
    Router router;
    router.first_in = static_cast<uint32_t>(inputs_.size());
    for (uint32_t n : nodes_at[r]) {
      interfaces_[n].link = static_cast<uint32_t>(inputs_.size());
      add_link(kInterface | n, r, config.nodes[n].wire, -1);
    }
    std::stable_sort(into[r].begin(), into[r].end(), [&](uint32_t a, uint32_t b) {
      return config.channels[a].src < config.channels[b].src;
    });
    for (uint32_t c : into[r])
      add_link(static_cast<uint32_t>(config.channels[c].src), r, config.channels[c].wire,
               static_cast<int32_t>(c));
    router.inputs = static_cast<uint32_t>(inputs_.size()) - router.first_in;
    for (uint32_t port = 0; port < router.inputs; ++port)
      inputs_[router.first_in + port].port = port;
    router.ports = words;
    router.port_words = (router.inputs + 63) / 64;
    words += router.port_words;
    routers_.push_back(router);
  }
  for (uint32_t n = 0; n < nodes; ++n)
    add_link(static_cast<uint32_t>(config.nodes[n].router), kInterface | n, config.nodes[n].wire,
             -1);
  if (inputs_.size() << shift_ > kMaxSlots)
    throw ConfigError(std::to_string(inputs_.size()) + " links (interfaces included) of " +
                      std::to_string(vcs_) + " VCs need more memory than is sensible");

  // The outputs of a router lie together; nothing depends on their order.
  std::vector<uint32_t> order(outputs_.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return outputs_[a].src < outputs_[b].src; });
  std::vector<Output> sorted;
  for (uint32_t o : order) sorted.push_back(outputs_[o]);
  outputs_ = std::move(sorted);
  eject_output_.resize(nodes);
  channel_output_.resize(config.channels.size());
  for (uint32_t o = 0; o < outputs_.size(); ++o) {
    Input& input = inputs_[outputs_[o].link];
    input.output = o;
    const uint32_t src = outputs_[o].src;
    if (!(src & kInterface) && (o == 0 || outputs_[o - 1].src != src)) routers_[src].first_out = o;
    if (input.dst & kInterface) eject_output_[input.dst & ~kInterface] = o;
    if (input.channel >= 0) channel_output_[static_cast<size_t>(input.channel)] = o;
  }
  occupied_ports_.resize(words);
  buffers_.resize(inputs_.size() << shift_);
  credits_of_.resize(buffers_.size());
  for (uint32_t slot = 0; slot < buffers_.size(); ++slot) {
    if (vc_of(slot) >= vcs_) continue;
    credits_of_[slot] = static_cast<uint32_t>(config.vnets[vnet_of_[vc_of(slot)]].data
                                                  ? config.buffers_per_data_vc
                                                  : config.buffers_per_ctrl_vc);
    output_of(slot).idle.set(vc_of(slot));
    output_of(slot).credit.set(vc_of(slot));
  }
  to_send_.resize(buffers_.size());
  if (any_ordered_) {
    filled_at_.resize(buffers_.size());
    interface_filled_at_.resize(buffers_.size());
  }
  queues_.resize(size_t{nodes} * vnets);
  best_.resize(outputs_.size());
  requested_.resize(outputs_.size());
  router_awake_.resize(routers);
  interface_awake_.resize(nodes);
  binned_flits_.resize(config.channels.size());
  binned_router_flits_.resize(routers);

  route_by_node_ = config.routing == Routing::kCustom;
  targets_ = route_by_node_ ? nodes : routers;
  const std::vector<int32_t> table = compute_routes(config);
  routes_.assign(table.size(), kNoRoute);
  for (size_t entry = 0; entry < table.size(); ++entry) {
    if (table[entry] < 0) continue;
    const uint32_t out = channel_output_[static_cast<size_t>(table[entry])];
    const uint32_t local = out - routers_[entry / targets_].first_out;
    if (local >= kNoRoute) throw ConfigError("a router has more than 65534 outputs");
    routes_[entry] = static_cast<uint16_t>(local);
  }

  int64_t longest = 0;
  for (const Output& out : outputs_)
    longest = std::max<int64_t>(
        {longest, out.flit_delay, inputs_[out.link].credit_delay});
  wheel_size_ = 64;
  while (wheel_size_ <= longest && wheel_size_ < kMaxWheel) wheel_size_ *= 2;
  flits_.resize(static_cast<size_t>(wheel_size_));
  credits_.resize(static_cast<size_t>(wheel_size_));
  wheel_used_.resize(static_cast<size_t>(wheel_size_ / 64));
  next_check_ = config.deadlock_threshold;
  progress_.resize(buffers_.size());
  if (config.series_cycles > 0) next_bin_ = config.series_cycles;
}

template <int W>
void Core<W>::add_link(uint32_t src, uint32_t dst, const Wire& wire, int32_t channel) {
  Input input;
  input.dst = dst;
  input.channel = channel;
  input.credit_delay = static_cast<uint32_t>(1 + wire.latency + (src & kInterface ? 1 : 0));
  Output out;
  out.link = static_cast<uint32_t>(inputs_.size());
  out.src = src;
  // Sent in T, stamped T + 1, then the latency; a router of depth p allocates p - 1 later.
  out.flit_delay = static_cast<uint32_t>(1 + wire.latency);
  if (!(dst & kInterface))
    out.flit_delay += static_cast<uint32_t>(config_.router_latency[dst] - 1);
  if (wire.cycles_per_flit > 1.0) out.busy = busy_of(wire.cycles_per_flit);
  if (channel >= 0) {
    out.channel = true;
    const Channel& given = config_.channels[static_cast<size_t>(channel)];
    if (given.ring) out.ring = static_cast<int16_t>(given.dimension);
    out.dateline = given.dateline;
  }
  inputs_.push_back(input);
  outputs_.push_back(out);
}

template <int W>
bool Core<W>::has_route(int32_t src, int32_t dst) const {
  Packet packet;
  packet.node = static_cast<uint32_t>(dst);
  packet.router = static_cast<uint32_t>(config_.nodes[packet.node].router);
  const auto at = static_cast<uint32_t>(config_.nodes[static_cast<size_t>(src)].router);
  return next_output(at, packet) != kNone;
}

template <int W>
int32_t Core<W>::first_dimension(int32_t src, int32_t dst) const {
  Packet packet;
  packet.node = static_cast<uint32_t>(dst);
  packet.router = static_cast<uint32_t>(config_.nodes[packet.node].router);
  const auto at = static_cast<uint32_t>(config_.nodes[static_cast<size_t>(src)].router);
  const int32_t channel = inputs_[outputs_[next_output(at, packet)].link].channel;
  return channel < 0 ? 0 : config_.channels[static_cast<size_t>(channel)].dimension;
}

template <int W>
int64_t Core<W>::zero_load_cycles(int32_t src, int32_t dst, int64_t bytes) const {
  Packet packet;
  packet.node = static_cast<uint32_t>(dst);
  packet.router = static_cast<uint32_t>(config_.nodes[packet.node].router);
  double busiest = 1.0, cycles = 1.0;
  const auto cross = [&](const Output& out) {
    const double per_flit =  // of the network as it was made, whatever has become of its links
        std::ldexp(static_cast<double>(busy_of(wire_of(out).cycles_per_flit)), -kFraction);
    busiest = std::max(busiest, per_flit);
    cycles += out.flit_delay + per_flit - 1;
    return inputs_[out.link].dst;
  };
  const Interface& source = interfaces_[static_cast<size_t>(src)];
  uint32_t at = cross(outputs_[inputs_[source.link].output]);
  while (!(at & kInterface)) at = cross(outputs_[next_output(at, packet)]);
  const int64_t split = packet_bytes(src, dst), size = split ? split : bytes;
  const auto flits = [&](int64_t part) { return (part - 1) / config_.flit_bytes + 1; };
  int64_t total = bytes / size * flits(size);
  if (bytes % size) total += flits(bytes % size);
  const double all = std::ceil(cycles + static_cast<double>(total - 1) * busiest);
  return all < 9e18 ? static_cast<int64_t>(all) : kNever;
}

template <int W>
uint32_t Core<W>::next_output(uint32_t router, const Packet& packet) const {
  if (router == packet.router) return eject_output_[packet.node];
  const uint16_t local =
      routes_[router * targets_ + (route_by_node_ ? packet.node : packet.router)];
  return local == kNoRoute ? kNone : routers_[router].first_out + local;
}

template <int W>
void Core<W>::route(uint32_t slot, uint32_t router) {
  Vc& vc = buffers_[slot];
  Packet& packet = packet_pool_[vc.packet];
  vc.out = next_output(router, packet);
  if (!config_.dateline) return;
  // Dateline: a packet takes the upper half of the VCs from the link that closes the ring on.
  const Output& out = outputs_[vc.out];
  if (out.ring < 0) {
    vc.vc_class = 0;
    return;
  }
  if (packet.ring != out.ring) {
    packet.ring = out.ring;
    packet.vc_class = 1;
  }
  if (out.dateline) packet.vc_class = 2;
  vc.vc_class = packet.vc_class;
}

template <int W>
inline void Core<W>::wake(uint32_t component) {
  if (component & kInterface) {
    const uint32_t n = component & ~kInterface;
    if (interface_awake_[n]) return;
    interface_awake_[n] = 1;
    awake_interfaces_.push_back(n);
  } else if (!router_awake_[component]) {
    router_awake_[component] = 1;
    awake_routers_.push_back(component);
  }
}

template <int W>
inline void Core<W>::post(std::vector<std::vector<uint32_t>>& wheel, bool credit, int64_t at,
                          uint32_t event) {
  if (__builtin_expect(at - now_ < wheel_size_, 1)) {
    const auto bucket = static_cast<size_t>(at & (wheel_size_ - 1));
    wheel[bucket].push_back(event);
    wheel_used_[bucket >> 6] |= uint64_t{1} << (bucket & 63);
  } else {
    auto& [flits, credits] = far_[at];
    (credit ? credits : flits).push_back(event);
  }
}

template <int W>
inline void Core<W>::send(Output& out, uint32_t slot) {
  if (--credits_of_[slot] == 0) out.credit.clear(vc_of(slot));
  ++out.flits;
  int64_t at = now_ + out.flit_delay;
  if (out.busy) {
    if (out.busy == kDown) {
      changed_[static_cast<uint32_t>(&out - outputs_.data())].held.push_back(slot);
      return;
    }
    // A slower link takes the flits one after another; how many may wait is bounded by credits.
    if (out.free_at < now_ + 1) {
      out.free_at = now_ + 1;
      out.free_part = 0;
    }
    at = cross(out);
  }
  post(flits_, false, at, slot);
}

// The next flit crosses a link with a busy time, from free_at on; gives the cycle of its arrival.
template <int W>
inline int64_t Core<W>::cross(Output& out) {
  const int64_t part = out.free_part + out.busy;
  out.free_at += part >> kFraction;
  out.free_part = static_cast<uint32_t>(part & ((1 << kFraction) - 1));
  return out.free_at - (out.free_part == 0) + out.flit_delay - 1;
}

template <int W>
inline void Core<W>::credit(uint32_t slot, uint32_t delay, bool tail) {
  post(credits_, true, now_ + delay, slot << 1 | static_cast<uint32_t>(tail));
}

template <int W>
inline void Core<W>::take_credit(uint32_t event) {
  const uint32_t slot = event >> 1;
  Output& out = output_of(slot);
  ++credits_of_[slot];
  out.credit.set(vc_of(slot));
  if (event & 1) out.idle.set(vc_of(slot));
  // A credit matters only to a source that has flits or messages waiting.
  if (out.src & kInterface) {
    const Interface& interface = interfaces_[out.src & ~kInterface];
    if (interface.waiting || interface.queued.any()) wake(out.src);
  } else if (routers_[out.src].flits > 0) {
    wake(out.src);
  }
}

template <int W>
inline void Core<W>::take_flit(uint32_t slot) {
  Input& input = inputs_[slot >> shift_];
  if (input.dst & kInterface) {
    eject(slot);
    return;
  }
  Vc& vc = buffers_[slot];
  Router& router = routers_[input.dst];
  ++router.flits;
  if (vc.count++ == 0) {
    input.occupied.set(vc_of(slot));
    occupied_ports_[router.ports + (input.port >> 6)] |= uint64_t{1} << (input.port & 63);
    if (vc.out == kNone) {
      route(slot, input.dst);
      if (any_ordered_) filled_at_[slot] = now_;
    }
  }
  input.waiting -= static_cast<uint64_t>(now_);
  wake(input.dst);
}

template <int W>
void Core<W>::eject(uint32_t slot) {
  Vc& vc = buffers_[slot];
  const Input& input = inputs_[slot >> shift_];
  const uint32_t node = input.dst & ~kInterface;
  Packet& packet = packet_pool_[vc.packet];
  if (vc.left == packet.flits) packet.head_recv = now_;
  const bool tail = --vc.left == 0;
  credit(slot, input.credit_delay, tail);
  ++interfaces_[node].ejected;
  if (!tail) return;

  MessageState& state = messages_[packet.message];
  state.network += now_ - packet.pick - 1;
  state.hops += packet.hops;
  if (config_.record_packets)
    packets_.push_back({state.message.id, packet.pick, packet.head_send, packet.tail_send,
                        packet.head_recv, now_, static_cast<int32_t>(packet.flits), packet.hops,
                        static_cast<int32_t>(packet.src_vc),
                        static_cast<int32_t>(vc_of(slot))});
  free_packets_.push_back(vc.packet);
  if (--state.open_packets > 0 || state.bytes_left > 0) return;
  deliveries_.push_back({state.message, now_, state.first_pick, state.packets, state.flits,
                         state.queueing, state.network, state.hops});
  free_messages_.push_back(packet.message);
  --in_flight_;
}

template <int W>
void Core<W>::enqueue(const Message& message) {
  uint32_t index;
  if (free_messages_.empty()) {
    index = static_cast<uint32_t>(messages_.size());
    messages_.emplace_back();
  } else {
    index = free_messages_.back();
    free_messages_.pop_back();
  }
  messages_[index] = MessageState{};
  messages_[index].message = message;
  messages_[index].bytes_left = message.bytes;
  starts_.push({message.cycle, message.order, message.id, index});
  ++in_flight_;
}

template <int W>
void Core<W>::change_link(const LinkChange& change) {
  const auto later = [](const LinkChange& a, const LinkChange& b) {
    return a.cycle != b.cycle ? a.cycle < b.cycle : a.order < b.order;
  };
  changes_.insert(std::upper_bound(changes_.begin(), changes_.end(), change, later), change);
  next_change_ = changes_.front().cycle + 1;
}

template <int W>
void Core<W>::make_changes() {
  const auto due = std::find_if(changes_.begin(), changes_.end(),
                                [&](const LinkChange& change) { return change.cycle >= now_; });
  for (auto change = changes_.begin(); change != due; ++change) make_change(*change);
  changes_.erase(changes_.begin(), due);
  next_change_ = changes_.empty() ? kNever : changes_.front().cycle + 1;
}

// The link has the new rate from the present cycle on.  A flit that is crossing it goes on at the
// rate with which it began; those behind it cross it after that, each at the new rate.
template <int W>
void Core<W>::make_change(const LinkChange& change) {
  const uint32_t index = channel_output_[static_cast<size_t>(change.channel)];
  Output& out = outputs_[index];
  const double given = wire_of(out).cycles_per_flit;
  Changed& changed = changed_.try_emplace(index, Changed{given, {}, 0, 0}).first->second;

  // From now until the link is free for the first flit that waits; in the unit of out.busy.
  Wide free = static_cast<Wide>(out.free_at - now_) * (1 << kFraction) + out.free_part;
  free = std::max<Wide>(free, 0);
  std::vector<uint32_t> waiting;
  waiting.swap(changed.held);
  if (out.busy != kDown) {
    // A flit that begins now arrives flit_delay - 1 later, if it crosses in one cycle.
    const auto flits = recall(out.link, now_ + out.flit_delay - 1);
    // One that began before the last change has kept an older rate, and does so again.
    const uint64_t at_this_rate = out.flits - changed.crossed;
    const size_t older = flits.size() > at_this_rate ? 1 : 0;
    size_t begun = flits.size();
    for (; begun > older && free >= out.busy; --begun) free -= out.busy;
    for (size_t i = 0; i < flits.size(); ++i) {
      if (i < begun)
        post(flits_, false, flits[i].first, flits[i].second);
      else
        waiting.push_back(flits[i].second);
    }
  }
  const uint64_t crossed = out.flits - waiting.size();
  changed.extra_cycles +=
      static_cast<double>(crossed - changed.crossed) * (changed.cycles_per_flit - given);
  changed.crossed = crossed;
  changed.cycles_per_flit = change.cycles_per_flit;

  out.free_at = now_ + static_cast<int64_t>(free >> kFraction);
  out.free_part = static_cast<uint32_t>(free & ((1 << kFraction) - 1));
  if (change.cycles_per_flit > 0) {
    out.busy = busy_of(change.cycles_per_flit);
    for (uint32_t slot : waiting) post(flits_, false, cross(out), slot);
  } else {
    out.busy = kDown;
    changed.held = std::move(waiting);
  }
}

// Takes back the flits that would come to the end of a link in the cycle `from` or later: pairs of
// cycle and slot, in the order in which they were sent.
template <int W>
std::vector<std::pair<int64_t, uint32_t>> Core<W>::recall(uint32_t link, int64_t from) {
  std::vector<std::pair<int64_t, uint32_t>> found;
  const auto take = [&](std::vector<uint32_t>& flits, int64_t at) {
    if (at < from) return;
    const auto ours = [&](uint32_t slot) {
      if (slot >> shift_ != link) return false;
      found.emplace_back(at, slot);
      return true;
    };
    flits.erase(std::remove_if(flits.begin(), flits.end(), ours), flits.end());
  };
  for (int64_t at = now_; at < now_ + wheel_size_; ++at) {
    const auto bucket = static_cast<size_t>(at & (wheel_size_ - 1));
    take(flits_[bucket], at);
    if (flits_[bucket].empty() && credits_[bucket].empty())
      wheel_used_[bucket >> 6] &= ~(uint64_t{1} << (bucket & 63));
  }
  for (auto entry = far_.begin(); entry != far_.end();) {
    auto& [flits, credits] = entry->second;
    take(flits, entry->first);
    entry = flits.empty() && credits.empty() ? far_.erase(entry) : std::next(entry);
  }
  std::sort(found.begin(), found.end());
  return found;
}

template <int W>
bool Core<W>::pick(uint32_t node, uint32_t vnet) {
  Interface& interface = interfaces_[node];
  Queue& queue = queues_[node * config_.vnets.size() + vnet];
  Output& out = outputs_[inputs_[interface.link].output];
  const uint32_t base = vnet * vcs_per_vnet_;
  uint32_t offset = queue.next_vc, tried = 0;
  while (!out.idle.test(base + offset)) {
    offset = offset + 1 == vcs_per_vnet_ ? 0 : offset + 1;
    if (++tried == vcs_per_vnet_) return false;  // the pointer is back where it began
  }
  queue.next_vc = offset + 1 == vcs_per_vnet_ ? 0 : offset + 1;
  const uint32_t k = base + offset, slot = interface.link << shift_ | k;

  uint32_t index;
  if (free_packets_.empty()) {
    index = static_cast<uint32_t>(packet_pool_.size());
    packet_pool_.emplace_back();
  } else {
    index = free_packets_.back();
    free_packets_.pop_back();
  }
  MessageState& state = messages_[queue.head];
  const int64_t split = state.message.packet_bytes;
  const int64_t bytes = split ? std::min(split, state.bytes_left) : state.bytes_left;
  Packet& packet = packet_pool_[index];
  packet = Packet{};
  packet.message = queue.head;
  packet.flits = static_cast<uint32_t>((bytes - 1) / config_.flit_bytes + 1);
  packet.node = static_cast<uint32_t>(state.message.dst);
  packet.router = static_cast<uint32_t>(config_.nodes[packet.node].router);
  packet.src_vc = k;
  packet.pick = now_;
  packet.serial = ++serial_;
  if (state.first_pick < 0) {
    state.first_pick = now_;
    interface.max_queue = std::max(interface.max_queue, now_ - state.message.cycle);
  }
  ++state.packets;
  ++state.open_packets;
  state.flits += packet.flits;
  state.queueing += now_ - state.message.cycle;
  state.bytes_left -= bytes;

  out.idle.clear(k);
  buffers_[slot].packet = index;
  buffers_[slot].left = packet.flits;
  to_send_[slot] = packet.flits;
  interface.queued.set(k);
  if (any_ordered_) interface_filled_at_[slot] = now_;
  if (state.bytes_left == 0) {
    queue.head = state.next;
    if (queue.head == kNone) {
      queue.tail = kNone;
      interface.waiting &= ~(1u << vnet);
    }
  }
  return true;
}

template <int W>
bool Core<W>::step_interface(uint32_t node) {
  Interface& interface = interfaces_[node];
  bool worked = false;
  for (uint32_t vnets = interface.waiting; vnets; vnets &= vnets - 1)
    worked |= pick(node, static_cast<uint32_t>(__builtin_ctz(vnets)));

  if (!interface.queued.any()) return worked;
  const uint32_t base = interface.link << shift_;
  const uint32_t start = interface.last_vc + 1 == vcs_ ? 0 : interface.last_vc + 1;
  Output& out = outputs_[inputs_[interface.link].output];
  const uint32_t winner = (interface.queued & out.credit).scan(start, [&](uint32_t k) {
    if (!any_ordered_ || !config_.vnets[vnet_of_[k]].ordered) return true;
    return (interface.queued & choices_[k]).scan(0, [&](uint32_t other) {
      return interface_filled_at_[base | other] < interface_filled_at_[base | k];
    }) == kNone;
  });
  if (winner == kNone) return worked;
  interface.last_vc = winner;
  const uint32_t slot = base | winner;
  Packet& packet = packet_pool_[buffers_[slot].packet];
  if (to_send_[slot] == packet.flits) packet.head_send = now_;
  if (--to_send_[slot] == 0) {
    packet.tail_send = now_;
    interface.queued.clear(winner);
  }
  ++interface.injected;
  send(out, slot);
  return true;
}

// Ordered vnet: another VC of the vnet and input port, for the same output, was filled earlier.
template <int W>
bool Core<W>::blocked_by_order(uint32_t link, uint32_t k) const {
  const uint32_t base = link << shift_;
  const Vc& vc = buffers_[base | k];
  return (inputs_[link].occupied & choices_[k]).scan(0, [&](uint32_t other) {
    return buffers_[base | other].out == vc.out &&
           filled_at_[base | other] < filled_at_[base | k];
  }) != kNone;
}

// May the flit at the front of an occupied VC ask for its output?
template <int W>
inline bool Core<W>::may_go(uint32_t link, uint32_t k) const {
  const Vc& vc = buffers_[link << shift_ | k];
  const Output& out = outputs_[vc.out];
  if (vc.down == kNone ? !(out.idle & choice(vc, k)).any() : !out.credit.test(vc_of(vc.down)))
    return false;
  return !any_ordered_ || !config_.vnets[vnet_of_[k]].ordered || !blocked_by_order(link, k);
}

// Stage I of switch allocation: the VC with which an input port takes part, or kNone.
template <int W>
inline uint32_t Core<W>::choose(uint32_t link) const {
  const Input& input = inputs_[link];
  return input.occupied.scan(input.next_vc, [&](uint32_t k) { return may_go(link, k); });
}

template <int W>
bool Core<W>::step_router(uint32_t index) {
  Router& router = routers_[index];
  const uint64_t first_word = occupied_ports_[router.ports];
  if (router.port_words == 1 && (first_word & (first_word - 1)) == 0) {  // one port: no rivals
    const auto port = static_cast<uint32_t>(__builtin_ctzll(first_word));
    const uint32_t in = router.first_in + port, k = choose(in);
    if (k == kNone) return false;
    grant(router, port, k, buffers_[in << shift_ | k].out);
    return true;
  }
  // All input ports choose on the state before any grant of this cycle.
  uint32_t requests = 0;
  for (uint32_t w = 0; w < router.port_words; ++w) {
    for (uint64_t ports = occupied_ports_[router.ports + w]; ports; ports &= ports - 1) {
      const uint32_t port = w * 64 + static_cast<uint32_t>(__builtin_ctzll(ports));
      const uint32_t in = router.first_in + port, k = choose(in);
      if (k == kNone) continue;
      // Stage II: each output port takes the first requesting input port from its pointer on.
      const uint32_t out = buffers_[in << shift_ | k].out, from = outputs_[out].next_in;
      const uint32_t distance = port >= from ? port - from : port + router.inputs - from;
      Best& best = best_[out];
      if (best.distance == kNone) requested_[requests++] = out;
      if (distance < best.distance) best = {distance, port, k};
    }
  }
  for (uint32_t i = 0; i < requests; ++i) {
    Best& best = best_[requested_[i]];
    best.distance = kNone;
    grant(router, best.port, best.vc, requested_[i]);
  }
  return requests > 0;
}

template <int W>
inline void Core<W>::grant(Router& router, uint32_t port, uint32_t k, uint32_t out_index) {
  const uint32_t in_index = router.first_in + port, slot = in_index << shift_ | k;
  Input& in = inputs_[in_index];
  Output& out = outputs_[out_index];
  Vc& vc = buffers_[slot];
  if (vc.down == kNone) {
    const uint32_t down = (out.idle & choice(vc, k)).first();
    out.idle.clear(down);
    vc.down = out.link << shift_ | down;
    Packet& packet = packet_pool_[vc.packet];
    Vc& next = buffers_[vc.down];
    next.packet = vc.packet;
    next.left = packet.flits;
    packet.hops += out.channel;
  }
  send(out, vc.down);
  const bool tail = --vc.left == 0;
  credit(slot, in.credit_delay, tail);
  --router.flits;
  if (--vc.count == 0) {
    in.occupied.clear(k);
    if (!in.occupied.any())
      occupied_ports_[router.ports + (port >> 6)] &= ~(uint64_t{1} << (port & 63));
  }
  if (tail) vc.out = vc.down = kNone;
  in.next_vc = k + 1 == vcs_ ? 0 : k + 1;
  out.next_in = port + 1 == router.inputs ? 0 : port + 1;
  in.waiting += static_cast<uint64_t>(now_);
}

template <int W>
int64_t Core<W>::next_cycle() const {
  if (!awake_routers_.empty() || !awake_interfaces_.empty()) return now_ + 1;
  int64_t next = starts_.empty() ? kNever : std::max(starts_.top().cycle, now_) + 1;
  next = std::min(next, next_change_);
  if (!far_.empty()) next = std::min(next, far_.begin()->first);
  const auto words = static_cast<int64_t>(wheel_used_.size());
  const int64_t first = (now_ + 1) & (wheel_size_ - 1);
  for (int64_t step = 0; step <= words; ++step) {
    const int64_t w = ((first >> 6) + step) & (words - 1);
    uint64_t used = wheel_used_[static_cast<size_t>(w)];
    if (step == 0) used &= ~uint64_t{0} << (first & 63);
    if (used == 0) continue;
    const int64_t bucket = w * 64 + __builtin_ctzll(used);
    return std::min(next, now_ + 1 + ((bucket - first) & (wheel_size_ - 1)));
  }
  return next;
}

template <int W>
void Core<W>::run(int64_t cycle) {
  if (cycle >= next_bin_) {
    close_bin(series_);
    binned_flits_ = channel_flits();
    binned_router_flits_ = router_flits();
    next_bin_ = (cycle / config_.series_cycles + 1) * config_.series_cycles;
  }
  if (cycle >= next_check_) {
    if (free_packets_.size() < packet_pool_.size()) check_progress();
    next_check_ = cycle + config_.deadlock_threshold;
  }
  now_ = cycle;
  if (cycle >= next_change_) make_changes();
  while (!starts_.empty() && starts_.top().cycle < cycle) {
    const uint32_t index = starts_.top().state;
    starts_.pop();
    const Message& message = messages_[index].message;
    const auto node = static_cast<uint32_t>(message.src);
    Queue& queue = queues_[node * config_.vnets.size() + static_cast<size_t>(message.vnet)];
    (queue.tail == kNone ? queue.head : messages_[queue.tail].next) = index;
    queue.tail = index;
    interfaces_[node].waiting |= 1u << message.vnet;
    wake(kInterface | node);
  }
  const auto bucket = static_cast<size_t>(cycle & (wheel_size_ - 1));
  if (wheel_used_[bucket >> 6] >> (bucket & 63) & 1) {
    wheel_used_[bucket >> 6] &= ~(uint64_t{1} << (bucket & 63));
    // Nothing is posted for the present cycle, so these lists do not change under the loops.
    const std::vector<uint32_t>& credits = credits_[bucket];
    for (size_t i = 0; i < credits.size(); ++i) {
      if (i + kAhead < credits.size()) __builtin_prefetch(&credits_of_[credits[i + kAhead] >> 1]);
      take_credit(credits[i]);
    }
    credits_[bucket].clear();
    const std::vector<uint32_t>& flits = flits_[bucket];
    for (size_t i = 0; i < flits.size(); ++i) {
      if (i + kAhead < flits.size()) __builtin_prefetch(&buffers_[flits[i + kAhead]]);
      take_flit(flits[i]);
    }
    flits_[bucket].clear();
  }
  if (!far_.empty() && far_.begin()->first == cycle) {
    const auto events = std::move(far_.begin()->second);
    far_.erase(far_.begin());
    for (uint32_t event : events.second) take_credit(event);
    for (uint32_t slot : events.first) take_flit(slot);
  }

  scratch_.clear();
  scratch_.swap(awake_interfaces_);
  for (uint32_t n : scratch_) interface_awake_[n] = 0;
  for (uint32_t n : scratch_)
    if (step_interface(n) && (interfaces_[n].waiting || interfaces_[n].queued.any()))
      wake(kInterface | n);
  scratch_.clear();
  scratch_.swap(awake_routers_);
  for (uint32_t r : scratch_) router_awake_[r] = 0;
  for (uint32_t r : scratch_)
    if (step_router(r) && routers_[r].flits > 0) wake(r);
}

template <int W>
void Core<W>::check_progress() {
  for (size_t slot = 0; slot < buffers_.size(); ++slot) {
    const Vc& vc = buffers_[slot];
    const Progress seen{vc.left ? packet_pool_[vc.packet].serial : 0, vc.left};
    if (seen.left && seen.serial == progress_[slot].serial && seen.left == progress_[slot].left)
      suspicious_ = true;
    progress_[slot] = seen;
  }
}

template <int W>
template <class Function>
void Core<W>::for_each_event(Function&& function) const {
  for (const auto& bucket : flits_)
    for (uint32_t slot : bucket) function(slot);
  for (const auto& bucket : credits_)
    for (uint32_t event : bucket) function(event >> 1);
  for (const auto& [at, events] : far_) {
    for (uint32_t slot : events.first) function(slot);
    for (uint32_t event : events.second) function(event >> 1);
  }
  for (const auto& [out, changed] : changed_)
    for (uint32_t slot : changed.held) function(slot);
}

template <int W>
std::string Core<W>::describe(uint32_t slot) const {
  const uint32_t src = output_of(slot).src;
  const Packet& packet = packet_pool_[buffers_[slot].packet];
  const Message& message = messages_[packet.message].message;
  std::ostringstream text;
  text << "router " << inputs_[slot >> shift_].dst << " from "
       << (src & kInterface ? "node " : "") << (src & ~kInterface) << " VC " << vc_of(slot)
       << " (" << message.id << ": " << message.src << " to " << message.dst << ")";
  return text.str();
}

template <int W>
std::string Core<W>::find_deadlock(bool all) const {
  const size_t slots = buffers_.size();
  // alive: may still move.  A VC is stuck until something that it waits for is found alive.
  std::vector<uint8_t> alive(slots, 1);
  std::vector<uint32_t> holder(slots, kNone);  // the VC upstream whose packet owns this VC
  for (uint32_t slot = 0; slot < slots; ++slot) {
    const Vc& vc = buffers_[slot];
    if (vc.down != kNone) holder[vc.down] = slot;
    if (inputs_[slot >> shift_].dst & kInterface || vc.left == 0) continue;
    const bool still = progress_[slot].left == vc.left &&
                       progress_[slot].serial == packet_pool_[vc.packet].serial;
    alive[slot] = !(all || still) || (vc.count > 0 && may_go(slot >> shift_, vc_of(slot)));
  }
  for_each_event([&](uint32_t slot) { alive[slot] = 1; });
  // What a stuck VC waits for; any one of them is enough to set it free.
  const auto waits_for = [&](uint32_t slot, std::vector<uint32_t>& result) {
    result.clear();
    const Vc& vc = buffers_[slot];
    const uint32_t k = vc_of(slot);
    if (vc.count == 0) {
      if (holder[slot] != kNone) result.push_back(holder[slot]);
    } else if (any_ordered_ && config_.vnets[vnet_of_[k]].ordered &&
               blocked_by_order(slot >> shift_, k)) {
      (inputs_[slot >> shift_].occupied & choices_[k]).scan(0, [&](uint32_t other) {
        const uint32_t rival = (slot & ~((1u << shift_) - 1)) | other;
        if (buffers_[rival].out == vc.out && filled_at_[rival] < filled_at_[slot])
          result.push_back(rival);
        return false;
      });
    } else if (vc.down != kNone) {
      result.push_back(vc.down);
    } else {
      choice(vc, k).scan(0, [&](uint32_t other) {
        result.push_back(outputs_[vc.out].link << shift_ | other);
        return false;
      });
    }
  };
  std::vector<uint32_t> targets;
  for (bool changed = true; changed;) {
    changed = false;
    for (uint32_t slot = 0; slot < slots; ++slot) {
      if (alive[slot]) continue;
      waits_for(slot, targets);
      const bool freed =
          (!all && targets.empty()) ||
          std::any_of(targets.begin(), targets.end(), [&](uint32_t t) { return alive[t]; });
      if (freed) alive[slot] = 1, changed = true;
    }
  }
  // Every VC that is left waits only for others that are left, so a walk meets itself.
  std::vector<uint32_t> walk, position(slots, kNone);
  uint32_t at = kNone;
  for (uint32_t slot = 0; slot < slots && at == kNone; ++slot)
    if (!alive[slot]) at = slot;
  while (at != kNone && position[at] == kNone) {
    position[at] = static_cast<uint32_t>(walk.size());
    walk.push_back(at);
    waits_for(at, targets);
    at = targets.empty() ? kNone : targets.front();
  }
  if (at == kNone) return "";
  std::ostringstream text;
  for (size_t i = position[at]; i < walk.size(); ++i) text << describe(walk[i]) << " waits for ";
  text << describe(at);
  return text.str();
}

template <int W>
double Core<W>::occupancy(uint32_t link) const {
  uint64_t buffered = 0;
  for (uint32_t k = 0; k < vcs_; ++k) buffered += buffers_[link << shift_ | k].count;
  return static_cast<double>(inputs_[link].waiting + buffered * static_cast<uint64_t>(now_));
}

template <int W>
std::vector<int32_t> Core<W>::links_waited_for() const {
  std::vector<int32_t> links;
  for (const auto& [out, changed] : changed_)
    if (!changed.held.empty()) links.push_back(inputs_[outputs_[out].link].channel);
  std::sort(links.begin(), links.end());
  return links;
}

template <int W>
std::vector<LinkLoad> Core<W>::link_loads() const {
  std::vector<LinkLoad> loads;
  for (uint32_t index : channel_output_) {
    const Output& out = outputs_[index];
    LinkLoad load{out.flits, 0, occupancy(out.link)};
    const auto found = changed_.find(index);
    if (found != changed_.end()) {
      const Changed& changed = found->second;
      load.flits -= changed.held.size();
      load.extra_cycles = changed.extra_cycles + static_cast<double>(load.flits - changed.crossed) *
                          (changed.cycles_per_flit - wire_of(out).cycles_per_flit);
    }
    loads.push_back(load);
  }
  return loads;
}

template <int W>
std::vector<uint64_t> Core<W>::router_flits() const {
  std::vector<uint64_t> flits(routers_.size());
  for (const Output& out : outputs_)
    if (!(out.src & kInterface)) flits[out.src] += out.flits;
  return flits;
}

template <int W>
std::vector<NodeLoad> Core<W>::node_loads() const {
  std::vector<NodeLoad> loads;
  for (const Interface& interface : interfaces_) {
    loads.push_back({interface.injected, interface.ejected, occupancy(interface.link),
                     interface.max_queue});
  }
  return loads;
}

template <int W>
std::vector<uint64_t> Core<W>::channel_flits() const {
  std::vector<uint64_t> flits;
  for (uint32_t out : channel_output_) flits.push_back(outputs_[out].flits);
  return flits;
}

template <int W>
void Core<W>::close_bin(Series& series) const {
  const auto append = [&](std::vector<SeriesPoint>& points, const std::vector<uint64_t>& now,
                          const std::vector<uint64_t>& before) {
    for (size_t i = 0; i < now.size(); ++i)
      if (now[i] != before[i])
        points.push_back({next_bin_ - config_.series_cycles, static_cast<int32_t>(i),
                          now[i] - before[i]});
  };
  append(series.links, channel_flits(), binned_flits_);
  append(series.routers, router_flits(), binned_router_flits_);
}

template <int W>
Series Core<W>::series() const {
  Series points = series_;
  if (config_.series_cycles > 0) close_bin(points);
  return points;
}

}  // namespace

std::unique_ptr<Network> Network::make(const Config& config) {
  validate(config);
  const size_t vcs = config.vnets.size() * static_cast<size_t>(config.vcs_per_vnet);
  if (vcs <= 64) return std::make_unique<Core<1>>(config);
  if (vcs <= 256) return std::make_unique<Core<4>>(config);
  return std::make_unique<Core<16>>(config);
}

}  // namespace garnet
