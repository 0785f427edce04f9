// SPDX-License-Identifier: MIT
//
// MRG32k3a (L'Ecuyer, Operations Research 47(1), 1999; streams: L'Ecuyer et al., Operations
// Research 50(6), 2002), as ns-3's RngStream has it, for two uses: one ordinary stream, and the
// first number of each of many consecutive streams.  The second is what the public RDMA fork
// draws, which makes a new random variable for each ECN decision; stepping from one stream to
// the next costs us one 3x3 product instead of the 127 doublings of a jump from stream 0.
#ifndef ASTRA_NS3_RANDOM_H
#define ASTRA_NS3_RANDOM_H

#include <array>
#include <cstddef>
#include <cstdint>

namespace [[gnu::visibility("hidden")]] astra_ns3 {

class RandomStreams {
 public:
  // `run` as in ns3::RngSeedManager: the substream of every stream.  `stream` is the present one.
  explicit RandomStreams(uint32_t seed = 1, uint32_t run = 1, uint64_t stream = 0);
  // Go on to the next stream; return its first number, in (0, 1).
  double FirstOfNextStream();
  // The next number of the present stream.
  double Next();
  // Leave out streams that something else has taken.
  void SkipStreams(uint64_t count);

 private:
  using size_t = std::size_t;
  using Vector = std::array<uint64_t, 3>;
  using Matrix = std::array<Vector, 3>;
  static Matrix Multiply(const Matrix& a, const Matrix& b, uint64_t modulus);
  static Vector Apply(const Matrix& a, const Vector& v, uint64_t modulus);
  static Matrix Power2(Matrix a, unsigned doublings, uint64_t modulus);
  double Draw(Vector& x, Vector& y) const;

  Matrix stream_x_, stream_y_;    // one stream further
  Vector first_x_, first_y_;      // where the next stream begins
  Vector x_, y_;                  // inside the present stream
};

// The C library's rand() as it starts (an additive feedback generator, r[i] = r[i-3] + r[i-31]):
// the fork rounds PINT's numbers with it.  A copy of our own leaves the process's state alone and
// gives the same numbers everywhere.
class LibraryRandom {
 public:
  LibraryRandom();
  uint32_t Next();  // 0 .. 2^31 - 1

 private:
  std::array<uint32_t, 31> state_;
  std::size_t at_ = 3;
};

}  // namespace astra_ns3

#endif  // ASTRA_NS3_RANDOM_H
