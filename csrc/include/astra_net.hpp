// SPDX-License-Identifier: MIT
//
// astra_net.hpp: help for backends written in C++17.
//
// A backend derives from astra_net::Model, answers two questions (start a transfer; run to a
// time) and ends its file with ASTRA_NET_BACKEND(Class).  Everything that the contract asks of
// every backend alike is here, once: argument and state checks, the order of starts, early stop,
// look-ahead, back-pressure, interrupts, the detection of a stuck network, and the barrier that no
// exception passes.  docs/contract.md has a worked example.
#ifndef ASTRA_NET_HPP
#define ASTRA_NET_HPP

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <new>
#include <queue>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "astra_archive.hpp"
#include "astra_net.h"

namespace astra_net {

// Later than every time [ps].
constexpr int64_t kNever = ASTRA_NET_TIME_NEVER;

// Thrown anywhere in a backend; becomes the status and the astra_net_error of the call.
// The message says item, value, limit and remedy; the name of the call is put before it.
class Error : public std::runtime_error {
 public:
  Error(astra_net_status status, const std::string& message, int64_t item = -1,
        int32_t native_code = 0)
      : std::runtime_error(message), status(status), native_code(native_code), item(item) {}
  astra_net_status status;
  int32_t native_code;
  int64_t item;
};

// a + b [ps]; a sum past the range of time is an error of the model, never an overflow.
inline int64_t add_ps(int64_t a, int64_t b) {
  int64_t sum;
  if (__builtin_add_overflow(a, b, &sum) || sum == kNever)
    throw Error(ASTRA_NET_MODEL, "time passes the range of int64 picoseconds (106 days)");
  return sum;
}

// Adds to a counter that ends up in statistics.
inline void add_bytes(int64_t& sum_bytes, int64_t bytes) {
  if (__builtin_add_overflow(sum_bytes, bytes, &sum_bytes))
    throw Error(ASTRA_NET_MODEL, "the bytes of all transfers pass 2^63");
}

// The counter of places of an exchange: past those of all its starts.
constexpr int64_t kMostPlace = INT64_MAX / 2;  // counting on from here overflows in no run
inline void check_place(const astra_net_exchange& x) {
  const int64_t first_free =
      x.start_count == 0
          ? INT64_MIN
          : std::min(x.starts[x.start_count - 1].id, kMostPlace) + ASTRA_NET_PLACES_PER_TRANSFER;
  if (x.place < first_free || x.place > kMostPlace)
    throw Error(ASTRA_NET_INVALID, "place=" + std::to_string(x.place) +
                                       " must be past the places of all starts, and at most " +
                                       std::to_string(kMostPlace));
}

// Fill a caller-owned error, reading and writing no further than its struct_size.
inline void write_error(astra_net_error* err, const char* call, const char* message, int64_t item,
                        int32_t native_code) noexcept {
  constexpr size_t head = offsetof(astra_net_error, message);
  if (err == nullptr || err->struct_size <= head) return;
  err->native_code = native_code;
  err->item = item;
  const size_t room = std::min<size_t>(err->struct_size - head, sizeof err->message);
  const int length = std::snprintf(err->message, room, "%s: %s", call, message);
  if (length < 0 || static_cast<size_t>(length) < room) return;
  // Truncated: drop a UTF-8 sequence that lost its end.
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(err->message[i]); };
  size_t lead = room - 1;
  while (lead > 0 && (byte(lead - 1) & 0xC0) == 0x80) --lead;
  if (lead == 0 || byte(lead - 1) < 0xC0) return;
  --lead;
  const size_t size = byte(lead) >= 0xF0 ? 4 : byte(lead) >= 0xE0 ? 3 : 2;
  if (lead + size > room - 1) err->message[lead] = '\0';
}

// The barrier: runs `body` (which returns a status) and turns every exception into a status.
template <class Body>
astra_net_status guarded(astra_net_error* err, const char* call, Body&& body) noexcept {
  try {
    return body();
  } catch (const Error& error) {
    write_error(err, call, error.what(), error.item, error.native_code);
    return error.status;
  } catch (const std::bad_alloc&) {
    write_error(err, call, "out of memory", -1, 0);
  } catch (const std::exception& error) {
    write_error(err, call, error.what(), -1, 0);
  } catch (...) {
    write_error(err, call, "unknown exception", -1, 0);
  }
  return ASTRA_NET_INTERNAL;
}

// The options of create(): typed, with ranges.  Each read names its key once; finish() refuses
// the keys that nobody read, so a typo is never silent.
class Options {
 public:
  void add(std::string key, std::string value) { values_[std::move(key)] = std::move(value); }

  std::string text(const std::string& key, const std::string& fallback) {
    known_.push_back(key);
    const auto found = values_.find(key);
    return found == values_.end() ? fallback : found->second;
  }

