// SPDX-License-Identifier: MIT
//
// The far end: answers one connection with the calls of a table.
//
// The calls run on one thread, as R10 has it.  A second one looks now and then into a call that
// lasts: for an interrupt, and whether the client is still there.
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "remote.h"
#include "wire.hpp"

namespace {

using astra_net::Error;
using remote::In;
using remote::Kind;
using remote::Lost;
using remote::Out;
using remote::Socket;

constexpr std::chrono::milliseconds kLook{10};
constexpr size_t kPolled = 1024;  // records of one poll
constexpr size_t kMostSims = 1u << 16;
constexpr size_t kInterrupt = sizeof(remote::Head) + sizeof(uint32_t);
constexpr int kClientGone = 3;  // exit code

class Session {
 public:
  Session(int descriptor, const astra_net_backend& table, const astra_net_host* host,
          std::chrono::milliseconds patience)
      : socket_(descriptor), table_(table), patience_(patience) {
    host_.struct_size = sizeof host_;
    host_.context = this;
    host_.log = [](void* self, int32_t level, const char* message) {
      static_cast<Session*>(self)->log(level, message);
    };
    if (host != nullptr && host->struct_size >= sizeof *host && host->lend != nullptr) {
      lender_ = *host;
      host_.lend = [](void* self, const char* name, const astra_net_backend** out,
                      astra_net_error* err) {
        const astra_net_host& lender = static_cast<Session*>(self)->lender_;
        return lender.lend(lender.context, name, out, err);
      };
    }
    watcher_ = std::thread([this] { watch(); });
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() {
    if (!fatal_) {
      const Inside mark(*this);
      for (const auto& [number, sim] : sims_) table_.destroy(sim);
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      end_ = true;
    }
    wake_.notify_one();
    watcher_.join();
  }

  // Until the client closes the connection, which it may between two calls.
  void run() {
    while (!fatal_ && socket_.more()) {
      In in = socket_.frame();
      if (in.kind == Kind::kInterrupt) {
        interrupt(in);
        continue;
      }
      answer(in);
      if (log_lost_) throw Lost("has closed the connection");
      socket_.write(out_.frame());
    }
  }

 private:
  // ---- calls ----

  // Runs one, whose frame has been read; what the client has sent meanwhile can only be interrupts.
  template <class Body>
  auto inside(Body&& body) {
    while (socket_.ahead() > 0) {
      In in = socket_.frame(sizeof(uint32_t));
      if (in.kind != Kind::kInterrupt)
        throw Lost("sent a call before it had the last one's answer");
      interrupt(in);
    }
    const Inside mark(*this);
    return body();
  }
  struct Inside {
    explicit Inside(Session& session) : session(session) { session.set_inside(true); }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
    ~Inside() { session.set_inside(false); }
    Session& session;
  };
  void set_inside(bool inside) {
    const std::lock_guard<std::mutex> lock(mutex_);
    inside_ = inside;
  }

  // Fills out_ with the answer to a call.
  void answer(In& in) {
    astra_net_error err{};
    err.struct_size = sizeof err;
    err.item = -1;
    astra_net_status status = ASTRA_NET_INVALID;
    out_.start(Kind::kReply);
    out_.put(remote::Reply{ASTRA_NET_OK, 0, -1});
    try {
      status = called(in, err);
    } catch (const Error& error) {
      status = error.status;
      astra_net::write_error(&err, "serve", error.what(), error.item, error.native_code);
    } catch (const std::bad_alloc&) {
      status = ASTRA_NET_INTERNAL;
      astra_net::write_error(&err, "serve", "out of memory", -1, 0);
    }
    fatal_ = status == ASTRA_NET_FATAL;
    const remote::Reply reply{status, err.native_code, err.item};
    if (status != ASTRA_NET_OK && status != ASTRA_NET_INTERRUPTED) {
      out_.start(Kind::kReply);
      out_.put(reply);
      err.message[sizeof err.message - 1] = '\0';
      out_.text(err.message);
    }
    std::memcpy(out_.at(sizeof(remote::Head)), &reply, sizeof reply);
  }

  astra_net_status called(In& in, astra_net_error& err) {
    switch (in.kind) {
      case Kind::kCreate:
        return create(in, err, false);
      case Kind::kLoad:
        return create(in, err, true);
      case Kind::kDestroy:
        return destroy(in);
      case Kind::kSubmit:
        return submit(in, err);
      case Kind::kAdvance:
        return advance(in, err);
      case Kind::kExchange:
        return exchange(in, err);
      case Kind::kSetLink:
        return set_link(in, err);
      case Kind::kStats:
        return bytes(in, err, table_.stats);
      case Kind::kSave:
        return bytes(in, err, table_.save);
      case Kind::kSnapshot:
        return snapshot(in, err);
      case Kind::kPeek:
        return peek(in, err);
      default:
        throw Lost("sent a frame of kind " + std::to_string(static_cast<unsigned>(in.kind)) +
                   ", which is no call");
    }
  }

  astra_net_status create(In& in, astra_net_error& err, bool load) {
    const remote::OwnedConfig config(in);
    const std::string saved(in.rest());
    if (!load) in.finish();
    if (load && table_.load == nullptr) return lacks("load", err);
    astra_net_sim* sim = nullptr;
    if (sims_.size() >= kMostSims)
      throw Error(ASTRA_NET_INTERNAL, "too many simulations on one connection");
    const astra_net_status status = inside([&] {
      return load
                 ? table_.load(config.get(), &host_, reinterpret_cast<const uint8_t*>(saved.data()),
                               saved.size(), &sim, &err)
                 : table_.create(config.get(), &host_, &sim, &err);
    });
    if (status == ASTRA_NET_OK) added(sim);
    return status;
  }

  astra_net_status destroy(In& in) {
    const auto number = in.get<uint32_t>();
    in.finish();
    astra_net_sim* sim = known(number);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      sims_.erase(number);
    }
    inside([&] { table_.destroy(sim); });
    return ASTRA_NET_OK;
  }

