// SPDX-License-Identifier: MIT
//
// Calendar: what happens later, by time, for the engine and for backends whose events stay at the
// time they were given.
//
// Thousands of transfers that start together also end together.  So the events of one time stand
// in one flat bucket; a hash finds the bucket, and a heap orders the distinct times only.  Cost per
// event: constant where times are shared, the logarithm of the number of distinct times where they
// are not.  The order inside a bucket is the caller's.
#ifndef ASTRA_CALENDAR_HPP
#define ASTRA_CALENDAR_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "astra_flat_map.hpp"

namespace astra {

// Distinct times, earliest first.  Four children per entry: half the levels of a binary heap, and
// the children of one entry share a cache line.
class TimeHeap {
 public:
  struct Entry {
    int64_t time_ps;
    int32_t bucket;
  };

  bool empty() const { return entries_.empty(); }
  const Entry& first() const { return entries_.front(); }
  const std::vector<Entry>& entries() const { return entries_; }  // in no order

  void push(Entry entry) {
    entries_.push_back(entry);
    size_t hole = entries_.size() - 1;
    while (hole > 0 && entries_[(hole - 1) / 4].time_ps > entry.time_ps) {
      entries_[hole] = entries_[(hole - 1) / 4];
      hole = (hole - 1) / 4;
    }
    entries_[hole] = entry;
  }

  void pop() {
    const Entry last = entries_.back();
    entries_.pop_back();
    const size_t size = entries_.size();
    if (size == 0) return;
    size_t hole = 0;
    for (;;) {
      const size_t child = 4 * hole + 1;
      if (child >= size) break;
      size_t least = child;
      if (child + 4 <= size) {
        // Written so that it compiles to conditional moves: which child is least is a coin toss.
        const size_t a = entries_[child + 1].time_ps < entries_[child].time_ps ? child + 1 : child;
        const size_t b =
            entries_[child + 3].time_ps < entries_[child + 2].time_ps ? child + 3 : child + 2;
        least = entries_[b].time_ps < entries_[a].time_ps ? b : a;
      } else {
        for (size_t i = child + 1; i < size; ++i)
          if (entries_[i].time_ps < entries_[least].time_ps) least = i;
      }
      if (entries_[least].time_ps >= last.time_ps) break;
      entries_[hole] = entries_[least];
      hole = least;
    }
    entries_[hole] = last;
  }

 private:
  std::vector<Entry> entries_;
};

template <class Event>
class Calendar {
 public:
  struct Bucket {
    int64_t time_ps = kFree;
    size_t taken = 0;  // events at the front that have happened
    std::vector<Event> events;
  };

  bool empty() const { return times_.empty(); }

  // The bucket of a time.  `recent` is where the caller was last, which is mostly right.
  [[gnu::always_inline]] int32_t at(int64_t time_ps, int32_t& recent) {
    if (recent < 0 || buckets_[static_cast<size_t>(recent)].time_ps != time_ps)
      recent = find(time_ps);
    return recent;
  }
  Bucket& operator[](int32_t index) { return buckets_[static_cast<size_t>(index)]; }

  // A new last event of a bucket.  Fill it field by field, in place: a record that is built
  // elsewhere in pieces and copied whole makes the processor wait for the pieces.
  [[gnu::always_inline]] Event& add(Bucket& bucket) {
    ++pending_;
    bucket.events.emplace_back();
    return bucket.events.back();
  }

  // The rest needs a calendar that is not empty.
  int64_t first_time() const { return times_.first().time_ps; }
  int32_t first_index() const { return times_.first().bucket; }
  Bucket& first() { return buckets_[static_cast<size_t>(first_index())]; }
  const Bucket& first() const { return buckets_[static_cast<size_t>(first_index())]; }

  // Forget first_time(), all of whose events have been taken.
  void drop_first() {
    const auto [time_ps, index] = times_.first();
    times_.pop();
    of_time_.erase(time_ps);
    Bucket& bucket = buckets_[static_cast<size_t>(index)];
    most_ = std::max(most_, pending_);
    pending_ -= bucket.events.size();
    bucket.time_ps = kFree;
    bucket.taken = 0;
    bucket.events.clear();
    // Keep the memory for the next bucket, but never more than what was once in use.
    const size_t room = bucket.events.capacity();
    if (spare_ + room > most_ + kSmall)
      std::vector<Event>().swap(bucket.events);
    else
      spare_ += room;
    free_.push_back(index);
  }

  // f(time_ps, event) for all that has not been taken, in order.
  template <class F>
  void each(F&& f) const {
    auto times = times_.entries();
    std::sort(times.begin(), times.end(),
              [](const auto& a, const auto& b) { return a.time_ps < b.time_ps; });
    for (const auto& [time_ps, index] : times) {
      const Bucket& bucket = buckets_[static_cast<size_t>(index)];
      for (size_t i = bucket.taken; i < bucket.events.size(); ++i) f(time_ps, bucket.events[i]);
    }
  }

 private:
  static constexpr size_t kSmall = 1024;
  static constexpr int64_t kFree = -1;  // no event has this time

  [[gnu::noinline]] int32_t find(int64_t time_ps) {
    const int32_t found = of_time_.find(time_ps);
    return found >= 0 ? found : open(time_ps);
  }
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

  std::vector<Bucket> buckets_;
  std::vector<int32_t> free_;
  TimeHeap times_;
  FlatMap<int32_t> of_time_;
  size_t pending_ = 0, most_ = 0;  // events now, and at most so far
  size_t spare_ = 0;  // room in free buckets
};

}  // namespace astra

#endif  // ASTRA_CALENDAR_HPP
