// SPDX-License-Identifier: MIT
//
// The engine's events in the order of (time, place), in two levels as in ASTRA-sim: all events of
// one rank at one time form a slot, whose place is drawn when its first event is registered, and
// which runs as one, including what is registered for it while it runs.
//
// Slots stand in a calendar; places ascend, so they are appended and never sorted.  Finding a rank's
// slot looks at up to three that it keeps at hand, then into a hash: the cost does not grow with the
// number of pending times.
#ifndef ASTRA_ENGINE_EVENT_QUEUE_HPP
#define ASTRA_ENGINE_EVENT_QUEUE_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "astra_calendar.hpp"
#include "astra_flat_map.hpp"

namespace engine {

// What happens next, somewhere in the engine: a kind and two numbers, so that it can be copied and
// written to a file.
enum class Then : int32_t {
  kNothing,
  kNodeDone,  // a: task, b: node
  kArrived,  // b: stream; a message of its collective is complete
  kGraphDone,  // a: node, b: graph run
  kRendezvous,  // b: what waited for the control message
  kBusCrossed,  // b: stream, a: how many packets have crossed the bus and are processed
  kBusReduced,  // b: stream, a: index of the packet; it now pays its reduction
  kServed,  // a: memory server
  kSharedBus,  // a: side and event, b: rank
};

struct Action {
  Then then = Then::kNothing;
  int32_t a = 0, b = 0;
};

using IndexMap = astra::FlatMap<int64_t>;

class EventQueue {
 public:
  explicit EventQueue(int32_t ranks) : ranks_(static_cast<size_t>(ranks)) {}

  bool empty() const { return slots_.empty(); }
  int64_t first_time() const { return slots_.first_time(); }
  int64_t first_place() const {
    const auto& bucket = slots_.first();
    return bucket.events[bucket.taken].place;
  }

  // Register an action of a rank.  `place` is drawn where a new slot is needed.
  [[gnu::always_inline]] void push(int32_t rank, int64_t time_ps, int64_t& place,
                                   const Action& action) {
    RankSlots& mine = ranks_[static_cast<size_t>(rank)];
    for (int32_t i = 0; i < mine.count; ++i) {
      if (mine.time_ps[i] == time_ps) {
        append(mine.bucket[i], mine.slot[i], action);
        return;
      }
    }
    if (mine.spilled && append_spilled(mine, time_ps, action)) return;
    const int32_t bucket = bucket_at(time_ps);
    const int32_t slot = add_slot(bucket, place++, action, rank);
    if (mine.count < kInline) {
      mine.time_ps[mine.count] = time_ps;
      mine.bucket[mine.count] = bucket;
      mine.slot[mine.count++] = slot;
    } else {
      spill(mine, time_ps, bucket, slot);
    }
  }

  // An action that stands alone, at its own place.
  void push_alone(int64_t time_ps, int64_t& place, Action action) {
    add_slot(bucket_at(time_ps), place++, action, -1);
  }

  // The next push for this rank is near.  Inlined, as all that does nothing but fetch: GCC takes
  // such a function for one without effects, and leaves out the calls of it.
  [[gnu::always_inline]] void fetch(int32_t rank) const {
    __builtin_prefetch(&ranks_[static_cast<size_t>(rank)], 1);
  }

  // Run slots of the first time, as long as they stand before place `host.limit()`: call
  // `host.begin` with rank, place and first action of each, `host.run` for each of their actions, including those that are registered meanwhile, and, if
  // `host.fetches`, `host.fetch` and then `host.fetch_more` for some of those that are near.
  template <class Host>
  void run_first(const Host& host) {
    const int64_t time_ps = slots_.first_time();
    const int32_t index = slots_.first_index();
    for (;;) {
      // What runs may register anything, so nothing is kept across it but indices.
      auto* bucket = &slots_[index];
      const size_t taken = bucket->taken;
      const Slot* slot = &bucket->events[taken];
      if (slot->place >= host.limit()) return;
      if (host.fetches && taken + 2 * kAhead < bucket->events.size()) {
        host.fetch(slot[2 * kAhead].action);
        host.fetch_more(slot[kAhead].action);
        if (slot[kAhead].rank >= 0) fetch(slot[kAhead].rank);
      }
      const int32_t rank = slot->rank;
      host.begin(rank, slot->place, slot->action);
      host.run(slot->action);
      for (int32_t more = slots_[index].events[taken].more; more >= 0;) {
        host.run(more_[static_cast<size_t>(more)].action);
        const int32_t done = more;
        more = more_[static_cast<size_t>(done)].next;
        more_[static_cast<size_t>(done)].next = free_more_;
        free_more_ = done;
      }
      if (rank >= 0) forget(rank, time_ps);
      bucket = &slots_[index];
      if (++bucket->taken == bucket->events.size()) break;
    }
    slots_.drop_first();
  }

  // A slot of the first time is half done, or none is: state that a file can hold is between calls
  // of run_first, where the indices follow from the slots themselves.
  template <class A>
  void visit(A& archive) {
    std::vector<Saved> all;
    std::vector<Action> actions;
    if (!A::kReads) saved(all, actions);
    archive(all, actions);
    if (A::kReads) restore(all, actions);
  }

