// SPDX-License-Identifier: MIT
//
// PairList: the queue pairs of a NIC's port, served round robin.  What a NIC must know for every
// packet (whose turn it is, when the next pair may send, whether anyone waits) costs the logarithm
// of their number: hardware keeps a ring of ready pairs and timers, this is a tournament over both.
#ifndef ASTRA_NS3_PAIRS_H
#define ASTRA_NS3_PAIRS_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "simulator.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

struct QueuePair;

// The least of times by slot: a tournament, each inner node the lesser of its two.
class TimeTree {
 public:
  static constexpr size_t kNone = SIZE_MAX;
  void Resize(size_t slots);  // forgets all times
  void Set(size_t slot, Tick time) {
    size_t node = leaves_ + slot;
    if (node_[node] == time) return;
    node_[node] = time;
    while (node > 1) {
      node /= 2;
      const Tick least =
          node_[2 * node] < node_[2 * node + 1] ? node_[2 * node] : node_[2 * node + 1];
      if (node_[node] == least) return;
      node_[node] = least;
    }
  }
  bool Sized() const { return leaves_ > 0; }
  Tick Least() const { return leaves_ == 0 ? kNeverTick : node_[1]; }
  // The first slot from `begin` on, and before `end`, whose time is at or before `limit`.
  size_t Find(size_t begin, size_t end, Tick limit) const;

 private:
  size_t leaves_ = 0;  // a power of two
  std::vector<Tick> node_;
};

// Which of the slots are members.
class SlotSet {
 public:
  void Resize(size_t slots) { words_.assign((slots + 63) / 64, 0); }
  void Add(size_t slot) { words_[slot / 64] |= 1ull << (slot % 64); }
  void Remove(size_t slot) { words_[slot / 64] &= ~(1ull << (slot % 64)); }
  bool Has(size_t slot) const { return (words_[slot / 64] >> (slot % 64) & 1) != 0; }
  size_t CountBefore(size_t slot) const;
  size_t Nth(size_t number) const;  // the slot of this member
  // The first member from `begin` on, and before `end`; `end` if there is none.
  size_t Find(size_t begin, size_t end) const;

 private:
  std::vector<uint64_t> words_;
};

class PairList {
 public:
  // `watch_all`: the fork's NIC also looks at the times of pairs that may not send.
  void WatchAll() { watch_all_ = true; }
  void Add(QueuePair* qp);
  // To be called when anything has changed that decides whether, and when, `qp` may send.
  void Update(QueuePair* qp);
  // The next in turn of those that may send at `now`, or nullptr.  Pairs that have ended and were
  // met on the way leave the list, and `dropped` has them.
  QueuePair* Select(Tick now, uint32_t paused, std::vector<QueuePair*>* dropped);
  // When the first one may send; kNeverTick if none may before something else happens.
  Tick NextTime(uint32_t paused) const;
  // Whether any could send, but for its time or a pause.
  bool AnyAble() const;
  // Whether the fork's NIC looks again when its port is free at `time`.
  bool ForkLooksAgain(Tick time) const {
    return finished_ > 0 || -latest_.Least() > time || adapting_ > 0;
  }
  std::vector<QueuePair*> Clear();  // in order
  // The pair that sent last, where it is known; and how many slots come before a pair's turn.
  const QueuePair* Last() const { return last_is_slot_ ? slots_[last_] : nullptr; }
  size_t TurnsTo(const QueuePair& qp) const;
  void SetTurn(const QueuePair& qp);
  uint64_t Turn() const { return 2 * last_ + (last_is_slot_ ? 1 : 0); }

 private:
  static constexpr uint32_t kClasses = 8;
  void Rebuild();
  void Place(QueuePair* qp, size_t slot);
  size_t First(size_t begin, size_t end, Tick now, uint32_t paused) const;
  size_t Start() const;
  void Drop(size_t first, std::vector<QueuePair*>* dropped);

  bool watch_all_ = false;
  std::vector<QueuePair*> slots_;  // in the order in which they came; nullptr where one has left
  size_t count_ = 0, finished_ = 0, adapting_ = 0;
  uint32_t classes_ = 0;  // bit per queue that has, or had, a pair
  SlotSet listed_, ended_;
  size_t capacity_ = 0;
  std::array<TimeTree, kClasses> able_;  // when a pair may send, if it may
  TimeTree earliest_, latest_;  // of all pairs; negative in the second
  // Whose turn it was: by its slot, or by its number in the list as it then was.
  size_t last_ = 0;
  bool last_is_slot_ = false;
};

}  // namespace astra_ns3

#endif  // ASTRA_NS3_PAIRS_H
