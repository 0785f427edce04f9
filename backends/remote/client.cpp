// SPDX-License-Identifier: MIT
//
// The near end: a table of the contract whose calls are answered by a server.
//
// One call is one exchange of frames.  What advance() completed comes with its answer, so poll()
// asks nobody.
#include <array>
#include <atomic>
#include <mutex>
#include <optional>
#include <string>
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
using Clock = Socket::Clock;

constexpr std::chrono::seconds kConnect{10};
// A server loads its library first, which may take a while.
constexpr std::chrono::seconds kGreeting{120};
constexpr uint32_t kMostGreeting = 1u << 16;

struct Address {
  std::string text;
  bool is_unix;
  std::string host, port;  // or path, ""

  explicit Address(std::string given)
      : text(std::move(given)), is_unix(text.rfind("unix://", 0) == 0) {
    const std::string rest = text.substr(text.find("://") + 3);
    if (is_unix) {
      host = rest;
      return;
    }
    const size_t colon = rest.rfind(':');
    host = rest.substr(0, colon);
    port = colon == std::string::npos ? "" : rest.substr(colon + 1);
    if (host.size() > 1 && host.front() == '[') host = host.substr(1, host.size() - 2);
  }
};

[[noreturn]] void fail(const Address& address, const std::string& why) {
  throw Error(ASTRA_NET_INTERNAL, address.text + ": " + why);
}

// A descriptor that is connected, or why it is not.
int connected(int family, const sockaddr* to, socklen_t size, Clock::time_point until,
              std::string& why) {
  const int descriptor = ::socket(family, SOCK_STREAM, 0);
  if (descriptor < 0) {
    why = std::generic_category().message(errno);
    return -1;
  }
  ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
  ::fcntl(descriptor, F_SETFL, ::fcntl(descriptor, F_GETFL) | O_NONBLOCK);
  int error = ::connect(descriptor, to, size) == 0 ? 0 : errno;
  if (error == EINPROGRESS || error == EAGAIN || error == EINTR) {
    pollfd one{descriptor, POLLOUT, 0};
    int ready = -1;
    do {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
      ready = ::poll(&one, 1, static_cast<int>(std::max<int64_t>(0, left)));
    } while (ready < 0 && errno == EINTR);
    socklen_t length = sizeof error;
    error = ETIMEDOUT;
    if (ready > 0) ::getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length);
  }
  if (error != 0) {
    why = std::generic_category().message(error);
    ::close(descriptor);
    return -1;
  }
  ::fcntl(descriptor, F_SETFL, ::fcntl(descriptor, F_GETFL) & ~O_NONBLOCK);
  return descriptor;
}

int connect_to(const Address& address) {
  const Clock::time_point until = Clock::now() + kConnect;
  std::string why;
  int descriptor = -1;
  if (address.is_unix) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    if (address.host.size() >= sizeof to.sun_path)
      fail(address, "the path is longer than a socket can have");
    std::memcpy(to.sun_path, address.host.c_str(), address.host.size() + 1);
    descriptor = connected(AF_UNIX, reinterpret_cast<sockaddr*>(&to), sizeof to, until, why);
  } else {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int status = ::getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found);
    if (status != 0) fail(address, ::gai_strerror(status));
    for (const addrinfo* one = found; one != nullptr && descriptor < 0; one = one->ai_next)
      descriptor = connected(one->ai_family, one->ai_addr, one->ai_addrlen, until, why);
    ::freeaddrinfo(found);
    const int yes = 1;
    // Calls are small and wait for their answers.  A machine that is gone is found out in a minute.
    const int idle_s = 30, interval_s = 10, probes = 3;
    ::setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    ::setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
#ifdef TCP_KEEPIDLE
    ::setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
#endif
    ::setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    ::setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  }
  if (descriptor < 0) fail(address, "cannot be reached: " + why);
  return descriptor;
}

// What the server said of its backend.
struct Served {
  remote::Welcome welcome{};
  std::string name, version, served;
  bool operator==(const Served& other) const {
    return std::memcmp(&welcome, &other.welcome, sizeof welcome) == 0 && name == other.name &&
           version == other.version && served == other.served;
  }
};

class Connection {
 public:
  Connection(Address address, const std::string& token)
      : address_(std::move(address)), socket_(connect_to(address_)) {
    try {
      greet(token);
    } catch (const Lost& lost) {
      fail(address_, std::string("the server ") + lost.what());
    }
  }
  const Served& served() const { return served_; }
  const Address& address() const { return address_; }

