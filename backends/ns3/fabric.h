// SPDX-License-Identifier: MIT
//
// The fabric: ports, packets and queue pairs, and the two devices that handle them, RdmaNic and
// SharedBufferSwitch.  A packet here is a record of 80 bytes; an ns3::Packet is made of it only
// for a pcap.  A packet-hop costs one event (its arrival) while its port is free, and a second
// one (the port becoming free) only when something waits for the port.
#ifndef ASTRA_NS3_FABRIC_H
#define ASTRA_NS3_FABRIC_H

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "astra_routes.hpp"
#include "ns3/object.h"
#include "ns3/ptr.h"
#include "ns3/traced-callback.h"
#include "pairs.h"
#include "random.h"
#include "rdma.h"
#include "repair.h"
#include "repetition.h"
#include "replay.h"
#include "simulator.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

class CongestionControl;
class Device;
class Fabric;
struct Port;
struct QueuePair;

constexpr uint32_t kQueues = 8;        // 0 is for control frames and goes first
constexpr uint32_t kMostAlphaShift = 3;  // of a port's share of the buffer
constexpr uint32_t kForkTelemetry = 5;  // hops that a packet of the public fork has room for

enum class PacketKind : uint8_t { kData, kAck, kNack, kCnp, kPause, kResume };

// What HPCC's switches write into a packet (Li et al., SIGCOMM 2019, section 3.1).
struct HopTelemetry {
  uint64_t time;      // [ticks] when the packet left
  uint64_t tx_bytes;  // that the port had sent before it
  uint32_t queue_bytes;
  int64_t bps;
};
struct Telemetry {
  std::vector<HopTelemetry> hop;  // grows to the longest path that it has seen
  uint32_t hops;
  Telemetry* next_free;
};

struct PacketRecord {
  PacketRecord* next;  // of the queue or the wire that it is on
  QueuePair* qp;
  Port* egress;  // where it leaves the next switch, so that this need not ask its pair; or null
  uint64_t seq;  // data: its first byte; ACK and NACK: the byte that is expected next, or is lost
  Tick arrive;  // while on a wire: when, and at which place, it arrives
  uint64_t order;
  union {
    Telemetry* telemetry;  // HPCC
    uint64_t power;  // HPCC-PINT
    Tick sent;  // TIMELY, Swift
  };
  uint32_t wire_bytes;
  union {
    bool wants_ack;  // data: the AckReq bit of RoCE
    uint32_t gap;  // NACK of selective repeat: bytes lost from `seq` on; ACK: arrived beyond `seq`
  };
  uint16_t ingress;  // local index of the port by which it entered this switch
  PacketKind kind;
  uint8_t queue;
  uint8_t hop;  // index of the next egress port in its path
  uint8_t hops;  // of its path
  uint8_t epoch;  // of the routes that its path belongs to
  bool marked;  // ECN congestion experienced
};

struct PacketQueue {
  PacketRecord *head = nullptr, *tail = nullptr;
  bool empty() const { return head == nullptr; }
  void push(PacketRecord* packet) {
    packet->next = nullptr;
    if (tail == nullptr)
      head = packet;
    else
      tail->next = packet;
    tail = packet;
  }
  PacketRecord* pop() {
    PacketRecord* packet = head;
    head = packet->next;
    if (head == nullptr) tail = nullptr;
    return packet;
  }
};

// One direction of a cable: the transmitter at `owner` and the wire to `peer->owner`.
struct Port final : public EventTarget {
  enum Kind : uint32_t { kArrival, kDone, kWake };

  Device* owner = nullptr;
  Fabric* fabric = nullptr;
  Port* peer = nullptr;  // the other direction
  uint32_t link = 0;  // index in the configuration
  uint16_t local = 0;  // index among the owner's ports, from 0
  bool up = true;
  // Replay: what happens here is left out; the pairs whose way it is on, and that have something under
  // way; how often something happened that cannot be replayed, for chance decided it or a buffer; of
  // the component that is looked at.
  bool left_out = false;
  std::vector<QueuePair*> users;
  uint64_t irregular = 0, stamp = 0;
  uint32_t place = 0;
  double loss = 0;
  RandomStreams* loss_stream = nullptr;  // decides on losses
  int64_t nominal_bps = 0, bps = 0;
  int64_t best_bps = 0;  // that it ever had
  Tick delay = 0;

