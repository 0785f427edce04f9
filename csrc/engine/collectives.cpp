// SPDX-License-Identifier: MIT
//
// Collectives: chunks as streams, their queues, and what runs in a stream.
#include "engine.hpp"

#include <algorithm>
#include <set>

namespace engine {

namespace {

constexpr int64_t kPsPerNs = 1000;

}  // namespace

int32_t Engine::position(int32_t group, int32_t job_rank) const {
  const Group& found = program_.groups[group];
  if (found.stride != 0) return job_rank / found.stride % found.size;
  return static_cast<int32_t>(positions_[static_cast<size_t>(group)].find(job_rank));
}

void Engine::issue_collective(int32_t task, int32_t node, int32_t index) {
  const Collective& collective = program_.collectives[index];
  const int32_t rank = task_at(task).rank, job_rank = program_.tasks[task].job_rank;
  RankState& state = ranks_[static_cast<size_t>(rank)];
  int32_t priority = collective.priority;
  switch (machine_of(rank).policy) {
    case Policy::kLifo:
      priority = state.priority++;
      break;
    case Policy::kFifo:
      priority = state.priority--;
      break;
    case Policy::kExplicit:
      break;
  }
  auto counter = std::find_if(state.streams.begin(), state.streams.end(),
                              [&](const auto& entry) { return entry.first == collective.group; });
  if (counter == state.streams.end())
    counter = state.streams.insert(counter, {collective.group, 0});
  const int64_t first_number = counter->second;
  counter->second += collective.chunks;
  const int32_t run = runs_.take();
  runs_[run] = {task, node, collective.chunks};
  const int64_t tag_base = program_.groups[collective.group].tag_base;
  const int64_t chunks = collective.chunks;
  for (int64_t number = 0; number < chunks; ++number) {
    const int32_t self = streams_.take();
    Stream& stream = streams_[self];
    stream = {};
    stream.self = self;
    stream.rank = rank;
    stream.collective = index;
    if (static_cast<size_t>(self) == chunks_.size()) chunks_.emplace_back();
    Chunk& chunk = chunk_of(stream);
    std::vector<PhaseChoice> phases = std::move(chunk.phases);
    phases.clear();
    chunk = {};
    chunk.phases = std::move(phases);
    chunk.job_rank = job_rank;
    chunk.tag = tag_base + first_number + number;
    chunk.priority = priority;
    chunk.run = run;
    if (keeps_stays_) {
      const size_t at = static_cast<size_t>(self);
      if (at >= chunk_of_stream_.size()) {
        chunk_of_stream_.resize(at + 1);
        stay_of_stream_.resize(at + 1);
      }
      chunk_of_stream_[at] = static_cast<int32_t>(number);
    }
    if (collective.graph >= 0) {
      // Custom collectives use queue 0 of the rank.
      const int64_t which = collective.graph + position(collective.group, job_rank);
      const int32_t graph_index = program_.graph_of_position[which];
      const Graph& graph = program_.graphs[graph_index];
      chunk.graph = graph_runs_.take();
      GraphRun& graph_run = graph_runs_[chunk.graph];
      graph_run.stream = self;
      graph_run.graph = graph_index;
      graph_run.left = graph.node_count;
      graph_run.buckets = static_cast<uint64_t>(graph.buckets);
      graph_run.waiting.resize(static_cast<size_t>(graph.node_count));
      for (int64_t i = 0; i < graph.node_count; ++i)
        graph_run.waiting[static_cast<size_t>(i)] =
            program_.graph_nodes[graph.node_start + i].parents;
      chunk.phases.push_back({-1, 0, -1});
    } else {
      choose_phases(chunk, rank,
                    program_.plans[collective.plan_start + number % collective.plan_count]);
    }
    next_phase(stream);
  }
}

void Engine::choose_phases(Chunk& chunk, int32_t on_rank, const Plan& plan) {
  const int32_t per_level = program_.queues_per_level, half = per_level / 2;
  const size_t rank = static_cast<size_t>(on_rank);
  for (int32_t i = 0; i < plan.phase_count; ++i) {
    const int32_t index = plan.phase_start + i;
    const Phase& phase = program_.phases[index];
    int32_t* counters = &next_queue_[(rank * static_cast<size_t>(program_.levels) +
                                      static_cast<size_t>(phase.level)) *
                                     3];
    int32_t& counter = counters[static_cast<size_t>(phase.pick)];
    const int32_t queue = counter++;
    bool second = false;
    switch (phase.pick) {
      case QueuePick::kNext:
        second = per_level > 1 && queue >= half;
        if (counter >= per_level) counter = 0;
        break;
      case QueuePick::kFirst:
        if (counter >= half) counter = 0;
        break;
      case QueuePick::kLast:
        second = true;
        if (counter >= per_level) counter = half;
        break;
    }
    if (phase.variant == Variant::kAlternate) {
      int32_t& turn = alternate_[static_cast<size_t>(phase.slot) * ranks_.size() + rank];
      second = turn++ % 2 != 0;
    } else if (phase.variant == Variant::kAgreed && phase.pick == QueuePick::kNext &&
               per_level > 1) {
      second = agree(chunk, i, phase.layout, second);
    }
    const Family& family = program_.families[second ? phase.family1 : phase.family0];
    const int32_t offset =
        family.positions == 0
            ? 0
            : program_.schedule_of_position[family.position_start +
                                            position(phase.layout, chunk.job_rank)];
    chunk.phases.push_back({index, phase.level * per_level + queue, family.first + offset});
  }
}

// The way round that the first member of the layout took in this phase of this chunk.  Ranks that
// have issued unequal numbers of collectives, in overlapping groups, are at different queues of a
// dimension, and so would go different ways.  ASTRA-sim never ends there.
bool Engine::agree(const Chunk& chunk, int32_t phase, int32_t layout, bool second) {
  const Group& group = program_.groups[layout];
  const int32_t first =
      group.stride == 0 ? 0 : chunk.job_rank - position(layout, chunk.job_rank) * group.stride;
  const auto [agreed, fresh] = agreed_.try_emplace({chunk.tag, phase, first}, second, group.size);
  const bool way = agreed->second.first;
  if (wave_ && way != second) doubt(Doubt::kOrder, chunk.job_rank);
  if (--agreed->second.second == 0) agreed_.erase(agreed);
  return way;
}

// End the current phase, if any, and enter the next one, if any.
void Engine::next_phase(Stream& stream) {
  Chunk& chunk = chunk_of(stream);
  const size_t per_rank =
      static_cast<size_t>(program_.levels) * static_cast<size_t>(program_.queues_per_level);
  Queue* queues = &queues_[static_cast<size_t>(stream.rank) * per_rank];
  const int32_t most = machine_of(stream.rank).streams_per_queue;
  const int32_t previous = chunk.queue, rank = stream.rank;
  const auto first_queue = static_cast<int32_t>(queues - &queues_[0]);
  const bool last = chunk.next_phase == chunk.phases.size();
  if (previous >= 0 && !queues[previous].waiting.empty())
    __builtin_prefetch(&streams_[queues[previous].waiting.front().stream], 1);
  leave_meeting(stream);
  leave_channel(stream.sends.channel);
  leave_channel(stream.receives.channel);
  if (keeps_stays_ && previous >= 0) stays[static_cast<size_t>(stay_of(stream))].end_ps = now_ps_;
  if (last) {
    // The collective may end here, and its rank may issue the next one at once.
    const int32_t index = chunk.run;
    CollectiveRun& run = runs_[index];
    if (--run.left == 0) {
      const int32_t task = run.task, node = run.node;
      runs_.give_back(index);
      node_done(task, node);
    }
  }
  if (!last) {
    enter(stream, chunk, chunk.phases[chunk.next_phase++]);
    if (wave_) note_entry(rank, first_queue + chunk.queue, chunk.priority);
    queues[chunk.queue].add(stream.self, chunk.priority, queued_++);
  }
  const int32_t current = chunk.queue;
  if (last) {
    if (chunk.graph >= 0) graph_runs_.give_back(chunk.graph);
    streams_.give_back(stream.self);
  }
  if (previous >= 0) {
    if (wave_) note_exit(rank, first_queue + previous);
    --queues[previous].running;
    fill(queues[previous], most);
  }
  if (!last) fill(queues[current], most);
}

void Engine::enter(Stream& stream, Chunk& chunk, const PhaseChoice& choice) {
  chunk.queue = choice.queue;
  stream.step = stream.processed = stream.received = stream.inserted = 0;
  if (keeps_stays_) note_entered(stream, choice);
  if (choice.phase < 0) {
    stream.schedule = nullptr;
    return;
  }
  const Phase& phase = program_.phases[choice.phase];
  const Group& group = program_.groups[phase.layout];
  const Machine& machine = machine_of(stream.rank);
  stream.level = static_cast<uint16_t>(std::min(phase.level, most_level_));
  stream.bus = phase.bus;
  stream.bus_ps = phase.bus == Bus::kFast ? machine.fast_delay_ps : machine.endpoint_delay_ps;
  stream.shared_bus = phase.bus == Bus::kEndpoint && machine.bus_model == BusModel::kLoggp;
  chunk.size = group.size;
  chunk.stride = group.stride;
  chunk.position = position(phase.layout, chunk.job_rank);
  chunk.base = chunk.job_rank - chunk.position * group.stride;
  bind(stream, chunk);
  if (numbers_) join_meeting(stream, chunk, phase);
}

// Point into the Program, which may have moved.
void Engine::bind(Stream& stream, Chunk& chunk) {
  if (chunk.next_phase == 0 || chunk.next_phase > chunk.phases.size()) return;
  const PhaseChoice& choice = chunk.phases[chunk.next_phase - 1];
  if (choice.phase < 0) return;
  const Group& group = program_.groups[program_.phases[choice.phase].layout];
  stream.schedule = &program_.schedules[choice.schedule];
  chunk.placement = placement_of(runs_[chunk.run].task);
  chunk.members = group.stride != 0 ? nullptr : &program_.members[0] + group.member_start;
}

void Engine::note_entered(const Stream& stream, const PhaseChoice& choice) {
  const CollectiveRun& run = runs_[chunk_of(stream).run];
  const size_t self = static_cast<size_t>(stream.self);
  stay_of_stream_[self] = static_cast<int64_t>(stays.size());
  Stay stay{};
  stay.entered_ps = now_ps_;
  stay.start_ps = stay.end_ps = -1;
  stay.task = run.task;
  stay.node = run.node;
  stay.chunk = chunk_of_stream_[self];
  stay.phase = choice.phase;
  stay.queue = choice.queue;
  stays.push_back(stay);
}

void Engine::fill(Queue& queue, int32_t most) {
  while (!queue.waiting.empty() && queue.running < most) start_next(queue);
}

void Engine::start_next(Queue& queue) {
  Stream& stream = streams_[queue.take()];
  ++queue.running;
  if (keeps_stays_) stays[static_cast<size_t>(stay_of(stream))].start_ps = now_ps_;
  // Not asked of the chunk, which is far from the caches by now.
  if (stream.schedule == nullptr)
    start_graph(chunk_of(stream).graph);
  else if (!wave_ || !joins_wave(stream))
    start(stream);
}

// When nothing can go on: start a waiting chunk in every queue that has one.
bool Engine::relieve() {
  const int64_t before = relieved_;
  for (Queue& queue : queues_) {
    if (queue.waiting.empty()) continue;
    if (wave_) doubt(Doubt::kOrder, 0);
    start_next(queue);
    ++relieved_;
  }
  return relieved_ > before;
}

// Run the steps that need nothing, then insert the first packets.
void Engine::start(Stream& stream) {
  run_steps(stream, stream.schedule->step_count);
  const int32_t window = stream.schedule->window;
  if (window > 1 && insert_together(stream, window)) return;
  for (int32_t i = 0; i < window; ++i) insert_packet(stream);
}

// The first packets, of which there may be thousands, as one event; false where they differ.
bool Engine::insert_together(Stream& stream, int32_t count) {
  if (stream.shared_bus || stream.bus == Bus::kNone || stream.inserted > 0) return false;
  for (int32_t i = 0; i < count; ++i)
    if ((packet_of(stream, i).flags & kReduced) != 0) return false;
  stream.inserted = count;
  add(stream.rank, stream.bus_ps, {Then::kBusCrossed, count, stream.self});
  return true;
}

// What a shared bus asks for.
struct Engine::BusHost {
  Engine& engine;
  int32_t rank;
  int64_t now_ns() const { return engine.now_ps_ / kPsPerNs; }
  void bus_later(int64_t delay_ns, int32_t side, int32_t event) const {
    engine.add(rank, delay_ns * kPsPerNs,
               {Then::kSharedBus, side * SharedBus::kEvents + event, rank});
  }
  void packet_crossed(int32_t stream, int32_t packet) const {
    engine.packet_crossed(engine.streams_[stream], packet);
  }
};

void Engine::bus_event(int32_t rank, int32_t what) {
  BusHost host{*this, rank};
  buses_[static_cast<size_t>(rank)].happen(host, what / SharedBus::kEvents,
                                           what % SharedBus::kEvents);
}

void Engine::insert_packet(Stream& stream) {
  const int32_t index = stream.inserted++;
  const Packet& packet = packet_of(stream, index);
  const bool reduced = (packet.flags & kReduced) != 0;
  if (stream.shared_bus) {
    BusHost host{*this, stream.rank};
    buses_[static_cast<size_t>(stream.rank)].move(
        host, (packet.flags & kToMemory) != 0, packet.bytes, reduced,
        (packet.flags & kSendBack) != 0, stream.self, index);
    return;
  }
  if (stream.bus == Bus::kNone) {
    packet_crossed(stream, index);
    return;
  }
  // The phase ends with it, in a while: what that takes is not near, either.
  if (index + 1 == stream.schedule->end) __builtin_prefetch(&chunk_of(stream), 1);
  add(stream.rank, stream.bus_ps,
      {reduced ? Then::kBusReduced : Then::kBusCrossed, reduced ? index : 1, stream.self});
}

void Engine::packet_crossed(Stream& stream, int32_t index) {
  const Packet& packet = packet_of(stream, index);
  if ((packet.flags & kReduced) != 0)
    add(stream.rank, packet.reduce_ps, {Then::kBusCrossed, 1, stream.self});
  else
    packet_processed(stream);
}

void Engine::packets_processed(Stream& stream, int32_t count) {
  events_ += count - 1;
  // The last one may end the phase, and more.
  for (; count > 1; --count) packet_processed(stream);
  packet_processed(stream);
}

void Engine::packet_processed(Stream& stream) {
  ++stream.processed;
  const Schedule& schedule = *stream.schedule;
  if (stream.step < schedule.step_count) run_steps(stream, schedule.burst);
  if (stream.processed == schedule.end && stream.step == schedule.step_count) next_phase(stream);
}

int32_t Engine::peer_of(const Chunk& chunk, Peers peers, int32_t value) const {
  int32_t position = peers == Peers::kXor ? chunk.position ^ value : chunk.position + value;
  if (position >= chunk.size) position -= chunk.size;
  if (position < 0) position += chunk.size;
  const int32_t peer =
      chunk.members ? chunk.members[position] : chunk.base + position * chunk.stride;
  return chunk.placement ? chunk.placement[peer] : peer;
}

// Is a message of the same size to, or from, the same peer?
static bool same_send(const Step& a, const Step& b) {
  return a.send_to == b.send_to && a.send_bytes == b.send_bytes && a.peers == b.peers;
}
static bool same_receive(const Step& a, const Step& b) {
  return a.recv_from == b.recv_from && a.recv_bytes == b.recv_bytes && a.peers == b.peers;
}

void Engine::run_steps(Stream& stream, int32_t most) {
  const Schedule& schedule = *stream.schedule;
  const Step* steps = &program_.steps[schedule.step_start];
  if (keeps_deliveries_) owner_ = stay_of(stream);
  if (stream.sends.channel == Remembered::kMeets) {
    run_numbered_steps(stream, most);
    return;
  }
  for (; most > 0 && stream.step < schedule.step_count; --most) {
    if (stream.step >= schedule.gate_step && stream.received < schedule.gate_received) return;
    const Step& step = steps[stream.step];
    if (stream.processed < step.need) return;
    ++stream.step;
    const Remembered &to = stream.sends, &from = stream.receives;
    if (step.send_bytes > 0 &&
        ((to.channel >= 0 && same_send(steps[to.step], step)) || open_send(stream, step)))
      send_on(to.channel, {}, stream.collective, -1, stream.level);
    if (step.peers == Peers::kReduced && step.send_bytes > 0) reduce(stream);
    if (step.recv_bytes > 0 &&
        ((from.channel >= 0 && same_receive(steps[from.step], step)) || open_receive(stream, step)))
      receive_on(from.channel, {Then::kArrived, 0, stream.self}, stream.collective, -1);
  }
}

// What was sent last is a member's part of a reduction, in the step of the schedule that ran last.
void Engine::reduce(const Stream& stream) {
  const Chunk& chunk = chunk_of(stream);
  int32_t first = chunk.members ? chunk.members[0] : chunk.base;
  if (chunk.placement) first = chunk.placement[first];
  int32_t size = chunk.size;
  if (folding_) {
    // Those that run; one that stands for all others waits for nobody.
    std::set<int32_t> running;
    for (int32_t i = 0; i < chunk.size; ++i) {
      int32_t src = peer_of(chunk, Peers::kRelative, i), dst = src;
      folding_.turn(src, dst);
      running.insert(dst);
    }
    size = static_cast<int32_t>(running.size());
    first = *running.begin();
    if (size == 1) return;
  }
  const auto [entry, fresh] = reductions_.try_emplace(
      {chunk.tag, static_cast<int32_t>(chunk.next_phase), first, stream.step}, reduced_ + 1, size);
  if (fresh) ++reduced_;
  astra_net_transfer& transfer = starts_.back();
  transfer.flags = ASTRA_NET_REDUCE | static_cast<uint32_t>(size) << 8;
  transfer.reserved = entry->second.first;
  if (--entry->second.second == 0) reductions_.erase(entry);
}

void Engine::run_numbered_steps(Stream& stream, int32_t most) {
  const Schedule& schedule = *stream.schedule;
  const Step* steps = &program_.steps[schedule.step_start];
  Meeting& meeting = meetings_[stream.sends.step];
  const Numbering& numbering = numberings_[meeting.numbering];
  const Numbering::Part& part =
      numbering.part(static_cast<int32_t>(&schedule - &program_.schedules[0]));
  int32_t position = -1;
  for (; most > 0 && stream.step < schedule.step_count; --most) {
    if (stream.step >= schedule.gate_step && stream.received < schedule.gate_received) return;
    const auto step = static_cast<size_t>(stream.step);
    if (stream.processed < steps[step].need) return;
    if (position < 0) position = chunk_of(stream).position;
    ++stream.step;
    if (part.sends[step] >= 0)
      send_numbered(meeting, numbering, stream, position, part.sends[step]);
    if (part.receives[step] >= 0)
      receive_numbered(meeting, numbering, stream, position, part.receives[step]);
  }
}

// Open the channel that a step sends on, the last one to have run; false where that has to wait for
// a control message.
bool Engine::open_send(Stream& stream, const Step& step) {
  const Chunk& chunk = chunk_of(stream);
  const int32_t peer = peer_of(chunk, step.peers, step.send_to);
  // The members of a reduction meet in the network.
  if (program_.rendezvous_bytes > 0 && step.peers != Peers::kReduced) {
    send(stream.rank, peer, step.send_bytes, chunk.tag, {}, stream.collective, -1, stream.level);
    return false;
  }
  leave_channel(stream.sends.channel);
  stream.sends = {open_channel(chunk.tag, address(stream.rank), peer, step.send_bytes),
                  stream.step - 1};
  ++channels_[static_cast<size_t>(stream.sends.channel)].users;
  return true;
}

bool Engine::open_receive(Stream& stream, const Step& step) {
  const Chunk& chunk = chunk_of(stream);
  const int32_t peer = peer_of(chunk, step.peers, step.recv_from);
  if (program_.rendezvous_bytes > 0 && step.peers != Peers::kReduced) {
    receive(stream.rank, peer, step.recv_bytes, chunk.tag, {Then::kArrived, 0, stream.self},
            stream.collective, -1, stream.level);
    return false;
  }
  leave_channel(stream.receives.channel);
  stream.receives = {open_channel(chunk.tag, peer, address(stream.rank), step.recv_bytes),
                     stream.step - 1};
  ++channels_[static_cast<size_t>(stream.receives.channel)].users;
  return true;
}

void Engine::arrived(Stream& stream) {
  ++stream.received;
  insert_packet(stream);
}

// Issue all nodes without parents.
void Engine::start_graph(int32_t index) {
  const GraphRun& run = graph_runs_[index];
  if (run.left == 0) {
    next_phase(streams_[run.stream]);
    return;
  }
  const Graph& graph = program_.graphs[run.graph];
  for (int64_t i = 0; i < graph.root_count; ++i)
    issue_graph_node(index, program_.graph_roots[graph.root_start + i]);
}

void Engine::issue_graph_node(int32_t index, int32_t node_index) {
  const GraphRun& run = graph_runs_[index];
  const GraphNode& node = program_.graph_nodes[program_.graphs[run.graph].node_start + node_index];
  const Stream& stream = streams_[run.stream];
  const Action then{Then::kGraphDone, node_index, index};
  const int32_t task = runs_[chunk_of(stream).run].task;
  const int64_t tag = job_of(task).tag_base + node.tag;
  if (keeps_deliveries_) owner_ = stay_of(stream);
  switch (node.op) {
    case GraphOp::kSend:
      send(stream.rank, placed(task, node.peer), node.bytes, tag, then, stream.collective, -1);
      break;
    case GraphOp::kRecv:
      receive(stream.rank, placed(task, node.peer), node.bytes, tag, then, stream.collective, -1);
      break;
    case GraphOp::kDelay:
      add(stream.rank, node.duration_ps, then);
      break;
  }
}

void Engine::graph_node_done(int32_t index, int32_t node_index) {
  GraphRun& run = graph_runs_[index];
  --run.left;
  const GraphNode* nodes = &program_.graph_nodes[program_.graphs[run.graph].node_start];
  const GraphNode& node = nodes[node_index];
  std::vector<int32_t> free;
  for (int64_t i = 0; i < node.child_count; ++i) {
    const int32_t child = program_.graph_children[node.child_start + i];
    if (--run.waiting[static_cast<size_t>(child)] == 0) free.push_back(child);
  }
  if (free.size() > 1)
    hash_order(free, run.buckets,
               [nodes](int32_t child) { return static_cast<uint64_t>(nodes[child].id); });
  for (const int32_t child : free) issue_graph_node(index, child);
  if (run.left == 0) next_phase(streams_[run.stream]);
}

}  // namespace engine
