// SPDX-License-Identifier: MIT
#include "random.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

namespace {

constexpr uint64_t kM1 = 4294967087ull, kM2 = 4294944443ull;
constexpr uint64_t kA12 = 1403580, kA13n = 810728, kA21 = 527612, kA23n = 1370589;

}  // namespace

RandomStreams::Matrix RandomStreams::Multiply(const Matrix& a, const Matrix& b, uint64_t modulus) {
  Matrix product;
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j) {
      uint64_t sum = 0;
      for (size_t k = 0; k < 3; ++k) sum = (sum + a[i][k] * b[k][j] % modulus) % modulus;
      product[i][j] = sum;
    }
  return product;
}

RandomStreams::Vector RandomStreams::Apply(const Matrix& a, const Vector& v, uint64_t modulus) {
  Vector product;
  for (size_t i = 0; i < 3; ++i) {
    uint64_t sum = 0;
    for (size_t k = 0; k < 3; ++k) sum = (sum + a[i][k] * v[k] % modulus) % modulus;
    product[i] = sum;
  }
  return product;
}

RandomStreams::Matrix RandomStreams::Power2(Matrix a, unsigned doublings, uint64_t modulus) {
  for (unsigned i = 0; i < doublings; ++i) a = Multiply(a, a, modulus);
  return a;
}

RandomStreams::RandomStreams(uint32_t seed, uint32_t run, uint64_t stream) {
  // One step of each component, as a matrix on (s[n-3], s[n-2], s[n-1]).
  const Matrix step_x = {{{0, 1, 0}, {0, 0, 1}, {kM1 - kA13n, kA12, 0}}};
  const Matrix step_y = {{{0, 1, 0}, {0, 0, 1}, {kM2 - kA23n, 0, kA21}}};
  stream_x_ = Power2(step_x, 127, kM1);
  stream_y_ = Power2(step_y, 127, kM2);
  const Matrix sub_x = Power2(step_x, 76, kM1), sub_y = Power2(step_y, 76, kM2);
  first_x_ = first_y_ = {seed, seed, seed};
  for (uint32_t i = 0; i < run; ++i) {
    first_x_ = Apply(sub_x, first_x_, kM1);
    first_y_ = Apply(sub_y, first_y_, kM2);
  }
  SkipStreams(stream);
  x_ = first_x_;
  y_ = first_y_;
}

double RandomStreams::Draw(Vector& x, Vector& y) const {
  const uint64_t p1 = (kA12 * x[1] + (kM1 - kA13n) * x[0] % kM1) % kM1;
  x = {x[1], x[2], p1};
  const uint64_t p2 = (kA21 * y[2] + (kM2 - kA23n) * y[0] % kM2) % kM2;
  y = {y[1], y[2], p2};
  constexpr double kNorm = 1.0 / (static_cast<double>(kM1) + 1.0);
  const auto difference = static_cast<double>(p1) - static_cast<double>(p2);
  return (p1 > p2 ? difference : difference + static_cast<double>(kM1)) * kNorm;
}

double RandomStreams::FirstOfNextStream() {
  x_ = first_x_;
  y_ = first_y_;
  SkipStreams(1);
  return Next();
}

double RandomStreams::Next() { return Draw(x_, y_); }

void RandomStreams::SkipStreams(uint64_t count) {
  Matrix x = stream_x_, y = stream_y_;
  for (; count > 0; count >>= 1) {
    if (count & 1) {
      first_x_ = Apply(x, first_x_, kM1);
      first_y_ = Apply(y, first_y_, kM2);
    }
    if (count == 1) break;
    x = Multiply(x, x, kM1);
    y = Multiply(y, y, kM2);
  }
}

LibraryRandom::LibraryRandom() {
  int64_t value = 1;
  for (uint32_t& word : state_) {
    word = static_cast<uint32_t>(value);
    value = 16807 * value % 2147483647;  // Park and Miller
  }
  for (int i = 0; i < 310; ++i) Next();
}

uint32_t LibraryRandom::Next() {
  // state_[at_] is 31 steps old, the one 28 places on (3 steps back) is added to it.
  state_[at_] += state_[(at_ + 28) % 31];
  const uint32_t value = state_[at_] >> 1;
  at_ = (at_ + 1) % 31;
  return value;
}

}  // namespace astra_ns3
