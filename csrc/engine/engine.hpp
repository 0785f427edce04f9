// SPDX-License-Identifier: MIT
//
// The native engine: runs a Program on any network behind astra_net.h, without Python per message.
// It does, event by event, what astra_bridge/engine/python.py does; that file explains why.
#ifndef ASTRA_ENGINE_ENGINE_HPP
#define ASTRA_ENGINE_ENGINE_HPP

#include <algorithm>
#include <cstddef>
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
#include "failure.hpp"
#include "folding.hpp"
#include "issue_order.hpp"
#include "meeting.hpp"
#include "pool.hpp"
#include "program.hpp"
#include "ticker.hpp"
#include "wavefront.hpp"

namespace engine {

struct Progress {
  int64_t now_ps, events, nodes_done, nodes_total;
};
// True where the engine shall stop as soon as its state is whole.
using Report = std::function<bool(const Progress&)>;

// Messages of one (tag, source, destination, size): the n-th receive takes the n-th send, so what
// waits is either sends or receives.
struct alignas(32) Channel {
  int64_t tag = 0, bytes = 0;
  int32_t src = 0, dst = 0;
  int32_t last = -1;  // of the messages that wait, or -1; its next one is the first
  int32_t users = 0;  // streams that remember this channel, and messages
};

struct alignas(64) Message {
  Action on_sent, on_received;
  int32_t channel = -1;
  int32_t next = -1;  // in its channel
  int32_t collective = -1, node = -1;  // of whoever waits, for diagnosis
  int64_t id = -1;                     // of its transfer, while that is in flight
  int64_t start_ps = 0;                // of its transfer
  bool arrived = false, received = false, sent = false;
  template <class A>
  void visit(A& archive) {
    archive(on_sent, on_received, channel, next, collective, node, id, start_ps, arrived, received,
            sent);
  }
};

// A send or receive that waits for the control message of the rendezvous protocol.
struct Rendezvous {
  int64_t bytes = 0, tag = 0;
  Action then;
  int32_t rank = 0, peer = 0, collective = -1, node = -1;
  bool sends = false;
  uint16_t level = 0;
  template <class A>
  void visit(A& archive) {
    archive(bytes, tag, then, rank, peer, collective, node, sends, level);
  }
};

struct PhaseChoice {
  int32_t phase, queue, schedule;
};

struct CollectiveRun {
  int32_t task = 0, node = 0;
  int64_t left = 0;
  template <class A>
  void visit(A& archive) {
    archive(task, node, left);
  }
};

// One chunk of a collective on one rank: the phases that it goes through, and its group in the
// current one.  The pointers follow from `run` and `phases` (Engine::bind), and are neither copied
// nor written to a file.
struct Chunk {
  const int32_t *members = nullptr, *placement = nullptr;
  int64_t tag = 0;
  int32_t job_rank = 0, position = 0, size = 0, stride = 0, base = 0;
  int32_t queue = -1, priority = 0;
  uint32_t next_phase = 0;
  int32_t run = -1;
  int32_t graph = -1;  // graph run, of a custom collective
  std::vector<PhaseChoice> phases;
  template <class A>
  void visit(A& archive) {
    archive(tag, job_rank, position, size, stride, base, queue, priority, next_phase, run, graph,
            phases);
  }
};

// The channel of the last send or receive, and the step that opened it: most algorithms stay with
// one neighbour.  Where messages meet by number there is none, and `step` is the meeting.
struct Remembered {
  static constexpr int32_t kMeets = -2;
  int32_t channel = -1, step = -1;
};

// The schedule that a chunk runs in its current phase.  Thousands of ranks take turns, and their
// streams are more than the caches hold: what every message touches is one cache line.
struct alignas(64) Stream {
  const Schedule* schedule = nullptr;  // of a custom collective, which is a graph, none
  int32_t step = 0, processed = 0, received = 0, inserted = 0;
  Remembered sends, receives;
  int64_t bus_ps = 0;  // to cross the bus, unless it is shared
  int32_t rank = 0;
  int32_t self = -1;  // its index, and that of its chunk
  int32_t collective = -1;
  Bus bus = Bus::kEndpoint;
  bool shared_bus = false;
  uint16_t level = 0;  // traffic class of its messages
  template <class A>
  void visit(A& archive) {
    archive(step, processed, received, inserted, sends, receives, bus_ps, rank, self, collective,
            bus, shared_bus, level);
  }
};
static_assert(sizeof(Stream) == 64);

// A custom collective on one rank.
struct GraphRun {
  int32_t stream = -1, graph = -1;
  int64_t left = 0;
  uint64_t buckets = 0;  // of the hash set that orders what becomes free together
  std::vector<int32_t> waiting;
  template <class A>
  void visit(A& archive) {
    archive(stream, graph, left, buckets, waiting);
  }
};

// Streams that wait for their turn: the highest priority first, then whoever came first.
struct Queue {
  struct Waiting {
    int64_t order;
    int32_t priority, stream;
    bool operator<(const Waiting& other) const {
      return priority != other.priority ? priority < other.priority : order > other.order;
    }
  };
  void add(int32_t stream, int32_t priority, int64_t order) {
    waiting.push_back({order, priority, stream});
    std::push_heap(waiting.begin(), waiting.end());
  }
  int32_t take() {
    std::pop_heap(waiting.begin(), waiting.end());
    const int32_t stream = waiting.back().stream;
    waiting.pop_back();
    return stream;
  }
  template <class A>
  void visit(A& archive) {
    archive(waiting, running);
  }
  std::vector<Waiting> waiting;  // a heap
  int32_t running = 0;
};

// A trace on a rank.
struct TaskState {
  int64_t node_start = 0;    // in the Program
  int64_t first_record = 0;  // in node_start_ps and node_end_ps
  int64_t left = 0;
  int32_t rank = 0;    // of the network
  int32_t origin = 0;  // rank of the job that peers of messages are counted from
  std::vector<int32_t> waiting;
  template <class A>
  void visit(A& archive) {
    archive(node_start, first_record, left, rank, origin, waiting);
  }
};

struct RankState {
  int64_t left = 0;                         // nodes of all its tasks
  double slowdown = 1;                      // of its compute nodes
  std::vector<int64_t> free_nodes[kUnits];  // heaps of (task << 32 | node), least first
  int32_t busy[kUnits] = {0, 0, 0, 0};
  int32_t priority = 0;
  std::vector<std::pair<int32_t, int64_t>> streams;  // group -> streams so far
  template <class A>
  void visit(A& archive) {
    archive(left, slowdown, priority, streams);
    for (int unit = 0; unit < kUnits; ++unit) archive(free_nodes[unit], busy[unit]);
  }
};

// What the Program has at a fixed time: it comes before all else in that instant, so that it does
// not matter when the engine learns of it.
struct Arrival {
  int64_t at_ps;
  int32_t is_task;  // a task that starts, else a slowdown; these come first
  int32_t index;
  bool operator<(const Arrival& other) const {
    return std::tie(at_ps, is_task, index) < std::tie(other.at_ps, other.is_task, other.index);
  }
};

enum class Stop : int32_t { kReached = 1, kDone = 2, kIdle = 3, kPaused = 4 };
enum class Watch : int32_t { kNothing, kTasks, kNodes };

class Engine {
 public:
  // `info`: what the network has declared.  The Program's arrays must outlive the engine.  `folded`:
  // digits in which the ranks are alike; the Program has the tasks of one of them, and the network
  // knows.  `waves`: phases that may be wavefronts, in a run to the end.  `by_number`: messages may meet
  // by number, where that is faster.
  Engine(Program program, const astra_net_backend& network, astra_net_sim* sim,
         const astra_net_info& info, bool record_nodes, Inside inside, std::vector<Digit> folded,
         Waves waves, bool by_number);
  // The same state on a copy of the network.
  Engine(const Engine& other, astra_net_sim* sim);
  Engine& operator=(const Engine&) = delete;