  // Sends a call and waits for its answer.  What the backend logs comes before that.
  // `use` reads the answer; INTERRUPTED has one, too.
  template <class Use>
  astra_net_status call(Out& out, const astra_net_host* host, Use&& use) {
    const std::lock_guard<std::mutex> one_at_a_time(call_);
    if (lost_) fail(address_, why_);
    try {
      {
        const std::lock_guard<std::mutex> whole(write_);
        socket_.write(out.frame());
      }
      for (;;) {
        In in = socket_.frame();
        if (in.kind == Kind::kLog) {
          log(in, host);
        } else if (in.kind == Kind::kReply) {
          const auto reply = in.get<remote::Reply>();
          if (reply.status != ASTRA_NET_OK && reply.status != ASTRA_NET_INTERRUPTED)
            refused(reply, in.text());
          use(in);
          in.finish();
          return reply.status;
        } else {
          throw Lost("answered with a frame of kind " +
                     std::to_string(static_cast<unsigned>(in.kind)));
        }
      }
    } catch (const Lost& lost) {
      lost_ = true;
      why_ = std::string("the server ") + lost.what();
      fail(address_, why_);
    }
  }

  void interrupt(uint32_t sim) noexcept {
    try {
      Out out(Kind::kInterrupt);
      out.put(sim);
      const std::lock_guard<std::mutex> whole(write_);
      socket_.write(out.frame());
    } catch (...) {
      return;  // whoever waits for an answer hears of it
    }
  }

 private:
  void greet(const std::string& token) {
    Out out(Kind::kHello);
    out.put(uint32_t{ASTRA_NET_VERSION_1_3});
    out.text(token);
    socket_.write(std::string_view(remote::kMagic, 8));
    socket_.write(out.frame());
    const Clock::time_point until = Clock::now() + kGreeting;
    char magic[8];
    socket_.read(magic, sizeof magic, until);
    if (std::memcmp(magic, remote::kMagic, sizeof magic) != 0)
      throw Lost("speaks another protocol than servers of backends do");
    In in = socket_.frame(kMostGreeting, until);
    if (in.kind == Kind::kReply) {
      in.get<remote::Reply>();
      throw Lost("refuses: " + in.name());
    }
    if (in.kind != Kind::kWelcome) throw Lost("did not answer with a welcome");
    served_.welcome = in.get<remote::Welcome>();
    served_.name = in.name();
    served_.version = in.name();
    served_.served = in.name();
    in.finish();
    const remote::Welcome& said = served_.welcome;
    if (said.version < ASTRA_NET_VERSION_1_0 || said.version > ASTRA_NET_VERSION_1_3)
      throw Lost("speaks version " + std::to_string(said.version) + " of the contract");
  }

  [[noreturn]] void refused(const remote::Reply& reply, std::string_view message) const {
    astra_net_status status = reply.status;
    // It is the other process that is suspect.
    if (status == ASTRA_NET_FATAL) status = ASTRA_NET_INTERNAL;
    if (status < ASTRA_NET_UNSUPPORTED || status > ASTRA_NET_FATAL)
      throw Lost("answered with status " + std::to_string(status));
    throw Error(status, std::string(message), reply.item, reply.native_code);
  }

  static void log(In& in, const astra_net_host* host) {
    const auto level = in.get<int32_t>();
    const std::string message = in.name();
    in.finish();
    astra_net::Log{host}(level, message);
  }

  Address address_;
  Socket socket_;
  Served served_;
  std::mutex call_, write_;
  bool lost_ = false;
  std::string why_;
};

// A message that begins with the name of the call, as the server's library wrote it, has it once.
astra_net_status said(astra_net_error* err, const char* call, const Error& error) {
  std::string_view text = error.what();
  const std::string prefix = std::string(call) + ": ";
  if (text.substr(0, prefix.size()) == prefix) text.remove_prefix(prefix.size());
  astra_net::write_error(err, call, std::string(text).c_str(), error.item, error.native_code);
  return error.status;
}

template <class Body>
astra_net_status guarded(astra_net_error* err, const char* call, Body&& body) noexcept {
  return astra_net::guarded(err, call, [&] {
    try {
      return body();
    } catch (const Error& error) {
      return said(err, call, error);
    }
  });
}

[[noreturn]] void invalid(const std::string& what) { throw Error(ASTRA_NET_INVALID, what); }

template <class T>
T* need(T* pointer, const char* name) {
  if (pointer == nullptr) invalid(std::string(name) + " is NULL");
  return pointer;
}

