// SPDX-License-Identifier: MIT
//
// What happens next, in the order of (time, place).  Ends of flows are put off and brought forward
// again and again: each flow has one, and a tournament finds the first.  Timers stay at the time that
// they were given; most of them are due a few different delays after now, and so come in order.
#ifndef ASTRA_FLOW_EVENTS_HPP
#define ASTRA_FLOW_EVENTS_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

namespace flow {

struct When {
  int64_t time_ps = std::numeric_limits<int64_t>::max(), place = 0;

  bool operator<(const When& other) const {
    return time_ps != other.time_ps ? time_ps < other.time_ps : place < other.place;
  }
};

// The first of many whose times change: in a tree, each node has the earlier one of its two
// children's.  A change goes up only as far as it decides who is first.
class Soonest {
 public:
  // Any index from 0 on; all of them are at "never" at first.
  void set(int32_t index, const When& when) {
    const auto at = static_cast<size_t>(index);
    if (at >= keys_.size()) grow(at);
    Key key = keys_[at] = key_of(when);
    int32_t first = index;
    for (size_t node = keys_.size() + at; node > 1; node /= 2) {
      const int32_t other = first_[node ^ 1];
      const Key key_of_other = keys_[static_cast<size_t>(other)];
      const bool later = key_of_other < key;
      first = later ? other : first;
      key = later ? key_of_other : key;
      int32_t& known = first_[node / 2];
      if (known == first && first != index) return;
      known = first;
    }
  }
  When first() const { return when_of(keys_[static_cast<size_t>(first_[1])]); }
  int32_t first_index() const { return first_[1]; }

  template <class A>
  void visit(A& archive) {
    std::vector<When> all(keys_.size());
    std::transform(keys_.begin(), keys_.end(), all.begin(), when_of);
    archive(all);
    if (!A::kReads) return;
    keys_.resize(all.size());
    std::transform(all.begin(), all.end(), keys_.begin(), key_of);
    build();
  }

 private:
  // Time and place as one number: which of two is first is a coin toss, and this needs no branch.
  __extension__ using Key = unsigned __int128;
  static constexpr uint64_t kSign = uint64_t{1} << 63;
  static When when_of(Key key) {
    return {static_cast<int64_t>(key >> 64),
            static_cast<int64_t>(static_cast<uint64_t>(key) ^ kSign)};
  }
  static Key key_of(const When& when) {
    return static_cast<Key>(when.time_ps) << 64 | (static_cast<uint64_t>(when.place) ^ kSign);
  }
  void grow(size_t index) {
    size_t size = keys_.size();
    while (size <= index) size *= 2;
    keys_.resize(size, key_of({}));
    build();
  }
  void build() {
    const size_t size = keys_.size();
    first_.assign(2 * size, 0);
    for (size_t i = 0; i < size; ++i) first_[size + i] = static_cast<int32_t>(i);
    for (size_t node = size - 1; node > 0; --node) {
      const int32_t a = first_[2 * node], b = first_[2 * node + 1];
      first_[node] = keys_[static_cast<size_t>(b)] < keys_[static_cast<size_t>(a)] ? b : a;
    }
  }

  std::vector<Key> keys_ = std::vector<Key>(2, key_of({}));  // a power of two
  std::vector<int32_t> first_ = {0, 0, 0, 1};  // of each node: 1 is the root; the leaves come last
};

struct Timer {
  When when;
  int32_t kind, subject;
  bool operator>(const Timer& other) const { return other.when < when; }
};

// Timers, in queues that are in order; a heap has those that come before the ends of all queues.
class Timers {
 public:
  bool empty() const { return first_ < 0; }
  // The rest needs one.
  const When& first() const { return heads_[static_cast<size_t>(first_)]; }
  Timer take() {
    const auto number = static_cast<size_t>(first_);
    if (number == kQueues) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      const Timer timer = heap_.back();
      heap_.pop_back();
      heads_[kQueues] = heap_.empty() ? When() : heap_[0].when;
      choose();
      return timer;
    }
    Queue& queue = queues_[number];
    const Timer timer = queue.timers[queue.taken++];
    if (queue.taken == queue.timers.size()) {
      queue.timers.clear();
      queue.taken = 0;
      heads_[number] = When();
      while (used_ > 0 && queues_[used_ - 1].timers.empty()) --used_;
    } else {
      heads_[number] = queue.timers[queue.taken].when;
      if (queue.taken >= kMostTaken && 2 * queue.taken >= queue.timers.size()) queue.forget();
    }
    choose();
    return timer;
  }
  void push(const Timer& timer) {
    for (size_t number = 0; number < kQueues; ++number) {
      Queue& queue = queues_[number];
      const bool none = queue.timers.empty();
      if (!none && timer.when < queue.timers.back().when) continue;
      queue.timers.push_back(timer);
      used_ = std::max(used_, number + 1);
      if (none) heads_[number] = timer.when;
      return found(number, timer.when);
    }
    heap_.push_back(timer);
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
    heads_[kQueues] = heap_[0].when;
    found(kQueues, timer.when);
  }

  template <class A>
  void visit(A& archive) {
    for (size_t number = 0; number < kQueues; ++number) {
      Queue& queue = queues_[number];
      queue.forget();
      archive(queue.timers);
      heads_[number] = queue.timers.empty() ? When() : queue.timers[0].when;
    }
    archive(heap_);
    heads_[kQueues] = heap_.empty() ? When() : heap_[0].when;
    used_ = kQueues;
    choose();
  }

 private:
  static constexpr size_t kQueues = 12;
  static constexpr size_t kMostTaken = 512;  // of a queue, before they are moved out of it
  struct Queue {
    std::vector<Timer> timers;
    size_t taken = 0;
    void forget() {
      timers.erase(timers.begin(), timers.begin() + static_cast<std::ptrdiff_t>(taken));
      taken = 0;
    }
  };

  void found(size_t number, const When& when) {
    if (first_ < 0 || when < first()) first_ = static_cast<int32_t>(number);
  }
  void choose() {
    size_t first = kQueues;
    for (size_t number = 0; number < used_; ++number)
      if (heads_[number] < heads_[first]) first = number;
    first_ = heads_[first].time_ps == When().time_ps ? -1 : static_cast<int32_t>(first);
  }

  std::array<Queue, kQueues> queues_;
  std::vector<Timer> heap_;
  std::array<When, kQueues + 1> heads_;  // the first of each queue, and of the heap
  size_t used_ = 0;  // queues
  int32_t first_ = -1;  // which has the first timer
};

}  // namespace flow

#endif  // ASTRA_FLOW_EVENTS_HPP