  // More work, whose indices continue those of the Program so far.
  void append(const Program& fragment);

  // Run everything before `until_ps`; to the end of the instant in which something that is watched
  // is complete; or, at ASTRA_NET_TIME_NEVER, until nothing more can happen.  `report` is called
  // every `period_s` seconds, in the middle of a long call of the network too where that can be
  // interrupted, and may throw.
  Stop advance(int64_t until_ps, const Report& report, double period_s);

  void watch(Watch what) { watch_ = what; }
  // What was watched and has completed since the last call.
  std::vector<Done> poll() { return std::exchange(done_, {}); }

  Progress progress() const { return {now_ps_, events_ + wave_.events, nodes_done_, nodes_total_}; }
  std::vector<Wait> waits() const;
  // Whether messages that meet by number still wait.  In the end that is where ranks have different
  // collectives under one tag, whose messages, searched for, might have met.
  bool missed() const { return !meeting_of_.empty(); }

  // Write or read all that changes; the Program is the caller's business.
  template <class A>
  void visit(A& archive);

  std::vector<int64_t> finish_ps, task_finish_ps, node_start_ps, node_end_ps, task_node_start;
  int64_t transfers() const { return transfers_; }
  int64_t relieved() const { return relieved_; }
  const Folding& folding() const { return folding_; }
  const WaveState& wave() const { return wave_; }
  // What went on inside collectives, as far as it was to be kept; it is not part of the state.
  std::vector<Stay> stays;
  std::vector<Delivery> deliveries;

