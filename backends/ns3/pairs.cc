// SPDX-License-Identifier: MIT
#include "pairs.h"

#include <algorithm>

#include "congestion.h"
#include "fabric.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

void TimeTree::Resize(size_t slots) {
  leaves_ = 1;
  while (leaves_ < slots) leaves_ *= 2;
  node_.assign(2 * leaves_, kNeverTick);
}

size_t TimeTree::Find(size_t begin, size_t end, Tick limit) const {
  if (begin >= end || leaves_ == 0 || node_[1] > limit) return kNone;
  size_t node = leaves_ + begin;
  // Up and to the right until a subtree has one, then down to its first.
  while (node_[node] > limit) {
    while ((node & 1) != 0) {
      node /= 2;
      if (node <= 1) return kNone;
    }
    ++node;
  }
  while (node < leaves_) {
    node *= 2;
    if (node_[node] > limit) ++node;
  }
  const size_t slot = node - leaves_;
  return slot < end ? slot : kNone;
}

size_t SlotSet::CountBefore(size_t slot) const {
  size_t count = 0;
  for (size_t word = 0; word < slot / 64; ++word)
    count += static_cast<size_t>(__builtin_popcountll(words_[word]));
  if (slot % 64 != 0)
    count +=
        static_cast<size_t>(__builtin_popcountll(words_[slot / 64] & ((1ull << (slot % 64)) - 1)));
  return count;
}

size_t SlotSet::Nth(size_t number) const {
  size_t word = 0;
  for (;; ++word) {
    const auto members = static_cast<size_t>(__builtin_popcountll(words_[word]));
    if (number < members) break;
    number -= members;
  }
  uint64_t bits = words_[word];
  for (; number > 0; --number) bits &= bits - 1;
  return 64 * word + static_cast<size_t>(__builtin_ctzll(bits));
}

size_t SlotSet::Find(size_t begin, size_t end) const {
  if (begin >= end) return end;
  size_t word = begin / 64;
  uint64_t bits = words_[word] & (~0ull << (begin % 64));
  while (bits == 0) {
    if (++word * 64 >= end) return end;
    bits = words_[word];
  }
  return std::min(end, 64 * word + static_cast<size_t>(__builtin_ctzll(bits)));
}

void PairList::Add(QueuePair* qp) {
  if (slots_.size() == capacity_ || (slots_.size() > 64 && slots_.size() > 2 * count_)) Rebuild();
  slots_.push_back(nullptr);
  ++count_;
  classes_ |= 1u << qp->queue;
  if (!able_[qp->queue].Sized()) able_[qp->queue].Resize(capacity_);
  Place(qp, slots_.size() - 1);
}

void PairList::Place(QueuePair* qp, size_t slot) {
  slots_[slot] = qp;
  qp->slot = static_cast<uint32_t>(slot);
  qp->listed = true;
  qp->counted_finished = qp->counted_adapting = false;
  listed_.Add(slot);
  Update(qp);
}

// Without the gaps, and with room for as many again.
void PairList::Rebuild() {
  if (last_is_slot_) last_ = listed_.CountBefore(last_);
  std::vector<QueuePair*> pairs;
  for (QueuePair* qp : slots_)
    if (qp != nullptr) pairs.push_back(qp);
  capacity_ = std::max<size_t>(4, 2 * pairs.size());
  listed_.Resize(capacity_);
  ended_.Resize(capacity_);
  for (uint32_t queue = 0; queue < kClasses; ++queue)
    if ((classes_ >> queue & 1) != 0) able_[queue].Resize(capacity_);
  if (watch_all_) {
    earliest_.Resize(capacity_);
    latest_.Resize(capacity_);
  }
  finished_ = adapting_ = 0;
  slots_.assign(pairs.size(), nullptr);
  slots_.reserve(capacity_);
  for (size_t slot = 0; slot < pairs.size(); ++slot) Place(pairs[slot], slot);
}

void PairList::Update(QueuePair* qp) {
  const size_t slot = qp->slot;
  able_[qp->queue].Set(slot, qp->Able() ? qp->next_available : kNeverTick);
  if (!qp->lasting && qp->Finished() != qp->counted_finished) {
    qp->counted_finished = !qp->counted_finished;
    if (qp->counted_finished) {
      ended_.Add(slot);
      ++finished_;
    } else {
      ended_.Remove(slot);
      --finished_;
    }
  }
  if (!watch_all_) return;
  earliest_.Set(slot, qp->next_available);
  latest_.Set(slot, -qp->next_available);
  const bool adapting = qp->timer[0] != 0 && qp->BytesLeft() > 0;
  if (adapting != qp->counted_adapting) {
    qp->counted_adapting = adapting;
    adapting_ += adapting ? 1 : static_cast<size_t>(-1);
  }
}

