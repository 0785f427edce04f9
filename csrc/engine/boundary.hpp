// SPDX-License-Identifier: MIT
//
// Nobody's word is taken: what the native engine checks of every answer of a backend; the twin of
// astra_bridge/network/boundary.py, which explains the checks and has their words.
#ifndef ASTRA_ENGINE_BOUNDARY_HPP
#define ASTRA_ENGINE_BOUNDARY_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>

#include "astra_net.h"

namespace engine {

constexpr int64_t kMostPlace = (int64_t{1} << 62) - 1;
constexpr int64_t kMostDrawn = int64_t{1} << 40;
constexpr int64_t kMostIdleInterrupts = 10'000;

// An answer that cannot be true.  `name` is a key of LIES in boundary.py.
struct Lie : std::exception {
  Lie(const char* call_name, const char* check, int64_t field, int64_t limit, int64_t record)
      : call(call_name), name(check), value(field), bound(limit), item(record) {}
  const char* what() const noexcept override { return name; }
  const char *call, *name;
  int64_t value, bound, item;
};

[[noreturn, gnu::noinline, gnu::cold]] inline void lie(const char* call, const char* name,
                                                       int64_t value, int64_t bound = 0,
                                                       int64_t item = -1) {
  throw Lie(call, name, value, bound, item);
}

class Boundary {
 public:
  explicit Boundary(const astra_net_info& info)
      : grid_(info.resolution_ps),
        sends_((info.capabilities & ASTRA_NET_CAP_SENT) != 0),
        interrupts_((info.capabilities & ASTRA_NET_CAP_INTERRUPT) != 0) {}

  static size_t submitted(size_t accepted, size_t submitted, int64_t in_flight) {
    if (accepted > submitted)
      lie("submit", "accepted", static_cast<int64_t>(accepted), static_cast<int64_t>(submitted));
    if (accepted == 0 && submitted > 0 && in_flight == 0)
      lie("submit", "accepted-none", 0, static_cast<int64_t>(submitted));
    return accepted;
  }

  int64_t interrupted(bool moved, int64_t before) const {
    if (!interrupts_) lie("advance", "interrupt", ASTRA_NET_INTERRUPTED);
    const int64_t count = moved ? 0 : before + 1;
    if (count > kMostIdleInterrupts)
      lie("advance", "interrupt-again", ASTRA_NET_INTERRUPTED, kMostIdleInterrupts);
    return count;
  }

  static void stop(const char* call, uint32_t stop) {
    if (stop - 1 > ASTRA_NET_STOP_IDLE - 1) lie(call, "stop", stop);
  }

  static void now(const char* call, int64_t now_ps, int64_t before_ps, int64_t until_ps) {
    if (now_ps < before_ps) lie(call, "now-back", now_ps, before_ps);
    if (now_ps > until_ps) lie(call, "now-beyond", now_ps, until_ps);
    if (now_ps == ASTRA_NET_TIME_NEVER) lie(call, "now-never", now_ps, now_ps);
  }

  static void stopped(const char* call, uint32_t stop, int64_t now_ps, int64_t until_ps,
                      size_t count, int64_t in_flight) {
    if ((stop == ASTRA_NET_STOP_COMPLETION) != (count > 0))
      lie(call, "stop-completion", stop, static_cast<int64_t>(count));
    if (stop == ASTRA_NET_STOP_REACHED && now_ps != until_ps)
      lie(call, "stop-reached", stop, until_ps);
    if (stop == ASTRA_NET_STOP_IDLE) {
      if (until_ps != ASTRA_NET_TIME_NEVER) lie(call, "stop-until", stop, until_ps);
      if (in_flight > 0) lie(call, "stop-idle", stop, in_flight);
    }
  }

  int64_t most_records(int64_t in_flight) const {
    return sends_ ? 2 * in_flight - sent_ : in_flight;
  }

  // What an exchange was given, and may not change, or only so far.
  struct Asked {
    const astra_net_completion* completions;
    size_t capacity;
    int64_t now_ps, until_ps, until_place, place;
  };

