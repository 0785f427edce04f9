// SPDX-License-Identifier: MIT
#include "engine.hpp"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace engine {

namespace {

constexpr int64_t kNever = ASTRA_NET_TIME_NEVER;
constexpr int64_t kPsPerNs = 1000;
constexpr int64_t kMostMessages = INT32_MAX;
constexpr int64_t kControl = int64_t{1} << 62;  // added to a tag: the rendezvous control message
constexpr size_t kCompletionBatch = 1024;
constexpr size_t kAhead = 4;  // completions whose streams are fetched early

astra_net_error fresh_error() {
  astra_net_error error{};
  error.struct_size = sizeof error;
  error.item = -1;
  return error;
}

void check(const char* call, astra_net_status status, const astra_net_error& error) {
  if (status != ASTRA_NET_OK) throw NetworkFailure(call, status, error);
}

// What the engine itself cannot go on with; Python makes a SimulationError of it.
[[noreturn, gnu::format(printf, 1, 2), gnu::cold]] void give_up(const char* format, ...) {
  astra_net_error error = fresh_error();
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(error.message, sizeof error.message, format, arguments);
  va_end(arguments);
  throw NetworkFailure("engine", ASTRA_NET_MODEL, error);
}

uint32_t channel_hash(int64_t tag, int32_t src, int32_t dst, int64_t bytes) {
  uint64_t h = static_cast<uint64_t>(tag) * 0x9E3779B97F4A7C15u;
  h ^= (static_cast<uint64_t>(static_cast<uint32_t>(src)) << 32) | static_cast<uint32_t>(dst);
  h *= 0xD6E8FEB86659FD93u;
  h ^= h >> 32;
  h += static_cast<uint64_t>(bytes);
  h *= 0x9E3779B97F4A7C15u;
  return static_cast<uint32_t>(h >> 32);
}

template <class T>
int64_t address(T* pointer) {
  return static_cast<int64_t>(reinterpret_cast<intptr_t>(pointer));
}
template <class T>
T& at(int64_t address) {
  return *reinterpret_cast<T*>(static_cast<intptr_t>(address));
}

void heap_push(std::vector<int32_t>& heap, int32_t value) {
  heap.push_back(value);
  std::push_heap(heap.begin(), heap.end(), std::greater<int32_t>());
}
int32_t heap_pop(std::vector<int32_t>& heap) {
  std::pop_heap(heap.begin(), heap.end(), std::greater<int32_t>());
  const int32_t value = heap.back();
  heap.pop_back();
  return value;
}

}  // namespace

Engine::Engine(const Program& program, const astra_net_backend& network, astra_net_sim* sim,
               const astra_net_info& info, bool record_nodes)
    : program_(program),
      network_(network),
      sim_(sim),
      boundary_(info),
      ordered_((info.capabilities & ASTRA_NET_CAP_ORDERED) != 0),
      interrupt_((info.capabilities & ASTRA_NET_CAP_INTERRUPT) != 0 ? network.interrupt : nullptr),
      most_in_flight_(info.max_in_flight),
      queue_(program.ranks) {
  const size_t ranks = static_cast<size_t>(program.ranks);
  finish_ps.assign(ranks, -1);
  ranks_.resize(ranks);
  rank_node_start.assign(ranks + 1, 0);
  for (size_t rank = 0; rank < ranks; ++rank) {
    const Template& mine = program.templates[program.template_of_rank[static_cast<int64_t>(rank)]];
    RankState& state = ranks_[rank];
    state.nodes = program.nodes.data + mine.node_start;
    state.left = mine.node_count;
    state.waiting.resize(static_cast<size_t>(mine.node_count));
    for (int64_t i = 0; i < mine.node_count; ++i)
      state.waiting[static_cast<size_t>(i)] = state.nodes[i].parents;
    state.first_record = rank_node_start[rank];
    rank_node_start[rank + 1] = rank_node_start[rank] + mine.node_count;
  }
  nodes_total_ = rank_node_start.back();
  if (record_nodes) {
    node_start_ps.assign(static_cast<size_t>(nodes_total_), -1);
    node_end_ps.assign(static_cast<size_t>(nodes_total_), -1);
  }
  const size_t per_rank = static_cast<size_t>(program.levels) *
                          static_cast<size_t>(program.queues_per_level);
  queues_.resize(ranks * per_rank);
  next_queue_.assign(ranks * static_cast<size_t>(program.levels) * 3, 0);
  for (size_t i = 2; i < next_queue_.size(); i += 3) next_queue_[i] = program.queues_per_level / 2;
  alternate_.assign(ranks * static_cast<size_t>(program.alternate_slots), 0);
  positions_.resize(program.groups.size);
  for (size_t g = 0; g < program.groups.size; ++g) {
    const Group& group = program.groups.data[g];
    if (group.stride != 0) continue;
    for (int32_t i = 0; i < group.size; ++i)
      positions_[g].insert(program.members[group.member_start + i], i);
  }
  if (program.bus_model == BusModel::kLogGP) {
    bus_hosts_.resize(ranks);
    for (size_t rank = 0; rank < ranks; ++rank) {
      bus_hosts_[rank].now_ns = [this] { return now_ps_ / kPsPerNs; };
      bus_hosts_[rank].later = [this, rank](int64_t delay_ns, std::function<void()> function) {
        add(static_cast<int32_t>(rank), delay_ns * kPsPerNs,
            {ActionKind::kSharedBus, 0, store(std::move(function))});
      };
      buses_.push_back(std::make_unique<SharedBus>(bus_hosts_[rank], program.loggp));
    }
  }
  int32_t servers = 0;
  for (size_t rank = 0; rank < program.memory_server.size; ++rank)
    servers = std::max(servers, program.memory_server.data[rank] + 1);
  servers_.resize(static_cast<size_t>(servers));
  server_busy_.assign(static_cast<size_t>(servers), false);
  channel_table_.assign(64, {0, -1});
  completions_.resize(kCompletionBatch);
}

