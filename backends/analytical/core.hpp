// SPDX-License-Identifier: MIT
//
// What both analytical models share: one event queue, and the two ways in which the contract
// drives it.  A model (Derived) has
//   void begin(const astra_net_transfer&, int64_t now_ps);  // start it at the present
//   void handle(EventKind, int64_t subject, int64_t now_ps);  // any event but kDeliver
//   bool is_large();  // more waits than stays in the nearest caches,
//   void fetch(const Event&, bool near);  // and this is handled soon
//   void settle(astra_net_exchange&);  // complete the records of an exchange
//   void visit(A& archive);  // all that changes
// and the first two call schedule().  Times are in ps on the grid of whole ns, as in ASTRA-sim.
#ifndef ASTRA_ANALYTICAL_CORE_HPP
#define ASTRA_ANALYTICAL_CORE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "astra_net.hpp"
#include "event_queue.hpp"

namespace analytical {

constexpr int64_t kPsPerNs = 1000;

[[noreturn, gnu::noinline, gnu::cold]] inline void refuse_time(const std::string& quantity) {
  throw astra_net::Error(ASTRA_NET_MODEL, quantity + " is beyond the range of time (2^63 ps)");
}
[[noreturn, gnu::noinline, gnu::cold]] inline void refuse_delay(const char* quantity,
                                                                double delay_ns) {
  char number[32];
  std::snprintf(number, sizeof number, "%.6g", delay_ns);
  refuse_time(std::string(quantity) + ", " + number + " ns,");
}
[[noreturn, gnu::noinline, gnu::cold]] inline void refuse_sum(int64_t now_ps, int64_t delay_ns) {
  refuse_time("the time " + std::to_string(now_ps) + " ps + " + std::to_string(delay_ns) + " ns");
}

// The part of a delay that counts: ASTRA-sim cuts it off to whole ns.  `quantity` says what the
// delay is, where it is too long.
inline int64_t whole_ns(double delay_ns, const char* quantity) {
  if (!(delay_ns < 9.2e15)) refuse_delay(quantity, delay_ns);
  return static_cast<int64_t>(delay_ns);
}
constexpr const char* kSerialisation = "bytes / bandwidth";
constexpr const char* kArrival = "latency + bytes / bandwidth";
constexpr const char* kLatency = "latency";

// When a delay from whole_ns() is over.
inline int64_t later(int64_t now_ps, int64_t delay_ns) {
  int64_t time_ps;
  if (__builtin_add_overflow(now_ps, delay_ns * kPsPerNs, &time_ps) || time_ps == astra_net::kNever)
    refuse_sum(now_ps, delay_ns);
  return time_ps;
}

// A host may act between two grid points: the model then begins at the next one.
inline int64_t on_grid(int64_t now_ps) {
  const int64_t off_grid = now_ps % kPsPerNs;
  if (off_grid == 0) return now_ps;
  if (now_ps > astra_net::kNever - kPsPerNs)
    refuse_time("the time " + std::to_string(now_ps) + " ps, rounded up to whole ns,");
  return now_ps + kPsPerNs - off_grid;
}

template <class Derived>
class Core : public astra_net::Model {
 public:
  void start(const astra_net_transfer& transfer) final {
    self().begin(transfer, transfer.start_ps);
  }

  astra_net::Reached run(int64_t until_ps) final {
    while (!queue_.empty() && queue_.first_time() <= until_ps && !interrupted()) {
      now_ps_ = queue_.first_time();
      for (;;) {
        const auto [begin, end] = queue_.first();
        if (begin == end) break;
        const Event event = *begin;
        queue_.take(1);
        if (event.kind == EventKind::kDeliver)
          deliver(event.subject, now_ps_);
        else
          self().handle(event.kind, event.subject, now_ps_);
      }
      queue_.drop_first();
      if (delivered_something()) return {now_ps_, queue_.empty()};
    }
    if (until_ps != astra_net::kNever && !interrupted()) now_ps_ = until_ps;
    return {now_ps_, queue_.empty()};
  }