  int64_t integer(const std::string& key, int64_t fallback, int64_t least = 0,
                  int64_t most = INT64_MAX) {
    const std::string given = text(key, std::to_string(fallback));
    char* end = nullptr;
    errno = 0;
    const long long value = std::strtoll(given.c_str(), &end, 10);
    if (errno != 0 || end == given.c_str() || *end != '\0' || value < least || value > most)
      refuse(key, given,
             "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
    return value;
  }

  double number(const std::string& key, double fallback, double least, double most) {
    known_.push_back(key);
    const auto found = values_.find(key);
    if (found == values_.end()) return fallback;
    char* end = nullptr;
    const double value = std::strtod(found->second.c_str(), &end);
    if (end == found->second.c_str() || *end != '\0' || !(value >= least && value <= most))
      refuse(key, found->second,
             "a number from " + std::to_string(least) + " to " + std::to_string(most));
    return value;
  }

  bool flag(const std::string& key, bool fallback) {
    return choice(key, fallback ? "true" : "false", {"true", "false"}) == "true";
  }

  std::string choice(const std::string& key, const std::string& fallback,
                     const std::vector<std::string>& allowed) {
    const std::string given = text(key, fallback);
    if (std::find(allowed.begin(), allowed.end(), given) == allowed.end())
      refuse(key, given, "one of " + joined(allowed));
    return given;
  }

  void finish() const {
    for (const auto& [key, value] : values_) {
      if (std::find(known_.begin(), known_.end(), key) == known_.end())
        throw Error(ASTRA_NET_INVALID, "option '" + key + "' is unknown; allowed: " +
                                           (known_.empty() ? std::string("none") : joined(known_)));
    }
  }

 private:
  [[noreturn]] static void refuse(const std::string& key, const std::string& given,
                                  const std::string& allowed) {
    throw Error(ASTRA_NET_INVALID,
                "option '" + key + "' is '" + given + "', but must be " + allowed);
  }
  static std::string joined(const std::vector<std::string>& names) {
    std::string all;
    for (const auto& name : names) all += (all.empty() ? "" : ", ") + name;
    return all;
  }

  std::map<std::string, std::string> values_;
  std::vector<std::string> known_;
};

// A backend that another is made of, and what it is to be created with; see Config::take_parts().
struct Part {
  std::string backend;
  const astra_net_backend* table;
  const astra_net_config* config;
};

// What create() got, checked and owned: node numbers are in range, rates are positive and finite.
struct Config {
  int32_t endpoints = 0, nodes = 0;
  std::vector<astra_net_link> links;
  Options options;
  const astra_net_host* host = nullptr;  // during create(); what parts are created with

  // For a backend that is made of others; one that does not ask for them is refused them.
  std::vector<Part> take_parts() { return std::move(parts); }
  std::vector<Part> parts;
};

// The host's log; levels as in Python's logging (10 debug .. 40 error).
class Log {
 public:
  Log() = default;
  explicit Log(const astra_net_host* host) {
    // No further than a host of version 1.0 reaches.
    if (host == nullptr || host->struct_size < offsetof(astra_net_host, lend)) return;
    context_ = host->context;
    log_ = host->log;
  }
  void operator()(int32_t level, const std::string& message) const {
    if (log_ != nullptr) log_(context_, level, message.c_str());
  }

 private:
  void* context_ = nullptr;
  void (*log_)(void*, int32_t, const char*) = nullptr;
};

struct Reached {
  int64_t now_ps;  // the model's clock
  bool idle;       // the model has no event left, at any time
};

// What a backend writes.  Constructed as Model(Config&, const Log&); the class also has
//   static astra_net_info info();   // struct_size and abi_version are filled in for it
class Model {
 public:
  virtual ~Model() = default;

  // Start this transfer at start_ps, which is the present.  Its fields have been checked, and
  // starts of one instant come in ascending id, after everything the model did in that instant.
  virtual void start(const astra_net_transfer& transfer) = 0;

  // Run every event at or before `until_ps` and return { until_ps, ... }; but return at the end of
  // the first instant in which a transfer was delivered, or as soon as interrupted().  `until_ps`
  // may be kNever: then run to a completion or until idle.  May be called again for the present
  // (until_ps == now), when starts have been added to it.
  virtual Reached run(int64_t until_ps) = 0;

  // Optional, each with its capability bit.
  virtual void set_link(int32_t /*link*/, int64_t /*at_ps*/, double /*bandwidth_scale*/) {
    throw Error(ASTRA_NET_UNSUPPORTED, "links cannot be changed");
  }
  virtual std::string stats() { throw Error(ASTRA_NET_UNSUPPORTED, "no statistics"); }
  virtual std::unique_ptr<Model> copy() const {
    throw Error(ASTRA_NET_UNSUPPORTED, "cannot be copied");
  }
  // All that changes, as bytes; read into a fresh model of the same configuration.
  virtual void save(astra::Writer& /*archive*/) {
    throw Error(ASTRA_NET_UNSUPPORTED, "cannot be saved");
  }
  virtual void load(astra::Reader& /*archive*/) {
    throw Error(ASTRA_NET_UNSUPPORTED, "cannot be loaded");
  }
  // Capability PEEK.  The model's next event of its own, kNever if there is none: no delivery comes
  // before it, and run() up to it makes it later.  Changes nothing.
  virtual int64_t next_event_ps() { throw Error(ASTRA_NET_UNSUPPORTED, "cannot be peeked into"); }
  // From any thread, beside what interrupted() says: for what a model runs that has calls of its own.
  virtual void interrupt() noexcept {}
  // How many links set_link() may name, if not those of the configuration.
  virtual int64_t link_count(int64_t configured) const { return configured; }
  // Capability ORDERED.  The starts and the times have been checked; fill every out field.  The
  // model writes x.completions itself and must not call deliver().
  virtual void exchange(astra_net_exchange& /*x*/) {
    throw Error(ASTRA_NET_UNSUPPORTED, "the order inside an instant is not kept");
  }
  // One clause for the message about a stuck network: where transfers wait.
  virtual std::string where_stuck() const { return ""; }