  // `x` as it came back; `in_flight` counts what it has started.
  static void exchanged(const astra_net_exchange& x, const Asked& given, int64_t in_flight) {
    const char* call = "exchange";
    if (x.completions != given.completions)
      lie(call, "completions", pointer(x.completions), pointer(given.completions));
    if (x.capacity != given.capacity)
      lie(call, "capacity", static_cast<int64_t>(x.capacity), static_cast<int64_t>(given.capacity));
    if (x.completion_count > given.capacity)
      lie(call, "count", static_cast<int64_t>(x.completion_count),
          static_cast<int64_t>(given.capacity));
    stop(call, x.stop);
    now(call, x.now_ps, given.now_ps, given.until_ps);
    if (x.place < given.place) lie(call, "place-back", x.place, given.place);
    const int64_t most = std::min(given.place + kMostDrawn, kMostPlace);
    if (x.place > most) lie(call, "place-jump", x.place, most);
    if (x.next_ps < x.now_ps) lie(call, "next-back", x.next_ps, x.now_ps);
    stopped(call, x.stop, x.now_ps, given.until_ps, x.completion_count, in_flight);
    if (x.stop == ASTRA_NET_STOP_COMPLETION) return;
    if (x.next_ps < given.until_ps) lie(call, "next-ps", x.next_ps, given.until_ps);
    if (x.next_ps == ASTRA_NET_TIME_NEVER) {
      if (in_flight > 0) lie(call, "next-none", x.next_ps, in_flight);
    } else if (x.next_ps == given.until_ps && x.next_place < given.until_place) {
      lie(call, "next-place", x.next_place, given.until_place);
    }
  }

  // Records of one call, at `now_ps`.
  void start_records(int64_t before_ps, int64_t now_ps) {
    last_ps_ = before_ps;
    on_grid_ = grid_ == 1 || now_ps % grid_ == 0;
  }

  // Is this the plain record of a delivery at `now_ps`, of a transfer that is in flight?  Nearly
  // all are, and cost this one look; else record() says what is wrong, if anything is.
  bool plain(const astra_net_completion& record, int64_t now_ps) const {
    return record.time_ps == now_ps && record.kind == ASTRA_NET_DELIVERED && record.outcome == 0 &&
           record.reserved == 0 && on_grid_;
  }

  // `in_flight`: its transfer is; `sent`: SENT has been reported of it.
  [[gnu::noinline]] void record(const char* call, int64_t item, const astra_net_completion& record,
                                int64_t now_ps, bool in_flight, bool sent) {
    if (!in_flight) lie(call, "id", record.id, 0, item);
    if (record.kind == ASTRA_NET_SENT) {
      if (!sends_) lie(call, "sent", record.kind, 0, item);
      if (sent) lie(call, "sent-again", record.kind, 0, item);
    } else if (record.kind != ASTRA_NET_DELIVERED) {
      lie(call, "kind", record.kind, 0, item);
    }
    if (record.kind == ASTRA_NET_DELIVERED && record.time_ps != now_ps)
      lie(call, "time", record.time_ps, now_ps, item);
    if (record.time_ps < last_ps_) lie(call, "time-order", record.time_ps, last_ps_, item);
    if (record.time_ps > now_ps) lie(call, "time-late", record.time_ps, now_ps, item);
    if (record.time_ps % grid_ != 0) lie(call, "time-grid", record.time_ps, grid_, item);
    if ((record.outcome != 0 && record.outcome != ASTRA_NET_MODEL) ||
        (record.outcome != 0 && record.kind == ASTRA_NET_SENT))
      lie(call, "outcome", record.outcome, 0, item);
    if (record.reserved != 0) lie(call, "reserved", record.reserved, 0, item);
    last_ps_ = record.time_ps;
  }

  template <class A>
  void visit(A& archive) {
    archive(sent_, last_ps_);
  }

  void count_sent(int64_t more) { sent_ += more; }

 private:
  static int64_t pointer(const void* address) {
    return static_cast<int64_t>(reinterpret_cast<intptr_t>(address));
  }

  int64_t grid_;
  bool sends_, interrupts_;
  int64_t sent_ = 0;     // transfers in flight of which SENT has been reported
  int64_t last_ps_ = 0;  // of the records of this call
  bool on_grid_ = false;
};

}  // namespace engine

#endif  // ASTRA_ENGINE_BOUNDARY_HPP