  void exchange(astra_net_exchange& x) final {
    astra_net::check_place(x);
    catch_up(x.now_ps);
    const int64_t begin_ps = x.start_count == 0 ? 0 : on_grid(x.now_ps);
    for (size_t i = 0; i < x.start_count; ++i) {
      place_ = x.starts[i].id;
      self().begin(x.starts[i], begin_ps);
    }
    place_ = x.place;
    x.completion_count = 0;
    x.stop = 0;
    while (x.stop == 0) {
      if (queue_.empty() || queue_.first_time() > x.until_ps ||
          (x.completion_count > 0 && queue_.first_time() > x.now_ps))
        break;
      run_instant(x);
    }
    if (x.completion_count > 0) {
      self().settle(x);
      x.stop = ASTRA_NET_STOP_COMPLETION;
    } else if (queue_.empty() && x.until_ps == astra_net::kNever) {
      x.stop = ASTRA_NET_STOP_IDLE;
    } else {
      x.stop = ASTRA_NET_STOP_REACHED;
      x.now_ps = x.until_ps;
    }
    now_ps_ = x.now_ps;
    x.place = place_;
    x.next_ps = queue_.empty() ? astra_net::kNever : queue_.first_time();
    x.next_place = queue_.empty() ? 0 : queue_.first().first->place;
  }

  int64_t next_event_ps() final { return queue_.empty() ? astra_net::kNever : queue_.first_time(); }

  std::unique_ptr<astra_net::Model> copy() const final {
    return std::make_unique<Derived>(static_cast<const Derived&>(*this));
  }
  void save(astra::Writer& archive) final { visit_all(archive); }
  void load(astra::Reader& archive) final { visit_all(archive); }

 protected:
  // An event `delay_ns` from now, at the next place.
  [[gnu::always_inline]] void schedule(EventKind kind, int64_t now_ps, int64_t delay_ns,
                                       int64_t subject) {
    queue_.push(kind, later(now_ps, delay_ns), place_++, subject);
  }

  // The same, at the present place: one of several that the same transfer decides.
  void schedule_alike(EventKind kind, int64_t now_ps, int64_t delay_ns, int64_t subject) {
    queue_.push(kind, later(now_ps, delay_ns), place_, subject);
  }

  EventQueue queue_;
  int64_t now_ps_ = 0;

 private:
  static constexpr std::ptrdiff_t kAhead = 8;  // events

  Derived& self() { return static_cast<Derived&>(*this); }
  template <class A>
  void visit_all(A& archive) {
    archive(queue_, now_ps_, place_);
    self().visit(archive);
  }

  // A host that does not know of changes of links may come back after them.
  void catch_up(int64_t now_ps) {
    while (!queue_.empty() && queue_.first_time() < now_ps) {
      const int64_t time_ps = queue_.first_time();
      for (;;) {
        const auto [begin, end] = queue_.first();
        if (begin == end) break;
        const Event event = *begin;
        if (event.kind != EventKind::kChange)
          throw astra_net::Error(ASTRA_NET_INVALID, "now_ps=" + std::to_string(now_ps) +
                                                        " is past the next event, at " +
                                                        std::to_string(time_ps));
        queue_.take(1);
        self().handle(event.kind, event.subject, time_ps);
      }
      queue_.drop_first();
    }
  }

  // The events of the first instant, up to (until_ps, until_place).  After a delivery only further
  // deliveries may follow: anything else could be seen by what the host starts in answer, and in
  // ASTRA-sim the host answers first.  A stop before the end of the instant sets x.stop.
  void run_instant(astra_net_exchange& x) {
    const int64_t time_ps = queue_.first_time();
    const bool limited = time_ps == x.until_ps, fetches = self().is_large();
    auto [event, end] = queue_.first();
    const Event* begin = event;
    for (; event != end; x.now_ps = time_ps) {
      if (limited && event->place >= x.until_place) break;
      if (event->kind == EventKind::kDeliver) {
        if (x.completion_count == x.capacity) break;
        x.completions[x.completion_count++] = {event->subject, time_ps, ASTRA_NET_DELIVERED, 0, 0};
        ++event;
        continue;
      }
      if (x.completion_count > 0) break;
      if (fetches && end - event > 2 * kAhead) {
        self().fetch(event[2 * kAhead], false);
        self().fetch(event[kAhead], true);
      }
      // Taken first: what it schedules may belong to this instant.
      const auto [place, subject, kind] = *event++;
      queue_.take(static_cast<size_t>(event - begin));
      self().handle(kind, subject, time_ps);
      std::tie(event, end) = queue_.first();
      begin = event;
    }
    queue_.take(static_cast<size_t>(event - begin));
    if (event != end) {
      x.stop = ASTRA_NET_STOP_REACHED;
      return;
    }
    queue_.drop_first();
  }

  int64_t place_ = 0;
};

}  // namespace analytical

#endif  // ASTRA_ANALYTICAL_CORE_HPP
