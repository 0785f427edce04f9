// SPDX-License-Identifier: MIT
// The native engine's event queue against its definition: slots in the order of (time, place), one
// per rank and time.  Usage: events FIRST COUNT; each seed is a run of its own.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "astra_archive.hpp"
#include "event_queue.hpp"

using engine::Action;
using engine::EventQueue;
using engine::Then;

namespace {

// The definition.
class Plain {
 public:
  explicit Plain(int32_t) {}
  bool empty() const { return slots_.empty(); }
  int64_t first_time() const { return slots_.front().time_ps; }
  int64_t first_place() const { return slots_.front().place; }
  void push(int32_t rank, int64_t, int64_t time_ps, int64_t& place, Action action) {
    for (Slot& slot : slots_) {
      if (slot.rank != rank || slot.time_ps != time_ps) continue;
      slot.actions.push_back(action);
      return;
    }
    push_slot({time_ps, place++, rank, {action}});
  }
  void push_alone(int64_t time_ps, int64_t& place, Action action) {
    push_slot({time_ps, place++, -1, {action}});
  }
  template <class Host>
  void run_first(const Host& host) {
    const int64_t time_ps = first_time();
    while (!empty() && first_time() == time_ps && first_place() < host.limit()) {
      host.begin(slots_.front().rank, first_place(), slots_.front().actions.front());
      for (size_t i = 0; i < slots_.front().actions.size(); ++i)
        host.run(slots_.front().actions[i]);
      slots_.erase(slots_.begin());
    }
  }
  void keep() {}

 private:
  struct Slot {
    int64_t time_ps, place;
    int32_t rank;
    std::vector<Action> actions;
  };
  void push_slot(Slot made) {
    auto at = slots_.begin();
    while (at != slots_.end() &&
           std::pair(at->time_ps, at->place) < std::pair(made.time_ps, made.place))
      ++at;
    slots_.insert(at, std::move(made));
  }
  std::vector<Slot> slots_;
};

// The queue, copied and written to bytes now and then.
class Kept : public EventQueue {
 public:
  explicit Kept(int32_t ranks) : EventQueue(ranks), ranks_(ranks) {}
  void keep() {
    astra::Writer writer;
    Kept copy(*this);
    copy.visit(writer);
    const std::string bytes = writer.sealed(1);
    astra::Reader reader(bytes.data(), bytes.size(), 1);
    *this = Kept(ranks_);
    visit(reader);
    reader.finish();
  }

 private:
  int32_t ranks_;
};

template <class Queue>
class Run {
 public:
  explicit Run(unsigned seed)
      : random_(seed), ranks_(1 + static_cast<int32_t>(any(6))), queue_(ranks_) {
    const int64_t delays = any(2) == 0 ? 1 + any(4) : 2 + any(60);
    for (int64_t i = 0; i < delays; ++i) delays_.push_back(any(4) == 0 ? 0 : any(40) * any(40));
  }

  // What happened, in order.
  std::vector<std::string> log() {
    for (int round = 0; round < 150; ++round) {
      place_ += any(4);
      for (int64_t i = any(4); i > 0; --i) push();
      if (any(10) == 0) queue_.keep();
      if (queue_.empty()) continue;
      if (any(3) == 0) {  // something happens before, elsewhere
        now_ps_ += any(queue_.first_time() - now_ps_ + 1);
        if (now_ps_ < queue_.first_time()) continue;
      }
      now_ps_ = queue_.first_time();
      limit_ = any(2) == 0 ? INT64_MAX : queue_.first_place() + 1 + any(6);
      queue_.run_first(Host{*this});
    }
    return std::move(log_);
  }

 private:
  struct Host {
    Run& run_;
    bool fetches = true;
    void begin(int32_t rank, int64_t place, const Action&) const {
      run_.say("slot of " + std::to_string(rank) + ", place " + std::to_string(place));
    }
    void run(Action action) const {
      // Packets that come one after the other may be one action.
      const bool packets = action.then == Then::kBusCrossed;
      for (int32_t i = packets ? action.a : 1; i > 0; --i) {
        run_.say(std::to_string(static_cast<int>(action.then)) + " " + std::to_string(action.b));
        if (run_.any(2) == 0) run_.push();
        if (run_.any(5) == 0) run_.push();
      }
    }
    int64_t limit() const { return run_.limit_; }
    void fetch(Action) const {}
    void fetch_more(Action) const {}
  };

  int64_t any(int64_t below) {
    return static_cast<int64_t>(random_() % static_cast<uint64_t>(below));
  }
  void say(const std::string& what) { log_.push_back(std::to_string(now_ps_) + ": " + what); }
  void push() {
    const int64_t delay_ps =
        delays_[static_cast<size_t>(any(static_cast<int64_t>(delays_.size())))];
    const Action action{any(2) == 0 ? Then::kBusCrossed : Then::kBusReduced, 1,
                        static_cast<int32_t>(any(3))};
    if (any(8) == 0)
      queue_.push_alone(now_ps_, place_, action);
    else
      queue_.push(static_cast<int32_t>(any(ranks_)), delay_ps, now_ps_ + delay_ps, place_, action);
  }

  std::mt19937 random_;
  int32_t ranks_;
  Queue queue_;
  std::vector<int64_t> delays_;
  std::vector<std::string> log_;
  int64_t now_ps_ = 0, place_ = 0, limit_ = INT64_MAX;
};

}  // namespace

int main(int, char** arguments) {
  const auto first = static_cast<unsigned>(std::atoi(arguments[1]));
  const auto count = static_cast<unsigned>(std::atoi(arguments[2]));
  size_t events = 0;
  for (unsigned seed = first; seed < first + count; ++seed) {
    const std::vector<std::string> found = Run<Kept>(seed).log(), expected = Run<Plain>(seed).log();
    events += found.size();
    if (found == expected) continue;
    size_t i = 0;
    while (i < std::min(found.size(), expected.size()) && found[i] == expected[i]) ++i;
    std::printf("seed %u, line %zu: '%s' instead of '%s'\n", seed, i,
                i < found.size() ? found[i].c_str() : "",
                i < expected.size() ? expected[i].c_str() : "");
    return 1;
  }
  std::printf("%zu\n", events);
  return 0;
}