size_t PairList::First(size_t begin, size_t end, Tick now, uint32_t paused) const {
  size_t first = TimeTree::kNone;
  for (uint32_t queues = classes_ & ~paused; queues != 0; queues &= queues - 1)
    first = std::min(first, able_[static_cast<size_t>(__builtin_ctz(queues))].Find(
                                begin, std::min(end, first), now));
  return first;
}

// The slot at which the round begins: that of the pair after the last one.
size_t PairList::Start() const {
  if (last_is_slot_) {
    const size_t next = listed_.Find(last_ + 1, slots_.size());
    return next < slots_.size() ? next : 0;
  }
  return listed_.Nth((last_ + 1) % count_);
}

QueuePair* PairList::Select(Tick now, uint32_t paused, std::vector<QueuePair*>* dropped) {
  if (count_ == 0) return nullptr;
  const size_t start = Start(), size = slots_.size();
  size_t chosen = First(start, size, now, paused);
  const bool wrapped = chosen == TimeTree::kNone;
  if (wrapped) chosen = First(0, start, now, paused);
  if (finished_ > 0) {
    // The first in the list of those that were passed on the way.
    size_t ended = size;
    const size_t none = TimeTree::kNone;
    if (wrapped) ended = ended_.Find(0, chosen == none ? size : chosen);
    if (wrapped && chosen != none && ended >= chosen) ended = size;
    if (ended == size) {
      const size_t end = wrapped ? size : chosen;
      ended = ended_.Find(start, end);
      if (ended == end) ended = size;
    }
    if (ended < size) {
      // Nobody's turn: the number of the last one stays, though the list gets shorter.
      if (chosen == none && last_is_slot_) {
        last_ = listed_.CountBefore(last_);
        last_is_slot_ = false;
      }
      Drop(ended, dropped);
    }
  }
  if (chosen == TimeTree::kNone) return nullptr;
  last_ = chosen;
  last_is_slot_ = true;
  return slots_[chosen];
}

// All that have ended, from the slot `first` on.
void PairList::Drop(size_t first, std::vector<QueuePair*>* dropped) {
  for (size_t slot = first; slot < slots_.size(); slot = ended_.Find(slot + 1, slots_.size())) {
    QueuePair* qp = slots_[slot];
    able_[qp->queue].Set(slot, kNeverTick);
    if (watch_all_) {
      earliest_.Set(slot, kNeverTick);
      latest_.Set(slot, kNeverTick);
    }
    adapting_ -= qp->counted_adapting ? 1 : 0;
    listed_.Remove(slot);
    ended_.Remove(slot);
    slots_[slot] = nullptr;
    qp->listed = false;
    --count_;
    --finished_;
    dropped->push_back(qp);
  }
}

size_t PairList::TurnsTo(const QueuePair& qp) const {
  const size_t start = Start(), slot = qp.slot;
  return slot >= start ? slot - start : slot + slots_.size() - start;
}

void PairList::SetTurn(const QueuePair& qp) {
  last_ = qp.slot;
  last_is_slot_ = true;
}

Tick PairList::NextTime(uint32_t paused) const {
  if (watch_all_) return earliest_.Least();
  Tick next = kNeverTick;
  for (uint32_t queues = classes_ & ~paused; queues != 0; queues &= queues - 1)
    next = std::min(next, able_[static_cast<size_t>(__builtin_ctz(queues))].Least());
  return next;
}

bool PairList::AnyAble() const {
  for (uint32_t queues = classes_; queues != 0; queues &= queues - 1)
    if (able_[static_cast<size_t>(__builtin_ctz(queues))].Least() != kNeverTick) return true;
  return false;
}

std::vector<QueuePair*> PairList::Clear() {
  std::vector<QueuePair*> pairs;
  for (QueuePair* qp : slots_)
    if (qp != nullptr) {
      qp->listed = false;
      pairs.push_back(qp);
    }
  if (last_is_slot_) last_ = listed_.CountBefore(last_);
  last_is_slot_ = false;
  slots_.clear();
  count_ = 0;
  Rebuild();
  return pairs;
}

}  // namespace astra_ns3