 protected:
  // Report from run() or start(), in ascending time.
  void deliver(int64_t id, int64_t time_ps) { record(id, time_ps, ASTRA_NET_DELIVERED, 0); }
  void lose(int64_t id, int64_t time_ps) {
    record(id, time_ps, ASTRA_NET_DELIVERED, ASTRA_NET_MODEL);
  }
  void sent(int64_t id, int64_t time_ps) { record(id, time_ps, ASTRA_NET_SENT, 0); }
  bool delivered_something() const { return !records_.empty(); }
  // A long run() looks at this between instants.
  bool interrupted() const {
    return interrupt_ != nullptr && interrupt_->load(std::memory_order_relaxed);
  }

 private:
  friend struct ::astra_net_sim;
  template <class A>
  void visit_base(A& archive) {
    archive(records_, last_ps_);
  }
  void record(int64_t id, int64_t time_ps, uint32_t kind, int32_t outcome) {
    if (time_ps < last_ps_)
      throw Error(ASTRA_NET_INTERNAL, "completion of transfer " + std::to_string(id) + " at " +
                                          std::to_string(time_ps) + " ps comes after one at " +
                                          std::to_string(last_ps_) + " ps");
    last_ps_ = time_ps;
    records_.push_back({id, time_ps, kind, outcome, 0});
  }
  std::vector<astra_net_completion> records_;  // since the base last collected them
  int64_t last_ps_ = 0;
  const std::atomic<bool>* interrupt_ = nullptr;
};

}  // namespace astra_net

// One simulation: the checks and the loop around a Model.
struct astra_net_sim {
  using Error = astra_net::Error;
  static constexpr int64_t kNever = astra_net::kNever;

  // `owner` names backend, version and configuration: what saved bytes belong to.
  astra_net_sim(std::unique_ptr<astra_net::Model> model, const astra_net_info& info,
                int32_t endpoints, int32_t links, uint64_t owner)
      : model_(std::move(model)), info_(info), endpoints_(endpoints), links_(links), owner_(owner) {
    model_->interrupt_ = &interrupt_;
  }

  void submit(const astra_net_transfer* items, size_t n, size_t* accepted) {
    enter(Mode::kSubmit);
    need(accepted, "accepted");
    if (n > 0) need(items, "items");
    for (size_t i = 0; i < n; ++i) check(items[i], i);
    // The whole batch is refused or none of it: ids are taken back if one is a duplicate.
    const size_t room = info_.max_in_flight == INT64_MAX
                            ? n
                            : static_cast<size_t>(std::max<int64_t>(
                                  0, info_.max_in_flight - static_cast<int64_t>(ids_.size())));
    for (size_t i = 0; i < n; ++i) {
      if (!ids_.insert(items[i].id).second) {
        for (size_t j = 0; j < i; ++j) ids_.erase(items[j].id);
        invalid("id=" + std::to_string(items[i].id) + " is already in flight", i);
      }
    }
    for (size_t i = room; i < n; ++i) ids_.erase(items[i].id);
    *accepted = std::min(n, room);
    mode_ = Mode::kSubmit;
    for (size_t i = 0; i < *accepted; ++i) {
      astra_net_transfer item = items[i];
      const int64_t off_grid = item.start_ps % info_.resolution_ps;
      if (off_grid != 0) item.start_ps += info_.resolution_ps - off_grid;
      starts_.push(item);
    }
  }

  astra_net_status advance(int64_t until_ps, int64_t lookahead_ps, int64_t* now_ps,
                           uint32_t* stop) {
    enter(Mode::kSubmit);
    need(now_ps, "now_ps");
    need(stop, "stop");
    if (until_ps < now_ps_)
      invalid("until_ps=" + std::to_string(until_ps) + " is before now, " +
              std::to_string(now_ps_) + " ps");
    if (lookahead_ps < 0) invalid("lookahead_ps=" + std::to_string(lookahead_ps) + " is negative");
    if (!ready_.empty())
      throw Error(ASTRA_NET_BAD_STATE,
                  std::to_string(ready_.size() - polled_) + " completions wait for poll()");
    mode_ = Mode::kSubmit;
    bool stopped_by_interrupt = false;
    for (;;) {
      if (until_ps == kNever && ids_.empty()) break;
      if (interrupt_.exchange(false)) {
        stopped_by_interrupt = true;
        break;
      }
      const int64_t target = limit(until_ps, lookahead_ps);
      const int64_t next_start = starts_.empty() ? kNever : starts_.top().start_ps;
      const int64_t goal = std::min(target, next_start);
      const size_t before = ready_.size();
      const astra_net::Reached reached = model_->run(goal);
      collect();
      const bool progress = ready_.size() != before;
      if (reached.idle && starts_.empty()) {
        now_ps_ = std::max(now_ps_, progress ? ready_.back().time_ps : now_ps_);
        if (!ready_.empty()) break;
        if (!ids_.empty()) stuck();
        if (until_ps != kNever) now_ps_ = until_ps;
        break;
      }
      if (progress) {
        now_ps_ = std::max(now_ps_, ready_.back().time_ps);
      } else if (reached.idle || reached.now_ps >= goal) {
        now_ps_ = std::max(now_ps_, goal);
      } else if (reached.now_ps > now_ps_) {
        now_ps_ = reached.now_ps;
      } else if (!interrupt_.load()) {
        throw Error(ASTRA_NET_INTERNAL, "the model stands still at " + std::to_string(now_ps_) +
                                            " ps on its way to " + std::to_string(goal) + " ps");
      }
      bool started = false;
      while (!starts_.empty() && starts_.top().start_ps == now_ps_) {
        const astra_net_transfer transfer = starts_.top();
        starts_.pop();
        model_->start(transfer);
        started = true;
      }
      collect();
      // What was started may end in this same instant: no half instants (R6).
      if (!started && now_ps_ >= limit(until_ps, lookahead_ps)) break;
    }
    *now_ps = now_ps_;
    *stop = !ready_.empty()       ? ASTRA_NET_STOP_COMPLETION
            : until_ps == now_ps_ ? ASTRA_NET_STOP_REACHED
                                  : ASTRA_NET_STOP_IDLE;
    return stopped_by_interrupt ? ASTRA_NET_INTERRUPTED : ASTRA_NET_OK;
  }

