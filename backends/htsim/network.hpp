// SPDX-License-Identifier: MIT
//
// What transports of htsim run on: its event list, a fabric of its queues and pipes, and the flows of
// one simulation.  htsim keeps its state in static members: there is one simulation at a time.
#ifndef ASTRA_HTSIM_NETWORK_HPP
#define ASTRA_HTSIM_NETWORK_HPP

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "astra_load.hpp"
#include "astra_net.hpp"
#include "astra_routes.hpp"
// htsim's headers open namespace std, and print: ours stand before them.
#include "host.h"
//
#include "eventlist.h"
#include "loggertypes.h"
#include "network.h"
#include "pipe.h"
#include "queue.h"
#include "route.h"
#include "trigger.h"

namespace astra_htsim {

using astra_net::Error;
using astra_net::Options;

[[noreturn]] inline void refuse(const std::string& message) {
  throw Error(ASTRA_NET_INVALID, message);
}

// -- the state that htsim keeps in static members ------------------------------------------------

struct Clock {
  static simtime_picosec now();
  static void set(simtime_picosec now);  // not beyond the next event
  static bool idle();
  static simtime_picosec next();  // of the next event; there is one
};
// The identity that the next flow gets which does not choose one.
flowid_t next_flow_id();
// As a fresh process has it, but for identities that only stand in logs.
void reset_statics(int packet_bytes, uint32_t seed);
// Events and identities of flows: for a network in which nothing is left.
void forget_events();

// Packets that are over are used again, with what earlier ones had in fields that are not set.
template <class P>
struct Pool : P {
  static void renew() { P::_packetdb = PacketDB<P>(); }
};
template <class... Ps>
void renew_pools() {
  (Pool<Ps>::renew(), ...);
}

// -- what the user chose -------------------------------------------------------------------------

struct Settings {
  std::string transport;
  int packet_bytes = 0;
  int64_t queue_bytes = 0;
  std::string queue;  // of switches: composite, lossless, ecn, random, fifo
  int64_t mark_bytes = 0;  // composite and ecn; 0: nothing is marked
  std::string host_queue;  // fair_prio, prio, swift
  uint64_t pfc_low = 0, pfc_high = 0;  // [packets]
  uint32_t most_paths = 0;
  bool sprays = false;  // packets of a flow take all ways
  bool all_ways = false;  // are to be found
  int64_t scan_ps = 0;  // how often retransmission timers are looked at
  bool completes_with_data = true;
  uint32_t most_switches = UINT32_MAX;  // on a path, where a transport has a limit
};

// -- flows ---------------------------------------------------------------------------------------

struct Transfer {
  int64_t id = 0, bytes = 0, start_ps = 0;
  int32_t src = 0, dst = 0;
};

// One transfer: a source of htsim and its sink.
class Flow {
 public:
  explicit Flow(const Transfer& given) : transfer(given) {}
  virtual ~Flow() = default;
  // Zeroed: constructors of htsim leave members that are read out.
  static void* operator new(size_t size) {
    void* room = std::calloc(1, size);
    if (room == nullptr) throw std::bad_alloc();
    return room;
  }
  static void operator delete(void* room) { std::free(room); }

  // A packet is there: at the receiver, or back at the sender.
  virtual void take(Packet& packet, bool at_receiver) = 0;
  virtual bool received() const = 0;  // the receiver has every byte
  virtual bool acknowledged() const { return finished; }  // the sender knows
  virtual uint64_t retransmitted() const { return 0; }  // [packets]
  // Before a packet goes to an end that stands in its own route.
  virtual void see(Packet& /*packet*/, bool /*at_receiver*/) {}
  virtual void end() {}  // htsim's own trigger has fired

  const Transfer transfer;
  flowid_t identity = 0;  // in htsim
  bool delivered = false;
  bool finished = false;  // htsim's own trigger has fired
};

class Network;

// What htsim activates when a flow is finished.
class Finished final : public Trigger {
 public:
  Finished(Network& network, Flow& flow);
  void activate() override;

 private:
  Network& network_;
  Flow& flow_;
};

// -- fabrics -------------------------------------------------------------------------------------

// Counts what a queue of htsim says.
class LinkCounter final : public QueueLogger {
 public:
  LinkCounter(size_t link, Network& network, astra_net::LinkLoad& load)
      : link_(link), network_(network), load_(load) {}
  void logQueue(BaseQueue& queue, QueueEvent event, Packet& packet) override;

  int64_t bytes = 0, busy_ps = 0, packets = 0, drops = 0, trims = 0, most_queue_bytes = 0;

 private:
  size_t link_;
  Network& network_;
  astra_net::LinkLoad& load_;
};

// Where packets end: hands them to the flow that they are of.
class Port final : public PacketSink {
 public:
  Port(Network& network, int32_t endpoint) : network_(network), endpoint_(endpoint) {}
  void receivePacket(Packet& packet) override;
  const std::string& nodename() override { return name_; }

