// SPDX-License-Identifier: MIT
//
// The engine's events in the order of (time, place), in two levels as in ASTRA-sim: all events of
// one rank at one time form a slot, whose place is drawn when its first event is registered, and
// which runs as one, including what is registered for it while it runs.
//
// Distinct times stand in a heap; slots of equal time stand in one flat bucket.  Places ascend, so
// slots are appended and never sorted.  Finding a rank's slot looks at up to three that it keeps at
// hand, then into a hash: the cost does not grow with the number of pending times.
#ifndef ASTRA_ENGINE_EVENT_QUEUE_HPP
#define ASTRA_ENGINE_EVENT_QUEUE_HPP

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

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
  kBusCrossed,  // b: stream; a packet has crossed the bus and is processed
  kBusReduced,  // b: stream, a: index of the packet; it now pays its reduction
  kServed,  // a: memory server
  kSharedBus,  // a: side and event, b: rank
};

struct Action {
  Then then = Then::kNothing;
  int32_t a = 0;
  int64_t b = 0;
};

using IndexMap = astra::FlatMap<int64_t>;

class EventQueue {
 public:
  struct Slot {
    int64_t place;
    Action action;
    int32_t rank;  // -1: stands alone
    int32_t more;  // the next action and the last one, in Bucket::more, or -1
    int32_t last;
  };

  explicit EventQueue(int32_t ranks) : ranks_(static_cast<size_t>(ranks)) {}

  bool empty() const { return times_.empty(); }
  int64_t first_time() const { return times_.front().first; }
  int64_t first_place() const {
    const Bucket& bucket = buckets_[static_cast<size_t>(times_.front().second)];
    return bucket.slots[bucket.taken].place;
  }

  // Register an action of a rank.  `place` is drawn where a new slot is needed.
  void push(int32_t rank, int64_t time_ps, int64_t& place, Action action) {
    RankSlots& mine = ranks_[static_cast<size_t>(rank)];
    for (int32_t i = 0; i < mine.count; ++i) {
      if (mine.time_ps[i] == time_ps) {
        append(mine.bucket[i], mine.slot[i], action);
        return;
      }
    }
    if (mine.spilled) {
      const int64_t where = mine.spilled->find(time_ps);
      if (where >= 0) {
        append(static_cast<int32_t>(where >> 32), static_cast<int32_t>(where), action);
        return;
      }
    }
    const int32_t bucket = bucket_at(time_ps);
    std::vector<Slot>& slots = buckets_[static_cast<size_t>(bucket)].slots;
    const int32_t slot = static_cast<int32_t>(slots.size());
    add_slot(slots, place++, action, rank);
    if (mine.count < kInline) {
      mine.time_ps[mine.count] = time_ps;
      mine.bucket[mine.count] = bucket;
      mine.slot[mine.count++] = slot;
    } else {
      if (!mine.spilled) mine.spilled.make();
      mine.spilled->insert(time_ps, (static_cast<int64_t>(bucket) << 32) | slot);
    }
  }

