// SPDX-License-Identifier: MIT
//
// Collectives: chunks as streams, their queues, and what runs in a stream.
#include "engine.hpp"

#include <algorithm>

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
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int32_t self = streams_.take();
    Stream& stream = streams_[self];
    std::vector<PhaseChoice> phases = std::move(stream.phases);
    phases.clear();
    stream = Stream{};
    stream.phases = std::move(phases);
    stream.self = self;
    stream.rank = rank;
    stream.job_rank = job_rank;
    stream.collective = index;
    stream.tag = tag_base + first_number + chunk;
    stream.priority = priority;
    stream.run = run;
    if (collective.graph >= 0) {
      // Custom collectives use queue 0 of the rank.
      const int64_t which = collective.graph + position(collective.group, job_rank);
      const int32_t graph_index = program_.graph_of_position[which];
      const Graph& graph = program_.graphs[graph_index];
      stream.graph = graph_runs_.take();
      GraphRun& graph_run = graph_runs_[stream.graph];
      graph_run.stream = self;
      graph_run.graph = graph_index;
      graph_run.left = graph.node_count;
      graph_run.buckets = static_cast<uint64_t>(graph.buckets);
      graph_run.waiting.resize(static_cast<size_t>(graph.node_count));
      for (int64_t i = 0; i < graph.node_count; ++i)
        graph_run.waiting[static_cast<size_t>(i)] =
            program_.graph_nodes[graph.node_start + i].parents;
      stream.phases.push_back({-1, 0, -1});
    } else {
      choose_phases(stream, program_.plans[collective.plan_start + chunk % collective.plan_count]);
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
      second = agree(stream, i, phase.layout, second);
    }
    const Family& family = program_.families[second ? phase.family1 : phase.family0];
    const int32_t offset =
        family.positions == 0
            ? 0
            : program_.schedule_of_position[family.position_start +
                                            position(phase.layout, stream.job_rank)];
    stream.phases.push_back({index, phase.level * per_level + queue, family.first + offset});
  }
}

// The way round that the first member of the layout took in this phase of this chunk.  Ranks that
// have issued unequal numbers of collectives, in overlapping groups, are at different queues of a
// dimension, and so would go different ways.  ASTRA-sim never ends there.
bool Engine::agree(const Stream& stream, int32_t phase, int32_t layout, bool second) {
  const Group& group = program_.groups[layout];
  const int32_t first =
      group.stride == 0 ? 0 : stream.job_rank - position(layout, stream.job_rank) * group.stride;
  const auto [agreed, fresh] = agreed_.try_emplace({stream.tag, phase, first}, second, group.size);
  const bool way = agreed->second.first;
  if (--agreed->second.second == 0) agreed_.erase(agreed);
  return way;
}

// End the current phase, if any, and enter the next one, if any.
void Engine::next_phase(Stream& stream) {
  const size_t per_rank =
      static_cast<size_t>(program_.levels) * static_cast<size_t>(program_.queues_per_level);
  Queue* queues = &queues_[static_cast<size_t>(stream.rank) * per_rank];
  const int32_t most = machine_of(stream.rank).streams_per_queue;
  const int32_t previous = stream.queue;
  const bool last = stream.next_phase == stream.phases.size();
  leave_channel(stream.send_channel);
  leave_channel(stream.recv_channel);
  if (last) {
    // The collective may end here, and its rank may issue the next one at once.
    const int32_t index = stream.run;
    CollectiveRun& run = runs_[index];
    if (--run.left == 0) {
      const int32_t task = run.task, node = run.node;
      runs_.give_back(index);
      node_done(task, node);
    }
  }
  if (!last) {
    enter(stream, stream.phases[stream.next_phase++]);
    queues[stream.queue].add(stream.self, stream.priority, queued_++);
  }
  const int32_t current = stream.queue;
  if (last) {
    if (stream.graph >= 0) graph_runs_.give_back(stream.graph);
    streams_.give_back(stream.self);
  }
  if (previous >= 0) {
    --queues[previous].running;
    fill(queues[previous], most);
  }
  if (!last) fill(queues[current], most);
}