 private:
  static constexpr size_t kMessagesNear = 4096;  // about a megabyte, with their streams
  static constexpr size_t kPiece = size_t{1} << 16;  // starts, three megabytes

  Engine(const Engine&) = default;  // on the same network: see above
  struct BusHost;   // what a shared bus asks for
  struct SlotHost;  // what slots ask for
  void grow();
  void bind(Stream& stream, Chunk& chunk);
  void bind_all();

  void run_ordered(int64_t until_ps);
  void exchange(int64_t until_ps, int64_t until_place);
  [[gnu::noinline]] void hand_over();
  void run_unordered(int64_t until_ps);
  void submit();
  bool advance_network(int64_t until_ps);
  size_t drain(size_t total, int64_t in_network);
  void react(const char* call, size_t count, int64_t now_ps);
  void run_slots(int64_t limit);
  void run(Action action);
  // The low bits of an id are a ticket: twice the index of its message, or, for one that meets by
  // number, one more than twice that of its word.
  static bool is_numbered(int64_t ticket) { return (ticket & 1) != 0; }
  int64_t find_ticket(int64_t id) const;
  bool is_of(int64_t ticket, int64_t id) const {
    const int64_t index = ticket >> 1;
    if (is_numbered(ticket)) return id >= 0 && words_.has(index) && words_[index] == id;
    return static_cast<size_t>(index) < messages_.size() &&
           messages_[static_cast<size_t>(index)].id == id;
  }
  void complete(const char* call, int64_t item, int64_t now_ps);
  void complete_numbered(int64_t index);
  [[gnu::noinline]] int64_t look_closer(const char* call, int64_t item, int64_t now_ps);
  // More is going on than stays in the nearest cache: it is worth while to fetch early.
  bool is_large() const { return messages_.size() + words_.size() > kMessagesNear; }
  void fetch_numbered(int64_t index, bool near) const;
  void tick(int64_t now_ps) {
    if (ticker_->due()) say(now_ps);
  }
  [[gnu::noinline]] void say(int64_t now_ps);
  int64_t arrival_ps() const {
    return next_arrival_ < arrivals_.size() ? arrivals_[next_arrival_].at_ps : ASTRA_NET_TIME_NEVER;
  }
  void arrive();

  [[gnu::always_inline]] void add(int32_t rank, int64_t delay_ps, const Action& action) {
    queue_.push(rank, delay_ps, later_ps(delay_ps), place_, action);
  }
  int64_t later_ps(int64_t delay_ps) const;
  [[gnu::noinline]] bool note_delivery(const Message& message, size_t item, int32_t& receiver);
  [[gnu::noinline]] void note_heard(int32_t receiver, bool doubtful, const Action& did,
                                    int64_t freed);
  [[gnu::noinline]] void note_slot(int32_t rank, int64_t place, const Action& action);
  int32_t address(int32_t rank) const { return folding_ ? folding_.rank_at(rank) : rank; }

