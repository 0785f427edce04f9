// SPDX-License-Identifier: MIT
//
// Repetition: a network whose state comes back, relative to the present, is moved on by whole periods.
// All that decides on what happens next is written down between two instants: events, packets, ports and
// queue pairs, with times as distances from now, places as distances from the next one, and bytes as
// distances from what the pair has sent.  Where two such descriptions are equal, what followed the
// first will follow the second, until something from outside, or the end of a message, comes in
// between.  So nothing is lost by adding k periods to every time, place and count; the state is
// then, bit by bit, the one to which the events would have led.
#ifndef ASTRA_NS3_REPETITION_H
#define ASTRA_NS3_REPETITION_H

#include <cstdint>
#include <vector>

#include "simulator.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

class Fabric;
struct PacketRecord;
struct Port;
struct QueuePair;

class Repetition {
 public:
  explicit Repetition(Fabric* fabric) : fabric_(fabric) {}

  // A pair has asked for an acknowledgement: descriptions are taken when one of them does.
  void Asked(const QueuePair* qp);
  // Between two instants, on request: moves on if it can, but not beyond `limit`.
  bool Look(Tick limit);

  Tick jumped() const { return jumped_; }
  uint64_t jumps() const { return jumps_; }

 private:
  using Words = std::vector<uint64_t>;
  struct Description {
    Tick now;
    uint64_t next_order, hash;
    Words words;  // equal for states that go on alike
    Words sent;  // per pair that is described: bytes
    std::vector<unsigned __int128> counts;  // statistics
  };
  bool Describe(Description* to);
  bool Add(const PacketRecord& packet, bool on_wire, Words* words) const;
  bool Add(const Port& port, Words* words) const;
  bool Add(const QueuePair& qp, Words* words) const;
  uint64_t Periods(const Description& before, const Description& now, Tick limit) const;
  void Move(const Description& before, const Description& now, uint64_t periods);
  void Forget();

  Fabric* fabric_;
  const QueuePair* reference_ = nullptr;
  uint64_t next_look_ = 0;  // number of the event
  uint64_t disturbances_seen_ = 0;
  uint64_t patience_ = 1, in_vain_ = 0;
  std::vector<Description> past_;
  size_t count_ = 0;  // of those in use
  std::vector<QueuePair*> pairs_;  // of the newest
  Tick jumped_ = 0;
  uint64_t jumps_ = 0;
};

}  // namespace astra_ns3

#endif  // ASTRA_NS3_REPETITION_H
