// SPDX-License-Identifier: MIT
//
// FlatMap: int64 -> Value by open addressing, for the event queues of the engine and of backends.
// A look-up is one multiplication and, nearly always, one cache line; nothing is allocated per
// entry.
#ifndef ASTRA_FLAT_MAP_HPP
#define ASTRA_FLAT_MAP_HPP

#include <cstddef>
#include <cstdint>
#include <vector>

namespace astra {

template <class Value>
class FlatMap {
 public:
  FlatMap() : entries_(kLeast), shift_(64 - kLeastBits) {}

  // The value of `key`, or -1.  Values are never negative.
  Value find(int64_t key) const { return entries_[slot(key)].value; }

  void insert(int64_t key, Value value) {
    if (2 * ++size_ > entries_.size()) grow();
    entries_[slot(key)] = {key, value};
  }

  // Linear probing: whatever was pushed past the freed slot moves back, so no tombstones.
  void erase(int64_t key) {
    const size_t mask = entries_.size() - 1;
    size_t hole = slot(key);
    if (entries_[hole].value < 0) return;
    --size_;
    for (size_t i = (hole + 1) & mask; entries_[i].value >= 0; i = (i + 1) & mask) {
      if (((i - home(entries_[i].key)) & mask) >= ((i - hole) & mask)) {
        entries_[hole] = entries_[i];
        hole = i;
      }
    }
    entries_[hole] = {};
  }

  void clear() { *this = FlatMap(); }

 private:
  struct Entry {
    int64_t key = 0;
    Value value = -1;
  };
  static constexpr unsigned kLeastBits = 6;
  static constexpr size_t kLeast = size_t{1} << kLeastBits;

  // Fibonacci hashing: the top bits of a product with 2^64 / golden ratio.
  size_t home(int64_t key) const {
    return (static_cast<uint64_t>(key) * 0x9E3779B97F4A7C15u) >> shift_;
  }
  // Where `key` is, or where it would go.
  size_t slot(int64_t key) const {
    const size_t mask = entries_.size() - 1;
    size_t i = home(key);
    while (entries_[i].value >= 0 && entries_[i].key != key) i = (i + 1) & mask;
    return i;
  }
  void grow() {
    std::vector<Entry> old(entries_.size() * 2);
    old.swap(entries_);
    --shift_;
    for (const Entry& entry : old) {
      if (entry.value >= 0) entries_[slot(entry.key)] = entry;
    }
  }

  std::vector<Entry> entries_;
  unsigned shift_;
  size_t size_ = 0;
};

}  // namespace astra

#endif  // ASTRA_FLAT_MAP_HPP