  // Messages
  int32_t open_channel(int64_t tag, int32_t src, int32_t dst, int64_t bytes);
  [[gnu::noinline]] void close_channel(int32_t channel);
  [[gnu::always_inline]] void fetch_channel(int32_t channel) const {
    if (channel >= 0) __builtin_prefetch(&channels_[static_cast<size_t>(channel)], 1);
  }
  void leave_channel(int32_t& channel);
  [[gnu::noinline]] int32_t add_message();
  int32_t new_message(int32_t channel);
  void widen_ids(int64_t ticket);
  int64_t start_transfer(int64_t ticket, int32_t src, int32_t dst, int64_t bytes, uint16_t level);
  void wait_in(Channel& channel, int32_t message, int32_t collective, int32_t node);
  int32_t take_first(Channel& channel);
  void release(int32_t index);
  void send_on(int32_t channel, Action then, int32_t collective, int32_t node, uint16_t level);
  void receive_on(int32_t channel, Action then, int32_t collective, int32_t node);
  void send(int32_t rank, int32_t peer, int64_t bytes, int64_t tag, Action then, int32_t collective,
            int32_t node, uint16_t level = 0);
  void receive(int32_t rank, int32_t peer, int64_t bytes, int64_t tag, Action then,
               int32_t collective, int32_t node, uint16_t level = 0);
  void meet(int32_t index);

  // Messages that meet by number
  void join_meeting(Stream& stream, Chunk& chunk, const Phase& phase);
  void leave_meeting(Stream& stream);
  void close_if_over(int32_t meeting);
  void send_numbered(Meeting& meeting, const Numbering& numbering, const Stream& stream,
                     int32_t position, int32_t number);
  void receive_numbered(Meeting& meeting, const Numbering& numbering, Stream& stream,
                        int32_t position, int32_t number);
  struct Numbered {  // where a word stands
    int32_t meeting, sender, receiver, number;
  };
  Numbered numbered(int64_t index) const;
  bool has_posted(const Meeting& meeting, const Stream& stream, int32_t number) const;
  [[gnu::noinline]] void receive_early(Action then);
  void wait_for_numbered(std::vector<Wait>& waits) const;

  // Wavefronts
  bool joins_wave(const Stream& stream);
  Flows& flows_of(const Gathering& gathering);
  void run_wave(const Gathering& gathering);
  void doubt(Doubt why, int32_t rank);
  void note_entry(int32_t rank, int32_t queue, int32_t priority);
  void note_exit(int32_t rank, int32_t queue);
  void note_done(int32_t rank);

  // Collectives
  int32_t position(int32_t group, int32_t job_rank) const;
  void issue_collective(int32_t task, int32_t node, int32_t index);
  void choose_phases(Chunk& chunk, int32_t rank, const Plan& plan);
  bool agree(const Chunk& chunk, int32_t phase, int32_t layout, bool second);
  void next_phase(Stream& stream);
  void enter(Stream& stream, Chunk& chunk, const PhaseChoice& choice);
  void fill(Queue& queue, int32_t most);
  void start_next(Queue& queue);
  bool relieve();
  void start(Stream& stream);
  void insert_packet(Stream& stream);
  void packet_crossed(Stream& stream, int32_t packet);
  bool insert_together(Stream& stream, int32_t count);
  void packets_processed(Stream& stream, int32_t count);
  void packet_processed(Stream& stream);
  // Twice for each message, so that what it calls is in it.
  [[gnu::flatten]] void run_steps(Stream& stream, int32_t most);
  [[gnu::noinline]] void run_numbered_steps(Stream& stream, int32_t most);
  void arrived(Stream& stream);
  [[gnu::noinline]] bool open_send(Stream& stream, const Step& step);
  [[gnu::noinline]] bool open_receive(Stream& stream, const Step& step);
  [[gnu::noinline]] void reduce(const Stream& stream);
  int32_t peer_of(const Chunk& chunk, Peers peers, int32_t value) const;
  Chunk& chunk_of(const Stream& stream) { return chunks_[static_cast<size_t>(stream.self)]; }
  const Packet& packet_of(const Stream& stream, int32_t index) const {
    return program_.packets[stream.schedule->packet_start + index];
  }
  // What is kept of the inside of collectives.
  int64_t stay_of(const Stream& stream) const {
    return stay_of_stream_[static_cast<size_t>(stream.self)];
  }
  [[gnu::noinline]] void note_entered(const Stream& stream, const PhaseChoice& choice);
  [[gnu::noinline]] void note_held(int32_t rendezvous);
  [[gnu::noinline]] void note_sent(int32_t message);
  [[gnu::noinline]] void note_receive(int32_t message);
  void bus_event(int32_t rank, int32_t what);
  void start_graph(int32_t graph);
  void issue_graph_node(int32_t graph, int32_t node);
  void graph_node_done(int32_t graph, int32_t node);

