// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace garnet {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

// The set of VCs of a port: one machine word in the usual case, several for many VCs.
template <int W>
struct Bits {
  uint64_t word[W] = {};

  void set(uint32_t i) { word[i >> 6] |= uint64_t{1} << (i & 63); }
  void clear(uint32_t i) { word[i >> 6] &= ~(uint64_t{1} << (i & 63)); }
  bool test(uint32_t i) const { return word[i >> 6] >> (i & 63) & 1; }
  bool any() const {
    uint64_t all = 0;
    for (uint64_t w : word) all |= w;
    return all != 0;
  }
  Bits operator&(const Bits& other) const {
    Bits result;
    for (int w = 0; w < W; ++w) result.word[w] = word[w] & other.word[w];
    return result;
  }
  uint32_t count() const {
    uint32_t all = 0;
    for (uint64_t w : word) all += static_cast<uint32_t>(__builtin_popcountll(w));
    return all;
  }
  uint32_t first() const {
    for (int w = 0; w < W; ++w)
      if (word[w]) return static_cast<uint32_t>(w * 64 + __builtin_ctzll(word[w]));
    return kNone;
  }
  // The first member, in circular order from `start`, for which accept() is true; else kNone.
  template <class Accept>
  uint32_t scan(uint32_t start, Accept&& accept) const {
    if constexpr (W == 1) {  // rotated, so that one loop over the set bits is in order
      uint64_t bits = word[0] >> start | word[0] << (-start & 63);
      for (; bits; bits &= bits - 1) {
        const uint32_t i = (static_cast<uint32_t>(__builtin_ctzll(bits)) + start) & 63;
        if (accept(i)) return i;
      }
      return kNone;
    }
    const int first_word = static_cast<int>(start >> 6);
    const uint64_t upper = ~uint64_t{0} << (start & 63);
    for (int step = 0; step <= W; ++step) {
      const int w = (first_word + step) % W;
      uint64_t bits = word[w];
      if (step == 0) bits &= upper;
      if (step == W) bits &= ~upper;
      for (; bits; bits &= bits - 1) {
        const auto i = static_cast<uint32_t>(w * 64 + __builtin_ctzll(bits));
        if (accept(i)) return i;
      }
    }
    return kNone;
  }
};

}  // namespace
}  // namespace garnet
