// SPDX-License-Identifier: MIT
//
// Events in the order of (time, place).  Flows that begin together often end together, and are
// told of in ascending order: such events are a chain, and a heap of four children per entry orders the
// chains by their first events.  An event that is not to happen any more stays until it is first, or
// until the owner sorts them out.
#ifndef ASTRA_FLOW_EVENTS_HPP
#define ASTRA_FLOW_EVENTS_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace flow {

struct Event {
  int64_t time_ps, place;
  int32_t slot;
  bool operator<(const Event& other) const {
    return time_ps != other.time_ps ? time_ps < other.time_ps : place < other.place;
  }
};

class Events {
 public:
  static constexpr size_t kKinds = 4;

  bool empty() const { return chains_.empty(); }
  size_t size() const { return size_; }
  Event first() const {
    const Link& one = link(chains_[0]);
    return {chains_[0].time_ps, one.place, one.slot};
  }

  // Events of a kind mostly come after the last one of their kind.
  void push(size_t kind, const Event& event) {
    const int32_t at = take(event);
    if (follows(kind, event, at)) return;
    chains_.push_back({event.time_ps, bits(event.place), at});
    size_t hole = chains_.size() - 1;
    const Chain chain = chains_.back();
    for (; hole > 0 && chain < chains_[(hole - 1) / 4]; hole = (hole - 1) / 4)
      chains_[hole] = chains_[(hole - 1) / 4];
    chains_[hole] = chain;
  }
  void pop() {
    Chain chain = chains_[0];
    if (!advance(chain)) {
      chain = chains_.back();
      chains_.pop_back();
      if (chains_.empty()) return;
    }
    sink(chain);
  }
  // As pop() and push().
  void replace_first(size_t kind, const Event& event) {
    Chain chain = chains_[0];
    const bool rest = advance(chain);
    if (rest) {
      sink(chain);
      return push(kind, event);
    }
    const int32_t at = take(event);
    if (!follows(kind, event, at)) return sink({event.time_ps, bits(event.place), at});
    chain = chains_.back();
    chains_.pop_back();
    if (!chains_.empty()) sink(chain);
  }

  // Keeps those that `kind_of` says are still to happen: their kinds, or kKinds.
  template <class KindOf>
  void keep(KindOf&& kind_of) {
    std::vector<Event> all;
    for (const Chain& chain : chains_)
      for (int64_t at = chain.first; at >= 0; at = links_[static_cast<size_t>(at)].next)
        all.push_back({chain.time_ps, links_[static_cast<size_t>(at)].place,
                       links_[static_cast<size_t>(at)].slot});
    std::sort(all.begin(), all.end());
    *this = Events();
    for (const Event& event : all)
      if (const size_t kind = kind_of(event); kind < kKinds) push(kind, event);
  }

  template <class A>
  void visit(A& archive) {
    archive(chains_, links_, last_, free_, size_);
  }

 private:
  struct Chain {
    int64_t time_ps;
    uint64_t place;  // of its first event, as bits() has it
    int64_t first;
    // As one number: which of two is first is a coin toss, and this needs no branch.
    __extension__ using Key = unsigned __int128;
    Key key() const { return static_cast<Key>(bits(time_ps)) << 64 | place; }
    bool operator<(const Chain& other) const { return key() < other.key(); }
  };
  // A number without a sign, in the same order.
  static uint64_t bits(int64_t value) { return static_cast<uint64_t>(value) ^ (uint64_t{1} << 63); }
  struct Link {
    int64_t place;
    int32_t slot, next;
  };
  struct Last {
    int64_t time_ps = -1, link = -1;
  };

  const Link& link(const Chain& chain) const { return links_[static_cast<size_t>(chain.first)]; }
  int32_t take(const Event& event) {
    ++size_;
    const Link one{event.place, event.slot, -1};
    if (free_ < 0) {
      links_.push_back(one);
      return static_cast<int32_t>(links_.size() - 1);
    }
    const int32_t at = free_;
    free_ = links_[static_cast<size_t>(at)].next;
    links_[static_cast<size_t>(at)] = one;
    return at;
  }
  // Whether the event goes on with the chain of the last one of its kind.
  bool follows(size_t kind, const Event& event, int32_t at) {
    Last& last = last_[kind];
    const bool same = last.time_ps == event.time_ps && last.link >= 0 &&
                      links_[static_cast<size_t>(last.link)].place < event.place;
    if (same) links_[static_cast<size_t>(last.link)].next = at;
    last = {event.time_ps, at};
    return same;
  }
  // The first event of a chain is gone; false where it was the only one.
  bool advance(Chain& chain) {
    --size_;
    const auto gone = static_cast<int32_t>(chain.first);
    Link& one = links_[static_cast<size_t>(gone)];
    chain.first = one.next;
    one.next = free_;
    free_ = gone;
    if (chain.first >= 0) {
      chain.place = bits(link(chain).place);
      return true;
    }
    for (Last& last : last_)
      if (last.link == gone) last = {};
    return false;
  }

  // The first place is free; the chain goes there, or where it belongs below.
  void sink(const Chain& chain) {
    const size_t size = chains_.size();
    Chain* const all = chains_.data();
    size_t hole = 0;
    for (;;) {
      const size_t child = 4 * hole + 1;
      if (child >= size) break;
      size_t least = child;
      if (child + 4 <= size) {
        const size_t a = child + static_cast<size_t>(all[child + 1] < all[child]);
        const size_t b = child + 2 + static_cast<size_t>(all[child + 3] < all[child + 2]);
        least = all[b] < all[a] ? b : a;
      } else {
        for (size_t i = child + 1; i < size; ++i)
          if (all[i] < all[least]) least = i;
      }
      if (!(all[least] < chain)) break;
      all[hole] = all[least];
      hole = least;
    }
    all[hole] = chain;
  }

  std::vector<Chain> chains_;
  std::vector<Link> links_;
  Last last_[kKinds];  // the last event of each kind
  int32_t free_ = -1;  // of links_
  size_t size_ = 0;
};

}  // namespace flow

#endif  // ASTRA_FLOW_EVENTS_HPP
