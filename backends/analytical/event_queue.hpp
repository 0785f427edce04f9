// SPDX-License-Identifier: MIT
//
// The event queue: events in the order of (time, place).  Places are drawn from one ascending
// counter, so an event nearly always comes behind all others of its time.
#ifndef ASTRA_ANALYTICAL_EVENT_QUEUE_HPP
#define ASTRA_ANALYTICAL_EVENT_QUEUE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "astra_calendar.hpp"

namespace analytical {

// As wide as its neighbours in Event: see astra::Calendar::add.
enum class EventKind : uint64_t {
  kDeliver,  // subject: id of a transfer; schedules nothing and changes nothing
  kForward,  // subject: a message that reached a node on its way, and its link
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
  [[gnu::always_inline]] void push(EventKind kind, int64_t time_ps, int64_t place,
                                   int64_t subject) {
    // Each kind of event mostly goes where the last one of its kind went.
    auto& bucket = events_[events_.at(time_ps, recent_[static_cast<size_t>(kind)])];
    Event& event = events_.add(bucket);
    event.place = place;
    event.subject = subject;
    event.kind = kind;
    if (bucket.events.size() > bucket.taken + 1 && place < (&event - 1)->place) sort_last(bucket);
  }

  // A half-run instant has lost the events that it has run.
  template <class A>
  void visit(A& archive) {
    std::vector<Saved> all;
    if (!A::kReads)
      events_.each([&](int64_t time_ps, const Event& event) { all.push_back({time_ps, event}); });
    archive(all);
    if (!A::kReads) return;
    *this = EventQueue();
    for (const auto& [time_ps, event] : all) push(event.kind, time_ps, event.place, event.subject);
  }

  bool empty() const { return events_.empty(); }
  // The rest needs a queue that is not empty.
  int64_t first_time() const { return events_.first_time(); }

  // The events of first_time() that have not been taken: [begin, end); valid until a push.
  std::pair<const Event*, const Event*> first() const {
    const auto& bucket = events_.first();
    const Event* base = bucket.events.data();
    return {base + bucket.taken, base + bucket.events.size()};
  }

  // Take the first `count` of them.  An instant stays first until drop_first().
  void take(size_t count) { events_.first().taken += count; }

  // Forget first_time(), all of whose events have been taken.
  void drop_first() { events_.drop_first(); }

 private:
  using Calendar = astra::Calendar<Event>;
  struct Saved {
    int64_t time_ps;
    Event event;
  };

  // Only for a change of a link, and a host that drew places long ago and starts the transfer now.
  [[gnu::noinline]] static void sort_last(Calendar::Bucket& bucket) {
    const auto begin = bucket.events.begin() + static_cast<std::ptrdiff_t>(bucket.taken);
    const auto last = bucket.events.end() - 1;
    const auto to = std::upper_bound(
        begin, last, *last, [](const Event& a, const Event& b) { return a.place < b.place; });
    std::rotate(to, last, bucket.events.end());
  }

  Calendar events_;
  int32_t recent_[kEventKinds] = {-1, -1, -1, -1};  // where the last push went, per kind
};

}  // namespace analytical

#endif  // ASTRA_ANALYTICAL_EVENT_QUEUE_HPP
