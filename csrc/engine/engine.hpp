// SPDX-License-Identifier: MIT
//
// The native engine: runs a Program on any network behind astra_net.h, without Python per message.
// It does, event by event, what astra_bridge/engine/python.py does; that file explains why.
#ifndef ASTRA_ENGINE_ENGINE_HPP
#define ASTRA_ENGINE_ENGINE_HPP

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "astra_net.h"
#include "boundary.hpp"
#include "bus.hpp"
#include "event_queue.hpp"
#include "issue_order.hpp"
#include "program.hpp"
#include "ticker.hpp"

namespace engine {

// A call of the network contract failed; Python turns it into the exception that fits the status.
struct NetworkFailure : std::runtime_error {
  NetworkFailure(const char* call_name, astra_net_status code, const astra_net_error& error)
      : std::runtime_error(text_of(error)),
        call(call_name),
        status(code),
        native_code(error.native_code),
        item(error.item) {}
  // The text of an error, which may have no end and no meaning.
  static std::string text_of(const astra_net_error& error) {
    return {error.message, strnlen(error.message, sizeof error.message)};
  }
  std::string call;
  astra_net_status status;
  int32_t native_code;
  int64_t item;
};

struct Progress {
  int64_t now_ps, events, nodes_done, nodes_total;
};
using Report = std::function<void(const Progress&)>;

struct Stream;
struct GraphRun;

// What goes on when a message is complete, on either side.
enum class Then : int32_t {
  kNothing,
  kNodeDone,    // a: rank, b: node
  kArrived,     // b: Stream
  kGraphDone,   // a: node, b: GraphRun
  kRendezvous,  // b: index of a stored function
};
struct Callback {
  Then then = Then::kNothing;
  int32_t a = 0;
  int64_t b = 0;
};

// Messages of one (tag, source, destination, size): the n-th receive takes the n-th send, so what
// waits is either sends or receives.
struct Channel {
  int64_t tag, bytes;
  int32_t src, dst;
  int32_t first = -1, last = -1;  // waiting messages
  int32_t users = 0;              // streams that remember this channel
  bool waiting_are_sends = false;
};

struct alignas(64) Message {
  Callback on_sent, on_received;
  int32_t channel = -1;
  int32_t next = -1;
  int32_t collective = -1, node = -1;  // of whoever waits, for diagnosis
  int64_t id = -1;                     // of its transfer
  bool arrived = false, received = false, in_flight = false, sent = false;
};

struct PhaseChoice {
  int32_t phase, queue, schedule;
};

struct CollectiveRun {
  int32_t rank, node;
  int64_t left;
};

// One chunk of a collective on one rank, and the schedule that it runs in its current phase.
// What every message touches stands first, in two cache lines.
struct alignas(64) Stream {
  const Step* steps = nullptr;
  const Packet* packets = nullptr;
  int32_t step = 0, step_count = 0, processed = 0, received = 0, inserted = 0;
  int32_t end = 0, burst = 0, gate_step = 0, gate_received = 0;
  int32_t rank = 0, position = 0, size = 0, stride = 0, base = 0;
  int32_t collective = -1;
  const int32_t* members = nullptr;
  // The channels of the last send and receive: most algorithms stay with one neighbour.
  int32_t send_channel = -1, send_peer = -1, recv_channel = -1, recv_peer = -1;
  int64_t send_bytes = 0, recv_bytes = 0;
  Bus bus = Bus::kEndpoint;
  int32_t window = 0;
  int64_t tag = 0;
  int32_t queue = -1, priority = 0;
  uint32_t next_phase = 0;
  CollectiveRun* run = nullptr;
  GraphRun* graph = nullptr;
  std::vector<PhaseChoice> phases;
};

// A custom collective on one rank.
struct GraphRun {
  Stream* stream;
  const GraphNode* nodes;
  int64_t left;
  const Graph* graph;
  uint64_t buckets;  // of the hash set that orders what becomes free together
  std::vector<int32_t> waiting;
};

// Objects with a stable address, used again after they are given back.
template <class T>
class Pool {
 public:
  T* take() {
    if (free_.empty()) {
      all_.emplace_back();
      return &all_.back();
    }
    T* item = free_.back();
    free_.pop_back();
    return item;
  }
  void give_back(T* item) { free_.push_back(item); }