  // Transmitter
  Tick busy_until = -1;
  uint64_t done_order = 0;
  bool done_pending = false;
  PacketQueue wire;
  uint32_t paused = 0;  // bit per queue

  // Switch: waiting packets per queue.  NIC: control frames in queue 0, the rest are queue pairs.
  std::array<PacketQueue, kQueues> queue;
  std::array<uint32_t, kQueues> queue_bytes{};
  uint32_t waiting = 0;  // bit per non-empty queue
  uint32_t last_queue = 0;
  uint32_t waiting_bytes = 0;

  // NIC
  PairList pairs;
  Tick wake_at = kNeverTick;
  uint64_t wake_order = 0;

  // Switch: buffer accounting for the ingress side of this port
  std::array<int64_t, kQueues> ingress_bytes{}, headroom_bytes{}, egress_bytes{};
  uint32_t pausing = 0;  // bit per queue whose sender we have paused
  int64_t headroom_limit = 0;
  uint32_t alpha_shift = kMostAlphaShift;
  int64_t kmin = 0, kmax = 0;
  double pmax = 0;
  // HPCC-PINT
  double utilization = 0;
  uint32_t last_bytes = 0;
  Tick last_time = 0;

  // Statistics
  uint64_t tx_bytes = 0, tx_packets = 0, drops = 0, lost = 0, marks = 0;
  uint64_t pauses = 0, resumes = 0;
  uint32_t max_queue_bytes = 0;
  Tick busy_ticks = 0;
  // Of each packet that left its queue: bytes x the time it waited.
  unsigned __int128 queue_byte_ticks = 0;

  bool Busy() const;
  Tick TxTicks(uint32_t bytes);
  void Send(PacketRecord* packet);
  void RequestService();
  void ExpectDone();
  void Fire(uint32_t kind, uint64_t order) override;
  bool Moves() const override { return true; }
  bool Loses(const PacketRecord& packet);
  void TakeDown();
  // Chance decides, or a buffer: what cannot be replayed.
  void Irregular();

 private:
  std::array<std::pair<uint32_t, Tick>, 2> tx_cache_{};
  friend class Fabric;
};

// State that a congestion control keeps per queue pair; each uses its own member.
struct DcqcnState {
  int64_t target_bps;
  double alpha;
  bool alpha_cnp, decrease_cnp, first_cnp;
  uint32_t stage;
  std::array<Tick, 3> fired;  // when its timers went to sleep
};
struct CnpState {
  int64_t target_bps;
  double alpha;
  uint64_t bytes_left;  // to the byte counter's next expiry
  uint32_t timer_stage, byte_stage;
  Tick last;  // CNP
  bool limited;  // has had a CNP
};
// A utilisation as HPCC computes it: a number, infinite where something waits for a window of
// nothing, or unknown where nothing waits for it.
struct Load {
  double value;
  bool known;
};
struct HpccState {
  uint64_t last_update_seq;
  int64_t current_bps;
  uint32_t increase_stage;
  Load u;
};
struct HpccHop {
  HopTelemetry last;
  Load u;
  int64_t bps;
  uint32_t increase_stage;
};
struct TimelyState {
  uint64_t last_update_seq;
  int64_t current_bps;
  uint32_t increase_stage;
  Tick last_rtt;
  double rtt_diff;
};
struct DctcpState {
  uint64_t last_update_seq, high_seq;
  bool reduced;
  double alpha;
  uint64_t marked, batch;
};
struct SwiftState {
  double window_packets;
  Tick last_decrease;
};

// The egress ports on a way.  With many pairs each look at it is a cache miss, so those of a usual way
// lie in the record itself, on one cache line, and a packet carries the next one.
class alignas(64) Route {
 public:
  uint8_t epoch = 0;  // of the routes that it was found in

