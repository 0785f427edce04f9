// SPDX-License-Identifier: MIT
//
// A Program: tables of the records that astra_bridge/program.py lays out.
#ifndef ASTRA_ENGINE_PROGRAM_HPP
#define ASTRA_ENGINE_PROGRAM_HPP

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "records.hpp"  // made by make_records.py

namespace engine {

// Rows that somebody else holds, until rows are appended.
template <class T>
class Table {
 public:
  Table() = default;
  Table(const T* data, size_t size) : data_(data), size_(size) {}
  Table(const Table& other) : own_(other.own_), data_(other.data_), size_(other.size_) { point(); }
  Table(Table&& other) noexcept
      : own_(std::move(other.own_)), data_(other.data_), size_(other.size_) {
    point();
  }
  Table& operator=(Table other) noexcept {
    own_ = std::move(other.own_);
    data_ = other.data_;
    size_ = other.size_;
    point();
    return *this;
  }
  ~Table() = default;

  size_t size() const { return size_; }
  const T& operator[](int64_t i) const { return data_[i]; }
  void append(const Table& more) {
    if (more.size_ == 0) return;
    if (own_.empty()) own_.assign(data_, data_ + size_);
    own_.insert(own_.end(), more.data_, more.data_ + more.size_);
    size_ = own_.size();
    point();
  }

 private:
  void point() {
    if (!own_.empty()) data_ = own_.data();
  }
  std::vector<T> own_;
  const T* data_ = nullptr;
  size_t size_ = 0;
};

#define ENGINE_MEMBER(name, Row) Table<Row> name;
#define ENGINE_APPEND(name, Row) name.append(fragment.name);
#define ENGINE_LEAVE(name, Row)

struct Program {
  ENGINE_TABLES(ENGINE_MEMBER, ENGINE_MEMBER)
  int32_t levels = 1, queues_per_level = 1, alternate_slots = 0;
  int64_t rendezvous_bytes = 0;
  bool receives_at_once = false;

  int32_t ranks() const { return static_cast<int32_t>(machine_of_rank.size()); }

  // Rows of `fragment` come behind ours; its references already count ours.
  void append(const Program& fragment) {
    ENGINE_TABLES(ENGINE_APPEND, ENGINE_LEAVE)
    alternate_slots += fragment.alternate_slots;
  }
};

#undef ENGINE_MEMBER
#undef ENGINE_APPEND
#undef ENGINE_LEAVE

}  // namespace engine

#endif  // ASTRA_ENGINE_PROGRAM_HPP
