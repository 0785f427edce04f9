// SPDX-License-Identifier: MIT
//
// Nodes of traces: what is free is issued, as far as what it occupies is free; remote memory.
#include "engine.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include "failure.hpp"

namespace engine {

namespace {

// A node that is free: whatever task it is of, the first one comes first.
int64_t free_node(int32_t task, int32_t node) { return int64_t{task} << 32 | node; }

void heap_push(std::vector<int64_t>& heap, int64_t value) {
  heap.push_back(value);
  std::push_heap(heap.begin(), heap.end(), std::greater<int64_t>());
}
int64_t heap_pop(std::vector<int64_t>& heap) {
  std::pop_heap(heap.begin(), heap.end(), std::greater<int64_t>());
  const int64_t value = heap.back();
  heap.pop_back();
  return value;
}

}  // namespace

void Engine::fire(int32_t task) {
  TaskState& mine = task_at(task);
  RankState& state = ranks_[static_cast<size_t>(mine.rank)];
  for (size_t i = 0; i < mine.waiting.size(); ++i) {
    const int32_t node = static_cast<int32_t>(i);
    if (mine.waiting[i] == 0)
      heap_push(state.free_nodes[node_of(mine, node).unit], free_node(task, node));
  }
  issue_free(mine.rank);
  if (mine.left == 0) note_end(task);  // it may be empty
}

// Where the last node of a task, and of its rank, is complete, that is when it ends.
void Engine::note_end(int32_t task) {
  const TaskState& mine = task_at(task);
  const size_t rank = static_cast<size_t>(mine.rank);
  if (ranks_[rank].left == 0 && finish_ps[rank] < 0) finish_ps[rank] = now_ps_;
  int64_t& finish = task_finish_ps[static_cast<size_t>(task)];
  if (finish >= 0) return;
  finish = now_ps_;
  if (watch_ == Watch::kNothing) return;
  done_.push_back({now_ps_, task, -1});
  stop_ = true;
}

// Issue free nodes in ascending order, as far as what they occupy is free.  Nodes that become free
// meanwhile (after one that completes at once) come in a next pass.
void Engine::issue_free(int32_t rank) {
  RankState& state = ranks_[static_cast<size_t>(rank)];
  const int32_t* capacity = machine_of(rank).unit_capacity;
  const auto issue_one = [this](int64_t free) {
    return issue(static_cast<int32_t>(free >> 32), static_cast<int32_t>(free));
  };
  for (;;) {
    scratch_.clear();
    for (int unit = 0; unit < kUnits; ++unit) {
      std::vector<int64_t>& free = state.free_nodes[unit];
      int64_t room = int64_t{capacity[unit]} - state.busy[unit];
      for (; room > 0 && !free.empty(); --room) scratch_.push_back(heap_pop(free));
    }
    if (scratch_.empty()) return;
    bool done_at_once = false;
    if (scratch_.size() == 1) {
      done_at_once = issue_one(scratch_.front());
    } else {
      std::vector<int64_t> issued(scratch_);
      std::sort(issued.begin(), issued.end());
      for (const int64_t free : issued) done_at_once |= issue_one(free);
    }
    if (!done_at_once) return;
  }
}

// True where the node is complete at once.
bool Engine::issue(int32_t task, int32_t index) {
  const TaskState& mine = task_at(task);
  const int32_t rank = mine.rank;
  const Node& node = node_of(mine, index);
  if (!node_start_ps.empty())
    node_start_ps[static_cast<size_t>(mine.first_record + index)] = now_ps_;
  ++ranks_[static_cast<size_t>(rank)].busy[node.unit];
  const Action then{Then::kNodeDone, task, index};
  switch (node.op) {
    case Op::kNothing:
      complete_node(task, index);
      return true;
    case Op::kDelay:
      add(rank, slowed(rank, node.duration_ps), then);
      break;
    case Op::kCollective:
      issue_collective(task, index, node.arg);
      break;
    case Op::kSend:
    case Op::kRecv: {
      const MessageSpec& message = program_.messages[node.arg];
      const int64_t tag = job_of(task).tag_base + message.tag;
      const int32_t peer = placed(task, mine.origin + message.peer);
      owner_ = -2 - (mine.first_record + index);
      if (node.op == Op::kSend)
        send(rank, peer, message.bytes, tag, then, -1, index);
      else
        receive(rank, peer, message.bytes, tag, then, -1, index);
      break;
    }
    case Op::kMemory:
      access_memory(task, index, node.duration_ps);
      break;
  }
  return false;
}

// What a slow rank takes for a compute node, to the next picosecond.
int64_t Engine::slowed(int32_t rank, int64_t duration_ps) const {
  const double slowdown = ranks_[static_cast<size_t>(rank)].slowdown;
  if (slowdown == 1) return duration_ps;
  const double slow_ps = std::floor(static_cast<double>(duration_ps) * slowdown + 0.5);
  if (!(slow_ps < 9.2e18))
    give_up(
        "a compute node of rank %d, slowed down %g times, takes %g ps, beyond the range of "
        "time (2^63 ps)",
        rank, slowdown, slow_ps);
  return static_cast<int64_t>(slow_ps);
}

void Engine::node_done(int32_t task, int32_t node) {
  if (wave_) note_done(task_at(task).rank);
  complete_node(task, node);
  issue_free(task_at(task).rank);
}

void Engine::complete_node(int32_t task, int32_t index) {
  TaskState& mine = task_at(task);
  RankState& state = ranks_[static_cast<size_t>(mine.rank)];
  const Node& node = node_of(mine, index);
  if (!node_end_ps.empty()) node_end_ps[static_cast<size_t>(mine.first_record + index)] = now_ps_;
  --state.busy[node.unit];
  --state.left;
  --mine.left;
  ++nodes_done_;
  if (watch_ == Watch::kNodes) {
    done_.push_back({now_ps_, task, index});
    stop_ = true;
  }
  for (int64_t i = 0; i < node.child_count; ++i) {
    const int32_t child = program_.children[node.child_start + i];
    if (--mine.waiting[static_cast<size_t>(child)] > 0) continue;
    ++freed_;
    heap_push(state.free_nodes[node_of(mine, child).unit], free_node(task, child));
  }
  if (mine.left == 0) note_end(task);
}

// Remote memory

void Engine::access_memory(int32_t task, int32_t node, int64_t duration_ps) {
  const int32_t rank = task_at(task).rank;
  const int32_t server = program_.memory_server[rank];
  if (server < 0) {
    add(rank, duration_ps, {Then::kNodeDone, task, node});
  } else if (server_busy_[static_cast<size_t>(server)] != 0) {
    servers_[static_cast<size_t>(server)].emplace_back(task, node);
  } else {
    server_busy_[static_cast<size_t>(server)] = 1;
    serve(server, task, node);
  }
}

void Engine::serve(int32_t server, int32_t task, int32_t node) {
  const TaskState& mine = task_at(task);
  const int64_t duration_ps = node_of(mine, node).duration_ps;
  add(mine.rank, duration_ps, {Then::kNodeDone, task, node});
  add(mine.rank, duration_ps, {Then::kServed, server, 0});
}

void Engine::served(int32_t server) {
  auto& waiting = servers_[static_cast<size_t>(server)];
  if (waiting.empty()) {
    server_busy_[static_cast<size_t>(server)] = 0;
    return;
  }
  const auto [task, node] = waiting.front();
  waiting.pop_front();
  serve(server, task, node);
}

}  // namespace engine