  uint32_t size() const { return size_; }
  Port* operator[](size_t hop) const { return hop < kNear ? near_[hop] : far_[hop - kNear]; }
  void clear() {
    size_ = 0;
    far_.clear();
  }
  void push_back(Port* port) {
    if (size_ < kNear) {
      near_[size_] = port;
    } else {
      far_.push_back(port);
    }
    ++size_;
  }
  // Send a packet on this way.
  void Enter(PacketRecord* packet) const {
    packet->hop = 0;
    packet->hops = static_cast<uint8_t>(size_ < 255 ? size_ : 255);
    packet->epoch = epoch;
    packet->egress = size_ > 0 ? near_[0] : nullptr;
  }

 private:
  static constexpr uint32_t kNear = 7;
  uint32_t size_ = 0;
  std::array<Port*, kNear> near_{};
  std::vector<Port*> far_;
};

// A transfer: a stretch of the bytes of its queue pair.
struct Message {
  Message* next;  // of its pair, or of those that are free
  int64_t id;
  uint64_t begin, end;
  uint64_t first_packet;  // how many packets the pair's messages before it have
  uint64_t start_ps;
  Tick start;
  Tick ideal;  // least time that it can take; kNeverTick is not known
  uint64_t retransmitted;
  uint64_t Bytes() const { return end - begin; }
};

// A reliable connection.  It carries its messages one after the other; the fork has one for each.
// Sender and receiver side in one record.
struct QueuePair final : public EventTarget {
  // What every packet needs stands first, on few lines of the cache.
  Fabric* fabric = nullptr;
  uint64_t bytes = 0;  // of all messages
  uint64_t next_seq = 0, acked_seq = 0;
  uint64_t requested_seq = 0;  // the last byte for which an acknowledgement was asked ends here
  uint64_t send_end = 0;  // of the message that is being sent
  uint64_t current_window = 0;  // [bytes], after congestion control; 0 is none
  std::unique_ptr<Repair> repair;  // of both sides, once something is missing
  Port* port = nullptr;  // of the sender; where there is no route, of the last one: timers go on
  Tick next_available = 0;
  int64_t max_bps = 0, bps = 0;
  uint32_t last_wire_bytes = 0;
  uint32_t in_network = 0;  // packets
  uint32_t slot = 0;  // in its port's list
  uint8_t queue = 3;
  bool listed = false;  // in its port's list
  bool counted_finished = false, counted_adapting = false;  // by that list
  bool lasting = false;  // lives as long as the run
  bool acknowledged = false;  // and over: the record is reused when nothing holds it any more
  bool routed = false;
  bool stale = false;  // its route is one of before the last change

  // Receiver
  uint64_t expected_seq = 0;
  uint64_t receive_end = UINT64_MAX;  // of the message that is expected
  Port* receiver_port = nullptr;
  bool marked_since = false;  // a packet was marked whose arrival nothing has answered yet
  uint64_t nacked_seq = 0;
  Tick nack_until = 0;
  Tick cnp_until = 0;  // no other CNP before

  Tick progress = 0;
  Message *oldest = nullptr, *newest = nullptr;  // that are not acknowledged
  Message *sending = nullptr, *receiving = nullptr;  // null where there is none
  Route forward, backward;  // of data and of acknowledgements

  int64_t id = 0;  // its number, or the fork's transfer
  int32_t src = 0, dst = 0;
  uint32_t index = 0;  // among those of its ranks and class
  uint16_t source_port = 0;
  uint64_t packets = 0;  // of all messages
  uint64_t window = 0;  // [bytes], 0 is none; of the path
  uint64_t bdp_bytes = 0;  // of the path, or the largest with window=global
  Tick base_rtt = 0;
  uint32_t timeouts = 0;
  uint64_t skipped = 0;  // by the last fast-forward
  // Replay: whether it has something under way; what it is part of, if anything; of the component that
  // is looked at.
  bool active = false;
  Run* run = nullptr;
  uint64_t stamp = 0, oldest_order = 0;
  uint32_t place = 0, misses = 0, patience = 1, waits = 0;
  uint64_t ideal_bytes = 0;  // the size whose least time is the next
  Tick ideal = 0;