// What the host has for an astra_net_sim.
struct Sim {
  std::shared_ptr<Connection> connection;
  uint32_t number = 0;
  astra_net_host host{};  // what logs
  bool exchanges = false, steps = false, broken = false;
  std::vector<astra_net_completion> ready;  // that advance() brought, for poll()
  size_t polled = 0;
  std::optional<std::string> kept;  // statistics or saved bytes, between asking and taking
  Kind kept_kind = Kind::kStats;

  // Ready for another call: what was kept is kept for the very next one.
  Out& begin(Kind kind) {
    if (broken)
      throw Error(ASTRA_NET_BAD_STATE, "the simulation has failed; only destroy() is allowed");
    if (kind != kept_kind) kept.reset();
    out.start(kind);
    return out;
  }
  template <class Use>
  astra_net_status call(Use&& use) {
    try {
      return connection->call(out, &host, use);
    } catch (const Error& error) {
      broken = broken || error.status >= ASTRA_NET_MODEL;
      throw;
    }
  }
  void not_after(bool other) const {
    if (other)
      throw Error(ASTRA_NET_BAD_STATE,
                  "a simulation uses either exchange() or submit(), advance() and poll()");
  }
  uint64_t owner() const {
    astra::Checksum sum;
    sum.add(connection->served().name);
    sum.add(connection->served().version);
    return sum.value();
  }

  Out out{Kind::kPeek};
};
Sim* sim_of(astra_net_sim* handle) { return reinterpret_cast<Sim*>(handle); }
astra_net_sim* handle_of(std::unique_ptr<Sim> sim) {
  return reinterpret_cast<astra_net_sim*>(sim.release());
}

void submit(Sim& sim, const astra_net_transfer* items, size_t n, size_t* accepted) {
  Out& out = sim.begin(Kind::kSubmit);
  need(accepted, "accepted");
  if (n > 0) need(items, "items");
  out.put(sim.number);
  out.raw(items, n * sizeof *items);
  sim.call([&](In& in) { *accepted = static_cast<size_t>(in.get<uint64_t>()); });
  sim.steps = true;
}

astra_net_status advance(Sim& sim, int64_t until_ps, int64_t lookahead_ps, int64_t* now_ps,
                         uint32_t* stop) {
  Out& out = sim.begin(Kind::kAdvance);
  need(now_ps, "now_ps");
  need(stop, "stop");
  if (sim.polled < sim.ready.size())
    throw Error(ASTRA_NET_BAD_STATE,
                std::to_string(sim.ready.size() - sim.polled) + " completions wait for poll()");
  out.put(remote::AdvanceCall{sim.number, 0, until_ps, lookahead_ps});
  const astra_net_status status = sim.call([&](In& in) {
    const auto to = in.get<remote::Advanced>();
    const size_t count = in.rest_rows<astra_net_completion>();
    sim.ready = in.rows<astra_net_completion>(count);
    sim.polled = 0;
    *now_ps = to.now_ps;
    *stop = to.stop;
  });
  sim.steps = true;
  return status;
}

void take(Sim& sim, astra_net_completion* to, size_t capacity, size_t* count) {
  sim.begin(Kind::kAdvance);
  sim.not_after(sim.exchanges);
  need(count, "count");
  if (capacity > 0) need(to, "out");
  *count = std::min(capacity, sim.ready.size() - sim.polled);
  std::copy_n(sim.ready.data() + sim.polled, *count, to);
  sim.polled += *count;
}

void exchange(Sim& sim, astra_net_exchange* x) {
  Out& out = sim.begin(Kind::kExchange);
  need(x, "x");
  if (x->struct_size < sizeof *x) invalid("struct_size is too small");
  if (x->start_count > 0) need(x->starts, "starts");
  if (x->capacity == 0) invalid("capacity=0, but one completion must fit");
  need(x->completions, "completions");
  const auto capacity = static_cast<uint32_t>(std::min<size_t>(x->capacity, remote::kMostRecords));
  out.put(
      remote::ExchangeCall{sim.number, capacity, x->until_ps, x->until_place, x->place, x->now_ps});
  out.raw(x->starts, x->start_count * sizeof *x->starts);
  sim.call([&](In& in) {
    const auto to = in.get<remote::Exchanged>();
    const size_t count = in.rest_rows<astra_net_completion>();
    if (count > capacity) throw Lost("answered with more completions than there is room for");
    const std::string_view records = in.rest();
    if (count > 0) std::memcpy(x->completions, records.data(), records.size());
    x->completion_count = count;
    x->stop = to.stop;
    x->now_ps = to.now_ps;
    x->next_ps = to.next_ps;
    x->next_place = to.next_place;
    x->place = to.place;
  });
  sim.exchanges = true;
}

