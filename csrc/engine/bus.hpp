// SPDX-License-Identifier: MIT
//
// The shared bus between NPU and memory, after LogGP; the twin of astra_bridge/engine/bus.py, which
// explains it.  All times here are ns.
#ifndef ASTRA_ENGINE_BUS_HPP
#define ASTRA_ENGINE_BUS_HPP

#include <cstdint>
#include <deque>

#include "pool.hpp"
#include "program.hpp"

namespace engine {

// A delay beyond the range of time, which the engine reports.
struct BusDelay {
  double ns;
};

// One NPU's bus: a transfer is a request on one of four sides.
class SharedBus {
 public:
  // The inner bus lies before and after the NPU's side of the outer one.
  enum Side : int32_t { kNpu, kMemory, kInnerNpu, kInnerMemory, kSides };
  enum Event : int32_t { kSent, kReceived, kReduced, kEvents };

  explicit SharedBus(const Machine& m)
      : loggp_{m.L_ns, m.o_ns, m.g_ns, m.G_ns_per_byte, m.reduction_ns} {}

  // Move data of one packet of a stream from NPU to memory, or back.  `host` is the engine:
  // now_ns(), bus_later(delay_ns, side, event) and packet_crossed(stream, packet).
  template <class Host>
  void move(Host& host, bool to_memory, int64_t bytes, bool reduced, bool send_back, int32_t stream,
            int32_t packet) {
    request(host, to_memory ? kNpu : kMemory,
            {bytes, reduced, send_back, Then::kCrossed, stream, packet});
  }

  template <class Host>
  void happen(Host& host, int32_t side, int32_t event) {
    switch (static_cast<Event>(event)) {
      case kSent:
        sent(host, side);
        break;
      case kReceived:
        received(host, side);
        break;
      default:
        finish_reduction(host, side);
    }
  }

  template <class A>
  void visit(A& archive) {
    for (Half& half : halves_) archive(half);
    archive(requests_);
  }

 private:
  // What goes on when a request is complete: on the outer side, its packet has crossed; on the
  // inner side, the outer side's request `item` goes on.
  enum class Then : int32_t { kCrossed, kQueueSend, kQueueReduction, kRetired };
  struct Request {
    int64_t bytes = 0;
    bool reduced = false, send_back = false;
    Then then = Then::kCrossed;
    int32_t item = 0;  // kCrossed: the stream, else the outer request
    int32_t packet = 0;
    template <class A>
    void visit(A& archive) {
      archive(bytes, reduced, send_back, then, item, packet);
    }
  };
  enum class State : int32_t { kFree, kSending, kReceiving };
  struct Half {
    State state = State::kFree, previous = State::kFree;
    int64_t last_transfer = 0;
    int32_t in_a_row = 0;
    bool reducing = false;
    std::deque<int32_t> sends, receives, reductions;
    template <class A>
    void visit(A& archive) {
      archive(state, previous, last_transfer, in_a_row, reducing, sends, receives, reductions);
    }
  };
  static constexpr int kInARow = 8;
  static constexpr int64_t kReductionSetupNs = 50;
  static constexpr double kInnerGNsPerByte = 0.0038;
  static constexpr double kMostNs = 9.2e15;  // 2^63 ps

  static int64_t whole(double delay_ns) {
    if (!(delay_ns < kMostNs)) throw BusDelay{delay_ns};
    return static_cast<int64_t>(delay_ns);
  }
  static int32_t partner(int32_t side) { return side ^ 1; }
  // Only the NPU's side of the outer bus has an inner one.
  static bool has_inner(int32_t side) { return side == kNpu; }
  Half& half(int32_t side) { return halves_[side]; }
  double gap_ns_per_byte(int32_t side) const {
    return side < kInnerNpu ? loggp_.G_ns_per_byte : kInnerGNsPerByte;
  }