 private:
  struct Slot {
    int64_t place;
    Action action;
    int32_t rank;  // -1: stands alone
    int32_t more;  // the next action and the last one, in more_, or -1
    int32_t last;
  };
  struct More {
    Action action;
    int32_t next;  // in its slot, or in the list of free ones
  };
  static constexpr int kInline = 3;  // makes RankSlots one cache line
  // A map that is there only for ranks with many pending times.
  class Spilled {
   public:
    Spilled() = default;
    Spilled(Spilled&&) noexcept = default;
    Spilled& operator=(Spilled&&) noexcept = default;
    Spilled(const Spilled& other)
        : map_(other.map_ ? std::make_unique<IndexMap>(*other.map_) : nullptr) {}
    Spilled& operator=(const Spilled& other) { return *this = Spilled(other); }
    ~Spilled() = default;
    explicit operator bool() const { return map_ != nullptr; }
    IndexMap* operator->() { return map_.get(); }
    void make() { map_ = std::make_unique<IndexMap>(); }

   private:
    std::unique_ptr<IndexMap> map_;
  };
  struct alignas(64) RankSlots {
    int64_t time_ps[kInline];
    int32_t bucket[kInline];
    int32_t slot[kInline];
    int32_t count = 0;
    Spilled spilled;
  };
  // A slot as it is written: its actions are the next `count` of all.
  struct Saved {
    int64_t time_ps, place;
    int32_t rank, count;
  };

  void saved(std::vector<Saved>& all, std::vector<Action>& actions) const {
    slots_.each([&](int64_t time_ps, const Slot& slot) {
      const size_t before = actions.size();
      actions.push_back(slot.action);
      for (int32_t more = slot.more; more >= 0; more = more_[static_cast<size_t>(more)].next)
        actions.push_back(more_[static_cast<size_t>(more)].action);
      all.push_back(
          {time_ps, slot.place, slot.rank, static_cast<int32_t>(actions.size() - before)});
    });
  }

  void restore(const std::vector<Saved>& all, const std::vector<Action>& actions) {
    *this = EventQueue(static_cast<int32_t>(ranks_.size()));
    size_t next = 0;
    for (const Saved& slot : all) {
      int64_t place = slot.place;
      for (int32_t i = 0; i < slot.count; ++i) {
        const Action& action = actions.at(next++);
        if (slot.rank < 0)
          push_alone(slot.time_ps, place, action);
        else
          push(slot.rank, slot.time_ps, place, action);
      }
    }
  }

  [[gnu::always_inline]] int32_t add_slot(int32_t index, int64_t place, const Action& action,
                                          int32_t rank) {
    auto& bucket = slots_[index];
    Slot& slot = slots_.add(bucket);
    slot.place = place;
    slot.action = action;
    slot.rank = rank;
    slot.more = slot.last = -1;
    return static_cast<int32_t>(bucket.events.size()) - 1;
  }

  [[gnu::noinline]] static void spill(RankSlots& mine, int64_t time_ps, int32_t bucket,
                                      int32_t slot) {
    if (!mine.spilled) mine.spilled.make();
    mine.spilled->insert(time_ps, (static_cast<int64_t>(bucket) << 32) | slot);
  }
  [[gnu::noinline]] bool append_spilled(RankSlots& mine, int64_t time_ps, const Action& action) {
    const int64_t where = mine.spilled->find(time_ps);
    if (where < 0) return false;
    append(static_cast<int32_t>(where >> 32), static_cast<int32_t>(where), action);
    return true;
  }

  // Packets of one stream that come one after the other are one action.
  static bool joins(Action& last, const Action& action) {
    if (action.then != Then::kBusCrossed || last.then != action.then || last.b != action.b)
      return false;
    last.a += action.a;
    return true;
  }

  [[gnu::noinline]] void append(int32_t index, int32_t slot_index, const Action& action) {
    Slot& slot = slots_[index].events[static_cast<size_t>(slot_index)];
    // The last action of a slot that runs may have run.
    if (index != slots_.first_index() &&
        joins(slot.last < 0 ? slot.action : more_[static_cast<size_t>(slot.last)].action, action))
      return;
    int32_t added = free_more_;
    if (added >= 0) {
      free_more_ = more_[static_cast<size_t>(added)].next;
    } else {
      added = static_cast<int32_t>(more_.size());
      more_.emplace_back();
    }
    More& more = more_[static_cast<size_t>(added)];
    more.action = action;
    more.next = -1;
    (slot.last < 0 ? slot.more : more_[static_cast<size_t>(slot.last)].next) = added;
    slot.last = added;
  }

  // Most events go where one of the last few went.
  [[gnu::always_inline]] int32_t bucket_at(int64_t time_ps) {
    const size_t guess = (static_cast<uint64_t>(time_ps) * 0x9E3779B97F4A7C15u) >> 61;
    return slots_.at(time_ps, recent_[guess]);
  }

  void forget(int32_t rank, int64_t time_ps) {
    RankSlots& mine = ranks_[static_cast<size_t>(rank)];
    for (int32_t i = 0; i < mine.count; ++i) {
      if (mine.time_ps[i] != time_ps) continue;
      const int32_t last = --mine.count;
      mine.time_ps[i] = mine.time_ps[last];
      mine.bucket[i] = mine.bucket[last];
      mine.slot[i] = mine.slot[last];
      return;
    }
    mine.spilled->erase(time_ps);
  }

  static constexpr size_t kAhead = 4;  // slots: see run_first
  astra::Calendar<Slot> slots_;
  int32_t recent_[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
  std::vector<More> more_;
  int32_t free_more_ = -1;
  std::vector<RankSlots> ranks_;
};

}  // namespace engine

#endif  // ASTRA_ENGINE_EVENT_QUEUE_HPP
