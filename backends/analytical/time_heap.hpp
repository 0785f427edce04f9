// SPDX-License-Identifier: MIT
//
// TimeHeap: the distinct times that have events, earliest first.  Four children per entry: half
// the levels of a binary heap, and the children of one entry share a cache line.
#ifndef ASTRA_ANALYTICAL_TIME_HEAP_HPP
#define ASTRA_ANALYTICAL_TIME_HEAP_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace analytical {

class TimeHeap {
 public:
  struct Entry {
    int64_t time_ps;
    int32_t bucket;
  };

  bool empty() const { return entries_.empty(); }
  const Entry& first() const { return entries_.front(); }

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

}  // namespace analytical

#endif  // ASTRA_ANALYTICAL_TIME_HEAP_HPP
