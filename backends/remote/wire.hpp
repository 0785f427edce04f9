// SPDX-License-Identifier: MIT
//
// What crosses a connection: frames with the records of astra_net.h as they stand in memory.  Both
// ends are here, so that nothing is said twice; docs/remote.md has the protocol in words.
#ifndef ASTRA_REMOTE_WIRE_HPP
#define ASTRA_REMOTE_WIRE_HPP

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "astra_net.hpp"

namespace remote {

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "records cross as they stand in memory, which must be little-endian"
#endif
static_assert(sizeof(astra_net_transfer) == 48 && sizeof(astra_net_completion) == 32 &&
              sizeof(astra_net_link) == 32);

constexpr char kMagic[9] = "ASTRANET";  // without its NUL: the first 8 bytes of either side
constexpr uint16_t kProtocol = 1;
// The size of saved bytes and of statistics is the only one that grows with a network.
constexpr uint32_t kMostFrame = 0xFFFF0000u;
constexpr uint32_t kMostRecords = 1u << 20;  // of one exchange
constexpr int kMostDepth = 8;                // of parts in parts

enum class Kind : uint16_t {
  kHello = 1,  // u32 version of the contract, text token
  kCreate,     // config
  kLoad,       // config, the rest: bytes
  kDestroy,    // u32 sim, as all that follow
  kSubmit,     // transfers
  kAdvance,    // i64 until, lookahead
  kExchange,   // ExchangeCall, transfers
  kSetLink,    // i32 link, i64 at, f64 scale
  kStats,
  kSnapshot,
  kSave,
  kPeek,
  kInterrupt,  // the one that is not answered
  kWelcome = 64,  // Welcome, text name, version, served
  kReply,         // Reply, then what the call gives; or a message
  kLog,           // i32 level, text
};

// The connection is of no use any more: it was closed, or what came is no frame.
struct Lost : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Head {
  uint32_t size;  // of what follows
  uint16_t protocol;
  uint16_t kind;
};
struct Welcome {
  uint32_t version;  // of the contract, not newer than the one of the hello
  uint32_t entries;  // bit i: has the optional entry i of kEntries
  uint64_t capabilities;
  int64_t resolution_ps, max_in_flight;
  uint32_t traffic_classes, reserved;
};
struct Reply {
  int32_t status, native_code;
  int64_t item;
};
struct AdvanceCall {
  uint32_t sim, reserved;
  int64_t until_ps, lookahead_ps;
};
struct Advanced {
  int64_t now_ps;
  uint32_t stop, reserved;
};
struct ExchangeCall {
  uint32_t sim, capacity;
  int64_t until_ps, until_place, place, now_ps;
};
struct Exchanged {
  int64_t now_ps, next_ps, next_place, place;
  uint32_t stop, reserved;
};
struct SetLinkCall {
  uint32_t sim;
  int32_t link;
  int64_t at_ps;
  double bandwidth_scale;
};

// Of astra_net_backend, in the order of the bits of Welcome::entries.
enum Entry : uint32_t {
  kHasInterrupt = 1,
  kHasSetLink = 2,
  kHasStats = 4,
  kHasSnapshot = 8,
  kHasExchange = 16,
  kHasSave = 32,
  kHasPeek = 64,
};

// A frame that is being written.
class Out {
 public:
  explicit Out(Kind kind) { start(kind); }
  void start(Kind kind) {
    bytes_.clear();
    put(Head{0, kProtocol, static_cast<uint16_t>(kind)});
  }
  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    raw(&value, sizeof value);
  }
  void text(std::string_view text) {
    put(static_cast<uint32_t>(text.size()));
    raw(text.data(), text.size());
  }
  void raw(const void* data, size_t size) {
    if (size > 0) bytes_.append(static_cast<const char*>(data), size);
  }
  char* at(size_t offset) { return bytes_.data() + offset; }

  // The whole of it, with its size.
  std::string_view frame() {
    const size_t size = bytes_.size() - sizeof(Head);
    if (size > kMostFrame)
      throw Lost("is to get a frame of " + std::to_string(size) + " bytes, which is too large");
    const auto written = static_cast<uint32_t>(size);
    std::memcpy(bytes_.data(), &written, sizeof written);
    return {bytes_.data(), bytes_.size()};
  }

 private:
  std::string bytes_;
};

// What came in a frame; whatever it says, no more is read than it holds.
class In {
 public:
  In(Kind kind, const char* data, size_t size) : kind(kind), at_(data), end_(data + size) {}
  Kind kind;