void set_link(Sim& sim, int32_t link, int64_t at_ps, double bandwidth_scale) {
  sim.begin(Kind::kSetLink).put(remote::SetLinkCall{sim.number, link, at_ps, bandwidth_scale});
  sim.call([](In&) {});
}

void peek(Sim& sim, int64_t* next_ps) {
  Out& out = sim.begin(Kind::kPeek);
  need(next_ps, "next_ps");
  out.put(sim.number);
  sim.call([&](In& in) { *next_ps = in.get<int64_t>(); });
}

// Asked for twice, for the size and for the bytes, but fetched once.
template <class Finish>
void bytes(Sim& sim, Kind kind, uint8_t* to, size_t capacity, size_t* needed, Finish&& finish) {
  Out& out = sim.begin(kind);
  need(needed, "needed");
  if (!sim.kept || to == nullptr) {
    out.put(sim.number);
    sim.call([&](In& in) { sim.kept = std::string(in.text()); });
    sim.kept = finish(std::move(*sim.kept));
    sim.kept_kind = kind;
  }
  *needed = sim.kept->size();
  if (to == nullptr || capacity < sim.kept->size()) return;
  std::memcpy(to, sim.kept->data(), sim.kept->size());
  sim.kept.reset();
}

std::unique_ptr<Sim> snapshot(Sim& sim) {
  auto copy = std::make_unique<Sim>();
  sim.begin(Kind::kSnapshot).put(sim.number);
  sim.call([&](In& in) { copy->number = in.get<uint32_t>(); });
  copy->connection = sim.connection;
  copy->host = sim.host;
  copy->exchanges = sim.exchanges;
  copy->steps = sim.steps;
  copy->ready = sim.ready;
  copy->polled = sim.polled;
  return copy;
}

// What has been fetched, but not polled, is part of the state.
template <class A>
void visit(A& archive, Sim& sim, std::string& inner) {
  archive(sim.exchanges, sim.steps, sim.ready, sim.polled, inner);
}

// What is known of an address: a library's info is constant while it is loaded, so another server
// there is another library.
struct Slot {
  std::string address, token;
  Served served;
};
constexpr size_t kSlots = 256;
std::array<std::optional<Slot>, kSlots> slots;
std::mutex slots_mutex;

std::unique_ptr<Sim> created(const Slot& slot, const astra_net_config* config,
                             const astra_net_host* host, const uint8_t* data, size_t size) {
  auto sim = std::make_unique<Sim>();
  std::string inner;
  Out out(data == nullptr ? Kind::kCreate : Kind::kLoad);
  remote::put_config(out, config);
  if (host != nullptr) {
    const size_t known = std::min<size_t>(host->struct_size, sizeof sim->host);
    std::memcpy(&sim->host, host, known);
    sim->host.struct_size = static_cast<uint32_t>(known);
  }
  sim->connection = std::make_shared<Connection>(Address(slot.address), slot.token);
  if (!(sim->connection->served() == slot.served))
    fail(sim->connection->address(), "another backend is served now than when it was loaded: " +
                                         sim->connection->served().name + " " +
                                         sim->connection->served().version);
  if (data != nullptr) {
    try {
      astra::Reader archive(data, size, sim->owner());
      visit(archive, *sim, inner);
      archive.finish();
      if (sim->polled > sim->ready.size()) throw astra::ArchiveError("the saved bytes are damaged");
    } catch (const astra::ArchiveError& error) {
      invalid(error.what());
    }
    out.raw(inner.data(), inner.size());
  }
  sim->connection->call(out, &sim->host, [&](In& in) { sim->number = in.get<uint32_t>(); });
  return sim;
}

