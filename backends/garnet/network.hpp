// SPDX-License-Identifier: MIT
//
// The router microarchitecture of gem5's Garnet 3.0, driven by events.
//
// gem5 evaluates every component in every cycle in which it has work.  Within a cycle nothing that
// one component writes is read by another, so the order of evaluation does not matter, and a
// component whose inputs have not changed since it last did nothing will do nothing again.  This
// implementation therefore touches a component only in cycles in which a flit, a credit or a
// message arrived, or in the cycle after one in which it did something.
//
// Three facts keep the state small:
//  * An output VC stays with one packet until the tail has left the input VC downstream, so the
//    flits in an input VC always belong to one packet and are consecutive: a counter, not a queue.
//  * The router's pipeline depth p only delays a flit between arrival and switch allocation by
//    p - 1 cycles, so it is added to the delay of the links that enter the router.
//  * A credit that reaches a network interface in cycle T is usable in T + 1 only, so one cycle is
//    added to the delay of the credit wires that end there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "astra_archive.hpp"
#include "config.hpp"

namespace garnet {

constexpr int64_t kNever = INT64_MAX;

struct Message {
  int64_t id = 0;
  int64_t order = 0;  // messages of one cycle enter the queue of their node by (order, id)
  int64_t cycle = 0;  // enqueued in this cycle, picked up in the next at the earliest
  int64_t bytes = 0;
  int64_t packet_bytes = 0;  // 0: one packet
  int32_t src = 0, dst = 0, vnet = 0;
  template <class A>
  void visit(A& archive) {
    archive(id, order, cycle, bytes, packet_bytes, src, dst, vnet);
  }
};

struct Delivery {
  Message message;
  int64_t cycle = 0;          // the destination consumed the last tail flit
  int64_t first_pick = 0;     // the first packet got a VC
  int64_t packets = 0, flits = 0;
  int64_t queueing_cycles = 0;  // sum over packets: pick - cycle
  int64_t network_cycles = 0;   // sum over packets: deliver - pick - 1
  int64_t hops = 0;             // sum over packets: links between routers
};

struct PacketRecord {
  int64_t id, pick, head_send, tail_send, head_recv, deliver;
  int32_t flits, hops, src_vc, dst_vc;
};

struct LinkChange {
  int64_t cycle = 0;  // flits that begin to cross the link after this cycle do it at the new rate
  int64_t order = 0;  // changes of one cycle are made by order, equal ones as they came
  int32_t channel = 0;  // index into config.channels
  double cycles_per_flit = 0;  // >= 1; 0: the link is down
  template <class A>
  void visit(A& archive) {
    archive(cycle, order, channel, cycles_per_flit);
  }
};

struct LinkLoad {  // one directed link between routers, as in config.channels
  uint64_t flits = 0;
  // Cycles that they took beyond what they take at the rate of the configuration.
  double extra_cycles = 0;
  double occupancy_flit_cycles = 0;  // integral of the flits waiting in the input buffers behind it
};

struct NodeLoad {
  uint64_t injected_flits = 0, ejected_flits = 0;
  double occupancy_flit_cycles = 0;  // of the router's buffers behind the injection link
  int64_t max_queue_cycles = 0;  // longest wait of a message head for a VC
};

struct SeriesPoint {
  int64_t bin_start_cycle;
  int32_t place;  // index into config.channels, or router
  uint64_t flits;
  template <class A>
  void visit(A& archive) {
    archive(bin_start_cycle, place, flits);
  }
};

struct Series {  // bins without flits are left out
  std::vector<SeriesPoint> links, routers;
  template <class A>
  void visit(A& archive) {
    archive(links, routers);
  }
};

class Network {
 public:
  static std::unique_ptr<Network> make(const Config& config);
  virtual ~Network() = default;
  virtual std::unique_ptr<Network> clone() const = 0;

  const Config& config() const { return config_; }

  // Whether a packet from node src can reach node dst.
  virtual bool has_route(int32_t src, int32_t dst) const = 0;
  // Dimension of the first link of the way; 0 where both are at one router.
  virtual int32_t first_dimension(int32_t src, int32_t dst) const = 0;
  // Delivery - enqueueing of a message that is alone in the network, with enough buffers.
  virtual int64_t zero_load_cycles(int32_t src, int32_t dst, int64_t bytes) const = 0;
  int64_t packet_bytes(int32_t src, int32_t dst) const {
    const auto& sizes = config_.packet_bytes;
    if (sizes.size() == 1) return sizes[0];
    return sizes[std::min(sizes.size() - 1, static_cast<size_t>(first_dimension(src, dst)))];
  }

  // The cycle must not have been run yet.
  virtual void enqueue(const Message& message) = 0;
  // The cycle after change.cycle must not have been run yet.
  virtual void change_link(const LinkChange& change) = 0;
  // The next cycle in which anything can happen; kNever when nothing is left to happen.
  virtual int64_t next_cycle() const = 0;
  // Runs one cycle, not before next_cycle(); appends to deliveries().
  virtual void run(int64_t cycle) = 0;
  // Moves on over cycles in which nothing happens but what happened before, not beyond `last`.
  virtual void fast_forward(int64_t /*last*/) {}
  virtual int64_t in_flight() const = 0;  // messages enqueued and not delivered
  std::vector<Delivery>& deliveries() { return deliveries_; }

  // The VCs that wait for each other, as text; empty where there is no such cycle.  `all`: nothing
  // can move any more, so every occupied VC counts as stuck; else those that stood still for a
  // whole deadlock_threshold.
  virtual std::string find_deadlock(bool all) const = 0;
  // Whether some VC has stood still for a whole deadlock_threshold; said once per threshold.
  bool take_suspicion() { return std::exchange(suspicious_, false); }

  // The links (indices into config.channels) that are down while flits wait for them.
  virtual std::vector<int32_t> links_waited_for() const = 0;

  // Whether loads say how many flits waited.
  virtual bool counts_waiting() const { return true; }
  virtual std::vector<LinkLoad> link_loads() const = 0;
  virtual std::vector<NodeLoad> node_loads() const = 0;
  virtual std::vector<uint64_t> router_flits() const = 0;  // that crossed each router
  Series series() const;
  // A simulator's own statistics, as further tables of the JSON that stats() returns.
  virtual void add_tables(std::string& /*json*/) const {}
  // All that changes; deliveries() must have been taken.
  virtual void save(astra::Writer& archive) = 0;
  // What a network of the same configuration saved.
  virtual void load(astra::Reader& archive) = 0;

  int64_t now() const { return now_; }
  int64_t jumps() const { return jumps_; }
  int64_t jumped_cycles() const { return jumped_cycles_; }
  const std::vector<PacketRecord>& packets() const { return packets_; }

 protected:
  explicit Network(const Config& config);
  Network(const Network&) = default;

  virtual std::vector<uint64_t> channel_flits() const = 0;
  // Closes the bin of the load over time that ends before this cycle; due from next_bin_ on.
  void begin_bin(int64_t cycle);

  Config config_;
  std::vector<Delivery> deliveries_;
  std::vector<PacketRecord> packets_;
  int64_t now_ = -1;  // the last cycle that was run
  bool suspicious_ = false;
  int64_t jumps_ = 0, jumped_cycles_ = 0;  // by fast_forward()

  int64_t next_bin_ = kNever;
  std::vector<uint64_t> binned_flits_;  // [channel]: flits at the end of the last bin
  std::vector<uint64_t> binned_router_flits_;
  Series series_;

 private:
  void close_bin(Series& series) const;
};

}  // namespace garnet
