// SPDX-License-Identifier: MIT
//
// The engine's events in the order of (time, place), in two levels as in ASTRA-sim: all events of
// one rank at one time form a slot, whose place is drawn when its first event is registered, and
// which runs as one, including what is registered for it while it runs.
//
// What is registered with one delay after another has ascending times, and there are few delays: a
// bus, some reductions.  So slots stand in a few lanes, each in order, and the first is that of the
// first lane; where a time fits behind no lane, its slot stands in a calendar.  Places ascend, so
// nothing is sorted.  Finding a rank's slot looks at up to three that it keeps at hand, then into a
// hash: the cost does not grow with the number of pending times.
#ifndef ASTRA_ENGINE_EVENT_QUEUE_HPP
#define ASTRA_ENGINE_EVENT_QUEUE_HPP

#include <algorithm>
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
  kPhaseOver,  // b: stream, whose phase was a wavefront
};

struct Action {
  Then then = Then::kNothing;
  int32_t a = 0, b = 0;
};

using IndexMap = astra::FlatMap<int64_t>;

class EventQueue {
 public:
  explicit EventQueue(int32_t ranks) : ranks_(static_cast<size_t>(ranks)) {}

  bool empty() const { return count_ == 0; }
  // ASTRA_NET_TIME_NEVER where it is empty.
  int64_t first_time() const { return heads_[0].time_ps; }
  int64_t first_place() const { return heads_[0].place; }

  // Register an action of a rank, `delay_ps` before `time_ps`.  `place` is drawn where a new slot is
  // needed.
  [[gnu::always_inline]] void push(int32_t rank, int64_t delay_ps, int64_t time_ps, int64_t& place,
                                   const Action& action) {
    RankSlots& mine = ranks_[static_cast<size_t>(rank)];
    for (int32_t i = 0; i < mine.count; ++i) {
      if (mine.time_ps[i] == time_ps) {
        append(mine.home[i], mine.slot[i], time_ps, action);
        return;
      }
    }
    if (mine.spilled_count > 0 && append_spilled(mine, time_ps, action)) return;
    const auto [home, slot] = add_slot(delay_ps, time_ps, place++, action, rank);
    if (mine.count < kInline) {
      mine.time_ps[mine.count] = time_ps;
      mine.home[mine.count] = home;
      mine.slot[mine.count++] = slot;
    } else {
      spill(mine, time_ps, home, slot);
    }
  }

