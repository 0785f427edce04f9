// SPDX-License-Identifier: MIT
#include "kineto.hpp"

#include <array>
#include <charconv>
#include <limits>
#include <system_error>

namespace trace {
namespace {

// A value was read; the text ends before; or it is none that is plain.
enum class Got : int8_t { kValue, kEnd, kOdd };

// An operator that ends so little before the one around it may end after it in whole ns.
constexpr double kRoundingUs = 0.002;
constexpr int kMostDepth = 64;

// Which bytes stand for themselves in a string; the zero behind the text is none of them.
constexpr std::array<bool, 256> plain_bytes() {
  std::array<bool, 256> plain{};
  for (size_t i = 0x20; i < plain.size(); ++i) plain[i] = i != '"' && i != '\\';
  return plain;
}
constexpr std::array<bool, 256> kPlain = plain_bytes();

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Cursor {
 public:
  explicit Cursor(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  const char* at() const { return at_; }
  char here() const { return *at_; }
  void next() { ++at_; }

  void space() {
    while (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t') ++at_;
  }

  // One of two characters, and spaces around it.
  Got sign(char one, char other, char& found) {
    space();
    found = *at_;
    if (found != one && found != other) return odd();
    ++at_;
    space();
    return Got::kValue;
  }

  // A string, without its quotes, as it stands here.
  Got string(std::string_view& text, bool& escaped) {
    if (*at_ != '"') return odd();
    const char* first = ++at_;
    escaped = false;
    for (;;) {
      while (kPlain[static_cast<unsigned char>(*at_)]) ++at_;
      if (*at_ == '"') break;
      if (*at_ != '\\') return odd();
      escaped = true;
      if (end_ - at_ < 2) return Got::kEnd;
      at_ += 2;
    }
    text = {first, static_cast<size_t>(at_ - first)};
    ++at_;
    return Got::kValue;
  }

  Got number(double& value) {
    const char* first = at_;
    const Got got = digits();
    if (got != Got::kValue) return got;
    const auto read = std::from_chars(first, at_, value);
    return read.ec == std::errc() && read.ptr == at_ ? Got::kValue : Got::kOdd;
  }

  Got whole(int64_t& value) {
    const char* first = at_;
    const Got got = digits();
    if (got != Got::kValue) return got;
    const auto read = std::from_chars(first, at_, value);
    return read.ec == std::errc() && read.ptr == at_ ? Got::kValue : Got::kOdd;
  }

  // Any value, as it stands here.
  Got any(std::string_view& text) {
    const char* first = at_;
    uint64_t objects = 0;  // a bit per depth
    int depth = 0;
    do {
      const char c = *at_;
      switch (c) {
        case '"': {
          std::string_view inner;
          bool escaped = false;
          const Got got = string(inner, escaped);
          if (got != Got::kValue) return got;
          break;
        }
        case '{':
        case '[':
          if (depth == kMostDepth) return Got::kOdd;
          objects = objects << 1 | static_cast<uint64_t>(c == '{');
          ++depth;
          ++at_;
          break;
        case '}':
        case ']':
          if (depth == 0 || (objects & 1) != static_cast<uint64_t>(c == '}')) return odd();
          objects >>= 1;
          --depth;
          ++at_;
          break;
        case 't':
        case 'f':
        case 'n': {
          const Got got = literal();
          if (got != Got::kValue) return got;
          break;
        }
        case ' ':
        case '\n':
        case '\r':
        case '\t':
        case ',':
        case ':':
          if (depth == 0) return odd();
          ++at_;
          break;
        default: {
          const Got got = digits();
          if (got != Got::kValue) return got;
        }
      }
    } while (depth > 0);
    text = {first, static_cast<size_t>(at_ - first)};
    return Got::kValue;
  }

  Got odd() const { return at_ >= end_ ? Got::kEnd : Got::kOdd; }

 private:
  Got digits() {
    if (*at_ == '-') ++at_;
    if (!is_digit(*at_)) return odd();
    if (*at_ == '0' && is_digit(at_[1])) return Got::kOdd;
    while (is_digit(*at_)) ++at_;
    if (*at_ == '.') {
      ++at_;
      if (!is_digit(*at_)) return odd();
      while (is_digit(*at_)) ++at_;
    }
    if (*at_ == 'e' || *at_ == 'E') {
      ++at_;
      if (*at_ == '+' || *at_ == '-') ++at_;
      if (!is_digit(*at_)) return odd();
      while (is_digit(*at_)) ++at_;
    }
    return at_ >= end_ ? Got::kEnd : Got::kValue;  // more digits may follow
  }

  Got literal() {
    for (const std::string_view word : {"true", "false", "null"}) {
      if (*at_ != word[0]) continue;
      const size_t left = static_cast<size_t>(end_ - at_);
      if (std::string_view(at_, left < word.size() ? left : word.size()) !=
          word.substr(0, left < word.size() ? left : word.size()))
        return Got::kOdd;
      if (left < word.size()) return Got::kEnd;
      at_ += word.size();
      return Got::kValue;
    }
    return Got::kOdd;
  }

  const char *at_, *end_;
};

// Call `value(key)` for each key of an object, at its value.
template <class Value>
Got object(Cursor& cursor, const Value& value) {
  if (cursor.here() != '{') return cursor.odd();
  cursor.next();
  cursor.space();
  if (cursor.here() == '}') {
    cursor.next();
    return Got::kValue;
  }
  for (;;) {
    std::string_view key;
    bool escaped = false;
    char sign = 0;
    Got got = cursor.string(key, escaped);
    if (got == Got::kValue && escaped) got = Got::kOdd;
    if (got == Got::kValue) got = cursor.sign(':', ':', sign);
    if (got == Got::kValue) got = value(key);
    if (got != Got::kValue) return got;
    cursor.space();
    if (cursor.here() == '}') {
      cursor.next();
      return Got::kValue;
    }
    got = cursor.sign(',', ',', sign);
    if (got != Got::kValue) return got;
  }
}

}  // namespace

struct KinetoScanner::Event {
  enum Key { kPh = 1, kCat = 2, kName = 4, kPid = 8, kTid = 16, kTs = 32, kDur = 64, kArgs = 128 };
  int seen = 0;
  EventKind kind = EventKind::kOther;
  bool complete = false;  // ph is X
  std::string_view name, pid = "0", tid = "0", args, text;
  double start_us = 0, took_us = 0;
  int64_t correlation = -1, device = -1, stream = -1;
  bool collective = false;

  // What is of interest in the arguments of a call of the runtime, and of an activity of the GPU.
  Got read_args(Cursor& cursor) {
    int found = 0;
    const char* first = cursor.at();
    const Got got = object(cursor, [&](std::string_view key) {
      const auto once = [&](int bit) {
        const bool twice = (found & bit) != 0;
        found |= bit;
        return !twice;
      };
      std::string_view value;
      if (key == "correlation") return once(1) ? cursor.whole(correlation) : Got::kOdd;
      if (key == "device") return once(2) ? cursor.whole(device) : Got::kOdd;
      if (key == "stream") return once(4) ? cursor.whole(stream) : Got::kOdd;
      if (key != "Collective name") return cursor.any(value);
      bool escaped = false;
      const Got text = once(8) ? cursor.string(value, escaped) : Got::kOdd;
      collective = !value.empty();
      return text;
    });
    args = {first, static_cast<size_t>(cursor.at() - first)};
    return got;
  }

  bool has_link() const { return kind == EventKind::kRuntime || kind == EventKind::kGpu; }

  Got read(Cursor& cursor, const std::unordered_map<std::string_view, EventKind>& categories) {
    const char* first = cursor.at();
    const auto once = [&](Key key) {
      const bool twice = (seen & key) != 0;
      seen |= key;
      return !twice;
    };
    bool read_already = false;
    const auto value = [&](std::string_view key) {
      std::string_view text;
      bool escaped = false;
      Got got = Got::kOdd;
      if (key == "ph" && once(kPh)) {
        got = cursor.string(text, escaped);
        complete = text == "X";
        return escaped ? Got::kOdd : got;
      }
      if (key == "cat" && once(kCat)) {
        got = cursor.string(text, escaped);
        const auto known = categories.find(text);
        if (known != categories.end()) kind = known->second;
        return escaped ? Got::kOdd : got;
      }
      if (key == "name" && once(kName)) return cursor.string(name, escaped);
      if (key == "ts" && once(kTs)) return cursor.number(start_us);
      if (key == "dur" && once(kDur)) return cursor.number(took_us);
      if ((key == "pid" && once(kPid)) || (key == "tid" && once(kTid))) {
        if (cursor.here() == '{' || cursor.here() == '[') return Got::kOdd;
        return cursor.any(key == "pid" ? pid : tid);
      }
      if (key == "args" && once(kArgs)) {
        read_already = has_link() && cursor.here() == '{';
        return read_already ? read_args(cursor) : cursor.any(args);
      }
      for (const std::string_view known : {"ph", "cat", "name", "ts", "dur", "pid", "tid", "args"})
        if (key == known) return Got::kOdd;  // a second time
      return cursor.any(text);
    };
    Got got = object(cursor, value);
    if (got != Got::kValue) return got;
    text = {first, static_cast<size_t>(cursor.at() - first)};
    if (!complete || !has_link()) return got;
    if ((seen & kArgs) != 0 && !read_already) {
      Cursor inner(args);  // which stood before the category
      got = args.front() == '{' ? read_args(inner) : Got::kOdd;
      if (got != Got::kValue) return Got::kOdd;
    }
    const bool placed = kind == EventKind::kRuntime || (device >= 0 && stream >= 0);
    return placed ? got : Got::kOdd;
  }
};

KinetoScanner::KinetoScanner(const std::vector<std::pair<std::string, int>>& categories,
                             KinetoNames names)
    : names_(std::move(names)) {
  for (const auto& [text, kind] : categories) {
    category_texts_.push_back(text);
    categories_[category_texts_.back()] = static_cast<EventKind>(kind);
  }
}

size_t KinetoScanner::scan(std::string_view text, KinetoColumns& out, bool& plain) {
  Cursor cursor(text);
  size_t taken = 0;
  for (;;) {
    Event event;
    cursor.space();
    Got got = cursor.here() == ']' ? Got::kEnd : event.read(cursor, categories_);
    cursor.space();
    if (got == Got::kValue && cursor.here() != ',')
      got = cursor.here() == ']' ? Got::kEnd : cursor.odd();
    plain = got != Got::kOdd;
    if (got != Got::kValue) return taken;
    cursor.next();
    taken = static_cast<size_t>(cursor.at() - text.data());
    if (event.complete && event.kind != EventKind::kOther) take(event, out);
  }
}

int32_t KinetoScanner::thread_of(const Event& event) {
  const size_t pid = event.pid.size();
  const std::string_view last = last_thread_;
  if (last_ < 0 || last.size() != pid + 1 + event.tid.size() || last.substr(0, pid) != event.pid ||
      last.substr(pid + 1) != event.tid) {
    last_thread_.assign(event.pid).append(1, '\0').append(event.tid);
    last_ = threads_.of(last_thread_,
                        [&](std::string_view) { return names_.thread(event.pid, event.tid); });
    const size_t count = static_cast<size_t>(last_) + 1;
    constexpr double kNever = -std::numeric_limits<double>::infinity();
    if (outermost_.size() < count) outermost_.resize(count, {kNever, kNever});
  }
  return last_;
}

void KinetoScanner::take(const Event& event, KinetoColumns& out) {
  if (event.kind == EventKind::kSync) {
    out.rest.push_back(event.text);
    return;
  }
  if (event.kind == EventKind::kGpu) {
    const auto& [name, communicates] = kernels_.of(event.name, names_.kernel);
    if (communicates || event.collective)
      out.gpu_args.emplace_back(static_cast<int64_t>(out.gpu_name.size()), event.args);
    out.gpu_device.push_back(event.device);
    out.gpu_stream.push_back(event.stream);
    out.gpu_start_us.push_back(event.start_us);
    out.gpu_took_us.push_back(event.took_us);
    out.gpu_name.push_back(name);
    out.gpu_correlation.push_back(event.correlation);
    return;
  }
  const int32_t thread = thread_of(event);
  if (event.kind == EventKind::kRuntime) {
    out.call_thread.push_back(thread);
    out.call_start_us.push_back(event.start_us);
    out.call_took_us.push_back(event.took_us);
    out.call_name.push_back(calls_.of(event.name, names_.call));
    out.call_correlation.push_back(event.correlation);
    return;
  }
  if (event.kind == EventKind::kNote || communicates_.of(event.name, names_.communicates)) {
    out.rest.push_back(event.text);
    return;
  }
  Outer& outer = outermost_[static_cast<size_t>(thread)];
  if (outer.start_us <= event.start_us && event.start_us + event.took_us < outer.end_us)
    return;  // inside of another operator
  outer = {event.start_us, event.start_us + event.took_us - kRoundingUs};
  out.op_thread.push_back(thread);
  out.op_start_us.push_back(event.start_us);
  out.op_took_us.push_back(event.took_us);
}

}  // namespace trace