  std::array<uint64_t, 3> timer{};  // order of the running event, per kind; 0 is none
  union {
    DcqcnState dcqcn;
    CnpState cnp;
    HpccState hpcc;
    TimelyState timely;
    DctcpState dctcp;
    SwiftState swift;
  };
  std::vector<HpccHop> hpcc_hop;  // per hop that has been heard of

  QueuePair() : hpcc() {}
  bool Finished() const { return acked_seq >= bytes; }
  uint64_t BytesLeft() const { return bytes > next_seq ? bytes - next_seq : 0; }
  uint64_t LostBytes() const { return repair ? repair->unsent : 0; }  // to be sent again
  // Where no acknowledgement is to come that would open the window, a packet may ask for one.
  bool WindowBound() const {
    return current_window != 0 && next_seq - acked_seq >= current_window &&
           requested_seq > acked_seq;
  }
  bool Able() const { return (BytesLeft() > 0 && !WindowBound()) || LostBytes() > 0; }
  Repair& Repairs() {
    if (!repair) repair = std::make_unique<Repair>();
    return *repair;
  }
  // The message that holds a byte which is not acknowledged.
  Message* Find(uint64_t seq) const {
    Message* message = oldest;
    while (message != nullptr && message->end <= seq) message = message->next;
    return message;
  }
  // Go on sending from the first byte that is not acknowledged.
  void GoBack() {
    next_seq = acked_seq;
    requested_seq = requested_seq == UINT64_MAX ? UINT64_MAX : acked_seq;
    sending = oldest;
    send_end = sending->end;
  }
  // Tells its port that what decides on its sending has changed.
  void Changed();
  // The rate at which it is paced; a variable window follows it.
  void SetRate(int64_t new_bps);
  void Fire(uint32_t kind, uint64_t order) override;  // timers of congestion control
  bool Moves() const override { return true; }
};

// A node of the fabric.
class Device : public ns3::Object {
 public:
  static ns3::TypeId GetTypeId();
  virtual void Receive(Port& ingress, PacketRecord* packet) = 0;
  // The port is free: send the next packet, if there is one to send.
  virtual void Serve(Port& port) = 0;
  virtual bool IsNic() const { return false; }
  // What decides on its future and is not in its ports.
  virtual void Describe(std::vector<uint64_t>* /*words*/) const {}

  Fabric* fabric = nullptr;
  int32_t node = 0;
  uint32_t address_id = 0;  // what the node's IP address is made of
  std::vector<Port*> ports;
};

class RdmaNic final : public Device {
 public:
  static ns3::TypeId GetTypeId();
  bool IsNic() const override { return true; }
  void Receive(Port& ingress, PacketRecord* packet) override;
  void Serve(Port& port) override;
  // The rate of a pair has changed while it waits for its next packet's time.
  void ChangeRate(QueuePair* qp, int64_t bps);
  void Wake(Port& port, Tick at);

  ns3::TracedCallback<int64_t, uint64_t> trace_complete;  // transfer id, ticks it took
  ns3::TracedCallback<uint32_t, bool> trace_pfc;  // link, paused

 private:
  QueuePair* Select(Port& port);
  void SendData(Port& port, QueuePair* qp);
  bool AsksForAck(const QueuePair& qp) const;
  uint32_t TakeLost(QueuePair* qp, PacketRecord* packet);
  bool MoreToSend(const Port& port) const;
  void SetAlarm(Port& port);
  void ReceiveData(PacketRecord* packet);
  [[gnu::always_inline]] bool TakeInOrder(QueuePair* qp, const PacketRecord& packet);
  bool TakeEarly(QueuePair* qp, PacketRecord* packet);
  void SendCnp(QueuePair* qp);
  void ReceiveAck(PacketRecord* packet);
  void FindLost(QueuePair* qp, const PacketRecord& answer);

  std::vector<QueuePair*> dropped_;  // empty between calls
};

class SharedBufferSwitch final : public Device {
 public:
  static ns3::TypeId GetTypeId();
  void Receive(Port& ingress, PacketRecord* packet) override;
  void Serve(Port& port) override;
  // After all ports are attached, and again when another traffic class comes into use.
  void Configure();
  void Describe(std::vector<uint64_t>* words) const override;

