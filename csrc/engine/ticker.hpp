// SPDX-License-Identifier: MIT
//
// A clock beside a running engine: when to report progress, and when to interrupt a call that has
// lasted a tick; the twin of astra_bridge/engine/ticker.py.
//
// Its thread starts when it is needed.  Most calls of Engine::advance are over before (a small run, a
// session in many steps), and a thread costs more than they do, the more the busier the machine is.
#ifndef ASTRA_ENGINE_TICKER_HPP
#define ASTRA_ENGINE_TICKER_HPP

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "astra_net.h"

namespace engine {

class Ticker {
 public:
  // `interrupt` is NULL where the backend cannot be interrupted.
  Ticker(void (*interrupt)(astra_net_sim*), astra_net_sim* sim, double period_s)
      : interrupt_(interrupt), sim_(sim), period_(period_s) {}
  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;

  // The simulation may be destroyed after this, so no interrupt may be under way.
  ~Ticker() {
    if (!thread_.joinable()) return;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      end_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  // True once after each tick.
  bool due() {
    if (!ticks_ && --unasked_ == 0) ask();
    return due_.load(std::memory_order_relaxed) && due_.exchange(false, std::memory_order_relaxed);
  }

  // A call that may last long: odd while it does.
  void enter() {
    if (interrupt_ != nullptr && !ticks_) start();
    calls_.fetch_add(1, std::memory_order_relaxed);
  }
  void leave() { calls_.fetch_add(1, std::memory_order_relaxed); }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kShort{10};
  static constexpr int kUnasked = 16;

  // Asking for the time takes as long as half of what is done for a message.
  [[gnu::noinline]] void ask() {
    unasked_ = kUnasked;
    if (Clock::now() - begin_ > kShort) start();
  }
  void start() {
    ticks_ = true;
    thread_ = std::thread([this] { run(); });
  }

  void run() {
    uint64_t before = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    while (!wake_.wait_for(lock, period_, [this] { return end_; })) {
      due_.store(true, std::memory_order_relaxed);
      const uint64_t now = calls_.load(std::memory_order_relaxed);
      if (interrupt_ != nullptr && now % 2 == 1 && now == before) interrupt_(sim_);
      before = now;
    }
  }

  void (*interrupt_)(astra_net_sim*);
  astra_net_sim* sim_;
  std::chrono::duration<double> period_;
  Clock::time_point begin_ = Clock::now();
  std::atomic<bool> due_{false};
  std::atomic<uint64_t> calls_{0};
  bool end_ = false;
  bool ticks_ = false;  // the thread has been started
  int unasked_ = kUnasked;  // times that due() is called before it looks at the clock
  std::mutex mutex_;
  std::condition_variable wake_;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace engine

#endif  // ASTRA_ENGINE_TICKER_HPP