void Engine::enter(Stream& stream, const PhaseChoice& choice) {
  stream.queue = choice.queue;
  stream.step = stream.processed = stream.received = stream.inserted = 0;
  if (choice.phase < 0) return;
  const Phase& phase = program_.phases[choice.phase];
  const Schedule& schedule = program_.schedules[choice.schedule];
  const Group& group = program_.groups[phase.layout];
  const Machine& machine = machine_of(stream.rank);
  stream.step_count = schedule.step_count;
  stream.window = schedule.window;
  stream.burst = schedule.burst;
  stream.gate_step = schedule.gate_step;
  stream.gate_received = schedule.gate_received;
  stream.end = schedule.end;
  stream.level = static_cast<uint16_t>(std::min(phase.level, most_level_));
  stream.bus = phase.bus;
  stream.bus_ps = phase.bus == Bus::kFast ? machine.fast_delay_ps : machine.endpoint_delay_ps;
  stream.shared_bus = phase.bus == Bus::kEndpoint && machine.bus_model == BusModel::kLoggp;
  stream.size = group.size;
  stream.stride = group.stride;
  stream.position = position(phase.layout, stream.job_rank);
  stream.base = stream.job_rank - stream.position * group.stride;
  bind(stream);
}

// Point into the Program, which may have moved.
void Engine::bind(Stream& stream) {
  if (stream.next_phase == 0 || stream.next_phase > stream.phases.size()) return;
  const PhaseChoice& choice = stream.phases[stream.next_phase - 1];
  if (choice.phase < 0) return;
  const Schedule& schedule = program_.schedules[choice.schedule];
  const Group& group = program_.groups[program_.phases[choice.phase].layout];
  stream.steps = &program_.steps[0] + schedule.step_start;
  stream.packets = &program_.packets[0] + schedule.packet_start;
  stream.placement = placement_of(runs_[stream.run].task);
  stream.members = group.stride != 0 ? nullptr : &program_.members[0] + group.member_start;
}

void Engine::fill(Queue& queue, int32_t most) {
  while (!queue.waiting.empty() && queue.running < most) start_next(queue);
}

void Engine::start_next(Queue& queue) {
  Stream& stream = streams_[queue.take()];
  ++queue.running;
  if (stream.graph >= 0)
    start_graph(stream.graph);
  else
    start(stream);
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
  const Packet& packet = stream.packets[index];
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
  add(stream.rank, stream.bus_ps,
      {reduced ? Then::kBusReduced : Then::kBusCrossed, index, stream.self});
}

void Engine::packet_crossed(Stream& stream, int32_t index) {
  const Packet& packet = stream.packets[index];
  if ((packet.flags & kReduced) != 0)
    add(stream.rank, packet.reduce_ps, {Then::kBusCrossed, index, stream.self});
  else
    packet_processed(stream);
}

void Engine::packet_processed(Stream& stream) {
  ++stream.processed;
  run_steps(stream, stream.burst);
  if (stream.processed == stream.end && stream.step == stream.step_count) next_phase(stream);
}

int32_t Engine::peer_of(const Stream& stream, Peers peers, int32_t value) const {
  int32_t position = peers == Peers::kXor ? stream.position ^ value : stream.position + value;
  if (position >= stream.size) position -= stream.size;
  if (position < 0) position += stream.size;
  const int32_t peer =
      stream.members ? stream.members[position] : stream.base + position * stream.stride;
  return stream.placement ? stream.placement[peer] : peer;
}

void Engine::run_steps(Stream& stream, int32_t most) {
  while (most > 0 && stream.step < stream.step_count) {
    if (stream.step >= stream.gate_step && stream.received < stream.gate_received) return;
    const Step& step = stream.steps[stream.step];
    if (stream.processed < step.need) return;
    --most;
    ++stream.step;
    if (step.send_bytes > 0) {
      const int32_t peer = peer_of(stream, step.peers, step.send_to);
      if (program_.rendezvous_bytes > 0) {
        send(stream.rank, peer, step.send_bytes, stream.tag, {}, stream.collective, -1,
             stream.level);
      } else {
        if (peer != stream.send_peer || step.send_bytes != stream.send_bytes ||
            stream.send_channel < 0) {
          leave_channel(stream.send_channel);
          stream.send_peer = peer;
          stream.send_bytes = step.send_bytes;
          stream.send_channel = open_channel(stream.tag, stream.rank, peer, step.send_bytes);
          ++channels_[static_cast<size_t>(stream.send_channel)].users;
        }
        send_on(stream.send_channel, {}, stream.collective, -1, stream.level);
      }
    }
    if (step.recv_bytes > 0) {
      const int32_t peer = peer_of(stream, step.peers, step.recv_from);
      const Action then{Then::kArrived, 0, stream.self};
      if (program_.rendezvous_bytes > 0) {
        receive(stream.rank, peer, step.recv_bytes, stream.tag, then, stream.collective, -1,
                stream.level);
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
  const int32_t task = runs_[stream.run].task;
  const int64_t tag = job_of(task).tag_base + node.tag;
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
