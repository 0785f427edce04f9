// SPDX-License-Identifier: MIT
//
// Which of several next hops of equal distance a flow takes: by a hash of its addresses and ports.
#ifndef ASTRA_NS3_ECMP_H
#define ASTRA_NS3_ECMP_H

#include <array>
#include <cstdint>

namespace [[gnu::visibility("hidden")]] astra_ns3 {

// The 32-bit hash of MurmurHash3 (A. Appleby, public domain) over three words: with the switch's
// id as its seed, this is the fork's choice of a next hop, so that paths agree with it.
inline uint32_t Murmur3(const std::array<uint32_t, 3>& words, uint32_t seed) {
  const auto rotate = [](uint32_t x, int bits) { return (x << bits) | (x >> (32 - bits)); };
  uint32_t hash = seed;
  for (uint32_t word : words) {
    hash ^= rotate(word * 0xcc9e2d51u, 15) * 0x1b873593u;
    // The fork adds 4 h where the original multiplies by 5: the same.
    hash = rotate(hash, 13) * 5 + 0xe6546b64u;
  }
  hash ^= 12;
  hash = (hash ^ (hash >> 16)) * 0x85ebca6bu;
  hash = (hash ^ (hash >> 13)) * 0xc2b2ae35u;
  return hash ^ (hash >> 16);
}

// Addresses in host order, the ports as one word: the source's in its lower half.
inline uint32_t EcmpHash(uint32_t source, uint32_t destination, uint16_t source_port,
                         uint16_t destination_port, uint32_t seed) {
  return Murmur3({source, destination, source_port | static_cast<uint32_t>(destination_port) << 16},
                 seed);
}

}  // namespace astra_ns3

#endif  // ASTRA_NS3_ECMP_H
