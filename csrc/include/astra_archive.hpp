// SPDX-License-Identifier: MIT
//
// astra_archive.hpp: the state of a simulation as bytes, and back.  One function says what a state
// consists of, for both ways:
//
//   template <class A> void visit(A& archive) { archive(now_ps, queue, names); }
//
// A is Writer or Reader (A::kReads).  Equal states give equal bytes.  Bytes are sealed with what
// they belong to and a checksum, so damage is found before anything is read.
#ifndef ASTRA_ARCHIVE_HPP
#define ASTRA_ARCHIVE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <queue>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace astra {

// The bytes are damaged, or not those of this state.
struct ArchiveError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// FNV-1a, eight bytes at a time.
class Checksum {
 public:
  void add(const void* data, size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (; size >= sizeof(uint64_t); size -= sizeof(uint64_t), bytes += sizeof(uint64_t)) {
      uint64_t word;
      std::memcpy(&word, bytes, sizeof word);
      mix(word);
    }
    for (; size > 0; --size) mix(*bytes++);
  }
  void add(const std::string& text) {
    add(text.data(), text.size());
    mix(text.size());
  }
  uint64_t value() const { return value_; }

 private:
  void mix(uint64_t word) {
    value_ = (value_ ^ word) * 0x100000001B3u;
    value_ ^= value_ >> 29;
  }
  uint64_t value_ = 0xCBF29CE484222325u;
};

namespace detail {

template <class T, class A, class = void>
struct Visits : std::false_type {};
template <class T, class A>
struct Visits<T, A, std::void_t<decltype(std::declval<T&>().visit(std::declval<A&>()))>>
    : std::true_type {};

// Copied byte by byte: no padding, no pointer.
template <class T>
constexpr bool kPlain = std::is_arithmetic_v<T> || std::is_enum_v<T> ||
                        (std::is_trivially_copyable_v<T> && std::is_class_v<T> &&
                         std::has_unique_object_representations_v<T>);

// What both ways have in common: which parts a value has.
template <class A>
class Parts {
 public:
  template <class... T>
  void operator()(T&... values) {
    (one(values), ...);
  }

 private:
  A& self() { return static_cast<A&>(*this); }

  template <class T>
  void one(T& value) {
    if constexpr (Visits<T, A>::value)
      value.visit(self());
    else
      plain(value);
  }
  template <class T>
  void plain(T& value) {
    static_assert(kPlain<T>, "give it a visit()");
    self().raw(&value, sizeof value);
  }
  template <class T, size_t n>
  void one(T (&values)[n]) {
    for (T& value : values) one(value);
  }
  void one(std::string& text) {
    self().length(text);
    self().raw(text.data(), text.size());
  }
  template <class T>
  void one(std::vector<T>& values) {
    self().length(values);
    if constexpr (kPlain<T> && !Visits<T, A>::value)
      self().raw(values.data(), values.size() * sizeof(T));
    else
      for (T& value : values) one(value);
  }
  template <class T>
  void one(std::deque<T>& values) {
    self().length(values);
    for (T& value : values) one(value);
  }
  template <class T, class U>
  void one(std::pair<T, U>& value) {
    one(value.first);
    one(value.second);
  }
  template <class... T>
  void one(std::tuple<T...>& value) {
    std::apply([this](T&... parts) { (one(parts), ...); }, value);
  }
  template <class T>
  void one(std::optional<T>& value) {
    bool there = value.has_value();
    plain(there);
    if (there && !value) value.emplace();
    if (!there) value.reset();
    if (there) one(*value);
  }
  template <class K, class V, class... More>
  void one(std::map<K, V, More...>& values) {
    std::vector<std::pair<K, V>> items;
    if constexpr (!A::kReads) items.assign(values.begin(), values.end());
    one(items);
    if constexpr (A::kReads) values = std::map<K, V, More...>(items.begin(), items.end());
  }
  template <class K, class V, class... More>
  void one(std::unordered_map<K, V, More...>& values) {
    sorted<std::pair<K, V>>(values);
  }
  template <class K, class... More>
  void one(std::unordered_set<K, More...>& values) {
    sorted<K>(values);
  }
  // In ascending order, whatever order the container has.
  template <class Item, class Container>
  void sorted(Container& values) {
    std::vector<Item> items;
    if constexpr (!A::kReads) {
      items.assign(values.begin(), values.end());
      std::sort(items.begin(), items.end());
    }
    one(items);
    if constexpr (A::kReads) values = Container(items.begin(), items.end());
  }
  // What is taken from the top, in that order.
  template <class T, class Order>
  void one(std::priority_queue<T, std::vector<T>, Order>& values) {
    std::vector<T> items;
    if constexpr (!A::kReads)
      for (auto rest = values; !rest.empty(); rest.pop()) items.push_back(rest.top());
    one(items);
    if constexpr (A::kReads) {
      values = {};
      for (const T& item : items) values.push(item);
    }
  }
};

}  // namespace detail

class Writer : public detail::Parts<Writer> {
 public:
  static constexpr bool kReads = false;

  // The bytes, for someone who knows `owner` (a name, a version, a configuration).
  std::string sealed(uint64_t owner) const {
    Checksum sum;
    sum.add(bytes_.data(), bytes_.size());
    const uint64_t head[] = {kMagic, owner, bytes_.size(), sum.value()};
    std::string all(reinterpret_cast<const char*>(head), sizeof head);
    return all += bytes_;
  }

  void raw(const void* data, size_t size) {
    if (size > 0) bytes_.append(static_cast<const char*>(data), size);
  }
  template <class T>
  void length(const T& values) {
    const uint64_t size = values.size();
    raw(&size, sizeof size);
  }

  static constexpr uint64_t kMagic = 0x31455641534E5341u;  // "ASNSAVE1"

 private:
  std::string bytes_;
};

class Reader : public detail::Parts<Reader> {
 public:
  static constexpr bool kReads = true;

  Reader(const void* data, size_t size, uint64_t owner)
      : at_(static_cast<const char*>(data)), end_(at_ + size) {
    uint64_t head[4];
    if (size < sizeof head) throw ArchiveError("the saved bytes are cut off");
    raw(head, sizeof head);
    if (head[0] != Writer::kMagic) throw ArchiveError("these are no saved bytes");
    if (head[2] != left()) throw ArchiveError("the saved bytes are cut off");
    Checksum sum;
    sum.add(at_, left());
    if (head[3] != sum.value()) throw ArchiveError("the saved bytes are damaged");
    if (head[1] != owner)
      throw ArchiveError("the saved bytes are those of another configuration or version");
  }

  // All of it has been read.
  void finish() const {
    if (at_ != end_) throw ArchiveError("the saved bytes hold more than this state");
  }

  void raw(void* data, size_t size) {
    if (size > left()) throw ArchiveError("the saved bytes hold less than this state");
    if (size > 0) std::memcpy(data, at_, size);
    at_ += size;
  }
  template <class T>
  void length(T& values) {
    uint64_t size = 0;
    raw(&size, sizeof size);
    // Every value takes a byte at least.
    if (size > left()) throw ArchiveError("the saved bytes hold less than this state");
    values.resize(static_cast<size_t>(size));
  }

 private:
  size_t left() const { return static_cast<size_t>(end_ - at_); }
  const char *at_, *end_;
};

}  // namespace astra

#endif  // ASTRA_ARCHIVE_HPP
