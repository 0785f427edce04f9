// SPDX-License-Identifier: MIT
//
// The main loop: events of the engine and of the network in one order.
#include "engine.hpp"

#include <algorithm>
#include <cstdio>

#include "failure.hpp"

namespace engine {

namespace {

constexpr int64_t kNever = ASTRA_NET_TIME_NEVER;
constexpr size_t kCompletionBatch = 1024;
constexpr size_t kAhead = 8;  // completions: see Engine::react

}  // namespace

Engine::Engine(Program program, const astra_net_backend& network, astra_net_sim* sim,
               const astra_net_info& info, bool record_nodes, Inside inside,
               std::vector<Digit> folded, Waves waves, bool by_number)
    : program_(std::move(program)),
      folding_(std::move(folded), static_cast<size_t>(program_.ranks())),
      network_(network),
      sim_(sim),
      boundary_(info),
      ordered_((info.capabilities & ASTRA_NET_CAP_ORDERED) != 0),
      record_nodes_(record_nodes),
      keeps_stays_(inside != Inside::kNothing),
      keeps_deliveries_(inside == Inside::kMessages),
      grid_ps_(info.resolution_ps),
      pieces_(ordered_ && (info.capabilities & ASTRA_NET_CAP_PIECES) != 0),
      // What folds, or has a control message, is searched for; and a word has no room for SENT, or
      // for what is kept of a message.
      numbers_(by_number && !folding_ && !keeps_deliveries_ && program_.rendezvous_bytes == 0 &&
               (info.capabilities & ASTRA_NET_CAP_SENT) == 0),
      interrupt_((info.capabilities & ASTRA_NET_CAP_INTERRUPT) != 0 ? network.interrupt : nullptr),
      most_in_flight_(info.max_in_flight),
      most_level_(static_cast<int32_t>(std::min(info.traffic_classes, 65'536u)) - 1),
      queue_(program_.ranks()) {
  const size_t ranks = static_cast<size_t>(program_.ranks());
  finish_ps.assign(ranks, 0);
  ranks_.resize(ranks);
  task_node_start.assign(1, 0);
  const size_t levels = ranks * static_cast<size_t>(program_.levels);
  queues_.resize(levels * static_cast<size_t>(program_.queues_per_level));
  next_queue_.assign(levels * 3, 0);
  for (size_t i = 2; i < next_queue_.size(); i += 3) next_queue_[i] = program_.queues_per_level / 2;
  wave_.told = std::move(waves);
  if (wave_) {
    wave_.of_queue.resize(queues_.size());
    wave_.of_rank.resize(ranks);
  }
  bool shared_buses = false;
  for (size_t i = 0; i < program_.machines.size(); ++i)
    shared_buses |= program_.machines[static_cast<int64_t>(i)].bus_model == BusModel::kLoggp;
  for (size_t rank = 0; shared_buses && rank < ranks; ++rank)
    buses_.emplace_back(machine_of(static_cast<int32_t>(rank)));
  int32_t servers = 0;
  for (size_t rank = 0; rank < program_.memory_server.size(); ++rank)
    servers = std::max(servers, program_.memory_server[static_cast<int64_t>(rank)] + 1);
  servers_.resize(static_cast<size_t>(servers));
  server_busy_.assign(static_cast<size_t>(servers), 0);
  channel_table_.assign(64, {0, -1});
  completions_.resize(kCompletionBatch);
  for (size_t i = 0; i < program_.phases.size(); ++i)
    streams_interchange_ &= program_.phases[static_cast<int64_t>(i)].bus != Bus::kNone;
  grow();
}

Engine::Engine(const Engine& other, astra_net_sim* sim) : Engine(other) {
  sim_ = sim;
  bind_all();
}

void Engine::append(const Program& fragment) {
  program_.append(fragment);
  grow();
  bind_all();
}

// Make state for what is new in the Program.
void Engine::grow() {
  const size_t first = tasks_.size(), count = program_.tasks.size();
  tasks_.resize(count);
  task_finish_ps.resize(count, -1);
  for (size_t i = first; i < count; ++i) {
    const Task& task = program_.tasks[static_cast<int64_t>(i)];
    const Template& nodes = program_.templates[task.template_index];
    TaskState& state = tasks_[i];
    state.rank = folding_ ? folding_.index_of(task.job_rank)
                          : placed(static_cast<int32_t>(i), task.job_rank);
    state.origin = nodes.relative_peers != 0 ? task.job_rank : 0;
    state.node_start = nodes.node_start;
    state.left = nodes.node_count;
    state.waiting.resize(static_cast<size_t>(nodes.node_count));
    for (int64_t node = 0; node < nodes.node_count; ++node)
      state.waiting[static_cast<size_t>(node)] = program_.nodes[nodes.node_start + node].parents;
    state.first_record = task_node_start.back();
    task_node_start.push_back(state.first_record + nodes.node_count);
    ranks_[static_cast<size_t>(state.rank)].left += nodes.node_count;
    finish_ps[static_cast<size_t>(state.rank)] = -1;
    arrivals_.push_back({task.start_ps, 1, static_cast<int32_t>(i)});
  }
  for (size_t i = slowdowns_; i < program_.slowdowns.size(); ++i)
    arrivals_.push_back(
        {program_.slowdowns[static_cast<int64_t>(i)].at_ps, 0, static_cast<int32_t>(i)});
  slowdowns_ = program_.slowdowns.size();
  const auto pending = arrivals_.begin() + static_cast<std::ptrdiff_t>(next_arrival_);
  if (!std::is_sorted(pending, arrivals_.end())) std::sort(pending, arrivals_.end());
  nodes_total_ = task_node_start.back();
  if (record_nodes_) {
    node_start_ps.resize(static_cast<size_t>(nodes_total_), -1);
    node_end_ps.resize(static_cast<size_t>(nodes_total_), -1);
  }
  alternate_.resize(static_cast<size_t>(program_.alternate_slots) * ranks_.size());
  for (size_t g = positions_.size(); g < program_.groups.size(); ++g) {
    positions_.emplace_back();
    const Group& group = program_.groups[static_cast<int64_t>(g)];
    if (group.stride != 0) continue;
    for (int32_t i = 0; i < group.size; ++i)
      positions_[g].insert(program_.members[group.member_start + i], i);
  }
}

void Engine::bind_all() {
  for (size_t i = 0; i < streams_.size(); ++i) bind(streams_[static_cast<int64_t>(i)], chunks_[i]);
}

// Main loop

Stop Engine::advance(int64_t until_ps, const Report& report, double period_s) {
  Ticker ticker(interrupt_, sim_, period_s);
  ticker_ = &ticker;
  report_ = &report;
  stop_ = paused_ = false;
  try {
    if (ordered_)
      run_ordered(until_ps);
    else
      run_unordered(until_ps);
  } catch (const BusDelay& delay) {
    give_up("the shared bus takes %g ns for a transfer, beyond the range of time (2^63 ps)",
            delay.ns);
  }
  if (stop_) return paused_ ? Stop::kPaused : Stop::kDone;
  if (until_ps == kNever ||
      (queue_.empty() && next_arrival_ == arrivals_.size() && in_flight_ == 0))
    return Stop::kIdle;
  now_ps_ = std::max(now_ps_, until_ps);
  return Stop::kReached;
}

void Engine::say(int64_t now_ps) {
  Progress reached = progress();
  reached.now_ps = std::max(reached.now_ps, now_ps);
  if ((*report_)(reached)) stop_ = paused_ = true;
}

// What comes at a fixed time comes before all else of that instant.
void Engine::arrive() {
  now_ps_ = arrival_ps();
  if (folding_) folding_.at(place_, now_ps_);
  while (arrival_ps() == now_ps_) {
    const Arrival arrival = arrivals_[next_arrival_++];
    if (arrival.is_task != 0) {
      fire(arrival.index);
      tick(now_ps_);
    } else {
      const Slowdown& change = program_.slowdowns[arrival.index];
      ranks_[static_cast<size_t>(change.rank)].slowdown = change.factor;
    }
  }
  if (next_arrival_ == arrivals_.size()) {
    arrivals_.clear();
    next_arrival_ = 0;
  }
}

void Engine::run_ordered(int64_t until_ps) {
  for (;;) {
    tick(now_ps_);
    if (stop_) return;
    int64_t ours_ps = queue_.first_time(), ours_place = queue_.first_place();
    // At a fixed time, places begin at 0.
    const int64_t fixed_ps = std::min(arrival_ps(), until_ps);
    const bool fixed = fixed_ps <= ours_ps && fixed_ps != kNever;
    if (fixed) {
      ours_ps = fixed_ps;
      ours_place = 0;
    }
    // Transfers that start now are handed over before the first event behind them.
    const bool due = first_start_ != kNever && (ours_ps > now_ps_ || ours_place > first_start_);
    if (due || next_ps_ < ours_ps || (next_ps_ == ours_ps && next_place_ < ours_place)) {
      exchange(ours_ps, ours_place);
    } else if (fixed) {
      if (ours_ps == until_ps) return;
      arrive();
    } else if (!queue_.empty()) {
      run_slots(next_ps_ == ours_ps ? next_place_ : kNever);
    } else if (in_flight_ > 0) {
      // The network says that no event is left: it has to say what became of these (R13).
      exchange(ours_ps, ours_place);
    } else if (!relieve()) {
      return;
    }
  }
}

// Give the network what starts now, run it, react.
void Engine::exchange(int64_t until_ps, int64_t until_place) {
  astra_net_exchange x;
  x.struct_size = sizeof x;
  x.stop = 0;
  x.starts = starts_.data();
  x.start_count = starts_.size();
  x.until_ps = until_ps;
  x.until_place = until_place;
  x.place = place_;
  x.now_ps = now_ps_;
  x.next_ps = x.next_place = 0;
  x.completions = completions_.data();
  x.capacity = completions_.size();
  x.completion_count = 0;
  const Boundary::Asked asked{
      completions_.data(), completions_.size(), now_ps_, until_ps, until_place, place_};
  error_.struct_size = sizeof error_;
  check("exchange", network_.exchange(sim_, &x, &error_), error_);
  Boundary::exchanged(x, asked, in_flight_);
  starts_.clear();
  first_start_ = kNever;
  place_ = x.place;
  next_ps_ = x.next_ps;
  next_place_ = next_ps_ == kNever ? kNever : x.next_place;
  if (x.completion_count > 0) react("exchange", x.completion_count, x.now_ps);
}

// Give the network a piece of what starts now, and let it run nothing.
void Engine::hand_over() {
  const int64_t first = first_start_;
  exchange(now_ps_, 0);
  first_start_ = first;
}

// Thousands of ranks take turns, so what the next ones need is rarely in the nearest cache: it is
// fetched early, in three stages, since each is found by the one before.
void Engine::react(const char* call, size_t count, int64_t now_ps) {
  const auto near_message = [&](int64_t ticket) -> const Message* {
    const auto index = static_cast<size_t>(ticket >> 1);
    return index < messages_.size() ? &messages_[index] : nullptr;
  };
  const auto ticket_at = [&](size_t i) { return completions_[i].id & ticket_mask_; };
  if (folding_) {
    waited_ps_.resize(count);
    for (size_t i = 0; i < count; ++i) waited_ps_[i] = std::exchange(completions_[i].reserved, 0);
  }
  boundary_.start_records(now_ps_, now_ps);
  const bool fetches = count > 3 * kAhead && is_large();
  for (size_t i = 0; i < count; ++i) {
    if (fetches && i + 3 * kAhead < count) {
      const int64_t far = ticket_at(i + 3 * kAhead), mid = ticket_at(i + 2 * kAhead);
      const int64_t near = ticket_at(i + kAhead);
      const Message* next = near_message(far);
      if (is_numbered(far))
        fetch_numbered(far >> 1, false);
      else if (next != nullptr)
        __builtin_prefetch(next, 1);
      next = near_message(mid);
      if (is_numbered(mid)) {
        fetch_numbered(mid >> 1, true);
      } else if (next != nullptr && next->on_received.then == Then::kArrived) {
        __builtin_prefetch(&streams_[next->on_received.b], 1);
        fetch_channel(next->channel);
      }
      next = near_message(near);
      if (!is_numbered(near) && next != nullptr && next->on_received.then == Then::kArrived)
        queue_.fetch(streams_[next->on_received.b].rank);
    }
    complete(call, static_cast<int64_t>(i), now_ps);
  }
}

void Engine::run_unordered(int64_t until_ps) {
  for (;;) {
    tick(now_ps_);
    if (stop_) return;
    submit();
    const int64_t slot_ps = queue_.empty() ? kNever : queue_.first_time();
    const int64_t ours_ps = std::min(slot_ps, arrival_ps());
    if (in_flight_ > 0) {
      if (advance_network(std::min(ours_ps, until_ps))) continue;
    } else if (ours_ps == kNever) {
      if (until_ps == kNever && relieve()) continue;
      return;
    }
    if (ours_ps >= until_ps) return;
    if (arrival_ps() == ours_ps) {
      arrive();
      continue;
    }
    now_ps_ = ours_ps;
    while (!stop_ && !queue_.empty() && queue_.first_time() == now_ps_) run_slots(kNever);
  }
}

// Give the network what starts now, unless it has no room (R4) and nothing has left it since.  No
// more than it has room for is offered: thousands may wait.
void Engine::submit() {
  for (;;) {
    const size_t waiting = starts_.size() - starts_taken_;
    const int64_t in_network = in_flight_ - static_cast<int64_t>(waiting);
    if (waiting == 0 || (full_ && in_network > 0)) break;
    const int64_t room = std::max<int64_t>(1, most_in_flight_ - in_network);
    const size_t offered = std::min(waiting, static_cast<size_t>(room));
    astra_net_transfer* first = starts_.data() + starts_taken_;
    // What there was no room for starts when there is.
    for (size_t i = 0; i < offered; ++i) first[i].start_ps = std::max(first[i].start_ps, now_ps_);
    size_t accepted = 0;
    error_.struct_size = sizeof error_;
    check("submit", network_.submit(sim_, first, offered, &accepted, &error_), error_);
    starts_taken_ += Boundary::submitted(accepted, offered, in_network);
    full_ = accepted < waiting;
  }
  if (starts_taken_ < starts_.size() / 2) return;
  starts_.erase(starts_.begin(), starts_.begin() + static_cast<std::ptrdiff_t>(starts_taken_));
  starts_taken_ = 0;
}

// Run the network to its next completions, and react; false where there was none.
bool Engine::advance_network(int64_t until_ps) {
  const int64_t in_network = in_flight_ - static_cast<int64_t>(starts_.size() - starts_taken_);
  int64_t before_ps = network_ps_, target_ps = until_ps, idle_interrupts = 0;
  size_t total = 0;
  for (;;) {
    int64_t reached_ps = before_ps;
    uint32_t stop = 0;
    error_.struct_size = sizeof error_;
    ticker_->enter();
    const astra_net_status status =
        network_.advance(sim_, target_ps, 0, &reached_ps, &stop, &error_);
    ticker_->leave();
    const bool whole = status != ASTRA_NET_INTERRUPTED;
    if (whole) {
      check("advance", status, error_);
      Boundary::stop("advance", stop);
    }
    Boundary::now("advance", reached_ps, before_ps, target_ps);
    if (!whole) {
      idle_interrupts = boundary_.interrupted(reached_ps > before_ps, idle_interrupts);
      error_ = fresh_error();
    }
    // Drain everything first: answers to the first completion must not change what is polled.
    const size_t count = drain(total, in_network);
    total += count;
    before_ps = reached_ps;
    if (whole) {
      Boundary::stopped("advance", stop, reached_ps, target_ps, count, in_network);
      break;
    }
    if (total > 0) target_ps = reached_ps;  // what is left of this instant (R6)
    tick(reached_ps);
  }
  full_ = full_ && total == 0;
  network_ps_ = before_ps;
  react("poll", total, before_ps);
  now_ps_ = std::max(now_ps_, before_ps);
  return total > 0;
}

// Append what poll has to the first `total` records; returns how many there were.
size_t Engine::drain(size_t total, int64_t in_network) {
  const size_t first = total;
  const size_t most = static_cast<size_t>(boundary_.most_records(in_network));
  for (;;) {
    if (total + kCompletionBatch > completions_.size())
      completions_.resize(2 * completions_.size());
    size_t count = 0;
    error_.struct_size = sizeof error_;
    check("poll",
          network_.poll(sim_, completions_.data() + total, kCompletionBatch, &count, &error_),
          error_);
    if (count > kCompletionBatch)
      lie("poll", "count", static_cast<int64_t>(count), kCompletionBatch);
    total += count;
    if (total > most)
      lie("poll", "count-flight", static_cast<int64_t>(total - first),
          static_cast<int64_t>(most - first));
    if (count < kCompletionBatch) return total - first;
  }
}

// What slots that run ask for.
struct Engine::SlotHost {
  Engine& engine;
  int64_t last_place;
  bool fetches;

  void begin(int32_t rank, int64_t place, const Action& action) const {
    if (engine.folding_) engine.note_slot(rank, place, action);
  }
  void run(Action action) const {
    ++engine.events_;
    // Nearly all are this one.
    if (action.then == Then::kBusCrossed && action.a == 1)
      engine.packet_processed(engine.streams_[action.b]);
    else
      engine.run(action);
  }
  int64_t limit() const {
    if (engine.stop_) return -1;
    return engine.ordered_ ? std::min(last_place, engine.first_start_) : last_place;
  }
  static bool of_packet(Action action) {
    return action.then == Then::kBusCrossed || action.then == Then::kBusReduced;
  }
  [[gnu::always_inline]] void fetch(Action action) const {
    if (of_packet(action)) __builtin_prefetch(&engine.streams_[action.b], 1);
  }
  [[gnu::always_inline]] void fetch_more(Action action) const {
    if (!of_packet(action)) return;
    const Stream& stream = engine.streams_[action.b];
    engine.fetch_channel(stream.sends.channel);
    engine.fetch_channel(stream.receives.channel);
  }
};

// Run what is due at the first time, up to a place of the network's (`limit`) and, with a network
// that shares the order of events, to the first transfer that is started meanwhile.
void Engine::run_slots(int64_t limit) {
  now_ps_ = queue_.first_time();
  queue_.run_first(SlotHost{*this, limit, is_large()});
}

void Engine::run(Action action) {
  switch (action.then) {
    case Then::kBusCrossed:
      packets_processed(streams_[action.b], action.a);
      break;
    case Then::kBusReduced:
      packet_crossed(streams_[action.b], action.a);
      break;
    case Then::kArrived:
      arrived(streams_[action.b]);
      break;
    case Then::kNodeDone:
      node_done(action.a, action.b);
      break;
    case Then::kGraphDone:
      graph_node_done(action.b, action.a);
      break;
    case Then::kServed:
      served(action.a);
      break;
    case Then::kSharedBus:
      bus_event(action.b, action.a);
      break;
    case Then::kRendezvous:
      meet(action.b);
      break;
    case Then::kPhaseOver:
      next_phase(streams_[action.b]);
      break;
    case Then::kNothing:
      break;
  }
}

// The ticket of a transfer in flight, or -1.  It stands in the low bits of the id, so this is no
// search; how many bits, grows with the number of messages.
int64_t Engine::find_ticket(int64_t id) const {
  for (int64_t mask = ticket_mask_; mask > 0; mask >>= 1)
    if (is_of(id & mask, id)) return id & mask;
  return -1;
}

void Engine::complete(const char* call, int64_t item, int64_t now_ps) {
  const astra_net_completion& completion = completions_[static_cast<size_t>(item)];
  int64_t ticket = completion.id & ticket_mask_;
  if (!is_of(ticket, completion.id) || !boundary_.plain(completion, now_ps)) {
    ticket = look_closer(call, item, now_ps);
    if (ticket < 0) return;
  }
  now_ps_ = now_ps;
  ++events_;
  --in_flight_;
  if (is_numbered(ticket)) {
    complete_numbered(ticket >> 1);
    return;
  }
  const auto index = static_cast<int32_t>(ticket >> 1);
  Message& message = messages_[static_cast<size_t>(index)];
  int32_t receiver = -1;
  const bool doubtful = folding_ && note_delivery(message, static_cast<size_t>(item), receiver);
  message.id = -1;
  if (message.sent) boundary_.count_sent(-1);
  const Action sent = message.on_sent, received = message.on_received;
  const bool both = message.received;
  message.arrived = true;
  if (keeps_deliveries_)
    deliveries[static_cast<size_t>(delivery_of_message_[static_cast<size_t>(index)])].end_ps =
        now_ps;
  if (both) release(index);
  if (sent.then != Then::kNothing) run(sent);
  const int64_t freed = freed_;
  if (both) {
    if (received.then == Then::kArrived)
      arrived(streams_[received.b]);
    else
      run(received);
  }
  if (folding_) note_heard(receiver, doubtful, both ? received : Action{}, freed);
}

// At a record that is not plain, or of a message whose id has fewer bits than now: the ticket of the
// message that is complete, or -1 where it is not.
int64_t Engine::look_closer(const char* call, int64_t item, int64_t now_ps) {
  const astra_net_completion& completion = completions_[static_cast<size_t>(item)];
  const int64_t ticket = find_ticket(completion.id);
  if (ticket >= 0 && boundary_.plain(completion, now_ps)) return ticket;
  Message* message =
      ticket < 0 || is_numbered(ticket) ? nullptr : &messages_[static_cast<size_t>(ticket >> 1)];
  boundary_.record(call, item, completion, now_ps, ticket >= 0,
                   message != nullptr && message->sent);
  if (completion.kind == ASTRA_NET_SENT && message != nullptr) {
    message->sent = true;
    boundary_.count_sent(1);
    return -1;
  }
  if (completion.outcome == 0) return ticket;
  now_ps_ = now_ps;
  ++events_;
  --in_flight_;
  int64_t bytes;
  int32_t src, dst;
  if (message != nullptr) {
    const Channel& channel = channels_[static_cast<size_t>(message->channel)];
    bytes = channel.bytes;
    src = channel.src;
    dst = channel.dst;
  } else {
    const Numbered lost = numbered(ticket >> 1);
    const Meeting& meeting = meetings_[lost.meeting];
    bytes = numberings_[meeting.numbering].bytes[static_cast<size_t>(lost.number)];
    src = meeting.ranks[static_cast<size_t>(lost.sender)];
    dst = meeting.ranks[static_cast<size_t>(lost.receiver)];
  }
  astra_net_error error = fresh_error();
  std::snprintf(error.message, sizeof error.message,
                "the network lost %lld bytes from rank %d to rank %d at %lld ps",
                static_cast<long long>(bytes), src, dst,
                static_cast<long long>(completion.time_ps));
  throw NetworkFailure(call, ASTRA_NET_MODEL, error);
}

// With folded ranks: a delivery happens to whom it is for, and to whom it tells that it has arrived.
// Returns whether its order is in doubt at the former, which it names.
bool Engine::note_delivery(const Message& message, size_t item, int32_t& receiver) {
  constexpr int64_t kFirstStream = int64_t{1} << 32, kControl = int64_t{1} << 62;
  const Channel& channel = channels_[static_cast<size_t>(message.channel)];
  const int64_t waited_ps = waited_ps_[item];
  const int64_t drawn_ps = message.start_ps + waited_ps;
  folding_.at(place_, now_ps_);
  // What is sent at once has the place that its sender drew.
  const int32_t actor = waited_ps == 0 ? channel.src : -1;
  const bool of_stream = streams_interchange_ && channel.tag >= kFirstStream &&
                         channel.tag < kControl && message.on_sent.then == Then::kNothing &&
                         (!message.received || message.on_received.then == Then::kArrived);
  if (message.on_sent.then != Then::kNothing) {
    const int32_t sender = folding_.index_of(channel.src);
    folding_.loud(sender, folding_.happens(sender, now_ps_, drawn_ps,
                                           waited_ps == 0 ? folding_.rank_at(sender) : -1, -1));
  }
  receiver = folding_.index_of(channel.dst);
  return folding_.happens(receiver, now_ps_, drawn_ps, actor, of_stream ? channel.tag : -1);
}

// With folded ranks: what a delivery did at whom it was for; it had freed so many nodes before.
void Engine::note_heard(int32_t receiver, bool doubtful, const Action& did, int64_t freed) {
  if (did.then == Then::kNodeDone && freed_ == freed) {
    const TaskState& mine = task_at(did.a);
    const int32_t unit = static_cast<int32_t>(node_of(mine, did.b).unit);
    if (machine_of(mine.rank).unit_capacity[unit] >= nodes_total_) {
      folding_.quiet(receiver, int64_t{did.a} << 32 | did.b);
      return;
    }
  }
  folding_.loud(receiver, doubtful, [this](int64_t quiet) {
    const TaskState& mine = task_at(static_cast<int32_t>(quiet >> 32));
    const Node& node = node_of(mine, static_cast<int32_t>(quiet));
    for (int64_t i = 0; i < node.child_count; ++i) {
      const int32_t child = program_.children[node.child_start + i];
      if (mine.waiting[static_cast<size_t>(child)] == 0) return false;
    }
    return true;
  });
}

// With folded ranks: a slot runs.
void Engine::note_slot(int32_t rank, int64_t place, const Action& action) {
  folding_.at(place_, now_ps_);
  if (rank < 0) {  // it stands alone
    switch (action.then) {
      case Then::kArrived:
        rank = streams_[action.b].rank;
        break;
      case Then::kNodeDone:
        rank = task_at(action.a).rank;
        break;
      case Then::kRendezvous:
        rank = rendezvous_[action.b].rank;
        break;
      default:
        rank = streams_[graph_runs_[action.b].stream].rank;
    }
  }
  folding_.loud(
      rank, folding_.happens(rank, now_ps_, folding_.drawn_ps(place), folding_.rank_at(rank), -1));
}

int64_t Engine::later_ps(int64_t delay_ps) const {
  if (delay_ps > kNever - 1 - now_ps_)
    give_up("an event %lld ps after %lld ps is beyond the range of time (2^63 ps)",
            static_cast<long long>(delay_ps), static_cast<long long>(now_ps_));
  return now_ps_ + delay_ps;
}

}  // namespace engine