  astra_net_status submit(In& in, astra_net_error& err) {
    astra_net_sim* sim = known(in.get<uint32_t>());
    read_transfers(in);
    size_t accepted = 0;
    const astra_net_status status = inside(
        [&] { return table_.submit(sim, transfers_.data(), transfers_.size(), &accepted, &err); });
    out_.put(static_cast<uint64_t>(accepted));
    return status;
  }

  astra_net_status advance(In& in, astra_net_error& err) {
    const auto call = in.get<remote::AdvanceCall>();
    in.finish();
    astra_net_sim* sim = known(call.sim);
    remote::Advanced to{};
    const astra_net_status status = inside([&] {
      return table_.advance(sim, call.until_ps, call.lookahead_ps, &to.now_ps, &to.stop, &err);
    });
    out_.put(to);
    if (status != ASTRA_NET_OK && status != ASTRA_NET_INTERRUPTED) return status;
    for (size_t count = kPolled; count == kPolled;) {
      if (polled_.size() < kPolled) polled_.resize(kPolled);
      count = 0;
      const astra_net_status read = table_.poll(sim, polled_.data(), kPolled, &count, &err);
      if (read != ASTRA_NET_OK) return read;
      fits(count, kPolled);
      out_.raw(polled_.data(), count * sizeof(astra_net_completion));
    }
    return status;
  }