  void poll(astra_net_completion* out, size_t capacity, size_t* count) {
    enter(Mode::kSubmit);
    need(count, "count");
    if (capacity > 0) need(out, "out");
    *count = std::min(capacity, ready_.size() - polled_);
    std::copy_n(ready_.begin() + static_cast<std::ptrdiff_t>(polled_), *count, out);
    polled_ += *count;
    if (polled_ < ready_.size()) return;
    ready_.clear();
    polled_ = 0;
  }

  void exchange(astra_net_exchange* x) {
    if (!may_exchange(x)) explain_exchange(x);
    int64_t last = INT64_MIN;
    for (size_t i = 0; i < x->start_count; ++i) {
      const astra_net_transfer& item = x->starts[i];
      check(item, i);
      if (item.start_ps != x->now_ps || (i > 0 && item.id <= last)) explain_start(*x, i);
      last = item.id;
    }
    model_->exchange(*x);
    mode_ = Mode::kExchange;  // not before: the model may refuse, too (R3)
    now_ps_ = x->now_ps;
    in_flight_ += static_cast<int64_t>(x->start_count);
    for (size_t i = 0; i < x->completion_count; ++i)
      in_flight_ -= x->completions[i].kind == ASTRA_NET_DELIVERED;
    if (x->completion_count == 0 && x->next_ps == kNever && in_flight_ > 0) stuck();
  }

  void peek(int64_t* next_ps) {
    enter(mode_);
    need(next_ps, "next_ps");
    int64_t next = kNever;
    if (in_flight_ > 0 || !ids_.empty()) next = std::max(model_->next_event_ps(), now_ps_);
    if (!starts_.empty()) next = std::min(next, starts_.top().start_ps);
    *next_ps = next;
  }

  void set_link(int32_t link, int64_t at_ps, double bandwidth_scale) {
    enter(mode_);
    if (link < 0 || link >= links_)
      invalid("link=" + std::to_string(link) + " but there are " + std::to_string(links_) +
              " links");
    if (at_ps < now_ps_) invalid("at_ps=" + std::to_string(at_ps) + " is before now");
    if (!(bandwidth_scale >= 0 && std::isfinite(bandwidth_scale)))
      invalid("bandwidth_scale=" + std::to_string(bandwidth_scale) + " must be 0 or more");
    model_->set_link(link, at_ps, bandwidth_scale);
  }

  // Writes nothing when the text does not fit: `needed` says how much room it takes.
  void stats(uint8_t* out, size_t capacity, size_t* needed) {
    enter(mode_);
    need(needed, "needed");
    const std::string text = model_->stats();
    *needed = text.size();
    if (out != nullptr && capacity >= text.size()) std::memcpy(out, text.data(), text.size());
  }

  std::unique_ptr<astra_net_sim> snapshot() {
    enter(mode_);
    auto other = std::make_unique<astra_net_sim>(model_->copy(), info_, endpoints_, links_, owner_);
    other->mode_ = mode_;
    other->starts_ = starts_;
    other->ids_ = ids_;
    other->ready_ = ready_;
    other->polled_ = polled_;
    other->now_ps_ = now_ps_;
    other->in_flight_ = in_flight_;
    return other;
  }

  // Writes nothing when the bytes do not fit: `needed` says how much room they take.
  void save(uint8_t* out, size_t capacity, size_t* needed) {
    enter(mode_);
    need(needed, "needed");
    astra::Writer archive;
    visit(archive);
    model_->visit_base(archive);
    model_->save(archive);
    const std::string bytes = archive.sealed(owner_);
    *needed = bytes.size();
    if (out != nullptr && capacity >= bytes.size()) std::memcpy(out, bytes.data(), bytes.size());
  }

  // Into a fresh simulation of the same configuration.
  void load(const uint8_t* data, size_t size) {
    if (data == nullptr) invalid("data is NULL");
    try {
      astra::Reader archive(data, size, owner_);
      visit(archive);
      model_->visit_base(archive);
      model_->load(archive);
      archive.finish();
    } catch (const astra::ArchiveError& error) {
      invalid(error.what());
    }
  }