  // An action that stands alone, at its own place.
  void push_alone(int64_t time_ps, int64_t& place, Action action) {
    add_slot(buckets_[static_cast<size_t>(bucket_at(time_ps))].slots, place++, action, -1);
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

  // Run slots of the first time, as long as they stand before place `limit()`: call `run` for each
  // of their actions, including those that are registered meanwhile.
  template <class Run, class Limit>
  void run_first(Run&& run, Limit&& limit) {
    const int64_t time_ps = times_.front().first;
    const size_t index = static_cast<size_t>(times_.front().second);
    for (;;) {
      // What runs may register anything, so nothing is kept across it but indices.
      Bucket* bucket = &buckets_[index];
      const Slot* slot = &bucket->slots[bucket->taken];
      if (slot->place >= limit()) return;
      const int32_t rank = slot->rank;
      run(slot->action);
      bucket = &buckets_[index];
      for (int32_t more = bucket->slots[bucket->taken].more; more >= 0;) {
        run(bucket->more[static_cast<size_t>(more)].action);
        bucket = &buckets_[index];
        more = bucket->more[static_cast<size_t>(more)].next;
      }
      if (rank >= 0) forget(rank, time_ps);
      if (++bucket->taken == bucket->slots.size()) break;
    }
    drop_first();
  }

 private:
  static constexpr int kInline = 3;  // makes RankSlots one cache line
  struct More {
    Action action;
    int32_t next;
  };
  struct Bucket {
    int64_t time_ps = -1;
    size_t taken = 0;
    std::vector<Slot> slots;
    std::vector<More> more;
  };
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
  using Time = std::pair<int64_t, int32_t>;
  struct Later {
    bool operator()(const Time& a, const Time& b) const { return a.first > b.first; }
  };

  // A slot as it is written: its actions are the next `count` of all.
  struct Saved {
    int64_t time_ps, place;
    int32_t rank, count;
  };

  void saved(std::vector<Saved>& all, std::vector<Action>& actions) const {
    std::vector<Time> times = times_;
    std::sort(times.begin(), times.end());
    for (const auto& [time_ps, index] : times) {
      const Bucket& bucket = buckets_[static_cast<size_t>(index)];
      for (size_t i = bucket.taken; i < bucket.slots.size(); ++i) {
        const Slot& slot = bucket.slots[i];
        const size_t before = actions.size();
        actions.push_back(slot.action);
        for (int32_t more = slot.more; more >= 0;
             more = bucket.more[static_cast<size_t>(more)].next)
          actions.push_back(bucket.more[static_cast<size_t>(more)].action);
        all.push_back(
            {time_ps, slot.place, slot.rank, static_cast<int32_t>(actions.size() - before)});
      }
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
          push(slot.rank, slot.time_ps, place, action);
      }
    }
  }

  // Field by field, in place: see Engine::send_on.
  static void add_slot(std::vector<Slot>& slots, int64_t place, Action action, int32_t rank) {
    slots.emplace_back();
    Slot& slot = slots.back();
    slot.place = place;
    slot.action.then = action.then;
    slot.action.a = action.a;
    slot.action.b = action.b;
    slot.rank = rank;
    slot.more = slot.last = -1;
  }

  void append(int32_t index, int32_t slot_index, Action action) {
    Bucket& bucket = buckets_[static_cast<size_t>(index)];
    Slot& slot = bucket.slots[static_cast<size_t>(slot_index)];
    const int32_t added = static_cast<int32_t>(bucket.more.size());
    bucket.more.push_back({action, -1});
    (slot.last < 0 ? slot.more : bucket.more[static_cast<size_t>(slot.last)].next) = added;
    slot.last = added;
  }

  int32_t bucket_at(int64_t time_ps) {
    // Most events go where one of the last few went.
    const size_t guess = (static_cast<uint64_t>(time_ps) * 0x9E3779B97F4A7C15u) >> 61;
    int32_t& recent = recent_[guess];
    if (recent >= 0 && buckets_[static_cast<size_t>(recent)].time_ps == time_ps) return recent;
    const int64_t found = of_time_.find(time_ps);
    recent = found >= 0 ? static_cast<int32_t>(found) : open(time_ps);
    return recent;
  }

  int32_t open(int64_t time_ps) {
    if (free_.empty()) {
      free_.push_back(static_cast<int32_t>(buckets_.size()));
      buckets_.emplace_back();
    }
    const int32_t index = free_.back();
    free_.pop_back();
    buckets_[static_cast<size_t>(index)].time_ps = time_ps;
    times_.emplace_back(time_ps, index);
    std::push_heap(times_.begin(), times_.end(), Later());
    of_time_.insert(time_ps, index);
    return index;
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

  void drop_first() {
    const auto [time_ps, index] = times_.front();
    std::pop_heap(times_.begin(), times_.end(), Later());
    times_.pop_back();
    of_time_.erase(time_ps);
    Bucket& bucket = buckets_[static_cast<size_t>(index)];
    bucket.time_ps = -1;
    bucket.taken = 0;
    // Keep room for the next bucket, but do not let many once-large buckets hold memory.
    if (bucket.slots.capacity() > kKeep && free_.size() > 8) {
      std::vector<Slot>().swap(bucket.slots);
      std::vector<More>().swap(bucket.more);
    } else {
      bucket.slots.clear();
      bucket.more.clear();
    }
    free_.push_back(index);
  }

  static constexpr size_t kKeep = 256;
  std::vector<Bucket> buckets_;
  std::vector<int32_t> free_;
  std::vector<Time> times_;
  IndexMap of_time_;
  int32_t recent_[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
  std::vector<RankSlots> ranks_;
};

}  // namespace engine

#endif  // ASTRA_ENGINE_EVENT_QUEUE_HPP