 private:
  std::deque<T> all_;
  std::vector<T*> free_;
};

// Streams that wait for their turn: the highest priority first, then whoever came first.
struct Queue {
  struct Waiting {
    int64_t order;
    int32_t priority;
    Stream* stream;
    bool operator<(const Waiting& other) const {
      return priority != other.priority ? priority < other.priority : order > other.order;
    }
  };
  void add(Stream* stream, int64_t order) {
    waiting.push_back({order, stream->priority, stream});
    std::push_heap(waiting.begin(), waiting.end());
  }
  Stream* take() {
    std::pop_heap(waiting.begin(), waiting.end());
    Stream* stream = waiting.back().stream;
    waiting.pop_back();
    return stream;
  }
  std::vector<Waiting> waiting;  // a heap
  int32_t running = 0;
};

struct RankState {
  const Node* nodes = nullptr;
  int64_t first_record = 0;
  int64_t left = 0;
  std::vector<int32_t> waiting;
  std::vector<int32_t> free_nodes[kUnits];  // heaps, least first
  int32_t busy[kUnits] = {0, 0, 0, 0};
  int32_t priority = 0;
  std::vector<std::pair<int32_t, int64_t>> streams;  // group -> streams so far
};

class Engine {
 public:
  // `info`: what the network has declared.
  Engine(const Program& program, const astra_net_backend& network, astra_net_sim* sim,
         const astra_net_info& info, bool record_nodes);

  // Run until nothing more can happen.  `report` is called every `period_s` seconds, in the middle
  // of a long advance() too where the network can be interrupted, and may throw.
  void run(const Report& report, double period_s);

  Progress progress() const { return {now_ps_, events_, nodes_done_, nodes_total_}; }
  std::vector<Wait> waits() const;

  std::vector<int64_t> finish_ps, node_start_ps, node_end_ps, rank_node_start;
  int64_t transfers() const { return transfers_; }
  int64_t relieved() const { return relieved_; }

 private:
  void run_ordered();
  void exchange(int64_t until_ps, int64_t until_place, int64_t& next_ps, int64_t& next_place);
  void run_unordered();
  void submit();
  bool advance(int64_t until_ps);
  size_t drain(size_t total, int64_t in_network);
  void react(const char* call, size_t count, int64_t now_ps);
  void run_slots(int64_t limit);
  void run_action(Action action);
  void prefetch(const astra_net_completion& completion) const;
  int32_t find_message(int64_t id) const;
  void complete(const char* call, int64_t item, int64_t now_ps);
  void tick(int64_t now_ps);

  void add(int32_t rank, int64_t delay_ps, Action action) {
    queue_.push(rank, later_ps(delay_ps), place_, action);
  }
  int64_t later_ps(int64_t delay_ps) const;
  int64_t store(std::function<void()> function);
  void call_stored(int64_t index);

  // Messages
  int32_t open_channel(int64_t tag, int32_t src, int32_t dst, int64_t bytes);
  void close_if_idle(int32_t channel);
  void leave_channel(int32_t& channel);
  int32_t new_message(int32_t channel);
  void release(int32_t index);
  void send_on(int32_t channel, Callback then, int32_t collective, int32_t node);
  void receive_on(int32_t channel, Callback then, int32_t collective, int32_t node);
  void send(int32_t rank, int32_t peer, int64_t bytes, int64_t tag, Callback then,
            int32_t collective, int32_t node);
  void receive(int32_t rank, int32_t peer, int64_t bytes, int64_t tag, Callback then,
               int32_t collective, int32_t node);
  void resume(const Callback& callback);