 private:
  Network& network_;
  int32_t endpoint_;
  std::string name_ = "port";
};

// The ways from one endpoint to another.  Those of a port end in the receiver's Port.
struct Ways {
  std::vector<const Route*> all;  // equally short
  const Route* one = nullptr;  // for transports that keep to one: by the hash of the pair
  Route* entry = nullptr;  // takes a packet on one of them by its path id
  uint32_t count = 0;  // of path ids that lead different ways
  linkspeed_bps send_bps = 0, receive_bps = 0;
  int64_t send_port = 0, receive_port = 0;  // numbers of ports, within the fabric
  HostQueue* host_queue = nullptr;  // of `one`; none for the scheduler of Swift
};

class Fabric {
 public:
  virtual ~Fabric() = default;
  virtual const Ways& ways(int32_t src, int32_t dst) = 0;
  // Whether switches choose the way of every packet by its path id, where `entry` leads.
  virtual bool switched() const { return false; }
  // Before a flow starts, and when it has been delivered: its ends.
  virtual void attach(flowid_t /*flow*/, int32_t /*src*/, int32_t /*dst*/) {}
  virtual void forget(flowid_t /*flow*/, int32_t /*src*/, int32_t /*dst*/) {}
};

// -- transports ----------------------------------------------------------------------------------

class Transport {
 public:
  virtual ~Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  // From now on, by an event of htsim in this instant.  `id` is a free identity; a source that
  // cannot take one gives its own.
  virtual std::unique_ptr<Flow> start(const Transfer& transfer, flowid_t* id) = 0;
  // The network is empty, and its clock begins again.
  virtual void renew() {}

 protected:
  explicit Transport(Network& network) : network_(network) {}
  Network& network_;
};

// -- the network ---------------------------------------------------------------------------------

class Network {
 public:
  Network(astra_net::Config& config, Settings settings, const astra_net::Log& log);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  EventList& events() { return EventList::getTheEventList(); }
  const Settings& settings() const { return settings_; }
  Fabric& fabric() { return *fabric_; }
  Port& port(int32_t endpoint) { return *ports_[static_cast<size_t>(endpoint)]; }
  LinkCounter* counter(size_t link) { return counters_[link].get(); }

  void start(const astra_net_transfer& transfer);
  int64_t now_ps() const { return epoch_ps_ + static_cast<int64_t>(Clock::now()); }
  int64_t next_ps() const;
  int64_t open() const { return open_; }  // transfers under way

  // From ports and triggers.
  Flow* find(flowid_t id);
  void look_at(Flow& flow, bool at_receiver);
  void finished(Flow& flow);

  std::string stats() const;
  std::string where_stuck() const;

  std::function<void(int64_t id)> on_delivery;
  std::unique_ptr<Transport> transport;
  uint64_t events_run = 0;
  uint64_t served = 0;  // packets that a queue has sent on
  int64_t epoch_ps() const { return epoch_ps_; }

 private:
  void renew(int64_t start_ps);
  void deliver(Flow& flow);

  Settings settings_;
  std::vector<astra_net_link> links_;
  std::unique_ptr<Fabric> fabric_;
  std::vector<std::unique_ptr<Port>> ports_;
  std::vector<std::unique_ptr<LinkCounter>> counters_;
  astra_net::LinkLoad load_;
  std::unordered_map<flowid_t, std::unique_ptr<Flow>> flows_;
  int64_t open_ = 0;  // flows that are not delivered
  int64_t epoch_ps_ = 0;  // when htsim's clock began
  flowid_t next_id_ = 1;
  bool record_flows_ = true;
  struct Row {
    int64_t id, src, dst, bytes, start_ps, fct_ps, retransmitted;
  };
  std::vector<Row> rows_;
  uint64_t retransmitted_ = 0, gone_ = 0;
};

// -- parts that are compiled where the version has them ------------------------------------------

std::unique_ptr<Transport> make_ndp(Network& network, Options& options);
std::unique_ptr<Transport> make_eqds(Network& network, Options& options);
std::unique_ptr<Transport> make_roce(Network& network, Options& options);
std::unique_ptr<Transport> make_hpcc(Network& network, Options& options);
std::unique_ptr<Transport> make_swift(Network& network, Options& options);
std::unique_ptr<Transport> make_tcp(Network& network, Options& options);
std::unique_ptr<Transport> make_dctcp(Network& network, Options& options);
std::unique_ptr<Fabric> make_fat_tree(Network& network, const std::string& file,
                                      const std::vector<astra_net_link>& links, int32_t endpoints,
                                      Options& options);
std::unique_ptr<Fabric> make_links(Network& network, astra_net::Config& config,
                                   const astra_net::Log& log);
using MakeFatTree = decltype(&make_fat_tree);
// Set by the adapter, where the part is there.
extern MakeFatTree fat_tree_part;

// A scanner of retransmission timers of htsim, which looks at them while transfers are under way.
template <class Scanner>
class PausingScanner final : public Scanner {
 public:
  PausingScanner(Network& network, simtime_picosec period)
      : Scanner(period, network.events()),
        network_(network),
        period_(period),
        moved_(Clock::now()) {}
  void doNextEvent() override {
    if (network_.served != served_) {
      served_ = network_.served;
      moved_ = Clock::now();
    } else if (network_.open() > 0 && Clock::now() - moved_ > kLongest) {
      throw Error(ASTRA_NET_MODEL,
                  "at " + std::to_string(network_.now_ps()) +
                      " ps no packet has moved for 60 s, but " + std::to_string(network_.open()) +
                      " transfers are under way: htsim does not send again what was lost; larger "
                      "queues (queue_packets) lose less");
    }
    Scanner::doNextEvent();  // which schedules the next time
    if (network_.open() > 0) return;
    EventList::cancelPendingSource(*this);
    paused_ = true;
  }
  void wake() {
    if (!paused_) return;
    paused_ = false;
    moved_ = Clock::now();
    EventList::sourceIsPendingRel(*this, period_);
  }

 private:
  static constexpr simtime_picosec kLongest = 60'000'000'000'000;  // timers go off before

  Network& network_;
  simtime_picosec period_;
  simtime_picosec moved_ = 0;  // when the last packet was seen to have moved
  uint64_t served_ = 0;
  bool paused_ = false;
};

}  // namespace astra_htsim

#endif  // ASTRA_HTSIM_NETWORK_HPP