  void interrupt() noexcept {
    interrupt_.store(true);
    model_->interrupt();
  }
  void mark_broken() noexcept { broken_ = true; }

 private:
  enum class Mode { kFresh, kSubmit, kExchange };
  template <class A>
  void visit(A& archive) {
    archive(mode_, starts_, ids_, ready_, polled_, now_ps_, in_flight_);
  }
  struct Later {
    bool operator()(const astra_net_transfer& a, const astra_net_transfer& b) const {
      return a.start_ps != b.start_ps ? a.start_ps > b.start_ps : a.id > b.id;
    }
  };

  // May this call be made now?  A refused call leaves the mode open (R3).
  void enter(Mode mode) const {
    if (broken_)
      throw Error(ASTRA_NET_BAD_STATE, "the simulation has failed; only destroy() is allowed");
    if (mode_ != Mode::kFresh && mode_ != mode)
      throw Error(ASTRA_NET_BAD_STATE,
                  "a simulation uses either exchange() or submit(), advance() and poll()");
  }
  [[noreturn]] static void invalid(const std::string& message, size_t item = SIZE_MAX) {
    if (item == SIZE_MAX) throw Error(ASTRA_NET_INVALID, message);
    throw Error(ASTRA_NET_INVALID, "item " + std::to_string(item) + ": " + message,
                static_cast<int64_t>(item));
  }
  static void need(const void* pointer, const char* name) {
    if (pointer == nullptr) invalid(std::string(name) + " is NULL");
  }
  // As check(), this is looked at in line, and explained elsewhere.
  bool may_exchange(const astra_net_exchange* x) const {
    return !broken_ && mode_ != Mode::kSubmit &&
           (info_.capabilities & ASTRA_NET_CAP_ORDERED) != 0 && x != nullptr &&
           x->struct_size >= sizeof(astra_net_exchange) && x->capacity > 0 &&
           x->completions != nullptr && (x->starts != nullptr || x->start_count == 0) &&
           x->now_ps >= now_ps_ && x->until_ps >= x->now_ps;
  }
  [[noreturn, gnu::noinline, gnu::cold]] void explain_exchange(const astra_net_exchange* x) const {
    if ((info_.capabilities & ASTRA_NET_CAP_ORDERED) == 0)
      throw Error(ASTRA_NET_UNSUPPORTED, "capability ORDERED is not declared");
    enter(Mode::kExchange);
    need(x, "x");
    if (x->struct_size < sizeof(astra_net_exchange)) invalid("struct_size is too small");
    if (x->start_count > 0) need(x->starts, "starts");
    if (x->capacity == 0) invalid("capacity=0, but one completion must fit");
    need(x->completions, "completions");
    if (x->now_ps < now_ps_)
      invalid("now_ps=" + std::to_string(x->now_ps) + " is before now, " + std::to_string(now_ps_) +
              " ps");
    invalid("until_ps=" + std::to_string(x->until_ps) + " is before now_ps");
  }
  [[noreturn, gnu::noinline, gnu::cold]] static void explain_start(const astra_net_exchange& x,
                                                                   size_t i) {
    if (x.starts[i].start_ps != x.now_ps) invalid("start_ps differs from now_ps", i);
    invalid("id=" + std::to_string(x.starts[i].id) + " does not ascend", i);
  }
  // In line and without a call: this runs for every transfer, and explaining took longer than the
  // fastest models take.
  void check(const astra_net_transfer& item, size_t i) const {
    const auto count = static_cast<uint32_t>(endpoints_);
    if (static_cast<uint32_t>(item.src) < count && static_cast<uint32_t>(item.dst) < count &&
        item.src != item.dst && item.bytes > 0 && item.start_ps >= now_ps_ &&
        item.start_ps <= kNever - info_.resolution_ps &&
        item.traffic_class < info_.traffic_classes &&
        ((item.flags == 0 && item.reserved == 0) || reduces(item)))
      return;
    explain(item, i);
  }
  // Whether a model that can reduce is given a member of a reduction.
  [[gnu::noinline]] bool reduces(const astra_net_transfer& item) const {
    return (info_.capabilities & ASTRA_NET_CAP_REDUCTION) != 0 &&
           (item.flags & 0xFF) == ASTRA_NET_REDUCE && item.flags >> 8 >= 2 && item.reserved > 0;
  }
  [[gnu::noinline, gnu::cold]] void explain(const astra_net_transfer& item, size_t i) const {
    const auto endpoint = [&](const char* name, int32_t node) {
      if (node < 0 || node >= endpoints_)
        invalid(name + ("=" + std::to_string(node)) + " but the topology has " +
                    std::to_string(endpoints_) + " endpoints (0.." +
                    std::to_string(endpoints_ - 1) + ")",
                i);
    };
    endpoint("src", item.src);
    endpoint("dst", item.dst);
    if (item.src == item.dst) invalid("src and dst are both " + std::to_string(item.src), i);
    if (item.bytes <= 0) invalid("bytes=" + std::to_string(item.bytes) + " must be positive", i);
    if (item.start_ps < now_ps_ || item.start_ps > kNever - info_.resolution_ps)
      invalid("start_ps=" + std::to_string(item.start_ps) + " but now is " +
                  std::to_string(now_ps_) + " ps",
              i);
    if (item.traffic_class >= info_.traffic_classes)
      invalid("traffic_class=" + std::to_string(item.traffic_class) + " but there are " +
                  std::to_string(info_.traffic_classes),
              i);
    if ((info_.capabilities & ASTRA_NET_CAP_REDUCTION) != 0)
      invalid("flags and reserved must be 0, or ASTRA_NET_REDUCE of 2 members or more and a number",
              i);
    invalid("flags and reserved must be 0", i);
  }
  // Where advance() may go: R5, first completion + max(0, lookahead - 1), saturating.
  int64_t limit(int64_t until_ps, int64_t lookahead_ps) const {
    if (ready_.empty()) return until_ps;
    const int64_t beyond = std::max<int64_t>(0, lookahead_ps - 1);
    const int64_t first = ready_.front().time_ps;
    return std::min(until_ps, first > kNever - beyond ? kNever : first + beyond);
  }
  void collect() {
    for (const astra_net_completion& record : model_->records_) {
      if (record.kind == ASTRA_NET_DELIVERED && ids_.erase(record.id) == 0)
        throw Error(ASTRA_NET_INTERNAL,
                    "transfer " + std::to_string(record.id) + " was delivered but not in flight");
      ready_.push_back(record);
    }
    model_->records_.clear();
  }
  [[noreturn]] void stuck() const {
    std::string names;
    std::vector<int64_t> ids(ids_.begin(), ids_.end());
    std::sort(ids.begin(), ids.end());
    for (size_t i = 0; i < ids.size() && i < 4; ++i)
      names += (names.empty() ? ": " : ", ") + std::to_string(ids[i]);
    const size_t waiting = ids.empty() ? static_cast<size_t>(in_flight_) : ids.size();
    throw Error(ASTRA_NET_MODEL, "at " + std::to_string(now_ps_) + " ps no event is left, but " +
                                     std::to_string(waiting) + " transfers are in flight" + names +
                                     (ids.size() > 4 ? ", ..." : "") + " " + model_->where_stuck());
  }