  ns3::TracedCallback<uint32_t, bool> trace_pfc;  // link towards the paused sender, paused
  ns3::TracedCallback<uint32_t> trace_mark;  // link
  ns3::TracedCallback<uint32_t, uint32_t> trace_drop;  // link, bytes

  // Replay: whether so little memory is left that other ports' use may decide on a pause or a drop;
  // whether a port's queue of so many bytes is far from that; what waits that came in by a port.
  bool Pressed() const { return 2 * shared_bytes_ >= LeastThreshold(); }
  bool Ample(int64_t bytes) const { return 4 * bytes < LeastThreshold(); }
  void SetUse(Port& ingress, const std::array<int64_t, kQueues>& bytes);
  bool left_out = false;  // what happens at some of its ports has been

  uint64_t buffer_bytes = 32u << 20;
  uint32_t ecmp_seed = 0;

 private:
  int64_t PauseThreshold(const Port& port) const;
  int64_t LeastThreshold() const {
    return std::max<int64_t>(0, shareable_bytes_ - shared_bytes_) >> kMostAlphaShift;
  }
  int64_t SharedUse(const Port& port, uint32_t queue) const;
  void SendPause(Port& port, uint32_t queue, bool pause);
  void Unbuffer(Port& ingress, uint32_t queue, int64_t bytes);
  bool Mark(Port& port, uint32_t queue);
  void Stamp(Port& port, PacketRecord* packet);
  void StampPint(Port& port, PacketRecord* packet);
  double Utilization(const Port& port) const;
  double UtilizationByLogarithms(const Port& port);
  int32_t RoughLog2(int32_t x);

  int64_t shared_bytes_ = 0, shareable_bytes_ = 0, buffered_bytes_ = 0;
};

class Fabric final : public EventTarget {
 public:
  explicit Fabric(FabricSimulator* simulator, Parameters parameters)
      : sim(simulator), parameters(std::move(parameters)) {}
  ~Fabric();

  // Building
  void AddNic(int32_t node, uint32_t address_id);
  void AddSwitch(int32_t node, uint32_t address_id, uint64_t buffer_bytes);
  // The graph by which packets find their way, unless it is the fork's: its links are the first ports,
  // and an endpoint that passes something on is the switch `stand_in` + its number.
  void SetGraph(astra_net::Config graph, int32_t stand_in);
  // Links are directed; `reverse` is the index of the other direction.
  void AddPort(int32_t src, int64_t bps, Tick delay, double loss);
  void Join(uint32_t link, uint32_t reverse);
  // Switches have a buffer of at least so many bytes for each bit/s of their ports.
  void ScaleBuffers(double bytes_per_bps);
  void Finish();

  // Running
  void Start(int64_t id, int32_t src, int32_t dst, uint64_t bytes, uint32_t traffic_class,
             int64_t start_ps);
  void SetLink(uint32_t link, double scale);
  size_t InFlight() const { return active_; }
  // What the transfer takes at least, alone in the network.
  Tick IdealTicks(const QueuePair& qp, const Message& message);
  std::string WhereStuck() const;

  // For the devices
  PacketRecord* NewPacket();
  void Free(PacketRecord* packet);
  void Recycle(PacketRecord* packet) {  // as if it had never been
    packet->next = free_packets_;
    free_packets_ = packet;
  }
  uint8_t epoch() const { return epoch_; }  // of the routes
  Telemetry* NewTelemetry();
  Port* NextHop(const Device& at, PacketRecord* packet);
  void Deliver(QueuePair* qp);  // all messages that have arrived
  void Acknowledge(QueuePair* qp);  // all messages whose arrival the sender knows
  void Repeat(QueuePair* qp, uint64_t begin, uint64_t end);  // counts it
  // Of a data packet.
  uint64_t Bytes(const PacketRecord& packet) const {
    return packet.wire_bytes - parameters.header_bytes;
  }
  bool Reorders() const { return reorders_; }  // packets of a pair take several ways
  void Release(QueuePair* qp);
  void Fire(uint32_t kind, uint64_t order) override;  // the watchdog
  Tick Ticks(double bytes, int64_t bps) const;
  uint64_t Bdp(Tick rtt, int64_t bps) const;
  const std::vector<std::unique_ptr<QueuePair>>& pairs() const { return pairs_; }

