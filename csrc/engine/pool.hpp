// SPDX-License-Identifier: MIT
//
// Objects by index, used again after they are given back.  Nobody keeps an address across a call
// that a copy or a file of the state would have to mend; within one call a reference stays good,
// because objects do not move.
#ifndef ASTRA_ENGINE_POOL_HPP
#define ASTRA_ENGINE_POOL_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace engine {

template <class T, size_t kChunk = 64>
class Pool {
 public:
  Pool() = default;
  Pool(Pool&&) noexcept = default;
  Pool& operator=(Pool&&) noexcept = default;
  Pool(const Pool& other) : size_(other.size_), free_(other.free_) {
    for (const Chunk& chunk : other.chunks_) {
      chunks_.push_back(std::make_unique<T[]>(kChunk));
      for (size_t i = 0; i < kChunk; ++i) chunks_.back()[i] = chunk[i];
    }
  }
  Pool& operator=(const Pool& other) { return *this = Pool(other); }
  ~Pool() = default;

  int32_t take() {
    if (!free_.empty()) {
      const int32_t index = free_.back();
      free_.pop_back();
      return index;
    }
    if (size_ == chunks_.size() * kChunk) chunks_.push_back(std::make_unique<T[]>(kChunk));
    return static_cast<int32_t>(size_++);
  }
  void give_back(int32_t index) { free_.push_back(index); }

  T& operator[](int64_t index) {
    const size_t i = static_cast<size_t>(index);
    return chunks_[i / kChunk][i % kChunk];
  }
  const T& operator[](int64_t index) const {
    const size_t i = static_cast<size_t>(index);
    return chunks_[i / kChunk][i % kChunk];
  }

  // How many there have ever been at once.
  size_t size() const { return size_; }

  template <class A>
  void visit(A& archive) {
    archive(size_, free_);
    while (chunks_.size() * kChunk < size_) chunks_.push_back(std::make_unique<T[]>(kChunk));
    for (size_t i = 0; i < size_; ++i) archive((*this)[static_cast<int64_t>(i)]);
  }

 private:
  using Chunk = std::unique_ptr<T[]>;
  std::vector<Chunk> chunks_;
  size_t size_ = 0;
  std::vector<int32_t> free_;
};

}  // namespace engine

#endif  // ASTRA_ENGINE_POOL_HPP