  template <class T>
  T get() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, take(sizeof value), sizeof value);
    return value;
  }
  std::string_view text() {
    const auto size = get<uint32_t>();
    return {take(size), size};
  }
  // As C has it: without a NUL inside.
  std::string name() {
    const std::string_view found = text();
    if (found.find('\0') != std::string_view::npos) throw Lost("sent a text with a NUL inside");
    return std::string(found);
  }
  template <class T>
  std::vector<T> rows(uint64_t count) {
    if (count > left() / sizeof(T)) throw Lost("sent a frame that holds less than it says");
    std::vector<T> found(static_cast<size_t>(count));
    if (count > 0)
      std::memcpy(found.data(), take(found.size() * sizeof(T)), found.size() * sizeof(T));
    return found;
  }
  // All that is left, as records.
  template <class T>
  size_t rest_rows() const {
    if (left() % sizeof(T) != 0) throw Lost("sent a frame that ends inside a record");
    return left() / sizeof(T);
  }
  std::string_view rest() {
    const size_t size = left();
    return {take(size), size};
  }
  void finish() const {
    if (at_ != end_) throw Lost("sent a frame that holds more than its kind has");
  }
  size_t left() const { return static_cast<size_t>(end_ - at_); }

 private:
  const char* take(size_t size) {
    if (size > left()) throw Lost("sent a frame that holds less than its kind has");
    return std::exchange(at_, at_ + size);
  }
  const char *at_, *end_;
};

// A configuration that came in a frame, and what its pointers point to.
class OwnedConfig {
 public:
  explicit OwnedConfig(In& in, int depth = 0) {
    if (depth > kMostDepth) throw Lost("sent parts in parts, without end");
    config_.struct_size = sizeof config_;
    config_.endpoints = in.get<int32_t>();
    config_.nodes = in.get<int32_t>();
    links_ = in.rows<astra_net_link>(in.get<uint64_t>());
    const auto option_count = in.get<uint32_t>();
    for (uint32_t i = 0; i < option_count; ++i) {
      texts_.push_back(std::make_unique<std::string>(in.name()));
      texts_.push_back(std::make_unique<std::string>(in.name()));
      options_.push_back({texts_[texts_.size() - 2]->c_str(), texts_.back()->c_str()});
    }
    const auto part_count = in.get<uint32_t>();
    for (uint32_t i = 0; i < part_count; ++i) {
      texts_.push_back(std::make_unique<std::string>(in.name()));
      inner_.push_back(std::make_unique<OwnedConfig>(in, depth + 1));
      parts_.push_back({texts_.back()->c_str(), inner_.back()->get()});
    }
    config_.links = links_.data();
    config_.link_count = links_.size();
    config_.options = options_.data();
    config_.option_count = options_.size();
    config_.parts = parts_.data();
    config_.part_count = parts_.size();
  }
  OwnedConfig(const OwnedConfig&) = delete;
  OwnedConfig& operator=(const OwnedConfig&) = delete;
  ~OwnedConfig() = default;
  const astra_net_config* get() const { return &config_; }

 private:
  astra_net_config config_{};
  std::vector<astra_net_link> links_;
  std::vector<astra_net_option> options_;
  std::vector<std::unique_ptr<std::string>> texts_;
  std::vector<std::unique_ptr<OwnedConfig>> inner_;
  std::vector<astra_net_part> parts_;
};

// As OwnedConfig reads it; only what no other process could judge is checked: the pointers.
inline void put_config(Out& out, const astra_net_config* given, int depth = 0) {
  const auto invalid = [](const std::string& what, int64_t item = -1) {
    throw astra_net::Error(ASTRA_NET_INVALID, what, item);
  };
  if (given == nullptr || given->struct_size < offsetof(astra_net_config, parts))
    invalid("config is NULL or its struct_size is too small");
  if (depth > kMostDepth) invalid("parts in parts, more than 8 deep");
  if (given->link_count > 0 && given->links == nullptr) invalid("links is NULL");
  if (given->option_count > 0 && given->options == nullptr) invalid("options is NULL");
  out.put(given->endpoints);
  out.put(given->nodes);
  out.put(static_cast<uint64_t>(given->link_count));
  out.raw(given->links, given->link_count * sizeof(astra_net_link));
  out.put(static_cast<uint32_t>(given->option_count));
  for (size_t i = 0; i < given->option_count; ++i) {
    const astra_net_option& option = given->options[i];
    if (option.key == nullptr || option.value == nullptr)
      invalid("option " + std::to_string(i) + " is NULL", static_cast<int64_t>(i));
    out.text(option.key);
    out.text(option.value);
  }
  const bool knows_parts = given->struct_size >= sizeof(astra_net_config);
  const size_t part_count = knows_parts ? given->part_count : 0;
  if (part_count > 0 && given->parts == nullptr) invalid("parts is NULL");
  out.put(static_cast<uint32_t>(part_count));
  for (size_t i = 0; i < part_count; ++i) {
    const astra_net_part& part = given->parts[i];
    if (part.backend == nullptr || part.config == nullptr)
      invalid("part " + std::to_string(i) + " is NULL", static_cast<int64_t>(i));
    out.text(part.backend);
    put_config(out, part.config, depth + 1);
  }
}

