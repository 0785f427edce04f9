// SPDX-License-Identifier: MIT
//
// One of the simulators that a composite network is made of, with its clock: the calls of its table,
// whose failures become errors that name it.
#ifndef ASTRA_COMPOSITE_PART_HPP
#define ASTRA_COMPOSITE_PART_HPP

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "astra_flat_map.hpp"
#include "astra_net.hpp"

namespace composite {

using astra_net::Error;
using astra_net::kNever;

class Part {
 public:
  Part(const astra_net::Part& given, const astra_net_host* host)
      : backend_(given.backend), table_(given.table) {
    info_.struct_size = sizeof info_;
    astra_net_error err = fresh();
    check(table_->info(&info_, &err), err);
    err = fresh();
    check(table_->create(given.config, host, &sim_, &err), err);
    if (sim_ == nullptr) throw Error(ASTRA_NET_INTERNAL, backend_ + ": create gave no simulation");
  }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;
  ~Part() { table_->destroy(sim_); }

  bool can(uint64_t capability) const { return (info_.capabilities & capability) != 0; }
  const std::string& backend() const { return backend_; }
  uint32_t traffic_classes() const { return info_.traffic_classes; }
  // The present of this part: no event of it is left before.
  int64_t now_ps() const { return now_ps_; }
  int64_t in_flight() const { return in_flight_; }

  // As many of these as there is room for; they leave `waiting`, those of the front first.
  void submit(std::vector<astra_net_transfer>& waiting) {
    size_t accepted = 0;
    astra_net_error err = fresh();
    check(table_->submit(sim_, waiting.data(), waiting.size(), &accepted, &err), err);
    if (accepted > waiting.size()) lies("submit took " + std::to_string(accepted) + " transfers");
    in_flight_ += static_cast<int64_t>(accepted);
    waiting.erase(waiting.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(accepted));
  }

  // Run to a time or the first completions, and hand out those; false where it was interrupted.
  bool advance(int64_t until_ps, std::vector<astra_net_completion>& done) {
    uint32_t stop = 0;
    astra_net_error err = fresh();
    int64_t reached_ps = now_ps_;
    const astra_net_status status = table_->advance(sim_, until_ps, 0, &reached_ps, &stop, &err);
    if (status != ASTRA_NET_INTERRUPTED) check(status, err);
    if (reached_ps < now_ps_ || reached_ps > until_ps || reached_ps == kNever)
      lies("advance went from " + std::to_string(now_ps_) + " to " + std::to_string(reached_ps) +
           " ps");
    now_ps_ = reached_ps;
    const int64_t most = 2 * in_flight_;  // each may have been SENT, too
    for (;;) {
      constexpr size_t kBatch = 256;
      const size_t first = done.size();
      done.resize(first + kBatch);
      size_t count = 0;
      err = fresh();
      check(table_->poll(sim_, done.data() + first, kBatch, &count, &err), err);
      if (count > kBatch) lies("poll gave " + std::to_string(count) + " records");
      done.resize(first + count);
      if (static_cast<int64_t>(done.size()) > most) lies("poll gives records without end");
      count_delivered(done.data() + first, count);
      if (count < kBatch) break;
    }
    return status != ASTRA_NET_INTERRUPTED;
  }

  int64_t peek() {
    int64_t next_ps = kNever;
    astra_net_error err = fresh();
    check(table_->peek(sim_, &next_ps, &err), err);
    return std::max(next_ps, now_ps_);
  }

  void exchange(astra_net_exchange& x) {
    x.struct_size = sizeof x;
    const astra_net_exchange given = x;
    astra_net_error err = fresh();
    check(table_->exchange(sim_, &x, &err), err);
    if (x.completion_count > given.capacity || x.completions != given.completions)
      lies("exchange gave " + std::to_string(x.completion_count) + " records");
    if (x.now_ps < given.now_ps || x.now_ps > given.until_ps || x.next_ps < x.now_ps)
      lies("exchange went to " + std::to_string(x.now_ps) + " ps, and on to " +
           std::to_string(x.next_ps));
    if (x.place < given.place || x.place > astra_net::kMostPlace)
      lies("exchange drew places up to " + std::to_string(x.place));
    now_ps_ = x.now_ps;
    in_flight_ += static_cast<int64_t>(x.start_count);
    count_delivered(x.completions, x.completion_count);
  }

  void set_link(int32_t link, int64_t at_ps, double bandwidth_scale) {
    astra_net_error err = fresh();
    check(table_->set_link(sim_, link, at_ps, bandwidth_scale, &err), err);
  }

  // JSON, "{}" where it has none.
  std::string stats() {
    std::string text;
    size_t needed = 0;
    // The text may grow between asking for its size and asking for it.
    for (int tries = 0; tries < 8; ++tries) {
      astra_net_error err = fresh();
      auto* room = reinterpret_cast<uint8_t*>(text.empty() ? nullptr : text.data());
      const astra_net_status status = table_->stats(sim_, room, text.size(), &needed, &err);
      if (status == ASTRA_NET_UNSUPPORTED) return "{}";
      check(status, err);
      if (needed <= text.size()) {
        text.resize(needed);
        break;
      }
      text.resize(needed);
    }
    return text.empty() ? "{}" : text;
  }

  void interrupt() noexcept { table_->interrupt(sim_); }

  // What it carries, by the id that it knows it by.
  astra::FlatMap<int32_t> carried;

  [[noreturn]] void lies(const std::string& what) const {
    throw Error(ASTRA_NET_INTERNAL, backend_ + " broke the contract: " + what);
  }

 private:
  void count_delivered(const astra_net_completion* records, size_t count) {
    for (size_t i = 0; i < count; ++i) in_flight_ -= records[i].kind == ASTRA_NET_DELIVERED;
    if (in_flight_ < 0) lies("more arrives than was sent");
  }
  static astra_net_error fresh() {
    astra_net_error err{};
    err.struct_size = sizeof err;
    err.item = -1;
    return err;
  }
  void check(astra_net_status status, const astra_net_error& err) const {
    if (status == ASTRA_NET_OK) return;
    // That it was called wrongly is a fault of the composite, not of its caller.
    const bool ours = status == ASTRA_NET_INVALID || status == ASTRA_NET_BAD_STATE;
    throw Error(ours && sim_ != nullptr ? ASTRA_NET_INTERNAL : status,
                backend_ + ": " + err.message, -1, err.native_code);
  }

  std::string backend_;
  const astra_net_backend* table_;
  astra_net_info info_{};
  astra_net_sim* sim_ = nullptr;
  int64_t now_ps_ = 0, in_flight_ = 0;
};

}  // namespace composite

#endif  // ASTRA_COMPOSITE_PART_HPP