// The entries that get no simulation, of the slot of this number.
template <size_t number>
struct Entries {
  static astra_net_status info(astra_net_info* out, astra_net_error* err) {
    return guarded(err, "info", [&] {
      if (out == nullptr || out->struct_size < sizeof(uint32_t))
        invalid("out is NULL or its struct_size is 0");
      const Served& served = slots[number]->served;
      astra_net_info all{};
      const uint32_t size = std::min<uint32_t>(out->struct_size, sizeof all);
      all.struct_size = size;
      all.abi_version = served.welcome.version;
      all.name = served.name.c_str();
      all.version = served.version.c_str();
      // Every simulation has a connection, and the server a process for each.
      all.capabilities =
          served.welcome.capabilities | ASTRA_NET_CAP_MULTI_INSTANCE | ASTRA_NET_CAP_PARALLEL;
      all.resolution_ps = served.welcome.resolution_ps;
      all.max_in_flight = served.welcome.max_in_flight;
      all.traffic_classes = served.welcome.traffic_classes;
      std::memcpy(out, &all, size);
      return ASTRA_NET_OK;
    });
  }
  static astra_net_status create(const astra_net_config* config, const astra_net_host* host,
                                 astra_net_sim** out, astra_net_error* err) {
    return guarded(err, "create", [&] {
      *need(out, "out") = nullptr;
      *out = handle_of(created(*slots[number], config, host, nullptr, 0));
      return ASTRA_NET_OK;
    });
  }
  static astra_net_status load(const astra_net_config* config, const astra_net_host* host,
                               const uint8_t* data, size_t size, astra_net_sim** out,
                               astra_net_error* err) {
    return guarded(err, "load", [&] {
      *need(out, "out") = nullptr;
      *out = handle_of(created(*slots[number], config, host, need(data, "data"), size));
      return ASTRA_NET_OK;
    });
  }
};

struct Made {
  decltype(astra_net_backend::info) info;
  decltype(astra_net_backend::create) create;
  decltype(astra_net_backend::load) load;
};
template <size_t... numbers>
constexpr std::array<Made, kSlots> all_entries(std::index_sequence<numbers...> /*unused*/) {
  return {{{Entries<numbers>::info, Entries<numbers>::create, Entries<numbers>::load}...}};
}
constexpr std::array<Made, kSlots> kEntries = all_entries(std::make_index_sequence<kSlots>());

// The entries that get one.
template <class Body>
astra_net_status on(astra_net_sim* handle, astra_net_error* err, const char* call, Body&& body) {
  return guarded(err, call, [&]() -> astra_net_status {
    Sim& sim = *sim_of(need(handle, "sim"));
    if constexpr (std::is_void_v<decltype(body(sim))>) {
      body(sim);
      return ASTRA_NET_OK;
    } else {
      return body(sim);
    }
  });
}

struct Calls {
  static void destroy(astra_net_sim* sim) {
    if (sim == nullptr) return;
    guarded(nullptr, "destroy", [&] {
      const std::unique_ptr<Sim> gone(sim_of(sim));
      // The last one ends the connection; but the server has to have ended before the caller goes
      // on, and says what it has to say.
      Out out(Kind::kDestroy);
      out.put(gone->number);
      return gone->connection->call(out, &gone->host, [](In&) {});
    });
  }
  static astra_net_status submit(astra_net_sim* sim, const astra_net_transfer* items, size_t n,
                                 size_t* accepted, astra_net_error* err) {
    return on(sim, err, "submit", [&](Sim& one) { ::submit(one, items, n, accepted); });
  }
  static astra_net_status advance(astra_net_sim* sim, int64_t until_ps, int64_t lookahead_ps,
                                  int64_t* now_ps, uint32_t* stop, astra_net_error* err) {
    return on(sim, err, "advance",
              [&](Sim& one) { return ::advance(one, until_ps, lookahead_ps, now_ps, stop); });
  }
  static astra_net_status poll(astra_net_sim* sim, astra_net_completion* out, size_t capacity,
                               size_t* count, astra_net_error* err) {
    return on(sim, err, "poll", [&](Sim& one) { take(one, out, capacity, count); });
  }
  static astra_net_status exchange(astra_net_sim* sim, astra_net_exchange* x,
                                   astra_net_error* err) {
    return on(sim, err, "exchange", [&](Sim& one) { ::exchange(one, x); });
  }
  static void interrupt(astra_net_sim* sim) {
    if (sim != nullptr) sim_of(sim)->connection->interrupt(sim_of(sim)->number);
  }
  static astra_net_status set_link(astra_net_sim* sim, int32_t link, int64_t at_ps,
                                   double bandwidth_scale, astra_net_error* err) {
    return on(sim, err, "set_link",
              [&](Sim& one) { ::set_link(one, link, at_ps, bandwidth_scale); });
  }
  static astra_net_status stats(astra_net_sim* sim, uint8_t* out, size_t capacity, size_t* needed,
                                astra_net_error* err) {
    return on(sim, err, "stats", [&](Sim& one) {
      bytes(one, Kind::kStats, out, capacity, needed, [](std::string text) { return text; });
    });
  }
  static astra_net_status snapshot(astra_net_sim* sim, astra_net_sim** out, astra_net_error* err) {
    return on(sim, err, "snapshot",
              [&](Sim& one) { *need(out, "out") = handle_of(::snapshot(one)); });
  }
  static astra_net_status peek(astra_net_sim* sim, int64_t* next_ps, astra_net_error* err) {
    return on(sim, err, "peek", [&](Sim& one) { ::peek(one, next_ps); });
  }
  static astra_net_status save(astra_net_sim* sim, uint8_t* out, size_t capacity, size_t* needed,
                               astra_net_error* err) {
    return on(sim, err, "save", [&](Sim& one) {
      bytes(one, Kind::kSave, out, capacity, needed, [&](std::string inner) {
        astra::Writer archive;
        visit(archive, one, inner);
        return archive.sealed(one.owner());
      });
    });
  }
};