// One end of a connection.  Owns its descriptor.
class Socket {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr Clock::time_point kNoLimit = Clock::time_point::max();
  explicit Socket(int descriptor) : descriptor_(descriptor) {
#ifdef SO_NOSIGPIPE  // where send() has no flag for it
    const int yes = 1;
    ::setsockopt(descriptor, SOL_SOCKET, SO_NOSIGPIPE, &yes, sizeof yes);
#endif
  }
  Socket(Socket&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)),
        buffer_(std::move(other.buffer_)),
        begin_(other.begin_),
        end_(other.end_) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  int descriptor() const { return descriptor_; }

  void write(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(descriptor_, bytes.data(), bytes.size(), kNoSignal);
      if (sent >= 0)
        bytes.remove_prefix(static_cast<size_t>(sent));
      else if (errno == EAGAIN || errno == EWOULDBLOCK)
        wait(POLLOUT, kNoLimit);
      else if (errno != EINTR)
        throw Lost(reason());
    }
  }

  // Until this many bytes have come.
  void read(void* out, size_t size, Clock::time_point until = kNoLimit) {
    fill(size, until);
    std::memcpy(out, buffer_.data() + begin_, size);
    begin_ += size;
  }

  // The next frame; what it holds is there until the next call.
  In frame(uint32_t most = kMostFrame, Clock::time_point until = kNoLimit) {
    Head head;
    read(&head, sizeof head, until);
    if (head.protocol != kProtocol)
      throw Lost("speaks version " + std::to_string(head.protocol) +
                 " of the protocol, and this is " + std::to_string(kProtocol));
    if (head.size > most)
      throw Lost("sent a frame of " + std::to_string(head.size) + " bytes; at most " +
                 std::to_string(most) + " are allowed");
    inside_frame_ = true;
    fill(head.size, until);
    inside_frame_ = false;
    const char* data = buffer_.data() + begin_;
    begin_ += head.size;
    return {static_cast<Kind>(head.kind), data, head.size};
  }

  // Whether anything comes, or the other side has ended in good order.
  bool more() {
    if (ahead() > 0) return true;
    begin_ = end_ = 0;
    if (buffer_.empty()) buffer_.resize(kBlock);
    return receive();
  }

  // Bytes that have come and belong to a later frame.
  size_t ahead() const { return end_ - begin_; }

 private:
  static constexpr size_t kBlock = size_t{1} << 16, kStep = size_t{1} << 20;
  static constexpr std::chrono::seconds kStall{30};
#ifdef MSG_NOSIGNAL
  static constexpr int kNoSignal = MSG_NOSIGNAL;
#else
  static constexpr int kNoSignal = 0;
#endif

  static std::string reason() {
    return errno == ECONNRESET || errno == EPIPE
               ? "has closed the connection"
               : "is lost: " + std::generic_category().message(errno);
  }

  // Whether it is ready in time.
  bool wait(short events, Clock::time_point until) const {
    for (;;) {
      int left_ms = -1;
      if (until != kNoLimit) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
        left_ms = static_cast<int>(std::clamp<int64_t>(left.count() + 1, 0, 3'600'000));
      }
      pollfd one{descriptor_, events, 0};
      const int ready = ::poll(&one, 1, left_ms);
      if (ready > 0) return true;
      if (ready == 0) return false;
      if (errno != EINTR) throw Lost(reason());
    }
  }

  // At least `size` bytes in the buffer.  It grows with what comes, not with what is announced.
  // The first byte may take as long as a call takes; inside a frame nobody has a reason to wait.
  void fill(size_t size, Clock::time_point until) {
    if (ahead() >= size) return;
    if (begin_ == end_) begin_ = end_ = 0;
    if (begin_ > 0 && buffer_.size() - begin_ < size) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, ahead());
      end_ -= begin_;
      begin_ = 0;
    }
    while (ahead() < size) {
      const size_t missing = size - ahead();
      if (buffer_.size() - end_ < std::min(missing, kStep))
        buffer_.resize(end_ + std::max(kBlock, std::min(missing, kStep)));
      const bool inside = begin_ != end_ || inside_frame_;
      const auto limit = inside ? std::min(until, Clock::now() + kStall) : until;
      if (limit != kNoLimit && !wait(POLLIN, limit))
        throw Lost(limit == until ? "gave no answer in time" : "has stopped inside a frame");
      if (!receive()) throw Lost("has closed the connection");
    }
  }

  // What there is, or has come after waiting for it; false at the end of all.
  bool receive() {
    for (;;) {
      const ssize_t got = ::recv(descriptor_, buffer_.data() + end_, buffer_.size() - end_, 0);
      if (got >= 0) {
        end_ += static_cast<size_t>(got);
        return got > 0;
      }
      if (errno == EAGAIN || errno == EWOULDBLOCK)
        wait(POLLIN, kNoLimit);
      else if (errno != EINTR)
        throw Lost(reason());
    }
  }

  int descriptor_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  bool inside_frame_ = false;
};

}  // namespace remote

#endif  // ASTRA_REMOTE_WIRE_HPP