  std::unique_ptr<astra_net::Model> model_;
  astra_net_info info_;
  int32_t endpoints_, links_;
  uint64_t owner_;
  Mode mode_ = Mode::kFresh;
  bool broken_ = false;
  std::atomic<bool> interrupt_{false};
  // Accepted, not started: ordered by time, then id, never by submission (R7).
  std::priority_queue<astra_net_transfer, std::vector<astra_net_transfer>, Later> starts_;
  std::unordered_set<int64_t> ids_;  // in flight
  std::vector<astra_net_completion> ready_;
  size_t polled_ = 0;  // of ready_; it is cleared when all are
  int64_t now_ps_ = 0;
  int64_t in_flight_ = 0;  // exchange() only
};

namespace astra_net {

inline Config read_config(const astra_net_config* given) {
  const auto invalid = [](const std::string& message, int64_t item = -1) {
    throw Error(ASTRA_NET_INVALID, message, item);
  };
  if (given == nullptr || given->struct_size < offsetof(astra_net_config, parts))
    invalid("config is NULL or its struct_size is too small");
  Config config;
  config.endpoints = given->endpoints;
  config.nodes = given->nodes;
  if (config.endpoints < 1 || config.nodes < config.endpoints)
    invalid("endpoints=" + std::to_string(config.endpoints) +
            ", nodes=" + std::to_string(config.nodes) + ", but 1 <= endpoints <= nodes");
  if (given->link_count > 0 && given->links == nullptr) invalid("links is NULL");
  if (given->link_count > INT32_MAX) invalid("more than 2^31-1 links");
  if (given->option_count > 0 && given->options == nullptr) invalid("options is NULL");
  for (size_t i = 0; i < given->link_count; ++i) {
    const astra_net_link& link = given->links[i];
    const std::string where = "link " + std::to_string(i) + ": ";
    const auto item = static_cast<int64_t>(i);
    if (link.src < 0 || link.src >= config.nodes || link.dst < 0 || link.dst >= config.nodes ||
        link.src == link.dst)
      invalid(where + std::to_string(link.src) + " -> " + std::to_string(link.dst) +
                  ", but there are " + std::to_string(config.nodes) + " nodes",
              item);
    if (!(link.bytes_per_second > 0 && std::isfinite(link.bytes_per_second)))
      invalid(
          where + "bytes_per_second=" + std::to_string(link.bytes_per_second) + " must be positive",
          item);
    if (link.latency_ps < 0)
      invalid(where + "latency_ps=" + std::to_string(link.latency_ps) + " is negative", item);
    if (!(link.loss >= 0 && link.loss <= 1))
      invalid(where + "loss=" + std::to_string(link.loss) + " must be from 0 to 1", item);
    config.links.push_back(link);
  }
  for (size_t i = 0; i < given->option_count; ++i) {
    const astra_net_option& option = given->options[i];
    if (option.key == nullptr || option.value == nullptr)
      invalid("option " + std::to_string(i) + " is NULL", static_cast<int64_t>(i));
    config.options.add(option.key, option.value);
  }
  return config;
}

// The parts of a configuration, each with the table that the host lends.
inline std::vector<Part> read_parts(const astra_net_config& config, const astra_net_host* host) {
  std::vector<Part> parts;
  if (config.struct_size < sizeof(astra_net_config) || config.part_count == 0) return parts;
  const auto invalid = [](const std::string& message, int64_t item = -1) {
    throw Error(ASTRA_NET_INVALID, message, item);
  };
  if (config.parts == nullptr) invalid("parts is NULL");
  if (host == nullptr || host->struct_size < sizeof(astra_net_host) || host->lend == nullptr)
    invalid("this host lends no other backends, which parts need");
  for (size_t i = 0; i < config.part_count; ++i) {
    const astra_net_part& part = config.parts[i];
    const auto item = static_cast<int64_t>(i);
    if (part.backend == nullptr || part.config == nullptr)
      invalid("part " + std::to_string(i) + " is NULL", item);
    const astra_net_backend* table = nullptr;
    astra_net_error err{};
    err.struct_size = sizeof err;
    const astra_net_status status = host->lend(host->context, part.backend, &table, &err);
    if (status != ASTRA_NET_OK || table == nullptr)
      throw Error(status == ASTRA_NET_OK ? ASTRA_NET_INTERNAL : status,
                  std::string(part.backend) + ": " + err.message, item, err.native_code);
    parts.push_back({part.backend, table, part.config});
  }
  return parts;
}

// What saved bytes belong to.
inline uint64_t owner_of(const astra_net_config& config, const astra_net_info& info) {
  astra::Checksum sum;
  sum.add(info.name);
  sum.add(info.version);
  const int32_t sizes[] = {config.endpoints, config.nodes};
  sum.add(sizes, sizeof sizes);
  for (size_t i = 0; i < config.link_count; ++i) sum.add(&config.links[i], sizeof config.links[i]);
  for (size_t i = 0; i < config.option_count; ++i) {
    sum.add(config.options[i].key);
    sum.add(config.options[i].value);
  }
  return sum.value();
}

// The function table of one Model class.
template <class M>
struct Table {
  static astra_net_info constant() {
    astra_net_info info = M::info();
    info.struct_size = sizeof info;
    info.abi_version = ASTRA_NET_VERSION_1_3;
    return info;
  }
  static std::atomic<int>& alive() {
    static std::atomic<int> count{0};
    return count;
  }
  static bool has(uint64_t capability) { return (constant().capabilities & capability) != 0; }