// Main loop

void Engine::run(const Report& report, double period_s) {
  Ticker ticker(interrupt_, sim_, period_s);
  ticker_ = &ticker;
  report_ = &report;
  for (int32_t rank = 0; rank < program_.ranks; ++rank) {
    fire(rank);
    tick(now_ps_);
  }
  try {
    if (ordered_)
      run_ordered();
    else
      run_unordered();
  } catch (const BusDelay& delay) {
    give_up("the shared bus takes %g ns for a transfer, beyond the range of time (2^63 ps)",
            delay.ns);
  }
}

void Engine::tick(int64_t now_ps) {
  if (!ticker_->due()) return;
  Progress reached = progress();
  reached.now_ps = std::max(reached.now_ps, now_ps);
  (*report_)(reached);
}

void Engine::run_ordered() {
  int64_t next_ps = kNever, next_place = kNever;
  for (;;) {
    tick(now_ps_);
    int64_t until_ps = kNever, until_place = kNever;
    if (!queue_.empty()) {
      until_ps = queue_.first_time();
      until_place = queue_.first_place();
    }
    // Transfers that start now are handed over before the first event behind them.
    const bool due = !starts_.empty() &&
                     (until_ps > now_ps_ || until_place > starts_.front().id);
    if (due || next_ps < until_ps || (next_ps == until_ps && next_place < until_place)) {
      exchange(until_ps, until_place, next_ps, next_place);
    } else if (!queue_.empty()) {
      run_slots(next_ps == until_ps ? next_place : kNever);
    } else if (in_flight_ > 0) {
      // The network says that no event is left: it has to say what became of these (R13).
      exchange(until_ps, until_place, next_ps, next_place);
    } else if (!relieve()) {
      return;
    }
  }
}

// Give the network what starts now, run it, react; tells the key of its next event.
void Engine::exchange(int64_t until_ps, int64_t until_place, int64_t& next_ps,
                      int64_t& next_place) {
  astra_net_exchange given{};
  given.struct_size = sizeof given;
  given.completions = completions_.data();
  given.capacity = completions_.size();
  given.starts = starts_.data();
  given.start_count = starts_.size();
  given.now_ps = now_ps_;
  given.until_ps = until_ps;
  given.until_place = until_place;
  given.place = place_;
  astra_net_exchange x = given;
  error_.struct_size = sizeof error_;
  check("exchange", network_.exchange(sim_, &x, &error_), error_);
  Boundary::exchanged(x, given, in_flight_);
  starts_.clear();
  place_ = x.place;
  next_ps = x.next_ps;
  next_place = next_ps == kNever ? kNever : x.next_place;
  react("exchange", x.completion_count, x.now_ps);
}

void Engine::react(const char* call, size_t count, int64_t now_ps) {
  boundary_.start_records(now_ps_);
  for (size_t i = 0; i < count; ++i) {
    if (i + kAhead < count) prefetch(completions_[i + kAhead]);
    complete(call, static_cast<int64_t>(i), now_ps);
  }
}

