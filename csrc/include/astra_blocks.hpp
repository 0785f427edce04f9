// SPDX-License-Identifier: MIT
//
// Blocks: an array that grows without being copied, which would take twice the memory for a while,
// and of which no more is touched than there is.  Values stay where they are.
#ifndef ASTRA_BLOCKS_HPP
#define ASTRA_BLOCKS_HPP

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace astra {

template <class T>
class Blocks {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  Blocks() = default;
  Blocks(Blocks&& other) noexcept
      : blocks_(std::move(other.blocks_)), size_(std::exchange(other.size_, 0)) {}
  Blocks(const Blocks& other) {
    for (const Block& block : other.blocks_) {
      const size_t before = blocks_.size() * kLength;
      add_block();
      const size_t count = std::min(kLength, other.size_ - before);
      std::memcpy(static_cast<void*>(blocks_.back().get()), block.get(), count * sizeof(T));
    }
    size_ = other.size_;
  }
  Blocks& operator=(Blocks other) noexcept {
    blocks_.swap(other.blocks_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Blocks() = default;

  size_t size() const { return size_; }
  T& operator[](size_t i) { return blocks_[i / kLength][i % kLength]; }
  const T& operator[](size_t i) const { return blocks_[i / kLength][i % kLength]; }

  T& emplace_back() {
    if (size_ == blocks_.size() * kLength) add_block();
    return *new (&(*this)[size_++]) T();
  }
  // To more.
  void resize(size_t size) {
    while (size_ < size) emplace_back();
  }

  template <class A>
  void visit(A& archive) {
    archive.length(*this);
    for (size_t i = 0; i < size_; ++i) archive((*this)[i]);
  }

 private:
  static constexpr size_t kLength = size_t{1} << 14;  // a block's address is at hand for millions
  struct Free {
    void operator()(T* block) const { ::operator delete(block, std::align_val_t{alignof(T)}); }
  };
  // The values of a block are made one by one.
  using Block = std::unique_ptr<T[], Free>;

  void add_block() {
    void* room = ::operator new(kLength * sizeof(T), std::align_val_t{alignof(T)});
    blocks_.emplace_back(static_cast<T*>(room));
  }

  std::vector<Block> blocks_;
  size_t size_ = 0;
};

}  // namespace astra

#endif  // ASTRA_BLOCKS_HPP