  static astra_net_status info(astra_net_info* out, astra_net_error* err) {
    return guarded(err, "info", [&] {
      if (out == nullptr || out->struct_size < sizeof(uint32_t))
        throw Error(ASTRA_NET_INVALID, "out is NULL or its struct_size is 0");
      const astra_net_info all = constant();
      const uint32_t size = std::min<uint32_t>(out->struct_size, sizeof all);
      std::memcpy(out, &all, size);
      out->struct_size = size;
      return ASTRA_NET_OK;
    });
  }

  static astra_net_status create(const astra_net_config* config, const astra_net_host* host,
                                 astra_net_sim** out, astra_net_error* err) {
    return guarded(err, "create", [&] {
      if (out == nullptr) throw Error(ASTRA_NET_INVALID, "out is NULL");
      *out = nullptr;
      *out = made(config, host).release();
      ++alive();
      return ASTRA_NET_OK;
    });
  }
  static std::unique_ptr<astra_net_sim> made(const astra_net_config* config,
                                             const astra_net_host* host) {
    if (!has(ASTRA_NET_CAP_MULTI_INSTANCE) && alive().load() > 0)
      throw Error(ASTRA_NET_BAD_STATE,
                  "this simulator allows one simulation per process, and one exists");
    Config checked = read_config(config);
    checked.host = host;
    checked.parts = read_parts(*config, host);
    auto model = std::make_unique<M>(checked, Log(host));
    checked.options.finish();
    if (!checked.parts.empty())
      throw Error(ASTRA_NET_INVALID, "parts are for a backend that is made of others");
    const int64_t links = model->link_count(static_cast<int64_t>(checked.links.size()));
    return std::make_unique<astra_net_sim>(
        std::move(model), constant(), checked.endpoints,
        static_cast<int32_t>(std::min<int64_t>(links, INT32_MAX)), owner_of(*config, constant()));
  }

  static void destroy(astra_net_sim* sim) {
    if (sim == nullptr) return;
    guarded(nullptr, "destroy", [&] {
      delete sim;
      return ASTRA_NET_OK;
    });
    --alive();
  }

  // A call on a sim; after MODEL or worse, only destroy() is legal.
  template <class Body>
  static astra_net_status call(astra_net_sim* sim, astra_net_error* err, const char* name,
                               Body&& body) {
    const astra_net_status status = guarded(err, name, [&] {
      if (sim == nullptr) throw Error(ASTRA_NET_INVALID, "sim is NULL");
      return body();
    });
    if (status >= ASTRA_NET_MODEL) sim->mark_broken();
    return status;
  }

