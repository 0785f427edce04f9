// SPDX-License-Identifier: MIT
//
// The shared bus between NPU and memory, after LogGP; the twin of astra_bridge/engine/bus.py, which
// explains it.  All times here are ns.
#ifndef ASTRA_ENGINE_BUS_HPP
#define ASTRA_ENGINE_BUS_HPP

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

#include "program.hpp"

namespace engine {

// A delay beyond the range of time, which the engine reports.
struct BusDelay {
  double ns;
};

// What a bus needs of the engine: the clock, and a way to be called later.
struct BusHost {
  std::function<int64_t()> now_ns;
  std::function<void(int64_t delay_ns, std::function<void()>)> later;
};

class SharedBus {
 public:
  SharedBus(const BusHost& host, const LogGP& loggp, bool with_inner = true)
      : inner_(with_inner ? std::make_unique<SharedBus>(host, inner_of(loggp), false) : nullptr),
        npu_(host, loggp, inner_.get()),
        memory_(host, loggp, nullptr) {
    npu_.partner = &memory_;
    memory_.partner = &npu_;
  }

  using Done = std::function<void()>;
  void to_memory(int64_t bytes, bool reduced, bool send_back, Done done) {
    npu_.request(bytes, reduced, send_back, std::move(done));
  }
  void to_npu(int64_t bytes, bool reduced, bool send_back, Done done) {
    memory_.request(bytes, reduced, send_back, std::move(done));
  }

 private:
  static LogGP inner_of(LogGP loggp) {
    loggp.G_ns_per_byte = 0.0038;
    return loggp;
  }

  struct Request {
    int64_t bytes;
    bool reduced, send_back;
    Done done;
  };
  using Item = std::shared_ptr<Request>;

  class Side {
   public:
    Side(const BusHost& host, const LogGP& loggp, SharedBus* inner)
        : host_(host), loggp_(loggp), inner_(inner) {}
    Side* partner = nullptr;

    void request(int64_t bytes, bool reduced, bool send_back, Done done) {
      Item item = std::make_shared<Request>(Request{bytes, reduced, send_back, std::move(done)});
      if (inner_) {
        inner_->to_npu(bytes, false, false, [this, item] { queue_send(item); });
        return;
      }
      sends_.push_back(item);
      if (state_ == State::kFree) try_send();
    }

   private:
    enum class State { kFree, kSending, kReceiving };
    static constexpr int kInARow = 8;
    static constexpr int64_t kReductionSetupNs = 50;
    static constexpr double kMostNs = 9.2e15;  // 2^63 ps

    static int64_t whole(double delay_ns) {
      if (!(delay_ns < kMostNs)) throw BusDelay{delay_ns};
      return static_cast<int64_t>(delay_ns);
    }

    void queue_send(const Item& item) {
      sends_.push_back(item);
      go_on();
    }
    void go_on() {
      if (state_ == State::kFree && !sends_.empty()) try_send();
    }
    void try_send() {
      if (in_a_row_ > kInARow && !partner->sends_.empty() && partner->in_a_row_ <= kInARow) {
        if (partner->state_ == State::kFree) partner->go_on();
        return;
      }
      const int64_t now = host_.now_ns();
      int64_t offset = loggp_.o_ns;
      if (previous_ == State::kSending && loggp_.o_ns + (now - last_transfer_) <= loggp_.g_ns)
        offset = loggp_.g_ns - (now - last_transfer_);
      const Item item = sends_.front();
      partner->receive(item, offset);
      sends_.pop_front();
      state_ = State::kSending;
      const double gaps = loggp_.G_ns_per_byte * static_cast<double>(item->bytes - 1);
      host_.later(whole(static_cast<double>(offset) + gaps), [this] { sent(); });
    }
    void receive(const Item& item, int64_t offset) {
      receives_.push_back(item);
      previous_ = state_;
      state_ = State::kReceiving;
      const double gaps = static_cast<double>(item->bytes - 1) * loggp_.G_ns_per_byte;
      const double delay = static_cast<double>(offset) + gaps + static_cast<double>(loggp_.L_ns) +
                           static_cast<double>(loggp_.o_ns);
      host_.later(whole(delay), [this] { received(); });
      in_a_row_ = 0;
    }
    void sent() {
      last_transfer_ = host_.now_ns();
      previous_ = state_;
      state_ = State::kFree;
      ++in_a_row_;
      go_on();
    }
    void received() {
      last_transfer_ = host_.now_ns();
      previous_ = state_;
      if (receives_.size() < 2) state_ = State::kFree;
      const Item item = receives_.front();
      if (item->reduced) {
        item->reduced = false;
        receives_.pop_front();
        if (inner_)
          inner_->to_memory(item->bytes, false, true, [this, item] { queue_reduction(item); });
        else
          reductions_.push_back(item);
        reduce();
      } else if (item->send_back) {
        item->send_back = false;
        receives_.pop_front();
        send_back(item);
      } else {
        retire(item, receives_);
      }
      go_on();
    }
    void queue_reduction(const Item& item) {
      reductions_.push_back(item);
      reduce();
      go_on();
    }
    void reduce() {
      if (reducing_ || reductions_.empty()) return;
      reducing_ = true;
      const int64_t hundreds = reductions_.front()->bytes / 100;
      whole(static_cast<double>(hundreds) * static_cast<double>(loggp_.reduction_ns));
      host_.later(hundreds * loggp_.reduction_ns + kReductionSetupNs, [this] { reduced(); });
    }
    void reduced() {
      reducing_ = false;
      const Item item = reductions_.front();
      if (item->send_back) {
        item->send_back = false;
        reductions_.pop_front();
        send_back(item);
      } else {
        retire(item, reductions_);
      }
      reduce();
      go_on();
    }
    void send_back(const Item& item) {
      if (inner_)
        inner_->to_memory(item->bytes, false, true, [this, item] { queue_send(item); });
      else
        sends_.push_back(item);
    }
    void retire(const Item& item, std::deque<Item>& queue) {
      if (inner_) {
        queue.pop_front();
        inner_->to_memory(item->bytes, false, false, [this, item] {
          item->done();
          go_on();
        });
      } else {
        item->done();
        queue.pop_front();
      }
    }

    const BusHost& host_;
    const LogGP loggp_;
    SharedBus* inner_;
    State state_ = State::kFree, previous_ = State::kFree;
    int64_t last_transfer_ = 0;
    int in_a_row_ = 0;
    bool reducing_ = false;
    std::deque<Item> sends_, receives_, reductions_;
  };

  std::unique_ptr<SharedBus> inner_;
  Side npu_, memory_;
};

}  // namespace engine

#endif  // ASTRA_ENGINE_BUS_HPP