  astra_net_status exchange(In& in, astra_net_error& err) {
    const auto call = in.get<remote::ExchangeCall>();
    astra_net_sim* sim = known(call.sim);
    read_transfers(in);
    if (table_.exchange == nullptr) return lacks("exchange", err);
    if (call.capacity > remote::kMostRecords)
      throw Error(ASTRA_NET_INVALID, "capacity=" + std::to_string(call.capacity) + " is too large");
    if (polled_.size() < call.capacity) polled_.resize(call.capacity);
    astra_net_exchange x{};
    x.struct_size = sizeof x;
    x.starts = transfers_.data();
    x.start_count = transfers_.size();
    x.until_ps = call.until_ps;
    x.until_place = call.until_place;
    x.place = call.place;
    x.now_ps = call.now_ps;
    x.completions = polled_.data();
    x.capacity = call.capacity;
    const astra_net_status status = inside([&] { return table_.exchange(sim, &x, &err); });
    if (status != ASTRA_NET_OK) return status;
    fits(x.completion_count, call.capacity);
    out_.put(remote::Exchanged{x.now_ps, x.next_ps, x.next_place, x.place, x.stop, 0});
    out_.raw(polled_.data(), x.completion_count * sizeof(astra_net_completion));
    return status;
  }

  astra_net_status set_link(In& in, astra_net_error& err) {
    const auto call = in.get<remote::SetLinkCall>();
    in.finish();
    astra_net_sim* sim = known(call.sim);
    if (table_.set_link == nullptr) return lacks("set_link", err);
    return inside(
        [&] { return table_.set_link(sim, call.link, call.at_ps, call.bandwidth_scale, &err); });
  }

  // stats() and save(): asked for their size, then for their bytes, until these fit.
  astra_net_status bytes(In& in, astra_net_error& err,
                         astra_net_status (*entry)(astra_net_sim*, uint8_t*, size_t, size_t*,
                                                   astra_net_error*)) {
    astra_net_sim* sim = only(in);
    if (entry == nullptr) return lacks("entry", err);
    std::vector<uint8_t> found;
    for (int tries = 0; tries < 8; ++tries) {
      size_t needed = 0;
      const astra_net_status status = inside([&] {
        return entry(sim, found.empty() ? nullptr : found.data(), found.size(), &needed, &err);
      });
      if (status != ASTRA_NET_OK) return status;
      if (needed <= found.size()) {
        out_.text({reinterpret_cast<const char*>(found.data()), needed});
        return status;
      }
      if (needed > remote::kMostFrame - 1024)
        throw Error(ASTRA_NET_INTERNAL, std::to_string(needed) + " bytes are too many to be sent");
      found.resize(needed);
    }
    throw Error(ASTRA_NET_INTERNAL, "the backend asked for more room each time");
  }

  astra_net_status snapshot(In& in, astra_net_error& err) {
    astra_net_sim* sim = only(in);
    if (table_.snapshot == nullptr) return lacks("snapshot", err);
    astra_net_sim* copy = nullptr;
    const astra_net_status status = inside([&] { return table_.snapshot(sim, &copy, &err); });
    if (status == ASTRA_NET_OK) added(copy);
    return status;
  }

  astra_net_status peek(In& in, astra_net_error& err) {
    astra_net_sim* sim = only(in);
    if (table_.peek == nullptr) return lacks("peek", err);
    int64_t next_ps = 0;
    const astra_net_status status = inside([&] { return table_.peek(sim, &next_ps, &err); });
    out_.put(next_ps);
    return status;
  }

  // ---- what they share ----

  static astra_net_status lacks(const char* name, astra_net_error& err) {
    astra_net::write_error(&err, name, "the backend does not have this optional entry", -1, 0);
    return ASTRA_NET_UNSUPPORTED;
  }

  // The one answer that is looked at before it is passed on: memory is read by it.
  static void fits(size_t count, size_t capacity) {
    if (count > capacity)
      throw Error(ASTRA_NET_INTERNAL,
                  "the backend broke the contract: count=" + std::to_string(count) +
                      ", but capacity is " + std::to_string(capacity) + " (R2)");
  }

  astra_net_sim* known(uint32_t number) const {
    const auto found = sims_.find(number);
    if (found == sims_.end())
      throw Error(ASTRA_NET_INVALID, "no simulation has the number " + std::to_string(number));
    return found->second;
  }