  template <class Host>
  void request(Host& host, int32_t side, const Request& made) {
    const int32_t item = requests_.take();
    requests_[item] = made;
    if (has_inner(side)) {
      inner(host, kInnerMemory, item, false, Then::kQueueSend);
      return;
    }
    half(side).sends.push_back(item);
    if (half(side).state == State::kFree) try_send(host, side);
  }
  template <class Host>
  void inner(Host& host, int32_t side, int32_t item, bool send_back, Then then) {
    request(host, side, {requests_[item].bytes, false, send_back, then, item, 0});
  }
  template <class Host>
  void queue_send(Host& host, int32_t side, int32_t item) {
    half(side).sends.push_back(item);
    go_on(host, side);
  }
  template <class Host>
  void go_on(Host& host, int32_t side) {
    if (half(side).state == State::kFree && !half(side).sends.empty()) try_send(host, side);
  }
  template <class Host>
  void try_send(Host& host, int32_t side) {
    Half &mine = half(side), &other = half(partner(side));
    if (mine.in_a_row > kInARow && !other.sends.empty() && other.in_a_row <= kInARow) {
      if (other.state == State::kFree) go_on(host, partner(side));
      return;
    }
    const int64_t now = host.now_ns();
    int64_t offset = loggp_.o_ns;
    if (mine.previous == State::kSending && loggp_.o_ns + (now - mine.last_transfer) <= loggp_.g_ns)
      offset = loggp_.g_ns - (now - mine.last_transfer);
    const int32_t item = mine.sends.front();
    const int64_t bytes = requests_[item].bytes;
    receive(host, partner(side), item, offset);
    mine.sends.pop_front();
    mine.state = State::kSending;
    const double gaps = gap_ns_per_byte(side) * static_cast<double>(bytes - 1);
    host.bus_later(whole(static_cast<double>(offset) + gaps), side, kSent);
  }
  template <class Host>
  void receive(Host& host, int32_t side, int32_t item, int64_t offset) {
    Half& mine = half(side);
    mine.receives.push_back(item);
    mine.previous = mine.state;
    mine.state = State::kReceiving;
    const double gaps = static_cast<double>(requests_[item].bytes - 1) * gap_ns_per_byte(side);
    const double delay = static_cast<double>(offset) + gaps + static_cast<double>(loggp_.L_ns) +
                         static_cast<double>(loggp_.o_ns);
    host.bus_later(whole(delay), side, kReceived);
    mine.in_a_row = 0;
  }
  template <class Host>
  void sent(Host& host, int32_t side) {
    Half& mine = half(side);
    mine.last_transfer = host.now_ns();
    mine.previous = mine.state;
    mine.state = State::kFree;
    ++mine.in_a_row;
    go_on(host, side);
  }
  template <class Host>
  void received(Host& host, int32_t side) {
    Half& mine = half(side);
    mine.last_transfer = host.now_ns();
    mine.previous = mine.state;
    if (mine.receives.size() < 2) mine.state = State::kFree;
    const int32_t item = mine.receives.front();
    Request& request = requests_[item];
    if (request.reduced) {
      request.reduced = false;
      mine.receives.pop_front();
      if (has_inner(side))
        inner(host, kInnerNpu, item, true, Then::kQueueReduction);
      else
        mine.reductions.push_back(item);
      reduce(host, side);
    } else if (request.send_back) {
      request.send_back = false;
      mine.receives.pop_front();
      send_back(host, side, item);
    } else {
      retire(host, side, item, mine.receives);
    }
    go_on(host, side);
  }
  template <class Host>
  void queue_reduction(Host& host, int32_t side, int32_t item) {
    half(side).reductions.push_back(item);
    reduce(host, side);
    go_on(host, side);
  }
  template <class Host>
  void reduce(Host& host, int32_t side) {
    Half& mine = half(side);
    if (mine.reducing || mine.reductions.empty()) return;
    mine.reducing = true;
    const int64_t hundreds = requests_[mine.reductions.front()].bytes / 100;
    whole(static_cast<double>(hundreds) * static_cast<double>(loggp_.reduction_ns));
    host.bus_later(hundreds * loggp_.reduction_ns + kReductionSetupNs, side, kReduced);
  }
  template <class Host>
  void finish_reduction(Host& host, int32_t side) {
    Half& mine = half(side);
    mine.reducing = false;
    const int32_t item = mine.reductions.front();
    if (requests_[item].send_back) {
      requests_[item].send_back = false;
      mine.reductions.pop_front();
      send_back(host, side, item);
    } else {
      retire(host, side, item, mine.reductions);
    }
    reduce(host, side);
    go_on(host, side);
  }
  template <class Host>
  void send_back(Host& host, int32_t side, int32_t item) {
    if (has_inner(side))
      inner(host, kInnerNpu, item, true, Then::kQueueSend);
    else
      half(side).sends.push_back(item);
  }
  template <class Host>
  void retire(Host& host, int32_t side, int32_t item, std::deque<int32_t>& queue) {
    if (has_inner(side)) {
      queue.pop_front();
      inner(host, kInnerNpu, item, false, Then::kRetired);
    } else {
      // The request leaves its queue only after whoever waits for it has reacted.
      complete(host, item);
      queue.pop_front();
    }
  }
  template <class Host>
  void complete(Host& host, int32_t item) {
    const Request request = requests_[item];
    requests_.give_back(item);
    switch (request.then) {
      case Then::kCrossed:
        host.packet_crossed(request.item, request.packet);
        break;
      case Then::kQueueSend:
        queue_send(host, kNpu, request.item);
        break;
      case Then::kQueueReduction:
        queue_reduction(host, kNpu, request.item);
        break;
      case Then::kRetired:
        complete(host, request.item);
        go_on(host, kNpu);
        break;
    }
  }

  struct {
    int64_t L_ns, o_ns, g_ns;
    double G_ns_per_byte;
    int64_t reduction_ns;
  } loggp_;
  Half halves_[kSides];
  Pool<Request> requests_;
};

}  // namespace engine

#endif  // ASTRA_ENGINE_BUS_HPP