  static astra_net_status submit(astra_net_sim* sim, const astra_net_transfer* items, size_t n,
                                 size_t* accepted, astra_net_error* err) {
    return call(sim, err, "submit", [&] {
      sim->submit(items, n, accepted);
      return ASTRA_NET_OK;
    });
  }
  static astra_net_status advance(astra_net_sim* sim, int64_t until_ps, int64_t lookahead_ps,
                                  int64_t* now_ps, uint32_t* stop, astra_net_error* err) {
    return call(sim, err, "advance",
                [&] { return sim->advance(until_ps, lookahead_ps, now_ps, stop); });
  }
  static astra_net_status poll(astra_net_sim* sim, astra_net_completion* out, size_t capacity,
                               size_t* count, astra_net_error* err) {
    return call(sim, err, "poll", [&] {
      sim->poll(out, capacity, count);
      return ASTRA_NET_OK;
    });
  }
  static astra_net_status exchange(astra_net_sim* sim, astra_net_exchange* x,
                                   astra_net_error* err) {
    return call(sim, err, "exchange", [&] {
      sim->exchange(x);
      return ASTRA_NET_OK;
    });
  }
  static void interrupt(astra_net_sim* sim) {
    if (sim != nullptr) sim->interrupt();
  }
  static astra_net_status set_link(astra_net_sim* sim, int32_t link, int64_t at_ps,
                                   double bandwidth_scale, astra_net_error* err) {
    return call(sim, err, "set_link", [&] {
      sim->set_link(link, at_ps, bandwidth_scale);
      return ASTRA_NET_OK;
    });
  }
  static astra_net_status stats(astra_net_sim* sim, uint8_t* out, size_t capacity, size_t* needed,
                                astra_net_error* err) {
    return call(sim, err, "stats", [&] {
      sim->stats(out, capacity, needed);
      return ASTRA_NET_OK;
    });
  }
  static astra_net_status snapshot(astra_net_sim* sim, astra_net_sim** out, astra_net_error* err) {
    return call(sim, err, "snapshot", [&] {
      if (out == nullptr) throw Error(ASTRA_NET_INVALID, "out is NULL");
      *out = sim->snapshot().release();
      ++alive();
      return ASTRA_NET_OK;
    });
  }

  static astra_net_status peek(astra_net_sim* sim, int64_t* next_ps, astra_net_error* err) {
    return call(sim, err, "peek", [&] {
      sim->peek(next_ps);
      return ASTRA_NET_OK;
    });
  }
  static astra_net_status save(astra_net_sim* sim, uint8_t* out, size_t capacity, size_t* needed,
                               astra_net_error* err) {
    return call(sim, err, "save", [&] {
      sim->save(out, capacity, needed);
      return ASTRA_NET_OK;
    });
  }
  static astra_net_status load(const astra_net_config* config, const astra_net_host* host,
                               const uint8_t* data, size_t size, astra_net_sim** out,
                               astra_net_error* err) {
    return guarded(err, "load", [&] {
      if (out == nullptr) throw Error(ASTRA_NET_INVALID, "out is NULL");
      *out = nullptr;
      std::unique_ptr<astra_net_sim> sim = made(config, host);
      sim->load(data, size);
      *out = sim.release();
      ++alive();
      return ASTRA_NET_OK;
    });
  }

  static astra_net_status init(uint32_t version, astra_net_backend* out, astra_net_error* err) {
    return guarded(err, "astra_net_backend_init", [&] {
      if (version < ASTRA_NET_VERSION_1_0 || version > ASTRA_NET_VERSION_1_3)
        throw Error(ASTRA_NET_UNSUPPORTED,
                    "version " + std::to_string(version) + " is not 1000 to 1003");
      const size_t size = version == ASTRA_NET_VERSION_1_0   ? offsetof(astra_net_backend, exchange)
                          : version == ASTRA_NET_VERSION_1_1 ? offsetof(astra_net_backend, save)
                                                             : sizeof(astra_net_backend);
      if (out == nullptr || out->struct_size < size)
        throw Error(ASTRA_NET_INVALID, "out is NULL or its struct_size is too small");
      out->struct_size = static_cast<uint32_t>(size);
      out->abi_version = version;
      out->info = info;
      out->create = create;
      out->destroy = destroy;
      out->submit = submit;
      out->advance = advance;
      out->poll = poll;
      out->stats = stats;
      out->interrupt = has(ASTRA_NET_CAP_INTERRUPT) ? interrupt : nullptr;
      out->set_link = has(ASTRA_NET_CAP_LINK_FAULTS) ? set_link : nullptr;
      out->snapshot = has(ASTRA_NET_CAP_SNAPSHOT) ? snapshot : nullptr;
      if (version >= ASTRA_NET_VERSION_1_1)
        out->exchange = has(ASTRA_NET_CAP_ORDERED) ? exchange : nullptr;
      if (version >= ASTRA_NET_VERSION_1_2 && has(ASTRA_NET_CAP_SAVE)) {
        out->save = save;
        out->load = load;
      }
      if (version >= ASTRA_NET_VERSION_1_2 && has(ASTRA_NET_CAP_PEEK)) out->peek = peek;
      return ASTRA_NET_OK;
    });
  }
};

}  // namespace astra_net

// Defines the one exported symbol.  Write it once, at global scope, in one file of the library.
#define ASTRA_NET_BACKEND(Class)                                        \
  extern "C" ASTRA_NET_EXPORT astra_net_status astra_net_backend_init(  \
      uint32_t version, astra_net_backend* out, astra_net_error* err) { \
    return astra_net::Table<Class>::init(version, out, err);            \
  }

#endif  // ASTRA_NET_HPP