  FabricSimulator* sim;
  Parameters parameters;
  std::vector<ns3::Ptr<Device>> nodes;
  std::vector<std::unique_ptr<Port>> ports;
  ns3::Ptr<CongestionControl> control;
  RandomStreams random;
  LibraryRandom library_random;
  std::vector<std::unique_ptr<RandomStreams>> loss_streams;  // of ports that do not use `random`
  std::function<void(const QueuePair&, const Message&, Tick)> on_complete;
  std::function<void(const std::string&)> on_notice;  // something that users should know
  std::function<void(const Port&, const PacketRecord&)> on_transmit;  // pcap; usually empty
  uint32_t lossless_classes = 1;  // that switches set memory aside for
  Tick max_rtt = 0;
  uint64_t max_bdp = 0;
  uint64_t packet_hops = 0, data_packets = 0, retransmissions = 0, timeouts = 0;
  uint64_t on_wire = 0;  // packets that leave a port or are under way
  uint64_t cnps = 0;  // sent by receivers
  // Counts what a repetition cannot contain: a message began or ended, a random number was drawn, a
  // packet was marked or lost, a port was paused, a link has changed, the watchdog looked.
  uint64_t disturbances = 0;
  std::unique_ptr<Repetition> repetition;  // with fast_forward
  std::unique_ptr<Replay> replay;  // with fast_forward=steady
  uint64_t blind_transfers = 0;  // their path is longer than the fork's telemetry
  std::function<void(const std::string&)> on_failure;  // why the run cannot go on

  std::vector<PauseEvent> pause_events;  // the first pfc_rows of them

 private:
  struct Path {
    Tick delay = -1;  // one way, unloaded
    Tick transmit = 0;
    int64_t bps = 0;
  };
  // The way to one node, from all others.
  struct Table {
    std::vector<uint32_t> first;  // per node and one more: of its next hops
    std::vector<Port*> hops;
    std::vector<Path> paths;  // per node
  };
  // Next hops of equal distance.
  struct Hops {
    Port* const* begin;
    size_t count;
  };
  Tick HopTicks(const Port& port) const;
  Path Hop(const Port& port) const;
  void SortNeighbours();
  void FindExtremes();
  Table SearchFrom(int32_t root, bool as_built) const;
  const Table& TableTo(int32_t root, bool as_built = false);
  void FindPath(QueuePair* qp);
  void MakeRoutes();
  int32_t GraphNode(const Device& at) const;
  Port* Pick(const Device& at, const QueuePair& qp, bool data, const PacketRecord* packet);
  Port* LeastWaiting(const Device& at, const QueuePair& qp);
  QueuePair* NewPair(int64_t id, int32_t src, int32_t dst, uint32_t traffic_class, bool lasting,
                     uint32_t index);
  QueuePair* PairFor(int64_t id, int32_t src, int32_t dst, uint32_t traffic_class);
  Message* Enqueue(QueuePair* qp, int64_t id, uint64_t bytes, int64_t start_ps);
  void SetWindow(QueuePair* qp);
  void Begin(QueuePair* qp);
  void Resume(QueuePair* qp);
  void Reroute(QueuePair* qp);
  Tick LeastTicks(QueuePair* qp, uint64_t bytes);
  Tick LeastOnRoute(const QueuePair& qp, uint64_t packets, uint32_t last) const;
  Tick LeastOnAnyRoute(const QueuePair& qp, uint64_t bytes) const;
  void TimedOut(QueuePair* qp);
  bool Lost(QueuePair* qp, Tick now);
  void UseClass(uint32_t traffic_class);
  Hops Choices(const Device& at, int32_t to);
  Port* Choose(const Device& at, int32_t from, int32_t to, uint16_t source_port,
               uint16_t destination_port);
  Path PathOf(int32_t src, int32_t dst);

