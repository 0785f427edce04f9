// SPDX-License-Identifier: MIT
// The protobuf wire format, bounds-checked.  It accepts and refuses what protobuf's own parser
// (upb) does, so that the native and the pure-Python reader agree on damaged files too.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace trace {

enum Wire : uint32_t {
  VARINT = 0,
  FIXED64 = 1,
  LEN = 2,
  START_GROUP = 3,
  END_GROUP = 4,
  FIXED32 = 5
};

constexpr int kMaxDepth = 100;  // nesting of messages and groups, upb's limit

struct Malformed {};  // thrown; the caller knows which record it was reading

inline uint64_t load_fixed(const uint8_t* p, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) value |= uint64_t{p[i]} << (8 * i);
  return value;
}

class Cursor {
 public:
  explicit Cursor(std::string_view bytes, int depth = kMaxDepth)
      : p_(reinterpret_cast<const uint8_t*>(bytes.data())),
        end_(p_ + bytes.size()),
        depth_(depth) {}

  bool done() const { return p_ == end_; }
  int depth() const { return depth_; }

  uint64_t varint() {
    if (p_ != end_ && *p_ < 0x80) return *p_++;
    return long_varint(10);
  }

  uint64_t fixed(size_t size) {
    const uint8_t* at = take(size);
    return load_fixed(at, size);
  }

  std::string_view bytes() {
    const uint64_t size = p_ != end_ && *p_ < 0x80 ? *p_++ : long_varint(5);
    if (size > INT32_MAX) throw Malformed{};
    const uint8_t* at = take(size);
    return {reinterpret_cast<const char*>(at), static_cast<size_t>(size)};
  }

  // Reads a tag; returns the field number.
  uint32_t tag(uint32_t& wire) {
    const uint32_t field = tag_or_zero(wire);
    if (field == 0) throw Malformed{};
    return field;
  }

  // Skips the value of a field that nobody wants.
  void skip(uint32_t field, uint32_t wire) {
    switch (wire) {
      case VARINT:
        varint();
        return;
      case FIXED64:
        take(8);
        return;
      case LEN:
        bytes();
        return;
      case FIXED32:
        take(4);
        return;
      case START_GROUP:
        skip_group(field);
        return;
      default:
        throw Malformed{};  // an end without a start, or wire type 6 or 7
    }
  }

 private:
  const uint8_t* take(uint64_t size) {
    if (size > static_cast<uint64_t>(end_ - p_)) throw Malformed{};
    const uint8_t* at = p_;
    p_ += size;
    return at;
  }

  uint64_t long_varint(int max_bytes) {
    uint64_t value = 0;
    for (int i = 0; i < max_bytes && p_ != end_; ++i) {
      const uint8_t byte = *p_++;
      value |= uint64_t{byte & 0x7Fu} << (7 * i);
      if (byte < 0x80) return value;
    }
    throw Malformed{};
  }

  uint32_t tag_or_zero(uint32_t& wire) {
    const uint64_t tag = p_ != end_ && *p_ < 0x80 ? *p_++ : long_varint(5);
    if (tag > UINT32_MAX) throw Malformed{};
    wire = tag & 7;
    return static_cast<uint32_t>(tag >> 3);
  }

  void skip_group(uint32_t group) {
    if (--depth_ < 0) throw Malformed{};
    for (;;) {
      uint32_t wire;
      // Inside a group that it skips, upb accepts field 0 (since protobuf 7).
      const uint32_t field = tag_or_zero(wire);
      if (wire == END_GROUP) {
        if (field != group) throw Malformed{};
        ++depth_;
        return;
      }
      skip(field, wire);
    }
  }

  const uint8_t* p_;
  const uint8_t* end_;
  int depth_;
};

}  // namespace trace
