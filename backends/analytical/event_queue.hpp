// SPDX-License-Identifier: MIT
//
// The event queue: events in the order of (time, place).
//
// Thousands of transfers that start together also end together, and places are drawn from one
// ascending counter.  So events of equal time go into one flat bucket, nearly always by appending;
// a hash finds the bucket, and a heap orders the distinct times only.  Cost per event: constant
// when times are shared, the logarithm of the number of distinct times when they are not.
#ifndef ASTRA_ANALYTICAL_EVENT_QUEUE_HPP
#define ASTRA_ANALYTICAL_EVENT_QUEUE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "astra_flat_map.hpp"
#include "time_heap.hpp"

namespace analytical {

// As wide as its neighbours in Event: a record that is written in pieces and read whole makes the
// processor wait, which took as long as the rest of a transfer.
enum class EventKind : uint64_t {
  kDeliver,  // subject: id of a transfer; schedules nothing and changes nothing
  kForward,  // subject: a message that reached a node on its way
  kRelease,  // subject: a link that becomes free
  kChange,   // subject: a change of a link
};
constexpr size_t kEventKinds = 4;

struct Event {
  int64_t place;
  int64_t subject;
  EventKind kind;
};

class EventQueue {
 public:
  template <EventKind kind>
  [[gnu::always_inline]] void push(int64_t time_ps, int64_t place, int64_t subject) {
    // Each kind of event mostly goes where the last one of its kind went.
    int32_t& recent = recent_[static_cast<size_t>(kind)];
    if (recent < 0 || buckets_[static_cast<size_t>(recent)].time_ps != time_ps) {
      recent = of_time_.find(time_ps);
      if (recent < 0) recent = open(time_ps);
    }
    Bucket& bucket = buckets_[static_cast<size_t>(recent)];
    if (place < bucket.last_place) bucket.ascending = false;
    bucket.last_place = place;
    bucket.events.push_back({place, subject, kind});
    ++pending_;
  }

  // Buckets and the rest follow from the events; a half-run instant has lost those it has run.
  template <class A>
  void visit(A& archive) {
    std::vector<Saved> all;
    if (!A::kReads) saved(all);
    archive(all);
    if (!A::kReads) return;
    *this = EventQueue();
    for (const Saved& one : all) restore(one);
  }

  // Unchanged as long as nothing is pushed or dropped.
  size_t pending() const { return pending_; }
  bool empty() const { return times_.empty(); }
  // The rest needs a queue that is not empty.
  int64_t first_time() const { return times_.first().time_ps; }

  // The events of first_time() that have not been taken: [begin, end); valid until a push.
  std::pair<const Event*, const Event*> first() {
    Bucket& bucket = buckets_[static_cast<size_t>(times_.first().bucket)];
    if (!bucket.ascending) sort(bucket);
    const Event* base = bucket.events.data();
    return {base + bucket.taken, base + bucket.events.size()};
  }

  // Take the first `count` of them.  An instant stays first until drop_first().
  void take(size_t count) { buckets_[static_cast<size_t>(times_.first().bucket)].taken += count; }

  // Forget first_time(), all of whose events have been taken.
  void drop_first() {
    const auto [time_ps, index] = times_.first();
    times_.pop();
    of_time_.erase(time_ps);
    Bucket& bucket = buckets_[static_cast<size_t>(index)];
    most_ = std::max(most_, pending_);
    pending_ -= bucket.events.size();
    bucket.time_ps = kFree;
    bucket.events.clear();
    bucket.taken = 0;
    bucket.last_place = INT64_MIN;
    bucket.ascending = true;
    // Keep the memory for the next bucket, but never more than what was once in use.
    const size_t room = bucket.events.capacity();
    if (spare_ + room > most_ + kSmall)
      std::vector<Event>().swap(bucket.events);
    else
      spare_ += room;
    free_.push_back(index);
  }

 private:
  struct Bucket {
    int64_t time_ps = kFree;
    int64_t last_place = INT64_MIN;
    std::vector<Event> events;
    size_t taken = 0;
    bool ascending = true;
  };
  struct Saved {
    int64_t time_ps;
    Event event;
  };

  void saved(std::vector<Saved>& all) {
    for (Bucket& bucket : buckets_) {
      if (bucket.time_ps == kFree) continue;
      if (!bucket.ascending) sort(bucket);
      for (size_t i = bucket.taken; i < bucket.events.size(); ++i)
        all.push_back({bucket.time_ps, bucket.events[i]});
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Saved& a, const Saved& b) { return a.time_ps < b.time_ps; });
  }

  void restore(const Saved& one) {
    const auto [place, subject, kind] = one.event;
    switch (kind) {
      case EventKind::kDeliver:
        push<EventKind::kDeliver>(one.time_ps, place, subject);
        break;
      case EventKind::kForward:
        push<EventKind::kForward>(one.time_ps, place, subject);
        break;
      case EventKind::kRelease:
        push<EventKind::kRelease>(one.time_ps, place, subject);
        break;
      case EventKind::kChange:
        push<EventKind::kChange>(one.time_ps, place, subject);
        break;
    }
  }

  static constexpr size_t kSmall = 1024;
  static constexpr int64_t kFree = -1;  // no event has this time

  int32_t open(int64_t time_ps) {
    if (free_.empty()) {
      free_.push_back(static_cast<int32_t>(buckets_.size()));
      buckets_.emplace_back();
    }
    const int32_t index = free_.back();
    free_.pop_back();
    Bucket& bucket = buckets_[static_cast<size_t>(index)];
    bucket.time_ps = time_ps;
    spare_ -= bucket.events.capacity();
    times_.push({time_ps, index});
    of_time_.insert(time_ps, index);
    return index;
  }

  // Only for a host that drew places long ago and starts the transfer now.
  static void sort(Bucket& bucket) {
    std::sort(bucket.events.begin() + static_cast<std::ptrdiff_t>(bucket.taken),
              bucket.events.end(),
              [](const Event& a, const Event& b) { return a.place < b.place; });
    bucket.ascending = true;
  }

  std::vector<Bucket> buckets_;
  std::vector<int32_t> free_;
  TimeHeap times_;
  astra::FlatMap<int32_t> of_time_;
  int32_t recent_[kEventKinds] = {-1, -1, -1, -1};  // bucket of the last push, per kind
  size_t pending_ = 0, most_ = 0;  // events now, and at most so far
  size_t spare_ = 0;               // room in free buckets
};

}  // namespace analytical

#endif  // ASTRA_ANALYTICAL_EVENT_QUEUE_HPP
