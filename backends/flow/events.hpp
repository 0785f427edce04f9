// SPDX-License-Identifier: MIT
//
// What happens next, in the order of (time, place).  Ends of flows are put off and brought forward
// again and again: each flow has one, and a heap finds the first.  Timers stay at the time that they
// were given, or are cancelled; most of them are due a few different delays after now, and so come in
// order.
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

  bool never() const { return time_ps == When().time_ps; }
  bool operator==(const When& other) const {
    return time_ps == other.time_ps && place == other.place;
  }
  // Which of two is first is a coin toss, and taken without a branch; equal times are rare.
  bool operator<(const When& other) const {
    bool less = time_ps < other.time_ps;
    if (__builtin_expect(time_ps == other.time_ps, 0)) less = place < other.place;
    return less;
  }
};

// The first of many whose times change, in a heap.  A time that is put off is only noted: the heap
// learns of it when it would be the first, and mostly it has changed again by then.
class Soonest {
 public:
  // Any index from 0 on; all of them are at "never" at first.
  void set(int32_t index, const When& when) {
    const auto of = static_cast<size_t>(index);
    if (of >= due_.size()) {
      due_.resize(2 * of + 1);
      at_.resize(2 * of + 1, -1);
    }
    due_[of] = when;
    if (at_[of] < 0) {
      if (when.never()) return;
      at_[of] = static_cast<int32_t>(heap_.size());
      heap_.push_back({when, index});
    } else if (!(when < heap_[static_cast<size_t>(at_[of])].when)) {
      return;
    }
    rise(static_cast<size_t>(at_[of]), {when, index});
  }
  // When the first is due, or "never".
  When first() {
    while (!heap_.empty()) {
      const When& due = due_[static_cast<size_t>(heap_[0].index)];
      if (due == heap_[0].when) return due;
      put_off();
    }
    return When();
  }
  // Of which index first() was.
  int32_t first_index() const { return heap_[0].index; }

  template <class A>
  void visit(A& archive) {
    archive(due_);
    if (!A::kReads) return;
    at_.assign(due_.size(), -1);
    heap_.clear();
    for (size_t i = 0; i < due_.size(); ++i) set(static_cast<int32_t>(i), due_[i]);
  }

 private:
  struct Entry {
    When when;
    int32_t index;
  };
  void put(size_t hole, const Entry& entry) {
    heap_[hole] = entry;
    at_[static_cast<size_t>(entry.index)] = static_cast<int32_t>(hole);
  }
  // The heap learns when its first one is due.
  void put_off() {
    const int32_t index = heap_[0].index;
    const When due = due_[static_cast<size_t>(index)];
    if (!due.never()) return sink({due, index});
    at_[static_cast<size_t>(index)] = -1;
    const Entry last = heap_.back();
    heap_.pop_back();
    if (!heap_.empty()) sink(last);
  }
  void rise(size_t hole, const Entry& entry) {
    for (size_t above; hole > 0 && entry.when < heap_[above = (hole - 1) / 4].when; hole = above)
      put(hole, heap_[above]);
    put(hole, entry);
  }
  void sink(const Entry& entry) {
    const size_t size = heap_.size();
    const Entry* all = heap_.data();
    size_t hole = 0;
    for (size_t child; (child = 4 * hole + 1) < size;) {
      size_t least = child;
      if (child + 4 <= size) {
        const size_t a = all[child + 1].when < all[child].when ? child + 1 : child;
        const size_t b = all[child + 3].when < all[child + 2].when ? child + 3 : child + 2;
        least = all[b].when < all[a].when ? b : a;
      } else {
        for (size_t i = child + 1; i < size; ++i)
          if (all[i].when < all[least].when) least = i;
      }
      if (!(all[least].when < entry.when)) break;
      put(hole, all[least]);
      hole = least;
    }
    put(hole, entry);
  }