  // Nodes
  void fire(int32_t task);
  void issue_free(int32_t rank);
  bool issue(int32_t task, int32_t node);
  void node_done(int32_t task, int32_t node);
  void complete_node(int32_t task, int32_t node);
  void note_end(int32_t task);
  int64_t slowed(int32_t rank, int64_t duration_ps) const;
  void access_memory(int32_t task, int32_t node, int64_t duration_ps);
  void serve(int32_t server, int32_t task, int32_t node);
  void served(int32_t server);

  const Machine& machine_of(int32_t rank) const {
    return program_.machines[program_.machine_of_rank[rank]];
  }
  // The job of a task.
  const Job& job_of(int32_t task) const { return program_.jobs[program_.tasks[task].job]; }
  const int32_t* placement_of(int32_t task) const {
    const int64_t start = job_of(task).placement_start;
    return start < 0 ? nullptr : &program_.placement[start];
  }
  // A rank of the job of a task, as a rank of the network.
  int32_t placed(int32_t task, int32_t job_rank) const {
    const int32_t* placement = placement_of(task);
    return placement == nullptr ? job_rank : placement[job_rank];
  }
  TaskState& task_at(int32_t task) { return tasks_[static_cast<size_t>(task)]; }
  const Node& node_of(const TaskState& task, int32_t node) const {
    return program_.nodes[task.node_start + node];
  }

  Program program_;
  Folding folding_;
  bool streams_interchange_ = true;  // arrivals of one chunk, as all packets cross a bus
  const astra_net_backend& network_;
  astra_net_sim* sim_;
  Boundary boundary_;
  const bool ordered_;
  const bool record_nodes_;
  const bool keeps_stays_, keeps_deliveries_;
  const int64_t grid_ps_;  // of the network's times
  const bool pieces_;      // the network takes the starts of one instant in pieces
  const bool numbers_;     // messages meet by number where they can
  void (*const interrupt_)(astra_net_sim*);
  const int64_t most_in_flight_;
  const int32_t most_level_;  // traffic class that the network takes
  Ticker* ticker_ = nullptr;
  const Report* report_ = nullptr;
  astra_net_error error_{};

  int64_t now_ps_ = 0, place_ = 0;
  int64_t events_ = 0, transfers_ = 0, nodes_done_ = 0, nodes_total_ = 0;
  int64_t relieved_ = 0;
  int64_t freed_ = 0;  // nodes that the end of another one has made free
  EventQueue queue_;
  std::vector<Arrival> arrivals_;  // ascending
  size_t next_arrival_ = 0;
  size_t slowdowns_ = 0;  // of the Program, that have been taken up
  int64_t next_ps_ = ASTRA_NET_TIME_NEVER, next_place_ = ASTRA_NET_TIME_NEVER;  // the network's
  std::vector<astra_net_transfer> starts_;
  int64_t first_start_ = ASTRA_NET_TIME_NEVER;  // id of the first of them, or of a piece before
  int64_t network_ps_ = 0;   // how far advance has got; the engine may be ahead
  size_t starts_taken_ = 0;  // by submit, which takes what it has room for
  bool full_ = false;        // it had no room for the last ones (R4)
  std::vector<astra_net_completion> completions_;
  std::vector<int64_t> waited_ps_;  // with folded ranks: what completions have as `reserved`
  int64_t in_flight_ = 0;
  int64_t queued_ = 0;  // streams that have entered a queue
  Watch watch_ = Watch::kNothing;
  bool stop_ = false, paused_ = false;
  std::vector<Done> done_;

