// SPDX-License-Identifier: MIT
//
// What selective repeat remembers of a queue pair: which bytes have arrived before their turn, and
// which are to be sent again.  Most pairs never need it.
#ifndef ASTRA_NS3_REPAIR_H
#define ASTRA_NS3_REPAIR_H

#include <algorithm>
#include <cstdint>
#include <vector>

namespace [[gnu::visibility("hidden")]] astra_ns3 {

struct ByteRange {
  uint64_t begin, end;
};

// Disjoint ranges of bytes, ascending.
class ByteRanges {
 public:
  bool Empty() const { return ranges_.empty(); }
  uint64_t End() const { return ranges_.back().end; }
  auto begin() const { return ranges_.begin(); }
  auto end() const { return ranges_.end(); }

  void Add(uint64_t begin, uint64_t end) {
    auto first = ranges_.end();  // new bytes usually belong at the end
    while (first != ranges_.begin() && (first - 1)->end >= begin) --first;
    auto last = first;
    for (; last != ranges_.end() && last->begin <= end; ++last) {
      begin = std::min(begin, last->begin);
      end = std::max(end, last->end);
    }
    if (first == last) {
      ranges_.insert(first, {begin, end});
      return;
    }
    *first = {begin, end};
    ranges_.erase(first + 1, last);
  }
  // Everything before `to`, and what follows it without a gap, is taken out; where that ends.
  uint64_t TakeUpTo(uint64_t to) {
    auto last = ranges_.begin();
    for (; last != ranges_.end() && last->begin <= to; ++last) to = std::max(to, last->end);
    ranges_.erase(ranges_.begin(), last);
    return to;
  }

 private:
  std::vector<ByteRange> ranges_;
};

// Bytes that the sender knows to be lost.
struct LostRange {
  uint64_t begin, end;
  uint64_t next;  // the first of them that has not been sent again
  uint64_t sent_before;  // what the sender had got to when it sent the last of them again
};

struct Repair {
  ByteRanges held;  // receiver: what has arrived beyond the byte that is expected
  std::vector<LostRange> lost;  // sender: ascending
  uint64_t unsent = 0;  // of those, still to be sent again [bytes]

  void Lose(uint64_t begin, uint64_t end) {
    auto at = lost.end();
    while (at != lost.begin() && (at - 1)->begin > begin) --at;
    lost.insert(at, {begin, end, begin, 0});
    unsent += end - begin;
  }
  // Everything before `to` has arrived.
  void Arrived(uint64_t to) {
    auto kept = lost.begin();
    for (LostRange& range : lost) {
      const uint64_t next = std::max(range.next, std::min(to, range.end));
      unsent -= next - range.next;
      range.next = next;
      range.begin = std::max(range.begin, to);
      if (range.end > to) *kept++ = range;
    }
    lost.erase(kept, lost.end());
  }
  // All of a range once more.
  void Again(LostRange& range) {
    unsent += range.next - range.begin;
    range.next = range.begin;
  }
};

}  // namespace astra_ns3

#endif  // ASTRA_NS3_REPAIR_H
