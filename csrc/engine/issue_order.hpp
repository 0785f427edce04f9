// SPDX-License-Identifier: MIT
//
// In which order nodes of a custom collective are issued that become free together; the twin of
// astra_bridge/collectives/issue_order.py, which explains it.
#ifndef ASTRA_ENGINE_ISSUE_ORDER_HPP
#define ASTRA_ENGINE_ISSUE_ORDER_HPP

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <unordered_map>
#include <vector>

namespace engine {

constexpr uint64_t kBucketCounts[] = {
    0,       13,      29,       59,       127,      257,       541,      1109,   2357,
    5087,    10273,   20753,    42043,    85229,    172933,    351061,   712697, 1447153,
    2938679, 5967347, 12117689, 24607243, 49969847, 101473717, 206062531};

// Reorder `items`, which are inserted into an empty set of `buckets` buckets (updated).
template <class Item, class Key>
void hash_order(std::vector<Item>& items, uint64_t& buckets, Key key) {
  struct Link {
    int64_t next;  // index of the item that follows, or -1
  };
  constexpr int64_t kNone = -1, kFront = 0;
  // Links are one-based: 0 is the front.
  std::vector<Link> links(items.size() + 1, {kNone});
  std::unordered_map<uint64_t, int64_t> before;
  const auto link = [&](int64_t item) {
    const uint64_t bucket = key(items[static_cast<size_t>(item - 1)]) % buckets;
    int64_t previous = kFront;
    const auto found = before.find(bucket);
    if (found != before.end()) {
      previous = found->second;
    } else {
      const int64_t following = links[kFront].next;
      if (following != kNone)
        before[key(items[static_cast<size_t>(following - 1)]) % buckets] = item;
      before[bucket] = kFront;
    }
    links[static_cast<size_t>(item)].next = links[static_cast<size_t>(previous)].next;
    links[static_cast<size_t>(previous)].next = item;
  };
  for (size_t count = 0; count < items.size(); ++count) {
    if (count + 1 > buckets) {
      std::vector<int64_t> old;
      for (int64_t at = links[kFront].next; at != kNone; at = links[static_cast<size_t>(at)].next)
        old.push_back(at);
      const auto* last = std::prev(std::end(kBucketCounts));
      const auto* now = std::find(std::begin(kBucketCounts), last, buckets);
      buckets = now == last ? *last : *std::next(now);
      links[kFront].next = kNone;
      before.clear();
      for (const int64_t item : old) link(item);
    }
    link(static_cast<int64_t>(count) + 1);
  }
  std::vector<Item> ordered;
  ordered.reserve(items.size());
  for (int64_t at = links[kFront].next; at != kNone; at = links[static_cast<size_t>(at)].next)
    ordered.push_back(items[static_cast<size_t>(at - 1)]);
  items = std::move(ordered);
}

}  // namespace engine

#endif  // ASTRA_ENGINE_ISSUE_ORDER_HPP