  std::vector<When> due_;  // of each index
  std::vector<int32_t> at_;  // where it is in the heap, or -1
  std::vector<Entry> heap_;  // four children each; no times are later than due
};

struct Timer {
  When when;
  int32_t kind, subject;
  bool operator>(const Timer& other) const { return other.when < when; }
};

// Timers, in queues that are in order; a heap has those that come before the ends of all queues.
class Timers {
 public:
  bool empty() const { return first().never(); }
  // "Never", if there is none.
  const When& first() const { return heads_[first_]; }
  // The rest needs one.
  Timer take() {
    const Timer timer = take_first();
    if (!cancelled_.empty()) skip();
    return timer;
  }
  void push(const Timer& timer) {
    const When when = timer.when;
    size_t number = 0;
    while (number < kQueues && when < tails_[number]) ++number;
    if (number == kQueues) {
      heap_.push_back(timer);
      std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
      heads_[kQueues] = heap_[0].when;
    } else {
      Queue& queue = queues_[number];
      if (queue.timers.empty()) {
        heads_[number] = when;
        used_ = std::max(used_, number + 1);
      }
      queue.timers.push_back(timer);
      tails_[number] = when;
    }
    if (heads_[number] < first()) first_ = number;
  }
  // One of these, at that time and place, is not to be.
  void cancel(const When& when) {
    cancelled_.push_back(when);
    std::push_heap(cancelled_.begin(), cancelled_.end(), later);
    skip();
  }

  template <class A>
  void visit(A& archive) {
    for (size_t number = 0; number < kQueues; ++number) {
      Queue& queue = queues_[number];
      queue.forget();
      archive(queue.timers);
      heads_[number] = queue.timers.empty() ? When() : queue.timers[0].when;
      tails_[number] = queue.timers.empty() ? kNone : queue.timers.back().when;
    }
    archive(heap_, cancelled_);
    heads_[kQueues] = heap_.empty() ? When() : heap_[0].when;
    used_ = kQueues;
    choose();
  }

 private:
  static constexpr size_t kQueues = 12;
  static constexpr size_t kMostTaken = 512;  // of a queue, before they are moved out of it
  static constexpr When kNone{std::numeric_limits<int64_t>::min(), 0};  // before all
  struct Queue {
    std::vector<Timer> timers;
    size_t taken = 0;
    void forget() {
      timers.erase(timers.begin(), timers.begin() + static_cast<std::ptrdiff_t>(taken));
      taken = 0;
    }
  };

  Timer take_first() {
    const size_t number = first_;
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
      tails_[number] = kNone;
      while (used_ > 0 && heads_[used_ - 1].never()) --used_;
    } else {
      heads_[number] = queue.timers[queue.taken].when;
      if (queue.taken >= kMostTaken && 2 * queue.taken >= queue.timers.size()) queue.forget();
    }
    choose();
    return timer;
  }
  static bool later(const When& a, const When& b) { return b < a; }
  // Leaves out what is cancelled.
  void skip() {
    while (!cancelled_.empty() && first() == cancelled_[0]) {
      take_first();
      std::pop_heap(cancelled_.begin(), cancelled_.end(), later);
      cancelled_.pop_back();
    }
  }
  void choose() {
    size_t first = kQueues;
    for (size_t number = 0; number < used_; ++number)
      first = heads_[number] < heads_[first] ? number : first;
    first_ = first;
  }

  std::array<Queue, kQueues> queues_;
  std::vector<Timer> heap_;
  std::vector<When> cancelled_;  // a heap
  std::array<When, kQueues + 1> heads_;  // the first of each queue, and of the heap
  std::array<When, kQueues> tails_ = none();  // the last of each queue
  size_t used_ = 0;  // queues
  size_t first_ = kQueues;  // which has the first timer

  static std::array<When, kQueues> none() {
    std::array<When, kQueues> all;
    all.fill(kNone);
    return all;
  }
};

}  // namespace flow

#endif  // ASTRA_FLOW_EVENTS_HPP
