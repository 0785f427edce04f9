// SPDX-License-Identifier: MIT
//
// Phases as wavefronts: see wavefront.hpp.  The end of a phase is an event, but one without a place in
// the order of its instant.  So no answer may depend on that order: where it could, the run ends, and
// counts for nothing (docs/wavefronts.md).
#include "wavefront.hpp"

#include <algorithm>
#include <system_error>
#include <thread>

#include "engine.hpp"

namespace engine {

namespace {

constexpr int64_t kBefore = INT64_MIN / 4;  // before all times

int64_t rounded(int64_t time_ps, int64_t grid_ps) {
  const int64_t off_grid = time_ps % grid_ps;
  return off_grid == 0 ? time_ps : time_ps + grid_ps - off_grid;
}

// What a packet takes beside the bus.
int64_t cost_ps(const Packet& packet) {
  return (packet.flags & kReduced) != 0 ? packet.reduce_ps : 0;
}

// Compilers make the loops below for the instructions of the processor that runs them, which are
// whole numbers, and so the same with any.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ENGINE_FOR_PROCESSOR [[gnu::target_clones("avx512f", "avx2", "default")]]
#else
#define ENGINE_FOR_PROCESSOR
#endif

// Messages that come to a hop, and when they leave it.
ENGINE_FOR_PROCESSOR void cross(size_t count, int64_t* __restrict comes,
                                int64_t* __restrict free_ps, const int64_t* __restrict hold_ps,
                                const int64_t* __restrict takes_ps) {
  for (size_t i = 0; i < count; ++i) {
    const int64_t start_ps = std::max(comes[i], free_ps[i]);
    free_ps[i] = start_ps + hold_ps[i];
    comes[i] = start_ps + takes_ps[i];
  }
}

// Messages that have come are processed.
ENGINE_FOR_PROCESSOR void process(size_t count, const int64_t* __restrict comes,
                                  const int64_t* __restrict before,
                                  const int64_t* __restrict bus_ps, int64_t cost,
                                  int64_t* __restrict after) {
  for (size_t i = 0; i < count; ++i) after[i] = std::max(comes[i], before[i]) + bus_ps[i] + cost;
}

}  // namespace

Recurrence::Recurrence(size_t count, size_t hops, int64_t grid_ps, int32_t threads)
    : count_(count),
      hops_(hops),
      ahead_(count < 2 * kLeast ? 0 : kAhead),
      grid_ps_(grid_ps),
      threads_(threads),
      done_(count + ahead_),
      bus_(count + ahead_),
      free_(hops * (count + ahead_), kBefore),
      hold_(free_.size()),
      takes_(free_.size()),
      next_done_(done_.size()),
      next_free_(free_.size()),
      comes_(count) {}

// Write the last members of each row before its first.
void Recurrence::wrap(std::vector<int64_t>& rows, size_t hops) const {
  for (size_t hop = 0; hop < hops; ++hop) {
    int64_t* first = rows.data() + hop * (count_ + ahead_) + ahead_;
    std::copy(first + count_ - ahead_, first + count_, first - ahead_);
  }
}

void Recurrence::begin(int64_t cost_ps) {
  for (size_t i = ahead_; i < done_.size(); ++i) done_[i] += bus_[i] + cost_ps;
}

void Recurrence::step(int64_t cost_ps, std::vector<int64_t>* entered) {
  int64_t* done = done_ps();
  comes_[0] = rounded(done[count_ - 1], grid_ps_);
  for (size_t i = 1; i < count_; ++i) comes_[i] = rounded(done[i - 1], grid_ps_);
  for (size_t hop = 0; hop < hops_; ++hop) {
    if (entered != nullptr)
      std::copy(comes_.begin(), comes_.end(),
                entered->begin() + static_cast<std::ptrdiff_t>(hop * count_));
    cross(count_, comes_.data(), free_ps(hop), hold_ps(hop), takes_ps(hop));
  }
  process(count_, comes_.data(), done, bus_ps(), cost_ps, next_done_.data() + ahead_);
  done_.swap(next_done_);
}

// Whether each time is later than before the last step by so much; turned, than that of the member
// before.
bool Recurrence::later_by(int64_t by_ps, bool turned) const {
  const auto holds = [&](const int64_t* now, const int64_t* then) {
    if (now[0] - then[turned ? count_ - 1 : 0] != by_ps) return false;
    const size_t back = turned ? 1 : 0;
    for (size_t i = 1; i < count_; ++i)
      if (now[i] - then[i - back] != by_ps) return false;
    return true;
  };
  if (!holds(done_.data() + ahead_, old_done_.data() + ahead_)) return false;
  for (size_t hop = 0; hop < hops_; ++hop)
    if (!holds(row(free_, hop), row(old_free_, hop))) return false;
  return true;
}

// A step does nothing to times but sums and maxima.  So if it made all later by the same, the next
// one, if it costs the same, does so too.  And if the members are alike, it does not matter who is
// the first: what goes round and keeps its shape, goes on round.
Recurrence::Steady Recurrence::steady() {
  const int64_t by_ps = done_[ahead_] - old_done_[ahead_];
  if (by_ps % grid_ps_ == 0 && later_by(by_ps, false)) return {true, false, by_ps};
  if (!compared_) {
    const auto one_value = [this](const int64_t* values) {
      return std::all_of(values, values + count_, [&](int64_t one) { return one == values[0]; });
    };
    alike_ = one_value(bus_ps());
    for (size_t hop = 0; hop < hops_; ++hop)
      alike_ = alike_ && one_value(hold_ps(hop)) && one_value(takes_ps(hop));
    compared_ = true;
  }
  const int64_t turned_ps = done_[ahead_] - old_done_[ahead_ + count_ - 1];
  if (alike_ && turned_ps % grid_ps_ == 0 && later_by(turned_ps, true))
    return {true, true, turned_ps};
  return {};
}

void Recurrence::jump(const Steady& regime, int64_t count) {
  const auto later = [&](int64_t* times) {
    if (regime.turns)
      std::rotate(times, times + count_ - static_cast<size_t>(count) % count_, times + count_);
    for (size_t i = 0; i < count_; ++i) times[i] += regime.by_ps * count;
  };
  later(done_ps());
  for (size_t hop = 0; hop < hops_; ++hop) later(free_ps(hop));
}

void Recurrence::steps(int64_t count, int64_t cost_ps, const std::function<void()>& pause) {
  while (count > 0) {
    old_done_ = done_;
    old_free_ = free_;
    step(cost_ps, nullptr);
    --count;
    const Steady regime = steady();
    if (regime.is) {
      jump(regime, count);
      return;
    }
    const auto some = static_cast<size_t>(std::min<int64_t>(count, kAhead));
    if (count_ >= 2 * kLeast)
      steps_by_blocks(some, cost_ps);
    else
      for (size_t i = 0; i < some; ++i) step(cost_ps, nullptr);
    count -= static_cast<int64_t>(some);
    pause();
  }
}

// Blocks of members, each with the members before it that it depends on: they need nothing of one
// another, so that threads take any of them, and each stays in the nearest caches.
void Recurrence::steps_by_blocks(size_t count, int64_t cost_ps) {
  if (count == 0) return;
  if (!wrapped_) {
    wrap(bus_, 1);
    wrap(hold_, hops_);
    wrap(takes_, hops_);
    wrapped_ = true;
  }
  wrap(done_, 1);
  wrap(free_, hops_);
  const auto most = static_cast<size_t>(threads_);
  const size_t threads = count * count_ < kWorthThreads ? 1 : most;
  const size_t size = std::clamp((count_ + threads - 1) / threads, kLeast, kMost);
  const size_t blocks = (count_ + size - 1) / size;
  scratch_.resize(std::max<size_t>(scratch_.size(), threads));
  for (auto& scratch : scratch_) scratch.resize((kAhead + kMost) * (3 + hops_));
  const auto some = [&](size_t thread) {
    for (size_t block = thread * blocks / threads; block < (thread + 1) * blocks / threads; ++block)
      advance_block(block * size, std::min(count_, (block + 1) * size), count, cost_ps,
                    scratch_[thread]);
  };
  std::vector<std::thread> others;
  for (size_t thread = 1; thread < threads; ++thread) {
    try {
      others.emplace_back(some, thread);
    } catch (const std::system_error&) {
      some(thread);  // there are no more threads to be had
    }
  }
  some(0);
  for (std::thread& other : others) other.join();
  done_.swap(next_done_);
  free_.swap(next_free_);
}

void Recurrence::advance_block(size_t first, size_t last, size_t count, int64_t cost_ps,
                               std::vector<int64_t>& scratch) {
  const size_t size = last - first + ahead_;  // with those before it
  int64_t* done = scratch.data();
  int64_t* after = done + size;
  int64_t* comes = after + size;
  int64_t* free = comes + size;
  const auto from = static_cast<std::ptrdiff_t>(first), length = static_cast<std::ptrdiff_t>(size);
  std::copy(done_.begin() + from, done_.begin() + from + length, done);
  for (size_t hop = 0; hop < hops_; ++hop) {
    const int64_t* its = row(free_, hop) - ahead_ + first;
    std::copy(its, its + size, free + hop * size);
  }
  // Each step knows one member less.
  for (size_t k = 1; k <= count; ++k) {
    const size_t known = size - k;
    for (size_t i = 0; i < known; ++i) comes[i] = done[k - 1 + i];
    if (grid_ps_ > 1)
      for (size_t i = 0; i < known; ++i) comes[i] = rounded(comes[i], grid_ps_);
    for (size_t hop = 0; hop < hops_; ++hop)
      cross(known, comes, free + hop * size + k, row(hold_, hop) - ahead_ + first + k,
            row(takes_, hop) - ahead_ + first + k);
    process(known, comes, done + k, bus_.data() + first + k, cost_ps, after + k);
    std::swap(done, after);
  }
  std::copy(done + ahead_, done + size,
            next_done_.begin() + static_cast<std::ptrdiff_t>(ahead_) + from);
  for (size_t hop = 0; hop < hops_; ++hop)
    std::copy(free + hop * size + ahead_, free + (hop + 1) * size, row(next_free_, hop) + first);
}

bool Recurrence::fits(int64_t count, int64_t cost_ps) const {
  // In floating point, which does not overflow; far from exact is enough.
  const auto greatest = [](const std::vector<int64_t>& values) {
    return values.empty() ? 0.0
                          : static_cast<double>(*std::max_element(values.begin(), values.end()));
  };
  const double hop_ps = greatest(hold_) + greatest(takes_) + static_cast<double>(grid_ps_);
  const double step_ps =
      static_cast<double>(hops_) * hop_ps + greatest(bus_) + static_cast<double>(cost_ps);
  const double begun_ps = std::max(greatest(done_), greatest(free_));
  return begun_ps + static_cast<double>(count + 1) * step_ps < static_cast<double>(kLatest);
}

// What the engine does with them

void Engine::doubt(Doubt why, int32_t rank) {
  if (wave_.doubt != Doubt::kNone) return;
  wave_.doubt = why;
  wave_.rank = rank;
  wave_.now_ps = now_ps_;
  stop_ = true;
}

// Whether a stream that begins a phase runs it as a wavefront; the last member to begin runs it for
// all.
bool Engine::joins_wave(const Stream& stream) {
  const Chunk& chunk = chunk_of(stream);
  const PhaseChoice& choice = chunk.phases[chunk.next_phase - 1];
  if (wave_.told.phases[static_cast<size_t>(choice.phase)] == 0) {
    ++wave_.by_events;
    return false;
  }
  ++wave_.waved;
  const int32_t first = chunk.members != nullptr ? chunk.members[0] : chunk.base;
  const Gathering::Key key{chunk.tag, static_cast<int32_t>(chunk.next_phase), first, chunk.stride,
                           choice.schedule};
  const auto [found, fresh] = wave_.gatherings.try_emplace(key);
  Gathering& gathering = found->second;
  if (fresh) {
    gathering.to_come = chunk.size;
    gathering.members.resize(static_cast<size_t>(chunk.size));
  }
  const bool forward = program_.steps[stream.schedule->step_start].send_to > 0;
  const int32_t at = forward || chunk.position == 0 ? chunk.position : chunk.size - chunk.position;
  gathering.members[static_cast<size_t>(at)] = {now_ps_, stream.self};
  if (--gathering.to_come > 0) return true;
  const Gathering whole = std::move(gathering);
  wave_.gatherings.erase(found);
  run_wave(whole);
  return true;
}

// The flows of a phase of a group, whose hops the network says once.
Flows& Engine::flows_of(const Gathering& gathering) {
  const Stream& one = streams_[gathering.members[0].stream];
  const Chunk& chunk = chunk_of(one);
  const PhaseChoice& choice = chunk.phases[chunk.next_phase - 1];
  const int32_t first = chunk.members != nullptr ? chunk.members[0] : chunk.base;
  const Flows::Key key{choice.schedule, program_.phases[choice.phase].layout, first,
                       program_.tasks[runs_[chunk.run].task].job};
  const auto [found, fresh] = wave_.flows.try_emplace(key);
  Flows& flows = found->second;
  if (!fresh) return flows;
  const size_t count = gathering.members.size();
  flows.bytes = program_.steps[one.schedule->step_start].send_bytes;
  for (size_t i = 0; i < count; ++i) {
    const size_t before = i == 0 ? count - 1 : i - 1;
    flows.src.push_back(streams_[gathering.members[before].stream].rank);
    flows.dst.push_back(streams_[gathering.members[i].stream].rank);
  }
  flows.hops = wave_.told.hops_of(flows.src, flows.dst, flows.bytes);
  std::vector<int64_t> links;
  for (int64_t& number : flows.hops.link) {
    if (number < 0) continue;
    const auto next = static_cast<int64_t>(wave_.links.size());
    const auto [link, is_new] = wave_.link_of_number.try_emplace(number, next);
    if (is_new) wave_.links.emplace_back();
    number = link->second;
    links.push_back(number);
  }
  std::sort(links.begin(), links.end());
  if (flows.hops.hops == 0) doubt(Doubt::kUnknown, one.rank);
  if (std::adjacent_find(links.begin(), links.end()) != links.end())
    doubt(Doubt::kMeeting, one.rank);
  return flows;
}

void Engine::run_wave(const Gathering& gathering) {
  Flows& flows = flows_of(gathering);
  if (stop_) return;
  const size_t count = gathering.members.size(), hops = flows.hops.hops;
  const Stream& one = streams_[gathering.members[0].stream];
  const Schedule& schedule = *one.schedule;
  const Packet* packets = &program_.packets[schedule.packet_start];
  const int32_t steps = schedule.step_count;
  bool on_grid = true;
  int64_t most_ps = 0;
  int64_t packet_events = 0;
  for (int32_t k = 0; k <= steps; ++k) {
    const int64_t cost = cost_ps(packets[k]);
    on_grid &= cost % grid_ps_ == 0;
    most_ps = std::max(most_ps, cost);
    packet_events += (packets[k].flags & kReduced) != 0 ? 2 : 1;
  }
  for (const Gathering::Member& member : gathering.members)
    on_grid &= member.begun_ps % grid_ps_ == 0 && streams_[member.stream].bus_ps % grid_ps_ == 0;
  Recurrence times(count, hops, on_grid ? 1 : grid_ps_, wave_.told.threads);
  for (size_t i = 0; i < count; ++i) {
    times.done_ps()[i] = gathering.members[i].begun_ps;
    times.bus_ps()[i] = streams_[gathering.members[i].stream].bus_ps;
  }
  const std::vector<int64_t>& links = flows.hops.link;
  for (size_t hop = 0; hop < hops; ++hop) {
    for (size_t i = 0; i < count; ++i) {
      const size_t at = hop * count + i;
      times.hold_ps(hop)[i] = flows.hops.hold_ps[at];
      times.takes_ps(hop)[i] = flows.hops.takes_ps[at];
      if (links[at] >= 0)
        times.free_ps(hop)[i] = wave_.links[static_cast<size_t>(links[at])].free_ps;
    }
  }
  if (!times.fits(steps, most_ps)) {
    doubt(Doubt::kRange, one.rank);
    return;
  }
  std::vector<int64_t> entered(hops * count);
  // Who came before is served before; of who came in the same instant that is not known.
  const auto comes_last = [&] {
    for (size_t at = 0; at < links.size(); ++at)
      if (links[at] >= 0 && entered[at] <= wave_.links[static_cast<size_t>(links[at])].entered_ps)
        return false;
    return true;
  };
  times.begin(cost_ps(packets[0]));
  times.step(cost_ps(packets[1]), &entered);
  if (!comes_last()) {
    doubt(Doubt::kMeeting, one.rank);
    return;
  }
  for (int32_t k = 2, last; k < steps; k = last) {
    for (last = k; last < steps && cost_ps(packets[last]) == cost_ps(packets[k]);) ++last;
    times.steps(last - k, cost_ps(packets[k]), [this] { tick(now_ps_); });
  }
  if (steps > 1) times.step(cost_ps(packets[steps]), &entered);
  for (size_t at = 0; at < links.size(); ++at)
    if (links[at] >= 0)
      wave_.links[static_cast<size_t>(links[at])] = {entered[at],
                                                     times.free_ps(at / count)[at % count]};
  flows.messages += steps;
  transfers_ += static_cast<int64_t>(count) * steps;
  // As many as there would have been, where no message came before it was asked for.
  wave_.events += static_cast<int64_t>(count) * (steps + packet_events - 1);
  for (size_t i = 0; i < count; ++i) {
    const Stream& stream = streams_[gathering.members[i].stream];
    // One that is over before another has begun has not waited for it.
    if (times.done_ps()[i] < now_ps_) {
      doubt(Doubt::kOrder, stream.rank);
      return;
    }
    add(stream.rank, times.done_ps()[i] - now_ps_, {Then::kPhaseOver, 0, stream.self});
  }
}

// Streams enter a queue.  Where another event of the instant ends one there, the first to come starts
// at once, or the first by priority, as the order is.
void Engine::note_entry(int32_t rank, int32_t queue, int32_t priority) {
  WaveState::Instant& last = wave_.of_queue[static_cast<size_t>(queue)];
  if (last.now_ps != now_ps_) last = {};
  if (last.entered && last.event != events_) doubt(Doubt::kOrder, rank);
  if (last.left && ((last.started && priority > last.least_started) ||
                    (last.entered && priority != last.entered_priority)))
    doubt(Doubt::kOrder, rank);
  last.now_ps = now_ps_;
  last.event = events_;
  last.entered = true;
  last.entered_priority = priority;
}

void Engine::note_exit(int32_t rank, int32_t index) {
  WaveState::Instant& last = wave_.of_queue[static_cast<size_t>(index)];
  const std::vector<Queue::Waiting>& waiting = queues_[static_cast<size_t>(index)].waiting;
  if (last.now_ps != now_ps_) last = {};
  if (last.entered && last.event != events_)
    for (const Queue::Waiting& one : waiting)
      if (one.priority != last.entered_priority) doubt(Doubt::kOrder, rank);
  last.now_ps = now_ps_;
  last.left = true;
  if (waiting.empty()) return;
  const int32_t priority = waiting.front().priority;
  last.least_started = last.started ? std::min(last.least_started, priority) : priority;
  last.started = true;
}

// Two nodes of a rank are complete in one instant: others begin in their order.
void Engine::note_done(int32_t rank) {
  WaveState::Instant& last = wave_.of_rank[static_cast<size_t>(rank)];
  if (last.now_ps == now_ps_ && last.event != events_) doubt(Doubt::kOrder, rank);
  last.now_ps = now_ps_;
  last.event = events_;
}

}  // namespace engine
