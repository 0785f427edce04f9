// SPDX-License-Identifier: MIT
//
// The state of a network, and what its parts do; W words hold the set of VCs of a port.
// The parts stand in headers of their own that network.cpp alone includes.  One translation unit
// and internal linkage let the compiler put what happens to every flit into the loop over cycles:
// without, a run takes 4 % more instructions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "bits.hpp"
#include "network.hpp"

namespace garnet {
namespace {

__extension__ typedef __int128 Wide;

constexpr uint16_t kNoRoute = UINT16_MAX;
constexpr uint32_t kInterface = 1u << 31;  // a component that is a network interface
constexpr int kFraction = 16;              // bits after the point of a link's busy time
constexpr int64_t kDown = INT64_MAX;       // the busy time of a link that is down
constexpr int64_t kMaxWheel = 8192;        // cycles; events further away wait in a map
constexpr size_t kMaxSlots = size_t{1} << 26;
constexpr size_t kAhead = 4;               // events whose memory is fetched before their turn

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
  void fast_forward(int64_t last) override;
  int64_t in_flight() const override { return in_flight_; }
  std::string find_deadlock(bool all) const override;
  std::vector<int32_t> links_waited_for() const override;
  std::vector<LinkLoad> link_loads() const override;
  std::vector<NodeLoad> node_loads() const override;
  std::vector<uint64_t> router_flits() const override;
  void save(astra::Writer& archive) override { visit(archive); }
  void load(astra::Reader& archive) override {
    visit(archive);
    beacon_ = kNone;  // what was seen was on another way to this state
    look_at_ = 0;
  }

 private:
  template <class A>
  void visit(A& archive);
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
    template <class A>
    void visit(A& archive) {
      archive(occupied, next_vc, waiting);
    }
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
    template <class A>
    void visit(A& archive) {
      archive(idle, credit, next_in, flits, busy, free_at, free_part);
    }
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
    template <class A>
    void visit(A& archive) {
      archive(flits);
    }
  };
  struct Interface {
    Bits<W> queued;        // VCs with flits to send
    uint32_t last_vc = 0;  // winner of the last cycle
    uint32_t link = 0;     // to the router
    uint32_t waiting = 0;  // bit per vnet: messages queue for a VC
    uint64_t injected = 0, ejected = 0;
    int64_t max_queue = 0;
    template <class A>
    void visit(A& archive) {
      archive(queued, last_vc, waiting, injected, ejected, max_queue);
    }
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
    template <class A>
    void visit(A& archive) {
      archive(message, bytes_left, open_packets, first_pick, packets, flits, queueing, network,
              hops, next);
    }
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
    template <class A>
    void visit(A& archive) {
      archive(cycle, order, id, state);
    }
  };
  struct Changed {  // a link whose rate has been changed
    double cycles_per_flit = 0;  // now; 0: down
    std::vector<uint32_t> held;  // slots of the flits that wait until it is up
    uint64_t crossed = 0;        // flits that began to cross it before the last change,
    double extra_cycles = 0;     // and what they took beyond the rate of the configuration
    template <class A>
    void visit(A& archive) {
      archive(cycles_per_flit, held, crossed, extra_cycles);
    }
  };
  struct Description {  // of the network between two cycles; see fast_forward.hpp
    int64_t cycle = 0;
    std::vector<uint64_t> words, counts;
    std::vector<uint32_t> messages;  // those whose counts may grow
  };
  struct Best {
    uint32_t distance = kNone, port = 0, vc = 0;
  };
  struct Progress {
    uint64_t serial = 0;
    uint32_t left = 0;
    template <class A>
    void visit(A& archive) {
      archive(serial, left);
    }
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
  Packet lone_packet(int32_t dst) const;
  uint32_t next_output(uint32_t router, int32_t src, const Packet& packet) const;
  uint32_t next_on_graph(int32_t router, int32_t src, const Packet& packet) const;
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
  bool is_before(uint32_t other, uint32_t slot) const;
  bool blocked_by_order(uint32_t link, uint32_t vc) const;
  // The VCs that a packet in VC k may take at its output.
  const Bits<W>& choice(const Vc& vc, uint32_t k) const { return choices_[vc.vc_class * vcs_ + k]; }
  uint32_t vc_of(uint32_t slot) const { return slot & ((1u << shift_) - 1); }
  Output& output_of(uint32_t slot) { return outputs_[inputs_[slot >> shift_].output]; }
  const Output& output_of(uint32_t slot) const { return outputs_[inputs_[slot >> shift_].output]; }
  void check_progress();
  bool may_repeat() const;
  void describe(Description& seen) const;
  template <class Self, class Function>
  static void for_each_count(Self& self, const std::vector<uint32_t>& messages,
                             Function&& function);
  void find_beacon();
  bool jump(int64_t last);
  std::vector<uint64_t> channel_flits() const override;
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
  mutable std::optional<astra_net::Routes> graph_;  // finds its ways when they are needed
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

  std::vector<uint32_t> channel_output_;  // [channel]: output
  Description seen_, looked_;  // that is compared with, and the latest
  int64_t look_at_ = 0, beacon_message_ = 0, beacon_packets_ = 0;
  uint32_t beacon_ = kNone, beacon_vc_ = 0;  // index into queues_
  int64_t keep_ = 1, misses_ = 0, pause_ = 1;
  int64_t next_check_ = 0;
  std::vector<Progress> progress_;      // [slot], at the last check
};

}  // namespace
}  // namespace garnet