  std::vector<Message> messages_;
  // The bits of an id that are its ticket.  Ids that had fewer bits are found by a second look into
  // memory, so there are enough for most runs, and still 2^43 ids.
  int64_t ticket_mask_ = (int64_t{1} << 19) - 1;
  std::vector<int32_t> free_messages_;
  std::vector<Channel> channels_;
  std::vector<int32_t> free_channels_;
  std::vector<std::pair<uint32_t, int32_t>> channel_table_;  // (hash, channel or -1)
  size_t channel_count_ = 0;
  Pool<Rendezvous> rendezvous_;

  WaveState wave_;

  Numberings numberings_;
  MessageWords words_;
  Pool<Meeting> meetings_;
  std::map<Meeting::Key, int32_t> meeting_of_;

  Pool<Stream, 1024> streams_;  // in few pages, as the processor keeps few translations at hand
  std::deque<Chunk> chunks_;    // by the index of the stream
  Pool<CollectiveRun> runs_;
  Pool<GraphRun> graph_runs_;
  std::vector<TaskState> tasks_;
  std::vector<RankState> ranks_;
  std::vector<Queue> queues_;         // rank by rank
  std::vector<int32_t> next_queue_;   // rank by rank: per level, one counter per Pick
  std::vector<int32_t> alternate_;    // slot by slot
  // (tag, phase of the plan, first rank of the layout) -> way round, members that have yet to ask
  std::map<std::tuple<int64_t, int32_t, int32_t>, std::pair<bool, int32_t>> agreed_;
  // (tag, phase, first rank of the layout, step) -> number, members that have yet to start
  std::map<std::tuple<int64_t, int32_t, int32_t, int32_t>, std::pair<int64_t, int32_t>> reductions_;
  int64_t reduced_ = 0;  // reductions so far
  std::vector<IndexMap> positions_;  // per group that is a list
  std::vector<SharedBus> buses_;  // rank by rank, or empty
  std::vector<std::deque<std::pair<int32_t, int32_t>>> servers_;
  std::vector<char> server_busy_;
  std::vector<int64_t> scratch_;

  // For what is kept: who sends and receives now, as Delivery has it; of each stream its stay and
  // its chunk; of each message its delivery and its receiver.
  int64_t owner_ = -1;
  std::vector<int64_t> stay_of_stream_, delivery_of_message_, receiver_of_message_;
  std::vector<int64_t> owner_of_rendezvous_;
  std::vector<int32_t> chunk_of_stream_;
};

template <class A>
void Engine::visit(A& archive) {
  archive(finish_ps, task_finish_ps, node_start_ps, node_end_ps, now_ps_, place_, events_,
          transfers_, nodes_done_, relieved_);
  archive(boundary_, queue_, arrivals_, next_arrival_, next_ps_, next_place_, starts_, first_start_,
          network_ps_, starts_taken_, full_, in_flight_, queued_, done_);
  archive(messages_, ticket_mask_, free_messages_, channels_, free_channels_, channel_table_,
          channel_count_, rendezvous_, numberings_, words_, meetings_, meeting_of_);
  archive(streams_, chunks_, runs_, graph_runs_, tasks_, ranks_, queues_, next_queue_, alternate_,
          agreed_, reductions_, reduced_, servers_, server_busy_);
  for (SharedBus& bus : buses_) archive(bus);
  if (A::kReads) bind_all();
}

}  // namespace engine

#endif  // ASTRA_ENGINE_ENGINE_HPP