  size_t hosts_ = 0;
  // Hosts with one cable share the routes to their switch, so that memory grows with the switches.
  std::vector<Port*> access_;  // per host: the port to it at that switch, or NULL
  std::vector<std::vector<Port*>> neighbours_;  // per node, in the order in which routes count them
  std::vector<std::unique_ptr<Table>> tables_;  // per node, made when they are first needed
  std::vector<std::unique_ptr<Table>> built_;  // the same, as if every link were up
  std::vector<std::vector<uint16_t>> next_source_port_;  // [source][destination]
  std::unique_ptr<astra_net::Config> graph_;  // null: the fork's routes
  std::unique_ptr<astra_net::Routes> routes_;
  std::vector<uint32_t> route_ports_;  // per link of the routes: its port
  int32_t stand_in_ = INT32_MAX;
  bool reorders_ = false;
  uint8_t epoch_ = 0;
  uint32_t classes_used_ = 0;  // bit per traffic class
  bool rerouted_ = false;

  std::vector<std::unique_ptr<PacketRecord[]>> packet_blocks_;
  PacketRecord* free_packets_ = nullptr;
  std::vector<std::unique_ptr<Telemetry[]>> telemetry_blocks_;
  Telemetry* free_telemetry_ = nullptr;
  std::vector<std::unique_ptr<QueuePair>> pairs_;
  std::vector<QueuePair*> free_pairs_;
  struct Channel {
    std::vector<QueuePair*> pairs;
    uint32_t turn = 0;  // whose it is
  };
  std::unordered_map<uint64_t, Channel> channels_;  // by source, destination and class
  std::vector<std::unique_ptr<Message[]>> message_blocks_;
  Message* free_messages_ = nullptr;
  size_t active_ = 0;
  bool watching_ = false;
  Tick watch_interval_ = 0;
};

// ---------------------------------------------------------------------------------------------
// The fast path, inline.

inline bool Port::Busy() const {
  const FabricSimulator* sim = fabric->sim;
  return sim->NowTick() < busy_until ||
         (sim->NowTick() == busy_until && sim->CurrentOrder() < done_order);
}

inline void QueuePair::Changed() {
  if (listed) port->pairs.Update(this);
}

inline void Port::ExpectDone() {
  if (done_pending) return;
  done_pending = true;
  fabric->sim->At(busy_until, done_order, this, kDone);
}

inline void Port::Irregular() {
  ++fabric->disturbances;
  ++irregular;
  if (fabric->replay) fabric->replay->Irregular(*this);
}

inline void Port::RequestService() {
  if (Busy())
    ExpectDone();
  else
    owner->Serve(*this);
}

inline Tick Port::TxTicks(uint32_t bytes) {
  if (tx_cache_[0].first == bytes) return tx_cache_[0].second;
  if (tx_cache_[1].first == bytes) return tx_cache_[1].second;
  tx_cache_[1] = tx_cache_[0];
  tx_cache_[0] = {bytes, fabric->Ticks(bytes, bps)};
  return tx_cache_[0].second;
}

inline void Port::Send(PacketRecord* packet) {
  FabricSimulator* sim = fabric->sim;
  const Tick transmit = TxTicks(packet->wire_bytes);
  busy_until = sim->NowTick() + transmit;
  done_order = sim->Reserve();
  packet->arrive = busy_until + delay;
  packet->order = sim->Reserve();
  const bool alone = wire.empty();
  ++fabric->on_wire;
  wire.push(packet);
  if (alone) sim->At(packet->arrive, packet->order, this, kArrival);
  tx_bytes += packet->wire_bytes;
  ++tx_packets;
  busy_ticks += transmit;
  ++fabric->packet_hops;
  if (fabric->on_transmit) fabric->on_transmit(*this, *packet);
}

inline PacketRecord* Fabric::NewPacket() {
  if (free_packets_ == nullptr) {
    constexpr size_t kBlock = 1024;
    packet_blocks_.emplace_back(new PacketRecord[kBlock]);
    for (size_t i = 0; i < kBlock; ++i) {
      packet_blocks_.back()[i].next = free_packets_;
      free_packets_ = &packet_blocks_.back()[i];
    }
  }
  PacketRecord* packet = free_packets_;
  free_packets_ = packet->next;
  return packet;
}

}  // namespace astra_ns3

#endif  // ASTRA_NS3_FABRIC_H