  // An action that stands alone, at its own place.
  void push_alone(int64_t time_ps, int64_t& place, const Action& action) {
    add_slot(0, time_ps, place++, action, -1);
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
    const int64_t time_ps = first_time();
    do {
      // What runs may register anything, so nothing is kept across it but indices; the slot that
      // runs stays the first one.
      const Slot& slot = first_slot();
      if (slot.place >= host.limit()) return;
      if (host.fetches) fetch_ahead(host);
      const int32_t rank = slot.rank;
      host.begin(rank, slot.place, slot.action);
      host.run(slot.action);
      for (int32_t more = first_slot().more; more >= 0;) {
        host.run(more_[static_cast<size_t>(more)].action);
        const int32_t done = more;
        more = more_[static_cast<size_t>(done)].next;
        more_[static_cast<size_t>(done)].next = free_more_;
        free_more_ = done;
      }
      if (rank >= 0) forget(rank, time_ps);
      drop_first();
    } while (first_time() == time_ps);
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
    int64_t time_ps, place;
    Action action;
    int32_t rank;  // -1: stands alone
    int32_t more;  // the next action and the last one, in more_, or -1
    int32_t last;
  };
  // Slots in ascending order, numbered as they come; a ring of a power of two.
  struct Lane {
    std::vector<Slot> slots = std::vector<Slot>(64);
    uint32_t mask = 63;  // slots.size() - 1, which takes a division
    uint32_t begin = 0, end = 0;
    int64_t last_ps = -1;  // of the last one
    bool empty() const { return begin == end; }
    Slot& operator[](uint32_t number) { return slots[number & mask]; }
    const Slot& operator[](uint32_t number) const { return slots[number & mask]; }
    bool full() const { return end - begin > mask; }
    [[gnu::noinline]] void grow() {
      std::vector<Slot> more(2 * slots.size());
      for (uint32_t i = begin; i != end; ++i) more[i & (2 * mask + 1)] = (*this)[i];
      more.swap(slots);
      mask = 2 * mask + 1;
    }
  };
  // The first slot of a lane, or of the calendar, which is the last of all homes.
  struct Head {
    int64_t time_ps = kNever, place = kNever;
    int32_t home = -1;
    bool operator<(const Head& other) const {
      return time_ps != other.time_ps ? time_ps < other.time_ps : place < other.place;
    }
  };
  struct More {
    Action action;
    int32_t next;  // in its slot, or in the list of free ones
  };
  static constexpr int64_t kNever = INT64_MAX;
  static constexpr int32_t kLanes = 8;
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
    int32_t home[kInline];  // a lane, or kLanes and more: a bucket of the calendar
    int32_t slot[kInline];  // its number there
    int32_t count = 0, spilled_count = 0;
    Spilled spilled;
  };
  // A slot as it is written: its actions are the next `count` of all.
  struct Saved {
    int64_t time_ps, place;
    int32_t rank, count;
  };

  void saved(std::vector<Saved>& all, std::vector<Action>& actions) const {
    std::vector<Slot> slots;
    for (const Lane& lane : lanes_)
      for (uint32_t i = lane.begin; i != lane.end; ++i) slots.push_back(lane[i]);
    calendar_.each([&](int64_t, const Slot& slot) { slots.push_back(slot); });
    std::sort(slots.begin(), slots.end(), [](const Slot& a, const Slot& b) {
      return Head{a.time_ps, a.place, 0} < Head{b.time_ps, b.place, 0};
    });
    for (const Slot& slot : slots) {
      const size_t before = actions.size();
      actions.push_back(slot.action);
      for (int32_t more = slot.more; more >= 0; more = more_[static_cast<size_t>(more)].next)
        actions.push_back(more_[static_cast<size_t>(more)].action);
      all.push_back(
          {slot.time_ps, slot.place, slot.rank, static_cast<int32_t>(actions.size() - before)});
    }
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
          push(slot.rank, 0, slot.time_ps, place, action);
      }
    }
  }

  struct Where {
    int32_t home, slot;
  };

  [[gnu::always_inline]] Where add_slot(int64_t delay_ps, int64_t time_ps, int64_t place,
                                        const Action& action, int32_t rank) {
    // Where that delay went last is mostly right.
    int32_t& guess = recent_[(static_cast<uint64_t>(delay_ps) * 0x9E3779B97F4A7C15u) >> 61];
    if (lanes_[guess].last_ps > time_ps) {
      const int32_t found = lane_for(time_ps);
      if (found < 0) return add_to_calendar(time_ps, place, action, rank);
      guess = found;
    }
    const int32_t home = guess;
    Lane& lane = lanes_[home];
    if (lane.full()) lane.grow();
    if (lane.empty()) begin_with({time_ps, place, home});
    lane.last_ps = time_ps;
    fill(lane[lane.end], time_ps, place, action, rank);
    return {home, static_cast<int32_t>(lane.end++)};
  }
  // Field by field, in place: a record that is built elsewhere in pieces and copied whole makes the
  // processor wait for the pieces.
  [[gnu::always_inline]] static void fill(Slot& slot, int64_t time_ps, int64_t place,
                                          const Action& action, int32_t rank) {
    slot.time_ps = time_ps;
    slot.place = place;
    slot.action = action;
    slot.rank = rank;
    slot.more = slot.last = -1;
  }
  // The lane that ends last, of those that end no later than this; or -1.
  [[gnu::noinline]] int32_t lane_for(int64_t time_ps) const {
    int32_t found = -1;
    for (int32_t i = 0; i < kLanes; ++i)
      if (lanes_[i].last_ps <= time_ps && (found < 0 || lanes_[i].last_ps > lanes_[found].last_ps))
        found = i;
    return found;
  }
  [[gnu::noinline]] Where add_to_calendar(int64_t time_ps, int64_t place, const Action& action,
                                          int32_t rank) {
    const int32_t index = calendar_.at(time_ps, bucket_);
    auto& bucket = calendar_[index];
    fill(calendar_.add(bucket), time_ps, place, action, rank);
    if (time_ps == calendar_.first_time() && bucket.events.size() == 1)
      begin_with({time_ps, place, kLanes});
    return {kLanes + index, static_cast<int32_t>(bucket.events.size()) - 1};
  }

  // A lane that was empty, or the calendar, begins with this now.
  [[gnu::noinline]] void begin_with(Head head) {
    int32_t i = 0;
    if (head.home < kLanes) {
      i = count_++;
      heads_[i + 1] = {};
    } else {
      while (i < count_ && heads_[i].home != kLanes) ++i;
      if (i == count_) heads_[++count_] = {};
    }
    for (; i > 0 && head < heads_[i - 1]; --i) heads_[i] = heads_[i - 1];
    heads_[i] = head;
  }
  const Slot& first_slot() const {
    const int32_t home = heads_[0].home;
    if (home < kLanes) return lanes_[home][lanes_[home].begin];
    const auto& bucket = calendar_.first();
    return bucket.events[bucket.taken];
  }
  Slot& slot_at(int32_t home, int32_t number) {
    return home < kLanes ? lanes_[home][static_cast<uint32_t>(number)]
                         : calendar_[home - kLanes].events[static_cast<size_t>(number)];
  }
  // The first slot is done: where its home has another one, that takes its place in the order.
  void drop_first() {
    const int32_t home = heads_[0].home;
    int64_t time_ps = kNever, place = kNever;
    if (home < kLanes) {
      Lane& lane = lanes_[home];
      ++lane.begin;
      if (lane.empty()) {
        lane.last_ps = -1;
      } else {
        const Slot& next = lane[lane.begin];
        time_ps = next.time_ps;
        place = next.place;
      }
    } else {
      auto& bucket = calendar_.first();
      if (++bucket.taken == bucket.events.size()) calendar_.drop_first();
      if (!calendar_.empty()) {
        time_ps = first_slot().time_ps;
        place = first_slot().place;
      }
    }
    int32_t i = 0;
    for (; heads_[i + 1].time_ps < time_ps ||
           (heads_[i + 1].time_ps == time_ps && heads_[i + 1].place < place);
         ++i)
      heads_[i] = heads_[i + 1];
    if (time_ps == kNever) {
      heads_[i] = {};
      --count_;
    } else {
      heads_[i].time_ps = time_ps;
      heads_[i].place = place;
      heads_[i].home = home;
    }
  }
  template <class Host>
  [[gnu::always_inline]] void fetch_ahead(const Host& host) const {
    if (heads_[0].home == kLanes) return;
    const Lane& lane = lanes_[heads_[0].home];
    if (lane.end - lane.begin <= 2 * kAhead) return;
    const Slot& near = lane[lane.begin + kAhead];
    host.fetch(lane[lane.begin + 2 * kAhead].action);
    host.fetch_more(near.action);
    if (near.rank >= 0) fetch(near.rank);
  }

  [[gnu::noinline]] static void spill(RankSlots& mine, int64_t time_ps, int32_t home,
                                      int32_t slot) {
    if (!mine.spilled) mine.spilled.make();
    ++mine.spilled_count;
    mine.spilled->insert(time_ps, (static_cast<int64_t>(home) << 32) | static_cast<uint32_t>(slot));
  }
  [[gnu::noinline]] bool append_spilled(RankSlots& mine, int64_t time_ps, const Action& action) {
    const int64_t where = mine.spilled->find(time_ps);
    if (where < 0) return false;
    append(static_cast<int32_t>(where >> 32), static_cast<int32_t>(where), time_ps, action);
    return true;
  }

  // Packets of one stream that come one after the other are one action.
  static bool joins(Action& last, const Action& action) {
    if (action.then != Then::kBusCrossed || last.then != action.then || last.b != action.b)
      return false;
    last.a += action.a;
    return true;
  }

  [[gnu::noinline]] void append(int32_t home, int32_t number, int64_t time_ps,
                                const Action& action) {
    Slot& slot = slot_at(home, number);
    // The last action of a slot that runs may have run.
    if (time_ps != first_time() &&
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

  void forget(int32_t rank, int64_t time_ps) {
    RankSlots& mine = ranks_[static_cast<size_t>(rank)];
    for (int32_t i = 0; i < mine.count; ++i) {
      if (mine.time_ps[i] != time_ps) continue;
      const int32_t last = --mine.count;
      mine.time_ps[i] = mine.time_ps[last];
      mine.home[i] = mine.home[last];
      mine.slot[i] = mine.slot[last];
      return;
    }
    mine.spilled->erase(time_ps);
    --mine.spilled_count;
  }

  static constexpr size_t kAhead = 4;  // slots: see run_first
  Lane lanes_[kLanes];
  astra::Calendar<Slot> calendar_;
  Head heads_[kLanes + 2];  // in order; behind the last one, one at no time
  int32_t count_ = 0;  // of them
  int32_t recent_[8] = {};  // lanes
  int32_t bucket_ = -1;  // of the calendar, the last one
  std::vector<More> more_;
  int32_t free_more_ = -1;
  std::vector<RankSlots> ranks_;
};

}  // namespace engine

#endif  // ASTRA_ENGINE_EVENT_QUEUE_HPP