void Engine::run_unordered() {
  for (;;) {
    tick(now_ps_);
    submit();
    if (in_flight_ > 0) {
      if (advance(queue_.empty() ? kNever : queue_.first_time())) continue;
    } else if (queue_.empty()) {
      if (relieve()) continue;
      return;
    }
    now_ps_ = queue_.first_time();
    while (!queue_.empty() && queue_.first_time() == now_ps_)
      queue_.run_first([this](Action action) { run_action(action); }, [] { return kNever; });
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
bool Engine::advance(int64_t until_ps) {
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
    if (total + kCompletionBatch > completions_.size()) completions_.resize(2 * completions_.size());
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

// Run what is due at the first time, up to a place of the network's (`limit`) and to the first
// transfer that is started meanwhile.
void Engine::run_slots(int64_t limit) {
  now_ps_ = queue_.first_time();
  queue_.run_first([this](Action action) { run_action(action); },
                   [this, limit] {
                     return starts_.empty() ? limit : std::min(limit, starts_.front().id);
                   });
}

void Engine::run_action(Action action) {
  ++events_;
  switch (action.kind) {
    case ActionKind::kBusCrossed:
      packet_processed(at<Stream>(action.b));
      break;
    case ActionKind::kBusReduced:
      packet_crossed(at<Stream>(action.b), action.a);
      break;
    case ActionKind::kNodeDone:
      node_done(action.a, static_cast<int32_t>(action.b));
      break;
    case ActionKind::kGraphDone:
      graph_node_done(at<GraphRun>(action.b), action.a);
      break;
    case ActionKind::kReceived:
      arrived(at<Stream>(action.b));
      break;
    case ActionKind::kServed:
      served(action.a);
      break;
    case ActionKind::kSharedBus:
    case ActionKind::kRendezvous:
      call_stored(action.b);
      break;
    case ActionKind::kNone:
      break;
  }
}

// Thousands of ranks take turns, so what the next ones need is rarely in the nearest cache.
void Engine::prefetch(const astra_net_completion& completion) const {
  const size_t index = static_cast<size_t>(completion.id & index_mask_);
  if (index >= messages_.size()) return;
  const Message& message = messages_[index];
  if (message.on_received.then == Then::kArrived)
    __builtin_prefetch(&at<Stream>(message.on_received.b), 1);
}

// The message that a transfer in flight belongs to, or -1.  An id holds the index of its message in
// the low bits, so this is no search; how many bits, grows with the number of messages.
int32_t Engine::find_message(int64_t id) const {
  for (int64_t mask = index_mask_; mask > 0; mask >>= 1) {
    const size_t index = static_cast<size_t>(id & mask);
    if (index < messages_.size() && messages_[index].id == id && messages_[index].in_flight)
      return static_cast<int32_t>(index);
  }
  return -1;
}

void Engine::complete(const char* call, int64_t item, int64_t now_ps) {
  const astra_net_completion completion = completions_[static_cast<size_t>(item)];
  const int32_t index = find_message(completion.id);
  if (index < 0 || !boundary_.plain(completion, now_ps)) {
    const bool sent = index >= 0 && messages_[static_cast<size_t>(index)].sent;
    boundary_.record(call, item, completion, now_ps, index >= 0, sent);
    if (completion.kind == ASTRA_NET_SENT) {
      messages_[static_cast<size_t>(index)].sent = true;
      boundary_.count_sent(1);
      return;
    }
  }
  now_ps_ = now_ps;
  ++events_;
  --in_flight_;
  Message& message = messages_[static_cast<size_t>(index)];
  if (completion.outcome != 0) {
    const Channel& channel = channels_[static_cast<size_t>(message.channel)];
    astra_net_error error = fresh_error();
    std::snprintf(error.message, sizeof error.message,
                  "the network lost %lld bytes from rank %d to rank %d at %lld ps",
                  static_cast<long long>(channel.bytes), channel.src, channel.dst,
                  static_cast<long long>(completion.time_ps));
    throw NetworkFailure(call, ASTRA_NET_MODEL, error);
  }
  message.in_flight = false;
  if (message.sent) boundary_.count_sent(-1);
  message.arrived = true;
  const Callback sent = message.on_sent, received = message.on_received;
  const bool both = message.received;
  if (both) release(index);
  if (sent.then != Then::kNothing) resume(sent);
  if (both) resume(received);
}

int64_t Engine::later_ps(int64_t delay_ps) const {
  if (delay_ps > kNever - 1 - now_ps_)
    give_up("an event %lld ps after %lld ps is beyond the range of time (2^63 ps)",
            static_cast<long long>(delay_ps), static_cast<long long>(now_ps_));
  return now_ps_ + delay_ps;
}

int64_t Engine::store(std::function<void()> function) {
  if (free_stored_.empty()) {
    stored_.push_back(std::move(function));
    return static_cast<int64_t>(stored_.size()) - 1;
  }
  const int64_t index = free_stored_.back();
  free_stored_.pop_back();
  stored_[static_cast<size_t>(index)] = std::move(function);
  return index;
}

void Engine::call_stored(int64_t index) {
  const std::function<void()> function = std::move(stored_[static_cast<size_t>(index)]);
  free_stored_.push_back(index);
  function();
}

// Messages

int32_t Engine::open_channel(int64_t tag, int32_t src, int32_t dst, int64_t bytes) {
  const uint32_t hash = channel_hash(tag, src, dst, bytes);
  size_t mask = channel_table_.size() - 1;
  size_t i = hash & mask;
  for (; channel_table_[i].second >= 0; i = (i + 1) & mask) {
    if (channel_table_[i].first != hash) continue;
    const Channel& found = channels_[static_cast<size_t>(channel_table_[i].second)];
    if (found.tag == tag && found.src == src && found.dst == dst && found.bytes == bytes)
      return channel_table_[i].second;
  }
  if (2 * (channel_count_ + 1) > channel_table_.size()) {
    std::vector<std::pair<uint32_t, int32_t>> old(channel_table_.size() * 2, {0, -1});
    old.swap(channel_table_);
    mask = channel_table_.size() - 1;
    for (const auto& entry : old) {
      if (entry.second < 0) continue;
      size_t j = entry.first & mask;
      while (channel_table_[j].second >= 0) j = (j + 1) & mask;
      channel_table_[j] = entry;
    }
    i = hash & mask;
    while (channel_table_[i].second >= 0) i = (i + 1) & mask;
  }
  int32_t index;
  if (free_channels_.empty()) {
    index = static_cast<int32_t>(channels_.size());
    channels_.emplace_back();
  } else {
    index = free_channels_.back();
    free_channels_.pop_back();
  }
  Channel& channel = channels_[static_cast<size_t>(index)];
  channel = Channel{tag, bytes, src, dst};
  channel_table_[i] = {hash, index};
  ++channel_count_;
  return index;
}

// A channel that nobody remembers and nothing waits in is forgotten: an all-to-all among thousands
// of ranks opens millions.
void Engine::close_if_idle(int32_t index) {
  Channel& channel = channels_[static_cast<size_t>(index)];
  if (channel.users > 0 || channel.first >= 0) return;
  const uint32_t hash = channel_hash(channel.tag, channel.src, channel.dst, channel.bytes);
  const size_t mask = channel_table_.size() - 1;
  size_t hole = hash & mask;
  while (channel_table_[hole].second != index) hole = (hole + 1) & mask;
  for (size_t i = (hole + 1) & mask; channel_table_[i].second >= 0; i = (i + 1) & mask) {
    if (((i - (channel_table_[i].first & mask)) & mask) >= ((i - hole) & mask)) {
      channel_table_[hole] = channel_table_[i];
      hole = i;
    }
  }
  channel_table_[hole] = {0, -1};
  --channel_count_;
  free_channels_.push_back(index);
}

void Engine::leave_channel(int32_t& index) {
  if (index < 0) return;
  --channels_[static_cast<size_t>(index)].users;
  close_if_idle(index);
  index = -1;
}

int32_t Engine::new_message(int32_t channel) {
  int32_t index = free_message_;
  if (index >= 0) {
    free_message_ = messages_[static_cast<size_t>(index)].next;
    messages_[static_cast<size_t>(index)] = Message{};
  } else {
    if (static_cast<int64_t>(messages_.size()) == kMostMessages)
      give_up("more than %lld messages are in flight or wait at once",
              static_cast<long long>(kMostMessages));
    index = static_cast<int32_t>(messages_.size());
    messages_.emplace_back();
    if (index > index_mask_) index_mask_ = 2 * index_mask_ + 1;
  }
  messages_[static_cast<size_t>(index)].channel = channel;
  // A message keeps its channel open until it is complete.
  ++channels_[static_cast<size_t>(channel)].users;
  return index;
}

// Complete on both sides: the message may be used again, and its channel closed.
void Engine::release(int32_t index) {
  Message& message = messages_[static_cast<size_t>(index)];
  leave_channel(message.channel);
  message.next = free_message_;
  free_message_ = index;
}

void Engine::send_on(int32_t channel_index, Callback then, int32_t collective, int32_t node) {
  Channel& channel = channels_[static_cast<size_t>(channel_index)];
  int32_t index;
  if (channel.first >= 0 && !channel.waiting_are_sends) {
    index = channel.first;
    channel.first = messages_[static_cast<size_t>(index)].next;
  } else {
    index = new_message(channel_index);
    channel.waiting_are_sends = true;
    if (channel.first < 0)
      channel.first = index;
    else
      messages_[static_cast<size_t>(channel.last)].next = index;
    channel.last = index;
    messages_[static_cast<size_t>(index)].collective = collective;
    messages_[static_cast<size_t>(index)].node = node;
  }
  Message& message = messages_[static_cast<size_t>(index)];
  message.on_sent = then;
  message.in_flight = true;
  // The least id that is free and ends in the index.
  int64_t id = (place_ & ~index_mask_) | index;
  if (id < place_) id += index_mask_ + 1;
  if (id > kMostPlace - kMostDrawn)
    give_up("after %lld transfers there is no number left for another",
            static_cast<long long>(transfers_));
  place_ = id + ASTRA_NET_PLACES_PER_TRANSFER;
  message.id = id;
  // Field by field, in place: a record that is built elsewhere in pieces and copied whole makes the
  // processor wait for the pieces, which took a tenth of a whole run.
  starts_.emplace_back();
  astra_net_transfer& transfer = starts_.back();
  transfer.id = id;
  transfer.start_ps = now_ps_;
  transfer.bytes = channel.bytes;
  transfer.src = channel.src;
  transfer.dst = channel.dst;
  ++transfers_;
  ++in_flight_;
}

void Engine::receive_on(int32_t channel_index, Callback then, int32_t collective, int32_t node) {
  Channel& channel = channels_[static_cast<size_t>(channel_index)];
  if (channel.first < 0 || !channel.waiting_are_sends) {
    const int32_t index = new_message(channel_index);
    channel.waiting_are_sends = false;
    if (channel.first < 0)
      channel.first = index;
    else
      messages_[static_cast<size_t>(channel.last)].next = index;
    channel.last = index;
    Message& message = messages_[static_cast<size_t>(index)];
    message.received = true;
    message.on_received = then;
    message.collective = collective;
    message.node = node;
    return;
  }
  const int32_t index = channel.first;
  Message& message = messages_[static_cast<size_t>(index)];
  channel.first = message.next;
  message.received = true;
  message.on_received = then;
  if (!message.arrived) return;
  release(index);
  // It came first: the receive completes now, after all that is already due now; or inside its post,
  // where a packet that has a bus to cross cannot end the stream whose step this is.
  if (program_.receives_at_once && then.then == Then::kArrived &&
      at<Stream>(then.b).bus != Bus::kNone) {
    arrived(at<Stream>(then.b));
    return;
  }
  Action action;
  switch (then.then) {
    case Then::kNodeDone:
      action = {ActionKind::kNodeDone, then.a, then.b};
      break;
    case Then::kArrived:
      action = {ActionKind::kReceived, then.a, then.b};
      break;
    case Then::kGraphDone:
      action = {ActionKind::kGraphDone, then.a, then.b};
      break;
    case Then::kRendezvous:
      action = {ActionKind::kRendezvous, then.a, then.b};
      break;
    case Then::kNothing:
      return;
  }
  queue_.push_alone(now_ps_, place_, action);
}

void Engine::send(int32_t rank, int32_t peer, int64_t bytes, int64_t tag, Callback then,
                  int32_t collective, int32_t node) {
  if (program_.rendezvous_bytes == 0) {
    send_on(open_channel(tag, rank, peer, bytes), then, collective, node);
    return;
  }
  const int64_t go = store([=] {
    send_on(open_channel(tag, rank, peer, bytes), then, collective, node);
  });
  receive_on(open_channel(tag | kControl, peer, rank, program_.rendezvous_bytes),
             {Then::kRendezvous, 0, go}, collective, node);
}

void Engine::receive(int32_t rank, int32_t peer, int64_t bytes, int64_t tag, Callback then,
                     int32_t collective, int32_t node) {
  if (program_.rendezvous_bytes == 0) {
    receive_on(open_channel(tag, peer, rank, bytes), then, collective, node);
    return;
  }
  const int64_t go = store([=] {
    receive_on(open_channel(tag, peer, rank, bytes), then, collective, node);
  });
  send_on(open_channel(tag | kControl, rank, peer, program_.rendezvous_bytes),
          {Then::kRendezvous, 0, go}, collective, node);
}

void Engine::resume(const Callback& callback) {
  switch (callback.then) {
    case Then::kNodeDone:
      node_done(callback.a, static_cast<int32_t>(callback.b));
      break;
    case Then::kArrived:
      arrived(at<Stream>(callback.b));
      break;
    case Then::kGraphDone:
      graph_node_done(at<GraphRun>(callback.b), callback.a);
      break;
    case Then::kRendezvous:
      call_stored(callback.b);
      break;
    case Then::kNothing:
      break;
  }
}

// Collectives

int32_t Engine::position(int32_t group, int32_t rank) {
  const Group& found = program_.groups[group];
  if (found.stride != 0) return rank / found.stride % found.size;
  return static_cast<int32_t>(positions_[static_cast<size_t>(group)].find(rank));
}

void Engine::issue_collective(int32_t rank, int32_t node, int32_t index) {
  const Collective& collective = program_.collectives[index];
  RankState& state = ranks_[static_cast<size_t>(rank)];
  int32_t priority = collective.priority;
  if (program_.policy == Policy::kLifo)
    priority = state.priority++;
  else if (program_.policy == Policy::kFifo)
    priority = state.priority--;
  auto counter = std::find_if(state.streams.begin(), state.streams.end(),
                              [&](const auto& entry) { return entry.first == collective.group; });
  if (counter == state.streams.end())
    counter = state.streams.insert(counter, {collective.group, 0});
  const int64_t first_number = counter->second;
  counter->second += collective.chunks;
  CollectiveRun* run = collective_runs_.take();
  *run = {rank, node, collective.chunks};
  const int64_t tag_base = program_.groups[collective.group].tag_base;
  for (int64_t chunk = 0; chunk < collective.chunks; ++chunk) {
    Stream* stream = streams_.take();
    std::vector<PhaseChoice> phases = std::move(stream->phases);
    phases.clear();
    *stream = Stream{};
    stream->phases = std::move(phases);
    stream->rank = rank;
    stream->collective = index;
    stream->tag = tag_base + first_number + chunk;
    stream->priority = priority;
    stream->run = run;
    if (collective.graph >= 0) {
      // Custom collectives use queue 0 of the rank.
      const int64_t which = collective.graph + position(collective.group, rank);
      const Graph& graph = program_.graphs[program_.graph_of_position[which]];
      GraphRun* graph_run = graph_runs_.take();
      graph_run->stream = stream;
      graph_run->nodes = program_.graph_nodes.data + graph.node_start;
      graph_run->left = graph.node_count;
      graph_run->graph = &graph;
      graph_run->buckets = static_cast<uint64_t>(graph.buckets);
      graph_run->waiting.resize(static_cast<size_t>(graph.node_count));
      for (int64_t i = 0; i < graph.node_count; ++i)
        graph_run->waiting[static_cast<size_t>(i)] = graph_run->nodes[i].parents;
      stream->graph = graph_run;
      stream->phases.push_back({-1, 0, -1});
    } else {
      choose_phases(*stream,
                    program_.plans[collective.plan_start + chunk % collective.plan_count]);
    }
    next_phase(stream);
  }
}

void Engine::choose_phases(Stream& stream, const Plan& plan) {
  const int32_t per_level = program_.queues_per_level, half = per_level / 2;
  const size_t rank = static_cast<size_t>(stream.rank);
  for (int32_t i = 0; i < plan.phase_count; ++i) {
    const int32_t index = plan.phase_start + i;
    const Phase& phase = program_.phases[index];
    int32_t* counters =
        &next_queue_[(rank * static_cast<size_t>(program_.levels) +
                      static_cast<size_t>(phase.level)) *
                     3];
    int32_t& counter = counters[static_cast<size_t>(phase.pick)];
    const int32_t queue = counter++;
    bool second = false;
    switch (phase.pick) {
      case Pick::kNext:
        second = per_level > 1 && queue >= half;
        if (counter >= per_level) counter = 0;
        break;
      case Pick::kFirst:
        if (counter >= half) counter = 0;
        break;
      case Pick::kLast:
        second = true;
        if (counter >= per_level) counter = half;
        break;
    }
    if (phase.variant == Variant::kAlternate) {
      int32_t& turn = alternate_[rank * static_cast<size_t>(program_.alternate_slots) +
                                 static_cast<size_t>(phase.slot)];
      second = turn++ % 2 != 0;
    } else if (phase.variant == Variant::kAgreed && phase.pick == Pick::kNext && per_level > 1) {
      second = agree(stream, i, phase.layout, second);
    }
    const Family& family = program_.families[phase.family[second ? 1 : 0]];
    const int32_t offset = family.count > 1 ? position(phase.layout, stream.rank) : 0;
    stream.phases.push_back({index, phase.level * per_level + queue, family.first + offset});
  }
}

// The way round that the first member of the layout took in this phase of this chunk.  Ranks that
// have issued unequal numbers of collectives, in overlapping groups, are at different queues of a
// dimension, and so would go different ways.  ASTRA-sim never ends there.
bool Engine::agree(const Stream& stream, int32_t phase, int32_t layout, bool second) {
  const Group& group = program_.groups[layout];
  const int32_t first =
      group.stride == 0 ? 0 : stream.rank - position(layout, stream.rank) * group.stride;
  const auto [agreed, fresh] =
      agreed_.try_emplace({stream.tag, phase, first}, second, group.size);
  const bool way = agreed->second.first;
  if (--agreed->second.second == 0) agreed_.erase(agreed);
  return way;
}

// End the current phase, if any, and enter the next one, if any.
void Engine::next_phase(Stream* stream) {
  const size_t per_rank = static_cast<size_t>(program_.levels) *
                          static_cast<size_t>(program_.queues_per_level);
  Queue* queues = &queues_[static_cast<size_t>(stream->rank) * per_rank];
  const int32_t previous = stream->queue;
  const bool last = stream->next_phase == stream->phases.size();
  leave_channel(stream->send_channel);
  leave_channel(stream->recv_channel);
  if (last) {
    // The collective may end here, and its rank may issue the next one at once.
    CollectiveRun* run = stream->run;
    if (--run->left == 0) {
      const int32_t rank = run->rank, node = run->node;
      collective_runs_.give_back(run);
      node_done(rank, node);
    }
  }
  if (!last) {
    enter(*stream, stream->phases[stream->next_phase++]);
    queues[stream->queue].add(stream, queued_++);
  }
  const int32_t current = stream->queue;
  if (last) {
    if (stream->graph) graph_runs_.give_back(stream->graph);
    streams_.give_back(stream);
  }
  if (previous >= 0) {
    --queues[previous].running;
    fill(queues[previous]);
  }
  if (!last) fill(queues[current]);
}

void Engine::enter(Stream& stream, const PhaseChoice& choice) {
  stream.queue = choice.queue;
  stream.step = stream.processed = stream.received = stream.inserted = 0;
  if (choice.phase < 0) return;
  const Phase& phase = program_.phases[choice.phase];
  const Schedule& schedule = program_.schedules[choice.schedule];
  const Group& group = program_.groups[phase.layout];
  stream.steps = program_.steps.data + schedule.step_start;
  stream.packets = program_.packets.data + schedule.packet_start;
  stream.step_count = schedule.step_count;
  stream.window = schedule.window;
  stream.burst = schedule.burst;
  stream.gate_step = schedule.gate_step;
  stream.gate_received = schedule.gate_received;
  stream.end = schedule.end;
  stream.bus = phase.bus;
  stream.size = group.size;
  stream.stride = group.stride;
  stream.position = position(phase.layout, stream.rank);
  stream.base = stream.rank - stream.position * group.stride;
  stream.members = group.stride != 0 ? nullptr : program_.members.data + group.member_start;
}

void Engine::fill(Queue& queue) {
  while (!queue.waiting.empty() && queue.running < program_.streams_per_queue) start_next(queue);
}

void Engine::start_next(Queue& queue) {
  Stream* stream = queue.take();
  ++queue.running;
  if (stream->graph)
    start_graph(*stream->graph);
  else
    start(*stream);
}

// When nothing can go on: start a waiting chunk in every queue that has one.
bool Engine::relieve() {
  const int64_t before = relieved_;
  for (Queue& queue : queues_) {
    if (queue.waiting.empty()) continue;
    start_next(queue);
    ++relieved_;
  }
  return relieved_ > before;
}

// Run the steps that need nothing, then insert the first packets.
void Engine::start(Stream& stream) {
  run_steps(stream, stream.step_count);
  for (int32_t i = 0; i < stream.window; ++i) insert_packet(stream);
}

void Engine::insert_packet(Stream& stream) {
  const int32_t index = stream.inserted++;
  const Packet& packet = stream.packets[index];
  const bool reduced = (packet.flags & kReduced) != 0;
  if (stream.bus == Bus::kEndpoint && !buses_.empty()) {
    SharedBus& bus = *buses_[static_cast<size_t>(stream.rank)];
    Stream* mine = &stream;
    auto done = [this, mine, index] { packet_crossed(*mine, index); };
    const bool back = (packet.flags & kSendBack) != 0;
    if ((packet.flags & kToMemory) != 0)
      bus.to_memory(packet.bytes, reduced, back, done);
    else
      bus.to_npu(packet.bytes, reduced, back, done);
    return;
  }
  if (stream.bus == Bus::kNone) {
    packet_crossed(stream, index);
    return;
  }
  const int64_t delay_ps =
      stream.bus == Bus::kFast ? program_.fast_delay_ps : program_.endpoint_delay_ps;
  if (reduced)
    add(stream.rank, delay_ps, {ActionKind::kBusReduced, index, address(&stream)});
  else
    add(stream.rank, delay_ps, {ActionKind::kBusCrossed, index, address(&stream)});
}

void Engine::packet_crossed(Stream& stream, int32_t index) {
  const Packet& packet = stream.packets[index];
  if ((packet.flags & kReduced) != 0)
    add(stream.rank, packet.reduce_ps, {ActionKind::kBusCrossed, index, address(&stream)});
  else
    packet_processed(stream);
}

void Engine::packet_processed(Stream& stream) {
  ++stream.processed;
  run_steps(stream, stream.burst);
  if (stream.processed == stream.end && stream.step == stream.step_count) next_phase(&stream);
}

int32_t Engine::peer_of(const Stream& stream, int32_t relative) const {
  int32_t position = stream.position + relative;
  if (position >= stream.size) position -= stream.size;
  if (position < 0) position += stream.size;
  return stream.members ? stream.members[position] : stream.base + position * stream.stride;
}

void Engine::run_steps(Stream& stream, int32_t most) {
  while (most > 0 && stream.step < stream.step_count) {
    if (stream.step >= stream.gate_step && stream.received < stream.gate_received) return;
    const Step& step = stream.steps[stream.step];
    if (stream.processed < step.need) return;
    --most;
    ++stream.step;
    if (step.send_bytes > 0) {
      const int32_t peer = peer_of(stream, step.send_to);
      if (program_.rendezvous_bytes > 0) {
        send(stream.rank, peer, step.send_bytes, stream.tag, {}, stream.collective, -1);
      } else {
        if (peer != stream.send_peer || step.send_bytes != stream.send_bytes ||
            stream.send_channel < 0) {
          leave_channel(stream.send_channel);
          stream.send_peer = peer;
          stream.send_bytes = step.send_bytes;
          stream.send_channel = open_channel(stream.tag, stream.rank, peer, step.send_bytes);
          ++channels_[static_cast<size_t>(stream.send_channel)].users;
        }
        send_on(stream.send_channel, {}, stream.collective, -1);
      }
    }
    if (step.recv_bytes > 0) {
      const int32_t peer = peer_of(stream, step.recv_from);
      const Callback then{Then::kArrived, 0, address(&stream)};
      if (program_.rendezvous_bytes > 0) {
        receive(stream.rank, peer, step.recv_bytes, stream.tag, then, stream.collective, -1);
      } else {
        if (peer != stream.recv_peer || step.recv_bytes != stream.recv_bytes ||
            stream.recv_channel < 0) {
          leave_channel(stream.recv_channel);
          stream.recv_peer = peer;
          stream.recv_bytes = step.recv_bytes;
          stream.recv_channel = open_channel(stream.tag, peer, stream.rank, step.recv_bytes);
          ++channels_[static_cast<size_t>(stream.recv_channel)].users;
        }
        receive_on(stream.recv_channel, then, stream.collective, -1);
      }
    }
  }
}

void Engine::arrived(Stream& stream) {
  ++stream.received;
  insert_packet(stream);
}

// Issue all nodes without parents.
void Engine::start_graph(GraphRun& graph) {
  if (graph.left == 0) {
    next_phase(graph.stream);
    return;
  }
  const int32_t* roots = program_.graph_roots.data + graph.graph->root_start;
  for (int64_t i = 0; i < graph.graph->root_count; ++i) issue_graph_node(graph, roots[i]);
}

void Engine::issue_graph_node(GraphRun& graph, int32_t index) {
  const GraphNode& node = graph.nodes[index];
  const int32_t rank = graph.stream->rank;
  const Callback then{Then::kGraphDone, index, address(&graph)};
  switch (node.op) {
    case GraphOp::kSend:
      send(rank, node.peer, node.bytes, node.tag, then, graph.stream->collective, -1);
      break;
    case GraphOp::kRecv:
      receive(rank, node.peer, node.bytes, node.tag, then, graph.stream->collective, -1);
      break;
    case GraphOp::kDelay:
      add(rank, node.duration_ps, {ActionKind::kGraphDone, index, address(&graph)});
      break;
  }
}

void Engine::graph_node_done(GraphRun& graph, int32_t index) {
  --graph.left;
  const GraphNode& node = graph.nodes[index];
  const int32_t* children = program_.graph_children.data + node.child_start;
  std::vector<int32_t> free;
  for (int32_t i = 0; i < node.child_count; ++i)
    if (--graph.waiting[static_cast<size_t>(children[i])] == 0) free.push_back(children[i]);
  if (free.size() > 1) {
    const GraphNode* nodes = graph.nodes;
    hash_order(free, graph.buckets,
               [nodes](int32_t child) { return static_cast<uint64_t>(nodes[child].id); });
  }
  for (const int32_t child : free) issue_graph_node(graph, child);
  if (graph.left == 0) next_phase(graph.stream);
}

// Nodes

void Engine::fire(int32_t rank) {
  RankState& state = ranks_[static_cast<size_t>(rank)];
  for (size_t node = 0; node < state.waiting.size(); ++node)
    if (state.waiting[node] == 0)
      heap_push(state.free_nodes[state.nodes[node].unit], static_cast<int32_t>(node));
  issue_free(rank);
  if (state.left == 0 && finish_ps[static_cast<size_t>(rank)] < 0)
    finish_ps[static_cast<size_t>(rank)] = 0;
}

// Issue free nodes in ascending order, as far as what they occupy is free.  Nodes that become free
// meanwhile (after one that completes at once) come in a next pass.
void Engine::issue_free(int32_t rank) {
  RankState& state = ranks_[static_cast<size_t>(rank)];
  for (;;) {
    scratch_.clear();
    for (int unit = 0; unit < kUnits; ++unit) {
      std::vector<int32_t>& free = state.free_nodes[unit];
      int64_t room = int64_t{program_.unit_capacity[unit]} - state.busy[unit];
      for (; room > 0 && !free.empty(); --room) scratch_.push_back(heap_pop(free));
    }
    if (scratch_.empty()) return;
    bool done_at_once = false;
    if (scratch_.size() == 1) {
      done_at_once = issue(rank, scratch_.front());
    } else {
      std::vector<int32_t> issued(scratch_);
      std::sort(issued.begin(), issued.end());
      for (const int32_t node : issued) done_at_once |= issue(rank, node);
    }
    if (!done_at_once) return;
  }
}

// True where the node is complete at once.
bool Engine::issue(int32_t rank, int32_t index) {
  RankState& state = ranks_[static_cast<size_t>(rank)];
  const Node& node = state.nodes[index];
  if (!node_start_ps.empty())
    node_start_ps[static_cast<size_t>(state.first_record + index)] = now_ps_;
  ++state.busy[node.unit];
  switch (node.op) {
    case Op::kNothing:
      complete_node(rank, index);
      return true;
    case Op::kDelay:
      add(rank, node.duration_ps, {ActionKind::kNodeDone, rank, index});
      break;
    case Op::kCollective:
      issue_collective(rank, index, node.arg);
      break;
    case Op::kSend:
    case Op::kRecv: {
      const MessageSpec& message = program_.messages[node.arg];
      const Callback then{Then::kNodeDone, rank, index};
      if (node.op == Op::kSend)
        send(rank, message.peer, message.bytes, message.tag, then, -1, index);
      else
        receive(rank, message.peer, message.bytes, message.tag, then, -1, index);
      break;
    }
    case Op::kMemory:
      access_memory(rank, index);
      break;
  }
  return false;
}

void Engine::node_done(int32_t rank, int32_t node) {
  complete_node(rank, node);
  issue_free(rank);
  if (ranks_[static_cast<size_t>(rank)].left == 0 && finish_ps[static_cast<size_t>(rank)] < 0)
    finish_ps[static_cast<size_t>(rank)] = now_ps_;
}

void Engine::complete_node(int32_t rank, int32_t index) {
  RankState& state = ranks_[static_cast<size_t>(rank)];
  const Node& node = state.nodes[index];
  if (!node_end_ps.empty()) node_end_ps[static_cast<size_t>(state.first_record + index)] = now_ps_;
  --state.busy[node.unit];
  --state.left;
  ++nodes_done_;
  const int32_t* children = program_.children.data + node.child_start;
  for (int32_t i = 0; i < node.child_count; ++i) {
    const int32_t child = children[i];
    if (--state.waiting[static_cast<size_t>(child)] == 0)
      heap_push(state.free_nodes[state.nodes[child].unit], child);
  }
}

// Remote memory

void Engine::access_memory(int32_t rank, int32_t node) {
  const int32_t server = program_.memory_server[rank];
  if (server < 0) {
    add(rank, ranks_[static_cast<size_t>(rank)].nodes[node].duration_ps,
        {ActionKind::kNodeDone, rank, node});
  } else if (server_busy_[static_cast<size_t>(server)]) {
    servers_[static_cast<size_t>(server)].emplace_back(rank, node);
  } else {
    server_busy_[static_cast<size_t>(server)] = true;
    serve(server, rank, node);
  }
}

void Engine::serve(int32_t server, int32_t rank, int32_t node) {
  const int64_t duration_ps = ranks_[static_cast<size_t>(rank)].nodes[node].duration_ps;
  add(rank, duration_ps, {ActionKind::kNodeDone, rank, node});
  add(rank, duration_ps, {ActionKind::kServed, server, 0});
}

void Engine::served(int32_t server) {
  auto& waiting = servers_[static_cast<size_t>(server)];
  if (waiting.empty()) {
    server_busy_[static_cast<size_t>(server)] = false;
    return;
  }
  const auto [rank, node] = waiting.front();
  waiting.pop_front();
  serve(server, rank, node);
}

// Result

std::vector<Wait> Engine::waits() const {
  std::vector<Wait> result;
  for (const Message& message : messages_) {
    if (message.channel < 0) continue;
    const Channel& channel = channels_[static_cast<size_t>(message.channel)];
    if (message.in_flight)
      result.push_back({channel.src, channel.dst, channel.bytes, message.node, message.collective,
                        kInFlight, 0});
    else if (message.arrived)
      result.push_back({channel.src, channel.dst, channel.bytes, message.node, message.collective,
                        kUnreceived, 0});
    else
      result.push_back({channel.dst, channel.src, channel.bytes, message.node, message.collective,
                        kReceive, 0});
  }
  return result;
}

}  // namespace engine