  // Collectives
  int32_t position(int32_t group, int32_t rank);
  void issue_collective(int32_t rank, int32_t node, int32_t index);
  void choose_phases(Stream& stream, const Plan& plan);
  bool agree(const Stream& stream, int32_t phase, int32_t layout, bool second);
  void next_phase(Stream* stream);
  void enter(Stream& stream, const PhaseChoice& choice);
  void fill(Queue& queue);
  void start_next(Queue& queue);
  bool relieve();
  void start(Stream& stream);
  void insert_packet(Stream& stream);
  void packet_crossed(Stream& stream, int32_t packet);
  void packet_processed(Stream& stream);
  void run_steps(Stream& stream, int32_t most);
  void arrived(Stream& stream);
  int32_t peer_of(const Stream& stream, int32_t relative) const;
  void start_graph(GraphRun& graph);
  void issue_graph_node(GraphRun& graph, int32_t node);
  void graph_node_done(GraphRun& graph, int32_t node);

  // Nodes
  void fire(int32_t rank);
  void issue_free(int32_t rank);
  bool issue(int32_t rank, int32_t node);
  void node_done(int32_t rank, int32_t node);
  void complete_node(int32_t rank, int32_t node);
  void access_memory(int32_t rank, int32_t node);
  void serve(int32_t server, int32_t rank, int32_t node);
  void served(int32_t server);

  const Program& program_;
  const astra_net_backend& network_;
  astra_net_sim* sim_;
  Boundary boundary_;
  const bool ordered_;
  void (*const interrupt_)(astra_net_sim*);
  const int64_t most_in_flight_;
  Ticker* ticker_ = nullptr;
  const Report* report_ = nullptr;
  astra_net_error error_{};

  int64_t now_ps_ = 0, place_ = 0;
  int64_t events_ = 0, transfers_ = 0, nodes_done_ = 0, nodes_total_ = 0;
  int64_t relieved_ = 0;
  EventQueue queue_;
  std::vector<astra_net_transfer> starts_;
  int64_t network_ps_ = 0;   // how far advance has got; the engine may be ahead
  size_t starts_taken_ = 0;  // by submit, which takes what it has room for
  bool full_ = false;        // it had no room for the last ones (R4)
  std::vector<astra_net_completion> completions_;
  int64_t in_flight_ = 0;
  int64_t queued_ = 0;  // streams that have entered a queue

  std::vector<Message> messages_;
  int64_t index_mask_ = 63;  // the bits of an id that are the index of its message
  int32_t free_message_ = -1;
  std::vector<Channel> channels_;
  std::vector<int32_t> free_channels_;
  std::vector<std::pair<uint32_t, int32_t>> channel_table_;  // (hash, channel or -1)
  size_t channel_count_ = 0;

  Pool<Stream> streams_;
  Pool<CollectiveRun> collective_runs_;
  Pool<GraphRun> graph_runs_;
  std::vector<RankState> ranks_;
  std::vector<Queue> queues_;         // rank by rank
  std::vector<int32_t> next_queue_;   // rank by rank: per level, one counter per Pick
  std::vector<int32_t> alternate_;    // rank by rank
  // (tag, phase of the plan, first rank of the layout) -> way round, members that have yet to ask
  std::map<std::tuple<int64_t, int32_t, int32_t>, std::pair<bool, int32_t>> agreed_;
  std::vector<IndexMap> positions_;   // per group that is a list
  std::vector<std::unique_ptr<SharedBus>> buses_;
  std::vector<BusHost> bus_hosts_;
  std::vector<std::deque<std::pair<int32_t, int32_t>>> servers_;
  std::vector<bool> server_busy_;
  std::vector<std::function<void()>> stored_;
  std::vector<int64_t> free_stored_;
  std::vector<int32_t> scratch_;
};

}  // namespace engine

#endif  // ASTRA_ENGINE_ENGINE_HPP