size_t slot_of(const std::string& address, const std::string& token, const Served& served) {
  const std::lock_guard<std::mutex> lock(slots_mutex);
  for (size_t i = 0; i < kSlots; ++i) {
    if (slots[i] && slots[i]->address == address && slots[i]->token == token &&
        slots[i]->served == served)
      return i;
    if (!slots[i]) {
      slots[i].emplace(Slot{address, token, served});
      return i;
    }
  }
  throw Error(ASTRA_NET_INTERNAL,
              "a process can use " + std::to_string(kSlots) + " backends elsewhere, not more");
}

void fill(astra_net_backend& out, uint32_t version, size_t size, size_t slot) {
  const uint32_t has = slots[slot]->served.welcome.entries;
  out.struct_size = static_cast<uint32_t>(size);
  out.abi_version = version;
  out.info = kEntries[slot].info;
  out.create = kEntries[slot].create;
  out.destroy = Calls::destroy;
  out.submit = Calls::submit;
  out.advance = Calls::advance;
  out.poll = Calls::poll;
  out.interrupt = (has & remote::kHasInterrupt) != 0 ? Calls::interrupt : nullptr;
  out.set_link = (has & remote::kHasSetLink) != 0 ? Calls::set_link : nullptr;
  out.stats = (has & remote::kHasStats) != 0 ? Calls::stats : nullptr;
  out.snapshot = (has & remote::kHasSnapshot) != 0 ? Calls::snapshot : nullptr;
  if (version >= ASTRA_NET_VERSION_1_1)
    out.exchange = (has & remote::kHasExchange) != 0 ? Calls::exchange : nullptr;
  if (version < ASTRA_NET_VERSION_1_2) return;
  out.save = (has & remote::kHasSave) != 0 ? Calls::save : nullptr;
  out.load = (has & remote::kHasSave) != 0 ? kEntries[slot].load : nullptr;
  out.peek = (has & remote::kHasPeek) != 0 ? Calls::peek : nullptr;
}

}  // namespace

extern "C" astra_net_status astra_remote_open(const char* address, const char* token,
                                              uint32_t version, astra_net_backend* out,
                                              char* served, size_t served_size,
                                              astra_net_error* err) {
  return guarded(err, "connect", [&] {
    if (version < ASTRA_NET_VERSION_1_0 || version > ASTRA_NET_VERSION_1_3)
      throw Error(ASTRA_NET_UNSUPPORTED,
                  "version " + std::to_string(version) + " is not 1000 to 1003");
    const size_t size = version == ASTRA_NET_VERSION_1_0   ? offsetof(astra_net_backend, exchange)
                        : version == ASTRA_NET_VERSION_1_1 ? offsetof(astra_net_backend, save)
                                                           : sizeof(astra_net_backend);
    if (out == nullptr || out->struct_size < size)
      invalid("out is NULL or its struct_size is too small");
    const std::string where = need(address, "address");
    const std::string secret = token == nullptr ? "" : token;
    const Served found = Connection(Address(where), secret).served();
    if (version > found.welcome.version)
      throw Error(ASTRA_NET_UNSUPPORTED, "the server's library speaks version " +
                                             std::to_string(found.welcome.version) + " at most");
    fill(*out, version, size, slot_of(where, secret, found));
    if (served != nullptr && served_size > 0) {
      const size_t length = std::min(found.served.size(), served_size - 1);
      std::memcpy(served, found.served.data(), length);
      served[length] = '\0';
    }
    return ASTRA_NET_OK;
  });
}