  void added(astra_net_sim* sim) {
    if (sim == nullptr)
      throw Error(ASTRA_NET_INTERNAL,
                  "the backend broke the contract: it returned OK, but no simulation");
    const std::lock_guard<std::mutex> lock(mutex_);
    sims_[next_number_] = sim;
    out_.put(next_number_++);
  }

  // The simulation of a call that says no more than its number.
  astra_net_sim* only(In& in) const {
    const auto number = in.get<uint32_t>();
    in.finish();
    return known(number);
  }

  // Into memory of their own, which is aligned.
  void read_transfers(In& in) {
    transfers_.resize(in.rest_rows<astra_net_transfer>());
    const std::string_view rows = in.rest();
    if (!rows.empty()) std::memcpy(transfers_.data(), rows.data(), rows.size());
  }

  // Called by the backend: nothing may be thrown through it.
  void log(int32_t level, const char* message) noexcept {
    try {
      Out out(Kind::kLog);
      out.put(level);
      out.text(message == nullptr ? "" : message);
      socket_.write(out.frame());
    } catch (...) {
      log_lost_ = true;
    }
  }

  // ---- the second thread ----

  void interrupt(In& in) {
    const auto number = in.get<uint32_t>();
    in.finish();
    const auto found = sims_.find(number);
    if (found != sims_.end() && table_.interrupt != nullptr) table_.interrupt(found->second);
  }

  void watch() {
    std::unique_lock<std::mutex> lock(mutex_);
    std::chrono::milliseconds gone{0};
    while (!wake_.wait_for(lock, kLook, [this] { return end_; })) {
      if (!inside_) continue;
      char frame[kInterrupt];
      const ssize_t got =
          ::recv(socket_.descriptor(), frame, sizeof frame, MSG_PEEK | MSG_DONTWAIT);
      if (got == 0 || (got < 0 && (errno == ECONNRESET || errno == EPIPE))) {
        if (gone.count() == 0 && table_.interrupt != nullptr)
          for (const auto& [number, sim] : sims_) table_.interrupt(sim);
        gone += kLook;
        if (patience_.count() > 0 && gone > patience_) ::_exit(kClientGone);
      } else if (got == static_cast<ssize_t>(sizeof frame)) {
        remote::Head head;
        std::memcpy(&head, frame, sizeof head);
        // Anything else waits for the first thread, which refuses it.
        if (static_cast<Kind>(head.kind) != Kind::kInterrupt || head.size != sizeof(uint32_t) ||
            head.protocol != remote::kProtocol)
          continue;
        if (::recv(socket_.descriptor(), frame, sizeof frame, MSG_DONTWAIT) != got) continue;
        In in(Kind::kInterrupt, frame + sizeof head, sizeof(uint32_t));
        interrupt(in);
      }
    }
  }

  Socket socket_;
  const astra_net_backend& table_;
  astra_net_host host_{}, lender_{};
  std::chrono::milliseconds patience_;
  std::map<uint32_t, astra_net_sim*> sims_;  // changed under the mutex
  uint32_t next_number_ = 1;
  Out out_{Kind::kReply};
  std::vector<astra_net_transfer> transfers_;
  std::vector<astra_net_completion> polled_;
  bool fatal_ = false, log_lost_ = false;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool inside_ = false, end_ = false;
  std::thread watcher_;  // last: it uses all of the above
};

}  // namespace

extern "C" astra_net_status astra_remote_serve(int32_t descriptor, const astra_net_backend* table,
                                               const astra_net_host* host, int64_t patience_ms,
                                               astra_net_error* err) {
  return astra_net::guarded(err, "serve", [&] {
    if (table == nullptr) throw Error(ASTRA_NET_INVALID, "table is NULL");
    try {
      Session(descriptor, *table, host, std::chrono::milliseconds(patience_ms)).run();
    } catch (const Lost& lost) {
      throw Error(ASTRA_NET_INTERNAL, std::string("the client ") + lost.what());
    }
    return ASTRA_NET_OK;
  });
}
