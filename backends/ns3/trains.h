// SPDX-License-Identifier: MIT
//
// Packet trains.  A pair whose links carry no other pair's data, and whose rate has settled, sends equal
// packets at a pace that two windows in a row have shown to be steady, and that holds for all pairs whose
// links are alike and carry the same.  Instead of all of them its NIC sends the last
// one, at the time at which that one is due, and this packet stands for those before it: it counts
// for them at every port, and its receiver takes their bytes with it.  As soon as another pair comes
// to one of the links, what has been sent of the train leaves, and the rest goes packet by packet.
#ifndef ASTRA_NS3_TRAINS_H
#define ASTRA_NS3_TRAINS_H

#include <cstdint>
#include <unordered_map>

#include "simulator.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

class Fabric;
struct PacketRecord;
struct Port;
struct QueuePair;

// How pairs send whose links are in one state.
struct Pace {
  double ticks;  // per packet
  double change;  // of the second window against the first
};

// What a pair remembers.
struct TrainState {
  uint64_t packets = 0;  // of the train that it is sending; 0 is none
  Tick begin = 0;
  double pace = 0;
  // The window that is being measured.
  uint64_t links = 0;
  Tick window_begin = 0;
  uint64_t window_seq = 0;
  double last = 0;  // pace in the one before, 0 is none; with a train, the change of its own
};

class Trains {
 public:
  explicit Trains(Fabric* fabric) : fabric_(fabric) {}

  // The pair, which has a route, has something to send again; all of its data has arrived.
  void Occupy(QueuePair* qp);
  void Vacate(QueuePair* qp);
  // It is the turn of a pair: whether it waits for the end of a train instead.
  bool Begin(QueuePair* qp);
  // The pair sends the last packet of its train: the bytes before it, which it stands for.
  uint64_t Send(QueuePair* qp, PacketRecord* packet);
  // Ways are about to change, or have changed.
  void BreakAll();
  void Recount();

  uint64_t count() const { return count_; }
  uint64_t packets() const { return packets_; }
  Tick ticks() const { return ticks_; }
  double bound() const { return bound_; }

 private:
  void Break(QueuePair* qp);
  // The state of its links, or 0 where a train is not possible.
  uint64_t Links(const QueuePair& qp) const;
  bool Undisturbed(const QueuePair& qp) const;
  const Pace* PaceOf(QueuePair* qp, uint64_t links);

  Fabric* fabric_;
  std::unordered_map<uint64_t, Pace> paces_;  // by the state of the links
  uint64_t count_ = 0, packets_ = 0;  // that were not sent one by one
  Tick ticks_ = 0;  // of pairs, that trains took
  double bound_ = 0;  // of the relative error of these ticks
};

}  // namespace astra_ns3

#endif  // ASTRA_NS3_TRAINS_H
